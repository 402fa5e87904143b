//! [`LastEventId`]: the last event that a client saw, as a typed header and an axum extractor.

use std::{convert::Infallible, fmt, str::FromStr};

use axum_core::extract::FromRequestParts;
use bytes::Bytes;
use headers::{Header, HeaderName, HeaderValue};
use http::{HeaderMap, Uri, request::Parts};
use percent_encoding::percent_decode_str;

use crate::event::EventId;

static NAME: HeaderName = HeaderName::from_static("last-event-id");

// Names of the query parameter that replaces the header (rule 81).
const ALIASES: [&str; 3] = ["lastEventId", "last_event_id", "last-event-id"];

// The longest id that is read, in bytes (rule 75). Longer ones are unknown.
const MAX_LEN: usize = 1024;

/// The id of the last event that a client saw: absent, known, or unreadable.
///
/// Browsers send it in the [`Last-Event-ID`] header when they reconnect. As an extractor it never
/// rejects a request, because an `EventSource` that receives an error status does not reconnect.
///
/// - With a [`Channel`](crate::Channel), pass it to
///   [`subscribe`](crate::Channel::subscribe), which sends a `gap` event for an unknown id.
/// - With your own ids, use `LastEventId<u64>` or any other [`FromStr`] type.
///
/// If the header is absent or empty, the query parameter `lastEventId`, `last_event_id` or
/// `last-event-id` is read instead, percent-decoded: an `EventSource` cannot set the header of its
/// first request. As a [`Header`] it reads only the header.
///
/// **Do not derive permissions from the id.** A client can send any id.
///
/// ```
/// use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
/// use axum_sse::{LastEventId, Sse, testing::Client};
///
/// async fn lines(last: LastEventId<u64>) -> impl IntoResponse {
///     let first = last.known().map_or(0, |line| line.saturating_add(1));
///     Sse::new(tokio_stream::iter(first..10))
/// }
///
/// // For clients other than browsers, an id that cannot be read can be an error:
/// async fn export(last: LastEventId<u64>) -> Result<String, StatusCode> {
///     let first = match last {
///         LastEventId::Absent => 0,
///         LastEventId::Known(line) => line.saturating_add(1),
///         LastEventId::Unknown(_) => return Err(StatusCode::BAD_REQUEST),
///     };
///     Ok(format!("lines from {first}"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let app = Router::new().route("/lines", get(lines)).route("/export", get(export));
/// let client = Client::new(app);
/// let mut page = client.get_after("/lines", "6").await.unwrap();
/// assert_eq!(page.next_message().await.data, "7");
/// assert_eq!(client.get_after("/export", "x").await.unwrap_err().status(), 400);
/// # }
/// ```
///
/// [`Last-Event-ID`]: https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LastEventId<T = EventId> {
    /// No id or an empty one: the client has not seen any event.
    #[default]
    Absent,
    /// An id that `T`'s [`FromStr`] accepts. The integers of std also accept `+5` and `05`.
    Known(T),
    /// Any other id: not a `T`, not UTF-8, longer than 1024 bytes, with control characters other
    /// than tab, or sent more than once.
    Unknown(UnknownId),
}

/// The bytes of an id that could not be read.
///
/// They are untrusted input, so `Debug` shows only their number.
///
/// ```
/// use axum_sse::LastEventId;
/// use headers::HeaderMapExt;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("last-event-id", http::HeaderValue::from_static("x"));
/// let Some(LastEventId::<u64>::Unknown(id)) = headers.typed_get() else { unreachable!() };
/// assert_eq!(id.as_bytes(), b"x");
/// assert_eq!(format!("{id:?}"), "UnknownId(1 bytes)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownId(Bytes);

impl UnknownId {
    /// The bytes as received, or the first 1025 of them. Of repeated headers, the first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for UnknownId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnknownId({} bytes)", self.0.len())
    }
}

impl<T> LastEventId<T> {
    /// The id, if it is known.
    ///
    /// ```
    /// use axum_sse::LastEventId;
    ///
    /// assert_eq!(LastEventId::Known(7).known(), Some(7));
    /// assert_eq!(LastEventId::<u64>::Absent.known(), None);
    /// ```
    #[must_use]
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(id) => Some(id),
            Self::Absent | Self::Unknown(_) => None,
        }
    }

    /// Whether the client sent no id.
    ///
    /// ```
    /// use axum_sse::LastEventId;
    ///
    /// assert!(LastEventId::<u64>::Absent.is_absent());
    /// ```
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T> From<T> for LastEventId<T> {
    fn from(id: T) -> Self {
        Self::Known(id)
    }
}

#[cfg(test)]
impl<T> LastEventId<T> {
    pub(crate) fn unknown_for_tests(text: &str) -> Self {
        Self::Unknown(UnknownId(Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl<T: FromStr> LastEventId<T> {
    fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Absent;
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| {
            text.len() <= MAX_LEN && !text.chars().any(|char| char.is_control() && char != '\t')
        });
        match text.and_then(|text| text.parse().ok()) {
            Some(id) => Self::Known(id),
            None => Self::unknown(bytes),
        }
    }

    fn unknown(bytes: &[u8]) -> Self {
        // Keeping all of it would let a client hold memory with long headers. One byte more than
        // the limit keeps the id too long, so that encoding it again cannot yield a known id.
        Self::Unknown(UnknownId(Bytes::copy_from_slice(
            &bytes[..bytes.len().min(MAX_LEN + 1)],
        )))
    }

    // Equal values count as several (rule 77): a proxy may have added one of them.
    fn from_values<V: AsRef<[u8]>>(mut values: impl Iterator<Item = V>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(only), None) => Self::from_bytes(only.as_ref()),
            (Some(first), Some(_)) => Self::unknown(first.as_ref()),
        }
    }

    fn from_request(headers: &HeaderMap, uri: &Uri) -> Self {
        match Self::from_values(headers.get_all(&NAME).iter()) {
            Self::Absent => Self::from_values(query_values(uri)),
            given => given,
        }
    }
}

fn query_values(uri: &Uri) -> impl Iterator<Item = Vec<u8>> {
    uri.query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode(name);
            ALIASES
                .iter()
                .any(|alias| alias.as_bytes() == name)
                .then(|| percent_decode(value))
        })
}

// Browsers encode a space in a form as `+`. Yields bytes, because an id that is not UTF-8 is
// unknown, and must not become known by having its bytes replaced.
fn percent_decode(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

impl<T: FromStr + fmt::Display> Header for LastEventId<T> {
    fn name() -> &'static HeaderName {
        &NAME
    }

    /// Never fails: an id that cannot be read is [`Unknown`](LastEventId::Unknown).
    fn decode<'i, I>(values: &mut I) -> Result<Self, headers::Error>
    where
        I: Iterator<Item = &'i HeaderValue>,
    {
        Ok(Self::from_values(values))
    }

    /// Encodes no value for [`Absent`](LastEventId::Absent) or for an id that is not a valid header
    /// value.
    fn encode<E: Extend<HeaderValue>>(&self, values: &mut E) {
        let value = match self {
            Self::Absent => None,
            Self::Known(id) => HeaderValue::try_from(id.to_string().into_bytes()).ok(),
            Self::Unknown(id) => HeaderValue::from_bytes(id.as_bytes()).ok(),
        };
        values.extend(value);
    }
}

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for LastEventId<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_request(&parts.headers, &parts.uri))
    }
}
