//! How the wake task shares its turns, measured in polls of connections. Time is paused, and one
//! thread runs everything in wake-up order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum_sse::{Channel, Heartbeat, Hub, LastEventId};
use tokio::{
    task::{JoinHandle, yield_now},
    time::{Instant, sleep},
};

use crate::wire::{Wire, millis, secs};

/// How many readers the task wakes before it yields; see `SLICE` in the crate.
const SLICE: usize = 128;

/// A count that several tasks share.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }

    fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A connection that reads everything at once and reports each chunk.
fn connect(channel: &Channel<u32>, on_chunk: impl Fn(String) + Send + 'static) -> JoinHandle<()> {
    let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
    tokio::spawn(async move {
        while let Some(chunk) = wire.chunk().await {
            on_chunk(chunk);
        }
    })
}

async fn settle() {
    sleep(millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_small_channel_does_not_wait_for_a_large_one() {
    let small_waits = |when: usize| async move {
        let hub = Hub::builder().heartbeat(Heartbeat::OFF).build();
        let (big, small) = (hub.channel("big").unwrap(), hub.channel("small").unwrap());
        let of_big = Count::default();
        let at_small = Count::default();
        for _ in 0..10_000 {
            let (of_big, small) = (of_big.clone(), small.clone());
            connect(&big, move |_| {
                if of_big.up() == when {
                    small.publish(&1).unwrap();
                }
            });
        }
        let (seen, counted) = (at_small.clone(), of_big.clone());
        connect(&small, move |chunk| {
            if chunk.contains("data: 1\n") {
                seen.set(counted.get());
            }
        });
        settle().await;
        of_big.set(0);
        big.publish(&0).unwrap();
        settle().await;
        assert_eq!(of_big.get(), 10_000);
        at_small.get() - when
    };
    for when in [1, SLICE, 1000, 5000] {
        let waited = small_waits(when).await;
        assert!(waited <= SLICE, "{waited} others came first");
    }
}

#[tokio::test(start_paused = true)]
async fn many_large_channels_leave_a_small_one_its_turn() {
    let hub = Hub::builder().heartbeat(Heartbeat::OFF).build();
    let small = hub.channel("small").unwrap();
    let woken = Count::default();
    let at_small = Count::default();
    let large: Vec<Channel<u32>> = (0..20)
        .map(|n| hub.channel(format!("large/{n}")).unwrap())
        .collect();
    for channel in &large {
        for _ in 0..500 {
            let (woken, small) = (woken.clone(), small.clone());
            connect(channel, move |_| {
                if woken.up() == 2000 {
                    small.publish(&1).unwrap();
                }
            });
        }
    }
    let (seen, counted) = (at_small.clone(), woken.clone());
    connect(&small, move |chunk| {
        if chunk.contains("data: 1\n") {
            seen.set(counted.get());
        }
    });
    settle().await;
    woken.set(0);
    for channel in &large {
        channel.publish(&0).unwrap();
    }
    settle().await;
    assert_eq!(woken.get(), 10_000);
    let waited = at_small.get() - 2000;
    assert!(waited <= SLICE, "{waited} others came first");
}

/// News for a channel during its round: the next round begins after this one, and every reader
/// gets everything in the end.
#[tokio::test(start_paused = true)]
async fn news_during_a_channel_s_own_round_is_not_lost() {
    let channel = Channel::<u32>::builder().heartbeat(Heartbeat::OFF).build();
    let complete = Count::default();
    let published = Count::default();
    for _ in 0..1000 {
        let (channel, published) = (channel.clone(), published.clone());
        let complete = complete.clone();
        let publisher = channel.clone();
        let has_published = AtomicBool::new(false);
        connect(&channel, move |chunk| {
            if chunk.contains("data: 50\n") {
                complete.up();
            }
            if chunk.contains("data: 0\n")
                && published.get() < 50
                && !has_published.swap(true, Ordering::Relaxed)
            {
                let n = u32::try_from(published.up()).unwrap();
                publisher.publish(&n).unwrap();
            }
        });
    }
    settle().await;
    channel.publish(&0).unwrap();
    settle().await;
    assert_eq!((published.get(), complete.get()), (50, 1000));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_a_crowd_are_spread() {
    const CROWD: usize = 10_000;
    let interval = secs(16);
    let channel = Channel::<u32>::builder()
        .heartbeat(Heartbeat::every(interval))
        .build();
    let beats = Arc::new(Mutex::new(BTreeMap::<u128, usize>::new()));
    let start = Instant::now();
    for _ in 0..CROWD {
        let beats = beats.clone();
        connect(&channel, move |chunk| {
            if chunk == ":\n" {
                *beats
                    .lock()
                    .unwrap()
                    .entry(start.elapsed().as_millis() / 1000)
                    .or_default() += 1;
            }
        });
    }
    for _ in 0..3 {
        sleep(secs(100)).await;
        beats.lock().unwrap().clear();
        // All of them are written to at the same time.
        channel.publish(&1).unwrap();
        let written = start.elapsed().as_millis() / 1000;
        sleep(secs(16 + 1 + 9)).await;
        let beats = std::mem::take(&mut *beats.lock().unwrap());
        let most = beats.values().max().unwrap();
        // A silent connection gets a heartbeat every 17 ticks.
        assert!(*most <= 2 * CROWD / 17, "{most} in one tick: {beats:?}");
        assert!(beats.keys().all(|tick| *tick >= written + 16), "{beats:?}");
        let all = beats.values().sum::<usize>();
        assert!(all >= CROWD, "{all} within 26 seconds: {beats:?}");
    }
}

/// Neither delays the other by more than a few slices.
#[tokio::test(start_paused = true)]
async fn heartbeats_and_news_share_the_turns() {
    let hub = Hub::builder().heartbeat(Heartbeat::every(secs(16))).build();
    let quiet = hub.channel("quiet").unwrap();
    let small = hub.channel("small").unwrap();
    let beats = Count::default();
    let waited = Arc::new(Mutex::new(Vec::new()));
    let at = Count::default();
    for _ in 0..20_000 {
        let (beats, at, small) = (beats.clone(), at.clone(), small.clone());
        connect(&quiet, move |chunk| {
            if chunk == ":\n" && beats.up() % 1000 == 0 {
                at.set(beats.get());
                small.publish(&1).unwrap();
            }
        });
    }
    let (counted, seen) = (beats.clone(), waited.clone());
    connect(&small, move |chunk| {
        if chunk.contains("data: 1\n") {
            seen.lock().unwrap().push(counted.get() - at.get());
        }
    });
    sleep(secs(60)).await;
    let waited = waited.lock().unwrap();
    assert!(waited.len() >= 20);
    assert!(waited.iter().all(|n| *n <= 2 * SLICE), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn coalesce_holds_back_only_the_channel_that_was_written() {
    let hub = Hub::builder()
        .coalesce(secs(10))
        .heartbeat(Heartbeat::OFF)
        .build();
    let busy: Channel<u32> = hub.channel("busy").unwrap();
    let quiet: Channel<u32> = hub.channel("quiet").unwrap();
    let mut of_busy = Wire::new(busy.subscribe(LastEventId::Absent));
    let mut of_quiet = Wire::new(quiet.subscribe(LastEventId::Absent));
    of_busy.all_at_once().await;
    of_quiet.all_at_once().await;
    let reader = tokio::spawn(async move {
        let mut times = Vec::new();
        while times.len() < 6 {
            of_busy.chunk().await.unwrap();
            times.push(Instant::now());
        }
        times
    });
    let publisher = tokio::spawn(async move {
        loop {
            busy.publish(&0).unwrap();
            sleep(millis(100)).await;
        }
    });
    for pause in [millis(1234), secs(13), secs(11), millis(10_050)] {
        sleep(pause).await;
        let published = Instant::now();
        quiet.publish(&1).unwrap();
        of_quiet.chunk().await.unwrap();
        assert!(
            published.elapsed() <= millis(1),
            "{:?}",
            published.elapsed()
        );
    }
    let times = reader.await.unwrap();
    for two in times.windows(2) {
        assert!(two[1] - two[0] >= secs(10), "{:?}", two[1] - two[0]);
        assert!(two[1] - two[0] <= millis(10_101), "{:?}", two[1] - two[0]);
    }
    publisher.abort();
}

#[tokio::test(start_paused = true)]
async fn lag_is_that_of_connections_that_are_there() {
    let channel = Channel::<u32>::new();
    let mut slow = Wire::new(channel.subscribe(LastEventId::Absent));
    let mut fast = Wire::new(channel.subscribe(LastEventId::Absent));
    slow.all_at_once().await;
    fast.all_at_once().await;
    for n in 0..100 {
        channel.publish(&n).unwrap();
    }
    fast.all_at_once().await;
    sleep(secs(2)).await;
    assert_eq!(channel.stats().lag, 100);
    drop(slow);
    sleep(secs(2)).await;
    assert_eq!(channel.stats().lag, 0);

    let slow = Wire::new(channel.subscribe(LastEventId::Absent));
    let mut slow = slow;
    slow.all_at_once().await;
    channel.publish(&0).unwrap();
    drop(fast);
    yield_now().await;
    sleep(millis(1)).await;
    assert_eq!(channel.stats().lag, 1);
    drop(slow);
    assert_eq!(channel.stats().lag, 0);
}

/// The last reader leaves while others are still to be woken.
#[tokio::test(start_paused = true)]
async fn the_task_ends_although_everybody_leaves_during_a_round() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    for turns in 0..12 {
        let channel = Channel::<u32>::new();
        let mut wires = Vec::new();
        for _ in 0..10 * SLICE {
            let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
            wire.chunk().await.unwrap();
            wires.push(wire);
        }
        settle().await;
        assert_eq!(tasks(), 1);
        channel.publish(&1).unwrap();
        for _ in 0..turns {
            yield_now().await;
        }
        drop(wires);
        sleep(millis(500)).await;
        assert_eq!(tasks(), 0, "after {turns} turns");
    }
}
