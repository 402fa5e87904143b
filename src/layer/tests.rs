//! Rules 48 to 62 and 66 to 68, on responses of all origins, without a server.

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
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;

use super::*;
use crate::{Channel, LastEventId, Shutdown, Sse, testing::Parser};

type Answer = Response<SseBody<Body>>;

/// What the layer makes of a response.
async fn through(layer: SseLayer, request: Request<Body>, response: impl IntoResponse) -> Answer {
    let response = std::sync::Mutex::new(Some(response.into_response()));
    let service = service_fn(move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(response) }
    });
    let service = ServiceBuilder::new().layer(layer).service(service);
    let Ok(answer) = service.oneshot(request).await;
    answer
}

fn request(version: Version) -> Request<Body> {
    let request = Request::builder().version(version).uri("/");
    request.body(Body::empty()).unwrap()
}

async fn answer(response: impl IntoResponse) -> Answer {
    through(SseLayer::new(), request(Version::HTTP_11), response).await
}

/// A response as somebody else made it.
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

/// The whole head of an event stream on HTTP/1.1.
fn stream_head() -> HeaderMap {
    head(&[
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-store, no-transform"),
        ("x-accel-buffering", "no"),
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

/// The next chunk, if there is one without waiting.
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

/// Takes what ends a stream on shutdown, and returns the time it tells.
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

mod heads {
    use super::*;

    #[tokio::test]
    async fn rules_48_to_51_our_own_responses() {
        let sse = answer(Sse::new(stream::empty::<u8>())).await;
        assert_eq!(sse.headers(), &stream_head());
        let channel = Channel::<u8>::new();
        let subscription = answer(channel.subscribe(LastEventId::Absent)).await;
        assert_eq!(subscription.headers(), &stream_head());
    }

    #[tokio::test(start_paused = true)]
    async fn rules_48_to_51_axum_s_own_sse() {
        let events = stream::iter([Ok::<_, Infallible>(sse::Event::default().data("x"))])
            .chain(stream::pending());
        let sse = sse::Sse::new(events).keep_alive(sse::KeepAlive::default());
        let mut answer = answer(sse).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers(), &stream_head());
        let mut next = async || {
            let frame = answer.body_mut().frame().await.unwrap().unwrap();
            frame.into_data().unwrap()
        };
        assert_eq!(next().await, "data: x\n\n");
        assert_eq!(next().await, ":\n\n");
    }

    #[tokio::test]
    async fn rules_48_51_and_54_a_proxied_stream() {
        for content_type in [
            "text/event-stream; charset=utf-8",
            "text/event-stream;charset=windows-1252",
            "Text/Event-Stream",
            " text/event-stream ;",
        ] {
            let proxied = foreign(
                &[
                    ("content-type", content_type),
                    ("connection", "close"),
                    ("keep-alive", "timeout=5"),
                    ("proxy-connection", "keep-alive"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "h2c"),
                    ("content-length", "10"),
                    ("etag", "\"x\""),
                    ("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT"),
                    ("accept-ranges", "bytes"),
                    ("age", "1"),
                    ("expires", "0"),
                    ("x-other", "stays"),
                ],
                Body::from("data: x\n\n"),
            );
            let answer = answer(proxied).await;
            let mut expected = stream_head();
            expected.insert("x-other", HeaderValue::from_static("stays"));
            assert_eq!(answer.headers(), &expected, "{content_type}");
            // Otherwise the server would write a length of its own.
            assert_eq!(answer.body().size_hint().exact(), None);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "data: x\n\n");
        }
    }

    #[tokio::test]
    async fn rule_48_a_content_type_that_is_there_twice_is_there_once() {
        let proxied = foreign(
            &[
                ("content-type", "text/event-stream"),
                ("content-type", "text/plain"),
            ],
            Body::empty(),
        );
        assert_eq!(answer(proxied).await.headers(), &stream_head());
    }

    #[tokio::test]
    async fn rule_53_what_the_handler_set_itself_stays() {
        let proxied = foreign(
            &[
                ("content-type", "text/event-stream"),
                ("cache-control", "private, no-store"),
                ("cache-control", "NO-CACHE"),
                ("x-accel-buffering", "yes"),
                ("vary", "origin"),
            ],
            Body::empty(),
        );
        let answer = answer(proxied).await;
        let expected = head(&[
            ("content-type", "text/event-stream"),
            ("cache-control", "private, no-store, NO-CACHE, no-transform"),
            ("x-accel-buffering", "yes"),
            ("vary", "origin"),
            ("connection", "keep-alive"),
        ]);
        assert_eq!(answer.headers(), &expected);
    }

    #[tokio::test]
    async fn rule_52_everything_else_passes_untouched() {
        let json = (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("cache-control", "max-age=5"), ("etag", "\"x\"")],
            Json([1, 2]),
        );
        let responses: Vec<(&str, Response<Body>)> = vec![
            ("a JSON error", json.into_response()),
            ("204", StatusCode::NO_CONTENT.into_response()),
            ("a redirect", Redirect::to("/events").into_response()),
            ("no type", foreign(&[], Body::from("x"))),
            (
                "an own length",
                foreign(
                    &[("content-length", "1"), ("connection", "close")],
                    Body::from("x"),
                ),
            ),
            (
                "a similar type",
                foreign(&[("content-type", "text/event-streams")], Body::empty()),
            ),
            (
                "a type that mentions ours",
                foreign(
                    &[("content-type", "text/plain; x=text/event-stream")],
                    Body::empty(),
                ),
            ),
        ];
        let shutdown = Shutdown::new();
        shutdown.begin();
        for (name, response) in responses {
            let (parts, body) = response.into_parts();
            let hint = body.size_hint();
            let bytes = body.collect().await.unwrap().to_bytes();
            let again = Response::from_parts(parts.clone(), Body::from(bytes.clone()));
            let layer = SseLayer::new()
                .set_content_type()
                .shutdown(shutdown.clone());
            let answer = through(layer, request(Version::HTTP_11), again).await;
            assert_eq!(answer.status(), parts.status, "{name}");
            assert_eq!(answer.headers(), &parts.headers, "{name}");
            assert_eq!(answer.body().size_hint().exact(), hint.exact(), "{name}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, bytes, "{name}");
        }
    }

    #[tokio::test]
    async fn a_bare_streaming_body_becomes_an_event_stream_where_that_is_asked_for() {
        let bare = || foreign(&[], by_hand().1);
        let set = || SseLayer::new().set_content_type();
        let ask = || request(Version::HTTP_11);
        assert_eq!(
            through(set(), ask(), bare()).await.headers(),
            &stream_head()
        );
        assert!(
            through(SseLayer::new(), ask(), bare())
                .await
                .headers()
                .is_empty()
        );

        let mut not_found = bare();
        *not_found.status_mut() = StatusCode::NOT_FOUND;
        assert!(through(set(), ask(), not_found).await.headers().is_empty());
        let typed = foreign(&[("content-type", "text/html")], by_hand().1);
        let typed = through(set(), ask(), typed).await;
        assert_eq!(typed.headers(), &head(&[("content-type", "text/html")]));
        for body in [Body::empty(), Body::from("x")] {
            let sized = through(set(), ask(), foreign(&[], body)).await;
            assert!(sized.headers().is_empty());
        }
    }

    #[tokio::test]
    async fn rules_51_57_and_58_connection_goes_to_http_1_1_alone() {
        let close = |values: &[&'static str]| {
            let mut request = request(Version::HTTP_11);
            for value in values {
                let value = HeaderValue::from_static(value);
                request.headers_mut().append(header::CONNECTION, value);
            }
            request
        };
        for (request, expected) in [
            (request(Version::HTTP_10), false),
            (request(Version::HTTP_11), true),
            (request(Version::HTTP_2), false),
            (request(Version::HTTP_3), false),
            (close(&["close"]), false),
            (close(&["Close"]), false),
            (close(&["te, close"]), false),
            (close(&["te", " close "]), false),
            (close(&["keep-alive"]), true),
            (close(&["closed"]), true),
        ] {
            let shown = format!("{request:?}");
            let answer = through(SseLayer::new(), request, Sse::new(stream::empty::<u8>())).await;
            let sent = answer.headers().get(header::CONNECTION);
            assert_eq!(sent.is_some_and(|v| v == "keep-alive"), expected, "{shown}");
            assert_eq!(sent.is_some(), expected, "{shown}");
        }

        let quiet = SseLayer::new().connection_keep_alive(false);
        let own = event_stream(Body::empty());
        let answer = through(quiet, request(Version::HTTP_11), own).await;
        assert!(!answer.headers().contains_key(header::CONNECTION));
        let shutdown = Shutdown::new();
        shutdown.begin();
        let ending = SseLayer::new().shutdown(shutdown);
        let own = event_stream(Body::empty());
        let answer = through(ending, request(Version::HTTP_11), own).await;
        assert!(!answer.headers().contains_key(header::CONNECTION));
    }

    #[tokio::test]
    async fn layers_on_top_of_each_other_are_as_good_as_one() {
        let shutdown = Shutdown::new();
        let layer = || SseLayer::new().shutdown(shutdown.clone());
        let app = Router::new()
            .route("/", get(async || Sse::new(stream::pending::<u8>())))
            .layer(layer())
            .layer(layer());
        let response = app.oneshot(request(Version::HTTP_11)).await.unwrap();
        assert_eq!(response.headers(), &stream_head());
        shutdown.begin();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[tokio::test]
    async fn rule_55_compression_around_it_leaves_the_stream_alone() {
        let app = Router::new()
            .route(
                "/",
                get(async || Sse::new(stream::iter(["x".repeat(10_000)]))),
            )
            .layer(SseLayer::new())
            .layer(CompressionLayer::new());
        let mut request = request(Version::HTTP_11);
        let gzip = HeaderValue::from_static("gzip, deflate, br, zstd");
        request.headers_mut().insert(header::ACCEPT_ENCODING, gzip);
        let response = app.oneshot(request).await.unwrap();
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b":\ndata: \"xxx"));
    }

    #[tokio::test]
    async fn a_service_s_error_stays_its_own() {
        let service = service_fn(async |_: Request<Body>| Err::<Response<Body>, _>("mine"));
        let service = ServiceBuilder::new()
            .layer(SseLayer::new())
            .service(service);
        let error: &str = service.oneshot(request(Version::HTTP_2)).await.unwrap_err();
        assert_eq!(error, "mine");
    }
}

