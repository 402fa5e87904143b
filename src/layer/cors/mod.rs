//! [`Cors`]: which pages of other origins may read the streams. Knows `http` and no bodies.
//!
//! `allowlist.rs` has the allowed origins and `origin.rs` checks one entry of that list.
//! `decision.rs` decides about one request, and `policy.rs` has the headers that follow from the
//! decision. `hosts.rs` checks the host names of this server.

mod allowlist;
pub(super) mod decision;
mod flaws;
pub(super) mod hosts;
mod origin;
pub(super) mod policy;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderName, Method, header};

pub use allowlist::OriginAllowlist;

/// Chromium's upper bound; Firefox allows a day.
// Rule 108.
const MAX_MAX_AGE: Duration = Duration::from_secs(7200);

/// Which pages of other origins may read the streams, for
/// [`SseLayer::cors`](crate::SseLayer::cors).
///
/// [`SseLayer::origins`](crate::SseLayer::origins) is the short form for an allowlist with
/// credentials. `Cors` is for everything else:
///
/// ```
/// use axum::http::{HeaderName, Method, header};
/// use axum_sse::{OriginAllowlist, SseLayer, layer::Cors};
/// use std::time::Duration;
///
/// let list = OriginAllowlist::new(["https://app.example"])?;
/// let cors = Cors::new(list)
///     .allow_headers([HeaderName::from_static("x-csrf-token")])
///     .allow_methods([Method::PUT])
///     .expose_headers([header::RETRY_AFTER])
///     .max_age(Duration::from_secs(600))
///     .allow_navigation();
/// let layer = SseLayer::new().cors(cors);
///
/// let without_cookies = Cors::without_credentials(OriginAllowlist::new(["https://b.example"])?);
/// let public = Cors::any_origin();
/// # let _ = (layer, without_cookies, public);
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// The layer decides about every request before any handler runs:
///
/// * A listed origin gets an answer to its preflight, and CORS headers on every response under the
///   layer, so that its pages can also read a 401.
/// * A request of the same origin, or one that no page has sent, passes and gets no CORS headers.
/// * Every other origin gets 403 without CORS headers, preflight or not. (CORS by itself would
///   only hide the response, [as Fetch explains](https://fetch.spec.whatwg.org/#http-cors-protocol):
///   the handler would run.)
/// * CORS headers set by an inner service are removed from every response.
// Rules 97 to 126.
#[derive(Clone, Debug)]
#[must_use]
pub struct Cors {
    pub(super) origins: Origins,
    pub(super) credentials: bool,
    refuse: bool,
    guard: Option<bool>,
    pub(super) navigation: bool,
    pub(super) metadata: bool,
    allow_headers: Vec<HeaderName>,
    allow_methods: Vec<Method>,
    expose_headers: Vec<HeaderName>,
    max_age: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum Origins {
    Any,
    Listed(OriginAllowlist),
}

impl Cors {
    /// Pages of the listed origins may read, with cookies and other credentials. Requests of other
    /// origins are refused, and so are requests that no `EventSource` sends (see
    /// [`guard`](Cors::guard)).
    pub fn new(origins: OriginAllowlist) -> Self {
        Self {
            origins: Origins::Listed(origins),
            credentials: true,
            refuse: true,
            guard: None,
            navigation: false,
            metadata: false,
            // Rule 106: what clients based on `fetch` set. An `EventSource` sends no preflight.
            allow_headers: vec![
                header::ACCEPT,
                header::AUTHORIZATION,
                header::CACHE_CONTROL,
                header::CONTENT_TYPE,
                HeaderName::from_static("last-event-id"),
            ],
            allow_methods: vec![Method::GET, Method::HEAD, Method::POST],
            expose_headers: Vec::new(),
            max_age: MAX_MAX_AGE,
        }
    }

    /// Like [`new`](Cors::new), but without credentials: pages can only read responses to requests
    /// that browsers have sent without cookies.
    pub fn without_credentials(origins: OriginAllowlist) -> Self {
        Self {
            credentials: false,
            ..Self::new(origins)
        }
    }

    /// Every page may read, without credentials: `Access-Control-Allow-Origin: *`. For public
    /// data. Browsers do not accept this
    /// [together with credentials](https://fetch.spec.whatwg.org/#cors-protocol-and-credentials).
    pub fn any_origin() -> Self {
        Self {
            origins: Origins::Any,
            credentials: false,
            ..Self::new(OriginAllowlist::default())
        }
    }

