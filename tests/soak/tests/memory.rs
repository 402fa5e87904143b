//! What channels and connections hold, in bytes requested from the allocator.
//!
//! A counting allocator is exact and the same on every system, but does not see the overhead of
//! the system's allocator (a few per cent). It counts for the whole process, so the tests run one
//! at a time.

use std::{
    alloc::System,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::IntoResponse,
};
use axum_sse::{Channel, Event, Hub, LastEventId, Start, Subscription};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The largest segment of a log.
const SEGMENT: u64 = 64 * KIB;

/// The log's index per event, doubled, because a growing vector has spare capacity.
const INDEX: u64 = 2 * 24;

fn live() -> u64 {
    let stats = ALLOCATOR.stats();
    u64::try_from(stats.bytes_allocated - stats.bytes_deallocated).unwrap()
}

static TURN: Mutex<()> = Mutex::const_new(());

fn body(subscription: Subscription) -> Body {
    subscription.into_response().into_body()
}

fn chunk(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    Pin::new(body)
        .poll_frame(cx)
        .map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
}

/// Reads everything, and leaves the connection asleep.
async fn rest(body: &mut Body) {
    poll_fn(|cx| {
        while let Poll::Ready(chunk) = chunk(body, cx) {
            assert!(chunk.is_some());
        }
        Poll::Ready(())
    })
    .await;
}

#[test]
fn a_channel_costs_at_most_a_kibibyte_beside_its_event() {
    const CHANNELS: u64 = 100_000;
    let _turn = TURN.blocking_lock();
    let text = "x".repeat(180);
    for held in [false, true] {
        let before = live();
        let hub = Hub::new();
        let mut handles = Vec::new();
        for number in 0..CHANNELS {
            let channel: Channel<str> = hub.channel(format!("user/{number}")).unwrap();
            channel.publish(&text).unwrap();
            if held {
                handles.push(channel);
            }
        }
        let stats = hub.stats();
        assert_eq!((stats.channels as u64, stats.events), (CHANNELS, CHANNELS));
        assert!(stats.bytes / CHANNELS >= 200);
        let own = live() - before - (handles.capacity() * size_of::<Channel<str>>()) as u64;
        let beside = (own - stats.bytes) / CHANNELS;
        println!(
            "a channel ({}): {beside} bytes beside its event of {}",
            if held { "held" } else { "idle" },
            stats.bytes / CHANNELS
        );
        assert!(beside <= KIB);
        drop(handles);
        drop(hub);
        assert!(live() - before < 64 * KIB);
    }
}

/// "What a slow client holds": what hyper has taken from an HTTP/1.1 body when its client stops
/// reading (16 chunks, or 400 KiB), however much is published afterwards.
#[test]
fn a_thousand_stalled_clients_pin_what_they_were_handed() {
    const CLIENTS: u64 = 1000;
    const LOG: u64 = 8 * MIB;
    const EVENT: u64 = 4000;
    const CHUNKS: usize = 16;
    const QUEUED: u64 = 400 * KIB;
    /// Slices of segments until 400 KiB are queued, the first of which may be part of a segment
    /// that it keeps alive; and the copy of the log's open end.
    const CLIENT: u64 = (QUEUED.div_ceil(SEGMENT) + 1) * SEGMENT + 16 * KIB;
    /// What a connection itself takes.
    const CONNECTION: u64 = 2 * KIB;
    // A sealed segment may be only seven eighths full. Part of the oldest is evicted, and part of
    // the newest is not filled yet.
    let log_bound = LOG * 8 / 7 + 2 * SEGMENT + LOG / EVENT * INDEX;

    let _turn = TURN.blocking_lock();
    let channel: Channel<str> = Channel::builder()
        .capacity(usize::MAX)
        .bytes(usize::try_from(LOG).unwrap())
        .build();
    let event = Event::text("x".repeat(usize::try_from(EVENT).unwrap() - 30)).unwrap();
    let before = live();
    let publish = |bytes: u64| {
        for _ in 0..bytes.div_ceil(EVENT) {
            channel.publish_event(&event).unwrap();
        }
    };
    publish(2 * LOG);
    let mut stalled = Vec::new();
    let mut queued = 0;
    for _ in 0..CLIENTS {
        let mut body = body(channel.subscribe(LastEventId::Absent).start(Start::Oldest));
        let mut chunks: Vec<Bytes> = Vec::new();
        let mut size = 0;
        let mut cx = Context::from_waker(Waker::noop());
        while chunks.len() < CHUNKS
            && size < QUEUED
            && let Poll::Ready(Some(chunk)) = chunk(&mut body, &mut cx)
        {
            size += chunk.len() as u64;
            chunks.push(chunk);
        }
        assert!(size >= QUEUED);
        queued += size;
        stalled.push((body, chunks));
        // The next client gets other segments.
        publish(QUEUED + 2 * SEGMENT);
    }
    publish(2 * LOG);

    let all = live() - before;
    let each = (all - log_bound.min(all)) / CLIENTS;
    println!(
        "{CLIENTS} stalled clients: {} MiB in all, {} KiB each beside the log; {} KiB of it handed out",
        all / MIB,
        each / KIB,
        queued / CLIENTS / KIB
    );
    assert!(all <= log_bound + CLIENTS * (CLIENT + CONNECTION));
    // Otherwise this test would measure nothing.
    assert!(all >= queued);

    drop(stalled);
    let left = live() - before;
    println!("and then {} KiB, of {} KiB", left / KIB, log_bound / KIB);
    assert!(left <= log_bound);
}

