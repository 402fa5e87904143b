//! [`ChannelBuilder`] and [`HubBuilder`]: the settings of a channel, or of all channels of a hub.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::Serialize;

use crate::{
    channel::{Channel, clock::Clock, hub::Hub, settings::Settings, shared::Shared},
    event::{EventName, Heartbeat, retry},
    sync::Arc,
};

const MAX_COALESCE: Duration = Duration::from_secs(60);
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Configures a stand-alone channel.
///
/// | setting | default |
/// | --- | --- |
/// | [`capacity`](Self::capacity) | 1024 events |
/// | [`bytes`](Self::bytes) | 64 MiB |
/// | [`age`](Self::age) | unbounded |
/// | [`retry`](Self::retry) | none: browsers wait 3 to 5 seconds |
/// | [`heartbeat`](Self::heartbeat) | a comment line every 15 s |
/// | [`gap_name`](Self::gap_name) | `gap` |
/// | [`checkpoint_name`](Self::checkpoint_name) | `checkpoint` |
/// | [`snapshot_name`](Self::snapshot_name) | `snapshot` |
/// | [`snapshot_channel`](Self::snapshot_channel) | off |
/// | [`snapshot_timeout`](Self::snapshot_timeout) | 30 s |
/// | [`coalesce`](Self::coalesce) | off |
/// | [`named`](Self::named) | off |
/// | [`close_on_drop`](Self::close_on_drop) | off |
///
/// `capacity`, `bytes` and `age` apply together: a channel retains the longest run of newest
/// events that meets all three.
///
/// The names of the gap, checkpoint, snapshot and heartbeat events must differ. If two are equal,
/// every publish fails with an [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName) that
/// names them. Setters do not report this, because names can be set in any order.
///
/// ```
/// use axum_sse::{Channel, Heartbeat};
/// use std::time::Duration;
///
/// let lines: Channel<str> = Channel::builder()
///     .name("lines")
///     .capacity(10_000)
///     .bytes(16 << 20)
///     .age(Duration::from_secs(3600))
///     .retry(Duration::from_secs(1))
///     .heartbeat(Heartbeat::every(Duration::from_secs(10)))
///     .coalesce(Duration::from_millis(50))
///     .build();
/// lines.publish("hello")?;
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct ChannelBuilder<T: ?Sized> {
    settings: Settings,
    values: PhantomData<fn(&T)>,
}

/// Configures a hub. The settings of channels apply to each channel of the hub.
///
/// | setting | default |
/// | --- | --- |
/// | [`max_channels`](Self::max_channels) | 100,000 |
/// | [`max_channels_per_subscription`](Self::max_channels_per_subscription) | 256 |
/// | [`retire_after`](Self::retire_after) | an hour |
/// | all others | those of [`ChannelBuilder`] |
///
/// ```
/// use axum_sse::{Hub, event_name};
/// use std::time::Duration;
///
/// let rooms: Hub = Hub::builder()
///     .gap_name(event_name!("missed"))
///     .checkpoint_name(event_name!("here"))
///     .snapshot_name(None)
///     .max_channels(1000)
///     .retire_after(Duration::from_secs(600))
///     .build();
/// # let _ = rooms;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct HubBuilder {
    settings: Settings,
}

