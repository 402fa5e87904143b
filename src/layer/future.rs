//! [`ResponseFuture`]: waits for the response, and acts if it is an event stream.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    body::{SseBody, Until},
    layer::SseLayer,
    service::Asked,
};
use crate::head::{self, WholeChunks};

pin_project! {
    /// The future of [`SseService`](super::SseService).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        asked: Asked,
        settings: SseLayer,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, asked: Asked, settings: SseLayer) -> Self {
        Self {
            inner,
            asked,
            settings,
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<SseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        Poll::Ready(Ok(finish(response, *this.asked, this.settings)))
    }
}

fn finish<B: Body>(
    response: Response<B>,
    asked: Asked,
    settings: &SseLayer,
) -> Response<SseBody<B>> {
    let bare = settings.set_content_type
        && response.status() == StatusCode::OK
        && !response.headers().contains_key(CONTENT_TYPE)
        && response.body().size_hint().exact().is_none();
    if !bare && !head::is_event_stream(response.headers()) {
        return response.map(SseBody::untouched);
    }

    let (mut parts, body) = response.into_parts();
    head::apply(&mut parts.headers);
    let ending = settings
        .shutdown
        .as_ref()
        .is_some_and(|shutdown| shutdown.has_begun());
    if settings.keep_alive && asked.keep_alive && !ending {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    // In answer to HEAD it is dropped unpolled: our own bodies leave no trace then.
    let body = (!asked.head).then_some(body);
    let until = settings.shutdown.as_ref().map(|shutdown| {
        let whole_chunks = parts.extensions.get::<WholeChunks>().is_some();
        let encoded = parts.headers.contains_key(CONTENT_ENCODING);
        Until::new(shutdown.clone(), whole_chunks, encoded)
    });
    let body = SseBody::stream(body, until);
    Response::from_parts(parts, body)
}
