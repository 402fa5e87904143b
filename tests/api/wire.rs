//! Reads a response chunk by chunk and watches the (paused) clock.

use std::time::Duration;

use axum::{body::Body, response::IntoResponse};
use axum_sse::testing::{Item, Message, Parser};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

pub(crate) struct Wire(Body);

impl Wire {
    pub(crate) fn new(response: impl IntoResponse) -> Self {
        Self(response.into_response().into_body())
    }

    /// The next chunk, however long it takes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let data = self.0.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(data.to_vec()).unwrap())
    }

    /// The next chunk, and how long it took.
    pub(crate) async fn timed(&mut self) -> (Option<String>, Duration) {
        let asked = Instant::now();
        (self.chunk().await, asked.elapsed())
    }

    /// The next chunk, which must be ready.
    #[track_caller]
    pub(crate) fn at_once(&mut self) -> impl Future<Output = Option<String>> {
        let caller = std::panic::Location::caller();
        async move {
            let (chunk, time) = self.timed().await;
            assert!(time.is_zero(), "{caller}: {chunk:?} took {time:?}");
            chunk
        }
    }

    /// All chunks that are ready, joined.
    pub(crate) async fn all_at_once(&mut self) -> String {
        let mut all = String::new();
        // The resolution of tokio's clock: nothing else is due earlier.
        while let Ok(Some(chunk)) = timeout(Duration::from_millis(1), self.chunk()).await {
            all.push_str(&chunk);
        }
        all
    }

    /// Asserts that nothing comes for that long, not even the end.
    #[track_caller]
    pub(crate) fn silent_for(&mut self, time: Duration) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let asked = Instant::now();
            if let Ok(chunk) = timeout(time, self.chunk()).await {
                panic!("{caller}: {chunk:?} after {:?}", asked.elapsed());
            }
        }
    }

    pub(crate) fn body(&self) -> &Body {
        &self.0
    }
}

/// Equal except for the millisecond by which tokio's clock rounds up.
#[track_caller]
pub(crate) fn assert_time(actual: Duration, expected: Duration) {
    assert!(
        actual >= expected && actual <= expected + Duration::from_millis(1),
        "{actual:?} and not {expected:?}"
    );
}

/// The events in a piece of a stream.
pub(crate) fn messages(bytes: &str) -> Vec<Message> {
    Parser::new()
        .push(bytes.as_bytes())
        .into_iter()
        .filter_map(|item| match item {
            Item::Message(message) => Some(message),
            _ => None,
        })
        .collect()
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
