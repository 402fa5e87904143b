//! [`Control`]: adds channels to a running subscription, and takes them away.

use std::{collections::BTreeMap, fmt};

use crate::{
    error::Error,
    hub::{Shared, core::Held},
    id::EventId,
    sync::{Arc, AtomicBool, Mutex, Ordering, WakerSlot, lock},
};

/// Changes the set of channels of a [`Subscription`](super::Subscription) that is running.
///
/// Made by [`Subscription::control`](super::Subscription::control); cheap to clone. What is asked
/// for takes effect when the stream is next polled. If the stream has ended, nothing happens.
///
/// ```
/// use axum_sse::{Hub, LastEventId};
///
/// let hub = Hub::new();
/// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
/// let control = lobby.control();
/// control.add("room/42")?;
/// control.add_since("room/43", hub.newest())?;
/// control.remove("lobby");
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone)]
pub struct Control(pub(super) Arc<Inner>);

pub(super) struct Inner {
    shared: Arc<Shared>,
    /// What is wanted of each channel that was named since the last poll. The later word counts,
    /// so this is no longer than the list of names.
    /// `None` once the stream is over.
    wanted: Mutex<Option<BTreeMap<Box<str>, Wanted>>>,
    changed: AtomicBool,
    pub(super) waker: WakerSlot,
}

pub(super) enum Wanted {
    In { held: Held, since: Option<EventId> },
    Out,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner {
            shared,
            wanted: Mutex::new(Some(BTreeMap::new())),
            changed: AtomicBool::new(false),
            waker: WakerSlot::default(),
        }))
    }

    /// Adds a channel. It starts at the place where the connection stands when the stream is next
    /// polled: what was published before, also since this call, is not delivered.
    ///
    /// For its history, the client reconnects with the larger set, and with the id up to which it
    /// knows *all* of these channels (for a new one that is the start of the hub's life,
    /// `hi-0`). It then also gets again what it has of the others since, and tells it by the ids.
    ///
    /// # Errors
    ///
    /// Those of [`Hub::channel`](crate::Hub::channel), but for the type.
    pub fn add(&self, channel: impl AsRef<str>) -> Result<(), Error> {
        self.want_in(channel.as_ref(), None)
    }

    /// Adds a channel, for a client that knows it up to `id`. What lies between that and the
    /// place where the connection stands cannot be delivered any more, since ids only grow: if
    /// there is anything, a gap event (`unknown`) says how many.
    ///
    /// # Errors
    ///
    /// As for [`add`](Control::add).
    pub fn add_since(&self, channel: impl AsRef<str>, id: EventId) -> Result<(), Error> {
        self.want_in(channel.as_ref(), Some(id))
    }

    /// Takes a channel away. What has been handed to the connection may still arrive.
    pub fn remove(&self, channel: impl AsRef<str>) {
        self.want(channel.as_ref(), Wanted::Out);
    }

    fn want_in(&self, name: &str, since: Option<EventId>) -> Result<(), Error> {
        let shared = &self.0.shared;
        let held = shared.registry.look_up(shared, name, None)?;
        self.want(name, Wanted::In { held, since });
        Ok(())
    }

    fn want(&self, name: &str, wanted: Wanted) {
        let mut map = lock(&self.0.wanted);
        let dropped = match &mut *map {
            Some(map) => map.insert(name.into(), wanted),
            None => Some(wanted),
        };
        drop(map);
        drop(dropped);
        self.0.changed.store(true, Ordering::Release);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl Inner {
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    pub(super) fn take(&self) -> BTreeMap<Box<str>, Wanted> {
        self.changed.store(false, Ordering::Release);
        lock(&self.wanted)
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// The stream is over: nothing is kept for it any more.
    pub(super) fn end(&self) {
        let wanted = lock(&self.wanted).take();
        drop(wanted);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
