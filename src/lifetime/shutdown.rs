//! [`Shutdown`]: one handle that ends all open streams.

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

/// Nobody drains for longer, and it keeps the sums within what the clock can count.
const MAX_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Ends all open streams, so that a server can stop.
///
/// An event stream never ends by itself, and a graceful shutdown waits for every response: with
/// one browser tab open, `axum::serve(..).with_graceful_shutdown(..)` would not return. Give a
/// clone of this handle to [`SseLayer::shutdown`](crate::SseLayer::shutdown), and make the
/// server's signal pass through [`on`](Shutdown::on). If it is not given to the layer, no stream
/// ends, and the server waits for ever (with the features `listener` and `tracing`, a warning
/// says so):
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
/// Every stream ends with a `retry` of its own, so that its client comes back two to four
/// seconds later and not in the same instant as all others. The handle stays begun: a stream
/// that starts afterwards gets that and ends at once (with a 200, since an `EventSource` never
/// comes back after anything else).
///
/// A client that does not read cannot be ended from within a response: the server is not asked
/// for more bytes of it. That takes a listener from
#[cfg_attr(feature = "listener", doc = "[`listener`](crate::listener).")]
#[cfg_attr(not(feature = "listener"), doc = "the feature `listener`.")]
///
/// Cheap to clone; all clones are one handle.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    drain: Duration,
    begun: AtomicBool,
    /// Set before `begun` is.
    since: Mutex<Option<Instant>>,
    waiting: Mutex<Slab<Arc<WakerSlot>>>,
    streams: AtomicUsize,
    #[cfg(all(feature = "listener", feature = "tracing"))]
    late: late::Late,
}

impl Shutdown {
    /// A handle that has not begun, and ends all streams at once when it does.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that ends the streams one by one, each at a moment of its own within `time` (up
    /// to a day), so that whoever takes over gets their clients one by one. Streams that start
    /// meanwhile still end at once.
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

    /// Ends all streams, or begins to. Calling it again changes nothing.
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

    /// A future that waits for `signal`, then begins the shutdown, and ends. If the shutdown is
    /// begun by other means, it ends too.
    ///
    /// It is what `with_graceful_shutdown` takes. The server then stops accepting first, so
    /// that nobody whose stream ends comes back to this process, and returns when the last
    /// stream has ended.
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

    /// As [`on`](Shutdown::on), but ends only when the time to drain is over: the server
    /// accepts until then. For a node that its load balancer has taken out already and that
    /// still has to answer, a health check for instance.
    ///
    /// Where clients reach the node directly, take `on`: with this one they come back to it, and
    /// are sent away again every few seconds.
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

    /// When a stream ends that is due behind this share of the time to drain. `None` before it
    /// has begun.
    pub(crate) fn moment(&self, share: f64) -> Option<Instant> {
        let since = (*lock(&self.0.since))?;
        Some(since + self.0.drain.mul_f64(share))
    }

    /// How many streams are open that wait for this shutdown.
    #[cfg(any(test, feature = "listener"))]
    pub(crate) fn streams(&self) -> usize {
        self.0.streams.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.0.waiting).len()
    }

    /// Registers one that will be woken. Taken once, not per poll.
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

    /// As `wait`, and counts as a stream.
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

/// What keeps a server from stopping is logged, since it can wait for ever without a word.
#[cfg(all(feature = "listener", feature = "tracing"))]
mod late {
    use std::time::Duration;

    use tokio::{runtime::Handle, time::sleep_until};

    use super::{AtomicBool, AtomicUsize, Ordering, Shutdown};

    /// How long after the last stream should have ended.
    const LATE: Duration = Duration::from_secs(5);

    #[derive(Default)]
    pub(super) struct Late {
        has_layer: AtomicBool,
        connections: AtomicUsize,
        watched: AtomicBool,
    }

    /// A connection of a listener that knows of the shutdown.
    pub(crate) struct OpenConnection(Shutdown);

    impl Shutdown {
        /// A layer ends its streams.
        pub(crate) fn given_to_a_layer(&self) {
            self.0.late.has_layer.store(true, Ordering::Relaxed);
        }

        pub(crate) fn count_connection(&self) -> OpenConnection {
            self.0.late.connections.fetch_add(1, Ordering::Relaxed);
            OpenConnection(self.clone())
        }

        /// One task, which waits. If the shutdown is begun outside of a runtime, the future of
        /// `on` calls this again from within one.
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

/// One registration; leaves the list when it is dropped.
pub(crate) struct Waiting {
    shutdown: Shutdown,
    slot: Arc<WakerSlot>,
    /// What the slot was given last: polls are frequent, and hardly ever bring another waker.
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
        // Stored first, asked again after: `begin` does it the other way round.
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
