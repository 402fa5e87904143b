//! [`Streams`]: looks at the request, and at the response, and acts if it is an event stream.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::{
    accept, answer,
    body::{Ends, Passage, SseBody},
    layer::SseLayer,
    limits::{Full, Slot},
};
#[cfg(feature = "listener")]
use crate::connection::Peer;
use crate::{
    lifetime::access::Carried,
    sse::headers::{self, WholeChunks},
};

#[derive(Clone, Debug)]
pub(super) struct Streams<S> {
    inner: S,
    settings: Arc<SseLayer>,
}

impl<S> Streams<S> {
    pub(super) fn new(inner: S, settings: Arc<SseLayer>) -> Self {
        Self { inner, settings }
    }
}

/// Marks an event stream that has passed a layer.
#[derive(Clone, Copy)]
struct LookedAfter;

/// What of a request matters to its response.
struct Asked {
    head: bool,
    /// HTTP/1.1, without `Connection: close`.
    keep_alive: bool,
    /// Whose stream it would be, if streams are counted by that.
    key: Option<String>,
    #[cfg(feature = "listener")]
    peer: Option<Peer>,
    /// The place within the limits, if it was taken before the handler ran.
    slot: Option<Slot>,
    /// Ends the wait for the handler, if it has that place.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Asked {
    fn by<B>(request: &Request<B>) -> Self {
        let close = request
            .headers()
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"));
        Self {
            head: request.method() == Method::HEAD,
            keep_alive: request.version() == Version::HTTP_11 && !close,
            key: None,
            #[cfg(feature = "listener")]
            peer: Peer::of(request),
            slot: None,
            alarm: None,
        }
    }

    /// Why the handler is waited for no longer.
    fn poll_too_slow(&mut self, settings: &SseLayer, cx: &mut Context<'_>) -> Poll<Full> {
        let (Some(limits), Some(_)) = (&settings.limits, &self.slot) else {
            return Poll::Pending;
        };
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep(limits.answer_within)));
        alarm.as_mut().poll(cx).map(|()| limits.too_slow())
    }
}

impl<S, RequestBody, B> Service<Request<RequestBody>> for Streams<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    type Response = Response<SseBody<B>>;
    type Error = S::Error;
    type Future = StreamsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let settings = self.settings.clone();
        let mut asked = Asked::by(&request);
        let answer = |answer| StreamsFuture {
            kind: Kind::Answered { answer },
            settings: self.settings.clone(),
        };
        let is_options = request.method() == Method::OPTIONS;
        if settings.strict_accept && !is_options && !accept::takes_event_streams(request.headers())
        {
            return answer(Answer::NotAcceptable);
        }
        if let Some(limits) = settings.limits.as_ref().filter(|_| !asked.head) {
            if limits.needs_key() {
                let (parts, body) = request.into_parts();
                asked.key = limits.key(&parts);
                request = Request::from_parts(parts, body);
            }
            if limits.before_handler && !is_options {
                match limits.take(asked.key.as_deref()) {
                    Ok(slot) => asked.slot = Some(slot),
                    Err(full) => return answer(Answer::Full(full)),
                }
            }
        }
        StreamsFuture {
            kind: Kind::Called {
                future: self.inner.call(request),
                asked,
            },
            settings,
        }
    }
}

/// What is answered without asking the handler.
#[derive(Clone, Copy)]
enum Answer {
    NotAcceptable,
    Full(Full),
}

pin_project! {
    pub(super) struct StreamsFuture<F> {
        #[pin]
        kind: Kind<F>,
        settings: Arc<SseLayer>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F> {
        Called { #[pin] future: F, asked: Asked },
        Answered { answer: Answer },
    }
}

impl<F, B, E> Future for StreamsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<SseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let settings = &**this.settings;
        let mut response = match this.kind.as_mut().project() {
            KindProj::Called { future, asked } => match future.poll(cx) {
                Poll::Ready(response) => {
                    // Whoever keeps a future that has answered keeps no place with it.
                    let slot = asked.slot.take();
                    finish(response?, asked, slot, settings)
                }
                Poll::Pending => {
                    let full = ready!(asked.poll_too_slow(settings, cx));
                    // Drops the handler's future, and gives the place back.
                    let answer = Answer::Full(full);
                    this.kind.set(Kind::Answered { answer });
                    answer::full(full)
                }
            },
            KindProj::Answered { answer } => match *answer {
                Answer::NotAcceptable => {
                    let line = "this is an event stream, and `Accept` excludes text/event-stream";
                    answer::text(StatusCode::NOT_ACCEPTABLE, line)
                }
                Answer::Full(full) => answer::full(full),
            },
        };
        #[cfg(feature = "cors")]
        if settings.cors.is_some() {
            headers::remove_cors(response.headers_mut());
        }
        if settings.strict_accept {
            headers::vary(response.headers_mut(), &[ACCEPT]);
        }
        Poll::Ready(Ok(response))
    }
}

fn finish<B: Body>(
    response: Response<B>,
    asked: &mut Asked,
    slot: Option<Slot>,
    settings: &SseLayer,
) -> Response<SseBody<B>> {
    let (mut parts, body) = response.into_parts();
    let access = parts.extensions.remove::<Carried>().and_then(Carried::take);
    let bare = settings.set_content_type
        && parts.status == StatusCode::OK
        && !parts.headers.contains_key(CONTENT_TYPE)
        && body.size_hint().exact().is_none();
    if !bare && !headers::is_event_stream(&parts.headers) {
        return Response::from_parts(parts, SseBody::untouched(body));
    }

    let slot = match &settings.limits {
        Some(limits) if !asked.head && slot.is_none() => match limits.take(asked.key.as_deref()) {
            Ok(slot) => Some(slot),
            Err(full) => return answer::full(full),
        },
        _ => slot,
    };
    let ending = settings
        .shutdown
        .as_ref()
        .is_some_and(|shutdown| shutdown.has_begun());
    let keep_alive = if parts.extensions.insert(LookedAfter).is_some() {
        // A layer within has decided, and may know of a shutdown that this one does not.
        parts.headers.remove(CONNECTION)
    } else {
        let promise = settings.keep_alive && asked.keep_alive && !ending;
        promise.then_some(HeaderValue::from_static("keep-alive"))
    };
    headers::apply(&mut parts.headers);
    if let Some(keep_alive) = keep_alive {
        parts.headers.insert(CONNECTION, keep_alive);
    }
    if asked.head {
        // The body is dropped unpolled: our own leave no trace then.
        return Response::from_parts(parts, SseBody::default());
    }
    let ends = Ends::Waiting {
        shutdown: settings.shutdown.clone(),
        lifetime: settings.lifetime,
        access,
        #[cfg(feature = "listener")]
        peer: asked.peer.take(),
    };
    let whole_chunks = parts.extensions.get::<WholeChunks>().is_some();
    let encoded = parts.headers.contains_key(CONTENT_ENCODING);
    let passage = Passage::new(ends, whole_chunks, encoded, slot);
    Response::from_parts(parts, SseBody::stream(body, passage))
}
