//! [`Settings`]: what a builder sets.

use std::time::Duration;

use crate::{
    channel::log::Limits,
    event::{EventName, Heartbeat, id::quoted, variant},
};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The name for operators; can be empty.
    #[cfg_attr(not(any(feature = "metrics", feature = "tracing")), allow(dead_code))]
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) retry: Option<u32>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) gap: EventName,
    pub(crate) checkpoint: Option<EventName>,
    pub(crate) snapshot: Option<EventName>,
    /// Whether the data of snapshots includes the channel's name.
    pub(crate) snapshot_channel: bool,
    pub(crate) snapshot_timeout: Duration,
    /// The name of the event that ends an incomplete run. Only runs have it.
    pub(crate) end: Option<EventName>,
    pub(crate) coalesce: Duration,
    /// Whether values are published as events named after their variants.
    pub(crate) named: bool,
    /// Whether a channel closes when its last publishing handle is dropped.
    pub(crate) close_on_drop: bool,
    pub(crate) max_channels: usize,
    pub(crate) max_channels_per_subscription: usize,
    pub(crate) retire_after: Duration,
}

impl Settings {
    /// How long a closed channel stays known: long enough for its clients to reconnect and learn
    /// that it is closed.
    pub(crate) fn known_after_close(&self) -> Duration {
        /// How long browsers wait by default, rounded up.
        const BROWSER_DEFAULT: Duration = Duration::from_secs(6);
        let retry = self.retry.map_or(BROWSER_DEFAULT, |millis| {
            Duration::from_millis(millis.into())
        });
        self.retire_after.max(retry * 10)
    }
}

/// Names that no event can have, because `EventSource` fires events of these names itself.
pub(super) const RESERVED: [&str; 2] = ["error", "open"];

impl Settings {
    /// A message if a name is reserved, or if two of the channel's own events have the same name.
    pub(crate) fn name_conflict(&self) -> Option<String> {
        let own = [
            ("gap", Some(self.gap.as_str())),
            (
                "checkpoint",
                self.checkpoint.as_ref().map(EventName::as_str),
            ),
            ("snapshot", self.snapshot.as_ref().map(EventName::as_str)),
            ("heartbeat", self.heartbeat.name()),
        ];
        for (at, (one, name)) in own.iter().enumerate() {
            let Some(name) = name else { continue };
            if RESERVED.contains(name) {
                return Some(format!(
                    "the {one} event must not be named {}",
                    quoted(name)
                ));
            }
            if let Some((other, _)) = own[..at].iter().find(|(_, taken)| *taken == Some(*name)) {
                return Some(format!(
                    "the {other} event and the {one} event are both named {}",
                    quoted(name)
                ));
            }
        }
        None
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            limits: Limits {
                events: 1024,
                bytes: 64 << 20,
                age: None,
            },
            retry: None,
            heartbeat: Heartbeat::default(),
            gap: variant::GAP,
            checkpoint: Some(crate::event_name!("checkpoint")),
            snapshot: Some(crate::event_name!("snapshot")),
            snapshot_channel: false,
            snapshot_timeout: Duration::from_secs(30),
            end: None,
            coalesce: Duration::ZERO,
            named: false,
            close_on_drop: false,
            max_channels: 100_000,
            max_channels_per_subscription: 256,
            retire_after: Duration::from_secs(3600),
        }
    }
}
