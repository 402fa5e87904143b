//! `Sse`: rules 36 to 54 and 63 to 65.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
};
use axum_sse::{BoxError, Error, ErrorKind, Event, EventName, Heartbeat, Sse, event_name};
use futures_util::{Stream, StreamExt, stream};
use http_body::Body as _;
use serde::{Serialize, Serializer, ser};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::{IntervalStream, ReceiverStream};

use crate::wire::{Wire, assert_time, messages, millis, secs};

/// Items, each after this many milliseconds of silence.
fn after<T: Send + 'static>(items: Vec<(u64, T)>) -> impl Stream<Item = T> + Send {
    stream::iter(items).then(|(time, item)| async move {
        sleep(millis(time)).await;
        item
    })
}

fn never() -> impl Stream<Item = u8> + Send {
    stream::pending()
}

fn every(time: Duration) -> Heartbeat {
    Heartbeat::every(time)
}

#[derive(Clone, Debug)]
enum Value {
    Number(u8),
    Broken,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u8(*number),
            Self::Broken => {
                let mut list = serializer.serialize_seq(None)?;
                ser::SerializeSeq::serialize_element(&mut list, "half")?;
                Err(ser::Error::custom("broken"))
            }
        }
    }
}

mod prelude {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rule_39_first_bytes_at_once() {
        let mut wire = Wire::new(Sse::new(never()));
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        wire.silent_for(millis(14_999)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rule_27_retry_comes_in_front_of_the_first_event_without_a_blank_line() {
        let items = stream::iter([1, 2]).chain(never());
        let mut wire = Wire::new(Sse::new(items).retry(secs(2)));
        assert_eq!(
            wire.at_once().await.unwrap(),
            ":\nretry: 2000\ndata: 1\n\ndata: 2\n\n"
        );

        let mut wire = Wire::new(Sse::new(after(vec![(10, 1)])).retry(Duration::ZERO));
        assert_eq!(wire.at_once().await.unwrap(), ":\nretry: 500\n");
        assert_eq!(wire.chunk().await.unwrap(), "data: 1\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn rules_48_to_54_the_head_is_right_without_any_layer() {
        let response = Sse::new(never()).into_response();
        assert_eq!(response.status(), StatusCode::OK);
        let expected: HeaderMap = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
            ("x-accel-buffering".parse().unwrap(), "no"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (
                "cross-origin-resource-policy".parse().unwrap(),
                "same-origin",
            ),
        ]
        .into_iter()
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();
        assert_eq!(response.headers(), &expected);
        assert_eq!(response.body().size_hint().exact(), None);
        assert!(!response.body().is_end_stream());
    }
}

mod heartbeat {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rules_36_and_40_one_comment_line_every_15_seconds() {
        let mut wire = Wire::new(Sse::new(never()));
        wire.at_once().await;
        for _ in 0..4 {
            let (chunk, time) = wire.timed().await;
            assert_eq!(chunk.unwrap(), ":\n");
            assert_time(time, secs(15));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_an_event_every_10_seconds_leaves_no_room_for_one() {
        let items = after((0..20).map(|n| (10_000, n)).collect());
        let mut wire = Wire::new(Sse::new(items));
        wire.at_once().await;
        for n in 0..20 {
            let (chunk, time) = wire.timed().await;
            assert_eq!(chunk.unwrap(), format!("data: {n}\n\n"));
            assert_time(time, secs(10));
        }
        assert_eq!(wire.at_once().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_every_write_starts_the_interval_anew() {
        // The timer was still set for second 15 when the event of second 10 came.
        let items = after(vec![(10_000, 1), (40_000, 2)]).chain(never());
        let mut wire = Wire::new(Sse::new(items));
        wire.at_once().await;
        let mut at = Duration::ZERO;
        for (second, expected) in [
            (10, "data: 1\n\n"),
            (25, ":\n"),
            (40, ":\n"),
            (50, "data: 2\n\n"),
            (65, ":\n"),
        ] {
            let (chunk, time) = wire.timed().await;
            at += time;
            assert_eq!(chunk.unwrap(), expected);
            assert_time(at, secs(second));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_a_client_that_did_not_read_gets_one_and_no_more() {
        let mut wire = Wire::new(Sse::new(never()));
        wire.at_once().await;
        sleep(secs(100)).await;
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        let (chunk, time) = wire.timed().await;
        assert_eq!(chunk.unwrap(), ":\n");
        assert_time(time, secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_what_is_ready_takes_the_place_of_one_that_is_due() {
        let (sender, items) = mpsc::channel(1);
        let mut wire = Wire::new(Sse::new(ReceiverStream::new(items)));
        wire.at_once().await;
        wire.silent_for(secs(10)).await;
        sleep(secs(10)).await;
        sender.send(1).await.unwrap();
        assert_eq!(wire.at_once().await.unwrap(), "data: 1\n\n");
        let (chunk, time) = wire.timed().await;
        assert_eq!(chunk.unwrap(), ":\n");
        assert_time(time, secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn rule_42_a_busy_source_that_yields_nothing_still_gets_them() {
        let items = IntervalStream::new(tokio::time::interval(millis(100)))
            .filter_map(async |_| None::<u8>)
            .boxed();
        let mut wire = Wire::new(Sse::new(items));
        wire.at_once().await;
        let (chunk, time) = wire.timed().await;
        assert_eq!(chunk.unwrap(), ":\n");
        assert_time(time, secs(15));
    }

    #[test]
    fn rule_43_an_interval_is_clamped() {
        for (given, used) in [
            (Duration::ZERO, Heartbeat::MIN),
            (Heartbeat::MIN - Duration::from_nanos(1), Heartbeat::MIN),
            (Heartbeat::MIN, Heartbeat::MIN),
            (Heartbeat::MAX, Heartbeat::MAX),
            (Heartbeat::MAX + Duration::from_nanos(1), Heartbeat::MAX),
            (Duration::MAX, Heartbeat::MAX),
        ] {
            assert_eq!(every(given).interval(), Some(used), "{given:?}");
        }
        assert_eq!(Heartbeat::default().interval(), Some(secs(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn rule_44_none_after_the_end() {
        let mut wire = Wire::new(Sse::new(after(vec![(20_000, 1)])));
        wire.at_once().await;
        assert_eq!(wire.chunk().await.unwrap(), ":\n");
        assert_eq!(wire.chunk().await.unwrap(), "data: 1\n\n");
        assert_eq!(wire.at_once().await, None);
        assert!(wire.body().is_end_stream());
        sleep(secs(60)).await;
        assert_eq!(wire.at_once().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_45_one_may_be_an_event_with_a_name() {
        let ping = Event::json(&1).unwrap().with_name(event_name!("ping"));
        let heartbeat = every(secs(5)).with_event(&ping).unwrap();
        assert_eq!(heartbeat.interval(), Some(secs(5)));
        let items =
            stream::iter([Event::text("a").unwrap().id("7").unwrap()]).chain(stream::pending());
        let mut wire = Wire::new(Sse::new(items).heartbeat(heartbeat));
        let mut all = wire.at_once().await.unwrap();
        let (chunk, time) = wire.timed().await;
        assert_time(time, secs(5));
        assert_eq!(chunk.as_deref(), Some("event: ping\ndata: 1\n\n"));
        all.push_str(&chunk.unwrap());
        assert_eq!(messages(&all)[1].last_event_id, "7");
    }

    #[test]
    fn rule_45_such_an_event_neither_reaches_onmessage_nor_moves_the_id() {
        let event = || Event::empty();
        let kind = |event: Event| {
            Heartbeat::default()
                .with_event(&event)
                .map_err(|error| error.kind())
        };
        assert_eq!(kind(event()).unwrap_err(), ErrorKind::InvalidName);
        let message = event().name("message").unwrap();
        assert_eq!(kind(message).unwrap_err(), ErrorKind::InvalidName);
        for channel_s in ["gap", "checkpoint", "snapshot"] {
            let event = event().name(channel_s).unwrap();
            assert_eq!(
                kind(event).unwrap_err(),
                ErrorKind::InvalidName,
                "{channel_s}"
            );
        }
        let ping = event().name("ping").unwrap();
        assert!(kind(ping.clone()).is_ok());
        let id = ping.clone().id("7").unwrap();
        assert_eq!(kind(id).unwrap_err(), ErrorKind::InvalidId);
        assert_eq!(kind(ping.clear_id()).unwrap_err(), ErrorKind::InvalidId);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_46_setting_it_again_replaces_it() {
        let response = Sse::new(never())
            .heartbeat(every(secs(1)))
            .heartbeat(every(secs(20)));
        let mut wire = Wire::new(response);
        wire.at_once().await;
        for _ in 0..2 {
            let (_, time) = wire.timed().await;
            assert_time(time, secs(20));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_can_be_off() {
        let mut wire = Wire::new(Sse::new(never()).heartbeat(Heartbeat::OFF));
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        wire.silent_for(secs(86_400)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rule_38_no_client_counts_one_as_an_event() {
        let one = Event::text("a").unwrap().id("1").unwrap();
        let two = Event::text("b").unwrap();
        let items = after(vec![(0, one), (50_000, two)]);
        let mut wire = Wire::new(Sse::new(items));
        let mut all = String::new();
        while let Some(chunk) = wire.chunk().await {
            all.push_str(&chunk);
        }
        assert_eq!(all, ":\nid: 1\ndata: a\n\n:\n:\n:\ndata: b\n\n");
        // Fooled clients would count blank lines.
        assert_eq!(all.matches("\n\n").count(), 2);
        assert_eq!(messages(&all).len(), 2);
    }
}

mod chunks {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rule_19_a_source_that_is_always_ready_fills_bounded_chunks_of_whole_events() {
        for (size, most_events) in [(1, 256), (100, 256), (1000, 17), (100_000, 1)] {
            let text = "x".repeat(size);
            let mut wire = Wire::new(Sse::new(stream::repeat(text)));
            for _ in 0..10 {
                let chunk = wire.at_once().await.unwrap();
                assert!(chunk.ends_with("\n\n"));
                let events = messages(&chunk).len();
                assert!(
                    (1..=most_events).contains(&events),
                    "{events} events of {size}"
                );
                assert!(
                    chunk.len() < 16 * 1024 + size + 16,
                    "{} of {size}",
                    chunk.len()
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_together_goes_out_together_and_at_once() {
        let (sender, items) = mpsc::channel(16);
        let mut wire = Wire::new(Sse::new(ReceiverStream::new(items)));
        wire.at_once().await;
        for n in 0..3 {
            sender.send(n).await.unwrap();
        }
        assert_eq!(
            wire.at_once().await.unwrap(),
            "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        );
        sender.send(3).await.unwrap();
        drop(sender);
        assert_eq!(wire.at_once().await.unwrap(), "data: 3\n\n");
        assert_eq!(wire.at_once().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn comments_among_the_events_are_no_events() {
        let items = vec![
            Event::comment("why").unwrap(),
            Event::text("x").unwrap(),
            Event::comment("so").unwrap(),
        ];
        let mut wire = Wire::new(Sse::new(stream::iter(items)));
        assert_eq!(wire.at_once().await.unwrap(), ":\n: why\ndata: x\n\n: so\n");
    }

    #[tokio::test(start_paused = true)]
    async fn enum_values_name_their_events() {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Chat {
            Said { text: &'static str },
            Left,
        }
        let items = || stream::iter([Chat::Said { text: "hi" }, Chat::Left]);
        let expected = ":\nevent: said\ndata: {\"text\":\"hi\"}\n\nevent: left\ndata: null\n\n";
        let mut wire = Wire::new(Sse::named(items()));
        assert_eq!(wire.at_once().await.unwrap(), expected);
        let fallible = items().map(Ok::<_, io::Error>);
        let mut wire = Wire::new(Sse::try_named(fallible));
        assert_eq!(wire.at_once().await.unwrap(), expected);
    }
}

mod ending {
    use super::*;

    /// A source that shows whether it still exists, and panics if it is polled after an item that
    /// ends the stream.
    struct Watched<T> {
        items: std::vec::IntoIter<T>,
        polls: Arc<AtomicUsize>,
        gone: Arc<AtomicBool>,
    }

    impl<T: Unpin> Stream for Watched<T> {
        type Item = T;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<T>> {
            self.polls.fetch_add(1, Ordering::SeqCst);
            std::task::Poll::Ready(self.items.next())
        }
    }

    impl<T> Drop for Watched<T> {
        fn drop(&mut self) {
            self.gone.store(true, Ordering::SeqCst);
        }
    }

    fn watched<T>(items: Vec<T>) -> (Watched<T>, Arc<AtomicUsize>, Arc<AtomicBool>) {
        let (polls, gone) = (Arc::default(), Arc::default());
        let source = Watched {
            items: items.into_iter(),
            polls: Arc::clone(&polls),
            gone: Arc::clone(&gone),
        };
        (source, polls, gone)
    }

    #[tokio::test(start_paused = true)]
    async fn rule_63_the_end_of_the_source_is_the_end_behind_a_whole_event() {
        let (source, polls, gone) = watched(vec![1]);
        let mut wire = Wire::new(Sse::new(source));
        assert_eq!(wire.at_once().await.unwrap(), ":\ndata: 1\n\n");
        assert_eq!(wire.at_once().await, None);
        assert!(gone.load(Ordering::SeqCst));
        // A stream must not be polled after its end.
        assert_eq!(wire.at_once().await, None);
        assert_eq!(polls.load(Ordering::SeqCst), 2);

        let mut wire = Wire::new(Sse::new(stream::empty::<u8>()));
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        assert_eq!(wire.at_once().await, None);
    }

    fn failing() -> Vec<Result<u8, io::Error>> {
        vec![Ok(1), Err(io::Error::other("the disk is gone")), Ok(2)]
    }

    #[tokio::test(start_paused = true)]
    async fn rule_64_an_error_of_the_source_ends_the_stream_behind_the_event_before_it() {
        let (source, polls, gone) = watched(failing());
        let mut wire = Wire::new(Sse::try_new(source));
        assert_eq!(wire.at_once().await.unwrap(), ":\ndata: 1\n\n");
        assert!(gone.load(Ordering::SeqCst));
        assert_eq!(wire.at_once().await, None);
        assert_eq!(polls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_64_one_last_event_says_why_if_it_is_wanted() {
        let response = Sse::try_new(stream::iter(failing())).on_error(|error| {
            let error = error.downcast::<io::Error>().unwrap();
            Event::text(error.to_string()).ok()?.name("failed").ok()
        });
        let mut wire = Wire::new(response);
        assert_eq!(
            wire.at_once().await.unwrap(),
            ":\ndata: 1\n\nevent: failed\ndata: the disk is gone\n\n"
        );
        assert_eq!(wire.at_once().await, None);

        let mut wire = Wire::new(Sse::try_new(stream::iter(failing())).on_error(|_| None));
        assert_eq!(wire.at_once().await.unwrap(), ":\ndata: 1\n\n");
        assert_eq!(wire.at_once().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_64_an_error_after_some_silence() {
        let items = after(vec![(20_000, Ok(1)), (1_000, Err("gone"))]);
        let mut wire = Wire::new(Sse::try_new(items));
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        assert_eq!(wire.chunk().await.unwrap(), ":\n");
        assert_eq!(wire.chunk().await.unwrap(), "data: 1\n\n");
        let (end, time) = wire.timed().await;
        assert_eq!(end, None);
        assert_time(time, secs(1));
        assert!(wire.body().is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn rule_64_an_error_as_the_first_item() {
        let mut wire = Wire::new(Sse::try_new(stream::iter([Err::<u8, _>("gone")])));
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        assert_eq!(wire.at_once().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_30_a_value_that_cannot_be_serialised_ends_it_just_so() {
        let values = vec![Value::Number(1), Value::Broken, Value::Number(2)];
        let (source, polls, gone) = watched(values.clone());
        let mut wire = Wire::new(Sse::new(source));
        assert_eq!(wire.at_once().await.unwrap(), ":\ndata: 1\n\n");
        assert_eq!(wire.at_once().await, None);
        assert!(gone.load(Ordering::SeqCst));
        assert_eq!(polls.load(Ordering::SeqCst), 2);

        let kind = |error: BoxError| error.downcast::<Error>().unwrap().kind();
        let response = Sse::new(stream::iter(values)).on_error(move |error| {
            assert_eq!(kind(error), ErrorKind::Serialize);
            Some(Event::empty().with_name(event_name!("failed")))
        });
        let mut wire = Wire::new(response);
        assert_eq!(
            wire.at_once().await.unwrap(),
            ":\ndata: 1\n\nevent: failed\ndata: \n\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rule_30_a_value_that_is_no_variant_ends_a_named_stream() {
        let response = Sse::named(stream::iter([1])).on_error(|error| {
            let error = error.downcast::<Error>().unwrap();
            assert_eq!(error.kind(), ErrorKind::NotAVariant);
            None
        });
        let mut wire = Wire::new(response);
        assert_eq!(wire.at_once().await.unwrap(), ":\n");
        assert_eq!(wire.at_once().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_65_the_name_error_is_taken_on_purpose_only() {
        let response = Sse::try_new(stream::iter([Err::<u8, _>("gone")]))
            .on_error(|_| Some(Event::empty().with_name(EventName::ERROR)));
        let mut wire = Wire::new(response);
        assert_eq!(wire.at_once().await.unwrap(), ":\nevent: error\ndata: \n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn rule_69_a_client_that_leaves_takes_the_source_along() {
        let (source, polls, gone) = watched(vec![1]);
        drop(Sse::new(source).into_response());
        assert!(gone.load(Ordering::SeqCst));
        // Inert until it is polled: a HEAD request costs no more than this.
        assert_eq!(polls.load(Ordering::SeqCst), 0);
    }
}
