//! [`Event`]: one event and what its fields may hold.
//!
//! Whatever a user's text holds, it stays inside its field: an event that can be built can be
//! sent (law 11).

pub(crate) mod encode;
mod heartbeat;
pub(crate) mod id;
mod name;
pub(crate) mod payload;
pub(crate) mod retry;
pub(crate) mod variant;

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use encode::IdOffset;
use id::quoted;

pub use heartbeat::Heartbeat;
pub use id::EventId;
pub use name::EventName;
pub use payload::{NotAResult, Payload};

/// One event: data, and optionally a name, an id, a reconnection time and a comment.
///
/// It starts from its data: [`json`](Event::json), [`text`](Event::text),
/// [`empty`](Event::empty) or [`named`](Event::named); or from a [`comment`](Event::comment)
/// alone, which clients skip. Setting a field again replaces it.
///
/// Text with CR, LF or NUL is an error wherever the format cannot carry it; line breaks in data
/// and comments become several lines (CRLF and CR arrive as LF, as the format has no way to tell
/// them apart; rule 3).
///
/// ```
/// use axum_sse::{Event, event_name};
/// use std::time::Duration;
///
/// #[derive(serde::Serialize)]
/// struct Price { symbol: &'static str, cents: u64 }
///
/// let event = Event::json(&Price { symbol: "ACME", cents: 1205 })?
///     .with_name(event_name!("price"))
///     .id("42")?
///     .retry(Duration::from_secs(2));
/// assert_eq!(
///     &event.to_bytes()[..],
///     b"retry: 2000\nevent: price\nid: 42\ndata: {\"symbol\":\"ACME\",\"cents\":1205}\n\n",
/// );
///
/// assert_eq!(&Event::text("[DONE]")?.to_bytes()[..], b"data: [DONE]\n\n");
/// assert_eq!(&Event::empty().id("7")?.to_bytes()[..], b"id: 7\ndata: \n\n");
/// assert_eq!(&Event::empty().clear_id().to_bytes()[..], b"id: \ndata: \n\n");
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    comment: Option<String>,
    retry: Option<u32>,
    name: Option<EventName>,
    id: Option<String>,
    /// `data` lines as they will stand on the wire, so that a value is serialised once and what
    /// cannot be serialised is never an event.
    data: Option<Vec<u8>>,
}

impl Event {
    /// The longest id that [`Event::id`] takes, in bytes. Browsers may one day ask permission (a
    /// CORS preflight) before they reconnect with a longer one.
    ///
    /// ```
    /// use axum_sse::Event;
    ///
    /// assert!(Event::empty().id("7".repeat(Event::MAX_ID_LEN)).is_ok());
    /// assert!(Event::empty().id("7".repeat(Event::MAX_ID_LEN + 1)).is_err());
    /// ```
    // Rule 82.
    pub const MAX_ID_LEN: usize = 128;

    /// The shortest reconnection time that is sent. Firefox takes no less, and Chromium would
    /// honour 0 with a reconnect every few milliseconds.
    ///
    /// ```
    /// use axum_sse::Event;
    /// use std::time::Duration;
    ///
    /// let event = Event::empty().retry(Duration::ZERO);
    /// assert_eq!(event.to_bytes(), Event::empty().retry(Event::MIN_RETRY).to_bytes());
    /// ```
    // Rule 24.
    pub const MIN_RETRY: Duration = retry::MIN;

    /// The longest reconnection time that is sent: a day. Firefox counts in 32 bits.
    ///
    /// ```
    /// use axum_sse::Event;
    ///
    /// let event = Event::empty().retry(Event::MAX_RETRY * 2);
    /// assert_eq!(event.to_bytes(), Event::empty().retry(Event::MAX_RETRY).to_bytes());
    /// ```
    // Rule 25.
    pub const MAX_RETRY: Duration = retry::MAX;

    fn with_data(data: Option<Vec<u8>>) -> Self {
        Self {
            comment: None,
            retry: None,
            name: None,
            id: None,
            data,
        }
    }

