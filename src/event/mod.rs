//! [`Event`]: one event, and the rules for its fields.
//!
//! Fields are validated when they are set. No text can escape its field, and every event that can
//! be built can be sent (law 11).

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
/// Start with the data: [`json`](Event::json), [`text`](Event::text), [`empty`](Event::empty) or
/// [`named`](Event::named). Or send a [`comment`](Event::comment) alone, which clients skip.
/// Setting a field again replaces it.
///
/// Text that the [format] cannot carry is an error: CR and LF in a name or id, and NUL. Line breaks
/// in data and comments become several lines. CRLF and CR arrive as LF, because the format does not
/// distinguish them.
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
///
/// [format]: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
// Rule 3 for the line breaks.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    comment: Option<String>,
    retry: Option<u32>,
    name: Option<EventName>,
    id: Option<String>,
    /// Encoded `data` lines. A value is serialized once, and an error leaves no event.
    data: Option<Vec<u8>>,
}

impl Event {
    /// The longest id that [`Event::id`] accepts, in bytes. Fetch exempts only header values up to
    /// [this length][safelist] from CORS preflights, a limit that browsers may one day apply to
    /// `Last-Event-ID`.
    ///
    /// ```
    /// use axum_sse::Event;
    ///
    /// assert!(Event::empty().id("7".repeat(Event::MAX_ID_LEN)).is_ok());
    /// assert!(Event::empty().id("7".repeat(Event::MAX_ID_LEN + 1)).is_err());
    /// ```
    ///
    /// [safelist]: https://fetch.spec.whatwg.org/#cors-safelisted-request-header
    // Rule 82.
    pub const MAX_ID_LEN: usize = 128;

    /// The shortest reconnection time that is sent: 500 ms. Firefox accepts no less, and Chromium
    /// takes 0 literally and reconnects every few milliseconds.
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

