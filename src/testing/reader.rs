//! [`Reader`]: the events of one response.

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

/// How long a wait lasts, unless told otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How many lines and frames are read in a row: then others have their turn, the clock among
/// them, for a body that is always ready leaves them none.
const TURNS: usize = 64;

/// How many of the newest items a panic shows.
const SHOWN: usize = 20;

/// Reads the events of a response.
///
/// Made from whatever a handler may return, from a stream or a body, or by a
/// [`Client`](super::Client); the last kind, `Reader<Client>`, can
/// [resume](Reader::resume).
///
/// Comments, heartbeats among them, are read over by all methods but
/// [`next_item`](Reader::next_item).
///
/// A wait that is given up, by a timeout of yours or in a `select!`, loses no event, with two
/// exceptions. [`rest`](Reader::rest) takes along what it has collected. `resume` drops the
/// connection before it waits for the next: the reader is at its end then, and may be resumed
/// again.
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
    /// What has arrived and has not been looked at: the parser is never ahead of the caller, so
    /// where the chunks end has no influence on what a test sees.
    pending: Bytes,
    parser: Parser,
    turns: usize,
    arrived: Arrived,
    pub(super) timeout: Duration,
    pub(super) client: C,
    /// Where the client found it.
    pub(super) path: String,
}

#[derive(Debug)]
enum Over {
    Ended,
    Broken(axum_core::Error),
}

impl Reader {
    /// Reads the body of whatever a handler may return, or of any `http::Response`, also
    /// hyper's. The status and the headers are not looked at.
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
            turns: 0,
            arrived: Arrived::default(),
            timeout,
            client,
            path: String::new(),
        }
    }

    /// Drops the connection, and with it what has not been read.
    pub(super) fn cut(&mut self) {
        self.body = Body::empty();
        self.pending = Bytes::new();
        self.over = Some(Over::Ended);
    }

    /// Goes on with the response to a request that brought the last id.
    pub(super) fn resumed(&mut self, response: Response) {
        let (head, body) = response.into_parts();
        self.headers = head.headers;
        self.body = body;
        self.over = None;
        self.parser = Parser::resumed(self.parser.last_event_id(), self.parser.retry());
    }

    /// How long a wait lasts before it fails: five seconds unless this says otherwise.
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

    /// The next item of any kind, comments and reconnection times too, or `None` at the end of
    /// the stream or an [error](Reader::error) in it.
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
    /// If nothing of the three happens in [time](Reader::timeout).
    #[track_caller]
    pub fn next_item(&mut self) -> impl Future<Output = Option<Item>> {
        let caller = Location::caller();
        async move {
            match within(self.timeout, self.timeout, self.item()).await {
                Wait::Done(item) => item,
                Wait::Over | Wait::Stuck => {
                    self.fail(caller, &format!("nothing within {:?}", self.timeout))
                }
            }
        }
    }

    /// The next event, or `None` at the end of the stream or an [error](Reader::error) in it.
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
    /// If nothing of the three happens in [time](Reader::timeout).
    #[track_caller]
    #[allow(
        clippy::should_implement_trait,
        reason = "it is async, and no iterator"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Message>> {
        let caller = Location::caller();
        async move { self.next_at(caller).await }
    }

    /// The next event.
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
    /// If the stream ends or breaks instead, or none arrives in [time](Reader::timeout).
    #[track_caller]
    pub fn next_message(&mut self) -> impl Future<Output = Message> {
        let caller = Location::caller();
        async move { self.message_at(caller).await }
    }

    /// The next event, which must have this name.
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
    /// If it has another, if the stream ends or breaks instead, or none arrives in
    /// [time](Reader::timeout).
    #[track_caller]
    pub fn expect_named(&mut self, name: &str) -> impl Future<Output = Message> {
        let caller = Location::caller();
        async move {
            let message = self.message_at(caller).await;
            if message.event != name {
                self.fail(
                    caller,
                    &format!("an event {:?} instead of {name:?}", message.event),
                );
            }
            message
        }
    }

    /// Passes if the stream ends before another event. What ends within a line or an event is an
    /// end too; what breaks off, as a cut connection does, is not.
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
    /// If an event arrives, if the stream breaks, or neither ends in [time](Reader::timeout).
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            if self.next_at(caller).await.is_some() {
                self.fail(caller, "an event instead of the end of the stream");
            }
            self.not_broken(caller);
        }
    }

    /// Passes if no event arrives for this long, and the stream goes on. For tests with paused
    /// time, where it takes none.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let mut reader = Reader::new(Sse::new(tokio_stream::pending::<u64>()));
    /// reader.expect_silence(Duration::from_secs(3600)).await; // Apart from heartbeats.
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If an event arrives, or the stream ends or breaks, or if the time is paused and cannot pass,
    /// since comments come without a pause, for as long as a [wait](Reader::timeout) lasts.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            match within(time, self.timeout, self.message()).await {
                Wait::Over => {}
                Wait::Stuck => self.fail(caller, "no pause in which the paused time could pass"),
                Wait::Done(Some(_)) => self.fail(caller, "an event where none was expected"),
                Wait::Done(None) => {
                    self.not_broken(caller);
                    self.fail(caller, "the stream ended where silence was expected");
                }
            }
        }
    }

    /// All events up to the end of the stream.
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
    /// If the stream breaks, or does not end in [time](Reader::timeout).
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

    /// What a browser would send as `Last-Event-ID` if it were cut off behind what was read last.
    /// Empty if there was no id; then it sends none.
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

    /// How long a browser would wait before it came back, if the server has said so.
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

    /// What broke the stream, where [`next`](Reader::next) is `None` for that reason.
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
            Wait::Over | Wait::Stuck => {
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
            // In front of a line or frame, never behind: nothing is held while this waits.
            self.turns = (self.turns + 1) % TURNS;
            if self.turns == 0 {
                yield_now().await;
            }
            if !self.pending.is_empty() {
                let end = self.pending.iter().position(|byte| b"\r\n".contains(byte));
                let line = self
                    .pending
                    .split_to(end.map_or(self.pending.len(), |end| end + 1));
                // No line is more than one item.
                if let Some(item) = self.parser.push(&line).pop() {
                    self.arrived.push(&item);
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
            format!("\nand, without the blank line that ends an event: {text}")
        });
        panic!("{what}, at {caller}\n{}{unfinished}", self.arrived)
    }
}

/// The newest of what has been read, for whoever waits in vain for more.
#[derive(Debug, Default)]
struct Arrived {
    count: usize,
    newest: VecDeque<String>,
}

impl Arrived {
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

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => return f.write_str("nothing had arrived"),
            1 => f.write_str("1 item had arrived:")?,
            count if count > SHOWN => write!(f, "{count} items had arrived, the last:")?,
            count => write!(f, "{count} items had arrived:")?,
        }
        let first = self.count - self.newest.len() + 1;
        for (n, item) in (first..).zip(&self.newest) {
            write!(f, "\n  {n}. {item}")?;
        }
        Ok(())
    }
}
