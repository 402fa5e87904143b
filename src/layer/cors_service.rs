//! [`Guarded`]: acts on what [`Hosts`] and [`Cors`] decide about a request, before any handler
//! runs.
//!
//! tower-http answers what is allowed; everything else goes round it, since it would take every
//! OPTIONS request for a preflight, and never refuses one.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_http::cors;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    layer::{
        answer,
        body::SseBody,
        cors::{Cors, decision::Verdict, hosts::Hosts},
    },
    sse::headers,
};

/// axum clones its routes for every connection, with the layers around them, and a `cors::Cors`
/// takes about 350 bytes: who asks for nothing of it has none.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: Inner<S>,
    settings: Option<Arc<Settings>>,
    hosts: Option<Arc<Hosts>>,
}

#[derive(Clone, Debug)]
enum Inner<S> {
    Plain(S),
    Cors(Box<cors::Cors<S>>),
}

impl<S> Inner<S> {
    fn get_mut(&mut self) -> &mut S {
        match self {
            Self::Plain(inner) => inner,
            Self::Cors(cors) => cors.get_mut(),
        }
    }
}

#[derive(Debug)]
struct Settings {
    cors: Cors,
    vary: Vec<HeaderName>,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, cors: Option<Cors>, hosts: Option<Arc<Hosts>>) -> Self {
        let inner = match &cors {
            None => Inner::Plain(inner),
            Some(cors) => Inner::Cors(Box::new(cors.layer().layer(inner))),
        };
        let settings = cors.map(|cors| {
            let vary = cors.vary();
            Arc::new(Settings { cors, vary })
        });
        Self {
            inner,
            settings,
            hosts,
        }
    }
}

impl<S, RequestBody, B> Service<Request<RequestBody>> for Guarded<S>
where
    S: Service<Request<RequestBody>, Response = Response<SseBody<B>>>,
{
    type Response = Response<SseBody<B>>;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.get_mut().poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        if self
            .hosts
            .as_ref()
            .is_some_and(|hosts| !hosts.serve(&request))
        {
            #[cfg(feature = "tracing")]
            tracing::debug!(
                host = ?request.headers().get(http::header::HOST),
                "refused a request for a host that is not listed"
            );
            return GuardedFuture {
                kind: Kind::Answered {
                    status: StatusCode::MISDIRECTED_REQUEST,
                    reason: "this server is not known by that host name",
                },
                settings: self.settings.clone(),
            };
        }
        let verdict = match &self.settings {
            None => Verdict::Pass,
            Some(settings) => settings.cors.judge(&request),
        };
        let kind = match verdict {
            Verdict::Pass => Kind::Passed {
                future: self.inner.get_mut().call(request),
                grant: HeaderMap::new(),
            },
            Verdict::AllowOptions => {
                let origin = request.headers().get(http::header::ORIGIN);
                let grant = self.settings.as_ref();
                let grant = grant.map(|settings| settings.cors.headers(origin));
                Kind::Passed {
                    grant: grant.unwrap_or_default(),
                    future: self.inner.get_mut().call(request),
                }
            }
            Verdict::Allow => match &mut self.inner {
                Inner::Cors(cors) => Kind::Allowed {
                    future: cors.call(request),
                },
                // Nothing is allowed without settings to say so.
                Inner::Plain(inner) => Kind::Passed {
                    future: inner.call(request),
                    grant: HeaderMap::new(),
                },
            },
            Verdict::Refuse(reason) => {
                #[cfg(feature = "tracing")]
                tracing::debug!(
                    reason,
                    origin = ?request.headers().get(http::header::ORIGIN),
                    "refused a request"
                );
                Kind::Answered {
                    status: StatusCode::FORBIDDEN,
                    reason,
                }
            }
            Verdict::GrantNothing => Kind::Answered {
                status: StatusCode::NO_CONTENT,
                reason: "",
            },
        };
        GuardedFuture {
            kind,
            settings: self.settings.clone(),
        }
    }
}

pin_project! {
    pub(super) struct GuardedFuture<F> {
        #[pin]
        kind: Kind<F>,
        settings: Option<Arc<Settings>>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F> {
        Passed { #[pin] future: F, grant: HeaderMap },
        Allowed { #[pin] future: cors::ResponseFuture<F> },
        Answered { status: StatusCode, reason: &'static str },
    }
}

impl<F, B, E> Future for GuardedFuture<F>
where
    F: Future<Output = Result<Response<SseBody<B>>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.kind.project() {
            KindProj::Passed { future, grant } => {
                let mut response = ready!(future.poll(cx))?;
                response.headers_mut().extend(grant.drain());
                response
            }
            KindProj::Allowed { future } => ready!(future.poll(cx))?,
            KindProj::Answered { status, reason } => answer::text(*status, reason),
        };
        if let Some(settings) = this.settings {
            headers::vary(response.headers_mut(), &settings.vary);
        }
        Poll::Ready(Ok(response))
    }
}
