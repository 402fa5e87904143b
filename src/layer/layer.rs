//! [`SseLayer`]: the settings.

#[cfg(feature = "cors")]
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::{limits::Limits, service::SseService};
use crate::lifetime::shutdown::Shutdown;
#[cfg(feature = "cors")]
use crate::{
    error::Error,
    layer::cors::{Cors, OriginAllowlist, hosts::Hosts, policy::Policy},
};

/// Sets the right response headers on every event stream, enforces a CORS allowlist and limits,
/// and closes streams on [`Shutdown`].
///
/// On responses that are `text/event-stream`:
///
/// * `Content-Type` is exactly that, because some clients reject or misread parameters;
/// * `Cache-Control` has `no-cache`, `no-store` and `no-transform`, merged with the handler's
///   directives into one field;
/// * `X-Accel-Buffering: no`, unless the handler has set it: without it, nginx holds back even
///   the response headers;
/// * `Connection: keep-alive` in answer to HTTP/1.1 requests that do not ask for `close`, except
///   during a shutdown;
/// * no `Content-Length`, validator or other header that is wrong for an endless response;
/// * no body in answer to HEAD.
///
/// Everything else is off by default. Put the layer on the routes that stream, not on the whole
/// app ([why](crate::layer)):
///
/// ```
/// # #[cfg(feature = "cors")]
/// # fn main() -> Result<(), axum_sse::Error> {
/// use axum::{Router, routing::get};
/// use axum_sse::{OriginAllowlist, Shutdown, Sse, SseLayer, layer::Limits};
/// use std::time::Duration;
///
/// let shutdown = Shutdown::new();
/// let layer = SseLayer::new()
///     // Pages of this origin may read, with cookies; requests of all others are refused.
///     .origins(OriginAllowlist::new(["https://app.example"])?)
///     .limits(Limits::new().total(10_000))
///     .lifetime(Duration::from_secs(60 * 60))
///     .shutdown(shutdown.clone());
/// let streams = Router::new()
///     .route("/events", get(async || Sse::new(tokio_stream::iter(["a", "b"]))))
///     .route_layer(layer);
/// let app: Router = Router::new().route("/", get("a page")).merge(streams);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "cors"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SseLayer {
    pub(super) set_content_type: bool,
    pub(super) keep_alive: bool,
    pub(super) strict_accept: bool,
    pub(super) limits: Option<Limits>,
    pub(super) lifetime: Option<Duration>,
    pub(super) shutdown: Option<Shutdown>,
    #[cfg(feature = "cors")]
    pub(super) cors: Option<Arc<Policy>>,
    #[cfg(feature = "cors")]
    pub(super) hosts: Option<Arc<Hosts>>,
}

impl SseLayer {
    /// A layer that only sets response headers.
    pub fn new() -> Self {
        Self {
            set_content_type: false,
            keep_alive: true,
            strict_accept: false,
            limits: None,
            lifetime: None,
            shutdown: None,
            #[cfg(feature = "cors")]
            cors: None,
            #[cfg(feature = "cors")]
            hosts: None,
        }
    }

    /// Pages of these origins may read the streams, with cookies; requests of all other origins get
    /// 403 before the handler runs. Requests of the same origin pass. Short for
    /// `cors(Cors::new(origins))`; see [`Cors`] for what that includes.
    #[cfg(feature = "cors")]
    pub fn origins(self, origins: OriginAllowlist) -> Self {
        self.cors(Cors::new(origins))
    }

