//! The locks and atomics of the crate: std's, or loom's in unit tests under
//! `--cfg axum_sse_loom`.
//!
//! The flag is our own, since the well-known `loom` flag switches off parts of tokio.

#[cfg(not(all(test, axum_sse_loom)))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard, Weak,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, axum_sse_loom))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
// loom's `Arc` has no `Weak`, and std's has no interleavings worth exploring.
#[cfg(all(test, axum_sse_loom))]
pub(crate) use std::sync::{Arc, Weak};

use std::sync::PoisonError;
use std::task::Waker;

/// Locks, and takes a poisoned lock as it is: no code of a user runs under any lock of this
/// crate, so there is no half-done change of theirs to protect anyone from.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where one task leaves its waker for another to take.
///
/// Whoever stores a waker looks at the state *after* storing it; whoever changes the state takes
/// the waker *after* changing it. The lock orders the two, so one of them sees the other.
#[derive(Debug, Default)]
pub(crate) struct WakerSlot(Mutex<Option<Waker>>);

impl WakerSlot {
    pub(crate) fn store(&self, waker: &Waker) {
        if lock(&self.0)
            .as_ref()
            .is_some_and(|stored| stored.will_wake(waker))
        {
            return;
        }
        // A waker's clone and drop are foreign code; neither runs under our lock.
        let new = waker.clone();
        let old = lock(&self.0).replace(new);
        drop(old);
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        lock(&self.0).take()
    }
}
