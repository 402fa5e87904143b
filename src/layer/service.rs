//! [`SseService`]: looks at the request, leaves the rest to the response's future.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, Version, header::CONNECTION};
use http_body::Body;
use tower_service::Service;

use super::{body::SseBody, future::ResponseFuture, layer::SseLayer};

/// A service whose event streams have the right head. Made by [`SseLayer`].
#[derive(Clone, Debug)]
pub struct SseService<S> {
    inner: S,
    settings: SseLayer,
}

impl<S> SseService<S> {
    pub(super) fn new(inner: S, settings: SseLayer) -> Self {
        Self { inner, settings }
    }
}

/// What of a request matters to the head of its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) head: bool,
    /// HTTP/1.1, without `Connection: close`.
    pub(super) keep_alive: bool,
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
        }
    }
}

impl<S, RequestBody, B> Service<Request<RequestBody>> for SseService<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    type Response = Response<SseBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let asked = Asked::by(&request);
        ResponseFuture::new(self.inner.call(request), asked, self.settings.clone())
    }
}
