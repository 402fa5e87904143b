//! [`SseBody`]: passes the inner body through, until the shutdown ends it at an event's boundary.

use std::{
    fmt, mem,
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
        // An event stream never tells its length, not even where it is known: the server would
        // write a `Content-Length` of it.
        is_stream: bool,
        until: Option<Until>,
    }
}

/// When a stream ends early, and what is known of where it stands.
pub(super) struct Until {
    shutdown: Shutdown,
    /// Registered with the first poll, so that a response that is dropped leaves no trace.
    waiting: Option<Waiting>,
    /// Our bytes would not belong into an encoded body.
    encoded: bool,
    /// Where the stream stands, unless it may end between any two chunks.
    tail: Option<Tail>,
}

impl Until {
    /// `whole_chunks`: the stream may end behind any chunk, and not only behind a whole event.
    pub(super) fn new(shutdown: Shutdown, whole_chunks: bool, encoded: bool) -> Self {
        Self {
            shutdown,
            waiting: None,
            encoded,
            // Events cannot be told apart in an encoded body. Its reader sees it cut off, as
            // after a lost connection, and comes back.
            tail: (!whole_chunks && !encoded).then(Tail::default),
        }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Self {
            shutdown, waiting, ..
        } = self;
        let begun = waiting
            .get_or_insert_with(|| shutdown.wait())
            .poll(cx)
            .is_ready();
        begun && self.tail.as_ref().is_none_or(Tail::is_boundary)
    }
}

impl<B> SseBody<B> {
    pub(super) fn untouched(body: B) -> Self {
        Self {
            inner: Some(body),
            is_stream: false,
            until: None,
        }
    }

    /// An event stream, or, for `None`, the place of one in an answer to HEAD.
    pub(super) fn stream(body: Option<B>, until: Option<Until>) -> Self {
        Self {
            inner: body,
            is_stream: true,
            until,
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
        match frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref())
        {
            Some(data) => {
                if let Some(tail) = &mut until.tail {
                    tail.follow(data);
                }
            }
            // The end, an error or trailers: nothing of ours may follow.
            None => this.inner.set(None),
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
        match &self.inner {
            Some(inner) if !self.is_stream => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// Where a stream of someone else's stands: may it end here?
///
/// It may between two lines, unless a field of an event is among those since the last blank one.
/// Comments do not count: behind a heartbeat, a silent stream may not go on for hours.
#[derive(Default)]
pub(super) struct Tail {
    in_line: bool,
    in_event: bool,
    after_cr: bool,
}

impl Tail {
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if !self.in_line {
                match first {
                    b'\n' | b'\r' => self.in_event = false,
                    // `data`, `event` and `id`, or a byte order mark in front of one. All else
                    // is nothing to a client, or is acted on at once.
                    b'd' | b'e' | b'i' | 0xEF => self.in_event = true,
                    _ => {}
                }
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.in_line = true;
                return;
            };
            self.in_line = false;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
    }

    pub(super) fn is_boundary(&self) -> bool {
        !self.in_line && !self.in_event
    }
}

impl<B> fmt::Debug for SseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseBody")
            .field("ended", &self.inner.is_none())
            .finish_non_exhaustive()
    }
}
