//! [`Shutdown`]: one handle that ends all open streams.

use std::{
    fmt,
    future::{Future, poll_fn},
    task::{Context, Poll},
};

use slab::Slab;

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, WakerSlot, lock};

/// Ends all open streams, so that a server can stop.
///
/// An event stream never ends by itself, and a graceful shutdown waits for every response: with
/// one browser tab open, `axum::serve(..).with_graceful_shutdown(..)` would not return. Give a
/// clone of this handle to [`SseLayer::shutdown`](crate::SseLayer::shutdown), and make the
/// server's signal pass through [`on`](Shutdown::on):
///
/// ```no_run
/// # #[cfg(feature = "layer")]
/// # async fn serve(streams: axum::Router, page: axum::Router) -> std::io::Result<()> {
/// use axum_sse::{Shutdown, SseLayer};
///
/// let shutdown = Shutdown::new();
/// let app = page.merge(streams.layer(SseLayer::new().shutdown(shutdown.clone())));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
/// axum::serve(listener, app)
///     .with_graceful_shutdown(shutdown.on(ctrl_c))
///     .await
/// # }
/// ```
///
/// It stays begun: a stream that starts afterwards ends at once (with a 200, since an
/// `EventSource` never comes back after anything else).
///
/// Cheap to clone; all clones are one handle.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: AtomicBool,
    waiting: Mutex<Slab<Arc<WakerSlot>>>,
}

impl Shutdown {
    /// A handle that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all streams. Calling it again changes nothing.
    pub fn begin(&self) {
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
    }

    /// Whether [`begin`](Shutdown::begin) has been called.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst)
    }

    /// A future that waits for `signal`, then begins the shutdown, and ends. If the shutdown is
    /// begun by other means, it ends too.
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

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.0.waiting).len()
    }

    /// Registers one that will be woken. Taken once per stream, not per poll.
    pub(crate) fn wait(&self) -> Waiting {
        let slot = Arc::new(WakerSlot::default());
        let key = lock(&self.0.waiting).insert(slot.clone());
        Waiting {
            shutdown: self.clone(),
            slot,
            key,
        }
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("begun", &self.has_begun())
            .finish_non_exhaustive()
    }
}

/// One registration; leaves the list when it is dropped.
pub(crate) struct Waiting {
    shutdown: Shutdown,
    slot: Arc<WakerSlot>,
    key: usize,
}

impl Waiting {
    /// Ready once the shutdown has begun.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shutdown.has_begun() {
            return Poll::Ready(());
        }
        // Stored first, asked again after: `begin` does it the other way round.
        self.slot.store(cx.waker());
        if self.shutdown.has_begun() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let slot = lock(&self.shutdown.0.waiting).try_remove(self.key);
        drop(slot);
    }
}
