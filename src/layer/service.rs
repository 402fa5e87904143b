//! [`SseService`] and its future: the names for what is made of [`Streams`] and, with the
//! feature `cors`, the guard in front of them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    body::SseBody,
    layer::SseLayer,
    streams::{Streams, StreamsFuture},
};

#[cfg(feature = "cors")]
type Front<S> = super::cors_service::Guarded<Streams<S>>;
#[cfg(not(feature = "cors"))]
type Front<S> = Streams<S>;

#[cfg(feature = "cors")]
type FrontFuture<F> = super::cors_service::GuardedFuture<StreamsFuture<F>>;
#[cfg(not(feature = "cors"))]
type FrontFuture<F> = StreamsFuture<F>;

/// A service whose event streams are looked after. Made by [`SseLayer`].
///
/// ```
/// use axum_sse::{SseLayer, layer::SseService};
/// use tower::{Layer, Service, service_fn};
/// # use axum::{body::Body, http::{Request, Response}};
///
/// let inner = service_fn(async |_: Request<Body>| Ok::<_, axum::Error>(Response::new(Body::empty())));
/// let mut service: SseService<_> = SseLayer::new().layer(inner);
/// // Its future is a `ResponseFuture`, and the body of its response an `SseBody`.
/// let response = service.call(Request::new(Body::empty()));
/// # let _ = response;
/// ```
#[derive(Clone, Debug)]
pub struct SseService<S> {
    front: Front<S>,
}

impl<S> SseService<S> {
    pub(super) fn new(inner: S, settings: Arc<SseLayer>) -> Self {
        #[cfg(feature = "cors")]
        let (cors, hosts) = (settings.cors.clone(), settings.hosts.clone());
        let front = Streams::new(inner, settings);
        #[cfg(feature = "cors")]
        let front = super::cors_service::Guarded::new(front, cors, hosts);
        Self { front }
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
        self.front.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        ResponseFuture {
            front: self.front.call(request),
        }
    }
}

pin_project! {
    /// The future of [`SseService`].
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
        front: FrontFuture<F>,
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<SseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().front.poll(cx)
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