#[tokio::test(start_paused = true)]
async fn connections_that_come_and_go_leave_nothing_behind() {
    const ROUNDS: usize = 1000;
    let _turn = TURN.lock().await;
    let hub = Hub::new();
    let channel: Channel<str> = hub.channel("a").unwrap();
    let mut staying = None;
    for stays in [false, true] {
        let mut before = 0;
        // In the first pass, collections grow to their size.
        for measured in [false, true] {
            for round in 0..ROUNDS {
                let mut body = body(hub.subscribe(["a", "b"], LastEventId::Absent));
                rest(&mut body).await;
                if round % 10 == 0 {
                    channel.publish("hello").unwrap();
                    rest(&mut body).await;
                }
                drop(body);
                tokio::task::yield_now().await;
            }
            // Closed connections leave the heartbeat wheel within an interval.
            tokio::time::sleep(Duration::from_secs(40)).await;
            if !measured {
                before = live();
            }
        }
        let grown = live().saturating_sub(before);
        println!("{ROUNDS} connections that came and went: {grown} bytes more");
        // The log itself has grown.
        assert!(grown < 16 * KIB);
        assert_eq!(hub.stats().subscribers, usize::from(stays));
        assert_eq!(channel.stats().subscribers, usize::from(stays));
        let mut body = body(hub.subscribe(["a", "b"], LastEventId::Absent));
        rest(&mut body).await;
        staying = Some(body);
    }
    drop(staying);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_small() {
    const CONNECTIONS: u64 = 10_000;
    let _turn = TURN.lock().await;
    let hub = Hub::new();
    let channels: Vec<Channel<str>> = ["a", "b", "c"]
        .map(|name| hub.channel(name).unwrap())
        .into();
    for names in [&["a"][..], &["a", "b", "c"]] {
        let before = live();
        let mut bodies = Vec::with_capacity(usize::try_from(CONNECTIONS).unwrap());
        let list = (bodies.capacity() * size_of::<Body>()) as u64;
        for _ in 0..CONNECTIONS {
            let mut body = body(hub.subscribe(names, LastEventId::Absent));
            rest(&mut body).await;
            bodies.push(body);
        }
        channels[0].publish("hello").unwrap();
        for body in &mut bodies {
            rest(body).await;
        }
        let each = (live() - before - list) / CONNECTIONS;
        println!(
            "an idle connection over {} channels: {each} bytes",
            names.len()
        );
        assert!(each <= KIB + 512 * names.len() as u64);
    }
}

/// Law 6: what is kept for readers beyond the limits is freed once they have read it, and when the
/// last of them leaves.
#[tokio::test(start_paused = true)]
async fn what_a_burst_has_left_is_freed() {
    const BURST: usize = 10_000;
    let _turn = TURN.lock().await;
    for stays in [true, false] {
        let channel: Channel<str> = Channel::builder().capacity(16).build();
        let mut body = body(channel.subscribe(LastEventId::Absent));
        rest(&mut body).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let before = live();
        for _ in 0..BURST {
            channel
                .publish("a burst of events of a hundred bytes or so")
                .unwrap();
        }
        assert!(live() - before > 600 * KIB, "kept for the reader");
        if stays {
            rest(&mut body).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        } else {
            drop(body);
        }
        let left = live().saturating_sub(before);
        println!("a burst has left {left} bytes");
        assert!(left <= SEGMENT + 16 * KIB);
        assert_eq!(channel.stats().events, 16);
    }
}
