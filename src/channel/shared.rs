//! [`Shared`]: what the channels of a hub share. A stand-alone channel has a separate one.

use tokio::time::Instant;

use crate::{
    channel::{
        clock::Clock,
        registry::{Bounds, Registry},
        settings::Settings,
        state::{ChannelHandle, ChannelState},
        stats::{Counters, Stats},
        wake::Wake,
    },
    sync::Arc,
};

/// What the channels of one hub share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// Why nothing can be published, if the names of the channel's own events conflict.
    pub(super) name_conflict: Option<String>,
    pub(crate) clock: Clock,
    pub(crate) wake: Arc<Wake>,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    started: Instant,
}

impl Shared {
    /// For a hub.
    pub(super) fn hub(settings: Settings) -> Self {
        let bounds = Bounds {
            channels: settings.max_channels,
            idle: settings.retire_after,
            closed: settings.known_after_close(),
        };
        Self::new(settings, Clock::new(), Some(bounds))
    }

    /// For a stand-alone channel, which is created with it.
    pub(crate) fn single(settings: Settings, clock: Clock) -> ChannelHandle {
        let shared = Self::new(settings, clock, None);
        let channel = ChannelState::new("", shared.settings.limits, shared.clock.start());
        let channel = Arc::new(channel);
        shared.registry.insert_single(channel.clone());
        ChannelHandle::new(Arc::new(shared), channel)
    }

    fn new(settings: Settings, clock: Clock, bounds: Option<Bounds>) -> Self {
        let wake = Wake::new(settings.heartbeat.interval(), settings.coalesce);
        Self {
            registry: Registry::new(bounds, clock.start()),
            name_conflict: settings.name_conflict(),
            settings,
            clock,
            wake: Arc::new(wake),
            counters: Counters::default(),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the start, for the age of events. Without an age limit it is always 0,
    /// because reading the clock takes time.
    pub(crate) fn now(&self) -> u64 {
        match self.settings.limits.age {
            None => 0,
            Some(_) => u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Visits a bounded number of channels, and returns those whose readers need a visit. The wake
    /// task calls this once per tick.
    pub(crate) fn sweep(&self) -> Vec<Arc<ChannelState>> {
        self.registry.sweep(self.now())
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut tally = Tally::default();
        loop {
            if let Some(stats) = self.tally(&mut tally) {
                return stats;
            }
        }
    }

    /// Adds up a bounded number of channels. Returns the total after the last one.
    pub(crate) fn tally(&self, tally: &mut Tally) -> Option<Stats> {
        let (states, next) = self.registry.some_channels(tally.next);
        let stats = &mut tally.stats;
        stats.channels += states.len();
        for channel in states {
            let (events, bytes) = channel.lock().retained();
            stats.events += events;
            stats.bytes += bytes;
            stats.lag = stats.lag.max(channel.lag());
        }
        if let Some(next) = next {
            tally.next = next;
            return None;
        }
        stats.subscribers = self.wake.readers();
        stats.published = self.clock.newest().sequence();
        self.counters.read_into(stats);
        Some(*stats)
    }

    /// Whether metrics are reported.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_reported(&self) -> bool {
        !self.settings.name.is_empty()
    }
}

/// Statistics of a hub while they are added up, a few channels at a time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The next channel to add.
    next: usize,
    stats: Stats,
}
