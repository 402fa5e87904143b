//! `Channel` through its public API: rules 84 to 92, and its guarantees to subscribers.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request},
    response::IntoResponse,
    routing::get,
};
use axum_sse::{
    Channel, ErrorKind, Event, EventId, GapReason, Heartbeat, LastEventId, OnGap, Resumption,
    SseLayer, Start, event_name,
    testing::{Item, Parser},
};
use futures_util::{StreamExt, stream};
use headers::Header;
use serde::{Serialize, Serializer, ser};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tower::ServiceExt;

use crate::wire::{Wire, millis, secs};

const PRELUDE: &str = ":\n";

/// A channel that holds 4 events, and the ids of the `count` numbers published to it, counted from
/// 0.
fn numbers(count: u32) -> (Channel<u32>, Vec<EventId>) {
    let channel = Channel::builder().capacity(4).build();
    let ids = (0..count)
        .map(|n| channel.publish(&n).unwrap().id().unwrap())
        .collect();
    (channel, ids)
}

fn frame(id: EventId, data: impl std::fmt::Display) -> String {
    format!("id: {id}\ndata: {data}\n\n")
}

fn checkpoint(id: EventId) -> String {
    format!("event: checkpoint\nid: {id}\ndata: \n\n")
}

fn gap(reason: &str, missed: Option<u64>, oldest: Option<EventId>) -> String {
    let missed = missed.map_or("null".to_owned(), |missed| missed.to_string());
    let oldest = oldest.map_or("null".to_owned(), |oldest| format!("\"{oldest}\""));
    format!(
        "event: gap\ndata: {{\"reason\":\"{reason}\",\"missed\":{missed},\"oldest\":{oldest}}}\n\n"
    )
}

/// The id before the channel's first event.
fn start_of(channel: &Channel<u32>) -> EventId {
    EventId::new(channel.newest().epoch(), 0)
}

fn header(value: &'static str) -> LastEventId {
    let values = [HeaderValue::from_static(value)];
    LastEventId::decode(&mut values.iter()).unwrap()
}

mod resume {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rules_84_and_85_exactly_what_comes_after_every_id_and_then_live() {
        let channel = Channel::<u32>::builder().capacity(100).build();
        let mut ids = vec![start_of(&channel)];
        ids.extend((0..50).map(|n| channel.publish(&n).unwrap().id().unwrap()));
        assert!(ids.is_sorted());

        for (seen, after) in ids.iter().enumerate() {
            let subscription = channel.subscribe(*after);
            let pending = 50 - seen as u64;
            assert_eq!(subscription.resumption(), Resumption::Exact { pending });
            let mut expected = PRELUDE.to_owned();
            if pending == 0 {
                expected += &checkpoint(ids[50]);
            }
            for n in seen..50 {
                expected += &frame(ids[n + 1], n);
            }
            let mut wire = Wire::new(subscription);
            assert_eq!(wire.all_at_once().await, expected, "after {seen}");
        }