mod bodies {
    use super::*;

    /// Counts its polls, and has nothing to say.
    struct Silent(Arc<AtomicUsize>);

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn rule_56_head_gets_the_head_and_no_body() {
        let polls = Arc::new(AtomicUsize::new(0));
        let stream = event_stream(Body::new(Silent(polls.clone())));
        let mut ask = request(Version::HTTP_11);
        *ask.method_mut() = Method::HEAD;
        let shutdown = Shutdown::new();
        let layer = SseLayer::new().shutdown(shutdown.clone());
        let mut answer = through(layer, ask, stream).await;
        assert_eq!(answer.headers(), &stream_head());
        // A length of 0 would be a header that GET does not have.
        assert_eq!(answer.body().size_hint().exact(), None);
        shutdown.begin();
        assert_eq!(poll(&mut answer), END);
        assert_eq!(polls.load(Ordering::SeqCst), 0);

        let app = Router::new()
            .route("/", get(async || Sse::new(stream::pending::<u8>())))
            .layer(SseLayer::new());
        let mut ask = request(Version::HTTP_11);
        *ask.method_mut() = Method::HEAD;
        let response = app.oneshot(ask).await.unwrap();
        assert_eq!(response.headers(), &stream_head());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.is_empty());
    }

    #[tokio::test]
    async fn chunks_pass_as_they_are() {
        let (sender, body) = by_hand();
        let shutdown = Shutdown::new();
        let layer = SseLayer::new().shutdown(shutdown);
        let mut answer = through(layer, request(Version::HTTP_2), event_stream(body)).await;
        assert_eq!(poll(&mut answer), Poll::Pending);
        for text in ["data: a\nda", "ta: b\n", "\n"] {
            sender.send(text).await.unwrap();
            assert_eq!(poll(&mut answer), chunk(text));
        }
        drop(sender);
        assert_eq!(poll(&mut answer), END);
    }

    #[tokio::test]
    async fn an_error_of_the_body_stays_its_own() {
        let chunks = stream::iter([Ok("data: a\n\n"), Err(io::Error::other("mine"))]);
        let layer = SseLayer::new().shutdown(Shutdown::new());
        let stream = event_stream(Body::from_stream(chunks));
        let mut body = through(layer, request(Version::HTTP_2), stream)
            .await
            .into_body();
        body.frame().await.unwrap().unwrap();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("mine"));
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn nothing_follows_what_ends_a_body() {
        let trailers = Frame::<Bytes>::trailers(head(&[("x-sum", "1")]));
        let frames = stream::iter([Ok::<_, Infallible>(trailers)]).chain(stream::pending());
        let shutdown = Shutdown::new();
        let layer = SseLayer::new().shutdown(shutdown.clone());
        let stream = event_stream(Body::new(StreamBody::new(frames)));
        let mut body = through(layer, request(Version::HTTP_2), stream)
            .await
            .into_body();
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        shutdown.begin();
        assert!(body.frame().await.is_none());

        let (sender, body) = by_hand();
        let shutdown = Shutdown::new();
        let layer = SseLayer::new().shutdown(shutdown.clone());
        let mut answer = through(layer, request(Version::HTTP_2), event_stream(body)).await;
        drop(sender);
        assert_eq!(poll(&mut answer), END);
        shutdown.begin();
        assert_eq!(poll(&mut answer), END);
    }
}

