//! Law 4 beside a publisher that never rests.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    thread,
};

use axum::{body::HttpBody, response::IntoResponse};
use axum_sse::{
    Channel, LastEventId,
    testing::{Item, Parser},
};
use tokio::runtime::Builder;

/// Cut off within its first event, a client without an id would come back without one, and never
/// hear of that event. So whatever is published while its stream begins, its place comes first.
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
                // Now and then, so that a stream also begins with nothing to deliver.
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