// Both builders have these. A macro, and no trait: a trait would have to be imported.
macro_rules! channel_settings {
    () => {
        /// What operators call it: the label `hub` of its figures (feature `metrics`; without a
        /// name none are reported), and a field of its spans (feature `tracing`).
        pub fn name(mut self, name: impl Into<String>) -> Self {
            self.settings.name = name.into();
            self
        }

        /// How many events a returning client can catch up on. With 0 there is no replay: whoever
        /// comes back having missed something gets a gap event.
        pub fn capacity(mut self, events: usize) -> Self {
            self.settings.limits.events = events;
            self
        }

        /// How many bytes of framed events are retained at the most, and how large a single event
        /// may be. Memory is freed in segments of up to 64 KiB, of which an eighth may be unused, so
        /// somewhat more is in use; what slow connections still hold is not counted.
        pub fn bytes(mut self, bytes: usize) -> Self {
            self.settings.limits.bytes = bytes;
            self
        }

        /// How old an event may be for a returning client to get it. Applied when an event is
        /// published, when a client resumes, and now and then while there are subscribers.
        pub fn age(mut self, age: Duration) -> Self {
            self.settings.limits.age = Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            self
        }

        /// The reconnection time that every client is told when it connects, within
        /// [`Event::MIN_RETRY`](crate::Event::MIN_RETRY) and [`Event::MAX_RETRY`](crate::Event::MAX_RETRY).
        pub fn retry(mut self, time: Duration) -> Self {
            self.settings.retry = Some(retry::millis(time));
            self
        }

        /// What a silent connection says, and how often.
        pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
            self.settings.heartbeat = heartbeat;
            self
        }

        /// The name of the event that says that something is missing.
        pub fn gap_name(mut self, name: EventName) -> Self {
            self.settings.gap = name;
            self
        }

        /// The name of the event that gives a client an id where there is nothing to deliver; `None`
        /// sends no such event. Then a client that is cut off before its first event comes back
        /// without an id, and may miss events without being told; and on a connection over several
        /// channels with snapshots, one that is cut off between two of them may come back with an id
        /// that stands for a state it never got.
        pub fn checkpoint_name(mut self, name: impl Into<Option<EventName>>) -> Self {
            self.settings.checkpoint = name.into();
            self
        }

        /// The name of the event that carries a channel's snapshot; `None` sends it to `onmessage`,
        /// like any other.
        pub fn snapshot_name(mut self, name: impl Into<Option<EventName>>) -> Self {
            self.settings.snapshot = name.into();
            self
        }

        /// With `true`, the data of every snapshot is `{"channel":…,"state":…}` instead of the state
        /// alone: a page over several channels sees which of them a snapshot belongs to. The other
        /// way is a name for each: [`Channel::set_snapshot_name`](crate::Channel::set_snapshot_name).
        pub fn snapshot_channel(mut self, named: bool) -> Self {
            self.settings.snapshot_channel = named;
            self
        }

        /// How long a channel's snapshot function may take; then its future is dropped, and the
        /// streams that wait for it end, to come back after a few seconds. At least a second, at
        /// most an hour.
        pub fn snapshot_timeout(mut self, time: Duration) -> Self {
            self.settings.snapshot_timeout = time.clamp(MIN_TIMEOUT, MAX_TIMEOUT);
            self
        }

        /// The least time between two writes of a channel to its connections: events that are
        /// published meanwhile go out together. An event after a silence of its channel is not held
        /// back, whatever other channels do; so a connection on several channels may be written to
        /// once for each of them in that time. Fewer writes cost less, at the price of up to this
        /// much delay. At most a minute.
        pub fn coalesce(mut self, time: Duration) -> Self {
            self.settings.coalesce = time.min(MAX_COALESCE);
            self
        }

        /// Publishes each value as an event that has the name of its enum variant, as
        /// [`Event::named`](crate::Event::named) does. On a hub it is so for all channels; for single
        /// ones see [`Hub::named_channel`](crate::Hub::named_channel).
        ///
        /// ```
        /// # use axum_sse::{Channel, LastEventId, Start, testing::Reader};
        /// #[derive(serde::Serialize)]
        /// #[serde(rename_all = "kebab-case")]
        /// enum Chat { UserJoined { name: String } }
        ///
        /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
        /// let chat: Channel<Chat> = Channel::builder().named().build();
        /// chat.publish(&Chat::UserJoined { name: "Ada".into() })?;
        /// let mut page = Reader::new(chat.subscribe(LastEventId::Absent).start(Start::Oldest));
        /// assert_eq!(page.expect_named("user-joined").await.data, r#"{"name":"Ada"}"#);
        /// # Ok(())
        /// # }
        /// ```
        pub fn named(mut self) -> Self {
            self.settings.named = true;
            self
        }

        /// Closes a channel when its last publishing handle is dropped: its clients get the rest and
        /// then the end, as with [`Channel::close`](crate::Channel::close). Without, they stay connected.
        ///
        /// Handles are [`Channel`](crate::Channel)s and their clones, also those inside of a
        /// [`StateChannel`](crate::StateChannel); subscriptions are not. On a hub, a channel that has never had a
        /// handle stays open, and [`Hub::channel`](crate::Hub::channel) with the name of one that was closed gives a handle
        /// on the closed channel until the name is free (see
        /// [`HubBuilder::retire_after`](crate::HubBuilder::retire_after)). So keep a handle for as long as somebody may
        /// publish, rather than look one up for each event.
        ///
        /// ```
        /// # use axum_sse::{Channel, LastEventId, testing::Reader};
        /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
        /// let lines: Channel<str> = Channel::builder().close_on_drop().build();
        /// let mut page = Reader::new(lines.subscribe(LastEventId::Absent));
        /// lines.publish("the last one")?;
        /// drop(lines);
        /// page.expect_named("checkpoint").await;
        /// assert_eq!(page.next_message().await.data, r#""the last one""#);
        /// page.expect_end().await;
        /// # Ok(())
        /// # }
        /// ```
        pub fn close_on_drop(mut self) -> Self {
            self.settings.close_on_drop = true;
            self
        }
    };
}

impl<T: Serialize + ?Sized> ChannelBuilder<T> {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
            values: PhantomData,
        }
    }

    channel_settings!();

    /// Makes the channel.
    #[must_use]
    pub fn build(self) -> Channel<T> {
        Channel::of(Shared::single(self.settings, Clock::new()))
    }
}

impl<T: ?Sized> Clone for ChannelBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            values: PhantomData,
        }
    }
}

impl<T: ?Sized> fmt::Debug for ChannelBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("settings", &self.settings)
            .finish()
    }
}

impl HubBuilder {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
        }
    }

    channel_settings!();

    /// How many channels the hub may hold at once, those that are only subscribed to included.
    /// One with a single small event takes some 750 bytes beside the event. A channel with a
    /// [`snapshot`](Channel::snapshot) counts until it is closed.
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.settings.max_channels = channels;
        self
    }

    /// How many different channels one subscription may have, 256 by default. It bounds what one
    /// request can cost, since a subscription makes channels and looks at each of them. See
    /// [`Hub::subscribe`] for what happens to one that has more.
    pub fn max_channels_per_subscription(mut self, channels: usize) -> Self {
        self.settings.max_channels_per_subscription = channels;
        self
    }

    /// After which time a channel that nobody holds or subscribes to is retired, with its
    /// events; not one with a [`snapshot`](Channel::snapshot), which would be lost. A closed
    /// channel, with a snapshot or without, stays known for at least this long after it was
    /// closed, and for at least ten times [`retry`](Self::retry); then its name is free as soon
    /// as nobody holds it, whether somebody has asked for it meanwhile or not.
    pub fn retire_after(mut self, time: Duration) -> Self {
        self.settings.retire_after = time;
        self
    }

    /// Makes the hub.
    #[must_use]
    pub fn build(self) -> Hub {
        Hub(Arc::new(Shared::hub(self.settings)))
    }
}
