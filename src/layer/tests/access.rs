//! `Access`: how long a client may read, as its handler decides.

use std::time::SystemTime;

use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    time::{Instant, advance, sleep, timeout},
};

use super::{
    ends::{FOREVER, SECOND, gzipped, of_another, own, rest, subscription, under},
    *,
};
use crate::{Access, lifetime::access::Carried};

async fn with(access: Access) -> Answer {
    under(SseLayer::new(), (access, of_another())).await
}

fn about(time: Duration, expected: Duration) -> bool {
    // `expires_at` reads the system's clock, which a paused runtime does not stop.
    time <= expected + Duration::from_millis(2) && time + SECOND >= expected
}

#[tokio::test(start_paused = true)]
async fn access_that_has_expired_ends_at_once() {
    let past = [
        Access::new().expires_at(SystemTime::now() - 100 * SECOND),
        Access::new().expires_at(SystemTime::UNIX_EPOCH),
        Access::new().expires_in(Duration::ZERO),
        Access::new().revoked_by(async {}),
    ];
    for access in past {
        let (sender, body) = by_hand();
        sender.send("data: not for you\n\n").await.unwrap();
        let mut answer = under(SseLayer::new(), (access, event_stream(body))).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(poll(&mut answer), END);
        assert!(sender.is_closed(), "the source was let go");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_ends_the_earliest_holds() {
    let at = |seconds| SystemTime::now() + seconds * SECOND;
    let after = |seconds| sleep(seconds * SECOND);
    let far = SystemTime::now().checked_add(FOREVER).unwrap();
    let never = || Access::new().revoked_by(std::future::pending());
    let table = [
        ("at", Access::new().expires_at(at(50)), 50),
        ("in", Access::new().expires_in(50 * SECOND), 50),
        ("by", Access::new().revoked_by(after(50)), 50),
        (
            "at, in",
            Access::new().expires_at(at(50)).expires_in(90 * SECOND),
            50,
        ),
        (
            "in, at",
            Access::new().expires_in(50 * SECOND).expires_at(at(90)),
            50,
        ),
        (
            "in, in",
            Access::new()
                .expires_in(90 * SECOND)
                .expires_in(50 * SECOND),
            50,
        ),
        (
            "in, far",
            Access::new().expires_in(50 * SECOND).expires_at(far),
            50,
        ),
        (
            "in, max",
            Access::new()
                .expires_in(50 * SECOND)
                .expires_in(Duration::MAX),
            50,
        ),
        ("never, in", never().expires_in(50 * SECOND), 50),
        (
            "in, by",
            Access::new().expires_in(90 * SECOND).revoked_by(after(50)),
            50,
        ),
        (
            "by, in",
            Access::new().revoked_by(after(90)).expires_in(50 * SECOND),
            50,
        ),
        (
            "by, by",
            Access::new().revoked_by(after(90)).revoked_by(after(50)),
            50,
        ),
        (
            "by, by",
            Access::new().revoked_by(after(50)).revoked_by(after(90)),
            50,
        ),
        (
            "never, by",
            never()
                .revoked_by(after(50))
                .revoked_by(std::future::pending()),
            50,
        ),
    ];
    let mut waiting = Vec::new();
    for (name, access, seconds) in table {
        let mut answer = with(access).await;
        waiting.push((
            name,
            seconds,
            tokio::spawn(async move { rest(&mut answer).await }),
        ));
    }
    for (name, seconds, waiting) in waiting {
        let (text, time) = waiting.await.unwrap();
        assert_eq!(text, "", "{name}");
        assert!(about(time, seconds * SECOND), "{name} {time:?}");
    }

    for (lifetime, expires, end) in [(100, 20, 20), (20, 100, 20)] {
        let layer = SseLayer::new().lifetime(lifetime * SECOND);
        let access = Access::new().expires_in(expires * SECOND);
        let (_, time) = rest(&mut under(layer, (access, of_another())).await).await;
        assert!(time <= end * SECOND + Duration::from_millis(2), "{time:?}");
    }
    let shutdown = Shutdown::new();
    let layer = SseLayer::new().shutdown(shutdown.clone());
    let access = Access::new().expires_in(100 * SECOND);
    let mut answer = under(layer, (access, of_another())).await;
    assert_eq!(poll(&mut answer), Poll::Pending);
    shutdown.begin();
    come_back(&mut answer);
}

#[tokio::test(start_paused = true)]
async fn access_without_an_end_does_not_end() {
    for access in [
        Access::new(),
        Access::new().expires_in(Duration::MAX),
        Access::new().revoked_by(std::future::pending()),
    ] {
        let mut answer = with(access).await;
        assert_eq!(poll(&mut answer), Poll::Pending);
        advance(FOREVER).await;
        assert_eq!(poll(&mut answer), Poll::Pending);
    }
}

#[tokio::test(start_paused = true)]
async fn access_that_is_withdrawn_wakes_a_silent_stream() {
    for response in [own(), subscription(), of_another()] {
        let (withdraw, withdrawn) = oneshot::channel::<()>();
        let access = Access::new().revoked_by(async { drop(withdrawn.await) });
        let mut answer = under(SseLayer::new(), (access, response)).await;
        while poll(&mut answer).is_ready() {}
        let waiting = tokio::spawn(async move { rest(&mut answer).await });
        sleep(5 * SECOND).await;
        assert!(!waiting.is_finished());
        drop(withdraw);
        let (text, time) = waiting.await.unwrap();
        assert_eq!((text.as_str(), time), ("", 5 * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn access_that_is_withdrawn_ends_a_busy_stream_at_its_next_chunk() {
    let busy = || Body::from_stream(stream::repeat(Ok::<_, Infallible>("data: a\n\n")));
    for response in [
        Sse::new(stream::repeat(1u8)).into_response(),
        event_stream(busy()),
        gzipped(busy()),
    ] {
        let (withdraw, withdrawn) = oneshot::channel::<()>();
        let access = Access::new().revoked_by(async { drop(withdrawn.await) });
        let mut answer = under(SseLayer::new(), (access, response)).await;
        for _ in 0..1000 {
            assert!(matches!(poll(&mut answer), Poll::Ready(Some(_))));
        }
        drop(withdraw);
        assert_eq!(poll(&mut answer), END);
    }
}

/// Publishes its chunk, while it is polled, after the access has been revoked.
struct PublishesAfterwards {
    before: Option<Box<dyn FnOnce() + Send>>,
    chunks: std::vec::IntoIter<&'static str>,
}

impl http_body::Body for PublishesAfterwards {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.chunks.next();
        if self.chunks.len() == 0
            && let Some(withdraw) = self.before.take()
        {
            withdraw();
        }
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk.into()))))
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_published_after_the_withdrawal_arrives() {
    for ours in [false, true] {
        for expires in [false, true] {
            let (withdraw, withdrawn) = oneshot::channel::<()>();
            let mut access = Access::new().revoked_by(async { drop(withdrawn.await) });
            let mut before: Box<dyn FnOnce() + Send> = Box::new(|| drop(withdraw));
            if expires {
                let clock = Instant::now() + Duration::from_millis(1);
                access = Access::new().expires_in(Duration::from_millis(1));
                before = Box::new(move || {
                    // The clock is advanced by hand, inside a poll.
                    let advanced = advance(Duration::from_millis(1)).now_or_never();
                    assert!(advanced.is_none() && Instant::now() >= clock);
                });
            }
            let body = Body::new(PublishesAfterwards {
                before: Some(before),
                chunks: vec!["data: for all\n\n", "data: secret\n\n"].into_iter(),
            });
            let mut response = event_stream(body);
            if ours {
                response
                    .extensions_mut()
                    .insert(crate::sse::headers::WholeChunks);
            }
            let mut answer = under(SseLayer::new(), (access, response)).await;
            assert_eq!(poll(&mut answer), chunk("data: for all\n\n"));
            assert_eq!(poll(&mut answer), END, "{ours} {expires}");
            assert!(answer.body().is_end_stream());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_had_begun_before_the_withdrawal_is_sent_whole() {
    let (withdraw, withdrawn) = oneshot::channel::<()>();
    let access = Access::new().revoked_by(async { drop(withdrawn.await) });
    let body = Body::new(PublishesAfterwards {
        before: Some(Box::new(|| drop(withdraw))),
        chunks: vec!["data: be", "gun\n\n"].into_iter(),
    });
    let mut answer = under(SseLayer::new(), (access, event_stream(body))).await;
    assert_eq!(poll(&mut answer), chunk("data: be"));
    assert_eq!(poll(&mut answer), chunk("gun\n\n"));
    assert_eq!(poll(&mut answer), END);
}

#[tokio::test(start_paused = true)]
async fn what_withdraws_is_let_go_with_the_stream() {
    let (held, mut let_go) = mpsc::channel::<()>(1);
    let access = || {
        let held = held.clone();
        Access::new().revoked_by(async move {
            let _held = held;
            std::future::pending::<()>().await;
        })
    };
    let (sender, body) = by_hand();
    let mut ended = under(SseLayer::new(), (access(), event_stream(body))).await;
    drop(sender);
    assert_eq!(poll(&mut ended), END);
    let mut gone = with(access()).await;
    assert_eq!(poll(&mut gone), Poll::Pending);
    drop(gone);
    drop(with(access()).await);
    drop(under(SseLayer::new(), (access(), StatusCode::NO_CONTENT)).await);
    drop(held);
    assert_eq!(timeout(SECOND, let_go.recv()).await, Ok(None));
    drop(ended);
}

#[tokio::test(start_paused = true)]
async fn access_is_taken_off_every_response() {
    let access = || Access::new().expires_in(SECOND);
    let stream = with(access()).await;
    let other = under(SseLayer::new(), (access(), StatusCode::NO_CONTENT)).await;
    let head = ask(Method::HEAD, &[]);
    let head = through(SseLayer::new(), head, (access(), of_another())).await;
    let full = SseLayer::new().limits(Limits::new().total(0));
    let full = under(full, (access(), of_another())).await;
    for answer in [stream, other, head, full] {
        assert!(answer.extensions().get::<Carried>().is_none());
    }
    // The inner one of two layers enforces it, and takes it out of the response.
    let app = Router::new()
        .route("/", get(async move || (access(), of_another())))
        .layer(SseLayer::new())
        .layer(SseLayer::new());
    let response = app.oneshot(request(Version::HTTP_2)).await.unwrap();
    let start = Instant::now();
    response.into_body().collect().await.unwrap();
    assert!(about(start.elapsed(), SECOND));
}

#[cfg(feature = "tracing")]
#[tokio::test]
async fn access_that_no_layer_sees_is_warned_of_and_no_other() {
    let warnings = crate::testing::logged::Logged::new(tracing::Level::WARN);
    let mut count = 0;
    let mut counted = || {
        count += warnings.take().len();
        count
    };
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let access = || Access::new().expires_in(SECOND);
    let head = ask(Method::HEAD, &[]);
    drop(through(SseLayer::new(), head, (access(), of_another())).await);
    drop(under(SseLayer::new(), (access(), StatusCode::NO_CONTENT)).await);
    let full = SseLayer::new().limits(Limits::new().total(0));
    drop(under(full, (access(), of_another())).await);
    drop(with(access()).await);
    let mut answer = with(access()).await;
    assert_eq!(poll(&mut answer), Poll::Pending);
    drop(answer);
    // Nor one that was not returned.
    drop(access());
    assert_eq!(counted(), 0);
    drop((access(), of_another()).into_response());
    assert_eq!(counted(), 1);
}

/// A handler and a middleware around it both limit the access: the earlier end counts.
#[tokio::test(start_paused = true)]
async fn what_a_handler_and_a_middleware_say_both_hold() {
    for (inner, outer, ends) in [(50, 90, 50), (90, 50, 50)] {
        let after = |seconds| async move { tokio::time::sleep(seconds * SECOND).await };
        for revoked_within in [true, false] {
            let (inner, outer) = if revoked_within {
                (
                    Access::new().revoked_by(after(inner)),
                    Access::new().expires_in(outer * SECOND),
                )
            } else {
                (
                    Access::new().expires_in(inner * SECOND),
                    Access::new().revoked_by(after(outer)),
                )
            };
            let begun = tokio::time::Instant::now();
            let response = (
                outer,
                (inner, Sse::new(stream::pending::<u8>())).into_response(),
            );
            let mut answer = answer(response).await;
            while answer.body_mut().frame().await.is_some() {}
            assert_eq!(begun.elapsed(), ends * SECOND);
        }
    }
}
