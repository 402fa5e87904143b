//! [`Sse`]: a response from any stream of values. Also turns our other types into responses.

mod body;
pub(crate) mod headers;

use std::fmt;

use axum_core::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use std::time::Duration;

use crate::{
    channel::subscription::Subscription,
    error::BoxError,
    event::{
        Event, Heartbeat, NotAResult, Payload,
        payload::{encode_named, sealed::Encode as _},
        retry,
    },
};
use body::{ChunkBody, EncodeItem, LazyBody, OnError, StreamBody, SubscriptionBody};
use headers::WholeChunks;

/// A response that sends each item of a stream as an event.
///
/// For streams that belong to one connection. If many clients receive the same events, or clients
/// should resume after a lost connection, publish to a [`Channel`](crate::Channel) instead.
///
/// ```
/// use axum_sse::Sse;
/// use std::time::Duration;
/// use tokio_stream::{Stream, StreamExt, wrappers::IntervalStream};
///
/// #[derive(serde::Serialize)]
/// struct Tick { n: usize }
///
/// async fn clock() -> Sse<impl Stream<Item = Tick>> {
///     let seconds = IntervalStream::new(tokio::time::interval(Duration::from_secs(1)));
///     let mut n = 0;
///     Sse::new(seconds.map(move |_| {
///         n += 1;
///         Tick { n }
///     }))
/// }
/// # let app: axum::Router = axum::Router::new().route("/clock", axum::routing::get(clock));
/// ```
///
/// A comment line is sent at once, so that the browser fires `open` and proxies forward the
/// response headers. A [`Heartbeat`] is sent whenever the stream has been silent for a while.
///
/// **End.** When the stream ends, the body ends, and an `EventSource` [reconnects]. To prevent
/// that, send an event on which the page calls `close()`.
///
/// **Errors.** The first `Err` of a [`try_new`](Sse::try_new) stream, or the first value that
/// cannot be serialized, ends the body cleanly after the previous event.
/// [`on_error`](Sse::on_error) can add one last event. With the feature `tracing`, the error is
/// logged.
///
/// **Slow clients** slow the stream down: it is polled only as fast as the client reads.
///
/// [reconnects]: https://html.spec.whatwg.org/multipage/server-sent-events.html#reestablish-the-connection
// Rules 30, 36 to 47, 63 and 64.
#[must_use = "a response does nothing unless it is returned from a handler"]
pub struct Sse<S: Stream> {
    source: S,
    encode: EncodeItem<S::Item>,
    on_error: Option<OnError>,
    retry: Option<Duration>,
    heartbeat: Heartbeat,
}

impl<S: Stream> Sse<S> {
    fn with(source: S, encode: EncodeItem<S::Item>) -> Self {
        Self {
            source,
            encode,
            on_error: None,
            retry: None,
            heartbeat: Heartbeat::default(),
        }
    }

    /// Sends a stream of [`Event`]s, or of serde values, whose JSON becomes the data of events.
    ///
    /// A stream of `Result`s does not compile here, because serde would send its errors to the
    /// browser. Use [`try_new`](Sse::try_new) instead:
    ///
    /// ```compile_fail,E0283
    /// let lines = tokio_stream::iter([Ok::<_, String>("one"), Err("gone".to_owned())]);
    /// let response = axum_sse::Sse::new(lines);
    /// ```
    pub fn new<Kind>(stream: S) -> Self
    where
        S::Item: Payload + NotAResult<Kind>,
    {
        Self::with(stream, |item, out| {
            item.encode(out)?;
            Ok(())
        })
    }

    /// Like [`new`](Sse::new), for a stream of `Result`s. An error ends the body.
    ///
    /// ```
    /// use axum_sse::{Event, Sse};
    ///
    /// let lines = tokio_stream::iter([Ok("one"), Err("the disk is gone")]);
    /// let response = Sse::try_new(lines)
    ///     .on_error(|error| Event::text(error.to_string()).ok()?.name("failed").ok());
    /// ```
    pub fn try_new<T, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<T, E>>,
        T: Payload,
        E: Into<BoxError>,
    {
        Self::with(stream, |item, out| {
            item.map_err(Into::into)?.encode(out)?;
            Ok(())
        })
    }