    /// An event whose data is `value` as JSON, on one line.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if `value` refuses to be serialised, or is a map whose keys
    /// JSON cannot hold.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let mut data = Vec::new();
        encode::json(&mut data, value)?;
        Ok(Self::with_data(Some(data)))
    }

    /// An event whose data is `text` as it stands: `[DONE]`, a log line, a piece of HTML.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if `text` holds a NUL, which Firefox drops (rule 34). Send
    /// such text with [`json`](Event::json).
    pub fn text(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        refuse_nul("text", text)?;
        let mut data = Vec::with_capacity(text.len() + 8);
        encode::text(&mut data, text);
        Ok(Self::with_data(Some(data)))
    }

    /// An event whose data is the empty string. It is dispatched like any other.
    ///
    /// With an id and a name of its own it is the portable way to move a client's
    /// `Last-Event-ID` without telling its page anything (a checkpoint; rules 21, 22).
    #[must_use]
    pub fn empty() -> Self {
        Self::with_data(Some(b"data: \n".to_vec()))
    }

    /// An event named after the variant of an externally tagged enum (serde's default): the
    /// variant's name becomes the event's name, its content the data. A unit variant's data is
    /// `null`.
    ///
    /// ```
    /// use axum_sse::Event;
    ///
    /// #[derive(serde::Serialize)]
    /// #[serde(rename_all = "kebab-case")]
    /// enum Chat { UserJoined { name: String }, Cleared }
    ///
    /// let joined = Event::named(&Chat::UserJoined { name: "Ada".into() })?;
    /// assert_eq!(&joined.to_bytes()[..], b"event: user-joined\ndata: {\"name\":\"Ada\"}\n\n");
    /// assert_eq!(&Event::named(&Chat::Cleared)?.to_bytes()[..], b"event: cleared\ndata: null\n\n");
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAVariant`] if `value` serialises to anything but a variant of an
    /// externally tagged enum, [`ErrorKind::InvalidName`] if the variant's name cannot be an
    /// event's name or is reserved (`error`, `open`, `gap`, the empty name),
    /// [`ErrorKind::Serialize`] if the content cannot be serialised.
    pub fn named<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let name = variant::name(value)?;
        let mut data = Vec::new();
        variant::content(&mut data, value)?;
        Ok(Self::with_data(Some(data)).with_name(name))
    }

    /// A comment without an event: every client skips it. Line breaks make several comment
    /// lines; it can never become a field (rule 12).
    ///
    /// ```
    /// let event = axum_sse::Event::comment("two\nlines")?;
    /// assert_eq!(&event.to_bytes()[..], b": two\n: lines\n");
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if `text` holds a NUL.
    pub fn comment(text: impl Into<String>) -> Result<Self, Error> {
        Self::with_data(None).with_comment(text)
    }

    /// Puts a comment in front of the event.
    ///
    /// ```
    /// let event = axum_sse::Event::text("[DONE]")?.with_comment("that was all")?;
    /// assert_eq!(&event.to_bytes()[..], b": that was all\ndata: [DONE]\n\n");
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if `text` holds a NUL.
    pub fn with_comment(mut self, text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        refuse_nul("comment", &text)?;
        self.comment = Some(text);
        Ok(self)
    }

    /// Names the event: the browser dispatches it to `addEventListener(name, …)` and not to
    /// `onmessage`. The empty name is the default one, and no line is written for it (rule 16).
    ///
    /// For a literal name, [`with_name`](Event::with_name) with
    /// [`event_name!`](crate::event_name) cannot fail.
    ///
    /// ```
    /// use axum_sse::Event;
    ///
    /// let event = Event::text("1205")?.name("price")?;
    /// assert_eq!(&event.to_bytes()[..], b"event: price\ndata: 1205\n\n");
    /// assert!(Event::empty().name("two\nlines").is_err());
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] as for [`EventName::new`].
    pub fn name(mut self, name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        self.name = match name {
            "" => None,
            name => Some(EventName::new(name)?),
        };
        Ok(self)
    }

    /// Names the event with a name that has been checked already.
    #[must_use]
    pub fn with_name(mut self, name: EventName) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets the id, which the browser sends back as `Last-Event-ID` when it reconnects.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] if `id` is empty (say [`clear_id`](Event::clear_id) if you mean
    /// it), longer than [`MAX_ID_LEN`], or holds anything but visible ASCII without
    /// `"():<>?@[\]{}`: other ids do not survive the way back through every client, or end its
    /// reconnecting for good (rules 11, 82, 83). Also if the event is a comment alone, since an
    /// id without data is not taken over by every browser (rule 21).
    pub fn id(mut self, id: impl AsRef<str>) -> Result<Self, Error> {
        let id = id.as_ref();
        check_id(id)?;
        if self.data.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidId,
                "an id needs data beside it, even empty data: not every browser takes over the \
                 id of an event without",
            ));
        }
        self.id = Some(id.to_owned());
        Ok(self)
    }

    /// Makes the client forget its last event id (an empty `id` field; rule 17). Without effect
    /// on a comment alone.
    #[must_use]
    pub fn clear_id(mut self) -> Self {
        self.id = Some(String::new());
        self
    }

    /// Tells the client how long to wait before it reconnects: `time` rounded up to whole
    /// milliseconds, at least [`MIN_RETRY`] and at most [`MAX_RETRY`] (rules 24 to 26).
    #[must_use]
    pub fn retry(mut self, time: Duration) -> Self {
        self.retry = Some(retry::millis(time));
        self
    }

    /// The event as it stands on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let place = self.encode_without_id(out);
        if let (Some(id), Some(_)) = (&self.id, &self.data) {
            let data = out.split_off(place);
            encode::id(out, |out| out.extend_from_slice(id.as_bytes()));
            out.extend_from_slice(&data);
        }
    }

    pub(crate) fn encode_without_id(&self, out: &mut Vec<u8>) -> IdOffset {
        let Self {
            comment,
            retry,
            name,
            id: _,
            data,
        } = self;
        if let Some(comment) = comment {
            encode::comment(out, comment);
        }
        if let Some(millis) = retry {
            encode::retry(out, *millis);
        }
        let Some(data) = data else {
            // A blank line would dispatch nothing in browsers, and something in other clients.
            return out.len();
        };
        if let Some(name) = name {
            encode::name(out, name.as_str());
        }
        let place = out.len();
        out.extend_from_slice(data);
        encode::end(out);
        place
    }

    /// What keeps this event from being stored in a channel, if anything.
    pub(crate) fn unfit_for_a_channel(&self) -> Option<&'static str> {
        if self.id.is_some() {
            Some("it has an id of its own, and a channel gives the ids")
        } else if self.retry.is_some() {
            Some("it has a reconnection time, which belongs to the connection")
        } else if self.data.is_none() {
            Some("it is a comment without data")
        } else {
            None
        }
    }

    pub(crate) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(crate) fn name_str(&self) -> Option<&str> {
        self.name.as_ref().map(EventName::as_str)
    }
}