    /// Configures CORS in full. Without it, the layer sends no CORS header: pages of other origins
    /// cannot read the response, but their requests reach the handler.
    ///
    /// ```
    /// use axum_sse::{SseLayer, layer::Cors};
    ///
    /// let layer = SseLayer::new().cors(Cors::any_origin());
    /// # let _ = layer;
    /// ```
    #[cfg(feature = "cors")]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(Arc::new(Policy::new(cors)));
        self
    }

    /// The host names of this server. A request under the layer for any other name, in `Host` or
    /// in its target, gets 421 before the handler runs, whether it is for a stream or not. This
    /// protects against DNS rebinding: if the DNS name of an attacker's page resolves to this
    /// server, the browser takes the two for the same origin, and the host name is the only sign
    /// of the attack.
    ///
    /// An entry is a name, or a pattern such as `*.example.com` for exactly one more label. It has
    /// no scheme and no port and is valid for every port. Case and a trailing dot are ignored. IP
    /// addresses, `localhost` and names below `localhost` always pass, because rebinding needs a
    /// DNS name of the attacker; so an empty list is right for a server that listens on loopback.
    /// A request without `Host` passes, since no browser sends one.
    ///
    /// If a reverse proxy replaces `Host` with its own name for this server, list that name, and
    /// check the public name at the proxy.
    ///
    /// A layer with only this setting can and should wrap the whole app, since pages and JSON can
    /// be read in the same way.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{SseLayer, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let app: Router = Router::new()
    ///     .route("/", get("a page"))
    ///     .layer(SseLayer::new().hosts(["app.example", "*.preview.example"])?);
    /// let rebound = Client::new(app).header("host", "attacker.example");
    /// assert_eq!(rebound.get("/").await.unwrap_err().status(), 421);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidHost`](crate::ErrorKind::InvalidHost) if an entry is neither a name nor
    /// a pattern or is longer than [`OriginAllowlist::MAX_ENTRY_LEN`], or if there are more than
    /// [`OriginAllowlist::MAX_ENTRIES`] entries. The error lists the bad entries:
    ///
    /// ```
    /// let error = axum_sse::SseLayer::new().hosts(["https://app.example", "app.example:80"]);
    /// assert_eq!(
    ///     error.unwrap_err().to_string(),
    ///     "host \"https://app.example\": a scheme; a host is a name alone; \
    ///      host \"app.example:80\": a port; a host is listed for all ports",
    /// );
    /// ```
    #[cfg(feature = "cors")]
    pub fn hosts<I, S>(mut self, hosts: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        self.hosts = Some(Arc::new(Hosts::new(hosts)?));
        Ok(self)
    }

    /// Limits how many streams may be open at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// The maximum lifetime of a stream, at least a second. Each stream ends after a whole event,
    /// at a random time in the last quarter, and its client reconnects. This rebalances connections
    /// onto new nodes and re-runs authorization. Intermediaries cut long streams anyway.
    pub fn lifetime(mut self, time: Duration) -> Self {
        // Multiplied by a share as a float, a larger value could round to more than `MAX`.
        self.lifetime = Some(time.clamp(Duration::from_secs(1), Duration::MAX / 2));
        self
    }

    /// Answers 406 to requests whose `Accept` excludes `text/event-stream`, before the handler
    /// runs. Off by default: an `EventSource` always accepts it, and other clients often send an
    /// incorrect `Accept`. OPTIONS is exempt.
    ///
    /// ```
    /// let layer = axum_sse::SseLayer::new().strict_accept();
    /// # let _ = layer;
    /// ```
    pub fn strict_accept(mut self) -> Self {
        self.strict_accept = true;
        self
    }

    /// Also treats a 200 without `Content-Type` whose body has no known length as an event stream:
    /// for handlers that return a bare streaming body. Off by default.
    ///
    /// ```
    /// # use axum::{Router, body::Body, routing::get};
    /// # use axum_sse::{SseLayer, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let chunks = || tokio_stream::iter([Ok::<_, std::io::Error>("data: hello\n\n")]);
    /// let app: Router = Router::new()
    ///     .route("/bare", get(async move || Body::from_stream(chunks())))
    ///     .route_layer(SseLayer::new().set_content_type());
    /// let mut page = Client::new(app).get("/bare").await.unwrap();
    /// assert_eq!(page.next_message().await.data, "hello");
    /// # }
    /// ```
    pub fn set_content_type(mut self) -> Self {
        self.set_content_type = true;
        self
    }

    /// Whether to send `Connection: keep-alive`; it is sent by default. HTTP/1.1 connections are
    /// persistent without it, but some old intermediaries expect it.
    ///
    /// ```
    /// let layer = axum_sse::SseLayer::new().connection_keep_alive(false);
    /// # let _ = layer;
    /// ```
    pub fn connection_keep_alive(mut self, send: bool) -> Self {
        self.keep_alive = send;
        self
    }

    /// Ends the streams when `shutdown` begins: streams of this crate between any two chunks,
    /// others after their current event, or after a second if that event does not end. Each client
    /// gets a `retry` with a random time of two to four seconds. A stream that starts afterwards
    /// gets a 200 with such a `retry` and ends.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        #[cfg(all(feature = "listener", feature = "tracing"))]
        shutdown.given_to_a_layer();
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
