//! [`Cursor`]: one cursor into one channel.

use crate::{
    channel::{
        gap::Gap,
        log::Log,
        snapshot::{Pending, SharedSnapshot},
        state::{ChannelHandle, CursorProgress},
    },
    sync::{Arc, Ordering},
};

/// No version that a channel ever has: the cursor is not known to be at its end.
const NEVER: u64 = u64::MAX;

pub(super) struct Cursor {
    pub(super) channel: ChannelHandle,
    /// The position of the next entry that the client has not been given.
    pub(super) position: u64,
    /// The log's version when the cursor was last at its end.
    pub(super) seen: u64,
    /// What is missing in front of `position` and has not been said yet.
    pub(super) gap: Option<Gap>,
    pub(super) snapshot: Snapshot,
    /// The client is owed this channel's state: a snapshot, and the events after it up to where
    /// the connection's other channels are.
    pub(super) owes_snapshot: bool,
    /// The next event is among those that wait to be merged.
    pub(super) queued: bool,
    /// How often in a row the log overtook the cursor.
    pub(super) overruns: u8,
    registered: Option<(u64, Arc<CursorProgress>)>,
}

/// The snapshot that stands in front of `position`, if there is to be one.
pub(super) enum Snapshot {
    None,
    Pending(Pending),
    Ready(Arc<SharedSnapshot>),
}

impl Cursor {
    pub(super) fn new(channel: ChannelHandle) -> Self {
        Self {
            channel,
            position: 0,
            seen: NEVER,
            gap: None,
            snapshot: Snapshot::None,
            owes_snapshot: false,
            queued: false,
            overruns: 0,
            registered: None,
        }
    }

    /// To be called before the log is locked for a seek: a publisher that comes later counts
    /// this reader, one that came before is seen in the log.
    pub(super) fn register(&mut self, reader: &Arc<crate::channel::wake::Reader>) {
        self.registered = Some(self.channel.add_reader(reader.clone()));
    }

    pub(super) fn unregister(&mut self) {
        if let Some((key, _)) = self.registered.take() {
            self.channel.remove_reader(key);
        }
    }

    /// Whether there is something to read. Nothing is, before the snapshot in front of it.
    pub(super) fn has_news(&self) -> bool {
        self.channel.version() != self.seen && !self.is_waiting()
    }

    /// Whether the cursor waits for a snapshot.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.snapshot, Snapshot::Pending(_))
    }

    /// Whether a snapshot is next.
    pub(super) fn has_snapshot(&self) -> bool {
        matches!(self.snapshot, Snapshot::Ready(_))
    }

    pub(super) fn await_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
        if let Some((_, place)) = &self.registered {
            let limit = self.channel.shared.settings.snapshot_timeout.as_millis();
            let waits = match self.is_waiting() {
                true => u64::try_from(limit).unwrap_or(u64::MAX),
                false => 0,
            };
            place.waits.store(waits, Ordering::Relaxed);
        }
    }

    /// Whether the channel is closed and the client has all of it.
    pub(super) fn is_over(&self) -> bool {
        self.channel.is_closed() && !self.has_news() && matches!(self.snapshot, Snapshot::None)
    }

    /// Moves the cursor past events that have been delivered.
    pub(super) fn move_to(&mut self, position: u64) {
        let passed = position.saturating_sub(self.position);
        self.channel.counters.delivered(passed);
        self.channel.shared.counters.delivered(passed);
        self.start_at(position);
    }

    /// Moves the cursor without counting what it passes as delivered.
    pub(super) fn start_at(&mut self, position: u64) {
        self.position = position;
        if let Some((_, place)) = &self.registered {
            place.position.store(self.position, Ordering::Relaxed);
        }
    }

    /// To be called with [`version_at`] after each look at the log.
    pub(super) fn note_version(&mut self, version: Option<u64>) {
        self.seen = version.unwrap_or(NEVER);
        if version.is_some() {
            self.overruns = 0;
        }
    }
}

/// The version of a log, if `position` is its end. `log` is this channel's: while it is locked,
/// the version does not change.
pub(super) fn version_at(channel: &ChannelHandle, log: &Log, position: u64) -> Option<u64> {
    (position == log.end()).then(|| channel.version())
}
