//! [`Client`]: opens and resumes event streams as an `EventSource` does.

use std::{
    convert::Infallible, error, fmt, future::poll_fn, io, net::SocketAddr, panic::Location,
    pin::Pin, sync::Arc, time::Duration,
};

use axum_core::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST},
};
use http_body_util::BodyExt;
use tokio::task::yield_now;
use tower_service::Service;

use super::{
    parser::{Parser, shortened},
    reader::{Reader, TIMEOUT},
    tcp,
    wait::{Wait, within},
};
use crate::sse::headers::{EVENT_STREAM, is_event_stream};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How much of the body of a refused response is kept, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// Opens and resumes event streams as an `EventSource` does.
///
/// - It sends GET with `Accept: text/event-stream`, `Cache-Control: no-cache` and `Host`. To
///   resume, it adds `Last-Event-ID`, unless the last id is empty.
/// - It reads only responses with status 200 and the content type `text/event-stream`. Any other
///   response is a [`Refused`], after which an `EventSource` would not reconnect. Unlike an
///   `EventSource`, it does not follow redirects.
/// - It reconnects only on [`Reader::resume`], and without a delay. [`Reader::retry`] is the time
///   that a browser would wait.
/// - It sends no `Origin` and no cookies, unless you add them with [`header`](Client::header).
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_sse::{Sse, testing::Client};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let app = Router::new().route("/count", get(async || Sse::new(tokio_stream::iter(1..=3))));
/// let mut page = Client::new(app).get("/count").await.unwrap();
/// assert_eq!(page.rest().await.len(), 3);
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    headers: HeaderMap,
    timeout: Duration,
}