        let mut wire = Wire::new(channel.subscribe(ids[48]));
        wire.all_at_once().await;
        let live = channel.publish(&50).unwrap().id().unwrap();
        assert_eq!(wire.at_once().await.unwrap(), frame(live, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn rule_85_a_client_without_an_id_starts_live_with_a_checkpoint() {
        let (channel, ids) = numbers(3);
        let subscription = channel.subscribe(LastEventId::Absent);
        assert_eq!(subscription.resumption(), Resumption::Fresh);
        let mut wire = Wire::new(subscription);
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{}", checkpoint(ids[2]))
        );
        let id = channel.publish(&3).unwrap().id().unwrap();
        assert_eq!(wire.at_once().await.unwrap(), frame(id, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn law_4_the_checkpoint_of_an_empty_channel_resumes_from_its_start() {
        let (channel, _) = numbers(0);
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        let first = wire.all_at_once().await;
        let start = start_of(&channel);
        assert_eq!(first, format!("{PRELUDE}{}", checkpoint(start)));
        drop(wire);

        // Events published while the client was away are there when it comes back.
        let ids: Vec<_> = (0..4)
            .map(|n| channel.publish(&n).unwrap().id().unwrap())
            .collect();
        let mut parser = Parser::new();
        parser.push(first.as_bytes());
        let id: EventId = parser.last_event_id().parse().unwrap();
        let mut wire = Wire::new(channel.subscribe(id));
        let all: String = (0..4).map(|n| frame(ids[n], n)).collect();
        assert_eq!(wire.all_at_once().await, format!("{PRELUDE}{all}"));
    }

    #[tokio::test(start_paused = true)]
    async fn rules_86_and_89_every_id_that_is_gone_is_a_gap_of_exact_size() {
        let (channel, ids) = numbers(10);
        let retained: String = (6..10).map(|n| frame(ids[n], n)).collect();
        for seen in 0..6 {
            let after = if seen == 0 {
                start_of(&channel)
            } else {
                ids[seen - 1]
            };
            let missed = Some(6 - seen as u64);
            let subscription = channel.subscribe(after);
            let reason = GapReason::Evicted;
            assert_eq!(
                subscription.resumption(),
                Resumption::Gap { reason, missed }
            );
            let mut wire = Wire::new(subscription);
            let gap = gap("evicted", missed, Some(ids[6]));
            assert_eq!(
                wire.all_at_once().await,
                format!("{PRELUDE}{gap}{retained}"),
                "after {seen}"
            );
        }
        // The event before the oldest retained one is the last from which a resumption is exact.
        let mut wire = Wire::new(channel.subscribe(ids[5]));
        assert_eq!(wire.all_at_once().await, format!("{PRELUDE}{retained}"));
    }

    #[tokio::test(start_paused = true)]
    async fn rules_86_and_87_ids_that_are_not_of_this_channel_are_a_gap_of_unknown_size() {
        let (channel, ids) = numbers(3);
        let (other, _) = numbers(3);
        let retained: String = (0..3).map(|n| frame(ids[n], n)).collect();
        let newest = channel.newest();
        for (last, reason, text) in [
            (other.newest().into(), GapReason::Restarted, "restarted"),
            (EventId::new(0, 1).into(), GapReason::Restarted, "restarted"),
            (
                EventId::new(newest.epoch(), newest.sequence() + 1).into(),
                GapReason::Unknown,
                "unknown",
            ),
            (header("x"), GapReason::Unknown, "unknown"),
            (header("2"), GapReason::Unknown, "unknown"),
            (header("2<script>"), GapReason::Unknown, "unknown"),
        ] {
            let subscription = channel.subscribe(last);
            let missed = None;
            assert_eq!(
                subscription.resumption(),
                Resumption::Gap { reason, missed }
            );
            let mut wire = Wire::new(subscription);
            let gap = gap(text, None, Some(ids[0]));
            assert_eq!(
                wire.all_at_once().await,
                format!("{PRELUDE}{gap}{retained}")
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rule_86_a_gap_on_an_empty_channel_leaves_the_client_with_an_id() {
        let (channel, _) = numbers(0);
        let mut wire = Wire::new(channel.subscribe(header("x")));
        let gap = gap("unknown", None, None);
        let checkpoint = checkpoint(start_of(&channel));
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{gap}{checkpoint}")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rule_86_a_gap_may_be_followed_by_live_alone() {
        let (channel, ids) = numbers(10);
        let subscription = channel.subscribe(ids[0]).on_gap(OnGap::Live);
        let mut wire = Wire::new(subscription);
        let gap = gap("evicted", Some(9), None);
        let checkpoint = checkpoint(ids[9]);
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{gap}{checkpoint}")
        );
        let id = channel.publish(&10).unwrap().id().unwrap();
        assert_eq!(wire.at_once().await.unwrap(), frame(id, 10));
        // Without a gap, it changes nothing.
        let mut wire = Wire::new(channel.subscribe(ids[9]).on_gap(OnGap::Live));
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{}", frame(id, 10))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_everything_is_told_what_is_gone() {
        let (channel, ids) = numbers(10);
        for on_gap in [OnGap::Snapshot, OnGap::Replay, OnGap::Live] {
            let oldest = channel.subscribe(LastEventId::Absent).start(Start::Oldest);
            let all = Wire::new(oldest.on_gap(on_gap)).all_at_once().await;
            let told = gap("truncated", Some(6), Some(ids[6]));
            let replay: String = (6..10).map(|n| frame(ids[n], n)).collect();
            assert_eq!(all, format!("{PRELUDE}{told}{replay}"), "{on_gap:?}");
        }
        assert_eq!(channel.stats().gaps.truncated, 3);
        let (channel, _) = numbers(4);
        let oldest = channel.subscribe(LastEventId::Absent).start(Start::Oldest);
        let all = Wire::new(oldest).all_at_once().await;
        assert!(!all.contains("gap"), "{all}");
        // Also if no event follows it.
        let empty = Channel::<u32>::builder().capacity(0).build();
        empty.publish(&1).unwrap();
        empty.close(None).unwrap();
        let oldest = empty.subscribe(LastEventId::Absent).start(Start::Oldest);
        let told = gap("truncated", Some(1), None) + &checkpoint(empty.newest());
        let mut wire = Wire::new(oldest);
        assert_eq!(wire.all_at_once().await, format!("{PRELUDE}{told}"));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_given_from_before_a_client_was_let_in() {
        let (channel, ids) = numbers(10);
        let start = EventId::new(ids[0].epoch(), 0);
        let foreign = EventId::new(1, 1);
        for (last, on_gap, begin) in [
            (LastEventId::Absent, OnGap::Replay, Start::Oldest),
            (LastEventId::Absent, OnGap::Replay, Start::Newest(9)),
            (LastEventId::Known(start), OnGap::Replay, Start::Live),
            (LastEventId::Known(ids[6]), OnGap::Replay, Start::Live),
            (LastEventId::Known(foreign), OnGap::Replay, Start::Live),
            (header("x"), OnGap::Snapshot, Start::Live),
        ] {
            let bounded = channel
                .subscribe(last.clone())
                .start(begin)
                .on_gap(on_gap)
                .not_before(ids[8]);
            let all = Wire::new(bounded).all_at_once().await;
            let events: Vec<_> = crate::wire::messages(&all)
                .into_iter()
                .filter(|message| message.event == "message")
                .map(|message| message.data)
                .collect();
            assert_eq!(events, ["9"], "{last:?}: {all}");
        }
        // Missing events before that id are no gap for this client.
        let oldest = channel.subscribe(LastEventId::Absent).start(Start::Oldest);
        let all = Wire::new(oldest.not_before(ids[7])).all_at_once().await;
        assert!(!all.contains("gap"), "{all}");
        let oldest = channel.subscribe(LastEventId::Absent).start(Start::Oldest);
        let all = Wire::new(oldest.not_before(ids[2])).all_at_once().await;
        let told = gap("truncated", Some(3), Some(ids[6]));
        assert!(all.starts_with(&format!("{PRELUDE}{told}")), "{all}");
        // A client that has seen more resumes after its own id, and an id of an earlier epoch
        // excludes nothing.
        let later = channel.subscribe(ids[9]).not_before(ids[8]);
        assert_eq!(later.resumption(), Resumption::Exact { pending: 0 });
        let earlier = channel.subscribe(ids[6]).not_before(foreign);
        assert_eq!(earlier.resumption(), Resumption::Exact { pending: 3 });
        let bounded = channel.subscribe(start).not_before(ids[8]);
        assert_eq!(bounded.resumption(), Resumption::Exact { pending: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn law_4_the_first_chunk_has_a_place_however_large_what_follows() {
        let channel = Channel::<str>::new();
        let subscription = channel.subscribe(LastEventId::Absent);
        let before = channel.newest();
        channel.publish(&"x".repeat(5000)).unwrap();
        let mut wire = Wire::new(subscription);
        let first = wire.chunk().await.unwrap();
        assert_eq!(first, format!("{PRELUDE}{}", checkpoint(before)));
        assert!(wire.chunk().await.unwrap().len() > 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_channel_without_checkpoints_causes_no_reconnect_loop() {
        let channel: Channel<u32> = Channel::builder().checkpoint_name(None).build();
        channel.close(None).unwrap();
        let response = channel.subscribe(header("x")).into_response();
        assert_eq!(response.status(), axum::http::StatusCode::NO_CONTENT);
        let response = channel.subscribe(EventId::new(1, 1)).into_response();
        assert_eq!(response.status(), axum::http::StatusCode::NO_CONTENT);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_85_a_client_without_an_id_starts_where_it_is_told() {
        let (channel, ids) = numbers(10);
        let frames = |from: usize| -> String { (from..10).map(|n| frame(ids[n], n)).collect() };
        for (start, expected) in [
            (Start::Live, checkpoint(ids[9])),
            (
                Start::Oldest,
                gap("truncated", Some(6), Some(ids[6])) + &frames(6),
            ),
            (Start::Newest(0), checkpoint(ids[9])),
            (Start::Newest(1), frames(9)),
            (Start::Newest(4), frames(6)),
            (Start::Newest(100), frames(6)),
            (Start::Newest(u64::MAX), frames(6)),
        ] {
            let mut wire = Wire::new(channel.subscribe(LastEventId::Absent).start(start));
            assert_eq!(
                wire.all_at_once().await,
                format!("{PRELUDE}{expected}"),
                "{start:?}"
            );
            // A client with an id resumes after it.
            let mut wire = Wire::new(channel.subscribe(ids[8]).start(start));
            assert_eq!(wire.all_at_once().await, format!("{PRELUDE}{}", frames(9)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn law_2_there_is_no_seam_between_the_call_and_the_first_poll() {
        let (channel, ids) = numbers(2);
        let fresh = channel.subscribe(LastEventId::Absent);
        let resumed = channel.subscribe(ids[0]);
        let more: Vec<_> = (2..4)
            .map(|n| channel.publish(&n).unwrap().id().unwrap())
            .collect();
        let live: String = (2..4).map(|n| frame(more[n - 2], n)).collect();
        assert_eq!(
            Wire::new(fresh).all_at_once().await,
            // Law 4: an id first, in case it is cut off within the first event.
            format!("{PRELUDE}{}{live}", checkpoint(ids[1]))
        );
        assert_eq!(
            Wire::new(resumed).all_at_once().await,
            format!("{PRELUDE}{}{live}", frame(ids[1], 1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn law_2_what_is_evicted_between_the_call_and_the_first_poll_is_said() {
        let (channel, ids) = numbers(2);
        let fresh = channel.subscribe(LastEventId::Absent);
        let more: Vec<_> = (2..12)
            .map(|n| channel.publish(&n).unwrap().id().unwrap())
            .collect();
        let gap = gap("evicted", Some(6), Some(more[6]));
        let retained: String = (6..10).map(|n| frame(more[n], n + 2)).collect();
        assert_eq!(
            Wire::new(fresh).all_at_once().await,
            format!("{PRELUDE}{}{gap}{retained}", checkpoint(ids[1]))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rule_92_capacity_0_has_no_replay_and_goes_on_live() {
        let channel = Channel::<u32>::builder().capacity(0).build();
        let ids: Vec<_> = (0..3)
            .map(|n| channel.publish(&n).unwrap().id().unwrap())
            .collect();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        let expected = format!("{PRELUDE}{}", checkpoint(ids[2]));
        assert_eq!(wire.all_at_once().await, expected);
        let live: Vec<_> = (3..6)
            .map(|n| channel.publish(&n).unwrap().id().unwrap())
            .collect();
        let frames: String = (3..6).map(|n| frame(live[n - 3], n)).collect();
        assert_eq!(wire.all_at_once().await, frames);

        // A client that has seen the newest event misses nothing; all others get the number of
        // missing events.
        let mut wire = Wire::new(channel.subscribe(live[2]));
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{}", checkpoint(live[2]))
        );
        let mut wire = Wire::new(channel.subscribe(ids[0]));
        let gap = gap("evicted", Some(5), None);
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{gap}{}", checkpoint(live[2]))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rule_88_replayed_bytes_are_the_bytes_that_were_live() {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Value {
            Said(String),
        }
        let plain = Channel::<Value>::builder()
            .capacity(100)
            .retry(secs(1))
            .named()
            .build();
        let start = plain.newest();
        let mut live = Wire::new(plain.subscribe(start));
        let prelude = live.all_at_once().await;
        assert_eq!(
            prelude,
            format!("{PRELUDE}retry: 1000\n{}", checkpoint(start))
        );

        let value = Value::Said("a\nb".to_owned());
        plain.publish_event(&Event::json(&value).unwrap()).unwrap();
        plain.publish(&value).unwrap();
        let mut bytes = live.all_at_once().await;
        // After a silence: heartbeats are not stored.
        let (heartbeat, _) = live.timed().await;
        assert_eq!(heartbeat.unwrap(), ":\n");
        for event in [
            Event::text("a\r\nb\n").unwrap(),
            Event::empty().name("x").unwrap(),
            Event::json(&1).unwrap().with_comment("why").unwrap(),
        ] {
            plain.publish_event(&event).unwrap();
        }
        bytes += &live.all_at_once().await;

        let mut replay = Wire::new(plain.subscribe(start));
        assert_eq!(
            replay.all_at_once().await,
            format!("{PRELUDE}retry: 1000\n{bytes}")
        );
        let ids: Vec<_> = (1..=5).map(|n| EventId::new(start.epoch(), n)).collect();
        assert_eq!(
            bytes,
            format!(
                "id: {}\ndata: {{\"said\":\"a\\nb\"}}\n\n\
                 event: said\nid: {}\ndata: \"a\\nb\"\n\n\
                 id: {}\ndata: a\ndata: b\ndata: \n\n\
                 event: x\nid: {}\ndata: \n\n\
                 : why\nid: {}\ndata: 1\n\n",
                ids[0], ids[1], ids[2], ids[3], ids[4]
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rules_19_and_84_a_long_replay_comes_in_chunks_of_whole_events() {
        let channel = Channel::<String>::builder().capacity(5000).build();
        let start = channel.newest();
        for n in 0..5000 {
            channel
                .publish(&format!("{n} {}", "x".repeat(n % 300)))
                .unwrap();
        }
        let mut wire = Wire::new(channel.subscribe(start));
        assert_eq!(wire.at_once().await.unwrap(), PRELUDE);
        let (mut parser, mut seen) = (Parser::new(), 0);
        while seen < 5000 {
            let chunk = wire.at_once().await.unwrap();
            assert!(chunk.ends_with("\n\n"));
            for item in parser.push(chunk.as_bytes()) {
                let Item::Message(message) = item else {
                    panic!("{item:?}");
                };
                assert!(message.data.starts_with(&format!("\"{seen} ")));
                seen += 1;
            }
        }
        assert_eq!(parser.last_event_id(), channel.newest().to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn the_names_of_the_channel_s_own_events_can_be_chosen() {
        let channel = Channel::<u32>::builder()
            .capacity(1)
            .gap_name(event_name!("lost"))
            .checkpoint_name(event_name!("here"))
            .build();
        let mut wire = Wire::new(channel.subscribe(header("x")));
        assert_eq!(
            wire.all_at_once().await,
            format!(
                "{PRELUDE}{}{}",
                gap("unknown", None, None).replace("event: gap", "event: lost"),
                checkpoint(start_of(&channel)).replace("checkpoint", "here"),
            )
        );
        let channel = Channel::<u32>::builder().checkpoint_name(None).build();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        assert_eq!(wire.all_at_once().await, PRELUDE);
    }
}

mod publishing {
    use super::*;

    #[test]
    fn ids_are_dense_and_grow() {
        let (channel, ids) = numbers(3);
        let start = start_of(&channel);
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(*id, EventId::new(start.epoch(), n as u64 + 1));
        }
        assert_eq!(channel.newest(), ids[2]);
    }

    #[test]
    fn rule_87_two_channels_are_two_lives() {
        let (a, _) = numbers(0);
        let (b, _) = numbers(0);
        assert_ne!(a.newest().epoch(), b.newest().epoch());
    }

    #[test]
    fn publish_event_refuses_what_only_the_channel_may_say() {
        let (channel, ids) = numbers(1);
        let event = || Event::text("x").unwrap();
        for (event, why) in [
            (event().id("7").unwrap(), "it has an id"),
            (event().clear_id(), "it has an id"),
            (event().retry(secs(1)), "it has a reconnection time"),
            (Event::comment("c").unwrap(), "it has no data"),
            (event().name("gap").unwrap(), "its name is reserved"),
            (event().name("checkpoint").unwrap(), "its name is reserved"),
            (event().name("snapshot").unwrap(), "its name is reserved"),
        ] {
            let error = channel.publish_event(&event).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotPublishable);
            let start = format!("this event cannot be published to a channel: {why}");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
        // Law 1: a refused publish draws no id.
        assert_eq!(channel.newest(), ids[0]);

        let renamed = Channel::<u32>::builder()
            .gap_name(event_name!("lost"))
            .checkpoint_name(None)
            .build();
        let named = |name: &str| event().name(name).unwrap();
        renamed.publish_event(&named("gap")).unwrap();
        renamed.publish_event(&named("checkpoint")).unwrap();
        renamed.publish_event(&named("lost")).unwrap_err();
        renamed.publish_event(&named("snapshot")).unwrap_err();
        // On a shared connection, it could be mistaken for another channel's snapshot.
        renamed.set_snapshot_name(None).unwrap();
        renamed.publish_event(&named("snapshot")).unwrap_err();
    }

    #[test]
    fn law_11_a_channel_s_own_events_have_different_names() {
        let builder = || Channel::<u32>::builder().gap_name(event_name!("lost"));
        let beat = Event::empty().with_name(event_name!("lost"));
        for (channel, names) in [
            (
                builder().checkpoint_name(event_name!("lost")).build(),
                ["gap", "checkpoint"],
            ),
            (
                builder().snapshot_name(event_name!("lost")).build(),
                ["gap", "snapshot"],
            ),
            (
                builder()
                    .heartbeat(Heartbeat::default().with_event(&beat).unwrap())
                    .build(),
                ["gap", "heartbeat"],
            ),
        ] {
            for error in [
                channel.publish(&1).unwrap_err(),
                channel
                    .publish_event(&Event::text("x").unwrap())
                    .unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::InvalidName);
                let [one, other] = names;
                let message =
                    format!(r#"the {one} event and the {other} event are both named "lost""#);
                assert_eq!(error.to_string(), message);
            }
        }
        builder()
            .checkpoint_name(event_name!("gap"))
            .snapshot_name(None)
            .build()
            .publish(&1)
            .unwrap();
    }

    #[test]
    fn a_snapshot_s_name_is_set_once_and_is_no_other_event_s() {
        let (channel, _) = numbers(0);
        for name in ["gap", "checkpoint"] {
            let name = axum_sse::EventName::new(name).unwrap();
            let error = channel.set_snapshot_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName);
            assert!(error.to_string().contains("are both named"), "{error}");
        }
        channel.set_snapshot_name(event_name!("state")).unwrap();
        channel.set_snapshot_name(event_name!("state")).unwrap();
        assert!(channel.set_snapshot_name(event_name!("other")).is_err());
        assert!(channel.set_snapshot_name(None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn close_on_drop_ends_the_streams_with_the_last_handle() {
        let channel = Channel::<u32>::builder().close_on_drop().build();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        let other = channel.clone();
        drop(channel);
        let id = other.publish(&1).unwrap().id().unwrap();
        assert_eq!(wire.all_at_once().await, frame(id, 1));
        let id = other.publish(&2).unwrap().id().unwrap();
        drop(other);
        assert_eq!(wire.at_once().await, Some(frame(id, 2)));
        assert_eq!(wire.at_once().await, None);

        // Without this setting, the stream does not end.
        let channel = Channel::<u32>::new();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        drop(channel);
        assert_eq!(wire.chunk().await.unwrap(), ":\n");
    }

    struct Broken;

    impl Serialize for Broken {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(None)?;
            ser::SerializeSeq::serialize_element(&mut list, "half")?;
            Err(ser::Error::custom("broken"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rule_30_a_value_that_cannot_be_serialised_leaves_no_trace() {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Value {
            Good(u8),
            Bad(Broken),
        }
        let channel = Channel::<Value>::new();
        let start = channel.newest();
        let error = channel.publish(&Value::Bad(Broken)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize);
        assert_eq!(channel.newest(), start);
        let id = channel.publish(&Value::Good(1)).unwrap().id().unwrap();
        assert_eq!(id.sequence(), 1);
        let mut wire = Wire::new(channel.subscribe(start));
        assert_eq!(
            wire.all_at_once().await,
            format!("{PRELUDE}{}", frame(id, 1))
        );
    }

    #[test]
    fn law_6_an_event_larger_than_its_channel_is_refused() {
        let channel = Channel::<str>::builder().bytes(200).build();
        let start = channel.newest();
        let error = channel.publish(&"x".repeat(200)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(channel.newest(), start);
        channel.publish("x").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_handles_of_a_named_channel_name_their_events() {
        #[derive(Serialize)]
        enum Value {
            Said {
                text: &'static str,
            },
            #[serde(rename = "error")]
            Error,
        }
        let named = Channel::<Value>::builder().named().build();
        let start = named.newest();
        let first = named.clone().publish(&Value::Said { text: "hi" }).unwrap();
        let first = first.id().unwrap();
        let refused = named.publish(&Value::Error).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidName);
        let plain = Event::json(&Value::Error).unwrap();
        let second = named.publish_event(&plain).unwrap().id().unwrap();
        assert_eq!(second.sequence(), first.sequence() + 1);
        assert_eq!(
            Wire::new(named.subscribe(start)).all_at_once().await,
            format!(
                "{PRELUDE}event: said\nid: {first}\ndata: {{\"text\":\"hi\"}}\n\n{}",
                frame(second, "\"error\"")
            )
            .replace("said", "Said")
        );

        let numbers = Channel::<u8>::builder().named().build();
        assert_eq!(
            numbers.publish(&1).unwrap_err().kind(),
            ErrorKind::NotAVariant
        );
    }

    #[test]
    fn law_11_no_variant_forges_the_channel_s_own_events() {
        #[derive(Serialize)]
        enum Value {
            #[serde(rename = "lost")]
            Lost,
            #[serde(rename = "checkpoint")]
            Checkpoint,
            #[serde(rename = "snapshot")]
            Snapshot,
            #[serde(rename = "state")]
            State,
            #[serde(rename = "open")]
            Open,
            #[serde(rename = "error")]
            Error,
        }
        let named = Channel::<Value>::builder()
            .gap_name(event_name!("lost"))
            .named()
            .build();
        for value in [
            Value::Lost,
            Value::Checkpoint,
            Value::Snapshot,
            Value::Open,
            Value::Error,
        ] {
            assert_eq!(
                named.publish(&value).unwrap_err().kind(),
                ErrorKind::InvalidName
            );
        }
        named.set_snapshot_name(event_name!("state")).unwrap();
        assert!(named.publish(&Value::State).is_err());
        assert!(named.publish(&Value::Snapshot).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn rule_28_and_29_values_of_any_shape_stay_in_their_field() {
        let channel = Channel::<Box<serde_json::value::RawValue>>::new();
        let start = channel.newest();
        let raw = serde_json::value::RawValue::from_string("[1,\r\n2]".to_owned()).unwrap();
        let id = channel.publish(&raw).unwrap().id().unwrap();
        assert_eq!(
            Wire::new(channel.subscribe(start)).all_at_once().await,
            format!("{PRELUDE}id: {id}\ndata: [1,\ndata: 2]\n\n")
        );
    }

    /// Publishes another value of its type while it is being serialized.
    struct Nested {
        channel: Channel<Nested>,
        depth: u8,
    }

    impl Serialize for Nested {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if let Some(depth) = self.depth.checked_sub(1) {
                let channel = self.channel.clone();
                let inner = Nested { channel, depth };
                self.channel.publish(&inner).unwrap();
            }
            serializer.collect_str(&format_args!("{}{}", self.depth, "x".repeat(100)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn law_8_a_value_may_publish_while_it_is_serialised() {
        let channel = Channel::<Nested>::new();
        let start = channel.newest();
        let depth = 3;
        let outer = Nested {
            channel: channel.clone(),
            depth,
        };
        let id = channel.publish(&outer).unwrap().id().unwrap();
        assert_eq!(id.sequence(), 4);
        let all = Wire::new(channel.subscribe(start)).all_at_once().await;
        let expected: String = (0..=3u8)
            .map(|depth| {
                let id = EventId::new(id.epoch(), u64::from(depth) + 1);
                frame(id, format_args!("\"{depth}{}\"", "x".repeat(100)))
            })
            .collect();
        assert_eq!(all, format!("{PRELUDE}{expected}"));
    }

    #[tokio::test(start_paused = true)]
    async fn forward_counts_and_stops_at_the_first_error() {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Value {
            Good(u8),
            Bad(Broken),
        }
        let channel = Channel::<u32>::new();
        assert_eq!(channel.forward(stream::empty()).await.unwrap(), 0);
        assert_eq!(channel.forward(stream::iter(0..1000)).await.unwrap(), 1000);
        assert_eq!(channel.newest().sequence(), 1000);

        let channel = Channel::<Value>::new();
        let mut polled = 0;
        let items = stream::iter(vec![
            Value::Good(1),
            Value::Good(2),
            Value::Bad(Broken),
            Value::Good(3),
        ])
        .inspect(|_| polled += 1);
        let error = channel.forward(items).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize);
        assert_eq!((channel.newest().sequence(), polled), (2, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn forward_lets_others_have_their_turn() {
        // One task, so nothing else runs unless `forward` yields.
        let channel = Channel::<u32>::builder().capacity(100_000).build();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        let mut endless = Box::pin(channel.forward(stream::iter(0..)));
        tokio::select! {
            biased;
            _ = &mut endless => panic!("it ended"),
            chunk = wire.chunk() => assert!(chunk.unwrap().contains("data: 0\n")),
        }
        // Dropping the future cancels it.
        drop(endless);
        let newest = channel.newest();
        sleep(secs(1)).await;
        assert_eq!(channel.newest(), newest);
    }
}

mod subscribers {
    use super::*;

    fn tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[tokio::test(start_paused = true)]
    async fn rule_56_a_subscription_is_inert_until_it_is_polled() {
        let (channel, _) = numbers(3);
        let response = channel.subscribe(LastEventId::Absent).into_response();
        sleep(secs(60)).await;
        assert_eq!(tasks(), 0);
        drop(response);

        let app = {
            let channel = channel.clone();
            let handler = async move |last: LastEventId| channel.subscribe(last);
            Router::new()
                .route("/", get(handler))
                .layer(SseLayer::new())
        };
        let head = Request::builder().method(Method::HEAD).uri("/");
        let head = head.body(Body::empty()).unwrap();
        let response = app.oneshot(head).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(Wire::new(response).at_once().await, None);
        assert_eq!(tasks(), 0);

        // Check that the test would notice a task.
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.at_once().await;
        assert_eq!(tasks(), 1);
        drop(wire);
        sleep(secs(60)).await;
        assert_eq!(tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn law_10_all_of_them_are_woken_and_get_the_same_bytes() {
        let (channel, _) = numbers(0);
        let readers: Vec<_> = (0..700)
            .map(|_| {
                let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
                tokio::spawn(async move {
                    let mut all = String::new();
                    while !all.contains("data: 2\n\n") {
                        all += &wire.chunk().await.unwrap();
                    }
                    (all, Instant::now())
                })
            })
            .collect();
        sleep(secs(1)).await;
        let published = Instant::now();
        let ids: Vec<_> = (0..3)
            .map(|n| channel.publish(&n).unwrap().id().unwrap())
            .collect();
        let mut expected = format!("{PRELUDE}{}", checkpoint(start_of(&channel)));
        expected.extend((0..3).map(|n| frame(ids[n], n)));
        for reader in readers {
            let (all, at) = reader.await.unwrap();
            assert_eq!(all, expected);
            assert_eq!(at, published);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_leave_do_not_hold_up_the_others() {
        let (channel, _) = numbers(0);
        let mut wires: Vec<_> = (0..10)
            .map(|_| Wire::new(channel.subscribe(LastEventId::Absent)))
            .collect();
        for wire in &mut wires {
            wire.all_at_once().await;
        }
        for n in 0..9 {
            drop(wires.remove(wires.len() / 2));
            let id = channel.publish(&n).unwrap().id().unwrap();
            for wire in &mut wires {
                assert_eq!(wire.at_once().await.unwrap(), frame(id, n));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_told_what_it_missed() {
        let (channel, _) = numbers(0);
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(channel.publish(&n).unwrap().id().unwrap());
            // Other readers would have read by now; the log waits three seconds for this one.
            sleep(millis(400)).await;
        }
        let all = wire.all_at_once().await;
        let retained: String = all.split_inclusive("\n\n").skip(1).collect();
        let first = 20 - retained.matches("id: ").count();
        assert!(first >= 10, "more is kept than a resume could reach");
        let gap = gap("lagged", Some(first as u64), Some(ids[first]));
        let frames: String = (first..20).map(|n| frame(ids[n], n)).collect();
        assert_eq!(all, format!("{gap}{frames}"));
    }

    #[test]
    fn law_12_publishing_works_from_any_thread_and_without_a_runtime() {
        static CHANNEL: OnceLock<Channel<u32>> = OnceLock::new();
        let channel = CHANNEL.get_or_init(|| {
            Channel::builder()
                .capacity(10_000)
                .heartbeat(Heartbeat::OFF)
                .build()
        });
        channel.publish(&0).unwrap();
        // Two runtimes, one after the other: the wake task ends with the first.
        for round in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
                let first = format!("{PRELUDE}{}", checkpoint(channel.newest()));
                assert_eq!(wire.chunk().await.unwrap(), first);
                let before = channel.newest().sequence();
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        thread::spawn(move || {
                            for n in 0..500 {
                                channel.publish(&n).unwrap();
                            }
                        })
                    })
                    .collect();
                let (mut parser, mut seen) = (Parser::new(), before);
                while seen < before + 2000 {
                    for item in parser.push(wire.chunk().await.unwrap().as_bytes()) {
                        let Item::Message(message) = item else {
                            panic!("{item:?} in round {round}");
                        };
                        let id: EventId = message.last_event_id.parse().unwrap();
                        seen += 1;
                        assert_eq!(id.sequence(), seen, "round {round}");
                    }
                }
                for thread in threads {
                    thread.join().unwrap();
                }
            });
        }
    }

    #[test]
    fn law_12_a_subscription_survives_the_runtime_that_drove_it() {
        let channel = Arc::new(Channel::<u32>::builder().heartbeat(Heartbeat::OFF).build());
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        let first = runtime();
        first.block_on(wire.chunk());
        drop(first);
        let second = runtime();
        let publisher = channel.clone();
        second.block_on(async {
            let reading = tokio::spawn(async move { wire.chunk().await });
            tokio::task::yield_now().await;
            let id = thread::spawn(move || publisher.publish(&1).unwrap().id().unwrap())
                .join()
                .unwrap();
            assert_eq!(reading.await.unwrap().unwrap(), frame(id, 1));
        });
    }
}

mod heartbeat {
    use super::*;

    /// Never early, and at most a sixteenth late.
    #[track_caller]
    fn assert_on_time(actual: Duration, interval: Duration) {
        let latest = interval + interval / 16 + millis(1);
        assert!(
            actual >= interval && actual <= latest,
            "{actual:?} for {interval:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rules_41_and_42_wherever_a_connection_begins() {
        for interval in [millis(100), secs(5), secs(15), secs(3600)] {
            let channel = Channel::<u32>::builder()
                .heartbeat(Heartbeat::every(interval))
                .build();
            for step in 0..40u32 {
                let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
                wire.all_at_once().await;
                let mut written = Instant::now() - millis(1);
                for _ in 0..3 {
                    assert_eq!(wire.chunk().await.unwrap(), ":\n");
                    assert_on_time(written.elapsed(), interval);
                    written = Instant::now();
                }
                sleep(interval * step / 37).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_the_interval_begins_anew_with_every_write() {
        let (channel, _) = numbers(0);
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        for n in 0..50 {
            sleep(secs(14)).await;
            let id = channel.publish(&n).unwrap().id().unwrap();
            assert_eq!(wire.at_once().await.unwrap(), frame(id, n));
        }
        let (chunk, time) = wire.timed().await;
        assert_eq!(chunk.unwrap(), ":\n");
        assert_on_time(time, secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_not_early_on_a_channel_that_was_idle_for_long() {
        let (channel, _) = numbers(0);
        for idle in [60, 3600, 86_400] {
            sleep(secs(idle)).await;
            let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
            // Law 4: the first bytes contain the client's first id.
            let first = wire.at_once().await.unwrap();
            assert!(first.starts_with(&format!("{PRELUDE}event: checkpoint\nid: ")));
            let (chunk, time) = wire.timed().await;
            assert_eq!(chunk.unwrap(), ":\n");
            assert_on_time(time, secs(15));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rule_41_not_right_behind_an_event_that_took_its_place() {
        let (channel, _) = numbers(0);
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        // The client does not read when a heartbeat becomes due.
        sleep(secs(20)).await;
        let id = channel.publish(&1).unwrap().id().unwrap();
        assert_eq!(wire.at_once().await.unwrap(), frame(id, 1));
        let (chunk, time) = wire.timed().await;
        assert_eq!(chunk.unwrap(), ":\n");
        assert_on_time(time, secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn rule_45_one_may_be_an_event() {
        let ping = Event::empty().name("ping").unwrap();
        let heartbeat = Heartbeat::every(secs(5)).with_event(&ping).unwrap();
        let channel = Channel::<u32>::builder().heartbeat(heartbeat).build();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        assert_eq!(wire.chunk().await.unwrap(), "event: ping\ndata: \n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn they_can_be_off() {
        let channel = Channel::<u32>::builder().heartbeat(Heartbeat::OFF).build();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        wire.all_at_once().await;
        wire.silent_for(secs(86_400)).await;
        let id = channel.publish(&1).unwrap().id().unwrap();
        assert_eq!(wire.at_once().await.unwrap(), frame(id, 1));
    }
}
