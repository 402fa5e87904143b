//! [`Sse`]: any stream of values as a response; and how our types become responses.

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

/// A stream of values as an event stream: each item becomes one whole event.
///
/// For streams that belong to one connection. Where many clients get the same events, or a
/// client should resume where it was cut off, publish to a [`Channel`](crate::Channel).
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
/// A comment line goes out at once, so that the browser fires `open` and no proxy holds back the
/// head (rule 39); a [`Heartbeat`] follows whenever the stream is silent (rules 36 to 47).
///
/// **End.** When the stream ends, the body ends, and an `EventSource` reconnects (rule 63). To
/// tell it not to, send an event on which the page calls `close()`.
///
/// **Errors.** The first `Err` of a [`try_new`](Sse::try_new) stream, and the first value that
/// cannot be serialised, end the stream cleanly behind the event before it; with
/// [`on_error`](Sse::on_error), one last event of your making comes in between (rules 30, 64).
/// With the feature `tracing`, the error is logged.
///
/// **Slow clients** hold the stream up: it is polled as fast as the client reads.
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

    /// From a stream of serde values (each one's JSON is the data of an event) or of
    /// [`Event`]s.
    ///
    /// A stream of `Result`s does not compile here, since serde would send its errors to the
    /// browser; it goes to [`try_new`](Sse::try_new):
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

    /// From a stream of `Result`s of what [`new`](Sse::new) takes. An error ends the stream.
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

    /// From a stream of enum values that name their own events; see [`Event::named`].
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
    pub fn named<Kind>(stream: S) -> Self
    where
        S::Item: Serialize + NotAResult<Kind>,
    {
        Self::with(stream, |item, out| {
            encode_named(&item, out)?;
            Ok(())
        })
    }

    /// [`named`](Sse::named) for a stream of `Result`s. An error ends the stream.
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

    /// Tells the client how long to wait before it reconnects, in front of the first event;
    /// within [`Event::MIN_RETRY`](crate::Event::MIN_RETRY) and [`Event::MAX_RETRY`](crate::Event::MAX_RETRY) (rule 27).
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
    pub fn retry(mut self, time: Duration) -> Self {
        self.retry = Some(time);
        self
    }

    /// What is sent while the stream is silent; by default a comment line every 15 seconds.
    /// Setting it again replaces it (rule 46).
    ///
    /// ```
    /// use axum_sse::{Heartbeat, Sse};
    /// use std::time::Duration;
    ///
    /// let often = Heartbeat::every(Duration::from_secs(5));
    /// let response = Sse::new(tokio_stream::pending::<u64>()).heartbeat(often);
    /// # let _ = response;
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// One last event before an error ends the stream. `None` sends none.
    ///
    /// The error is the source's, or the crate's own [`Error`](crate::Error) for a value that
    /// cannot be serialised. It may say more than a client should read.
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

/// The standard's word for "do not come back" (rule 61). It depends on the client's id, so no
/// cache may answer others with it; and what is not stored needs no `Vary` (rule 128).
pub(crate) fn no_content() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    headers::no_store(response.headers_mut());
    response
}

/// A stream that does not exist before its body is polled.
pub(crate) fn begun_when_polled(begin: Box<dyn FnOnce() -> Subscription + Send>) -> Response {
    event_stream(Body::new(LazyBody::Waiting(Some(begin))))
}

/// A stream of one chunk.
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
