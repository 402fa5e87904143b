//! A reader of event streams that follows the HTML standard step by step, for tests.
//!
//! [`Parser`] turns bytes into what a browser would dispatch; [`Reader`] does so with the body
//! of a response. Both are for tests: they trade speed for being easy to compare with
//! [the standard][spec], and bound nothing.
//!
//! [spec]: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
//!
//! ```
//! use axum_sse::{Sse, testing::Reader};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let mut reader = Reader::new(Sse::new(tokio_stream::iter([1, 2])));
//! assert_eq!(reader.next().await.unwrap().data, "1");
//! assert_eq!(reader.next().await.unwrap().data, "2");
//! assert!(reader.next().await.is_none());
//! # }
//! ```

use std::{collections::VecDeque, mem};

use axum_core::{body::Body, response::IntoResponse};
use http_body_util::BodyExt;

/// An event as a browser dispatches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The type: `message` where the stream gave no name.
    pub event: String,
    /// The data, its lines joined by line feeds.
    pub data: String,
    /// The last event id at that time; empty if there was none.
    pub last_event_id: String,
}

/// What a stream holds, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// An event was dispatched.
    Message(Message),
    /// A comment line, which browsers skip; without its colon.
    Comment(String),
    /// The reconnection time was set, in milliseconds.
    Retry(u64),
}

/// Interprets an event stream, in chunks of any size.
///
/// ```
/// use axum_sse::testing::{Item, Parser};
///
/// let mut parser = Parser::new();
/// assert!(parser.push(b"id: 7\ndata: a\nda").is_empty());
/// let items = parser.push(b"ta: b\n\n");
/// let [Item::Message(message)] = &items[..] else { unreachable!() };
/// assert_eq!((message.data.as_str(), message.last_event_id.as_str()), ("a\nb", "7"));
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

    /// The last event id string: what a browser would send as `Last-Event-ID`.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time in milliseconds, if the stream has set one.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Reads on, and returns what was completed.
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
        // byte order mark. No character's bytes hold a CR or LF, so lines decode one by one.
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

/// Reads the events of a response.
#[derive(Debug)]
pub struct Reader {
    body: Body,
    parser: Parser,
    items: VecDeque<Item>,
}

impl Reader {
    /// Reads the body of whatever a handler may return.
    pub fn new(response: impl IntoResponse) -> Self {
        Self {
            body: response.into_response().into_body(),
            parser: Parser::new(),
            items: VecDeque::new(),
        }
    }

    /// The next item of any kind, or `None` at the end of the stream or an error in it.
    pub async fn next_item(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some(item);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.items.extend(self.parser.push(data));
            }
        }
    }

    /// The next event, or `None` at the end of the stream or an error in it.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Item::Message(message) = self.next_item().await? {
                return Some(message);
            }
        }
    }

    /// What a browser would send as `Last-Event-ID` if it were cut off now.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.parser.last_event_id()
    }
}

#[cfg(test)]
mod tests;
