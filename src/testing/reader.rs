//! [`Reader`]: reads the events of a response.

use std::{
    collections::VecDeque,
    error,
    fmt::{self, Write as _},
    panic::Location,
    time::Duration,
};

use axum_core::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::task::yield_now;

use super::{
    parser::{Item, Message, Parser, shortened},
    wait::{Wait, within},
};
use crate::error::BoxError;

/// The default timeout of a wait.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How many lines and frames are read before the reader yields: a body that is always ready would
/// otherwise starve other tasks and the clock.
const YIELD_AFTER: usize = 64;

/// How many of the newest items a panic message contains.
const SHOWN: usize = 20;

/// Reads the events of a response.
///
/// Create one from a response, a stream or a body, or get one from a [`Client`](super::Client).
/// The latter, a `Reader<Client>`, can [resume](Reader::resume).
///
/// All methods except [`next_item`](Reader::next_item) skip comments, which include heartbeats.
///
/// Dropping the future of a wait, for instance in a `select!`, loses no event, with two exceptions:
/// [`rest`](Reader::rest) loses the events that it has collected, and `resume` has already dropped
/// the connection.
///
/// ```
/// use axum_sse::{Sse, testing::Reader};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut reader = Reader::new(Sse::new(tokio_stream::iter([1, 2])));
/// assert_eq!(reader.next_message().await.data, "1");
/// assert_eq!(reader.next().await.unwrap().data, "2");
/// assert!(reader.next().await.is_none());
/// # }
/// ```
#[derive(Debug)]
pub struct Reader<C = ()> {
    headers: HeaderMap,
    body: Body,
    over: Option<Over>,
    /// Received but not parsed. The parser is never ahead of the caller, so that
    /// `last_event_id` does not depend on where the chunks end.
    pending: Bytes,
    parser: Parser,
    until_yield: usize,
    received: Received,
    pub(super) timeout: Duration,
    pub(super) client: C,
    /// The path of the client's request.
    pub(super) path: String,
}

#[derive(Debug)]
enum Over {
    Ended,
    Broken(axum_core::Error),
}

impl Reader {
    /// Reads the body of a response: the return value of a handler, or any `http::Response`. The
    /// status and the headers are not checked.
    ///
    /// ```
    /// # use axum_sse::testing::Reader;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new("data: hello\n\n");
    /// assert_eq!(reader.next_message().await.data, "hello");
    /// # }
    /// ```
    pub fn new(response: impl IntoResponse) -> Self {
        Self::with(response.into_response(), Parser::new(), TIMEOUT, ())
    }

    /// Reads a stream of bytes.
    ///
    /// ```
    /// # use axum_sse::testing::Reader;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let chunks = ["data: hel", "lo\n\n"].map(Ok::<_, std::io::Error>);
    /// let mut reader = Reader::from_stream(tokio_stream::iter(chunks));
    /// assert_eq!(reader.next_message().await.data, "hello");
    /// # }
    /// ```
    pub fn from_stream<S, B, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes> + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::new(Body::from_stream(stream))
    }

    /// Reads a body.
    ///
    /// ```
    /// # use axum_sse::testing::Reader;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let body = http_body_util::Full::from("data: hello\n\n");
    /// assert_eq!(Reader::from_body(body).next_message().await.data, "hello");
    /// # }
    /// ```
    pub fn from_body<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::new(Body::new(body))
    }
}

impl<C> Reader<C> {
    pub(super) fn with(response: Response, parser: Parser, timeout: Duration, client: C) -> Self {
        let (head, body) = response.into_parts();
        Self {
            headers: head.headers,
            body,
            over: None,
            pending: Bytes::new(),
            parser,
            until_yield: YIELD_AFTER,
            received: Received::default(),
            timeout,
            client,
            path: String::new(),
        }
    }

    /// Drops the connection and everything that was not read.
    pub(super) fn cut(&mut self) {
        self.body = Body::empty();
        self.pending = Bytes::new();
        self.over = Some(Over::Ended);
    }

    /// Continues with the response to a request that carried the last id.
    pub(super) fn resumed(&mut self, response: Response) {
        let (head, body) = response.into_parts();
        self.headers = head.headers;
        self.body = body;
        self.over = None;
        self.parser = Parser::resumed(self.parser.last_event_id(), self.parser.retry());
    }

    /// Sets the timeout of each wait. The default is five seconds.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::{Item, Reader}};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let silent = Sse::new(tokio_stream::pending::<u64>());
    /// let mut reader = Reader::new(silent).timeout(Duration::from_secs(60));
    /// assert_eq!(reader.next_item().await, Some(Item::Comment("".into()))); // The first byte.
    /// assert_eq!(reader.next_item().await, Some(Item::Comment("".into()))); // A heartbeat.
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The next item, including comments and reconnection times, or `None` if the stream ends or
    /// [breaks](Reader::error).
    ///
    /// ```
    /// # use axum_sse::testing::{Item, Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new(": hello\nretry: 2000\n");
    /// assert_eq!(reader.next_item().await, Some(Item::Comment(" hello".into())));
    /// assert_eq!(reader.next_item().await, Some(Item::Retry(2000)));
    /// assert_eq!(reader.next_item().await, None);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// After the [timeout](Reader::timeout).
    #[track_caller]
    pub fn next_item(&mut self) -> impl Future<Output = Option<Item>> {
        let caller = Location::caller();
        async move {
            match within(self.timeout, self.timeout, self.item()).await {
                Wait::Done(item) => item,
                Wait::TimedOut | Wait::Stuck => {
                    self.fail(caller, &format!("no item within {:?}", self.timeout))
                }
            }
        }
    }