impl fmt::Debug for Event {
    /// Shows the event as it stands on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Event")
            .field(&String::from_utf8_lossy(&self.to_bytes()))
            .finish()
    }
}

fn refuse_nul(what: &str, text: &str) -> Result<(), Error> {
    match memchr::memchr(0, text.as_bytes()) {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::InvalidText,
            format!(
                "{what} {}: the NUL at byte {at} would be lost in some browsers",
                quoted(text)
            ),
        )),
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    let refuse = |why: String| {
        Err(Error::new(
            ErrorKind::InvalidId,
            format!("event id {}: {why}", quoted(id)),
        ))
    };
    if id.is_empty() {
        return refuse("empty; clear_id() makes a client forget its id".to_owned());
    }
    if id.len() > Event::MAX_ID_LEN {
        return refuse(format!(
            "{} bytes, more than {}",
            id.len(),
            Event::MAX_ID_LEN
        ));
    }
    match id.char_indices().find(|(_, char)| !id_char(*char)) {
        None => Ok(()),
        Some((at, char)) => refuse(format!(
            "{char:?} at byte {at} does not travel back from every client"
        )),
    }
}

fn id_char(char: char) -> bool {
    char.is_ascii_graphic() && !"\"():<>?@[\\]{}".contains(char)
}

#[cfg(test)]
mod tests;
