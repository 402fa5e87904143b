//! [`SubscriptionHandle`]: adds and removes channels of an open stream, and waits for its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use tokio::sync::Notify;

use crate::{
    channel::{shared::Shared, state::ChannelHandle},
    error::{Error, ErrorKind},
    event::{EventId, id::quoted},
    sync::{Arc, AtomicBool, Mutex, Ordering, WakerSlot, lock},
};

/// Adds and removes channels of an open [`Subscription`](super::Subscription), and reports its end.
///
/// Created by [`Subscription::handle`](super::Subscription::handle); cheap to clone. Changes take
/// effect when the stream is next polled.
///
/// ```
/// use axum_sse::{Hub, LastEventId};
///
/// let hub = Hub::new();
/// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
/// let handle = lobby.handle();
/// handle.add("room/42")?;
/// handle.add_since("room/43", hub.newest())?;
/// handle.remove("lobby");
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone)]
pub struct SubscriptionHandle(pub(super) Arc<Inner>);

pub(super) struct Inner {
    shared: Arc<Shared>,
    /// `None` once the stream has ended.
    requests: Mutex<Option<Requests>>,
    changed: AtomicBool,
    pub(super) waker: WakerSlot,
    ended: Notify,
}

struct Requests {
    /// The channels that the subscription has.
    has: BTreeSet<Box<str>>,
    /// Other channels to add, and some of `has` to remove.
    wanted: BTreeMap<Box<str>, Wanted>,
}

impl Requests {
    /// Whether one more channel would exceed the limit. A channel that is known already does not
    /// count as one more.
    fn is_full(&self, name: &str, limit: usize) -> bool {
        let is_out = |wanted: &&Wanted| matches!(wanted, Wanted::Out);
        let out = self.wanted.values().filter(is_out).count();
        // Each removal is in both collections.
        let channels = self.has.len() + self.wanted.len() - 2 * out;
        let is_known = self.has.contains(name) || self.wanted.contains_key(name);
        !is_known && channels >= limit
    }
}

pub(super) enum Wanted {
    In {
        channel: ChannelHandle,
        since: Option<EventId>,
    },
    Out,
}

