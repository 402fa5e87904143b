//! [`EventName`]: a validated event name, and [`event_name!`](crate::event_name) for literals.

use std::{borrow::Cow, fmt};

use crate::{
    error::{Error, ErrorKind},
    event::id::quoted,
};

/// The validated name of an event: not empty, without CR, LF and NUL, and neither `error` nor
/// `open`, which [`EventSource`] dispatches itself.
///
/// [`event_name!`](crate::event_name) validates a literal at compile time, [`EventName::new`] any
/// text at run time.
///
/// ```
/// use axum_sse::{Event, EventName, event_name};
///
/// const PRICE: EventName = event_name!("price");
/// assert_eq!(PRICE, EventName::new("price")?);
/// let event = Event::text("1205")?.with_name(PRICE);
/// # let _ = event;
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// [`EventSource`]: https://html.spec.whatwg.org/multipage/server-sent-events.html#the-eventsource-interface
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// The name `error`, for clients other than `EventSource`. An `EventSource` dispatches its own
    /// `error` event whenever it loses the connection, and a listener cannot tell the two apart by
    /// type. Therefore [`new`](EventName::new) rejects this name.
    // Rule 65.
    pub const ERROR: Self = Self(Cow::Borrowed("error"));

    /// Validates a name.
    ///
    /// ```
    /// use axum_sse::{ErrorKind, EventName};
    ///
    /// assert_eq!(EventName::new("price")?.as_str(), "price");
    /// for bad in ["", "two\nlines", "nul\0", "error", "open"] {
    ///     assert_eq!(EventName::new(bad).unwrap_err().kind(), ErrorKind::InvalidName);
    /// }
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if the name is empty, contains CR, LF or NUL, or is `error` (see
    /// [`EventName::ERROR`]) or `open`: `EventSource` dispatches events with these names itself, so
    /// your event would trigger the page's `onerror` or `onopen`.
    // Rules 10 and 65.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        match flaw_in_name(&name) {
            None => Ok(Self(Cow::Owned(name))),
            Some(flaw) => Err(Error::new(
                ErrorKind::InvalidName,
                format!("event name {}: {}", quoted(&name), flaw.text(&name)),
            )),
        }
    }

    /// Validates a literal. [`event_name!`](crate::event_name) calls this in a `const`.
    ///
    /// ```
    /// use axum_sse::EventName;
    ///
    /// const PRICE: EventName = EventName::from_static("price");
    /// assert_eq!(PRICE.as_str(), "price");
    /// ```
    ///
    /// # Panics
    ///
    /// If [`EventName::new`] would reject the name. In a `const`, this is a compile error.
    #[must_use]
    #[allow(clippy::panic)] // Meant for a const: see `event_name!`.
    pub const fn from_static(name: &'static str) -> Self {
        match flaw_in_name(name) {
            None => Self(Cow::Borrowed(name)),
            Some(Flaw::Empty) => panic!("an event name must not be empty"),
            Some(Flaw::Error) => panic!("`error` is EventSource's own event: see EventName::ERROR"),
            Some(Flaw::Open) => panic!("`open` is EventSource's own event"),
            Some(Flaw::Byte(_)) => panic!("an event name must not contain CR, LF or NUL"),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

enum Flaw {
    Empty,
    Error,
    Open,
    Byte(usize),
}

impl Flaw {
    fn text(&self, name: &str) -> String {
        match self {
            Self::Empty => "it is empty".to_owned(),
            Self::Error => "EventSource fires `error` itself when the connection is lost; \
                            EventName::ERROR is for other clients"
                .to_owned(),
            Self::Open => "EventSource fires `open` itself when it connects".to_owned(),
            Self::Byte(at) => {
                let what = match name.as_bytes()[*at] {
                    b'\n' => "a line feed",
                    b'\r' => "a carriage return",
                    _ => "a NUL",
                };
                format!("{what} at byte {at} would end the field")
            }
        }
    }
}

const fn flaw_in_name(name: &str) -> Option<Flaw> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Some(Flaw::Empty);
    }
    let mut at = 0;
    while at < bytes.len() {
        if matches!(bytes[at], b'\n' | b'\r' | 0) {
            return Some(Flaw::Byte(at));
        }
        at += 1;
    }
    match bytes {
        b"error" => Some(Flaw::Error),
        b"open" => Some(Flaw::Open),
        _ => None,
    }
}

/// An [`EventName`] from a literal, validated at compile time.
///
/// ```
/// use axum_sse::{EventName, event_name};
///
/// const PRICE: EventName = event_name!("price");
/// assert_eq!(PRICE.as_str(), "price");
/// ```
///
/// An invalid name does not compile:
///
/// ```compile_fail
/// let name = axum_sse::event_name!("two\nlines");
/// ```
#[macro_export]
macro_rules! event_name {
    ($name:expr) => {{
        const NAME: $crate::EventName = $crate::EventName::from_static($name);
        NAME
    }};
}
