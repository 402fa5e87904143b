//! What the layer does with bodies.

use super::*;

#[tokio::test]
async fn rule_56_head_gets_the_head_and_no_body() {
    let watched = Watched::default();
    let stream = event_stream(watched.body());
    let mut ask = request(Version::HTTP_11);
    *ask.method_mut() = Method::HEAD;
    let shutdown = Shutdown::new();
    let layer = SseLayer::new().shutdown(shutdown.clone());
    let mut answer = through(layer, ask, stream).await;
    assert_eq!(answer.headers(), &stream_head());
    // A length of 0 would become a header that the answer to GET does not have.
    assert_eq!(answer.body().size_hint().exact(), None);
    shutdown.begin();
    assert_eq!(poll(&mut answer), END);
    assert_eq!(watched.polls(), 0);

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
