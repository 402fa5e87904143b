//! Rules 66 to 68: a shutdown ends all streams.

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
            // Only the shutdown wakes this one; a heartbeat would be just a comment.
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
    // A hundred values out of two thousand: an empty quartile is practically impossible.
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
    // What a proxied stream of this crate has sent before its first event, and after it.
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
        let (_sender, body) = by_hand();
        let mut answer = under(&shutdown, event_stream(body)).await;
        assert_eq!(poll(&mut answer), Poll::Pending);
        assert_eq!((shutdown.waiting(), shutdown.streams()), (1, 1));
    }
    assert_eq!((shutdown.waiting(), shutdown.streams()), (0, 0));
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
