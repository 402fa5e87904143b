//! Rules 48 to 72 and 97 to 126, on streams of this crate and of others, without a server.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    response::{IntoResponse, Redirect, sse},
    routing::get,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;

use super::*;
use crate::{Channel, LastEventId, Shutdown, Sse, SseLayer, testing::Parser};

mod access;
mod bodies;
mod boundary;
#[cfg(feature = "cors")]
mod cors;
mod ends;
#[cfg(feature = "cors")]
mod guard;
mod heads;
#[cfg(feature = "cors")]
mod hosts;
mod limits;
mod mounting;
mod shutdown;

type Answer = Response<SseBody<Body>>;

/// The response after the layer.
async fn through(layer: SseLayer, request: Request<Body>, response: impl IntoResponse) -> Answer {
    counted(layer, request, response).await.0
}

/// The response after the layer, and how often the handler ran.
async fn counted(
    layer: SseLayer,
    request: Request<Body>,
    response: impl IntoResponse,
) -> (Answer, usize) {
    let response = std::sync::Mutex::new(Some(response.into_response()));
    let calls = Arc::new(AtomicUsize::new(0));
    let handler_s = calls.clone();
    let service = service_fn(move |_| {
        handler_s.fetch_add(1, Ordering::SeqCst);
        let response = response.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(response) }
    });
    let service = ServiceBuilder::new().layer(layer).service(service);
    let Ok(answer) = service.oneshot(request).await;
    (answer, calls.load(Ordering::SeqCst))
}

/// A request with these headers, values byte for byte.
fn ask(method: Method, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = request(Version::HTTP_11);
    *request.method_mut() = method;
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().append(name, value);
    }
    request
}

/// All values of a header.
fn values<'a>(answer: &'a Response<impl Sized>, name: &str) -> Vec<&'a str> {
    let values = answer.headers().get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// A body that is always pending, and counts its polls and drops.
#[derive(Clone, Default)]
struct Watched {
    polls: Arc<AtomicUsize>,
    drops: Arc<AtomicUsize>,
}

impl Watched {
    fn body(&self) -> Body {
        Body::new(WatchedBody(self.clone()))
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }

    fn drops(&self) -> usize {
        self.drops.load(Ordering::SeqCst)
    }
}

struct WatchedBody(Watched);

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.polls.fetch_add(1, Ordering::SeqCst);
        Poll::Pending
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
    }
}

fn request(version: Version) -> Request<Body> {
    let request = Request::builder().version(version).uri("/");
    request.body(Body::empty()).unwrap()
}

async fn answer(response: impl IntoResponse) -> Answer {
    through(SseLayer::new(), request(Version::HTTP_11), response).await
}

/// A response that is not made by this crate.
fn foreign(headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

fn head(pairs: &[(&str, &str)]) -> HeaderMap {
    foreign(pairs, Body::empty()).headers().clone()
}

/// All response headers of an event stream on HTTP/1.1.
fn stream_head() -> HeaderMap {
    head(&[
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("connection", "keep-alive"),
    ])
}

/// A body that is fed by hand.
fn by_hand() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, chunks) = mpsc::channel(8);
    let chunks = ReceiverStream::new(chunks).map(Ok::<_, Infallible>);
    (sender, Body::from_stream(chunks))
}

fn event_stream(body: Body) -> Response<Body> {
    foreign(&[("content-type", "text/event-stream")], body)
}

/// Polls once for the next chunk.
fn poll(answer: &mut Answer) -> Poll<Option<String>> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    Pin::new(answer.body_mut())
        .poll_frame(&mut cx)
        .map(|frame| {
            let data = frame?.unwrap().into_data().unwrap();
            Some(String::from_utf8(data.to_vec()).unwrap())
        })
}

fn chunk(text: &str) -> Poll<Option<String>> {
    Poll::Ready(Some(text.to_owned()))
}

const END: Poll<Option<String>> = Poll::Ready(None);

/// Reads the last bytes of a stream at a shutdown, and returns the time in their `retry`.
fn come_back(answer: &mut Answer) -> u64 {
    let Poll::Ready(Some(last)) = poll(answer) else {
        panic!("the stream did not end");
    };
    let mut parser = Parser::new();
    parser.push(last.as_bytes());
    let millis = parser.retry().unwrap();
    assert_eq!(last, format!("retry: {millis}\n:\n"));
    assert_eq!(poll(answer), END);
    assert!(answer.body().is_end_stream());
    millis
}
