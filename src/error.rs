//! The crate's one error type: opaque, with a [`kind`](Error::kind) to branch on.
//!
//! It never carries another crate's type in its signature; what an error was caused by is reached
//! through [`source`](std::error::Error::source).

use std::{error, fmt};

/// A boxed error of any type, as stream sources hand them over.
///
/// ```
/// use axum_sse::BoxError;
///
/// fn refuse() -> Result<u32, BoxError> {
///     Err("sold out".into())
/// }
/// assert_eq!(refuse().unwrap_err().to_string(), "sold out");
/// ```
pub type BoxError = Box<dyn error::Error + Send + Sync>;

/// What went wrong, and with which value.
///
/// The message names the offending value (escaped and shortened, since it may come from a
/// client). Branch on [`kind`](Error::kind), not on the message.
///
/// ```
/// use axum_sse::{ErrorKind, Event};
///
/// let error = Event::text("hi")?.name("two\nlines").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidName);
/// assert_eq!(
///     error.to_string(),
///     r#"event name "two\nlines": a line feed at byte 3 would end the field"#
/// );
/// # Ok::<(), axum_sse::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

/// The kinds of [`Error`].
///
/// ```
/// use axum_sse::{Channel, ErrorKind};
///
/// let channel = Channel::builder().bytes(100).build();
/// match channel.publish("x".repeat(1000).as_str()) {
///     Err(error) if error.kind() == ErrorKind::TooLarge => {}
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An event name holds what a field cannot carry, or is reserved (rules 10, 65).
    InvalidName,
    /// An id is empty, too long, or holds what does not travel safely (rules 11, 82).
    InvalidId,
    /// Text or a comment holds a character that the format cannot carry (rules 12, 34).
    InvalidText,
    /// A value could not be serialised; nothing of it was written (rule 30).
    Serialize,
    /// A value given to a `named` form is not a variant of an externally tagged enum.
    NotAVariant,
    /// An event given to a channel brings what only the channel may set, or carries no data.
    NotPublishable,
    /// An event is larger than all that its channel may hold.
    TooLarge,
    /// The channel has been closed.
    Closed,
    /// The hub holds as many channels as it may, and none of them is idle.
    TooManyChannels,
    /// The hub has a channel of that name, but for values of another type, or its events are
    /// named after their variants and those of the other handles are not.
    OtherType,
    /// The channel has a snapshot already.
    HasSnapshot,
    /// The function that applies events to a board has panicked.
    Poisoned,
    /// An entry of a list of origins is not an origin, or not one to allow (rules 110 to 117).
    InvalidOrigin,
    /// A setting lies outside its documented range.
    OutOfRange,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            source,
        } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", kind).field("message", message);
        if let Some(source) = source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}
