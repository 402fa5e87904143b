//! [`SseService`]: decides about a request, then answers it or calls the inner service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use super::{
    accept,
    answer::Answer,
    body::SseBody,
    future::{RequestInfo, ResponseFuture},
    layer::SseLayer,
};
#[cfg(feature = "cors")]
use crate::layer::cors::decision::Verdict;

/// The service that [`SseLayer`] makes of an inner one.
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
// axum clones its routes, and the layers around them, for every connection. So all settings share
// one `Arc`.
#[derive(Clone, Debug)]
pub struct SseService<S> {
    inner: S,
    settings: Arc<SseLayer>,
}

impl<S> SseService<S> {
    pub(super) fn new(inner: S, settings: SseLayer) -> Self {
        Self {
            inner,
            settings: Arc::new(settings),
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
        let settings = self.settings.clone();
        let mut info = RequestInfo::new(&request);
        let (parts, body) = request.into_parts();
        match settings.decide(&parts, &mut info) {
            Ok(()) => {
                let request = Request::from_parts(parts, body);
                ResponseFuture::called(self.inner.call(request), info, settings)
            }
            Err(answer) => ResponseFuture::answered(answer, info, settings),
        }
    }
}

impl SseLayer {
    /// Whether the inner service is called; if not, what the layer answers. The decision uses the
    /// request's head alone, and its order is part of the contract: nothing counts against a limit
    /// before the origin has been checked.
    fn decide(&self, request: &Parts, info: &mut RequestInfo) -> Result<(), Answer> {
        #[cfg(feature = "cors")]
        self.decide_by_origin(request, info)?;

        info.depends_on_accept = self.strict_accept;
        let is_options = request.method == Method::OPTIONS;
        if self.strict_accept && !is_options && !accept::takes_event_streams(&request.headers) {
            return Err(Answer::NotAcceptable);
        }
        if let Some(limits) = self.limits.as_ref().filter(|_| !info.is_head) {
            info.key = limits.key(request);
            if limits.before_handler && !is_options {
                info.slot = Some(limits.take(info.key.as_deref()).map_err(Answer::Full)?);
            }
        }
        Ok(())
    }

    /// The part of the decision that protects against pages of other sites.
    #[cfg(feature = "cors")]
    fn decide_by_origin(&self, request: &Parts, info: &mut RequestInfo) -> Result<(), Answer> {
        if self
            .hosts
            .as_ref()
            .is_some_and(|hosts| !hosts.serve(request))
        {
            #[cfg(feature = "tracing")]
            tracing::debug!(
                host = ?request.headers.get(http::header::HOST),
                "refused a request for a host that is not listed"
            );
            return Err(Answer::Misdirected);
        }
        let Some(policy) = &self.cors else {
            return Ok(());
        };
        match policy.judge(request) {
            Verdict::Pass => Ok(()),
            Verdict::Allow(origin) => {
                info.allowed_origin = Some(origin);
                Ok(())
            }
            Verdict::Preflight(origin) => Err(Answer::Preflight(policy.preflight(origin))),
            Verdict::EmptyPreflight => Err(Answer::EmptyPreflight),
            Verdict::Refuse(reason) => {
                #[cfg(feature = "tracing")]
                tracing::debug!(
                    reason,
                    origin = ?request.headers.get(http::header::ORIGIN),
                    "refused a request"
                );
                Err(Answer::Forbidden(reason))
            }
        }
    }
}
