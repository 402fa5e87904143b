//! [`Hub`]: many channels with one id clock, and one task for wake-ups and heartbeats.

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

/// Many named channels. One connection can carry any set of them, and one id resumes them all.
///
/// For chat rooms, a channel per user, or prices by symbol. Each name is a separate [`Channel`].
/// All share one id clock, so an id from one of them is a point in time for all.
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
/// **A hub does not check permissions.** Authorize each channel in the handler, at each request; a
/// reconnect is a new request.
///
/// **Channels** are created on first use, to publish or to subscribe. Only publishing allocates
/// memory for events. A channel without handles and subscriptions is idle. It is retired after a
/// while ([`retire_after`](HubBuilder::retire_after)), with its events; a client that returns to it
/// with an older id gets a gap event (`unknown`). The number of channels is limited
/// ([`max_channels`](HubBuilder::max_channels)): at the limit, the channel that has been idle
/// longest is retired, and if none is idle, [`channel`](Hub::channel) returns an error. A channel
/// with a [`snapshot`](Channel::snapshot) is not retired while it is open.
///
/// Cheap to clone. Can be stored in a `static` and serve several runtimes.
#[derive(Clone)]
pub struct Hub(pub(super) Arc<Shared>);

impl Hub {
    /// Creates a hub with the defaults of [`HubBuilder`].
    ///
    /// ```
    /// let hub = axum_sse::Hub::new();
    /// # let _ = hub;
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Configures a hub, starting from the defaults.
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

    /// Returns the channel with this name, and creates it if necessary.
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
    /// - [`ErrorKind::OtherType`](crate::ErrorKind::OtherType) if the channel publishes values of
    ///   another type, or comes from [`named_channel`](Hub::named_channel) on a hub without
    ///   [`named`](HubBuilder::named).
    /// - [`ErrorKind::TooManyChannels`](crate::ErrorKind::TooManyChannels) if the hub is full and
    ///   no channel is idle.
    /// - [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName) if the name is longer than 1
    ///   KiB.
    pub fn channel<T>(&self, name: impl AsRef<str>) -> Result<Channel<T>, Error>
    where
        T: Serialize + ?Sized + 'static,
    {
        self.handle(name.as_ref(), self.0.settings.named)
    }

    /// Like [`channel`](Hub::channel), for a channel whose events are named after their enum
    /// variants.
    ///
    /// All handles of a channel must agree on this. To name the events of all channels, use
    /// [`HubBuilder::named`]; then [`channel`](Hub::channel) does the same.
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
    /// Those of [`channel`](Hub::channel), and
    /// [`ErrorKind::OtherType`](crate::ErrorKind::OtherType) if other handles of the channel do not
    /// name events after their variants.
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

    /// Subscribes a client to all these channels at once. It receives every event after its id on
    /// any of them, in one order, and then live events. See [`Subscription`].
    ///
    /// Duplicate names count once. If there are more than
    /// [`max_channels_per_subscription`](HubBuilder::max_channels_per_subscription) names, if the
    /// hub is full, or if a name is longer than 1 KiB, the subscription is refused: its stream ends
    /// at once, and the client reconnects after a few seconds. [`Stats::refused`] counts this. With
    /// the feature `tracing` it is logged: as an error for too many names, because the client will
    /// return with the same names, and otherwise as a warning. If the names come from the request,
    /// limit their number in the handler, and answer 400.
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
        // Counted before any channel is created, so that a refused subscription creates none.
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
                    "a subscription was refused: it has more channels than \
                     `max_channels_per_subscription`; `channels` is their number so far"
                );
                return Subscription::refused(self.0.clone());
            }
            names.push(name);
        }
        let mut handles: Vec<ChannelHandle> = Vec::with_capacity(names.len());
        for name in names {
            match self.0.registry.look_up(&self.0, name.as_ref(), None) {
                Ok(handle) => handles.push(handle),
                Err(_refused) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(error = %_refused, "a subscription was refused");
                    return Subscription::refused(self.0.clone());
                }
            }
        }
        Subscription::new(self.0.clone(), handles, last.into())
    }

    /// The newest id of any channel, or the start if there is none.
    ///
    /// Read this id, then your state, and send both to a client: it can resume from the id without
    /// missing a change, if each change is committed before it is published. Otherwise, a change
    /// that is older than the id can be missing from the state.
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

    /// Statistics over all channels. Visits each of them.
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
