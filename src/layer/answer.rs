//! What the layer answers itself, in the handler's place.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    body::SseBody,
    limits::{Full, Reason},
};
use crate::{event::retry, sse::headers};

/// A status, and a line for whoever looks into it.
pub(super) fn text<B>(status: StatusCode, line: &'static str) -> Response<SseBody<B>> {
    let mut response = Response::new(SseBody::default());
    *response.status_mut() = status;
    headers::no_store(response.headers_mut());
    if !line.is_empty() {
        *response.body_mut() = SseBody::text(Bytes::from([line, "\n"].concat()));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    response
}

/// Rule 68: no more streams, but come back.
pub(super) fn full<B>(full: Full) -> Response<SseBody<B>> {
    if full.refuse {
        let (status, line) = match full.reason {
            Reason::InAll => (StatusCode::SERVICE_UNAVAILABLE, "too many streams are open"),
            Reason::ForKey => (
                StatusCode::TOO_MANY_REQUESTS,
                "you have too many streams open",
            ),
            Reason::Slow => (StatusCode::SERVICE_UNAVAILABLE, "the answer took too long"),
        };
        let mut response = text(status, line);
        let seconds = HeaderValue::from(retry::spread(full.return_after).div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        return response;
    }
    let mut response = Response::new(SseBody::answer(retry::come_back(full.return_after)));
    headers::apply(response.headers_mut());
    response
}
