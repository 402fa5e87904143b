//! Laws 3 and 4 while a publisher never pauses.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    thread,
};

use axum::{body::HttpBody, response::IntoResponse};
use axum_sse::{
    Channel, Hub, LastEventId,
    testing::{Item, Parser},
};
use tokio::runtime::Builder;

/// A client that is cut off within its first event must already have an id, or it would never
/// learn of that event. So its first id comes first, whatever is published while the stream
/// begins.
#[test]
fn law_4_a_client_has_a_place_before_its_first_event() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let channel = Channel::<u32>::builder().capacity(1000).build();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                channel.publish(&n).unwrap();
                // Pause sometimes, so that some streams begin with nothing to deliver.
                (0..n % 50).for_each(|_| std::hint::spin_loop());
            }
        });
        let mut wrong = 0;
        for _ in 0..20_000 {
            let mut body = channel
                .subscribe(LastEventId::Absent)
                .into_response()
                .into_body();
            let mut cx = Context::from_waker(Waker::noop());
            let mut parser = Parser::new();
            let mut first = None;
            while let (None, Poll::Ready(Some(frame))) =
                (&first, Pin::new(&mut body).poll_frame(&mut cx))
            {
                let items = parser.push(&frame.unwrap().into_data().unwrap());
                first = items.into_iter().find_map(|item| match item {
                    Item::Message(message) => Some(message.event),
                    _ => None,
                });
            }
            wrong += usize::from(first.as_deref() != Some("checkpoint"));
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(wrong, 0, "streams began with an event");
    });
}

/// The log evicts events while its reader is told of earlier losses: every hole has its gap,
/// before the event after it.
#[test]
fn law_3_a_reader_that_is_overrun_again_and_again_is_told_each_time() {
    const NAMES: [&str; 2] = ["a", "b"];
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let hub = Hub::builder().capacity(2).bytes(600).build();
    let channels = NAMES.map(|name| hub.channel::<(usize, u64)>(name).unwrap());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                for (at, channel) in channels.iter().enumerate() {
                    channel.publish(&(at, n)).unwrap();
                }
            }
        });
        let subscription = hub.subscribe(NAMES, LastEventId::Absent);
        let mut body = subscription.into_response().into_body();
        let mut cx = Context::from_waker(Waker::noop());
        let mut parser = Parser::new();
        let mut next: [Option<u64>; 2] = [None; 2];
        let (mut gaps, mut events, mut wrong) = (0, 0, 0);
        while gaps < 20_000 {
            let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut cx) else {
                continue;
            };
            for item in parser.push(&frame.unwrap().unwrap().into_data().unwrap()) {
                let Item::Message(message) = item else {
                    continue;
                };
                match message.event.as_str() {
                    "gap" => {
                        let gap: serde_json::Value = message.json().unwrap();
                        for (at, name) in NAMES.iter().enumerate() {
                            if let Some(missed) = gap["channels"][name]["missed"].as_u64() {
                                next[at] = next[at].map(|next| next + missed);
                                gaps += 1;
                            }
                        }
                    }
                    "message" => {
                        let (at, n): (usize, u64) = message.json().unwrap();
                        wrong += usize::from(next[at].is_some_and(|next| next != n));
                        next[at] = Some(n + 1);
                        events += 1;
                    }
                    _ => {}
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(wrong, 0, "of {events} events beside {gaps} gaps");
    });
}
