//! Waits that end, also where the clock is paused.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time;

/// How a wait ended.
pub(super) enum Wait<T> {
    Done(T),
    Over,
    /// Tokio's clock was paused, and stood still.
    Stuck,
}

/// Waits until the future is done, or this time is over by tokio's clock. A paused clock stands
/// still as long as anything is ready, perhaps for ever: real time decides then.
pub(super) async fn within<T>(
    time: Duration,
    standstill: Duration,
    future: impl Future<Output = T>,
) -> Wait<T> {
    let mut future = pin!(time::timeout(time, future));
    let (mut seen, mut since) = (time::Instant::now(), Instant::now());
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(result.map_or(Wait::Over, Wait::Done));
        }
        let now = time::Instant::now();
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= standstill {
            return Poll::Ready(Wait::Stuck);
        }
        Poll::Pending
    })
    .await
}
