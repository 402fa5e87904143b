//! [`SseBody`]: passes the inner body through, until its [`StreamEnd`] ends it at an event's boundary.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

#[cfg(feature = "listener")]
use crate::connection::{self, Peer};
use crate::{
    event::retry,
    layer::{boundary::EventBoundary, limits::Slot},
    lifetime::{
        access::{Access, earliest},
        end::StreamEnd,
        shutdown::Shutdown,
    },
};

pin_project! {
    /// The body of a response that went through [`SseLayer`](super::SseLayer).
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
        inner: Inner<B>,
        // `None` for what is not an event stream, which passes untouched.
        stream: Option<Passage>,
    }
}

/// How an event stream passes.
pub(super) enum Passage {
    /// Nothing can end it early, so there is no box to look into with every chunk.
    Free {
        _slot: Option<Slot>,
    },
    Watched(Box<Stream>),
}

pin_project! {
    #[project = InnerProj]
    enum Inner<B> {
        Body { #[pin] body: B },
        Answer { bytes: Bytes, sized: bool },
        Ended,
    }
}

/// What the layer does with an event stream that it may have to end.
pub(super) struct Stream {
    ends: Ends,
    life: Option<Arc<StreamEnd>>,
    /// Whether the access to it may be withdrawn, and when it expires.
    is_revocable: bool,
    expires: Option<Instant>,
    /// Who was promised to be woken at the end.
    asked_by: Option<Waker>,
    /// Where the stream stands, unless it may end between any two chunks.
    tail: Option<EventBoundary>,
    /// Our bytes would not belong into an encoded body.
    encoded: bool,
    // Behind `life`, which it has to outlive.
    #[cfg(feature = "listener")]
    _carried: Option<connection::Carried>,
    /// Free again when the server has let go of the body.
    _slot: Option<Slot>,
}

/// What ends a stream early, before its first poll and after.
pub(super) enum Ends {
    /// Nothing is registered yet: a response that is dropped leaves no trace.
    Waiting {
        shutdown: Option<Shutdown>,
        /// When, from the first poll on.
        lifetime: Option<std::time::Duration>,
        access: Option<Access>,
        #[cfg(feature = "listener")]
        peer: Option<Peer>,
    },
    Begun,
}

impl Ends {
    fn are_none(&self) -> bool {
        match self {
            Self::Waiting {
                shutdown,
                lifetime,
                access,
                ..
            } => shutdown.is_none() && lifetime.is_none() && access.is_none(),
            Self::Begun => false,
        }
    }
}

impl Passage {
    /// `whole_chunks`: the stream may end behind any chunk, and not only behind a whole event.
    pub(super) fn new(ends: Ends, whole_chunks: bool, encoded: bool, slot: Option<Slot>) -> Self {
        if ends.are_none() {
            return Self::Free { _slot: slot };
        }
        Self::Watched(Box::new(Stream {
            ends,
            life: None,
            is_revocable: false,
            expires: None,
            asked_by: None,
            // Events cannot be told apart in an encoded body. Its reader sees it cut off, as
            // after a lost connection, and comes back.
            tail: (!whole_chunks && !encoded).then(EventBoundary::default),
            encoded,
            #[cfg(feature = "listener")]
            _carried: None,
            _slot: slot,
        }))
    }
}

impl Stream {
    fn begin(&mut self) {
        if matches!(self.ends, Ends::Begun) {
            return;
        }
        let Ends::Waiting {
            shutdown,
            lifetime,
            access,
            #[cfg(feature = "listener")]
            peer,
        } = std::mem::replace(&mut self.ends, Ends::Begun)
        else {
            return;
        };
        let (deadline, revocations) = access.map(Access::into_ends).unwrap_or_default();
        self.is_revocable = !revocations.is_empty();
        self.expires = deadline;
        let lifetime = lifetime.and_then(|time| {
            // A quarter of it is left to chance: streams that began together end apart.
            let time = time.mul_f64(1.0 - retry::share() / 4.0);
            Instant::now().checked_add(time)
        });
        self.life = StreamEnd::new(
            shutdown.as_ref(),
            earliest(deadline, lifetime),
            revocations,
            retry::share(),
        )
        .map(Arc::new);
        #[cfg(feature = "listener")]
        if let Some(life) = &self.life {
            self._carried = connection::carries(life, peer);
        }
    }

    /// Ready once the stream has to end here, with its last bytes.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.begin();
        let Some(life) = &self.life else {
            return Poll::Pending;
        };
        let is_known = self.asked_by.as_ref();
        if life.is_quiet() && is_known.is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let Poll::Ready(due) = life.poll_due(cx) else {
            self.asked_by = life.is_quiet().then(|| cx.waker().clone());
            return Poll::Pending;
        };
        if self.tail.as_ref().is_none_or(EventBoundary::is_boundary) {
            let retry = due.retry && !self.encoded;
            return Poll::Ready(retry.then(|| retry::come_back(retry::RETURN)));
        }
        ready!(life.poll_overdue(cx));
        Poll::Ready(None)
    }

    /// Whether the access is over by now, so that a frame that has just come must not go out. The
    /// rest of an event that has begun may.
    fn is_withdrawn(&self, cx: &mut Context<'_>) -> bool {
        if !self.tail.as_ref().is_none_or(EventBoundary::is_boundary) {
            return false;
        }
        let life = self.life.as_ref().filter(|_| self.is_revocable);
        life.is_some_and(|life| life.is_revoked(cx))
            || self.expires.is_some_and(|at| at <= Instant::now())
    }
}