    /// Sends a stream of enum values as events named after their variants, as with
    /// [`Event::named`].
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// #[derive(serde::Serialize)]
    /// #[serde(rename_all = "kebab-case")]
    /// enum Chat { UserJoined { name: String } }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let chat = tokio_stream::iter([Chat::UserJoined { name: "Ada".into() }]);
    /// let mut page = Reader::new(Sse::named(chat));
    /// assert_eq!(page.expect_named("user-joined").await.data, r#"{"name":"Ada"}"#);
    /// # }
    /// ```
    ///
    /// A stream of `Result`s does not compile here; it goes to [`try_named`](Sse::try_named):
    ///
    /// ```compile_fail,E0283
    /// # #[derive(serde::Serialize)]
    /// # enum Chat { Cleared }
    /// let chat = tokio_stream::iter([Ok::<_, String>(Chat::Cleared)]);
    /// let response = axum_sse::Sse::named(chat);
    /// ```
    pub fn named<Kind>(stream: S) -> Self
    where
        S::Item: Serialize + NotAResult<Kind>,
    {
        Self::with(stream, |item, out| {
            encode_named(&item, out)?;
            Ok(())
        })
    }

    /// Like [`named`](Sse::named), for a stream of `Result`s. An error ends the body.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # #[derive(serde::Serialize)]
    /// # enum Chat { Cleared }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let chat = tokio_stream::iter([Ok(Chat::Cleared), Err("the room is gone")]);
    /// let mut page = Reader::new(Sse::try_named(chat));
    /// page.expect_named("Cleared").await;
    /// page.expect_end().await;
    /// # }
    /// ```
    pub fn try_named<T, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<T, E>>,
        T: Serialize,
        E: Into<BoxError>,
    {
        Self::with(stream, |item, out| {
            encode_named(&item.map_err(Into::into)?, out)?;
            Ok(())
        })
    }

    /// Sets the client's reconnection time, which is sent before the first event. `time` is clamped
    /// to [`Event::MIN_RETRY`] to [`Event::MAX_RETRY`]. By default none is sent, and the client
    /// uses its own.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut page = Reader::new(Sse::new(tokio_stream::iter([1])).retry(Duration::from_secs(2)));
    /// page.next_message().await;
    /// assert_eq!(page.retry(), Some(Duration::from_secs(2)));
    /// # }
    /// ```
    // Rule 27.
    pub fn retry(mut self, time: Duration) -> Self {
        self.retry = Some(time);
        self
    }

    /// Sets what is sent while the stream is silent. The default is a comment line every 15
    /// seconds.
    ///
    /// ```
    /// use axum_sse::{Heartbeat, Sse};
    /// use std::time::Duration;
    ///
    /// let often = Heartbeat::every(Duration::from_secs(5));
    /// let response = Sse::new(tokio_stream::pending::<u64>()).heartbeat(often);
    /// # let _ = response;
    /// ```
    // Rule 46.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sends one last event if the stream ends with an error; `last` returns `None` to send none.
    ///
    /// The error comes from the stream, or is an [`Error`](crate::Error) for a value that cannot be
    /// serialized. Its message can contain details that clients should not see.
    ///
    /// ```
    /// # use axum_sse::{Event, Sse, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let lines = tokio_stream::iter([Ok("one"), Err("the disk is gone")]);
    /// let sse = Sse::try_new(lines).on_error(|_| Event::text("sorry").ok()?.name("failed").ok());
    /// let mut page = Reader::new(sse);
    /// page.next_message().await;
    /// assert_eq!(page.expect_named("failed").await.data, "sorry");
    /// page.expect_end().await;
    /// # }
    /// ```
    pub fn on_error(
        mut self,
        last: impl FnOnce(BoxError) -> Option<Event> + Send + 'static,
    ) -> Self {
        self.on_error = Some(Box::new(last));
        self
    }
}

impl<S> IntoResponse for Sse<S>
where
    S: Stream + Send + 'static,
{
    fn into_response(self) -> Response {
        let Self {
            source,
            encode,
            on_error,
            retry,
            heartbeat,
        } = self;
        let retry = retry.map(retry::millis);
        let body = StreamBody::new(source, encode, on_error, retry, heartbeat);
        event_stream(Body::new(body))
    }
}

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        if self.is_over() {
            return no_content();
        }
        event_stream(Body::new(SubscriptionBody(self)))
    }
}

/// A 204, after which clients do not reconnect (rule 61). It depends on the client's id, so no
/// cache may store it; then it needs no `Vary` (rule 128).
pub(crate) fn no_content() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    headers::no_store(response.headers_mut());
    response
}

/// A stream whose subscription is created when its body is first polled.
pub(crate) fn begun_when_polled(begin: Box<dyn FnOnce() -> Subscription + Send>) -> Response {
    event_stream(Body::new(LazyBody::Waiting(Some(begin))))
}

/// A stream of a single chunk.
pub(crate) fn whole_stream(chunk: Bytes) -> Response {
    event_stream(Body::new(ChunkBody(Some(chunk))))
}

fn event_stream(body: Body) -> Response {
    let mut headers = HeaderMap::with_capacity(4);
    headers::apply(&mut headers);
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.extensions_mut().insert(WholeChunks);
    response
}

impl<S: Stream> fmt::Debug for Sse<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse")
            .field("retry", &self.retry)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}