    /// The next event, or `None` if the stream ends or [breaks](Reader::error).
    ///
    /// ```
    /// # use axum_sse::testing::Reader;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new(":\n\nevent: price\ndata: 1205\n\n");
    /// assert_eq!(reader.next().await.unwrap().event, "price");
    /// assert_eq!(reader.next().await, None);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// After the [timeout](Reader::timeout).
    #[track_caller]
    #[allow(
        clippy::should_implement_trait,
        reason = "asynchronous, so not an iterator"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Message>> {
        let caller = Location::caller();
        async move { self.next_at(caller).await }
    }

    /// The next event, in tests that expect one.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new(Sse::new(tokio_stream::iter(["hello"])));
    /// let message = reader.next_message().await;
    /// assert_eq!((message.event.as_str(), message.data.as_str()), ("message", "\"hello\""));
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the stream ends or breaks first, or after the [timeout](Reader::timeout).
    #[track_caller]
    pub fn next_message(&mut self) -> impl Future<Output = Message> {
        let caller = Location::caller();
        async move { self.message_at(caller).await }
    }

    /// The next event, in tests that expect one with this name.
    ///
    /// ```
    /// # use axum_sse::{Channel, LastEventId, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let channel = Channel::<str>::new();
    /// let mut reader = Reader::new(channel.subscribe(LastEventId::Absent));
    /// let checkpoint = reader.expect_named("checkpoint").await;
    /// assert_eq!(checkpoint.last_event_id, channel.newest().to_string());
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the event has another name, if the stream ends or breaks first, or after the
    /// [timeout](Reader::timeout).
    #[track_caller]
    pub fn expect_named(&mut self, name: &str) -> impl Future<Output = Message> {
        let caller = Location::caller();
        async move {
            let message = self.message_at(caller).await;
            if message.event != name {
                self.fail(
                    caller,
                    &format!("received event {:?} instead of {name:?}", message.event),
                );
            }
            message
        }
    }

