//! Snapshots and boards: the state first, then every event behind it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum_sse::{
    Board, BoxError, Channel, ErrorKind, Event, EventId, Hub, LastEventId, OnGap, Start,
};
use tokio::{sync::Semaphore, time::sleep};

use crate::wire::{Wire, messages, millis};

type Counts = Board<Vec<u32>, u32>;

fn board(capacity: usize) -> Counts {
    let channel = Channel::builder().capacity(capacity).build();
    Board::on(channel, Vec::new(), |all: &mut Vec<u32>, n: &u32| {
        all.push(*n);
    })
    .unwrap()
}

/// Plays a page: what its state is after these bytes.
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
    let board = board(3);
    for n in 0..10 {
        board.publish(&n).unwrap();
    }
    let mut wire = Wire::new(board.subscribe(LastEventId::Absent));
    let mut bytes = wire.all_at_once().await;
    let id = board.channel().newest();
    assert_eq!(
        bytes,
        format!(":\nevent: snapshot\nid: {id}\ndata: [0,1,2,3,4,5,6,7,8,9]\n\n")
    );
    board.publish(&10).unwrap();
    bytes += &wire.all_at_once().await;
    assert_eq!(state(&bytes).0, (0..=10).collect::<Vec<_>>());
    assert_eq!(board.read(Vec::len).unwrap(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_can_resume_gets_no_snapshot_and_one_with_a_gap_does() {
    let board = board(3);
    let ids: Vec<_> = (0..10).map(|n| board.publish(&n).unwrap()).collect();
    let resumed = Wire::new(board.subscribe(ids[7])).all_at_once().await;
    assert_eq!(state(&resumed).1, ["message", "message"]);
    let gap = Wire::new(board.subscribe(ids[1])).all_at_once().await;
    let (all, kinds) = state(&gap);
    assert_eq!(
        (all, kinds),
        (
            (0..10).collect(),
            vec!["gap".to_owned(), "snapshot".to_owned()]
        )
    );
    assert!(gap.contains(&format!("\"oldest\":\"{}\"", ids[9])), "{gap}");
    let replay = board.subscribe(ids[1]).on_gap(OnGap::Replay);
    let kinds = state(&Wire::new(replay).all_at_once().await).1;
    assert_eq!(kinds, ["gap", "message", "message", "message"]);
    let live = board.subscribe(LastEventId::Absent).start(Start::Live);
    assert_eq!(
        state(&Wire::new(live).all_at_once().await).1,
        ["checkpoint"]
    );
}

#[tokio::test(start_paused = true)]
async fn on_several_channels_a_snapshot_stands_in_its_place() {
    let hub = Hub::new();
    let start = hub.newest();
    let other: Channel<u32> = hub.channel("other").unwrap();
    let board = Board::on(hub.channel("board").unwrap(), 0u32, |sum, n: &u32| {
        *sum += n;
    })
    .unwrap();
    other.publish(&100).unwrap();
    board.publish(&1).unwrap();
    let last = other.publish(&200).unwrap();
    // An id that is unknown: the whole story of both, in one order, and then an id for all of it.
    let foreign = EventId::new(1, 1);
    let mut wire = Wire::new(hub.subscribe(["other", "board"], foreign));
    let all = wire.all_at_once().await;
    let story: Vec<_> = messages(&all)
        .into_iter()
        .filter(|message| message.event != "gap")
        .map(|message| (message.event, message.data, message.last_event_id))
        .collect();
    let said =
        |event: &str, data: &str, id: &str| (event.to_owned(), data.to_owned(), id.to_owned());
    assert_eq!(
        story,
        [
            said("message", "100", ""),
            said("snapshot", "1", ""),
            said("message", "200", ""),
            said("checkpoint", "", &last.to_string()),
        ]
    );
    let next = board.publish(&2).unwrap();
    assert_eq!(wire.all_at_once().await, format!("id: {next}\ndata: 2\n\n"));
    // Known on the one, fresh on neither: no snapshot.
    let all = Wire::new(hub.subscribe(["other", "board"], start))
        .all_at_once()
        .await;
    assert!(!all.contains("event: snapshot"));
}

#[tokio::test(start_paused = true)]
async fn law_4_no_id_stands_for_a_state_that_was_not_sent() {
    let hub = Hub::new();
    let x = Board::on(hub.channel("x").unwrap(), Vec::new(), |all, n: &u32| {
        all.push(*n);
    })
    .unwrap();
    let y = Board::on(hub.channel("y").unwrap(), Vec::new(), |all, n: &u32| {
        all.push(*n);
    })
    .unwrap();
    x.publish(&1).unwrap();
    y.publish(&2).unwrap();
    x.publish(&3).unwrap();
    let all = Wire::new(hub.subscribe(["x", "y"], LastEventId::Absent))
        .all_at_once()
        .await;
    // Wherever it is cut, the client has either both states or no id.
    for cut in 0..all.len() {
        let seen = messages(&all[..cut]);
        let snapshots = seen
            .iter()
            .filter(|message| message.event == "snapshot")
            .count();
        let id = seen.last().map_or("", |message| &message.last_event_id);
        assert!(id.is_empty() || snapshots == 2, "{cut} of {all}");
    }
    assert_eq!(messages(&all).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_flight_serves_all_who_wait() {
    let channel: Channel<u32> = Channel::new();
    let id = channel.publish(&1).unwrap();
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
    // Behind its position it is made anew.
    gate.add_permits(1);
    Wire::new(channel.subscribe(LastEventId::Absent))
        .all_at_once()
        .await;
    assert_eq!(made.load(Ordering::SeqCst), 2);
    let again = channel.snapshot(|| async { Ok::<_, Infallible>((EventId::new(0, 0), ())) });
    assert_eq!(again.unwrap_err().kind(), ErrorKind::HasSnapshot);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_always_too_old_ends_the_stream() {
    let channel: Channel<u32> = Channel::builder().capacity(1).build();
    let old = channel.publish(&0).unwrap();
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
    let before = channel.publish(&1).unwrap();
    channel
        .snapshot_at_least_once(|| async {
            sleep(millis(5)).await;
            Ok::<_, Infallible>("state with 1 and 2")
        })
        .unwrap();
    let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
    assert_eq!(wire.chunk().await.unwrap(), ":\n");
    sleep(millis(1)).await;
    let during = channel.publish(&2).unwrap();
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
    let board = board(0);
    let subscription = board.subscribe(LastEventId::Absent);
    board.publish(&1).unwrap();
    board.publish(&2).unwrap();
    let all = Wire::new(subscription).all_at_once().await;
    assert_eq!(state(&all), (vec![1, 2], vec!["snapshot".to_owned()]));
}

#[test]
fn a_panic_of_a_reader_leaves_a_board_as_it_is() {
    let board = board(3);
    let clone = board.clone();
    let reader = std::thread::spawn(move || clone.read(|all| all[7]));
    assert!(reader.join().is_err());
    board.publish(&1).unwrap();
    assert_eq!(board.read(Vec::clone).unwrap(), [1]);
    let refused = board.update(|all| match all.is_empty() {
        true => Ok(2),
        false => Err(BoxError::from("not the first")),
    });
    assert_eq!(refused.unwrap_err().to_string(), "not the first");
}

#[test]
fn a_panic_while_applying_poisons_the_board() {
    let board = Board::new((), |(), n: &u32| assert!(*n < 2, "broken"));
    board.publish(&1).unwrap();
    let clone = board.clone();
    assert!(
        std::thread::spawn(move || clone.publish(&2))
            .join()
            .is_err()
    );
    assert_eq!(board.publish(&1).unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(board.read(|()| ()).is_err());
}

#[test]
fn nobody_publishes_past_a_board() {
    let changes: Channel<u32> = Channel::new();
    let sum = Board::on(changes.clone(), 0, |sum, change: &u32| *sum += change).unwrap();
    for refused in [
        changes.publish(&1),
        sum.channel().publish(&1),
        sum.channel().publish_event(&Event::text("1").unwrap()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPublishable);
        assert!(error.to_string().contains("through the board"), "{error}");
    }
    sum.publish(&7).unwrap();
    assert_eq!(sum.read(|sum| *sum).unwrap(), 7);
    let last = Event::text("over").unwrap();
    changes.close(Some(&last)).unwrap();
}

#[test]
fn a_state_that_cannot_be_serialised_is_no_board() {
    type Pairs = std::collections::BTreeMap<(u8, u8), u8>;
    let apply = |pairs: &mut Pairs, change: &u8| {
        pairs.insert((*change, 0), 0);
    };
    let changes: Channel<u8> = Channel::new();
    let pairs = Pairs::from([((1, 2), 3)]);
    let error = Board::on(changes.clone(), pairs.clone(), apply).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialize);
    changes.publish(&1).unwrap();
    assert!(Board::on(changes, Pairs::new(), apply).is_ok());
    // Nobody can be told here; the log says it.
    Board::new(pairs, apply).publish(&1).unwrap();
}
