//! [`SubscriptionHandle`]: adds channels to a running subscription, takes them away, and knows when it ends.

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

/// Changes the set of channels of a [`Subscription`](super::Subscription) that is running, and
/// tells when it has ended.
///
/// Made by [`Subscription::handle`](super::Subscription::handle); cheap to clone. What is asked
/// for takes effect when the stream is next polled.
///
/// ```
/// use axum_sse::{Hub, LastEventId};
///
/// let hub = Hub::new();
/// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
/// let control = lobby.handle();
/// control.add("room/42")?;
/// control.add_since("room/43", hub.newest())?;
/// control.remove("lobby");
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone)]
pub struct SubscriptionHandle(pub(super) Arc<Inner>);

pub(super) struct Inner {
    shared: Arc<Shared>,
    /// `None` once the stream has ended.
    wishes: Mutex<Option<Wishes>>,
    changed: AtomicBool,
    pub(super) waker: WakerSlot,
    ended: Notify,
}

struct Wishes {
    /// The channels that the subscription has.
    has: BTreeSet<Box<str>>,
    /// What is wanted of others, and which of these are to go: no more than it may have and has.
    wanted: BTreeMap<Box<str>, Wanted>,
}

impl Wishes {
    /// Whether it will have as many channels as it may, and not this one.
    fn is_full(&self, name: &str, most: usize) -> bool {
        let out = |wanted: &&Wanted| matches!(wanted, Wanted::Out);
        let out = self.wanted.values().filter(out).count();
        let channels = self.has.len() + self.wanted.len() - 2 * out;
        let keeps = self.has.contains(name) || self.wanted.contains_key(name);
        !keeps && channels >= most
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
        let wishes = Wishes {
            has,
            wanted: BTreeMap::new(),
        };
        Self(Arc::new(Inner {
            shared,
            wishes: Mutex::new(Some(wishes)),
            changed: AtomicBool::new(false),
            waker: WakerSlot::default(),
            ended: Notify::new(),
        }))
    }

    /// Adds a channel. It starts at the place where the connection stands when the stream is next
    /// polled: what was published before, also since this call, is not delivered. If the channel
    /// has a snapshot, that comes first.
    ///
    /// For its history, the client reconnects with the larger set, and with the id up to which it
    /// knows *all* of these channels (for a new one that is the start of the hub's life,
    /// `epoch-0`). It then also gets again what it has of the others since, and tells it by the ids.
    ///
    /// # Errors
    ///
    /// Those of [`Hub::channel`](crate::Hub::channel), but for the type;
    /// [`ErrorKind::TooManyChannels`] also if the subscription has as many channels as it may;
    /// [`ErrorKind::Closed`] if the stream has ended.
    pub fn add(&self, channel: impl AsRef<str>) -> Result<(), Error> {
        self.want_in(channel.as_ref(), None)
    }

    /// Adds a channel, for a client that knows it up to `id`. What lies between that and the
    /// place where the connection stands cannot be delivered any more, since ids only grow: if
    /// there is anything, a gap event (`unknown`) says how many, and
    /// [`OnGap`](crate::OnGap) what follows.
    ///
    /// # Errors
    ///
    /// As for [`add`](SubscriptionHandle::add).
    pub fn add_since(&self, channel: impl AsRef<str>, id: EventId) -> Result<(), Error> {
        self.want_in(channel.as_ref(), Some(id))
    }

    /// Takes a channel away. What has been handed to the connection may still arrive. Without
    /// effect if the stream has ended.
    pub fn remove(&self, channel: impl AsRef<str>) {
        let name = channel.as_ref();
        let mut wishes = lock(&self.0.wishes);
        let dropped = wishes.as_mut().and_then(|wishes| {
            if wishes.has.contains(name) {
                wishes.wanted.insert(name.into(), Wanted::Out)
            } else {
                wishes.wanted.remove(name)
            }
        });
        drop(wishes);
        drop(dropped);
        self.0.wake();
    }

    fn want_in(&self, name: &str, since: Option<EventId>) -> Result<(), Error> {
        let shared = &self.0.shared;
        // A channel that cannot be added is not made.
        self.0.check(name, &lock(&self.0.wishes))?;
        let channel = shared.registry.look_up(shared, name, None)?;
        let wanted = Wanted::In { channel, since };
        let mut wishes = lock(&self.0.wishes);
        let (outcome, left) = match (self.0.check(name, &wishes), &mut *wishes) {
            (Ok(()), Some(wishes)) if wishes.has.contains(name) => {
                // At most, it was to go.
                (Ok(()), wishes.wanted.remove(name).or(Some(wanted)))
            }
            (Ok(()), Some(wishes)) => (Ok(()), wishes.wanted.insert(name.into(), wanted)),
            (outcome, _) => (outcome, Some(wanted)),
        };
        drop(wishes);
        // Without the lock: it may be the last that holds its channel.
        drop(left);
        self.0.wake();
        outcome
    }

    /// Whether the stream has ended: its client has gone, or all its channels are closed, or it
    /// was refused, or dropped before it began.
    ///
    /// ```
    /// use axum_sse::{Hub, LastEventId};
    ///
    /// let hub = Hub::new();
    /// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
    /// let control = lobby.handle();
    /// assert!(!control.is_ended());
    /// drop(lobby);
    /// assert!(control.is_ended());
    /// ```
    #[must_use]
    pub fn is_ended(&self) -> bool {
        lock(&self.0.wishes).is_none()
    }

    /// Waits until the stream has ended; for presence, or to clean up behind a client. A client
    /// that vanishes without a word is noticed when a write fails.
    ///
    /// ```
    /// # use axum_sse::{Hub, LastEventId};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let hub = Hub::new();
    /// let mut lobby = hub.subscribe(["lobby"], LastEventId::Absent);
    /// let control = lobby.handle();
    /// let left = tokio::spawn(async move { control.ended().await });
    /// drop(lobby);
    /// left.await.unwrap();
    /// # }
    /// ```
    pub async fn ended(&self) {
        let mut notified = std::pin::pin!(self.0.ended.notified());
        // Before the look: whoever ends it later wakes this one.
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
    fn check(&self, name: &str, wishes: &Option<Wishes>) -> Result<(), Error> {
        let most = self.shared.settings.max_channels_per_subscription;
        match wishes {
            None => Err(Error::new(ErrorKind::Closed, "this event stream has ended")),
            Some(wishes) if wishes.is_full(name, most) => Err(Error::new(
                ErrorKind::TooManyChannels,
                format!(
                    "no room for channel {} on this connection: it has {most} already",
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
        lock(&self.wishes)
            .as_mut()
            .map(|wishes| {
                for (name, wanted) in &wishes.wanted {
                    match wanted {
                        Wanted::In { .. } => wishes.has.insert(name.clone()),
                        Wanted::Out => wishes.has.remove(name),
                    };
                }
                std::mem::take(&mut wishes.wanted)
            })
            .unwrap_or_default()
    }

    /// The stream is over: nothing is kept for it any more, nor its task.
    pub(super) fn end(&self) {
        let wishes = lock(&self.wishes).take();
        drop(wishes);
        drop(self.waker.take());
        self.ended.notify_waiters();
    }
}

impl fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionHandle").finish_non_exhaustive()
    }
}