mod shutdown {
    use super::*;

    async fn under(shutdown: &Shutdown, response: impl IntoResponse) -> Answer {
        let layer = SseLayer::new().shutdown(shutdown.clone());
        through(layer, request(Version::HTTP_11), response).await
    }

    #[tokio::test(start_paused = true)]
    async fn rule_66_our_own_streams_end_at_once_and_spread_their_return() {
        let shutdown = Shutdown::new();
        let channel = Channel::<u8>::new();
        let mut waiting = Vec::new();
        for n in 0..100 {
            let mut answer = match n % 2 {
                0 => under(&shutdown, Sse::new(stream::pending::<u8>())).await,
                _ => under(&shutdown, channel.subscribe(LastEventId::Absent)).await,
            };
            while poll(&mut answer).is_ready() {}
            waiting.push(tokio::spawn(async move {
                // Nothing but the shutdown wakes this one: a heartbeat would be a comment alone.
                let frame = answer.body_mut().frame().await.unwrap().unwrap();
                let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
                assert_eq!(poll(&mut answer), END);
                text
            }));
        }
        tokio::task::yield_now().await;
        shutdown.begin();
        shutdown.begin();
        let mut times = Vec::new();
        for waiting in waiting {
            let text = waiting.await.unwrap();
            let mut parser = Parser::new();
            parser.push(text.as_bytes());
            let millis = parser.retry().unwrap();
            assert_eq!(text, format!("retry: {millis}\n:\n"));
            assert!((2000..=4000).contains(&millis), "{millis}");
            times.push(millis);
        }
        times.sort_unstable();
        // A hundred of two thousand: the quartiles cannot all be empty.
        assert!(times[0] < 2500 && times[99] > 3500, "{times:?}");
        times.dedup();
        assert!(times.len() > 50, "{times:?}");
    }