type Answer = Pin<Box<dyn Future<Output = io::Result<Response>> + Send>>;
type Transport = dyn Fn(Request<Body>) -> Answer + Send + Sync;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transport: _,
            headers,
            timeout,
        } = self;
        // Header values can be secrets.
        f.debug_struct("Client")
            .field("headers", &headers.keys().collect::<Vec<_>>())
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that calls a `Router` or another service directly, without a server.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{Sse, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let app = Router::new().route("/one", get(async || Sse::new(tokio_stream::iter([1]))));
    /// let mut page = Client::new(app).get("/one").await.unwrap();
    /// assert_eq!(page.next_message().await.data, "1");
    /// # }
    /// ```
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send,
    {
        Self::sending("localhost".into(), move |request| {
            let mut service = service.clone();
            Box::pin(async move {
                let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
                let Ok(response) = service.call(request).await;
                Ok(response.into_response())
            })
        })
    }

    /// A client of the server at this address, over plain HTTP/1.1 with a new connection for each
    /// request. For TLS, HTTP/2 or a Unix socket, use another client and pass its response to
    /// [`Reader::new`].
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{Sse, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let app = Router::new().route("/one", get(async || Sse::new(tokio_stream::iter([1]))));
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let client = Client::tcp(listener.local_addr()?);
    /// tokio::spawn(async { axum::serve(listener, app).await });
    /// let mut page = client.get("/one").await.unwrap();
    /// assert_eq!(page.next_message().await.data, "1");
    /// page.expect_end().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tcp(server: SocketAddr) -> Self {
        Self::sending(server.to_string(), move |request| {
            Box::pin(tcp::send(server, request))
        })
    }

    #[allow(
        clippy::expect_used,
        reason = "host names and socket addresses are valid header values"
    )]
    fn sending(
        host: String,
        send: impl Fn(Request<Body>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let host = HeaderValue::try_from(host).expect("visible ASCII");
        Self {
            transport: Arc::new(send),
            headers: HeaderMap::from_iter([
                (HOST, host),
                (ACCEPT, EVENT_STREAM),
                (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            ]),
            timeout: TIMEOUT,
        }
    }

    /// Sends this header with every request. Replaces a header of the same name.
    ///
    /// ```
    /// # use axum::{Router, http::{HeaderMap, StatusCode}, routing::get};
    /// # use axum_sse::{Sse, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let app = Router::new().route("/mine", get(async |headers: HeaderMap| {
    ///     headers.get("cookie").ok_or(StatusCode::UNAUTHORIZED)?;
    ///     Ok::<_, StatusCode>(Sse::new(tokio_stream::iter([1])))
    /// }));
    /// let client = Client::new(app);
    /// assert_eq!(client.get("/mine").await.unwrap_err().status(), StatusCode::UNAUTHORIZED);
    /// let client = client.header("cookie", "session=alice");
    /// assert_eq!(client.get("/mine").await.unwrap().next_message().await.data, "1");
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the name or the value is not valid in a header.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Ok(parsed) = HeaderName::try_from(name) else {
            panic!("invalid header name {name:?}");
        };
        let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else {
            panic!("invalid value for the header {name:?}: {value:?}");
        };
        self.headers.insert(parsed, value);
        self
    }

    /// Sets the timeout for a response, and for each wait of the readers that this client returns.
    /// The default is five seconds.
    ///
    /// ```
    /// # use axum_sse::testing::Client;
    /// # use std::time::Duration;
    /// let client = Client::tcp(([127, 0, 0, 1], 3000).into()).timeout(Duration::from_secs(60));
    /// # let _ = client;
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Opens the event stream at this path, which starts with `/` and may have a query.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{Sse, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let client = Client::new(Router::new().route("/page", get("hello")));
    /// assert_eq!(client.get("/events").await.unwrap_err().status(), 404);
    /// // A 200 with another content type is refused, too:
    /// assert_eq!(client.get("/page").await.unwrap_err().status(), 200);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`] if the response is not an event stream.
    ///
    /// # Panics
    ///
    /// If the path is not valid, the connection fails, or no response arrives within the
    /// [timeout](Client::timeout).
    #[track_caller]
    pub fn get(&self, path: &str) -> impl Future<Output = Result<Reader<Client>, Refused>> {
        self.get_after(path, "")
    }

    /// Opens the event stream at this path like a browser that reconnects with this last id.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{LastEventId, Sse, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let app = Router::new().route("/rows", get(async |last: LastEventId<u64>| {
    ///     let first = last.known().map_or(0, |row| row + 1);
    ///     Sse::new(tokio_stream::iter(first..10))
    /// }));
    /// let mut page = Client::new(app).get_after("/rows", "6").await.unwrap();
    /// assert_eq!(page.next_message().await.data, "7");
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`] if the response is not an event stream.
    ///
    /// # Panics
    ///
    /// As [`get`](Client::get), and if the id is not a valid header value.
    #[track_caller]
    pub fn get_after(
        &self,
        path: &str,
        last_event_id: &str,
    ) -> impl Future<Output = Result<Reader<Client>, Refused>> {
        let caller = Location::caller();
        async move {
            let response = self.open(path, last_event_id, caller).await?;
            let parser = Parser::resumed(last_event_id, None);
            let mut reader = Reader::with(response, parser, self.timeout, self.clone());
            path.clone_into(&mut reader.path);
            Ok(reader)
        }
    }

    async fn open(
        &self,
        path: &str,
        last_event_id: &str,
        caller: &'static Location<'static>,
    ) -> Result<Response, Refused> {
        let mut quoted = format!("GET {path}");
        let mut request = Request::new(Body::empty());
        match path.parse() {
            Ok(uri) if path.starts_with('/') => *request.uri_mut() = uri,
            _ => panic!("invalid path {path:?}, at {caller}"),
        }
        request.headers_mut().clone_from(&self.headers);
        if !last_event_id.is_empty() {
            quoted += &format!(" with Last-Event-ID {}", shortened(last_event_id));
            let Ok(value) = HeaderValue::from_bytes(last_event_id.as_bytes()) else {
                panic!(
                    "invalid value for the header \"last-event-id\": {last_event_id:?}, at {caller}"
                );
            };
            request.headers_mut().insert(LAST_EVENT_ID, value);
        }
        let response = match within(self.timeout, self.timeout, (self.transport)(request)).await {
            Wait::Done(Ok(response)) => response,
            Wait::Done(Err(error)) => panic!("{quoted}: {error}, at {caller}"),
            Wait::TimedOut | Wait::Stuck => {
                panic!(
                    "{quoted}: no response within {:?}, at {caller}",
                    self.timeout
                )
            }
        };
        if response.status() == StatusCode::OK && is_event_stream(response.headers()) {
            return Ok(response);
        }
        Err(Refused::read(quoted, response, self.timeout).await)
    }
}

impl Reader<Client> {
    /// Drops the connection and opens the stream again with the last id, without a delay.
    ///
    /// Behaves like a browser whose connection broke after the last item that was read: items that
    /// were received but not read are discarded. [`last_event_id`](Reader::last_event_id) and
    /// [`retry`](Reader::retry) are kept. An empty id is not sent.
    ///
    /// If the future is dropped before it completes, the reader is at its end and can be resumed
    /// again.
    ///
    /// ```
    /// # use axum::{Router, extract::State, routing::get};
    /// # use axum_sse::{Channel, LastEventId, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let channel = Channel::<u64>::new();
    /// # let app = Router::new().route("/progress", get(
    /// #     async |State(channel): State<Channel<u64>>, last: LastEventId| channel.subscribe(last)
    /// # )).with_state(channel.clone());
    /// let mut page = Client::new(app).get("/progress").await?;
    /// page.expect_named("checkpoint").await;
    /// channel.publish(&1)?;
    /// page.resume().await?;
    /// assert_eq!(page.next_message().await.data, "1");
    ///
    /// channel.close(None)?; // A client with the last id now gets a 204: do not reconnect.
    /// assert_eq!(page.resume().await.unwrap_err().status(), 204);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused`] if the response is not an event stream. The reader is then at its end and can be
    /// resumed again.
    ///
    /// # Panics
    ///
    /// If the connection fails, or no response arrives within the [timeout](Reader::timeout).
    #[track_caller]
    pub fn resume(&mut self) -> impl Future<Output = Result<(), Refused>> {
        let caller = Location::caller();
        async move {
            self.cut();
            let client = self.client.clone().timeout(self.timeout);
            let response = client
                .open(&self.path, self.last_event_id(), caller)
                .await?;
            self.resumed(response);
            Ok(())
        }
    }
}

/// A response that is not an event stream: not status 200, or not `text/event-stream`.
///
/// A browser then closes the `EventSource` permanently and fires an `error` event without details.
/// Servers send a 204 to cause that. `Debug` prints the same as `Display`, for `unwrap` in tests.
///
/// ```
/// # use axum::{Router, http::StatusCode, routing::get};
/// # use axum_sse::testing::Client;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let app = Router::new().route("/secret", get((StatusCode::FORBIDDEN, "not yours")));
/// let refused = Client::new(app).get("/secret").await.unwrap_err();
/// assert_eq!(refused.status(), StatusCode::FORBIDDEN);
/// assert_eq!(refused.headers()["content-type"], "text/plain; charset=utf-8");
/// assert_eq!(refused.body(), "not yours");
/// assert_eq!(
///     refused.to_string(),
///     r#"GET /secret: 403 Forbidden, "text/plain; charset=utf-8", which closes an EventSource permanently: "not yours""#
/// );
/// # }
/// ```
pub struct Refused(Box<Inner>);

struct Inner {
    request: String,
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Refused {
    async fn read(request: String, response: Response, wait: Duration) -> Self {
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let read = async {
            while let Some(Ok(frame)) = body.frame().await
                && bytes.len() < MAX_REFUSAL
            {
                bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
                // The body may send empty frames forever.
                yield_now().await;
            }
        };
        // The body may never end, so whatever arrives within the timeout is enough.
        let _ = within(wait, wait, read).await;
        bytes.truncate(MAX_REFUSAL);
        Self(Box::new(Inner {
            request,
            status: head.status,
            headers: head.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }))
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The headers of the response.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The first 64 KiB of the body that arrived within the timeout, as text.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.0.body
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.request, self.0.status)?;
        if let Some(kind) = self.0.headers.get(CONTENT_TYPE) {
            write!(f, ", {kind:?}")?;
        }
        f.write_str(", which closes an EventSource permanently")?;
        if !self.0.body.is_empty() {
            write!(f, ": {}", shortened(&self.0.body))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for Refused {}
