//! What a client costs that reconnects to many channels.
//!
//! `cargo bench --bench replay`. Bodies are polled with a waker that does nothing: this measures
//! the merge, without a socket.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use axum::{
    body::{Body, HttpBody},
    response::IntoResponse,
};
use axum_sse::{Channel, EventId, Hub};
use divan::{Bencher, counter::ItemsCount};
use tokio::runtime::{Builder, Runtime};

fn main() {
    divan::main();
}

/// A hub with events of about 130 bytes, spread evenly over the first `busy` of its `channels`.
struct Scene {
    hub: Hub,
    names: Vec<String>,
    /// Before the first event.
    start: EventId,
    runtime: Runtime,
}

impl Scene {
    fn new(channels: usize, busy: usize, events: usize) -> Self {
        let hub = Hub::builder()
            .capacity(events)
            .max_channels_per_subscription(channels)
            .build();
        let start = hub.newest();
        let names: Vec<_> = (0..channels).map(|n| format!("channel/{n}")).collect();
        let handles: Vec<Channel<str>> = names
            .iter()
            .map(|name| hub.channel(name).expect("there is room"))
            .collect();
        let text = "x".repeat(100);
        for n in 0..events {
            handles[n % busy].publish(&text).expect("it fits");
        }
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().build().expect("a runtime");
        Self {
            hub,
            names,
            start,
            runtime,
        }
    }

    /// Reads everything that was published, and returns the number of bytes.
    fn replay(&self) -> usize {
        let _entered = self.runtime.enter();
        let subscription = self.hub.subscribe(&self.names, self.start);
        let mut body: Body = subscription.into_response().into_body();
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = 0;
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            let frame = frame.expect("these bodies do not fail");
            bytes += frame.data_ref().map_or(0, axum::body::Bytes::len);
        }
        bytes
    }
}

/// 10,000 events on two channels, on a connection over this many channels.
#[divan::bench(args = [2, 100, 1000])]
fn ten_thousand_on_two_channels_of(bencher: Bencher<'_, '_>, channels: usize) {
    let scene = Scene::new(channels, 2, 10_000);
    bencher
        .counter(ItemsCount::new(10_000u32))
        .bench_local(|| scene.replay());
}

/// 100,000 events that alternate between this many channels.
#[divan::bench(args = [1, 100, 1000], sample_count = 20)]
fn a_hundred_thousand_spread_over(bencher: Bencher<'_, '_>, channels: usize) {
    let scene = Scene::new(channels, channels, 100_000);
    bencher
        .counter(ItemsCount::new(100_000u32))
        .bench_local(|| scene.replay());
}