    #[tokio::test]
    async fn rules_67_and_68_a_stream_that_starts_too_late_is_told_to_come_back() {
        let shutdown = Shutdown::new();
        shutdown.begin();
        assert!(shutdown.has_begun());
        let (sender, body) = by_hand();
        sender.send("data: a\n\n").await.unwrap();
        let own = under(&shutdown, Sse::new(stream::iter([1]))).await;
        let foreign = under(&shutdown, event_stream(body)).await;
        for mut answer in [own, foreign] {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            come_back(&mut answer);
        }
    }

    #[tokio::test]
    async fn law_9_another_s_stream_ends_behind_a_whole_event() {
        let shutdown = Shutdown::new();
        let (sender, body) = by_hand();
        let mut answer = under(&shutdown, event_stream(body)).await;
        sender.send("id: 1\ndata: a\nda").await.unwrap();
        assert_eq!(poll(&mut answer), chunk("id: 1\ndata: a\nda"));
        shutdown.begin();
        assert_eq!(poll(&mut answer), Poll::Pending);
        sender.send("ta: b\n").await.unwrap();
        assert_eq!(poll(&mut answer), chunk("ta: b\n"));
        assert_eq!(poll(&mut answer), Poll::Pending);
        sender.send("\n").await.unwrap();
        assert_eq!(poll(&mut answer), chunk("\n"));
        come_back(&mut answer);
    }

    #[tokio::test]
    async fn rule_66_another_s_stream_that_is_silent_ends_at_once() {
        // What a proxied stream of ours has said before its first event, and after it.
        for silent in [
            ":\n",
            ":\nretry: 1000\n",
            ": hello\r\n",
            "data: a\n\n:\n",
            "\n",
        ] {
            let shutdown = Shutdown::new();
            let (sender, body) = by_hand();
            let mut answer = under(&shutdown, event_stream(body)).await;
            sender.send(silent).await.unwrap();
            assert_eq!(poll(&mut answer), chunk(silent));
            assert_eq!(poll(&mut answer), Poll::Pending);
            shutdown.begin();
            come_back(&mut answer);
        }
    }

