//! [`Builder`]: the settings of a channel, or of all channels of a hub.

use std::{marker::PhantomData, time::Duration};

use serde::Serialize;

use super::{Settings, Shared, channel::Channel, core::Core};
use crate::{event::EventName, event::retry_millis, heartbeat::Heartbeat, sync::Arc};

/// Sets the bounds and the manners of a channel.
///
/// | setting | default |
/// | --- | --- |
/// | [`capacity`](Builder::capacity) | 1024 events |
/// | [`bytes`](Builder::bytes) | 64 MiB |
/// | [`retry`](Builder::retry) | none: browsers wait 3 to 5 seconds |
/// | [`heartbeat`](Builder::heartbeat) | a comment line every 15 s |
/// | [`gap_name`](Builder::gap_name) | `gap` |
/// | [`checkpoint_name`](Builder::checkpoint_name) | `checkpoint` |
///
/// ```
/// use axum_sse::{Channel, Heartbeat};
/// use std::time::Duration;
///
/// let lines: Channel<str> = Channel::builder()
///     .capacity(10_000)
///     .retry(Duration::from_secs(1))
///     .heartbeat(Heartbeat::every(Duration::from_secs(10))?)
///     .build();
/// lines.publish("hello")?;
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<Target> {
    settings: Settings,
    target: PhantomData<fn() -> Target>,
}

impl<Target> Builder<Target> {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
            target: PhantomData,
        }
    }

    /// How many events a returning client can catch up on. With 0 there is no replay: whoever
    /// comes back having missed something gets a gap event.
    pub fn capacity(mut self, events: usize) -> Self {
        self.settings.limits.events = events;
        self
    }

    /// How many bytes of framed events are retained at the most, and how large a single event
    /// may be.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.bytes = bytes;
        self
    }

    /// The reconnection time that every client is told when it connects, within
    /// [`MIN_RETRY`](crate::MIN_RETRY) and [`MAX_RETRY`](crate::MAX_RETRY).
    pub fn retry(mut self, time: Duration) -> Self {
        self.settings.retry = Some(retry_millis(time));
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
    /// without an id, and may miss events without being told.
    pub fn checkpoint_name(mut self, name: impl Into<Option<EventName>>) -> Self {
        self.settings.checkpoint = name.into();
        self
    }
}

impl<T: Serialize + ?Sized> Builder<Channel<T>> {
    /// The channel.
    #[must_use]
    pub fn build(self) -> Channel<T> {
        let shared = Shared::new(self.settings);
        let core = Core::new("", shared.settings.limits, shared.clock.start());
        Channel::of(Arc::new(shared), Arc::new(core))
    }
}
