//! [`Beats`]: waits until heartbeats have been sent, however fast or slow the machine is.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use tokio::sync::watch;

/// Counts the heartbeats of one connection: chunks that contain nothing else.
#[derive(Clone)]
pub(crate) struct Beats {
    is_beat: fn(&[u8]) -> bool,
    sent: watch::Sender<u64>,
}

impl Beats {
    pub(crate) fn new() -> Self {
        Self::of(|chunk| chunk.starts_with(b":") && chunk[1..].trim_ascii().is_empty())
    }

    /// Counts the chunks that satisfy `is_beat`.
    pub(crate) fn of(is_beat: fn(&[u8]) -> bool) -> Self {
        let sent = watch::Sender::new(0);
        Self { is_beat, sent }
    }

    pub(crate) fn counted(&self, response: impl IntoResponse) -> Response {
        let Self { is_beat, sent } = self.clone();
        response.into_response().map(|body| {
            Body::new(body.map_frame(move |frame| {
                if frame.data_ref().is_some_and(|chunk| is_beat(chunk)) {
                    sent.send_modify(|sent| *sent += 1);
                }
                frame
            }))
        })
    }

    /// Waits until `beats` more have been sent.
    pub(crate) async fn more(&mut self, beats: u64) {
        let mut sent = self.sent.subscribe();
        let enough = *sent.borrow() + beats;
        // Cannot fail, because `self` holds the sender.
        let _ = sent.wait_for(|sent| *sent >= enough).await;
    }
}