impl<B> SseBody<B> {
    pub(super) fn untouched(body: B) -> Self {
        Self {
            inner: Inner::Body { body },
            stream: None,
        }
    }

    /// An event stream.
    pub(super) fn stream(body: B, passage: Passage) -> Self {
        Self {
            inner: Inner::Body { body },
            stream: Some(passage),
        }
    }

    /// An event stream of these bytes.
    pub(super) fn answer(bytes: Bytes) -> Self {
        Self {
            inner: Inner::Answer {
                bytes,
                sized: false,
            },
            stream: None,
        }
    }

    /// These bytes, and no event stream: their length is told.
    pub(super) fn text(bytes: Bytes) -> Self {
        Self {
            inner: Inner::Answer { bytes, sized: true },
            stream: None,
        }
    }
}

/// An empty body.
impl<B> Default for SseBody<B> {
    fn default() -> Self {
        Self {
            inner: Inner::Ended,
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
        let body = match this.inner.as_mut().project() {
            InnerProj::Body { body } => body,
            InnerProj::Answer { bytes, .. } => {
                let bytes = std::mem::take(bytes);
                this.inner.set(Inner::Ended);
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            InnerProj::Ended => return Poll::Ready(None),
        };
        if let Some(Passage::Watched(stream)) = this.stream
            && let Poll::Ready(last) = stream.poll_end(cx)
        {
            this.inner.set(Inner::Ended);
            // On HTTP/2 last bytes may wait for the client: until the server lets go of the body,
            // the stream is open, counts, and can hold up a shutdown.
            if last.is_none() {
                *this.stream = None;
            }
            return Poll::Ready(last.map(|last| Ok(Frame::data(last))));
        }
        let frame = ready!(body.poll_frame(cx));
        // What was published after the access was withdrawn may have come in between.
        if let Some(Passage::Watched(stream)) = this.stream
            && stream.is_withdrawn(cx)
        {
            this.inner.set(Inner::Ended);
            *this.stream = None;
            return Poll::Ready(None);
        }
        let data = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref());
        match (data, this.stream) {
            (_, None) => {}
            (Some(data), Some(passage)) => {
                if let Passage::Watched(stream) = passage
                    && let Some(tail) = &mut stream.tail
                {
                    tail.follow(data);
                }
            }
            // The end, an error or trailers: nothing of ours may follow.
            (None, stream) => {
                this.inner.set(Inner::Ended);
                *stream = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Body { body } => body.is_end_stream(),
            Inner::Answer { .. } => false,
            Inner::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            // An event stream never tells its length, not even where it is known: the server
            // would write a `Content-Length` of it.
            Inner::Body { body } if self.stream.is_none() => body.size_hint(),
            Inner::Answer { bytes, sized: true } => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for SseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseBody")
            .field("ended", &matches!(self.inner, Inner::Ended))
            .finish_non_exhaustive()
    }
}
