//! The shared state behind channels: settings, id clock, wake-up.

pub(crate) mod builder;
pub(crate) mod channel;
pub(crate) mod clock;
pub(crate) mod core;
pub(crate) mod wake;

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    event::EventName,
    heartbeat::Heartbeat,
    id::EventId,
    log::{Limits, Log},
    named,
    sync::Arc,
};
use clock::Clock;
use wake::Wake;

/// What the channels of one hub share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) wake: Arc<Wake>,
    epoch: Instant,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        let wake = Wake::new(settings.heartbeat.interval(), settings.coalesce);
        Self {
            settings,
            clock: Clock::new(),
            wake: Arc::new(wake),
            epoch: Instant::now(),
        }
    }

    /// How many events are missing between `after` and what the log retains. Ids are dense in a
    /// hub, and hence in its channel only if it is the only one.
    pub(crate) fn missed(&self, log: &Log, after: EventId) -> Option<u64> {
        log.before().lo().checked_sub(after.lo())
    }

    /// The time that logs are told. Only asked where a log has an age.
    pub(crate) fn now(&self) -> u64 {
        match self.settings.limits.age {
            None => 0,
            Some(_) => u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Everything that a builder sets.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) retry: Option<u32>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) gap: EventName,
    pub(crate) checkpoint: Option<EventName>,
    pub(crate) coalesce: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits {
                events: 1024,
                bytes: 64 << 20,
                age: None,
            },
            retry: None,
            heartbeat: Heartbeat::default(),
            gap: named::GAP,
            checkpoint: Some(crate::event_name!("checkpoint")),
            coalesce: Duration::ZERO,
        }
    }
}