    /// The longest reconnection time that is sent: 1 day. Firefox counts milliseconds in 32 bits,
    /// so very long times wrap around.
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
    /// [`ErrorKind::Serialize`] if `value` cannot be serialized, or contains a map whose keys JSON
    /// cannot represent.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let mut data = Vec::new();
        encode::json(&mut data, value)?;
        Ok(Self::with_data(Some(data)))
    }

    /// An event whose data is `text`, unchanged: `[DONE]`, a log line, a piece of HTML.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if `text` contains a NUL, which Firefox drops. Send such text
    /// with [`json`](Event::json).
    // Rule 34.
    pub fn text(text: impl AsRef<str>) -> Result<Self, Error> {
        let text = text.as_ref();
        refuse_nul("text", text)?;
        let mut data = Vec::with_capacity(text.len() + 8);
        encode::text(&mut data, text);
        Ok(Self::with_data(Some(data)))
    }

    /// An event whose data is empty. Clients dispatch it like any other.
    ///
    /// With an id and a name it is a *checkpoint*: the portable way to update a client's last event
    /// id without an event for `onmessage`.
    // Rules 21 and 22.
    #[must_use]
    pub fn empty() -> Self {
        Self::with_data(Some(b"data: \n".to_vec()))
    }

    /// An event for a variant of an [externally tagged] enum (serde's default): the variant's name
    /// becomes the event's name, its content the data. The data of a unit variant is `null`.
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
    /// [`ErrorKind::NotAVariant`] if `value` does not serialize as a variant of an externally
    /// tagged enum; [`ErrorKind::InvalidName`] if the variant's name is `gap`, or rejected by
    /// [`EventName::new`]; [`ErrorKind::Serialize`] if the content cannot be serialized.
    ///
    /// [externally tagged]: https://serde.rs/enum-representations.html
    pub fn named<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let name = variant::name(value)?;
        let mut data = Vec::new();
        variant::content(&mut data, value)?;
        Ok(Self::with_data(Some(data)).with_name(name))
    }

    /// A comment without an event. Clients skip it. Line breaks make several comment lines, so no
    /// text can become a field.
    ///
    /// ```
    /// let event = axum_sse::Event::comment("two\nlines")?;
    /// assert_eq!(&event.to_bytes()[..], b": two\n: lines\n");
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if `text` contains a NUL.
    // Rule 12.
    pub fn comment(text: impl Into<String>) -> Result<Self, Error> {
        Self::with_data(None).with_comment(text)
    }

    /// Puts a comment before the event.
    ///
    /// ```
    /// let event = axum_sse::Event::text("[DONE]")?.with_comment("that was all")?;
    /// assert_eq!(&event.to_bytes()[..], b": that was all\ndata: [DONE]\n\n");
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidText`] if `text` contains a NUL.
    pub fn with_comment(mut self, text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        refuse_nul("comment", &text)?;
        self.comment = Some(text);
        Ok(self)
    }

    /// Names the event: browsers dispatch it to `addEventListener(name, …)` and not to `onmessage`.
    /// The empty name removes the name.
    ///
    /// For a literal, use [`with_name`](Event::with_name) and [`event_name!`](crate::event_name),
    /// which cannot fail at run time.
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
    /// [`ErrorKind::InvalidName`], as for [`EventName::new`].
    // Rule 16.
    pub fn name(mut self, name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        self.name = match name {
            "" => None,
            name => Some(EventName::new(name)?),
        };
        Ok(self)
    }

    /// Names the event, with a name that is already validated.
    #[must_use]
    pub fn with_name(mut self, name: EventName) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets the id, which browsers send as [`Last-Event-ID`] when they reconnect.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] if `id` is empty (see [`clear_id`](Event::clear_id)), is longer
    /// than [`Event::MAX_ID_LEN`], or contains anything but visible ASCII without `"():<>?@[\]{}`:
    /// with [other bytes][unsafe], some clients send a different id or stop reconnecting. Also if
    /// the event is a comment alone, because some browsers ignore an id without data.
    ///
    /// [`Last-Event-ID`]: https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
    /// [unsafe]: https://fetch.spec.whatwg.org/#cors-unsafe-request-header-byte
    // Rules 11, 21, 82 and 83.
    pub fn id(mut self, id: impl AsRef<str>) -> Result<Self, Error> {
        let id = id.as_ref();
        check_id(id)?;
        if self.data.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidId,
                "an id needs data, even if empty: some browsers ignore the id of an event without \
                 data",
            ));
        }
        self.id = Some(id.to_owned());
        Ok(self)
    }

    /// Makes the client forget its last event id, with an empty `id` field. Without effect on a
    /// comment alone.
    // Rule 17.
    #[must_use]
    pub fn clear_id(mut self) -> Self {
        self.id = Some(String::new());
        self
    }

    /// Sets the client's reconnection time: how long it waits before it reconnects. `time` is
    /// rounded up to whole milliseconds and clamped to [`Event::MIN_RETRY`] to
    /// [`Event::MAX_RETRY`].
    // Rules 24 to 26.
    #[must_use]
    pub fn retry(mut self, time: Duration) -> Self {
        self.retry = Some(retry::millis(time));
        self
    }

    /// The encoded event.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let id_offset = self.encode_without_id(out);
        if let (Some(id), Some(_)) = (&self.id, &self.data) {
            let data = out.split_off(id_offset);
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
            // No blank line: browsers would ignore it, but other clients would dispatch an event.
            return out.len();
        };
        if let Some(name) = name {
            encode::name(out, name.as_str());
        }
        let id_offset = out.len();
        out.extend_from_slice(data);
        encode::end(out);
        id_offset
    }

    /// Why this event cannot be published to a channel, if so.
    pub(crate) fn not_publishable(&self) -> Option<&'static str> {
        if self.id.is_some() {
            Some("it has an id, but the channel sets the ids")
        } else if self.retry.is_some() {
            Some("it has a reconnection time, which is a setting of the channel")
        } else if self.data.is_none() {
            Some("it has no data")
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
    /// Shows the encoded event.
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
                "{what} {}: some browsers drop the NUL at byte {at}",
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
        return refuse("empty; to make a client forget its id, use clear_id()".to_owned());
    }
    if id.len() > Event::MAX_ID_LEN {
        return refuse(format!(
            "{} bytes, more than the maximum of {}",
            id.len(),
            Event::MAX_ID_LEN
        ));
    }
    match id.char_indices().find(|(_, char)| !is_id_char(*char)) {
        None => Ok(()),
        Some((at, char)) => refuse(format!(
            "some clients cannot send {char:?} at byte {at} back"
        )),
    }
}

fn is_id_char(char: char) -> bool {
    char.is_ascii_graphic() && !"\"():<>?@[\\]{}".contains(char)
}

#[cfg(test)]
mod tests;
