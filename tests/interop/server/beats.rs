//! [`Beats`]: silence that lasts until its heartbeats have been sent, on a machine of any speed.

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use tokio::sync::watch;

/// Counts the heartbeats of one connection.
#[derive(Clone)]
pub(crate) struct Beats {
    chunk: Bytes,
    sent: watch::Sender<u64>,
}

impl Beats {
    pub(crate) fn new() -> Self {
        Self::of(Bytes::from_static(b":\n"))
    }

    /// Heartbeats that look like this.
    pub(crate) fn of(chunk: Bytes) -> Self {
        let sent = watch::Sender::new(0);
        Self { chunk, sent }
    }

    pub(crate) fn counted(&self, response: impl IntoResponse) -> Response {
        let Self { chunk, sent } = self.clone();
        response.into_response().map(|body| {
            Body::new(body.map_frame(move |frame| {
                if frame.data_ref() == Some(&chunk) {
                    sent.send_modify(|sent| *sent += 1);
                }
                frame
            }))
        })
    }

    /// Until so many more have been sent.
    pub(crate) async fn more(&mut self, beats: u64) {
        let mut sent = self.sent.subscribe();
        let enough = *sent.borrow() + beats;
        // Its sender is `self`, so it is not gone.
        let _ = sent.wait_for(|sent| *sent >= enough).await;
    }
}
