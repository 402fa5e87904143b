//! Timeouts that also work while tokio's clock is paused.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time;

pub(super) enum Wait<T> {
    Done(T),
    TimedOut,
    /// Tokio's clock was paused and could not advance.
    Stuck,
}

/// Waits until the future is done or `time` has passed on tokio's clock. A paused clock does not
/// advance while any task is ready, so `standstill` limits in real time how long it may stop.
pub(super) async fn within<T>(
    time: Duration,
    standstill: Duration,
    future: impl Future<Output = T>,
) -> Wait<T> {
    let mut future = pin!(time::timeout(time, future));
    let (mut seen, mut since) = (time::Instant::now(), Instant::now());
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(result.map_or(Wait::TimedOut, Wait::Done));
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