    /// Waits for the end of the stream, in tests that expect no more events. An unfinished line or
    /// event before the end is ignored.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new(Sse::new(tokio_stream::iter([1])));
    /// reader.next_message().await;
    /// reader.expect_end().await;
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If an event arrives, if the stream breaks, or after the [timeout](Reader::timeout).
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            if self.next_at(caller).await.is_some() {
                self.fail(caller, "received an event instead of the end of the stream");
            }
            self.not_broken(caller);
        }
    }

    /// Waits for this time, in tests that expect no event during it. Use paused time, where this
    /// returns at once.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let mut reader = Reader::new(Sse::new(tokio_stream::pending::<u64>()));
    /// reader.expect_silence(Duration::from_secs(3600)).await; // Heartbeats are ignored.
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If an event arrives, if the stream ends or breaks, or if the paused clock does not advance
    /// for the [timeout](Reader::timeout) in real time, because the stream is always ready.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            match within(time, self.timeout, self.message()).await {
                Wait::TimedOut => {}
                Wait::Stuck => self.fail(
                    caller,
                    "the paused clock cannot advance: the stream is always ready",
                ),
                Wait::Done(Some(_)) => self.fail(caller, "received an unexpected event"),
                Wait::Done(None) => {
                    self.not_broken(caller);
                    self.fail(caller, "the stream ended instead of staying silent");
                }
            }
        }
    }

    /// All remaining events up to the end of the stream.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new(Sse::new(tokio_stream::iter(1..=3)));
    /// let data: Vec<_> = reader.rest().await.into_iter().map(|message| message.data).collect();
    /// assert_eq!(data, ["1", "2", "3"]);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the stream breaks, or after the [timeout](Reader::timeout).
    #[track_caller]
    pub fn rest(&mut self) -> impl Future<Output = Vec<Message>> {
        let caller = Location::caller();
        async move {
            let mut messages = Vec::new();
            let wait = self.timeout;
            let all = async {
                while let Some(message) = self.message().await {
                    messages.push(message);
                }
            };
            let Wait::Done(()) = within(wait, wait, all).await else {
                self.fail(caller, &format!("no end within {wait:?}"));
            };
            self.not_broken(caller);
            messages
        }
    }

    /// The id that a browser would send as `Last-Event-ID` if the connection broke now, after the
    /// last item that was read. Empty if there was no id; a browser then sends no header.
    ///
    /// ```
    /// # use axum_sse::testing::Reader;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut reader = Reader::new("id: 7\ndata: a\n\nid: 8\ndata: b\n\n");
    /// reader.next_message().await;
    /// assert_eq!(reader.last_event_id(), "7");
    /// # }
    /// ```
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }

    /// How long a browser would wait before it reconnects, if the server sent a time.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let sse = Sse::new(tokio_stream::iter([1])).retry(Duration::from_secs(2));
    /// let mut reader = Reader::new(sse);
    /// reader.next_message().await;
    /// assert_eq!(reader.retry(), Some(Duration::from_secs(2)));
    /// # }
    /// ```
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.parser.retry().map(Duration::from_millis)
    }

    /// The headers of the response.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let reader = Reader::new(Sse::new(tokio_stream::iter([1])));
    /// assert_eq!(reader.headers()["content-type"], "text/event-stream");
    /// # }
    /// ```
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The error that broke the stream, if [`next`](Reader::next) returned `None` for that reason:
    /// a failed connection, for instance.
    ///
    /// ```
    /// # use axum_sse::testing::Reader;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let chunks = [Ok("data: a\n\n"), Err("cut")];
    /// let mut reader = Reader::from_stream(tokio_stream::iter(chunks));
    /// reader.next_message().await;
    /// assert_eq!(reader.next().await, None);
    /// assert_eq!(reader.error().unwrap().to_string(), "cut");
    /// # }
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<&(dyn error::Error + Send + Sync + 'static)> {
        match &self.over {
            Some(Over::Broken(error)) => Some(error),
            Some(Over::Ended) | None => None,
        }
    }

    async fn next_at(&mut self, caller: &'static Location<'static>) -> Option<Message> {
        match within(self.timeout, self.timeout, self.message()).await {
            Wait::Done(message) => message,
            Wait::TimedOut | Wait::Stuck => {
                self.fail(caller, &format!("no event within {:?}", self.timeout))
            }
        }
    }

    async fn message_at(&mut self, caller: &'static Location<'static>) -> Message {
        if let Some(message) = self.next_at(caller).await {
            return message;
        }
        self.not_broken(caller);
        self.fail(caller, "the stream ended instead of an event")
    }

    async fn message(&mut self) -> Option<Message> {
        loop {
            if let Item::Message(message) = self.item().await? {
                return Some(message);
            }
        }
    }

    async fn item(&mut self) -> Option<Item> {
        loop {
            // Yields before it takes a line or frame: a future dropped here holds no item.
            self.until_yield -= 1;
            if self.until_yield == 0 {
                self.until_yield = YIELD_AFTER;
                yield_now().await;
            }
            if !self.pending.is_empty() {
                let end = self.pending.iter().position(|byte| b"\r\n".contains(byte));
                let line = self
                    .pending
                    .split_to(end.map_or(self.pending.len(), |end| end + 1));
                // A line completes at most one item.
                if let Some(item) = self.parser.push(&line).pop() {
                    self.received.push(&item);
                    return Some(item);
                }
                continue;
            }
            if self.over.is_some() {
                return None;
            }
            match self.body.frame().await {
                None => self.over = Some(Over::Ended),
                Some(Err(error)) => self.over = Some(Over::Broken(error)),
                Some(Ok(frame)) => self.pending = frame.into_data().unwrap_or_default(),
            }
        }
    }

    fn not_broken(&self, caller: &'static Location<'static>) {
        if let Some(error) = self.error() {
            self.fail(caller, &format!("the stream broke: {error}"));
        }
    }

    fn fail(&self, caller: &'static Location<'static>, what: &str) -> ! {
        let unfinished = self.parser.unfinished().map_or_else(String::new, |text| {
            let text = shortened(&text);
            format!("\nand an unfinished event: {text}")
        });
        panic!("{what}, at {caller}\n{}{unfinished}", self.received)
    }
}

/// The newest items that were read, for panic messages.
#[derive(Debug, Default)]
struct Received {
    count: usize,
    newest: VecDeque<String>,
}

impl Received {
    fn push(&mut self, item: &Item) {
        let mut quoted = String::new();
        // Writing to a string cannot fail.
        let _ = match item {
            Item::Message(message) => write!(
                quoted,
                "Message {{ event: {}, data: {}, last_event_id: {} }}",
                shortened(&message.event),
                shortened(&message.data),
                shortened(&message.last_event_id)
            ),
            Item::Comment(text) => write!(quoted, "Comment({})", shortened(text)),
            Item::Retry(millis) => write!(quoted, "Retry({millis})"),
        };
        self.count += 1;
        self.newest.push_back(quoted);
        if self.newest.len() > SHOWN {
            self.newest.pop_front();
        }
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => return f.write_str("nothing received"),
            1 => f.write_str("1 item received:")?,
            count if count > SHOWN => write!(f, "{count} items received, the last:")?,
            count => write!(f, "{count} items received:")?,
        }
        let first = self.count - self.newest.len() + 1;
        for (n, item) in (first..).zip(&self.newest) {
            write!(f, "\n  {n}. {item}")?;
        }
        Ok(())
    }
}
