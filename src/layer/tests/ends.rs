//! Rules 66 to 68 and 72: what ends a single stream, and when.

use tokio::{
    sync::oneshot,
    time::{Instant, advance, sleep, timeout},
};

use super::*;
use crate::Access;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const FOREVER: Duration = Duration::from_secs(10_000_000);

pub(super) async fn under(layer: SseLayer, response: impl IntoResponse) -> Answer {
    through(layer, request(Version::HTTP_2), response).await
}

pub(super) fn gzipped(body: Body) -> Response<Body> {
    let mut response = event_stream(body);
    let gzip = HeaderValue::from_static("gzip");
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, gzip);
    response
}

pub(super) fn own() -> Response<Body> {
    Sse::new(stream::pending::<u8>()).into_response()
}

pub(super) fn subscription() -> Response<Body> {
    let channel = Channel::<u8>::new();
    let response = channel.subscribe(LastEventId::Absent).into_response();
    // Dropping the channel would end the stream.
    std::mem::forget(channel);
    response
}

/// Keeps the sender of its body, since dropping it would end the stream.
pub(super) fn of_another() -> Response<Body> {
    let (sender, body) = by_hand();
    std::mem::forget(sender);
    event_stream(body)
}

/// All the text until the end of the stream, and the time it takes.
pub(super) async fn rest(answer: &mut Answer) -> (String, Duration) {
    let start = Instant::now();
    let mut text = String::new();
    while let Some(frame) = timeout(FOREVER, answer.body_mut().frame()).await.unwrap() {
        let data = frame.unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
    (text, start.elapsed())
}

/// The time in the last `retry` line, after which only a comment may follow.
fn retry_in(text: &str) -> Option<u64> {
    let mut parser = Parser::new();
    parser.push(text.as_bytes());
    let millis = parser.retry()?;
    assert!(text.ends_with(&format!("retry: {millis}\n:\n")), "{text}");
    assert!((2000..=4000).contains(&millis), "{millis}");
    Some(millis)
}

#[tokio::test(start_paused = true)]
async fn rule_72_a_stream_ends_in_the_last_quarter_of_its_lifetime() {
    let lifetime = 1000 * SECOND;
    let mut waiting = Vec::new();
    for n in 0..300 {
        let response = [own, subscription, of_another][n % 3]();
        let mut answer = under(SseLayer::new().lifetime(lifetime), response).await;
        waiting.push(tokio::spawn(async move { rest(&mut answer).await }));
    }
    let mut times = Vec::new();
    for waiting in waiting {
        let (text, time) = waiting.await.unwrap();
        assert!(!text.contains("retry"), "{text}");
        assert!(text.is_empty() || text.ends_with('\n'));
        // Timers have a resolution of a millisecond.
        let most = lifetime + Duration::from_millis(2);
        assert!(time >= lifetime * 3 / 4 && time <= most, "{time:?}");
        times.push(time);
    }
    times.sort_unstable();
    assert!(times[0] < 775 * SECOND, "{:?}", times[0]);
    assert!(times[299] > 975 * SECOND, "{:?}", times[299]);
    times.dedup();
    assert!(times.len() > 250, "{}", times.len());
}

#[tokio::test(start_paused = true)]
async fn rule_72_a_lifetime_begins_with_the_first_poll() {
    let layer = SseLayer::new().lifetime(100 * SECOND);
    for response in [own(), of_another()] {
        let mut answer = under(layer.clone(), response).await;
        advance(1000 * SECOND).await;
        let (_, time) = rest(&mut answer).await;
        assert!(time >= 75 * SECOND, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_may_be_anything() {
    for (lifetime, least) in [(Duration::ZERO, 750), (SECOND, 750), (4 * SECOND, 3000)] {
        let mut answer = under(SseLayer::new().lifetime(lifetime), own()).await;
        let (_, time) = rest(&mut answer).await;
        assert!(
            time >= Duration::from_millis(least),
            "{lifetime:?} {time:?}"
        );
        assert!(time <= lifetime.max(SECOND) + Duration::from_millis(2));
    }
    for lifetime in [Duration::MAX, Duration::MAX / 2, FOREVER * 1_000_000] {
        let mut answer = under(SseLayer::new().lifetime(lifetime), of_another()).await;
        assert_eq!(poll(&mut answer), Poll::Pending);
        advance(FOREVER).await;
        assert_eq!(poll(&mut answer), Poll::Pending);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_72_a_source_that_is_never_silent_is_ended_as_well() {
    // Never pending, so the task does not yield to the timer.
    let events = || {
        event_stream(Body::new(StreamBody::new(stream::repeat_with(|| {
            Ok::<_, Infallible>(Frame::data(Bytes::from("data: a\n\n")))
        }))))
    };
    let own = || Sse::new(stream::repeat(1u8)).into_response();
    for response in [events(), own()] {
        let mut answer = under(SseLayer::new().lifetime(100 * SECOND), response).await;
        for _ in 0..74 {
            for _ in 0..100 {
                assert!(matches!(poll(&mut answer), Poll::Ready(Some(_))));
            }
            advance(SECOND).await;
        }
        advance(26 * SECOND).await;
        assert_eq!(poll(&mut answer), END);
        assert!(answer.body().is_end_stream());
    }
    // The paused clock advances by itself here, while the test's task reads a busy stream.
    let layer = SseLayer::new().lifetime(SECOND);
    let slow = stream::unfold((), |()| async {
        sleep(Duration::from_millis(1)).await;
        Some(("data: a\n\n", ()))
    });
    let body = Body::from_stream(slow.map(Ok::<_, Infallible>));
    let (text, time) = rest(&mut under(layer, event_stream(body)).await).await;
    assert!(time <= SECOND + Duration::from_millis(2), "{time:?}");
    assert_eq!(text.replace("data: a\n\n", ""), "");
}

#[tokio::test(start_paused = true)]
async fn rules_63_and_72_an_end_is_behind_a_whole_event() {
    let layer = SseLayer::new().lifetime(10 * SECOND);
    let most = 11 * SECOND + Duration::from_millis(2);
    let least = Duration::from_millis(8500);
    for _ in 0..50 {
        let halves = ["data: a\n", "\n", ":\n"].into_iter().cycle();
        let halves = stream::iter(halves).then(async |half| {
            sleep(Duration::from_millis(300)).await;
            Ok::<_, Infallible>(half)
        });
        let body = Body::from_stream(halves);
        let (text, time) = rest(&mut under(layer.clone(), event_stream(body)).await).await;
        assert!(
            text.ends_with("\n\n") || text.ends_with("\n\n:\n"),
            "{text:?}"
        );
        assert!(time < most, "{time:?}");
        // The stream waits for the end of an event that has begun.
        let half = stream::iter([Ok::<_, Infallible>("data: a")]).chain(stream::pending());
        let half = event_stream(Body::from_stream(half));
        let (text, time) = rest(&mut under(layer.clone(), half).await).await;
        assert_eq!(text, "data: a");
        assert!(time >= least && time < most, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_72_the_return_is_told_only_if_a_shutdown_has_begun() {
    let shutdown = Shutdown::draining(1000 * SECOND);
    let layer = SseLayer::new()
        .lifetime(10 * SECOND)
        .shutdown(shutdown.clone());
    let mut before = under(layer.clone(), of_another()).await;
    assert_eq!(rest(&mut before).await.0, "");

    let mut during = under(layer, of_another()).await;
    assert_eq!(poll(&mut during), Poll::Pending);
    shutdown.begin();
    let (text, time) = rest(&mut during).await;
    assert!(time <= 10 * SECOND + Duration::from_millis(2), "{time:?}");
    assert!(retry_in(&text).is_some(), "{text:?}");
}

#[tokio::test(start_paused = true)]
async fn law_9_half_an_event_has_a_second_to_come_to_its_end() {
    #[derive(Clone, Copy, Debug)]
    enum By {
        Shutdown,
        Access,
    }
    for by in [By::Shutdown, By::Access] {
        for (delay, whole) in [(0, true), (900, true), (1100, false)] {
            let (sender, body) = by_hand();
            let shutdown = Shutdown::new();
            let (withdraw, withdrawn) = oneshot::channel::<()>();
            let access = Access::new().revoked_by(async { drop(withdrawn.await) });
            let layer = SseLayer::new().shutdown(shutdown.clone());
            let mut answer = under(layer, (access, event_stream(body))).await;
            sender.send("data: a\ndata: ").await.unwrap();
            assert_eq!(poll(&mut answer), chunk("data: a\ndata: "));
            let waiting = tokio::spawn(async move { rest(&mut answer).await });
            tokio::task::yield_now().await;
            let mut withdraw = Some(withdraw);
            match by {
                By::Shutdown => shutdown.begin(),
                By::Access => withdraw = None,
            }
            sleep(Duration::from_millis(delay)).await;
            // More lines of the same event do not end it.
            _ = sender.try_send("more\n");
            tokio::task::yield_now().await;
            _ = sender.try_send("\n");
            let (text, time) = waiting.await.unwrap();
            drop(withdraw);
            let quoted = format!("{by:?} {delay} {text:?} {time:?}");
            if !whole {
                assert_eq!((text.as_str(), time), ("", SECOND), "{quoted}");
                continue;
            }
            assert_eq!(time, Duration::from_millis(delay), "{quoted}");
            let last = text.strip_prefix("more\n\n").unwrap();
            match by {
                By::Shutdown => assert!(retry_in(last).is_some(), "{quoted}"),
                By::Access => assert_eq!(last, "", "{quoted}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn law_9_a_stream_that_is_never_between_two_events_is_cut_after_a_second() {
    let shutdown = Shutdown::new();
    let layer = SseLayer::new().shutdown(shutdown.clone());
    let chunks = stream::unfold((), |()| async {
        sleep(Duration::from_millis(10)).await;
        Some(("\n\ndata: a", ()))
    });
    let body = Body::from_stream(chunks.map(Ok::<_, Infallible>));
    let mut answer = under(layer, event_stream(body)).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    shutdown.begin();
    let (text, time) = rest(&mut answer).await;
    assert!(time <= SECOND + Duration::from_millis(2), "{time:?}");
    assert!(
        text.ends_with("data: a") && !text.contains("retry"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn law_9_an_encoded_stream_gets_no_bytes_of_ours_whatever_ends_it() {
    let shutdown = Shutdown::new();
    let begun = Shutdown::new();
    begun.begin();
    let lasting = || SseLayer::new().shutdown(shutdown.clone());
    let expires = || Access::new().expires_in(SECOND);
    for (layer, access) in [
        (lasting().lifetime(SECOND), Access::new()),
        (lasting(), expires()),
        (lasting(), Access::new().revoked_by(sleep(SECOND))),
        (SseLayer::new().shutdown(begun.clone()), Access::new()),
        (SseLayer::new().shutdown(begun).lifetime(SECOND), expires()),
    ] {
        let (sender, body) = by_hand();
        sender.send("data: half of something").await.unwrap();
        let mut answer = under(layer, (access, gzipped(body))).await;
        let (text, time) = rest(&mut answer).await;
        assert!(text.is_empty() || text == "data: half of something");
        assert!(time <= SECOND + Duration::from_millis(2), "{time:?}");
        drop(sender);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_66_draining_ends_each_stream_at_a_moment_of_its_own() {
    let drain = 100 * SECOND;
    let shutdown = Shutdown::draining(drain);
    let layer = SseLayer::new().shutdown(shutdown.clone());
    let mut waiting = Vec::new();
    for n in 0..300 {
        let mut answer = under(layer.clone(), [own, subscription, of_another][n % 3]()).await;
        while poll(&mut answer).is_ready() {}
        waiting.push(tokio::spawn(async move {
            let (text, _) = rest(&mut answer).await;
            (text, Instant::now())
        }));
    }
    sleep(50 * SECOND).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    let begun = Instant::now();
    shutdown.begin();
    sleep(10 * SECOND).await;
    // A shutdown that has begun does not begin again.
    shutdown.begin();
    let mut times = Vec::new();
    for waiting in waiting {
        let (text, end) = waiting.await.unwrap();
        assert!(retry_in(&text).is_some(), "{text:?}");
        times.push(end - begun);
    }
    times.sort_unstable();
    assert!(times[0] < 10 * SECOND, "{:?}", times[0]);
    assert!(times[299] > 90 * SECOND, "{:?}", times[299]);
    assert!(times[299] <= drain + Duration::from_millis(2));
    let early = times.iter().filter(|time| **time < drain / 2).count();
    assert!((90..210).contains(&early), "{early} of 300");
    assert_eq!((shutdown.waiting(), shutdown.streams()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn rules_67_and_68_who_comes_while_it_drains_is_sent_away_at_once() {
    let shutdown = Shutdown::draining(1000 * SECOND);
    let layer = SseLayer::new().shutdown(shutdown.clone());
    let mut early = under(layer.clone(), of_another()).await;
    assert_eq!(poll(&mut early), Poll::Pending);
    let mut unpolled = under(layer.clone(), of_another()).await;
    shutdown.begin();
    come_back(&mut unpolled);
    for pause in [Duration::ZERO, SECOND, 500 * SECOND, 2000 * SECOND] {
        sleep(pause).await;
        for response in [own(), subscription(), of_another()] {
            let mut late = under(layer.clone(), response).await;
            assert_eq!(late.status(), StatusCode::OK);
            assert_eq!(values(&late, "content-type"), ["text/event-stream"]);
            assert!((2000..=4000).contains(&come_back(&mut late)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_s_signal_comes_first_and_the_end_of_the_drain_last() {
    let drain = 100 * SECOND;
    let shutdown = Shutdown::draining(drain);
    let start = Instant::now();
    let at_once = tokio::spawn(shutdown.on(sleep(5 * SECOND)));
    let at_the_end = tokio::spawn(shutdown.on_drained(std::future::pending()));
    at_once.await.unwrap();
    assert!(shutdown.has_begun());
    assert_eq!(start.elapsed(), 5 * SECOND);
    at_the_end.await.unwrap();
    assert_eq!(start.elapsed(), 5 * SECOND + drain);
    // After the drain time, neither waits.
    shutdown.on(std::future::pending()).await;
    shutdown.on_drained(std::future::pending()).await;
    assert_eq!(start.elapsed(), 5 * SECOND + drain);

    let shutdown = Shutdown::new();
    let start = Instant::now();
    shutdown.on_drained(sleep(SECOND)).await;
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn draining_for_longer_than_the_clock_counts_is_no_panic() {
    let shutdown = Shutdown::draining(Duration::MAX);
    let layer = SseLayer::new().shutdown(shutdown.clone());
    let mut answer = under(layer, of_another()).await;
    assert_eq!(poll(&mut answer), Poll::Pending);
    let drained = tokio::spawn(shutdown.on_drained(std::future::pending()));
    shutdown.begin();
    // The drain time is clamped to a day.
    let (text, time) = rest(&mut answer).await;
    assert!(retry_in(&text).is_some());
    assert!(time <= 86_401 * SECOND, "{time:?}");
    drained.await.unwrap();
}
