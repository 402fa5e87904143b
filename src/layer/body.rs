//! [`SseBody`]: passes the inner body through until a [`StreamEnd`] ends it, after a whole event.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

#[cfg(feature = "listener")]
use crate::connection::{self, Peer};
use crate::{
    event::retry,
    layer::{boundary::EventBoundary, limits::Slot},
    lifetime::end::{EndConditions, StreamEnd},
};

pin_project! {
    /// The body of a response that went through [`SseLayer`](crate::SseLayer).
    ///
    /// ```
    /// # use axum::{body::Body, http::{Request, Response}};
    /// # use axum_sse::SseLayer;
    /// # use tower::{Layer, Service, ServiceExt, service_fn};
    /// use axum_sse::layer::SseBody;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let inner = service_fn(async |_: Request<Body>| Ok::<_, axum::Error>(Response::new(Body::empty())));
    /// # let service = SseLayer::new().layer(inner);
    /// let response: Response<SseBody<Body>> = service.oneshot(Request::new(Body::empty())).await.unwrap();
    /// # drop(response);
    /// # }
    /// ```
    pub struct SseBody<B> {
        #[pin]
        content: Content<B>,
        // `None` for responses that are no event stream, and once a stream has ended.
        stream: Option<Stream>,
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B> {
        Inner { #[pin] body: B },
        Answer { bytes: Bytes, is_sized: bool },
        Ended,
    }
}

/// What the layer does with an event stream.
pub(super) enum Stream {
    /// Nothing ends it early, so its chunks pass without following a pointer.
    Unwatched {
        _slot: Option<Slot>,
    },
    Watched(Box<Watched>),
}

/// An event stream that the layer may have to end.
pub(super) struct Watched {
    end: End,
    /// The waker that the last poll has left at `end`, if `end` was quiet. As long as both stay the
    /// same, there is no need to poll `end`.
    waker: Option<Waker>,
    /// The position in the stream, unless it may end between any two chunks.
    boundary: Option<EventBoundary>,
    /// Plain bytes must not be added to an encoded body.
    is_encoded: bool,
    // Declared after `end`, so dropped after it: its drop makes the connection look for streams
    // that nothing else owns.
    #[cfg(feature = "listener")]
    _carried: Option<connection::Carried>,
    /// Free when the server drops the body.
    _slot: Option<Slot>,
}

enum End {
    /// The body has not been polled yet.
    NotBegun(StreamStart),
    /// Nothing ends the stream early after all.
    Never,
    Running(Arc<StreamEnd>),
}

/// What a stream needs when it begins, which is with the first poll of its body.
pub(super) struct StreamStart {
    pub(super) conditions: EndConditions,
    #[cfg(feature = "listener")]
    pub(super) peer: Option<Peer>,
}

impl Stream {
    /// `whole_chunks`: the stream may end after any chunk, not only after a whole event.
    pub(super) fn new(
        start: StreamStart,
        whole_chunks: bool,
        is_encoded: bool,
        slot: Option<Slot>,
    ) -> Self {
        if start.conditions.is_empty() {
            return Self::Unwatched { _slot: slot };
        }
        // The events of an encoded body cannot be told apart. It is cut anywhere; to its client
        // that is a lost connection, after which it reconnects.
        let has_boundary = !whole_chunks && !is_encoded;
        Self::Watched(Box::new(Watched {
            end: End::NotBegun(start),
            waker: None,
            boundary: has_boundary.then(EventBoundary::default),
            is_encoded,
            #[cfg(feature = "listener")]
            _carried: None,
            _slot: slot,
        }))
    }
}

impl Watched {
    fn begin(&mut self) {
        let End::NotBegun(start) = mem::replace(&mut self.end, End::Never) else {
            return;
        };
        if let Some(end) = start.conditions.begin() {
            let end = Arc::new(end);
            #[cfg(feature = "listener")]
            {
                self._carried = connection::carries(&end, start.peer);
            }
            self.end = End::Running(end);
        }
    }

    /// Ready once the stream has to end here, with its last bytes.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let End::NotBegun(_) = self.end {
            self.begin();
        }
        let End::Running(end) = &self.end else {
            return Poll::Pending;
        };
        let waker = self.waker.as_ref();
        if end.is_quiet() && waker.is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let Poll::Ready(due) = end.poll_due(cx) else {
            self.waker = end.is_quiet().then(|| cx.waker().clone());
            return Poll::Pending;
        };
        if self.is_at_boundary() {
            let retry = due.retry && !self.is_encoded;
            return Poll::Ready(retry.then(|| retry::come_back(retry::RETURN)));
        }
        // The current event does not come to its end.
        ready!(end.poll_overdue(cx));
        Poll::Ready(None)
    }

    /// Whether a chunk that the inner body has just produced must be dropped, because the access
    /// has ended since `poll_end`. The rest of an event that has begun may still be sent.
    fn must_drop_chunk(&self, cx: &mut Context<'_>) -> bool {
        match &self.end {
            End::Running(end) => self.is_at_boundary() && end.is_access_over(cx),
            _ => false,
        }
    }

    fn is_at_boundary(&self) -> bool {
        self.boundary
            .as_ref()
            .is_none_or(EventBoundary::is_boundary)
    }
}

