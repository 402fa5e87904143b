//! [`Shutdown`]: one handle that ends all open streams, and what waits for it.

use std::{
    fmt,
    future::{Future, poll_fn},
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::time::{Instant, sleep_until};

#[cfg(all(feature = "listener", feature = "tracing"))]
pub(crate) use late::OpenConnection;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, WakerSlot, lock};

/// Upper bound on the drain time. It keeps sums within what the clock can represent.
const MAX_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Ends all open streams, so that a server can stop.
///
/// An event stream never ends by itself, and a graceful shutdown waits for every response: with
/// one browser tab open, `axum::serve(..).with_graceful_shutdown(..)` would not return. Give a
/// clone of this handle to [`SseLayer::shutdown`](crate::SseLayer::shutdown), and wrap the
/// server's signal in [`on`](Shutdown::on). Without the layer, no stream ends and the server
/// waits forever (with the features `listener` and `tracing`, it logs a warning):
///
/// ```no_run
/// # #[cfg(feature = "layer")]
/// # async fn serve(streams: axum::Router, page: axum::Router) -> std::io::Result<()> {
/// use axum_sse::{Shutdown, SseLayer};
///
/// let shutdown = Shutdown::new();
/// let app = page.merge(streams.route_layer(SseLayer::new().shutdown(shutdown.clone())));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// axum::serve(listener, app)
///     .with_graceful_shutdown(shutdown.on(ctrl_c))
///     .await
/// # }
/// ```
///
/// The last bytes of every stream are a `retry` with a random time, so that clients come back
/// two to four seconds later and not all at once. A shutdown cannot be undone: a stream that
/// starts afterwards gets a 200 with such a `retry` and ends at once. (The status is 200 because
/// an `EventSource` does not reconnect after any other.)
///
/// The stream of a client that does not read cannot be ended by its response body, because the
/// server stops polling it. To close such connections, use a listener from
#[cfg_attr(feature = "listener", doc = "[`listener`](crate::listener).")]
#[cfg_attr(not(feature = "listener"), doc = "the feature `listener`.")]
///
/// Cloning is cheap, and all clones are the same handle.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    drain: Duration,
    begun: AtomicBool,
    /// When it began; set before `begun`.
    since: Mutex<Option<Instant>>,
    waiting: Mutex<Slab<Arc<WakerSlot>>>,
    streams: AtomicUsize,
    #[cfg(all(feature = "listener", feature = "tracing"))]
    late: late::Late,
}

impl Shutdown {
    /// A handle that ends all streams at once when the shutdown begins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that ends each stream at a random time within `time` (at most a day) after the
    /// shutdown has begun, so that other servers do not get all clients at once. Streams that
    /// start during that time still end at once.
    ///
    /// ```
    /// use axum_sse::Shutdown;
    /// use std::time::Duration;
    ///
    /// let shutdown = Shutdown::draining(Duration::from_secs(20));
    /// # let _ = shutdown;
    /// ```
    #[must_use]
    pub fn draining(time: Duration) -> Self {
        Self(Arc::new(Inner {
            drain: time.min(MAX_DRAIN),
            ..Inner::default()
        }))
    }

    /// Begins the shutdown. Further calls have no effect.
    ///
    /// ```
    /// let shutdown = axum_sse::Shutdown::new();
    /// assert!(!shutdown.has_begun());
    /// shutdown.begin();
    /// assert!(shutdown.has_begun());
    /// ```
    pub fn begin(&self) {
        lock(&self.0.since).get_or_insert_with(Instant::now);
        self.0.begun.store(true, Ordering::SeqCst);
        let waiting: Vec<_> = lock(&self.0.waiting)
            .iter()
            .map(|(_, slot)| slot.clone())
            .collect();
        for slot in waiting {
            if let Some(waker) = slot.take() {
                waker.wake();
            }
        }
        #[cfg(all(feature = "listener", feature = "tracing"))]
        self.warn_if_late();
    }

