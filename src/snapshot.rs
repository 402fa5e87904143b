//! [`Snapshots`]: how a channel comes by the state that its events change.
//!
//! One flight at a time: whoever asks while a snapshot is being made waits for that one, and one
//! that is done serves until something is published behind it.

use std::{fmt, future::Future, pin::Pin};

use serde::Serialize;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    error::{BoxError, Error},
    frame,
    id::EventId,
    sync::{Arc, Mutex, lock},
};

/// A state, and the id that it stands at.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: EventId,
    /// The state as `data` lines.
    pub(crate) data: Vec<u8>,
}

impl Snapshot {
    pub(crate) fn of<S: Serialize + ?Sized>(id: EventId, state: &S) -> Result<Self, Error> {
        let mut data = Vec::new();
        frame::json(&mut data, state)?;
        Ok(Self { id, data })
    }
}

pub(crate) type Making = Pin<Box<dyn Future<Output = Result<Snapshot, BoxError>> + Send>>;

/// A snapshot on its way; `None` if it could not be made.
pub(crate) type Flight = Pin<Box<dyn Future<Output = Option<Arc<Snapshot>>> + Send>>;

type Landed = Option<Option<Arc<Snapshot>>>;

#[derive(Clone)]
pub(crate) struct Snapshots(Arc<Inner>);

struct Inner {
    make: Box<dyn Fn() -> Making + Send + Sync>,
    last: Mutex<Option<watch::Receiver<Landed>>>,
}

impl Snapshots {
    pub(crate) fn new(make: impl Fn() -> Making + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            make: Box::new(make),
            last: Mutex::new(None),
        }))
    }

    /// A snapshot that stands at `newest` or behind it, or the one that is being made.
    ///
    /// It is made in a task of its own, so that a client that goes away does not take it from
    /// the others. That takes a runtime: without one, there is no snapshot.
    pub(crate) fn get(&self, newest: EventId) -> Flight {
        let mut receiver = {
            let mut last = lock(&self.0.last);
            match last.as_ref().filter(|receiver| serves(receiver, newest)) {
                Some(receiver) => receiver.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    let before = last.replace(receiver.clone());
                    drop(last);
                    // A whole state, maybe the last reference to it.
                    drop(before);
                    self.launch(sender);
                    receiver
                }
            }
        };
        Box::pin(async move {
            // An error means that the task has panicked, or its runtime is gone.
            let landed = receiver.wait_for(Option::is_some).await.ok()?;
            landed.clone().flatten()
        })
    }

    fn launch(&self, sender: watch::Sender<Landed>) {
        let snapshots = self.clone();
        // Without a runtime the sender is dropped: the flight goes down at once.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let made = match (snapshots.0.make)().await {
                Ok(snapshot) => Some(Arc::new(snapshot)),
                Err(_error) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(error = %_error, "a channel's snapshot could not be made");
                    None
                }
            };
            sender.send_replace(Some(made));
        });
    }
}

/// Whether a flight is still under way, or has brought what is up to date.
fn serves(receiver: &watch::Receiver<Landed>, newest: EventId) -> bool {
    match &*receiver.borrow() {
        // The sender of a flight that went down is gone.
        None => receiver.has_changed().is_ok(),
        Some(made) => made.as_ref().is_some_and(|snapshot| snapshot.id >= newest),
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}
