//! Locks and atomics: those of std, or those of loom in unit tests with `--cfg axum_sse_loom`.
//!
//! The flag has its own name because the usual `loom` flag disables parts of tokio.

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

/// Locks, and ignores poisoning: no user code runs under these locks, so a panic of user code
/// cannot leave the data half changed.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slot in which one task stores its waker for another.
///
/// The waiting task must check the state *after* it stores its waker, and the waking task must take
/// the waker *after* it changes the state. The lock orders the two, so no wake-up is lost.
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
        // The clone and the drop of a waker can run any code, so neither runs under the lock.
        let new = waker.clone();
        let old = lock(&self.0).replace(new);
        drop(old);
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        lock(&self.0).take()
    }
}
