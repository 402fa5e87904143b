//! [`Cors`]: who may read from other origins, and what they may ask for. Knows http and
//! tower-http, and no body.
//!
//! `allowlist.rs` holds the origins that may read, `origin.rs` checks one of them, `decision.rs`
//! decides about one request, and `hosts.rs` does the same for the names of this server.

mod allowlist;
pub(super) mod decision;
mod flaws;
pub(super) mod hosts;
mod origin;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

pub use allowlist::OriginAllowlist;

/// What Chromium caps it at; Firefox allows a day (rule 108).
const MAX_MAX_AGE: Duration = Duration::from_secs(7200);

/// Which pages of other origins may read the streams, for
/// [`SseLayer::cors`](crate::SseLayer::cors).
///
/// [`SseLayer::origins`](crate::SseLayer::origins) is the short form for an allowlist with
/// credentials. This one is for everything else:
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
/// Answers are made by tower-http; what is answered at all is decided here, before any handler
/// runs (rules 97 to 126):
///
/// * an origin on the list gets its CORS headers, on every response under the layer, so that a
///   client can also read a 401 (rule 118), and an answer to its preflight;
/// * a request of the same origin, or of no page, passes without any;
/// * every other origin gets 403 (rule 101), preflight or not, and no CORS header;
/// * OPTIONS requests that are not a preflight reach the router (rule 104);
/// * CORS headers that an inner service has set are taken off, on every response.
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
    /// Pages of the listed origins may read, with cookies and other credentials. Others are
    /// refused, and so is what no `EventSource` sends (see [`guard`](Cors::guard)).
    pub fn new(origins: OriginAllowlist) -> Self {
        Self {
            origins: Origins::Listed(origins),
            credentials: true,
            refuse: true,
            guard: None,
            navigation: false,
            metadata: false,
            // What a fetch-based client sets (rule 106); an `EventSource` never asks.
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

    /// As [`new`](Cors::new), but browsers send no cookies along, and let the page read only
    /// what it gets without.
    pub fn without_credentials(origins: OriginAllowlist) -> Self {
        Self {
            credentials: false,
            ..Self::new(origins)
        }
    }

    /// Every page may read, without credentials: `Access-Control-Allow-Origin: *`. For public
    /// data. With credentials there is no such thing (rule 98).
    pub fn any_origin() -> Self {
        Self {
            origins: Origins::Any,
            credentials: false,
            ..Self::new(OriginAllowlist::default())
        }
    }

    /// Further request headers that a preflight grants, beside `Accept`, `Authorization`,
    /// `Cache-Control`, `Content-Type` and `Last-Event-ID`. A `*` means nothing to browsers with
    /// credentials, here and below, and is left out then.
    pub fn allow_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.allow_headers.extend(names);
        self
    }

    /// Further methods that a preflight grants, beside GET, HEAD and POST, which no browser asks
    /// for leave.
    pub fn allow_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.allow_methods.extend(methods);
        self
    }

    /// Response headers that the page's script may read; none by default (rule 109). An
    /// `EventSource` shows none.
    pub fn expose_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.expose_headers.extend(names);
        self
    }

    /// How long a browser may remember the answer to a preflight: at most two hours, which is
    /// the default (rule 108).
    pub fn max_age(mut self, time: Duration) -> Self {
        self.max_age = time.min(MAX_MAX_AGE);
        self
    }

    /// Only leaves out the CORS headers for origins that are not on the list, as CORS
    /// middleware usually does. Their requests then reach the handler, with cookies: the page
    /// cannot read the answer, but it can open streams without end.
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

    /// Whether to refuse, before the handler runs, what `Sec-Fetch-Site` and `Sec-Fetch-Dest`
    /// tell apart from an `EventSource` or a `fetch` of an allowed origin: images, scripts,
    /// frames and navigations, and requests of other sites that carry no `Origin`
    /// (rules 122 to 126). Requests without these headers pass: those of old browsers, of what is
    /// not a browser, and, without TLS, of any browser to an address that is not loopback; see
    /// [`require_metadata`](Cors::require_metadata).
    ///
    /// On by default with credentials, unless [`headers_only`](Cors::headers_only) is asked for.
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

    /// Lets the guard pass somebody who opens the stream's address in a tab: typed in, or from
    /// a link of the same origin. For looking at a stream.
    pub fn allow_navigation(mut self) -> Self {
        self.navigation = true;
        self
    }

    /// Also refuses, with 403, requests that carry neither `Origin` nor `Sec-Fetch-Site`, so that
    /// nothing tells whose page has sent them.
    ///
    /// Browsers send `Sec-Fetch-Site` with every request to `https` and to loopback addresses. To
    /// other `http` addresses they never do, and images, frames and `no-cors` requests of any
    /// site carry no `Origin` either: without this setting, they reach the handler there. With
    /// it, so do no longer an `EventSource` of the same origin at such an address, old browsers,
    /// and clients that are not browsers.
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

    pub(super) fn refuses(&self) -> bool {
        self.refuse
    }

    pub(super) fn guards(&self) -> bool {
        self.guard.unwrap_or(self.credentials && self.refuse)
    }

    /// The request headers that the answer depends on.
    pub(crate) fn vary(&self) -> Vec<HeaderName> {
        let mut names = Vec::new();
        let listed = matches!(self.origins, Origins::Listed(_));
        if listed || self.metadata {
            names.push(header::ORIGIN);
        }
        if self.guards() || self.metadata || (self.refuse && listed) {
            names.push(decision::SITE);
        }
        if self.guards() {
            names.push(decision::DEST);
        }
        names
    }

    /// What answers a request that is allowed: it finds every origin to be right.
    pub(crate) fn layer(&self) -> CorsLayer {
        let methods = self.allow_methods.iter();
        let methods = methods.filter(|method| !self.is_wildcard(method.as_str()));
        let layer = CorsLayer::new()
            .allow_credentials(self.credentials)
            .allow_headers(self.without_wildcards(&self.allow_headers))
            .allow_methods(methods.cloned().collect::<Vec<_>>())
            .expose_headers(self.without_wildcards(&self.expose_headers))
            .max_age(self.max_age);
        match self.origins {
            Origins::Any => layer.allow_origin(Any),
            Origins::Listed(_) => layer.allow_origin(AllowOrigin::mirror_request()),
        }
    }

    /// What that adds to a response, for the requests that have to go round it.
    pub(crate) fn headers(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let origin = match self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(_) => origin.cloned(),
        };
        headers.extend(origin.map(|origin| (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)));
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        let exposed = self.without_wildcards(&self.expose_headers);
        let exposed: Vec<_> = exposed.iter().map(HeaderName::as_str).collect();
        if let Ok(exposed) = HeaderValue::try_from(exposed.join(","))
            && !exposed.is_empty()
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        headers
    }

    fn without_wildcards(&self, names: &[HeaderName]) -> Vec<HeaderName> {
        let names = names.iter();
        let names = names.filter(|name| !self.is_wildcard(name.as_str()));
        names.cloned().collect()
    }

    /// With credentials, `*` is a name like any other to a browser, and tower-http panics at it
    /// (rule 98).
    fn is_wildcard(&self, name: &str) -> bool {
        self.credentials && name == "*"
    }
}
