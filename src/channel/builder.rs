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
/// A channel retains as many of its newest events as `capacity`, `bytes` and `age` all allow.
///
/// The names of the gap, checkpoint, snapshot and heartbeat events must differ. If two are equal,
/// every publish fails with [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName). Setters do
/// not report this, because names can be set in any order.
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

/// Configures a hub and all its channels.
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

// The setters of both builders. A macro, because callers would have to import a trait.
macro_rules! channel_settings {
    () => {
        /// Sets the name for operators: the label `hub` of the metrics (feature `metrics`) and a
        /// field of spans (feature `tracing`). By default there is none, and no metrics are
        /// reported.
        pub fn name(mut self, name: impl Into<String>) -> Self {
            self.settings.name = name.into();
            self
        }

        /// Sets how many events each channel retains for clients that resume; 1024 by default. With
        /// 0 there is no replay: a client that has missed anything gets a gap event.
        pub fn capacity(mut self, events: usize) -> Self {
            self.settings.limits.events = events;
            self
        }

        /// Sets how many bytes of encoded events each channel retains, which is also the maximum
        /// size of one event, its id included; 64 MiB by default. Memory is freed in segments of up to 64 KiB, of
        /// which an eighth can be unused, so somewhat more is in use. Events that slow connections
        /// are still sending are not counted.
        pub fn bytes(mut self, bytes: usize) -> Self {
            self.settings.limits.bytes = bytes;
            self
        }

        /// Sets how long events are retained; by default there is no time limit. It is applied when
        /// an event is published, when a client resumes, and periodically while there are
        /// subscribers.
        pub fn age(mut self, age: Duration) -> Self {
            self.settings.limits.age = Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            self
        }

        /// Sets the reconnection time that every client receives when it connects, clamped to
        /// [`Event::MIN_RETRY`](crate::Event::MIN_RETRY) to
        /// [`Event::MAX_RETRY`](crate::Event::MAX_RETRY). By default none is sent, and browsers
        /// wait 3 to 5 seconds.
        pub fn retry(mut self, time: Duration) -> Self {
            self.settings.retry = Some(retry::millis(time));
            self
        }

        /// Sets what is sent on silent connections, and how often. The default is a comment line
        /// every 15 seconds.
        pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
            self.settings.heartbeat = heartbeat;
            self
        }

        /// Sets the name of the event that reports missing events; `gap` by default.
        pub fn gap_name(mut self, name: EventName) -> Self {
            self.settings.gap = name;
            self
        }

        /// Sets the name of the event that gives clients an id when there is nothing to deliver;
        /// `checkpoint` by default.
        ///
        /// `None` sends no such event. A client that loses its connection before its first event
        /// then returns without an id, and can miss events without a gap event. On a connection
        /// over several channels with snapshots, a client that loses it between two snapshots can
        /// return with an id that covers a snapshot it never received.
        pub fn checkpoint_name(mut self, name: impl Into<Option<EventName>>) -> Self {
            self.settings.checkpoint = name.into();
            self
        }

        /// Sets the name of snapshot events; `snapshot` by default. With `None` they have no name
        /// and reach `onmessage`.
        pub fn snapshot_name(mut self, name: impl Into<Option<EventName>>) -> Self {
            self.settings.snapshot = name.into();
            self
        }

        /// Sets whether the data of snapshots is `{"channel":…,"state":…}` instead of the state
        /// alone; `false` by default. It shows a page over several channels which of them a
        /// snapshot belongs to. The alternative is a separate name for each channel's snapshots:
        /// [`Channel::set_snapshot_name`](crate::Channel::set_snapshot_name).
        pub fn snapshot_channel(mut self, with_channel: bool) -> Self {
            self.settings.snapshot_channel = with_channel;
            self
        }

        /// Sets how long a channel's snapshot function can take, clamped to 1 second to 1 hour; 30
        /// seconds by default. After that, its future is dropped, the streams that wait for it end,
        /// and their clients reconnect after a few seconds.
        pub fn snapshot_timeout(mut self, time: Duration) -> Self {
            self.settings.snapshot_timeout = time.clamp(MIN_TIMEOUT, MAX_TIMEOUT);
            self
        }

        /// Sets the minimum time between two writes of a channel to its connections, at most 1
        /// minute; 0 by default. Events published in between are sent together: fewer writes, for
        /// up to this much delay.
        ///
        /// An event is not delayed if its channel has been silent for that long. So in this time, a
        /// connection over several channels can get one write from each of them.
        pub fn coalesce(mut self, time: Duration) -> Self {
            self.settings.coalesce = time.min(MAX_COALESCE);
            self
        }

        /// Publishes each value as an event named after its enum variant, like
        /// [`Event::named`](crate::Event::named). On a hub, this applies to all channels; for
        /// single channels, see [`Hub::named_channel`](crate::Hub::named_channel).
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

        /// Closes a channel when its last publishing handle is dropped, like
        /// [`Channel::close`](crate::Channel::close). By default it stays open, and its clients
        /// stay connected.
        ///
        /// Handles are [`Channel`](crate::Channel)s and their clones, including those in a
        /// [`StateChannel`](crate::StateChannel), but not subscriptions. On a hub, a channel that
        /// has never had a handle stays open. For the name of a closed channel,
        /// [`Hub::channel`](crate::Hub::channel) returns that closed channel until the name is free
        /// (see [`HubBuilder::retire_after`](crate::HubBuilder::retire_after)). So keep a handle
        /// until the last event is published, instead of looking one up for each event.
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

    /// Creates the channel.
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

    /// Sets how many channels the hub can have at once, including those with subscriptions only;
    /// 100,000 by default. A channel with one small event takes about 750 bytes in addition to the
    /// event. See [`Hub`] for what happens at the limit.
    pub fn max_channels(mut self, channels: usize) -> Self {
        self.settings.max_channels = channels;
        self
    }

    /// Sets how many different channels one subscription can have; 256 by default. This limits the
    /// cost of a request, because a subscription creates its channels and reads each of them. See
    /// [`Hub::subscribe`] for what happens above the limit.
    pub fn max_channels_per_subscription(mut self, channels: usize) -> Self {
        self.settings.max_channels_per_subscription = channels;
        self
    }

    /// Sets how long an idle channel, without handles and subscriptions, is kept; 1 hour by
    /// default. Then it is retired, with its events. A channel with a
    /// [`snapshot`](Channel::snapshot) is not retired while it is open, because the snapshot
    /// function would be lost.
    ///
    /// A closed channel is kept for at least this long after it was closed, and for at least ten
    /// times [`retry`](Self::retry) (or 1 minute, without `retry`). Lookups do not prolong that.
    /// Then its name is free as soon as it has no handles and subscriptions.
    pub fn retire_after(mut self, time: Duration) -> Self {
        self.settings.retire_after = time;
        self
    }

    /// Creates the hub.
    #[must_use]
    pub fn build(self) -> Hub {
        Hub(Arc::new(Shared::hub(self.settings)))
    }
}
