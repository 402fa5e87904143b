//! [`Hub`]: many channels, one id clock, one task for wake-ups and heartbeats.
//!
//! [`Shared`] is what the channels of a hub have in common. A stand-alone channel has a `Shared`
//! to itself.

use std::{any::TypeId, collections::HashSet, fmt};

use serde::Serialize;

use crate::{
    channel::{
        Channel, builder::HubBuilder, registry::ValueKind, shared::Shared, state::ChannelHandle,
        stats::Stats, subscription::Subscription,
    },
    error::Error,
    event::EventId,
    last_event_id::LastEventId,
    sync::Arc,
};

/// Many channels of which one connection can carry any set, resumed by the one id it saw last.
///
/// Chat rooms, a channel per user, prices by symbol: each name is a [`Channel`] of its own, and
/// all of them share one id clock. An id seen on any of them is a point in time for all.
///
/// ```
/// use axum::{extract::{Path, State}, response::IntoResponse};
/// use axum_sse::{Channel, Hub, LastEventId};
///
/// async fn rooms(
///     State(hub): State<Hub>,
///     Path((room, user)): Path<(u32, u32)>,
///     last: LastEventId,
/// ) -> impl IntoResponse {
///     hub.subscribe([format!("room/{room}"), format!("user/{user}")], last)
/// }
///
/// let hub = Hub::builder().capacity(10_000).build();
/// let room: Channel<str> = hub.channel("room/42")?;
/// room.publish("hello, all")?;
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// **Channels** are made on first use, whether to publish or to subscribe; only publishing makes
/// them hold memory. One that nobody holds or subscribes to is retired after a while
/// ([`retire_after`](HubBuilder::retire_after)), with its events; a client that comes back to it
/// with an older id gets a gap event (`unknown`). Their number is bounded
/// ([`max_channels`](HubBuilder::max_channels)): at the bound the channel that has been idle the
/// longest is retired, and if none is idle, [`channel`](Hub::channel) is an error. A channel with
/// a [`snapshot`](Channel::snapshot) is not retired before it is closed.
///
/// **Whoever may not read a channel must not subscribe to it**: a hub knows no permissions. Check
/// them in the handler, at each request; a reconnect is one.
///
/// Cheap to clone; may live in a `static` and serve several runtimes.
#[derive(Clone)]
pub struct Hub(pub(super) Arc<Shared>);

impl Hub {
    /// A hub with the defaults of [`HubBuilder`].
    ///
    /// ```
    /// let hub = axum_sse::Hub::new();
    /// # let _ = hub;
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts from the defaults and sets what differs.
    ///
    /// ```
    /// use axum_sse::Hub;
    ///
    /// let hub = Hub::builder().max_channels(1000).build();
    /// # let _ = hub;
    /// ```
    pub fn builder() -> HubBuilder {
        HubBuilder::new()
    }

    /// The channel of that name, made if there is none.
    ///
    /// ```
    /// use axum_sse::{Channel, ErrorKind, Hub};
    ///
    /// let hub = Hub::new();
    /// let room: Channel<str> = hub.channel("room/42")?;
    /// room.publish("hello, all")?;
    /// assert_eq!(hub.channel::<u64>("room/42").unwrap_err().kind(), ErrorKind::OtherType);
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OtherType`](crate::ErrorKind::OtherType) if the channel publishes values of
    /// another type than `T`, or names its events after their variants and the hub's channels
    /// by default do not (see [`named_channel`](Hub::named_channel)),
    /// [`ErrorKind::TooManyChannels`](crate::ErrorKind::TooManyChannels)
    /// if the hub is full and no channel is idle,
    /// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName) if the name is longer than
    /// 1 KiB.
    pub fn channel<T>(&self, name: impl AsRef<str>) -> Result<Channel<T>, Error>
    where
        T: Serialize + ?Sized + 'static,
    {
        self.handle(name.as_ref(), self.0.settings.named)
    }

    /// The channel of that name, made if there is none, whose events bear the names of their enum
    /// variants (see [`HubBuilder::named`]).
    ///
    /// All handles of one channel agree on that: it is not for one of them to forget. For a hub
    /// whose channels are all like this, set [`HubBuilder::named`] on the hub; then
    /// [`channel`](Hub::channel) does the same.
    ///
    /// ```
    /// # use axum_sse::{ErrorKind, Hub, LastEventId, Start, testing::Reader};
    /// #[derive(serde::Serialize)]
    /// #[serde(rename_all = "kebab-case")]
    /// enum Chat { Said(String) }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let hub = Hub::new();
    /// hub.named_channel("room/42")?.publish(&Chat::Said("hello".into()))?;
    /// let other = hub.channel::<Chat>("room/42").unwrap_err();
    /// assert_eq!(other.kind(), ErrorKind::OtherType);
    ///
    /// let room = hub.subscribe(["room/42"], LastEventId::Absent).start(Start::Oldest);
    /// assert_eq!(Reader::new(room).expect_named("said").await.data, r#""hello""#);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`channel`](Hub::channel); [`ErrorKind::OtherType`](crate::ErrorKind::OtherType)
    /// if the channel does not name its events.
    pub fn named_channel<T>(&self, name: impl AsRef<str>) -> Result<Channel<T>, Error>
    where
        T: Serialize + ?Sized + 'static,
    {
        self.handle(name.as_ref(), true)
    }

