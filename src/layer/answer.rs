//! [`Answer`]: what the layer answers instead of the handler.

use bytes::Bytes;
#[cfg(feature = "cors")]
use http::HeaderMap;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::SseBody,
    limits::{Full, Reason},
};
use crate::{event::retry, sse::headers};

/// An answer of the layer itself.
pub(super) enum Answer {
    /// The request names a host that this server does not have.
    #[cfg(feature = "cors")]
    Misdirected,
    /// The sender may not read the stream, for this reason.
    #[cfg(feature = "cors")]
    Forbidden(&'static str),
    /// A preflight, with the headers that grant what it asks for.
    #[cfg(feature = "cors")]
    Preflight(HeaderMap),
    /// A preflight that is granted nothing.
    #[cfg(feature = "cors")]
    EmptyPreflight,
    NotAcceptable,
    /// No free slot within the limits.
    Full(Full),
}

impl Answer {
    /// Takes the headers of a preflight with it.
    pub(super) fn response<B>(&mut self) -> Response<SseBody<B>> {
        match self {
            #[cfg(feature = "cors")]
            Self::Misdirected => text(
                StatusCode::MISDIRECTED_REQUEST,
                "this server is not known by that host name",
            ),
            #[cfg(feature = "cors")]
            Self::Forbidden(reason) => text(StatusCode::FORBIDDEN, reason),
            #[cfg(feature = "cors")]
            Self::Preflight(headers) => {
                let mut response = Response::new(SseBody::default());
                *response.headers_mut() = std::mem::take(headers);
                response
            }
            #[cfg(feature = "cors")]
            Self::EmptyPreflight => {
                let mut response = Response::new(SseBody::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                headers::no_store(response.headers_mut());
                response
            }
            Self::NotAcceptable => text(
                StatusCode::NOT_ACCEPTABLE,
                "this is an event stream, and `Accept` excludes text/event-stream",
            ),
            Self::Full(full) if full.refuse => refused(full),
            Self::Full(full) => come_back(full),
        }
    }
}

/// A status with one line of text for a person who debugs the client.
fn text<B>(status: StatusCode, line: &'static str) -> Response<SseBody<B>> {
    let mut response = Response::new(SseBody::text(Bytes::from([line, "\n"].concat())));
    *response.status_mut() = status;
    headers::no_store(response.headers_mut());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// For clients that handle a status and `Retry-After`.
fn refused<B>(full: &Full) -> Response<SseBody<B>> {
    let (status, line) = match full.reason {
        Reason::Total => (StatusCode::SERVICE_UNAVAILABLE, "too many streams are open"),
        Reason::Key => (
            StatusCode::TOO_MANY_REQUESTS,
            "you have too many streams open",
        ),
        Reason::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, "the answer took too long"),
    };
    let mut response = text(status, line);
    let seconds = HeaderValue::from(retry::spread(full.return_after).div_ceil(1000));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// For an `EventSource`, which reconnects after a stream that ends but not after an error status.
// Rule 68.
fn come_back<B>(full: &Full) -> Response<SseBody<B>> {
    let mut response = Response::new(SseBody::answer(retry::come_back(full.return_after)));
    headers::apply(response.headers_mut());
    response
}