impl<B> SseBody<B> {
    /// The body of a response that is not an event stream.
    pub(super) fn untouched(body: B) -> Self {
        Self {
            content: Content::Inner { body },
            stream: None,
        }
    }

    /// The body of an event stream.
    pub(super) fn stream(body: B, stream: Stream) -> Self {
        Self {
            content: Content::Inner { body },
            stream: Some(stream),
        }
    }

    /// An event stream of these bytes.
    pub(super) fn answer(bytes: Bytes) -> Self {
        Self {
            content: Content::Answer {
                bytes,
                is_sized: false,
            },
            stream: None,
        }
    }

    /// These bytes, which are not an event stream: their length is reported.
    pub(super) fn text(bytes: Bytes) -> Self {
        Self {
            content: Content::Answer {
                bytes,
                is_sized: true,
            },
            stream: None,
        }
    }
}

/// An empty body.
impl<B> Default for SseBody<B> {
    fn default() -> Self {
        Self {
            content: Content::Ended,
            stream: None,
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
        let body = match this.content.as_mut().project() {
            ContentProj::Inner { body } => body,
            ContentProj::Answer { bytes, .. } => {
                let bytes = mem::take(bytes);
                this.content.set(Content::Ended);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            ContentProj::Ended => return Poll::Ready(None),
        };
        // Before the inner body, so that a stream that always has a chunk ready ends too.
        if let Some(Stream::Watched(stream)) = this.stream
            && let Poll::Ready(last) = stream.poll_end(cx)
        {
            this.content.set(Content::Ended);
            // On HTTP/2 the last bytes may have to wait for the client's window. Until the server
            // drops the body, the stream is open: it counts, and it can delay a shutdown.
            if last.is_none() {
                *this.stream = None;
            }
            return Poll::Ready(last.map(|last| Ok(Frame::data(last))));
        }
        let frame = ready!(body.poll_frame(cx));
        // The access may have been revoked since `poll_end`, and this chunk published after that.
        if let Some(Stream::Watched(stream)) = this.stream
            && stream.must_drop_chunk(cx)
        {
            this.content.set(Content::Ended);
            *this.stream = None;
            return Poll::Ready(None);
        }
        let data = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref());
        match (data, &mut *this.stream) {
            (Some(data), Some(Stream::Watched(stream))) => {
                if let Some(boundary) = &mut stream.boundary {
                    boundary.follow(data);
                }
            }
            (Some(_), Some(Stream::Unwatched { .. })) | (_, None) => {}
            // The end, an error or trailers: no bytes of the layer may follow.
            (None, Some(_)) => {
                this.content.set(Content::Ended);
                *this.stream = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Inner { body } => body.is_end_stream(),
            Content::Answer { .. } => false,
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            // The length of an event stream is never reported, even where it is known: the server
            // would turn it into a `Content-Length`.
            Content::Inner { body } if self.stream.is_none() => body.size_hint(),
            Content::Answer {
                bytes,
                is_sized: true,
            } => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for SseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseBody")
            .field("ended", &matches!(self.content, Content::Ended))
            .finish_non_exhaustive()
    }
}
