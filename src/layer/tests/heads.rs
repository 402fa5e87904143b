//! Rules 48 to 58: what the layer does with response headers.

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
async fn rules_48_49_51_and_54_a_proxied_stream() {
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
                ("cdn-cache-control", "max-age=60"),
                ("cloudflare-cdn-cache-control", "max-age=60"),
                ("surrogate-control", "max-age=60"),
                ("x-accel-expires", "60"),
                ("x-other", "stays"),
            ],
            Body::from("data: x\n\n"),
        );
        let answer = answer(proxied).await;
        let mut expected = stream_head();
        expected.insert("x-other", HeaderValue::from_static("stays"));
        assert_eq!(answer.headers(), &expected, "{content_type}");
        // Otherwise the server would add a `Content-Length`.
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
async fn rules_53_and_129_what_the_handler_set_itself_stays() {
    let proxied = foreign(
        &[
            ("content-type", "text/event-stream"),
            ("cache-control", "private, no-store"),
            ("cache-control", "NO-CACHE"),
            ("x-accel-buffering", "yes"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("vary", "origin"),
        ],
        Body::empty(),
    );
    let answer = answer(proxied).await;
    let expected = head(&[
        ("content-type", "text/event-stream"),
        ("cache-control", "private, no-store, NO-CACHE, no-transform"),
        ("x-accel-buffering", "yes"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "cross-origin"),
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
        let quoted = format!("{request:?}");
        let answer = through(SseLayer::new(), request, Sse::new(stream::empty::<u8>())).await;
        let sent = answer.headers().get(header::CONNECTION);
        assert_eq!(
            sent.is_some_and(|v| v == "keep-alive"),
            expected,
            "{quoted}"
        );
        assert_eq!(sent.is_some(), expected, "{quoted}");
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
async fn rule_51_a_layer_around_the_app_promises_no_connection_that_one_within_does_not() {
    let shutdown = Shutdown::new();
    let app = Router::new()
        .route("/", get(async || Sse::new(stream::pending::<u8>())))
        .layer(SseLayer::new().shutdown(shutdown.clone()))
        .layer(SseLayer::new());
    let open = app.clone().oneshot(request(Version::HTTP_11)).await;
    assert_eq!(open.unwrap().headers(), &stream_head());
    shutdown.begin();
    let ending = app.oneshot(request(Version::HTTP_11)).await.unwrap();
    assert!(!ending.headers().contains_key(header::CONNECTION));
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
