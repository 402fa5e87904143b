//! The bodies of our own responses: [`StreamBody`] over any stream, [`SubscriptionBody`] over a
//! subscription.
//!
//! Every chunk holds whole events, or whole lines between events (law 9), and the first bytes go
//! out at once. Neither body ever fails: what ends a stream ends it cleanly, and the client
//! reconnects (rules 63, 64).

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::{
    channel::subscription::Subscription,
    error::BoxError,
    event::{Event, Heartbeat, encode},
};

/// A chunk goes out once it is this large, or holds this many events: a source that is always
/// ready must not keep what is there from the client.
const CHUNK: usize = 16 * 1024;
const CHUNK_EVENTS: usize = 256;

/// For the first event, whose length nobody knows, and at least for any other.
const ROOM: usize = 128;

/// Appends an item as a whole event, or fails and appends nothing.
pub(crate) type EncodeItem<T> = fn(T, &mut Vec<u8>) -> Result<(), BoxError>;

/// Makes the last event out of the error that ends a stream.
pub(crate) type OnError = Box<dyn FnOnce(BoxError) -> Option<Event> + Send>;

pin_project! {
    /// A stream's items as events, with a heartbeat where there are none for a while.
    pub(crate) struct StreamBody<S: Stream> {
        // `None` once it has ended.
        #[pin]
        source: Option<S>,
        #[pin]
        timer: Option<Sleep>,
        // When the connection will have been silent for an interval. The timer may be set to an
        // earlier time, since it is not reset with every write.
        due: Option<Instant>,
        encode: EncodeItem<S::Item>,
        on_error: Option<OnError>,
        prelude: Vec<u8>,
        // What the last chunk took. The next one is hardly ever much longer, and has not to grow
        // to it.
        room: usize,
        heartbeat: Heartbeat,
    }
}

impl<S: Stream> StreamBody<S> {
    pub(crate) fn new(
        source: S,
        encode: EncodeItem<S::Item>,
        on_error: Option<OnError>,
        retry: Option<u32>,
        heartbeat: Heartbeat,
    ) -> Self {
        let mut prelude = encode::HEARTBEAT.to_vec();
        if let Some(millis) = retry {
            encode::retry(&mut prelude, millis);
        }
        Self {
            source: Some(source),
            timer: None,
            due: None,
            encode,
            on_error,
            prelude,
            room: ROOM,
            heartbeat,
        }
    }
}

impl<S: Stream> Body for StreamBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut this = self.project();
        let mut chunk = std::mem::take(this.prelude);
        let mut events = 0;
        while chunk.len() < CHUNK && events < CHUNK_EVENTS {
            let Some(source) = this.source.as_mut().as_pin_mut() else {
                break;
            };
            let error = match source.poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(item)) => {
                    events += 1;
                    // Not before: a source that is silent costs nothing.
                    if events == 1 {
                        chunk.reserve(*this.room);
                    }
                    match (this.encode)(item, &mut chunk) {
                        Ok(()) => continue,
                        Err(error) => Some(error),
                    }
                }
                Poll::Ready(None) => None,
            };
            this.source.set(None);
            if let Some(error) = error {
                #[cfg(feature = "tracing")]
                tracing::warn!(%error, "an error ends an event stream");
                let last = this.on_error.take().and_then(|make| make(error));
                if let Some(event) = last {
                    event.encode(&mut chunk);
                }
            }
        }

        let interval = this.heartbeat.interval();
        if !chunk.is_empty() {
            *this.room = (chunk.len() + chunk.len() / 8).clamp(ROOM, CHUNK + CHUNK / 2);
            *this.due = interval.map(|interval| Instant::now() + interval);
            return Poll::Ready(Some(Ok(Frame::data(chunk.into()))));
        }
        if this.source.is_none() {
            return Poll::Ready(None);
        }
        let (Some(interval), Some(due)) = (interval, *this.due) else {
            return Poll::Pending;
        };
        loop {
            let Some(mut timer) = this.timer.as_mut().as_pin_mut() else {
                this.timer.set(Some(tokio::time::sleep_until(due)));
                continue;
            };
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                *this.due = Some(Instant::now() + interval);
                return Poll::Ready(Some(Ok(Frame::data(this.heartbeat.bytes()))));
            }
            timer.reset(due);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none() && self.prelude.is_empty()
    }
}

impl<S: Stream> fmt::Debug for StreamBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").finish_non_exhaustive()
    }
}

/// A subscription as a body; all the work is the subscription's.
#[derive(Debug)]
pub(crate) struct SubscriptionBody(pub(crate) Subscription);

impl Body for SubscriptionBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = ready!(self.get_mut().0.poll_chunk(cx));
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// One chunk, and the end. Tells no length, as an event stream should not (rule 51).
#[derive(Debug)]
pub(crate) struct ChunkBody(pub(crate) Option<Bytes>);

impl Body for ChunkBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// A subscription that is made with the first poll.
#[allow(clippy::large_enum_variant)] // It waits until it is polled, and hardly ever longer.
pub(crate) enum LazyBody {
    Waiting(Option<Box<dyn FnOnce() -> Subscription + Send>>),
    Begun(SubscriptionBody),
}

impl Body for LazyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Self::Waiting(begin) = &mut *self {
            let Some(begin) = begin.take() else {
                return Poll::Ready(None);
            };
            *self = Self::Begun(SubscriptionBody(begin()));
        }
        match &mut *self {
            Self::Waiting(_) => Poll::Ready(None),
            Self::Begun(body) => Pin::new(body).poll_frame(cx),
        }
    }
}