    #[tokio::test]
    async fn an_encoded_stream_gets_no_bytes_of_ours_and_ends_at_once() {
        let shutdown = Shutdown::new();
        let (sender, body) = by_hand();
        let mut encoded = event_stream(body);
        let gzip = HeaderValue::from_static("gzip");
        encoded.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        let mut answer = under(&shutdown, encoded).await;
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        sender.send("\x1f not to be understood").await.unwrap();
        assert_eq!(poll(&mut answer), chunk("\x1f not to be understood"));
        assert_eq!(poll(&mut answer), Poll::Pending);
        shutdown.begin();
        assert_eq!(poll(&mut answer), END);
        assert!(answer.body().is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn rule_66_axum_s_sse_ends_between_its_events() {
        let shutdown = Shutdown::new();
        let (sender, items) = mpsc::channel(8);
        let events = ReceiverStream::new(items)
            .map(|text: &str| Ok::<_, Infallible>(sse::Event::default().data(text)));
        let mut answer = under(&shutdown, sse::Sse::new(events)).await;
        sender.send("a\nb").await.unwrap();
        assert_eq!(poll(&mut answer), chunk("data: a\ndata: b\n\n"));
        assert_eq!(poll(&mut answer), Poll::Pending);
        shutdown.begin();
        assert!((2000..=4000).contains(&come_back(&mut answer)));
        assert!(sender.is_closed(), "the source was let go");
    }

    #[tokio::test]
    async fn responses_that_are_gone_leave_no_trace() {
        let shutdown = Shutdown::new();
        for _ in 0..10 {
            let mut answer = under(&shutdown, event_stream(by_hand().1)).await;
            let _ = poll(&mut answer);
            assert_eq!(shutdown.waiting(), 1);
        }
        assert_eq!(shutdown.waiting(), 0);
        let unpolled = under(&shutdown, event_stream(by_hand().1)).await;
        assert_eq!(shutdown.waiting(), 0);
        drop(unpolled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_begins_it_and_so_does_anybody_else() {
        let shutdown = Shutdown::new();
        let signal = tokio::time::sleep(Duration::from_secs(5));
        let on = tokio::spawn(shutdown.on(signal));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(!shutdown.has_begun());
        on.await.unwrap();
        assert!(shutdown.has_begun());

        let shutdown = Shutdown::new();
        let on = tokio::spawn(shutdown.on(std::future::pending()));
        tokio::task::yield_now().await;
        shutdown.clone().begin();
        let limit = Duration::from_secs(1);
        tokio::time::timeout(limit, on).await.unwrap().unwrap();
    }
}

mod tail {
    use super::{super::body::Tail, *};

    /// The same question, asked of the whole text at once.
    fn may_end_behind(text: &str) -> bool {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let Some((lines, last)) = text.rsplit_once('\n') else {
            return text.is_empty();
        };
        let block = lines.split('\n').rev().take_while(|line| !line.is_empty());
        let of_an_event = |line: &str| line.starts_with(['d', 'e', 'i', '\u{feff}']);
        last.is_empty() && !block.clone().any(of_an_event)
    }

    #[test]
    fn law_9_examples() {
        for (text, expected) in [
            ("", true),
            ("data: a\n\n", true),
            ("data: a\r\n\r\n", true),
            ("data: a\r\r", true),
            ("data: a\n\r\n", true),
            ("data: a\n\n:\n", true),
            ("data: a\n\n: x", false),
            ("data: a\n\n\n\n", true),
            ("data: a\n", false),
            ("data: a\r\n", false),
            ("data: a\n:\n", false),
            ("data: a\n:\n\n", true),
            ("id: 1\n", false),
            ("id\n", false),
            ("event: x\n", false),
            ("retry: 5\n", true),
            ("retry: 5", false),
            ("x", false),
            ("\u{feff}data: a\n", false),
            ("\u{feff}data: a\n\n", true),
        ] {
            let mut tail = Tail::default();
            tail.follow(text.as_bytes());
            assert_eq!(tail.is_boundary(), expected, "{text:?}");
            assert_eq!(may_end_behind(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn law_9_a_tail_knows_where_events_end_however_they_are_cut(
            text in "[\r\n\r\n:dier x]{0,24}",
            sizes in prop::collection::vec(0usize..6, 1..8),
        ) {
            let mut tail = Tail::default();
            let mut done = 0;
            for size in sizes.iter().cycle().take(200) {
                let next = text.len().min(done + size);
                tail.follow(&text.as_bytes()[done..next]);
                done = next;
                prop_assert_eq!(tail.is_boundary(), may_end_behind(&text[..done]), "{:?}", &text[..done]);
            }
        }
    }
}
