//! [`SseLayer`]: the settings, and how a service is wrapped.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{limits::Limits, service::SseService};
use crate::lifetime::shutdown::Shutdown;
#[cfg(feature = "cors")]
use crate::{
    error::Error,
    layer::cors::{Cors, OriginAllowlist, hosts::Hosts},
};

/// Gives every event stream the head it needs, says who may read it from another origin, how
/// many may be open and for how long, and ends it on [`Shutdown`].
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
/// The rest is off until it is asked for. Put it on the routes that stream, not on the whole
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
    pub(super) cors: Option<Cors>,
    #[cfg(feature = "cors")]
    pub(super) hosts: Option<Arc<Hosts>>,
}

impl SseLayer {
    /// A layer that sets heads only.
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

    /// Pages of these origins may read the streams, with cookies; requests of all others get 403
    /// before the handler runs. Requests of the same origin pass. The short form of
    /// `cors(Cors::new(origins))`; see [`Cors`] for what that includes.
    #[cfg(feature = "cors")]
    pub fn origins(self, origins: OriginAllowlist) -> Self {
        self.cors(Cors::new(origins))
    }

    /// Who may read from other origins, in full. Without, no CORS header is ever sent: pages of
    /// other origins cannot read, though their requests reach the handler.
    ///
    /// ```
    /// use axum_sse::{SseLayer, layer::Cors};
    ///
    /// let layer = SseLayer::new().cors(Cors::any_origin());
    /// # let _ = layer;
    /// ```
    #[cfg(feature = "cors")]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(cors);
        self
    }

    /// The names by which browsers reach this server. Every request under the layer that asks for
    /// another, in `Host` or in its target, gets 421 before the handler runs, stream or not
    /// (rule 130): a page whose own name has been made to point to this server (DNS rebinding) is
    /// of the same origin to the browser, and nothing else gives it away.
    ///
    /// An entry is a name, or a pattern such as `*.example.com` for exactly one label more;
    /// without scheme and port, since every port counts. Case does not count, nor does a dot at
    /// the end. IP addresses, `localhost` and names below `localhost` always pass, since rebinding
    /// needs a name of the attacker's; so an empty list is right for a server that listens on
    /// loopback. A request without `Host` passes: no browser sends one.
    ///
    /// A proxy in front may send its own name for the server as `Host`: list that one then, and
    /// check the public name at the proxy.
    ///
    /// A layer with nothing but this may go around a whole app, and should, since pages and JSON
    /// are read in the same way.
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
    /// [`ErrorKind::InvalidHost`](crate::ErrorKind::InvalidHost) if an entry is not a name or a
    /// pattern, is longer than [`OriginAllowlist::MAX_ENTRY_LEN`], or if there are more than
    /// [`OriginAllowlist::MAX_ENTRIES`]. The error names the bad entries:
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

    /// How many streams may be open at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// The longest that a stream lasts, at least a second. Each ends at a moment of its own in
    /// the last quarter of that time, at a whole event, and its client comes back (rule 72):
    /// connections spread over nodes that were added, and who may read is asked again. Intermediaries cut
    /// long streams anyway.
    pub fn lifetime(mut self, time: Duration) -> Self {
        // Above the half of what fits, its product with a share could be too much.
        self.lifetime = Some(time.clamp(Duration::from_secs(1), Duration::MAX / 2));
        self
    }

    /// Answers 406 to requests whose `Accept` excludes `text/event-stream`, before the handler
    /// runs (rules 59, 60). Off by default: an `EventSource` always accepts it, and what else
    /// asks seldom says so rightly. OPTIONS is exempt.
    ///
    /// ```
    /// let layer = axum_sse::SseLayer::new().strict_accept();
    /// # let _ = layer;
    /// ```
    pub fn strict_accept(mut self) -> Self {
        self.strict_accept = true;
        self
    }

    /// Also makes an event stream of a 200 without `Content-Type` whose body has no known
    /// length: for handlers that return a bare streaming body. Off by default.
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

    /// Whether `Connection: keep-alive` is sent; it is by default. On HTTP/1.1 connections are
    /// kept anyway; some old intermediaries want to read it.
    ///
    /// ```
    /// let layer = axum_sse::SseLayer::new().connection_keep_alive(false);
    /// # let _ = layer;
    /// ```
    pub fn connection_keep_alive(mut self, send: bool) -> Self {
        self.keep_alive = send;
        self
    }

    /// Ends the streams when `shutdown` begins: ours between any two chunks, others behind
    /// their next whole event, or after a second if none comes to its end. Each client is told
    /// to come back after two to four seconds, at a moment of its own. Streams that start
    /// afterwards get 200, that, and the end.
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
        SseService::new(inner, Arc::new(self.clone()))
    }
}
