//! [`Parser`]: parses an event stream as the HTML standard specifies.

use std::{any::type_name, error, fmt, mem};

use serde::de::DeserializeOwned;

/// An event as a browser dispatches it.
///
/// ```
/// # use axum_sse::testing::{Message, Reader};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut page = Reader::new("id: 7\nevent: price\ndata: 1205\n\n");
/// let Message { event, data, last_event_id } = page.next_message().await;
/// assert_eq!((&event[..], &data[..], &last_event_id[..]), ("price", "1205", "7"));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event type; `message` if the stream set none.
    pub event: String,
    /// The data, with its lines joined by line feeds.
    pub data: String,
    /// The last event id when the event was dispatched; empty if there was none.
    pub last_event_id: String,
}

impl Message {
    /// Parses the data as JSON.
    ///
    /// ```
    /// # use axum_sse::{Sse, testing::Reader};
    /// #[derive(Debug, PartialEq, serde::Deserialize, serde::Serialize)]
    /// struct Price { cents: u64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let mut page = Reader::new(Sse::new(tokio_stream::iter([Price { cents: 1205 }])));
    /// let message = page.next_message().await;
    /// assert_eq!(message.json::<Price>().unwrap(), Price { cents: 1205 });
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the data is not the JSON of a `T`. The message contains the type and the data, which is
    /// shortened after 300 characters.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        serde_json::from_str(&self.data).map_err(|source| JsonError {
            message: format!(
                "the data of event {:?} is not {}: {source}; the data is {}",
                self.event,
                type_name::<T>(),
                shortened(&self.data)
            ),
            source,
        })
    }
}

/// The error of [`Message::json`].
///
/// `Debug` prints the same as `Display`, for `unwrap` in tests.
///
/// ```
/// # use axum_sse::testing::Reader;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let message = Reader::new("data: [1]\n\n").next_message().await;
/// assert_eq!(
///     message.json::<u64>().unwrap_err().to_string(),
///     "the data of event \"message\" is not u64: \
///      invalid type: sequence, expected u64 at line 1 column 0; the data is \"[1]\""
/// );
/// # }
/// ```
pub struct JsonError {
    message: String,
    source: serde_json::Error,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for JsonError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Quotes a text for a message, at most its first 300 characters.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 300;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

/// What a [`Parser`] yields, in the order of the stream.
///
/// ```
/// use axum_sse::testing::{Item, Parser};
///
/// let items = Parser::new().push(b": hello\nretry: 2000\n");
/// assert_eq!(items, [Item::Comment(" hello".into()), Item::Retry(2000)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// An event, complete with its blank line.
    Message(Message),
    /// A comment line without its colon. Browsers skip these.
    Comment(String),
    /// A new reconnection time in milliseconds.
    Retry(u64),
}

/// Parses an event stream that arrives in chunks of any size.
///
/// ```
/// use axum_sse::testing::{Item, Parser};
///
/// let mut parser = Parser::new();
/// assert!(parser.push(b"id: 7\ndata: a\nda").is_empty());
/// let items = parser.push(b"ta: b\n\n");
/// let [Item::Message(message)] = &items[..] else { unreachable!() };
/// assert_eq!((message.data.as_str(), message.last_event_id.as_str()), ("a\nb", "7"));
/// assert_eq!((parser.last_event_id(), parser.retry()), ("7", None));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parser {
    started: bool,
    after_cr: bool,
    line: Vec<u8>,
    data: String,
    event_type: String,
    id_buffer: String,
    last_event_id: String,
    retry: Option<u64>,
    items: Vec<Item>,
}

impl Parser {
    /// A parser at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser for the stream after a reconnect, over which browsers keep both values.
    pub(super) fn resumed(last_event_id: &str, retry: Option<u64>) -> Self {
        Self {
            id_buffer: last_event_id.to_owned(),
            last_event_id: last_event_id.to_owned(),
            retry,
            ..Self::default()
        }
    }

    /// The part of an event that was read before its blank line.
    pub(super) fn unfinished(&self) -> Option<String> {
        let text = format!("{}{}", self.data, String::from_utf8_lossy(&self.line));
        (!text.is_empty()).then_some(text)
    }

    /// The id that a browser would send as `Last-Event-ID`; empty if there was none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time in milliseconds, if the stream set one.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Parses the next bytes, and returns the items that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Item> {
        for &byte in bytes {
            // "Lines must be separated by either a CRLF pair, a single LF, or a single CR."
            let second_half = mem::take(&mut self.after_cr) && byte == b'\n';
            match byte {
                b'\n' if second_half => {}
                b'\n' => self.end_of_line(),
                b'\r' => {
                    self.after_cr = true;
                    self.end_of_line();
                }
                byte => self.line.push(byte),
            }
        }
        mem::take(&mut self.items)
    }

    fn end_of_line(&mut self) {
        // "Streams must be decoded using the UTF-8 decode algorithm", which strips one leading
        // byte order mark. No multi-byte character contains CR or LF, so each line can be decoded
        // separately.
        let mut bytes = mem::take(&mut self.line);
        if !mem::replace(&mut self.started, true) && bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        let line = String::from_utf8_lossy(&bytes);
        if line.is_empty() {
            self.dispatch();
        } else if let Some(comment) = line.strip_prefix(':') {
            self.items.push(Item::Comment(comment.to_owned()));
        } else if let Some((field, value)) = line.split_once(':') {
            self.field(field, value.strip_prefix(' ').unwrap_or(value));
        } else {
            self.field(&line, "");
        }
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event_type),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id_buffer),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(millis) = value.parse() {
                    self.retry = Some(millis);
                    self.items.push(Item::Retry(millis));
                }
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        self.last_event_id.clone_from(&self.id_buffer);
        let mut data = mem::take(&mut self.data);
        let event_type = mem::take(&mut self.event_type);
        if data.is_empty() {
            return;
        }
        // "If the data buffer's last character is a LF, then remove the last character."
        data.pop();
        self.items.push(Item::Message(Message {
            event: match event_type.as_str() {
                "" => "message".to_owned(),
                _ => event_type,
            },
            data,
            last_event_id: self.last_event_id.clone(),
        }));
    }
}