impl SubscriptionHandle {
    pub(super) fn new(shared: Arc<Shared>, has: BTreeSet<Box<str>>) -> Self {
        let requests = Requests {
            has,
            wanted: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            shared,
            requests: Mutex::new(Some(requests)),
            changed: AtomicBool::new(false),
            waker: WakerSlot::default(),
            ended: Notify::new(),
        }))
    }

    /// Adds a channel. Its snapshot is sent, if it has one, and its events from the connection's
    /// current position on. Events that are published before the stream is next polled, even after
    /// this call, are not delivered.
    ///
    /// To receive older events of the channel, the client must reconnect to all the channels, with
    /// an id up to which it has the events of *all* of them (for a new channel, that is the hub's
    /// start, `epoch-0`). It then receives some events of the other channels twice, with the same
    /// ids.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Closed`] if the stream has ended.
    /// - [`ErrorKind::TooManyChannels`] if the hub is full and no channel is idle, or if the
    ///   subscription has the maximum number of channels.
    /// - [`ErrorKind::InvalidName`] if the name is longer than 1 KiB.
    pub fn add(&self, channel: impl AsRef<str>) -> Result<(), Error> {
        self.want_in(channel.as_ref(), None)
    }

    /// Adds a channel, for a client that has its events up to `id`. Later events from before the
    /// connection's current position cannot be delivered, because ids on a connection only grow. If
    /// there are any, a gap event (`unknown`) reports their number, and then
    /// [`OnGap`](crate::OnGap) applies.
    ///
    /// # Errors
    ///
    /// As for [`add`](SubscriptionHandle::add).
    pub fn add_since(&self, channel: impl AsRef<str>, id: EventId) -> Result<(), Error> {
        self.want_in(channel.as_ref(), Some(id))
    }

    /// Removes a channel. Events that were already handed to the connection can still arrive. Has
    /// no effect if the stream has ended.
    pub fn remove(&self, channel: impl AsRef<str>) {
        let name = channel.as_ref();
        let mut requests = lock(&self.0.requests);
        let dropped = requests.as_mut().and_then(|requests| {
            if requests.has.contains(name) {
                requests.wanted.insert(name.into(), Wanted::Out)
            } else {
                requests.wanted.remove(name)
            }
        });
        drop(requests);
        drop(dropped);
        self.0.wake();
    }

    fn want_in(&self, name: &str, since: Option<EventId>) -> Result<(), Error> {
        let shared = &self.0.shared;
        // Checked first, so that a channel that cannot be added is not created.
        self.0.check(name, &lock(&self.0.requests))?;
        let channel = shared.registry.look_up(shared, name, None)?;
        let wanted = Wanted::In { channel, since };
        let mut requests = lock(&self.0.requests);
        let (outcome, left) = match (self.0.check(name, &requests), &mut *requests) {
            (Ok(()), Some(requests)) if requests.has.contains(name) => {
                // Cancel its removal, if requested.
                (Ok(()), requests.wanted.remove(name).or(Some(wanted)))
            }
            (Ok(()), Some(requests)) => (Ok(()), requests.wanted.insert(name.into(), wanted)),
            (outcome, _) => (outcome, Some(wanted)),
        };
        drop(requests);
        // After the lock: this can be the last handle of its channel.
        drop(left);
        self.0.wake();
        outcome
    }

    /// Whether the stream has ended: because its client disconnected, all its channels are closed,
    /// it was refused, or it was dropped before it began.
    ///
    /// ```
    /// use axum_sse::{Hub, LastEventId};
    ///
    /// let hub = Hub::new();
    /// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
    /// let handle = lobby.handle();
    /// assert!(!handle.is_ended());
    /// drop(lobby);
    /// assert!(handle.is_ended());
    /// ```
    #[must_use]
    pub fn is_ended(&self) -> bool {
        lock(&self.0.requests).is_none()
    }

    /// Waits until the stream has ended, for instance to show who is present or to clean up. The
    /// loss of a connection is only noticed when a write fails, at a heartbeat or an event.
    ///
    /// ```
    /// # use axum_sse::{Hub, LastEventId};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let hub = Hub::new();
    /// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
    /// let handle = lobby.handle();
    /// let left = tokio::spawn(async move { handle.ended().await });
    /// drop(lobby);
    /// left.await.unwrap();
    /// # }
    /// ```
    pub async fn ended(&self) {
        let mut notified = std::pin::pin!(self.0.ended.notified());
        // Before the check, so that an end after it wakes this future.
        notified.as_mut().enable();
        if !self.is_ended() {
            notified.await;
        }
    }
}

impl Inner {
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Whether a channel may be added.
    fn check(&self, name: &str, requests: &Option<Requests>) -> Result<(), Error> {
        let limit = self.shared.settings.max_channels_per_subscription;
        match requests {
            None => Err(Error::new(ErrorKind::Closed, "this event stream has ended")),
            Some(requests) if requests.is_full(name, limit) => Err(Error::new(
                ErrorKind::TooManyChannels,
                format!(
                    "no room for channel {}: this stream already has the maximum of {limit}",
                    quoted(name)
                ),
            )),
            Some(_) => Ok(()),
        }
    }

    fn wake(&self) {
        self.changed.store(true, Ordering::Release);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn take(&self) -> BTreeMap<Box<str>, Wanted> {
        self.changed.store(false, Ordering::Release);
        lock(&self.requests)
            .as_mut()
            .map(|requests| {
                for (name, wanted) in &requests.wanted {
                    match wanted {
                        Wanted::In { .. } => requests.has.insert(name.clone()),
                        Wanted::Out => requests.has.remove(name),
                    };
                }
                std::mem::take(&mut requests.wanted)
            })
            .unwrap_or_default()
    }

    /// Marks the end of the stream. Releases its channels and its task.
    pub(super) fn end(&self) {
        let requests = lock(&self.requests).take();
        drop(requests);
        drop(self.waker.take());
        self.ended.notify_waiters();
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle").finish_non_exhaustive()
    }
}
