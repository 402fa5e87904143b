//! The bodies of our responses: [`StreamBody`] for any stream, [`SubscriptionBody`] for a
//! subscription.
//!
//! Every chunk contains whole events, or whole lines between events (law 9). The first bytes are
//! sent at once. No body fails: on an error it ends cleanly, and the client reconnects (rules 63
//! and 64).

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

/// A chunk is sent once it has this many bytes or events. Otherwise, a source that is always ready
/// could delay its first event indefinitely.
const CHUNK: usize = 16 * 1024;
const CHUNK_EVENTS: usize = 256;

/// The smallest capacity of a chunk.
const MIN_CAPACITY: usize = 128;

/// Appends an item as a whole event. Appends nothing on an error.
pub(crate) type EncodeItem<T> = fn(T, &mut Vec<u8>) -> Result<(), BoxError>;

/// Turns the error that ends a stream into its last event.
pub(crate) type OnError = Box<dyn FnOnce(BoxError) -> Option<Event> + Send>;

pin_project! {
    /// Sends a stream's items as events, and heartbeats while there are none.
    pub(crate) struct StreamBody<S: Stream> {
        // `None` once it has ended.
        #[pin]
        source: Option<S>,
        #[pin]
        timer: Option<Sleep>,
        // When the next heartbeat is due. The timer can fire earlier, because writes do not reset
        // it.
        due: Option<Instant>,
        encode: EncodeItem<S::Item>,
        on_error: Option<OnError>,
        prelude: Vec<u8>,
        // A little more than the length of the last chunk, so that the next one rarely reallocates.
        capacity: usize,
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
            capacity: MIN_CAPACITY,
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
                    // Only now, so that a silent stream holds no buffer.
                    if events == 1 {
                        chunk.reserve(*this.capacity);
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
                tracing::warn!(%error, "an event stream ended with an error");
                let last = this.on_error.take().and_then(|make| make(error));
                if let Some(event) = last {
                    event.encode(&mut chunk);
                }
            }
        }

        let interval = this.heartbeat.interval();
        if !chunk.is_empty() {
            *this.capacity = (chunk.len() + chunk.len() / 8).clamp(MIN_CAPACITY, CHUNK + CHUNK / 2);
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

/// Sends a subscription's chunks.
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

/// A single chunk. It has no size hint, so no `Content-Length` is sent (rule 51).
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

/// A subscription that is created at the first poll.
#[allow(clippy::large_enum_variant)] // Most bodies are polled at once, so most values are large.
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