    fn handle<T>(&self, name: &str, named: bool) -> Result<Channel<T>, Error>
    where
        T: Serialize + ?Sized + 'static,
    {
        let value = TypeId::of::<T>();
        let published = ValueKind { value, named };
        let handle = self.0.registry.look_up(&self.0, name, Some(published))?;
        Ok(Channel::with_names(handle, named))
    }

    /// A subscription to all these channels at once: everything behind the client's id on any of
    /// them, in one order, and then live. See [`Subscription`].
    ///
    /// A name that is there twice counts once. If there are more names than
    /// [`max_channels_per_subscription`](HubBuilder::max_channels_per_subscription), the hub is
    /// full, or a name is longer than 1 KiB, the subscription ends at once and sends the client
    /// away for a few seconds. [`Stats::refused`] counts that; with the feature `tracing`, it is
    /// logged: too many names as an error, since the client would come back with them for ever,
    /// the others as warnings. A handler that takes names from a request should check their
    /// number itself and answer 400.
    ///
    /// ```
    /// # use axum_sse::{Channel, Hub, LastEventId, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let hub = Hub::new();
    /// let mut page = Reader::new(hub.subscribe(["room/1", "room/2"], LastEventId::Absent));
    /// page.expect_named("checkpoint").await;
    /// hub.channel::<str>("room/2")?.publish("hello")?;
    /// assert_eq!(page.next_message().await.data, r#""hello""#);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe<N>(
        &self,
        channels: impl IntoIterator<Item = N>,
        last: impl Into<LastEventId>,
    ) -> Subscription
    where
        N: AsRef<str>,
    {
        let limit = self.0.settings.max_channels_per_subscription;
        let mut known: HashSet<Box<str>> = HashSet::new();
        let mut names: Vec<N> = Vec::new();
        // Counted before any channel is made, so that what is refused leaves nothing behind.
        for name in channels {
            if !known.insert(name.as_ref().into()) {
                continue;
            }
            if names.len() == limit {
                #[cfg(feature = "tracing")]
                tracing::error!(
                    hub = %self.0.settings.name,
                    channels = known.len(),
                    limit,
                    "a subscription to more channels than `max_channels_per_subscription` is \
                     refused; `channels` are those counted until then"
                );
                return Subscription::refused(self.0.clone());
            }
            names.push(name);
        }
        let mut sources: Vec<ChannelHandle> = Vec::with_capacity(names.len());
        for name in names {
            match self.0.registry.look_up(&self.0, name.as_ref(), None) {
                Ok(handle) => sources.push(handle),
                Err(_refused) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(error = %_refused, "a subscription is refused");
                    return Subscription::refused(self.0.clone());
                }
            }
        }
        Subscription::new(self.0.clone(), sources, last.into())
    }

    /// The newest id drawn on any channel, or the start if there is none.
    ///
    /// A client that is given this id beside a state that was read *afterwards* can resume from
    /// it without missing anything, as long as each change is committed first and published then.
    /// Published before it is committed, a change can be older than the id and not in the state.
    ///
    /// ```
    /// # use axum_sse::{Channel, Hub};
    /// let hub = Hub::new();
    /// let room: Channel<str> = hub.channel("room/42")?;
    /// let published = room.publish("hello")?;
    /// assert_eq!(published.id(), Some(hub.newest()));
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    #[must_use]
    pub fn newest(&self) -> EventId {
        self.0.clock.newest()
    }

    /// Figures over all channels. Looks at each of them.
    ///
    /// ```
    /// # use axum_sse::{Channel, Hub};
    /// let hub = Hub::new();
    /// let room: Channel<str> = hub.channel("room/42")?;
    /// assert_eq!(hub.stats().channels, 1);
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

#[cfg(test)]
impl Hub {
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("newest", &self.newest())
            .finish_non_exhaustive()
    }
}
