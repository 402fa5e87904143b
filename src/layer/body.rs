//! [`SseBody`]: passes the inner body through, until the shutdown ends it at an event's boundary.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    retry,
    shutdown::{Shutdown, Waiting},
};

pin_project! {
    /// The body of a response that went through [`SseLayer`](super::SseLayer).
    pub struct SseBody<B> {
        // `None` once it has ended.
        #[pin]
        inner: Option<B>,
        until: Option<Until>,
    }
}

/// When a stream ends early, and what is known of where it stands.
struct Until {
    shutdown: Shutdown,
    /// Registered with the first poll, so that a response that is dropped leaves no trace.
    waiting: Option<Waiting>,
    /// May the stream end behind any chunk, or only behind a blank line?
    whole_chunks: bool,
    /// Our bytes would not belong into an encoded body.
    encoded: bool,
    tail: Tail,
}

impl<B> SseBody<B> {
    pub(super) fn untouched(body: B) -> Self {
        Self {
            inner: Some(body),
            until: None,
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            inner: None,
            until: None,
        }
    }

    pub(super) fn until(shutdown: Shutdown, body: B, whole_chunks: bool, encoded: bool) -> Self {
        Self {
            inner: Some(body),
            until: Some(Until {
                shutdown,
                waiting: None,
                whole_chunks,
                encoded,
                tail: Tail::default(),
            }),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for SseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(until) = this.until else {
            return inner.poll_frame(cx);
        };
        if until.is_over(cx) {
            this.inner.set(None);
            return Poll::Ready((!until.encoded).then(|| Ok(Frame::data(retry::come_back()))));
        }
        let frame = ready!(inner.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            until.tail.follow(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            None => true,
            Some(inner) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.until) {
            (None, _) => SizeHint::with_exact(0),
            (Some(inner), None) => inner.size_hint(),
            (Some(_), Some(_)) => SizeHint::default(),
        }
    }
}

impl Until {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Self {
            shutdown, waiting, ..
        } = self;
        let begun = waiting
            .get_or_insert_with(|| shutdown.wait())
            .poll(cx)
            .is_ready();
        begun && (self.whole_chunks || self.tail.is_boundary())
    }
}

/// The last bytes of a stream, as far as they tell whether an event is whole.
#[derive(Default)]
struct Tail {
    /// Line ends in a row at the end, counted in bytes without CRLF counting twice.
    ends: u8,
    carriage_return: bool,
    begun: bool,
}

impl Tail {
    fn follow(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        // Four bytes hold two line ends, whatever they consist of.
        let skipped = bytes.len().saturating_sub(4);
        if skipped > 0 {
            self.ends = 0;
            self.carriage_return = false;
        }
        for byte in &bytes[skipped..] {
            match byte {
                b'\n' if self.carriage_return => {}
                b'\n' | b'\r' => self.ends = self.ends.saturating_add(1),
                _ => self.ends = 0,
            }
            self.carriage_return = *byte == b'\r';
        }
    }

    /// Nothing was sent yet, or a blank line was the last thing.
    fn is_boundary(&self) -> bool {
        !self.begun || self.ends >= 2
    }
}

impl<B> fmt::Debug for SseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseBody")
            .field("ended", &self.inner.is_none())
            .finish_non_exhaustive()
    }
}
