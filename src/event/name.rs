//! [`EventName`]: the checked name of an event, and [`event_name!`](crate::event_name) for literals.

use std::{borrow::Cow, fmt};

use crate::{
    error::{Error, ErrorKind},
    event::id::quoted,
};

/// The name of an event, checked: not empty, no line break, no NUL, and neither `error` nor
/// `open`, which are `EventSource`'s own.
///
/// Made from a literal by [`event_name!`](crate::event_name), which checks it when the program
/// is compiled, or from text by [`EventName::new`].
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
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// The name `error`, for protocols that are read by other clients than `EventSource`. A
    /// browser's `EventSource` fires an `error` event of its own whenever the connection is
    /// lost, and a listener cannot tell the two apart by their type (rule 65); hence no other
    /// way leads to this name.
    pub const ERROR: Self = Self(Cow::Borrowed("error"));

    /// A name from text.
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
    /// [`ErrorKind::InvalidName`] if the name is empty, holds CR, LF or NUL, or is `error` (see
    /// [`EventName::ERROR`]) or `open`: `EventSource` fires events of these names itself, and a
    /// page's `onerror` or `onopen` would run for yours (rule 65).
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

    /// A name from a literal, as [`event_name!`](crate::event_name) calls it.
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
    /// If the name is not one that [`EventName::new`] takes. In a `const`, that is an error of
    /// the compiler's.
    #[must_use]
    #[allow(clippy::panic)] // For literals only, in a const: see `event_name!`.
    pub const fn from_static(name: &'static str) -> Self {
        match flaw_in_name(name) {
            None => Self(Cow::Borrowed(name)),
            Some(Flaw::Empty) => panic!("an event name must not be empty"),
            Some(Flaw::Error) => panic!("`error` is EventSource's own event: see EventName::ERROR"),
            Some(Flaw::Open) => panic!("`open` is EventSource's own event"),
            Some(Flaw::Byte(_)) => panic!("an event name must not hold CR, LF or NUL"),
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
            Self::Open => "EventSource fires `open` itself when the connection is there".to_owned(),
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

/// The [`EventName`] of a literal, checked when the program is compiled.
///
/// ```
/// use axum_sse::{EventName, event_name};
///
/// const PRICE: EventName = event_name!("price");
/// assert_eq!(PRICE.as_str(), "price");
/// ```
///
/// A bad name does not compile:
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
