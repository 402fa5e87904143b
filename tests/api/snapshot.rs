//! Snapshots and state channels: the state first, then every event after it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::IntoResponse};
use axum_sse::{
    BoxError, Channel, ErrorKind, Event, EventId, Hub, LastEventId, OnGap, OnLag, Start,
    StateChannel, event_name, testing::Message,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::wire::{Wire, assert_time, messages, millis, secs};

type Counts = StateChannel<Vec<u32>, u32>;

fn counts(capacity: usize) -> Counts {
    let channel = Channel::builder().capacity(capacity).build();
    StateChannel::on(channel, Vec::new(), |all: &mut Vec<u32>, n: &u32| {
        all.push(*n);
    })
    .unwrap()
}

/// Acts as a page: returns its state after these bytes.
fn state(bytes: &str) -> (Vec<u32>, Vec<String>) {
    let mut state = Vec::new();
    let mut kinds = Vec::new();
    for message in messages(bytes) {
        match message.event.as_str() {
            "snapshot" => state = serde_json::from_str(&message.data).unwrap(),
            "message" => state.push(message.data.parse().unwrap()),
            _ => {}
        }
        kinds.push(message.event);
    }
    (state, kinds)
}

#[tokio::test(start_paused = true)]
async fn a_new_client_gets_the_state_and_then_every_event() {
    let counts = counts(3);
    for n in 0..10 {
        counts.publish(&n).unwrap();
    }
    let mut wire = Wire::new(counts.subscribe(LastEventId::Absent));
    let mut bytes = wire.all_at_once().await;
    let id = counts.channel().newest();
    assert_eq!(
        bytes,
        format!(":\nevent: snapshot\nid: {id}\ndata: [0,1,2,3,4,5,6,7,8,9]\n\n")
    );
    counts.publish(&10).unwrap();
    bytes += &wire.all_at_once().await;
    assert_eq!(state(&bytes).0, (0..=10).collect::<Vec<_>>());
    assert_eq!(counts.read(Vec::len).unwrap(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_can_resume_gets_no_snapshot_and_one_with_a_gap_does() {
    let counts = counts(3);
    let ids: Vec<_> = (0..10)
        .map(|n| counts.publish(&n).unwrap().id().unwrap())
        .collect();
    let resumed = Wire::new(counts.subscribe(ids[7])).all_at_once().await;
    assert_eq!(state(&resumed).1, ["message", "message"]);
    let gap = Wire::new(counts.subscribe(ids[1])).all_at_once().await;
    let (all, kinds) = state(&gap);
    assert_eq!(
        (all, kinds),
        (
            (0..10).collect(),
            vec!["gap".to_owned(), "snapshot".to_owned()]
        )
    );
    assert!(gap.contains(&format!("\"oldest\":\"{}\"", ids[9])), "{gap}");
    let replay = counts.subscribe(ids[1]).on_gap(OnGap::Replay);
    let kinds = state(&Wire::new(replay).all_at_once().await).1;
    assert_eq!(kinds, ["gap", "message", "message", "message"]);
    let live = counts.subscribe(LastEventId::Absent).start(Start::Live);
    assert_eq!(
        state(&Wire::new(live).all_at_once().await).1,
        ["checkpoint"]
    );
}

#[tokio::test(start_paused = true)]
async fn on_several_channels_a_snapshot_is_in_order() {
    let hub = Hub::new();
    let start = hub.newest();
    let other: Channel<u32> = hub.channel("other").unwrap();
    let sum = StateChannel::on(hub.channel("sum").unwrap(), 0u32, |sum, n: &u32| {
        *sum += n;
    })
    .unwrap();
    let first = other.publish(&100).unwrap().id().unwrap();
    sum.publish(&1).unwrap();
    let last = other.publish(&200).unwrap().id().unwrap();
    // An unknown id: everything of both channels, in one order, and then an id for all of it.
    let foreign = EventId::new(1, 1);
    let mut wire = Wire::new(hub.subscribe(["other", "sum"], foreign));
    let all = wire.all_at_once().await;
    let story: Vec<_> = messages(&all)
        .into_iter()
        .filter(|message| message.event != "gap")
        .map(|message| (message.event, message.data, message.last_event_id))
        .collect();
    let said =
        |event: &str, data: &str, id: &str| (event.to_owned(), data.to_owned(), id.to_owned());
    // The other channel does not wait for the snapshot, and its ids show that one is owed.
    assert_eq!(
        story,
        [
            said("message", "100", &format!("{first}.")),
            said("message", "200", &format!("{last}.")),
            said("snapshot", "1", &format!("{last}.")),
            said("checkpoint", "", &last.to_string()),
        ]
    );
    let next = sum.publish(&2).unwrap().id().unwrap();
    assert_eq!(wire.all_at_once().await, format!("id: {next}\ndata: 2\n\n"));
    // The id is known and whole: no snapshot.
    let all = Wire::new(hub.subscribe(["other", "sum"], start))
        .all_at_once()
        .await;
    assert!(!all.contains("event: snapshot"));
}

#[tokio::test(start_paused = true)]
async fn law_4_no_id_stands_for_a_state_that_was_not_sent() {
    let hub = Hub::new();
    let x = StateChannel::on(hub.channel("x").unwrap(), Vec::new(), |all, n: &u32| {
        all.push(*n);
    })
    .unwrap();
    let y = StateChannel::on(hub.channel("y").unwrap(), Vec::new(), |all, n: &u32| {
        all.push(*n);
    })
    .unwrap();
    x.publish(&1).unwrap();
    y.publish(&2).unwrap();
    x.publish(&3).unwrap();
    let all = Wire::new(hub.subscribe(["x", "y"], LastEventId::Absent))
        .all_at_once()
        .await;
    // Wherever the stream is cut, the client has both states, no id, or an id that shows what it
    // is owed.
    for cut in 0..all.len() {
        let seen = messages(&all[..cut]);
        let snapshots = seen
            .iter()
            .filter(|message| message.event == "snapshot")
            .count();
        let id = seen.last().map_or("", |message| &message.last_event_id);
        let owed = id.is_empty() || id.ends_with('.');
        assert!(owed || snapshots == 2, "{cut} of {all}");
    }
    assert_eq!(messages(&all).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_flight_serves_all_who_wait() {
    let channel: Channel<u32> = Channel::new();
    let id = channel.publish(&1).unwrap().id().unwrap();
    let made = Arc::new(AtomicU32::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let (count, wait) = (made.clone(), gate.clone());
    channel
        .snapshot(move || {
            let (count, wait) = (count.clone(), wait.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                wait.acquire().await.unwrap().forget();
                Ok::<_, Infallible>((id, "state"))
            }
        })
        .unwrap();
    let mut wires: Vec<_> = (0..50)
        .map(|_| Wire::new(channel.subscribe(LastEventId::Absent)))
        .collect();
    for wire in &mut wires {
        assert_eq!(wire.all_at_once().await, ":\n");
    }
    channel.publish(&2).unwrap();
    gate.add_permits(1);
    for wire in &mut wires {
        let all = wire.all_at_once().await;
        assert!(
            all.starts_with(&format!(
                "event: snapshot\nid: {id}\ndata: \"state\"\n\nid: "
            )),
            "{all}"
        );
        assert_eq!(messages(&all).len(), 2);
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
    // It is reused as long as the events after it are retained and not too large.
    let publish_all = |count: u32| {
        for n in 0..count {
            channel.publish(&n).unwrap();
        }
    };
    for (more, expected) in [(0, 1), (511, 1), (1, 2)] {
        publish_all(more);
        gate.add_permits(expected - made.load(Ordering::SeqCst) as usize);
        let all = Wire::new(channel.subscribe(LastEventId::Absent))
            .all_at_once()
            .await;
        assert!(all.contains("event: snapshot"), "{all}");
        assert_eq!(
            made.load(Ordering::SeqCst) as usize,
            expected,
            "{more} more"
        );
    }
    let again = channel.snapshot(|| async { Ok::<_, Infallible>((EventId::new(0, 0), ())) });
    assert_eq!(again.unwrap_err().kind(), ErrorKind::HasSnapshot);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_always_too_old_ends_the_stream() {
    let channel: Channel<u32> = Channel::builder().capacity(1).build();
    let old = channel.publish(&0).unwrap().id().unwrap();
    for n in 1..5 {
        channel.publish(&n).unwrap();
    }
    channel
        .snapshot(move || async move { Ok::<_, Infallible>((old, "old")) })
        .unwrap();
    let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
    assert_eq!(wire.chunk().await.unwrap(), ":\n");
    assert!(wire.chunk().await.unwrap().starts_with("retry: "));
    assert_eq!(wire.chunk().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_fails_or_stands_nowhere_ends_the_stream() {
    for broken in [None, Some(EventId::new(1, 1))] {
        let channel: Channel<u32> = Channel::new();
        channel
            .snapshot(move || async move { broken.map(|id| (id, ())).ok_or("no database") })
            .unwrap();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        assert_eq!(wire.chunk().await.unwrap(), ":\n");
        assert!(wire.chunk().await.unwrap().starts_with("retry: "));
        assert_eq!(wire.chunk().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_id_of_its_own_a_snapshot_comes_at_least_once() {
    let channel: Channel<u32> = Channel::new();
    let before = channel.publish(&1).unwrap().id().unwrap();
    channel
        .snapshot_at_least_once(|| async {
            sleep(millis(5)).await;
            Ok::<_, Infallible>("state with 1 and 2")
        })
        .unwrap();
    let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
    assert_eq!(wire.chunk().await.unwrap(), ":\n");
    sleep(millis(1)).await;
    let during = channel.publish(&2).unwrap().id().unwrap();
    let first = wire.chunk().await.unwrap();
    assert!(
        first.starts_with(&format!("event: snapshot\nid: {before}\n")),
        "{first}"
    );
    assert!(
        first.ends_with(&format!("id: {during}\ndata: 2\n\n")),
        "{first}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_client_has_no_gap_however_small_the_log() {
    let counts = counts(0);
    let subscription = counts.subscribe(LastEventId::Absent);
    counts.publish(&1).unwrap();
    counts.publish(&2).unwrap();
    let all = Wire::new(subscription).all_at_once().await;
    assert_eq!(state(&all), (vec![1, 2], vec!["snapshot".to_owned()]));
}

#[test]
fn a_panic_of_a_reader_does_not_change_the_state() {
    let counts = counts(3);
    let clone = counts.clone();
    let reader = std::thread::spawn(move || clone.read(|all| all[7]));
    assert!(reader.join().is_err());
    counts.publish(&1).unwrap();
    assert_eq!(counts.read(Vec::clone).unwrap(), [1]);
    let refused = counts.update(|all| match all.is_empty() {
        true => Ok(2),
        false => Err(BoxError::from("not the first")),
    });
    assert_eq!(refused.unwrap_err().to_string(), "not the first");
}

#[test]
fn a_panic_while_applying_poisons_the_state_channel() {
    let unit = StateChannel::new((), |(), n: &u32| assert!(*n < 2, "broken"));
    unit.publish(&1).unwrap();
    let clone = unit.clone();
    assert!(
        std::thread::spawn(move || clone.publish(&2))
            .join()
            .is_err()
    );
    assert_eq!(unit.publish(&1).unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(unit.read(|()| ()).is_err());
}

/// A state that takes `time` to make, and how often it was made.
fn slow_state(hub: &Hub, name: &str, time: Duration) -> (Channel<u32>, Arc<AtomicU32>) {
    let channel: Channel<u32> = hub.channel(name).unwrap();
    let made = Arc::new(AtomicU32::new(0));
    let count = made.clone();
    channel
        .snapshot_at_least_once(move || {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                sleep(time).await;
                Ok::<_, Infallible>("state")
            }
        })
        .unwrap();
    (channel, made)
}

async fn next_data(body: &mut Body) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_large_snapshot_is_one_piece_of_memory_for_all() {
    let hub = Hub::new();
    let channels = ["x", "y"].map(|name| {
        let channel = StateChannel::on(
            hub.channel(name).unwrap(),
            "s".repeat(100_000),
            |_, _: &u32| {},
        );
        channel.unwrap().channel().clone()
    });
    let mut seen: [Vec<*const u8>; 2] = Default::default();
    for _ in 0..3 {
        for (seen, several) in seen.iter_mut().zip([false, true]) {
            let subscription = match several {
                false => channels[0].subscribe(LastEventId::Absent),
                true => hub.subscribe(["x", "y"], LastEventId::Absent),
            };
            let mut body = subscription.into_response().into_body();
            let mut chunk = next_data(&mut body).await;
            while chunk.len() < 100_000 {
                chunk = next_data(&mut body).await;
            }
            seen.push(chunk.as_ptr());
            std::mem::forget(chunk);
        }
    }
    for seen in seen {
        assert!(seen.iter().all(|pointer| *pointer == seen[0]), "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_arrive_one_after_the_other_share_few_snapshots() {
    let made = Arc::new(AtomicU32::new(0));
    let channel: Channel<u32> = Channel::new();
    let count = made.clone();
    let newest = channel.clone();
    let at = Arc::new(std::sync::Mutex::new(channel.newest()));
    let position = at.clone();
    drop(newest);
    channel
        .snapshot(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let id = *position.lock().unwrap();
            async move { Ok::<_, Infallible>((id, "s".repeat(1 << 20))) }
        })
        .unwrap();
    let mut held = Vec::new();
    for n in 0..1000 {
        *at.lock().unwrap() = channel.publish(&n).unwrap().id().unwrap();
        sleep(millis(10)).await;
        if n % 20 == 0 {
            let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
            while wire.chunk().await.unwrap().len() < 1 << 20 {}
            held.push(wire);
        }
    }
    assert_eq!(held.len(), 50);
    assert!(made.load(Ordering::SeqCst) <= 3, "{made:?}");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_added_brings_its_snapshot() {
    let hub = Hub::builder().capacity(1).build();
    let sum = StateChannel::on(hub.channel("sum").unwrap(), 0u32, |sum, n: &u32| {
        *sum += n;
    })
    .unwrap();
    sum.publish(&41).unwrap();
    let mut subscription = hub.subscribe(["lobby"], LastEventId::Absent);
    let control = subscription.handle();
    let mut wire = Wire::new(subscription);
    wire.all_at_once().await;
    let place = sum.publish(&1).unwrap().id().unwrap();
    control.add("sum").unwrap();
    let all = wire.all_at_once().await;
    assert_eq!(
        all,
        format!(
            "event: checkpoint\nid: {place}.\ndata: \n\nevent: snapshot\ndata: 42\n\n\
             event: checkpoint\nid: {place}\ndata: \n\n"
        )
    );
    // It also comes after a gap.
    control.remove("sum");
    wire.all_at_once().await;
    sum.publish(&1).unwrap();
    control.add_since("sum", place).unwrap();
    let all = wire.all_at_once().await;
    let story: Vec<_> = messages(&all)
        .into_iter()
        .map(|m| (m.event, m.data))
        .collect();
    assert_eq!(story[0].0, "gap");
    assert!(story[0].1.contains(r#""missed":null"#), "{all}");
    assert!(
        story.contains(&("snapshot".to_owned(), "43".to_owned())),
        "{all}"
    );
    sum.publish(&1).unwrap();
    assert_eq!(messages(&wire.all_at_once().await)[0].data, "1");
}

/// The log retains too little for such a slow snapshot, but what waiting readers need is kept.
#[tokio::test(start_paused = true)]
async fn a_slow_snapshot_of_a_busy_channel_is_delivered() {
    let hub = Hub::builder().capacity(8).build();
    let (channel, _) = slow_state(&hub, "state", millis(5000));
    let publisher = tokio::spawn(async move {
        for n in 0.. {
            channel.publish(&n).unwrap();
            sleep(millis(10)).await;
        }
    });
    for names in [vec!["state"], vec!["state", "chat"]] {
        let mut wire = Wire::new(hub.subscribe(names, LastEventId::Absent));
        let mut all = String::new();
        while !all.contains("event: snapshot") || messages(&all).len() < 600 {
            all += &wire.chunk().await.expect("it does not end");
        }
        let numbers: Vec<u32> = messages(&all)
            .into_iter()
            .filter_map(|message| message.data.parse().ok())
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert!(!all.contains("event: gap"));
    }
    publisher.abort();
}

#[tokio::test(start_paused = true)]
async fn a_client_waiting_for_a_snapshot_loses_nothing_of_other_channels() {
    for on_lag in [OnLag::Gap, OnLag::End] {
        let hub = Hub::builder().capacity(10).build();
        let (_slow, _) = slow_state(&hub, "slow", secs(5));
        let fast: Channel<u32> = hub.channel("fast").unwrap();
        let subscription = hub.subscribe(["slow", "fast"], LastEventId::Absent);
        let mut wire = Wire::new(subscription.on_lag(on_lag));
        let mut all = wire.all_at_once().await;
        for n in 0..600 {
            fast.publish(&n).unwrap();
            sleep(millis(10)).await;
            all += &wire.all_at_once().await;
            // These events do not wait either.
            assert!(all.ends_with(&format!("data: {n}\n\n")) || all.contains("snapshot"));
        }
        let numbers: Vec<u32> = messages(&all)
            .into_iter()
            .filter_map(|message| message.data.parse().ok())
            .collect();
        assert_eq!(numbers, (0..600).collect::<Vec<_>>(), "{on_lag:?}");
        assert!(all.contains("event: snapshot") && !all.contains("event: gap"));
    }
}

/// Wherever it is cut, a client resumes its chat without holes or duplicates, and gets the state
/// it is owed.
#[tokio::test(start_paused = true)]
async fn law_4_a_chat_beside_a_slow_snapshot_loses_nothing_when_it_is_cut() {
    let hub = Hub::new();
    let (slow, _) = slow_state(&hub, "slow", secs(2));
    let chat: Channel<u32> = hub.channel("chat").unwrap();
    chat.publish(&0).unwrap();
    let subscribe = |last: &str| {
        let last = match last {
            "" => LastEventId::Absent,
            last => LastEventId::Known(last.parse().unwrap()),
        };
        Wire::new(hub.subscribe(["slow", "chat"], last))
    };
    let mut wire = subscribe("");
    let mut all = wire.all_at_once().await;
    let mut sent = 0;
    for n in 1..60 {
        sent = n;
        chat.publish(&n).unwrap();
        slow.publish(&(1000 + n)).unwrap();
        sleep(millis(50)).await;
        all += &wire.all_at_once().await;
    }
    assert_eq!(sent, 59);
    for cut in all.find("checkpoint").unwrap() + 30..=all.len() {
        let seen = messages(&all[..cut]);
        let id = seen.last().map_or("", |message| &message.last_event_id);
        if id.is_empty() {
            continue;
        }
        let mut again = subscribe(id);
        sleep(secs(3)).await;
        let rest = messages(&again.all_at_once().await);
        let chats = |from: &[Message]| -> Vec<u32> {
            let numbers = from.iter().filter_map(|message| message.data.parse().ok());
            numbers.filter(|n| *n < 1000).collect()
        };
        let both = [chats(&seen), chats(&rest)].concat();
        assert_eq!(both, (1..=59).collect::<Vec<_>>(), "cut at {cut}: {id}");
        let has_state = |from: &[Message]| from.iter().any(|m| m.event == "snapshot");
        let told = has_state(&rest) || (has_state(&seen) && !id.ends_with('.'));
        assert!(told, "cut at {cut}: {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_never_comes_is_given_up() {
    let hub = Hub::builder().snapshot_timeout(secs(20)).build();
    let channel: Channel<u32> = hub.channel("hangs").unwrap();
    let made = Arc::new(AtomicU32::new(0));
    let count = made.clone();
    channel
        .snapshot(move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<(EventId, ()), Infallible>>()
        })
        .unwrap();
    for round in 1..3 {
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
        assert_eq!(wire.chunk().await.unwrap(), ":\n");
        let before = Instant::now();
        let mut last = String::new();
        while let Some(chunk) = wire.chunk().await {
            last = chunk;
        }
        assert!(last.starts_with("retry: "), "{last}");
        assert_time(before.elapsed(), secs(20));
        let stats = hub.stats();
        assert_eq!((stats.snapshots_failed, stats.sent_away), (round, round));
        // A client that comes back causes a new one.
        assert_eq!(u64::from(made.load(Ordering::SeqCst)), round);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_before_a_snapshot_counts_up_to_it() {
    let counts = counts(3);
    let ids: Vec<_> = (0..10)
        .map(|n| counts.publish(&n).unwrap().id().unwrap())
        .collect();
    let all = Wire::new(counts.subscribe(ids[1])).all_at_once().await;
    let gap: serde_json::Value = serde_json::from_str(&messages(&all)[0].data).unwrap();
    assert_eq!(gap["missed"], 8);
    assert_eq!(gap["oldest"], ids[9].to_string());
}

#[tokio::test(start_paused = true)]
async fn two_state_channels_on_one_connection_are_distinguishable() {
    let hub = Hub::builder().snapshot_channel(true).build();
    for (name, value) in [("x", 1), ("y\"\n", 2)] {
        let channel = StateChannel::on(hub.channel(name).unwrap(), value, |_, _: &u32| {}).unwrap();
        drop(channel);
    }
    let all = Wire::new(hub.subscribe(["x", "y\"\n"], LastEventId::Absent))
        .all_at_once()
        .await;
    let mut states: Vec<serde_json::Value> = messages(&all)
        .into_iter()
        .filter(|message| message.event == "snapshot")
        .map(|message| serde_json::from_str(&message.data).unwrap())
        .collect();
    states.sort_by_key(|state| state["state"].as_i64());
    assert_eq!(
        states,
        [
            serde_json::json!({"channel": "x", "state": 1}),
            serde_json::json!({"channel": "y\"\n", "state": 2}),
        ]
    );
}

#[test]
fn a_channel_with_a_state_refuses_direct_publishes() {
    let changes: Channel<u32> = Channel::new();
    let sum = StateChannel::on(changes.clone(), 0, |sum, change: &u32| *sum += change).unwrap();
    for refused in [
        changes.publish(&1),
        sum.channel().publish(&1),
        sum.channel().publish_event(&Event::text("1").unwrap()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPublishable);
        assert!(error.to_string().contains("publish through it"), "{error}");
    }
    sum.publish(&7).unwrap();
    assert_eq!(sum.read(|sum| *sum).unwrap(), 7);
    let last = Event::text("over").unwrap();
    changes.close(Some(&last)).unwrap();
}

#[test]
fn a_state_that_cannot_be_serialised_is_refused() {
    type Pairs = std::collections::BTreeMap<(u8, u8), u8>;
    let apply = |pairs: &mut Pairs, change: &u8| {
        pairs.insert((*change, 0), 0);
    };
    let changes: Channel<u8> = Channel::new();
    let pairs = Pairs::from([((1, 2), 3)]);
    let error = StateChannel::on(changes.clone(), pairs.clone(), apply).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialize);
    changes.publish(&1).unwrap();
    assert!(StateChannel::on(changes, Pairs::new(), apply).is_ok());
    // There is no caller to return an error to, so it is logged.
    StateChannel::new(pairs, apply).publish(&1).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_from_before_a_client_was_let_in_is_not_reused() {
    let counts = counts(1000);
    Wire::new(counts.subscribe(LastEventId::Absent))
        .all_at_once()
        .await;
    counts.publish(&1).unwrap();
    let joined = counts.channel().newest();
    counts.publish(&2).unwrap();
    let subscription = counts.subscribe(LastEventId::Absent).not_before(joined);
    let all = Wire::new(subscription).all_at_once().await;
    assert_eq!(
        state(&all),
        (vec![1, 2], vec!["snapshot".to_owned()]),
        "{all}"
    );
    // A snapshot that was already being made is not used either.
    let hub = Hub::new();
    let (channel, made) = slow_state(&hub, "slow", secs(2));
    let mut early = Wire::new(channel.subscribe(LastEventId::Absent));
    early.all_at_once().await;
    channel.publish(&1).unwrap();
    let joined = channel.newest();
    let mut late = Wire::new(channel.subscribe(LastEventId::Absent).not_before(joined));
    late.all_at_once().await;
    sleep(secs(5)).await;
    assert!(early.all_at_once().await.ends_with("data: 1\n\n"));
    let all = late.all_at_once().await;
    sleep(secs(5)).await;
    let all = all + &late.all_at_once().await;
    assert!(
        all.contains(&format!("event: snapshot\nid: {joined}\n")),
        "{all}"
    );
    assert_eq!(made.load(Ordering::SeqCst), 2);
    // The next client gets this one.
    let all = Wire::new(counts.subscribe(LastEventId::Absent).not_before(joined))
        .all_at_once()
        .await;
    assert_eq!(state(&all).1, ["snapshot"]);
}

#[test]
fn a_snapshot_cannot_be_forged() {
    let hub = Hub::new();
    let prices: Channel<u32> = hub.channel("prices").unwrap();
    prices.set_snapshot_name(event_name!("prices")).unwrap();
    for name in [event_name!("prices"), event_name!("snapshot")] {
        let forged = Event::text("[]").unwrap().with_name(name);
        let error = prices.publish_event(&forged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPublishable);
    }
}
