//! [`SseLayer`]: the settings, and how a service is wrapped.

use tower_layer::Layer;

use super::service::SseService;
use crate::shutdown::Shutdown;

/// Gives every event stream the head it needs, and ends it on [`Shutdown`].
///
/// On responses that are `text/event-stream`:
///
/// * `Content-Type` is exactly that, once (rule 48);
/// * `Cache-Control` has `no-cache`, `no-store` and `no-transform`, beside what the handler set
///   itself, in one field (rules 49, 53);
/// * `X-Accel-Buffering: no`, unless the handler set it: without, nginx withholds even the head
///   (rule 50);
/// * `Connection: keep-alive` in answer to HTTP/1.1 requests that do not ask for `close`, and
///   not during a shutdown (rules 51, 57);
/// * no `Content-Length`, validator or other header that an endless response must not have
///   (rules 51, 54);
/// * no body in answer to HEAD (rule 56).
///
/// Put it on the routes that stream, not on the whole app:
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_sse::{Shutdown, Sse, SseLayer};
///
/// let shutdown = Shutdown::new();
/// let streams = Router::new()
///     .route("/events", get(async || Sse::new(tokio_stream::iter(["a", "b"]))))
///     .layer(SseLayer::new().shutdown(shutdown.clone()));
/// let app: Router = Router::new().route("/", get("a page")).merge(streams);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SseLayer {
    pub(super) set_content_type: bool,
    pub(super) keep_alive: bool,
    pub(super) shutdown: Option<Shutdown>,
}

impl SseLayer {
    /// A layer that sets heads only.
    pub fn new() -> Self {
        Self {
            set_content_type: false,
            keep_alive: true,
            shutdown: None,
        }
    }

    /// Also makes an event stream of a 200 without `Content-Type` whose body has no known
    /// length: for handlers that return a bare streaming body. Off by default.
    pub fn set_content_type(mut self) -> Self {
        self.set_content_type = true;
        self
    }

    /// Whether `Connection: keep-alive` is sent; it is by default. On HTTP/1.1 connections are
    /// kept anyway; some old intermediaries want to read it.
    pub fn connection_keep_alive(mut self, send: bool) -> Self {
        self.keep_alive = send;
        self
    }

    /// Ends the streams when `shutdown` begins: ours between any two chunks, others behind
    /// their next whole event. Each client is told to come back after two to four seconds, at a
    /// moment of its own. Streams that start afterwards get 200, that, and the end.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = Some(shutdown);
        self
    }
}

impl Default for SseLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for SseLayer {
    type Service = SseService<S>;

    fn layer(&self, inner: S) -> SseService<S> {
        SseService::new(inner, self.clone())
    }
}
