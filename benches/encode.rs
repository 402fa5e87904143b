//! From one serde value to the bytes of an event, on one thread: this crate, axum's `Event`, and,
//! as the lower bound, `serde_json::to_writer` into a reused buffer after `data: `.
//!
//! `cargo bench --bench encode`. One iteration is 1,000 events, so a time of 100 µs means 100 ns
//! per event, and 1000 allocations mean one per event.
//!
//! `channel` also draws an id and appends to a log; `stream` is the body of one connection.
//! Compare both with axum's body, because axum's `Event` only writes its bytes into a body.

use std::{
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{
    body::{Body, HttpBody},
    response::{IntoResponse, sse},
};
use axum_sse::{Channel, EventId, Heartbeat, Sse};
use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use futures_util::stream;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const EVENTS: u64 = 1000;

fn main() {
    divan::main();
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Price {
    symbol: &'static str,
    cents: u64,
    volume: u64,
}

#[derive(Debug, Serialize)]
struct Listing {
    title: String,
    text: String,
    tags: Vec<String>,
    prices: Vec<Price>,
}

fn small() -> Price {
    Price {
        symbol: "ACME",
        cents: 120_567,
        volume: 4_000,
    }
}

/// About 4 KiB of JSON.
fn large() -> Listing {
    Listing {
        title: "A listing of everything".into(),
        text: "Words with a \"quote\" and a line break here and there.\n".repeat(20),
        tags: (0..20).map(|number| format!("tag-{number}")).collect(),
        prices: vec![small(); 50],
    }
}

/// Polls a body until it ends, and counts its bytes. Needs no runtime, because everything is
/// ready.
fn drain(body: Body) -> usize {
    let mut body = pin!(body);
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = 0;
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        let frame = frame.expect("these bodies do not fail");
        bytes += frame.data_ref().map_or(0, axum::body::Bytes::len);
    }
    bytes
}

fn limit(bencher: Bencher<'_, '_>, value: &impl Serialize) {
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for _ in 0..EVENTS {
            out.clear();
            out.extend_from_slice(b"data: ");
            serde_json::to_writer(&mut out, black_box(value)).expect("it is JSON");
            out.extend_from_slice(b"\n\n");
            black_box(&mut out);
        }
    });
}

fn channel<T: Serialize>(bencher: Bencher<'_, '_>, value: &T) {
    let channel = Channel::<T>::new();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for _ in 0..EVENTS {
            let id = channel.publish(black_box(value));
            black_box(id.expect("it is JSON and not too large"));
        }
    });
}

/// This crate's body, over a stream that is always ready.
fn stream<T: Serialize + Sync>(bencher: Bencher<'_, '_>, value: &'static T) {
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let values = stream::iter((0..EVENTS).map(move |_| black_box(value)));
        let sse = Sse::new(values).heartbeat(Heartbeat::OFF);
        drain(sse.into_response().into_body())
    });
}

/// axum's body over the same stream, with ids if `id` returns them.
fn axum<T: Serialize + Sync>(
    bencher: Bencher<'_, '_>,
    value: &'static T,
    id: Option<fn(u64) -> String>,
) {
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let events = stream::iter((0..EVENTS).map(move |n| {
            let event = sse::Event::default();
            let event = match id {
                Some(id) => event.id(id(n)),
                None => event,
            };
            event.json_data(black_box(value))
        }));
        drain(sse::Sse::new(events).into_response().into_body())
    });
}

/// An id as long as those of a channel.
fn id(n: u64) -> String {
    EventId::new(1_790_000_000 << 32, n).to_string()
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[divan::bench_group]
mod small_value {
    use super::*;

    #[divan::bench]
    fn limit(bencher: Bencher<'_, '_>) {
        super::limit(bencher, &small());
    }

    #[divan::bench]
    fn ours_stream(bencher: Bencher<'_, '_>) {
        super::stream(bencher, leak(small()));
    }

    #[divan::bench]
    fn ours_channel(bencher: Bencher<'_, '_>) {
        super::channel(bencher, &small());
    }

    #[divan::bench]
    fn axum(bencher: Bencher<'_, '_>) {
        super::axum(bencher, leak(small()), None);
    }

    #[divan::bench]
    fn axum_with_id(bencher: Bencher<'_, '_>) {
        super::axum(bencher, leak(small()), Some(id));
    }
}

#[divan::bench_group]
mod large_value {
    use super::*;

    #[divan::bench]
    fn limit(bencher: Bencher<'_, '_>) {
        super::limit(bencher, &large());
    }

    #[divan::bench]
    fn ours_stream(bencher: Bencher<'_, '_>) {
        super::stream(bencher, leak(large()));
    }

    #[divan::bench]
    fn ours_channel(bencher: Bencher<'_, '_>) {
        super::channel(bencher, &large());
    }

    #[divan::bench]
    fn axum(bencher: Bencher<'_, '_>) {
        super::axum(bencher, leak(large()), None);
    }

    #[divan::bench]
    fn axum_with_id(bencher: Bencher<'_, '_>) {
        super::axum(bencher, leak(large()), Some(id));
    }
}