    /// Request headers that a preflight grants in addition to `Accept`, `Authorization`,
    /// `Cache-Control`, `Content-Type` and `Last-Event-ID`. With credentials, a `*` is left out,
    /// here and in the next two settings, because browsers do not treat it as a wildcard then.
    pub fn allow_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.allow_headers.extend(names);
        self
    }

    /// Methods that a preflight grants in addition to GET, HEAD and POST, for which browsers need
    /// no permission.
    pub fn allow_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.allow_methods.extend(methods);
        self
    }

    /// Response headers that scripts may read; none by default. An `EventSource` gives scripts no
    /// access to headers.
    pub fn expose_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.expose_headers.extend(names);
        self
    }

    /// How long a browser may cache the answer to a preflight: at most two hours, which is the
    /// default. Chromium ignores more.
    pub fn max_age(mut self, time: Duration) -> Self {
        self.max_age = time.min(MAX_MAX_AGE);
        self
    }

    /// Only leaves out the CORS headers for origins that are not on the list, like most CORS
    /// middleware. Their requests then reach the handler, with cookies: the page cannot read the
    /// responses, but it can open any number of streams.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{OriginAllowlist, Sse, SseLayer, layer::Cors, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let list = OriginAllowlist::new(["https://app.example"])?;
    /// let app: Router = Router::new()
    ///     .route("/events", get(async || Sse::new(tokio_stream::iter([1]))))
    ///     .route_layer(SseLayer::new().cors(Cors::new(list).headers_only()));
    /// let other = Client::new(app).header("origin", "https://other.example");
    /// // A browser would keep this from the page.
    /// assert!(!other.get("/events").await.unwrap().headers().contains_key("access-control-allow-origin"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn headers_only(mut self) -> Self {
        self.refuse = false;
        self
    }

    /// Whether to refuse, before the handler runs, requests that `Sec-Fetch-Site` and
    /// `Sec-Fetch-Dest` ([Fetch Metadata](https://www.w3.org/TR/fetch-metadata/)) show not to be an
    /// `EventSource` or `fetch` of an allowed origin: images, scripts, frames and navigations, and
    /// requests of other sites without `Origin`. Requests without these headers pass. Old browsers
    /// and other clients do not send them, and without TLS no browser sends them to an address
    /// other than loopback; see [`require_metadata`](Cors::require_metadata).
    ///
    /// On by default with credentials, unless [`headers_only`](Cors::headers_only) is set.
    // Rules 122 to 126.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{Sse, SseLayer, layer::Cors, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let app: Router = Router::new()
    ///     .route("/events", get(async || Sse::new(tokio_stream::iter([1]))))
    ///     .route_layer(SseLayer::new().cors(Cors::any_origin().guard(true)));
    /// let image = Client::new(app).header("sec-fetch-site", "same-origin").header("sec-fetch-dest", "image");
    /// assert_eq!(image.get("/events").await.unwrap_err().status(), 403);
    /// # }
    /// ```
    pub fn guard(mut self, on: bool) -> Self {
        self.guard = Some(on);
        self
    }

    /// Lets the guard pass navigations: a user who enters the stream's address or follows a link
    /// of the same origin. For looking at a stream in a browser tab.
    pub fn allow_navigation(mut self) -> Self {
        self.navigation = true;
        self
    }

    /// Also refuses, with 403, requests with neither `Origin` nor `Sec-Fetch-Site`, because nothing
    /// shows which page has sent them.
    ///
    /// Browsers send `Sec-Fetch-Site` with every request to `https` and to loopback addresses, but
    /// not to other `http` addresses. Images, frames and `no-cors` requests of any site carry no
    /// `Origin` either, so without this setting they reach the handler at such an address. With
    /// it, the following are refused as well: an `EventSource` of the same origin at such an
    /// address, old browsers, and clients that are not browsers.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{OriginAllowlist, Sse, SseLayer, layer::Cors, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let list = OriginAllowlist::new(["https://app.example"])?;
    /// let app: Router = Router::new()
    ///     .route("/events", get(async || Sse::new(tokio_stream::iter([1]))))
    ///     .route_layer(SseLayer::new().cors(Cors::new(list).require_metadata()));
    /// let client = Client::new(app);
    /// assert_eq!(client.get("/events").await.unwrap_err().status(), 403);
    /// let page = client.header("sec-fetch-site", "same-origin");
    /// assert!(page.get("/events").await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn require_metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// The effective value of [`guard`](Cors::guard).
    fn guards(&self) -> bool {
        self.guard.unwrap_or(self.credentials && self.refuse)
    }
}
