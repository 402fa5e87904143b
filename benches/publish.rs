//! What one `publish` costs the publisher, by number of subscribers; and what a subscribe costs.
//!
//! `cargo bench --bench publish`. Subscribers are bodies polled outside any runtime, with a waker
//! that does nothing: this measures the publisher's part, not the readers'.

use std::{
    hint::black_box,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    thread,
};

use axum::{
    body::{Body, HttpBody},
    response::IntoResponse,
};
use axum_sse::{Channel, EventId, LastEventId};
use divan::{Bencher, counter::ItemsCount};
use tokio::runtime::{Builder, Runtime};

const TEXT: &str = "{\"symbol\":\"ACME\",\"cents\":120567,\"volume\":4000}";

const SUBSCRIBERS: [usize; 3] = [0, 1_000, 100_000];

const EVENTS: u64 = 1000;

fn main() {
    divan::main();
}

/// A runtime that only runs when it is driven: the channel's wake task lives there.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

/// Without a wake task, events are kept for readers up to this limit, so the log is equally large
/// with and without readers.
fn channel() -> Channel<str> {
    Channel::builder().bytes(64 * 1024).build()
}

fn subscribe(channel: &Channel<str>, count: usize) -> Vec<Body> {
    let subscribe = |_| {
        let subscription = channel.subscribe(LastEventId::Absent);
        let mut body = subscription.into_response().into_body();
        sleep(&mut body);
        body
    };
    (0..count).map(subscribe).collect()
}

/// Polls until nothing is left, so that the waker is stored.
fn sleep(body: &mut Body) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = 0;
    while let std::task::Poll::Ready(Some(frame)) = Pin::new(&mut *body).poll_frame(&mut cx) {
        let frame = frame.expect("these bodies do not fail");
        bytes += frame.data_ref().map_or(0, axum::body::Bytes::len);
    }
    bytes
}

fn publish(channel: &Channel<str>) {
    black_box(
        channel
            .publish(black_box(TEXT))
            .expect("it is not too large"),
    );
}

/// One iteration is 1,000 publishes, after a first one that has signalled; no task responds.
#[divan::bench(args = SUBSCRIBERS)]
fn a_thousand_with_the_signal_pending(bencher: Bencher<'_, '_>, subscribers: usize) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let channel = channel();
    let _bodies = subscribe(&channel, subscribers);
    publish(&channel);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for _ in 0..EVENTS {
            publish(&channel);
        }
    });
}

/// All readers and the wake task are asleep, so this publish has to wake the task. Every body has
/// just been polled: with many of them, nothing that a publish touches is still in the caches.
#[divan::bench(args = SUBSCRIBERS, sample_size = 1, sample_count = 50)]
fn one_after_idle(bencher: Bencher<'_, '_>, subscribers: usize) {
    after_idle(bencher, subscribers, || ());
}

/// The same for a publisher that has just published to another channel and read this channel's
/// statistics, so its code and the log's end are in the caches. The difference from the row above
/// is the cost of cold caches; the difference between numbers of subscribers is what they cost a
/// publisher.
#[divan::bench(args = SUBSCRIBERS, sample_size = 1, sample_count = 50)]
fn one_after_idle_with_warm_caches(bencher: Bencher<'_, '_>, subscribers: usize) {
    let other = channel();
    after_idle(bencher, subscribers, || {
        for _ in 0..100 {
            publish(&other);
        }
    });
}

/// One subscriber, and caches filled with other memory: what `one_after_idle` costs for reasons
/// other than the number of subscribers.
#[divan::bench(sample_size = 1, sample_count = 50)]
fn one_after_idle_with_cold_caches_and_one_subscriber(bencher: Bencher<'_, '_>) {
    let mut other = vec![0_u64; 16 << 20];
    let mut n = 0;
    after_idle(bencher, 1, move || {
        n += 1;
        other.iter_mut().for_each(|word| *word += n);
        black_box(&other);
    });
}

fn after_idle(bencher: Bencher<'_, '_>, subscribers: usize, mut before: impl FnMut()) {
    let runtime = runtime();
    let channel = channel();
    let entered = runtime.enter();
    let mut bodies = subscribe(&channel, subscribers);
    drop(entered);
    let mut settle = || {
        // Let the task finish its round and go to sleep.
        runtime.block_on(async {
            for _ in 0..2 * subscribers / 128 + 10 {
                tokio::task::yield_now().await;
            }
        });
        let entered = runtime.enter();
        for body in &mut bodies {
            sleep(body);
        }
        drop(entered);
        before();
        black_box(channel.stats());
    };
    bencher
        .with_inputs(&mut settle)
        .bench_local_values(|()| publish(&channel));
}

/// One iteration is 1,000 publishes while another thread reads them.
#[divan::bench]
fn a_thousand_beside_a_reader(bencher: Bencher<'_, '_>) {
    let channel = channel();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (channel, stop) = (channel.clone(), stop.clone());
        thread::spawn(move || {
            let runtime = runtime();
            let _entered = runtime.enter();
            let mut bodies = subscribe(&channel, 1);
            while !stop.load(Ordering::Relaxed) {
                for body in &mut bodies {
                    black_box(sleep(body));
                }
            }
        })
    };
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for _ in 0..EVENTS {
            publish(&channel);
        }
    });
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("the reader reads until it is stopped");
}

/// From the subscribe to the last byte of the replay, and dropping the connection.
#[divan::bench(args = [0, 1_000, 100_000])]
fn subscribe_with_replay(bencher: Bencher<'_, '_>, events: usize) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let channel = Channel::builder().capacity(events + 1).build();
    let first: EventId = channel
        .publish(TEXT)
        .expect("it is not too large")
        .id()
        .unwrap();
    for _ in 0..events {
        publish(&channel);
    }
    bencher.bench_local(|| {
        let subscription = channel.subscribe(first);
        sleep(&mut subscription.into_response().into_body())
    });
}
