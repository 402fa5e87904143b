//! [`ResponseFuture`]: waits for the inner service and turns its response into the layer's.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::{
    answer::Answer,
    body::{SseBody, Stream, StreamStart},
    layer::SseLayer,
    limits::{Full, Slot},
};
#[cfg(feature = "listener")]
use crate::connection::Peer;
use crate::{
    lifetime::{access::Carried, end::EndConditions},
    sse::headers::{self, WholeChunks},
};

pin_project! {
    /// The future of [`SseService`](super::SseService).
    ///
    /// ```
    /// # use axum::{body::Body, http::{Request, Response}};
    /// # use axum_sse::SseLayer;
    /// # use tower::{Layer, Service, ServiceExt, service_fn};
    /// use axum_sse::layer::ResponseFuture;
    ///
    /// # let inner = service_fn(async |_: Request<Body>| Ok::<_, axum::Error>(Response::new(Body::empty())));
    /// # let mut service = SseLayer::new().layer(inner);
    /// let future: ResponseFuture<_> = service.call(Request::new(Body::empty()));
    /// # drop(future);
    /// ```
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        info: RequestInfo,
        settings: Arc<SseLayer>,
    }
}

// `Called` becomes `Answered` if the handler takes too long.
pin_project! {
    #[project = StateProj]
    enum State<F> {
        Called { #[pin] future: F },
        Answered { answer: Answer },
    }
}

/// What the response depends on, taken from the request's head before the inner service gets it.
pub(super) struct RequestInfo {
    pub(super) is_head: bool,
    /// HTTP/1.1, without `Connection: close`.
    keep_alive: bool,
    /// The key under which [`Limits`](super::Limits) count the stream.
    pub(super) key: Option<String>,
    /// The slot within the limits, if it is taken before the handler runs.
    pub(super) slot: Option<Slot>,
    /// Limits how long the handler may hold that slot.
    timeout: Option<Pin<Box<Sleep>>>,
    /// `Accept` has been checked, so the answer depends on it.
    pub(super) depends_on_accept: bool,
    /// The value of `Access-Control-Allow-Origin`, if the sender is allowed to read.
    #[cfg(feature = "cors")]
    pub(super) allowed_origin: Option<HeaderValue>,
    #[cfg(feature = "listener")]
    peer: Option<Peer>,
}

impl RequestInfo {
    pub(super) fn new<B>(request: &Request<B>) -> Self {
        let is_http_11 = request.version() == Version::HTTP_11;
        Self {
            is_head: request.method() == Method::HEAD,
            keep_alive: is_http_11 && !asks_to_close(request.headers()),
            key: None,
            slot: None,
            timeout: None,
            depends_on_accept: false,
            #[cfg(feature = "cors")]
            allowed_origin: None,
            #[cfg(feature = "listener")]
            peer: Peer::of(request),
        }
    }

    /// Ready once the handler has held a slot for too long without an answer.
    fn poll_too_slow(&mut self, settings: &SseLayer, cx: &mut Context<'_>) -> Poll<Full> {
        let (Some(limits), Some(_)) = (&settings.limits, &self.slot) else {
            return Poll::Pending;
        };
        let timeout = self
            .timeout
            .get_or_insert_with(|| Box::pin(sleep(limits.answer_within)));
        timeout.as_mut().poll(cx).map(|()| limits.too_slow())
    }
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

impl<F> ResponseFuture<F> {
    pub(super) fn called(future: F, info: RequestInfo, settings: Arc<SseLayer>) -> Self {
        Self {
            state: State::Called { future },
            info,
            settings,
        }
    }

    pub(super) fn answered(answer: Answer, info: RequestInfo, settings: Arc<SseLayer>) -> Self {
        Self {
            state: State::Answered { answer },
            info,
            settings,
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<SseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (info, settings) = (this.info, &**this.settings);
        let mut response = match this.state.as_mut().project() {
            StateProj::Called { future } => match future.poll(cx) {
                Poll::Ready(response) => {
                    // Taken in any case: a caller may keep this future after it has completed,
                    // and the slot must not stay with it.
                    let slot = info.slot.take();
                    #[allow(unused_mut)] // Without the feature `cors`.
                    let mut response = from_inner(response?, slot, info, settings);
                    #[cfg(feature = "cors")]
                    if settings.cors.is_some() {
                        headers::remove_cors(response.headers_mut());
                    }
                    response
                }
                Poll::Pending => {
                    let full = ready!(info.poll_too_slow(settings, cx));
                    let mut answer = Answer::Full(full);
                    let response = answer.response();
                    // Drops the handler's future, and then frees the slot.
                    this.state.set(State::Answered { answer });
                    info.slot = None;
                    response
                }
            },
            StateProj::Answered { answer } => answer.response(),
        };
        if info.depends_on_accept {
            headers::vary(response.headers_mut(), &[ACCEPT]);
        }
        #[cfg(feature = "cors")]
        if let Some(policy) = &settings.cors {
            headers::vary(response.headers_mut(), policy.vary());
            if let Some(origin) = &info.allowed_origin {
                policy.grant(response.headers_mut(), origin);
            }
        }
        Poll::Ready(Ok(response))
    }
}

/// The response of the inner service: a stream that the layer looks after, or anything else.
fn from_inner<B: Body>(
    response: Response<B>,
    slot: Option<Slot>,
    info: &mut RequestInfo,
    settings: &SseLayer,
) -> Response<SseBody<B>> {
    let (mut parts, body) = response.into_parts();
    let access = parts.extensions.remove::<Carried>().and_then(Carried::take);
    let is_bare = settings.set_content_type
        && parts.status == StatusCode::OK
        && !parts.headers.contains_key(CONTENT_TYPE)
        && body.size_hint().exact().is_none();
    if !is_bare && !headers::is_event_stream(&parts.headers) {
        return Response::from_parts(parts, SseBody::untouched(body));
    }

    let slot = match &settings.limits {
        Some(limits) if !info.is_head && slot.is_none() => match limits.take(info.key.as_deref()) {
            Ok(slot) => Some(slot),
            Err(full) => return Answer::Full(full).response(),
        },
        _ => slot,
    };
    let is_ending = settings
        .shutdown
        .as_ref()
        .is_some_and(|shutdown| shutdown.has_begun());
    let keep_alive = if parts.extensions.insert(PassedLayer).is_some() {
        // An inner layer has decided, and may know of a shutdown that this one does not know of.
        parts.headers.remove(CONNECTION)
    } else {
        let keep = settings.keep_alive && info.keep_alive && !is_ending;
        keep.then_some(HeaderValue::from_static("keep-alive"))
    };
    headers::apply(&mut parts.headers);
    if let Some(keep_alive) = keep_alive {
        parts.headers.insert(CONNECTION, keep_alive);
    }
    if info.is_head {
        // The body is dropped without a poll, so a stream of this crate leaves no trace.
        return Response::from_parts(parts, SseBody::default());
    }
    let start = StreamStart {
        conditions: EndConditions {
            shutdown: settings.shutdown.clone(),
            lifetime: settings.lifetime,
            access,
        },
        #[cfg(feature = "listener")]
        peer: info.peer.take(),
    };
    let whole_chunks = parts.extensions.get::<WholeChunks>().is_some();
    let is_encoded = parts.headers.contains_key(CONTENT_ENCODING);
    let stream = Stream::new(start, whole_chunks, is_encoded, slot);
    Response::from_parts(parts, SseBody::stream(body, stream))
}

/// Marks a response that has passed an [`SseLayer`] as an event stream.
#[derive(Clone, Copy)]
struct PassedLayer;

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
