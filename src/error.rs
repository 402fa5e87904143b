//! [`Error`]: the crate's only error type, opaque and with a [`kind`](Error::kind).
//!
//! Its signatures contain no types of other crates: causes are available through
//! [`source`](std::error::Error::source).

use std::{error, fmt};

use axum_core::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// A boxed error of any type, as streams yield them.
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

/// An error of this crate.
///
/// Branch on [`kind`](Error::kind), not on the message. The message quotes the invalid value,
/// escaped and shortened, because it can come from a client.
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
///
/// # In handlers
///
/// An error is also a response, so `?` works in handlers:
///
/// ```
/// use axum::extract::{Path, State};
/// use axum_sse::{Error, Hub};
///
/// async fn say(State(hub): State<Hub>, Path(room): Path<String>, text: String) -> Result<(), Error> {
///     hub.channel::<str>(room)?.publish(text.as_str())?;
///     Ok(())
/// }
/// # let app: axum::Router<Hub> = axum::Router::new().route("/{room}", axum::routing::post(say));
/// ```
///
/// | status | kinds |
/// | --- | --- |
/// | 400 Bad Request | `InvalidId`, `InvalidName`, `InvalidText` |
/// | 410 Gone | `Closed` |
/// | 413 Content Too Large | `TooLarge` |
/// | 503 Service Unavailable | `TooManyChannels` |
/// | 500 Internal Server Error | all others |
///
/// The body is a fixed sentence for each kind, because the message can contain names that the
/// client must not see. The response has `Cache-Control: no-store`. With the feature `tracing`,
/// the message of a 5xx is logged as an error.
///
/// An `EventSource` does not reconnect after an error status. In a handler that streams, return an
/// error only if a retry cannot help. [`Hub::subscribe`](crate::Hub::subscribe) and
/// [`LastEventId`](crate::LastEventId) therefore return no errors.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

/// The kind of an [`Error`].
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
    /// An event name contains a character that its field cannot carry, or is reserved.
    InvalidName,
    /// An id cannot be parsed, is empty or too long, contains a character that does not survive in
    /// a header, or is set where none is allowed.
    InvalidId,
    /// Text or a comment contains a character that the format cannot carry.
    InvalidText,
    /// A value could not be serialized. Nothing was sent.
    Serialize,
    /// An event is named after its variant, but its value is not a variant of an externally tagged
    /// enum.
    NotAVariant,
    /// An event cannot be published: it has no data, or sets a field that only the channel sets,
    /// or another handle has the exclusive right to publish to the channel.
    NotPublishable,
    /// An event is larger than the byte limit of its channel.
    TooLarge,
    /// The channel has been closed.
    Closed,
    /// The hub has its maximum number of channels, and none of them is idle.
    TooManyChannels,
    /// The hub has a channel with that name for values of another type, or with the other choice of
    /// naming events after their variants.
    OtherType,
    /// The channel has a snapshot already.
    HasSnapshot,
    /// The function that applies events to the state of a
    /// [`StateChannel`](crate::StateChannel) has panicked.
    Poisoned,
    /// An entry of an allowlist is not an origin, or not one that can be allowed.
    InvalidOrigin,
    /// An entry of a list of hosts is not a host name.
    InvalidHost,
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

    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl ErrorKind {
    /// The status and the body of the response.
    fn response(self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidName => (StatusCode::BAD_REQUEST, "A name is not valid.\n"),
            Self::InvalidId => (StatusCode::BAD_REQUEST, "An id is not valid.\n"),
            Self::InvalidText => (
                StatusCode::BAD_REQUEST,
                "The text contains a character that cannot be sent.\n",
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The event is too large.\n"),
            Self::Closed => (StatusCode::GONE, "The channel has been closed.\n"),
            Self::TooManyChannels => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The server has no room for another channel.\n",
            ),
            Self::Serialize
            | Self::NotAVariant
            | Self::NotPublishable
            | Self::OtherType
            | Self::HasSnapshot
            | Self::Poisoned
            | Self::InvalidOrigin
            | Self::InvalidHost => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "An internal error occurred.\n",
            ),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, text) = self.kind().response();
        #[cfg(feature = "tracing")]
        if status.is_server_error() {
            tracing::error!(error = %self, "a handler returned an error");
        }
        // A cache may otherwise keep a 410, and refuse streams that are available again.
        let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        (status, [no_store], text).into_response()
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

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_response_has_the_status_of_its_kind_and_hides_the_message() {
        for (status, kinds) in [
            (400, &[InvalidName, InvalidId, InvalidText][..]),
            (410, &[Closed]),
            (413, &[TooLarge]),
            (503, &[TooManyChannels]),
            (
                500,
                &[
                    Serialize,
                    NotAVariant,
                    NotPublishable,
                    OtherType,
                    HasSnapshot,
                    Poisoned,
                    InvalidOrigin,
                ],
            ),
        ] {
            for kind in kinds {
                let error = Error::new(*kind, "channel \"secret\"").with_source("secret");
                let response = error.into_response();
                assert_eq!(response.status(), status, "{kind:?}");
                assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
                assert_eq!(
                    response.headers()[header::CONTENT_TYPE],
                    "text/plain; charset=utf-8"
                );
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let text = std::str::from_utf8(&body).unwrap();
                assert!(text.ends_with(".\n") && !text.contains("secret"), "{text}");
            }
        }
    }

    #[cfg(feature = "tracing")]
    #[test]
    fn server_errors_are_logged() {
        let logged = crate::testing::logged::Logged::new(tracing::Level::ERROR);
        let _guard = tracing::subscriber::set_default(logged.clone());
        drop(Error::new(InvalidId, "client's").into_response());
        assert!(logged.take().is_empty());
        drop(Error::new(Serialize, "channel \"prices\"").into_response());
        let log = logged.take().concat();
        assert!(log.contains("error: channel \"prices\";"), "{log}");
    }
}