    /// Whether [`begin`](Shutdown::begin) has been called.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst)
    }

    /// A future that waits for `signal`, begins the shutdown, and completes. It also completes if
    /// the shutdown is begun in another way.
    ///
    /// Pass it to `with_graceful_shutdown`. The server then stops accepting connections first, so
    /// clients do not reconnect to this process, and returns when the last stream has ended.
    pub fn on<F>(&self, signal: F) -> impl Future<Output = ()> + Send + 'static + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.clone();
        async move {
            let mut signal = Box::pin(signal);
            let mut waiting = shutdown.wait();
            poll_fn(|cx| match waiting.poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => signal.as_mut().poll(cx),
            })
            .await;
            shutdown.begin();
        }
    }

    /// Like [`on`](Shutdown::on), but completes only when the drain time is over; until then, the
    /// server accepts connections. Use it for a node that its load balancer has already removed
    /// and that still has to answer health checks, for example.
    ///
    /// If clients reach the node directly, use `on`: with this method they would reconnect to the
    /// same node every few seconds until it stops.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use axum_sse::Shutdown;
    /// use std::time::Duration;
    ///
    /// let shutdown = Shutdown::draining(Duration::from_secs(20));
    /// let start = tokio::time::Instant::now();
    /// shutdown.on_drained(async {}).await;
    /// assert!(start.elapsed() >= Duration::from_secs(20));
    /// # }
    /// ```
    pub fn on_drained<F>(&self, signal: F) -> impl Future<Output = ()> + Send + 'static + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (shutdown, begun) = (self.clone(), self.on(signal));
        async move {
            begun.await;
            if let Some(end) = shutdown.moment(1.0) {
                sleep_until(end).await;
            }
        }
    }

    /// When a stream with this share of the drain time ends. `None` before the shutdown has begun.
    pub(crate) fn moment(&self, share: f64) -> Option<Instant> {
        let since = (*lock(&self.0.since))?;
        Some(since + self.0.drain.mul_f64(share))
    }

    /// How many open streams wait for this shutdown.
    #[cfg(any(test, feature = "listener"))]
    pub(crate) fn streams(&self) -> usize {
        self.0.streams.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.0.waiting).len()
    }

    /// Registers a waiter. Call it once per waiter, not per poll.
    pub(crate) fn wait(&self) -> Waiting {
        let slot = Arc::new(WakerSlot::default());
        let key = lock(&self.0.waiting).insert(slot.clone());
        Waiting {
            shutdown: self.clone(),
            slot,
            stored: None,
            key,
            is_stream: false,
        }
    }

    /// Like `wait`, and counted by `streams`.
    #[cfg(feature = "layer")]
    pub(crate) fn wait_as_stream(&self) -> Waiting {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.wait();
        waiting.is_stream = true;
        waiting
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("begun", &self.has_begun())
            .field("drain", &self.0.drain)
            .finish_non_exhaustive()
    }
}

/// Logs what keeps a server from stopping, which could otherwise wait forever without a message.
#[cfg(all(feature = "listener", feature = "tracing"))]
mod late {
    use std::time::Duration;

    use tokio::{runtime::Handle, time::sleep_until};

    use super::{AtomicBool, AtomicUsize, Ordering, Shutdown};

    /// How long after the last stream should have ended the warning is logged.
    const LATE: Duration = Duration::from_secs(5);

    #[derive(Default)]
    pub(super) struct Late {
        has_layer: AtomicBool,
        connections: AtomicUsize,
        watched: AtomicBool,
    }

    /// An open connection of a listener that has this shutdown.
    pub(crate) struct OpenConnection(Shutdown);

    impl Shutdown {
        /// A layer ends streams on this shutdown.
        pub(crate) fn given_to_a_layer(&self) {
            self.0.late.has_layer.store(true, Ordering::Relaxed);
        }

        pub(crate) fn count_connection(&self) -> OpenConnection {
            self.0.late.connections.fetch_add(1, Ordering::Relaxed);
            OpenConnection(self.clone())
        }

        /// Spawns one task that waits. If the shutdown is begun outside of a runtime, nothing is
        /// spawned; the future of `on` calls this again inside one.
        pub(super) fn warn_if_late(&self) {
            let late = &self.0.late;
            let (Ok(runtime), Some(end)) = (Handle::try_current(), self.moment(1.0)) else {
                return;
            };
            if late.connections.load(Ordering::Relaxed) == 0
                || late.watched.swap(true, Ordering::Relaxed)
            {
                return;
            }
            let shutdown = self.clone();
            drop(runtime.spawn(async move {
                sleep_until(end + LATE).await;
                let late = &shutdown.0.late;
                let connections = late.connections.load(Ordering::Relaxed);
                if connections == 0 {
                    return;
                }
                let seconds = LATE.as_secs();
                if late.has_layer.load(Ordering::Relaxed) {
                    tracing::warn!(
                        connections,
                        "connections are still open {seconds} s after all streams should have \
                         ended: a request is still being answered, or a stream has no `SseLayer` \
                         that knows of the shutdown"
                    );
                } else {
                    tracing::warn!(
                        connections,
                        "connections are still open {seconds} s after the shutdown began: give \
                         the `Shutdown` to `SseLayer::shutdown` too, or no stream ends"
                    );
                }
            }));
        }
    }

    impl Drop for OpenConnection {
        fn drop(&mut self) {
            self.0.0.late.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One waiter's registration; dropping it removes it from the list.
pub(crate) struct Waiting {
    shutdown: Shutdown,
    slot: Arc<WakerSlot>,
    /// A copy of the waker in the slot. Polls are frequent and rarely come with another waker, so
    /// this usually saves taking the slot's lock.
    stored: Option<Waker>,
    key: usize,
    is_stream: bool,
}

impl Waiting {
    /// Ready once the shutdown has begun.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shutdown.has_begun() {
            return Poll::Ready(());
        }
        let is_stored = self.stored.as_ref();
        if is_stored.is_some_and(|stored| stored.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        // Store first, then check again. `begin` sets the flag first and then takes the wakers,
        // so one of the two sees the other.
        self.slot.store(cx.waker());
        self.stored = Some(cx.waker().clone());
        if self.shutdown.has_begun() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    #[cfg(feature = "layer")]
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let slot = lock(&self.shutdown.0.waiting).try_remove(self.key);
        drop(slot);
        if self.is_stream {
            self.shutdown.0.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
