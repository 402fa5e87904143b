//! [`LastEventId`]: what a client says it saw last. The typed header, and the axum extractors.
//!
//! **The header.** `Last-Event-ID` holds the id of the last event that the client dispatched, as
//! UTF-8 (so it is read as bytes; rule 74). Browsers send it when they reconnect, and only if the
//! id is not empty. [HTML, "The `Last-Event-ID` header"][spec]. Example: `Last-Event-ID: 1a-5`.
//!
//! [spec]: https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header

use std::{convert::Infallible, fmt, str::FromStr};

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use headers::{Header, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Uri, request::Parts};

use crate::event::EventId;

static NAME: HeaderName = HeaderName::from_static("last-event-id");

/// Names of the query parameter that stands in for the header (rule 81).
const ALIASES: [&str; 3] = ["lastEventId", "last_event_id", "last-event-id"];

/// The longest id that is looked at, in bytes (rule 75). Longer ones are unknown.
const MAX_LEN: usize = 1024;

/// What a client says it saw last: nothing, an id that can be read as a `T`, or something else.
///
/// As an extractor it never rejects a request: whatever stands in the header, an `EventSource`
/// that was answered with an error would never come back (rules 75, 76). With a [`Channel`], pass
/// it to [`subscribe`](crate::Channel::subscribe), which answers an unknown id with a gap event.
/// With ids of your own, take `LastEventId<u64>` or any other [`FromStr`] type.
///
/// The header is read first. Where it is absent or empty (a first connection cannot send it), the
/// query parameter `lastEventId`, `last_event_id` or `last-event-id` is, percent-decoded (rules
/// 73 to 81).
///
/// The id comes from the client and can be anything: derive no permission from it (rule 80).
///
/// ```
/// use axum_sse::{LastEventId, Sse};
/// use tokio_stream::Stream;
///
/// async fn lines(last: LastEventId<u64>) -> Sse<impl Stream<Item = String>> {
///     let first = match last {
///         LastEventId::Absent => 0,
///         LastEventId::Known(line) => line + 1,
///         LastEventId::Unknown(_) => 0,
///     };
///     Sse::new(tokio_stream::iter((first..10).map(|line| format!("line {line}"))))
/// }
/// # fn check<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
/// # axum::Router::new().route("/lines", axum::routing::get(lines))
/// # }
/// ```
///
/// [`Channel`]: crate::Channel
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LastEventId<T = EventId> {
    /// No id, or an empty one: the client has seen nothing (rule 73).
    #[default]
    Absent,
    /// An id that reads as a `T`. What reads so is for its [`FromStr`] to say: `+5` and `05` are
    /// numbers to std's integers (rule 79).
    Known(T),
    /// Anything else: not a `T`, not UTF-8, longer than 1 KiB, with control characters, or given
    /// more than once (rules 75, 77, 79).
    Unknown(UnknownId),
}

/// The bytes of an id that could not be read, for whoever wants them.
///
/// They are whatever a client sent: `Debug` shows their number only (rule 80).
///
/// ```
/// use axum_sse::LastEventId;
///
/// fn look(last: LastEventId<u64>) {
///     if let LastEventId::Unknown(id) = last {
///         println!("not a number: {}", id.as_bytes().escape_ascii());
///     }
/// }
/// # look(LastEventId::Absent);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownId(Bytes);

impl UnknownId {
    /// The bytes as they came; of repeated headers, the first. Of more than 1025 bytes, the first
    /// 1025.
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

    /// Whether the client has seen nothing yet.
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
        // A head's worth of bytes per request would be kept for nothing. With one byte too many,
        // an id that is passed on does not turn into a shorter one that could be known.
        Self::Unknown(UnknownId(Bytes::copy_from_slice(
            &bytes[..bytes.len().min(MAX_LEN + 1)],
        )))
    }

    /// Several equal values are unknown too: which of the hops added one is not known.
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

/// As browsers write a form: `+` is a space, and what is not an escape stands for itself.
fn percent_decode(text: &str) -> Vec<u8> {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        out.push(match byte {
            b'+' => b' ',
            b'%' => match (hex(bytes.get(at)), hex(bytes.get(at + 1))) {
                (Some(high), Some(low)) => {
                    at += 2;
                    u8::try_from(high * 16 + low).unwrap_or(byte)
                }
                _ => byte,
            },
            byte => byte,
        });
    }
    out
}

impl<T: FromStr + fmt::Display> Header for LastEventId<T> {
    fn name() -> &'static HeaderName {
        &NAME
    }

    /// Never fails: what cannot be read is [`Unknown`](LastEventId::Unknown).
    fn decode<'i, I>(values: &mut I) -> Result<Self, headers::Error>
    where
        I: Iterator<Item = &'i HeaderValue>,
    {
        Ok(Self::from_values(values))
    }

    /// Encodes nothing for [`Absent`](LastEventId::Absent), and nothing for what a header cannot
    /// carry.
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

/// The strict form: an id that is there must be readable.
///
/// For APIs whose clients are your own. An `EventSource` that gets the 400 never comes back; use
/// [`LastEventId`] for browsers.
///
/// ```
/// use axum_sse::StrictLastEventId;
///
/// async fn export(StrictLastEventId(last): StrictLastEventId<u64>) -> String {
///     format!("from {}", last.map_or(0, |id| id + 1))
/// }
/// # fn check<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
/// # axum::Router::new().route("/export", axum::routing::get(export))
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrictLastEventId<T = EventId>(pub Option<T>);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for StrictLastEventId<T> {
    type Rejection = UnknownIdRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, UnknownIdRejection> {
        match LastEventId::from_request(&parts.headers, &parts.uri) {
            LastEventId::Absent => Ok(Self(None)),
            LastEventId::Known(id) => Ok(Self(Some(id))),
            LastEventId::Unknown(id) => Err(UnknownIdRejection(id)),
        }
    }
}

/// [`StrictLastEventId`] found an id that it could not read. Answered with 400.
///
/// ```
/// use axum::{Json, http::StatusCode};
/// use axum_sse::{StrictLastEventId, UnknownIdRejection};
///
/// type Last = Result<StrictLastEventId<u64>, UnknownIdRejection>;
///
/// async fn export(last: Last) -> Result<(), (StatusCode, Json<usize>)> {
///     let StrictLastEventId(last) = last.map_err(|unknown| {
///         (StatusCode::BAD_REQUEST, Json(unknown.id().as_bytes().len()))
///     })?;
///     # let _ = last;
///     Ok(())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(export));
/// ```
#[derive(Clone, Debug)]
pub struct UnknownIdRejection(UnknownId);

impl UnknownIdRejection {
    /// The bytes that could not be read.
    #[must_use]
    pub fn id(&self) -> &UnknownId {
        &self.0
    }
}

impl fmt::Display for UnknownIdRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Last-Event-ID is not an id of this stream")
    }
}

impl std::error::Error for UnknownIdRejection {}

impl IntoResponse for UnknownIdRejection {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, self.to_string()).into_response()
    }
}
