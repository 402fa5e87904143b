//! [`Cursor`]: a client's position in one channel.

use crate::{
    channel::{
        gap::Gap,
        log::Log,
        snapshot::{Pending, SharedSnapshot},
        state::{ChannelHandle, CursorProgress},
        wake::Reader,
    },
    sync::{Arc, Ordering},
};

/// No channel ever has this version: the cursor is not known to be at its end.
const NEVER: u64 = u64::MAX;

pub(super) struct Cursor {
    pub(super) channel: ChannelHandle,
    /// The position of the next entry to deliver.
    pub(super) position: u64,
    /// The log's version when the cursor was last at its end.
    pub(super) seen: u64,
    /// What is missing before `position` and has not been reported yet.
    pub(super) gap: Option<Gap>,
    pub(super) snapshot: Snapshot,
    /// The client is owed this channel's state: a snapshot, and the events after it up to where
    /// the connection's other channels are.
    pub(super) owes_snapshot: bool,
    /// The next event is in the merge queue.
    pub(super) queued: bool,
    /// How many times in a row the log has overtaken the cursor.
    pub(super) overruns: u8,
    registered: Option<(u64, Arc<CursorProgress>)>,
}

/// The snapshot to send before the entry at `position`, if any.
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

    /// Called before the log is locked for a seek: a later publisher counts this reader, and an
    /// earlier one's event is found in the log.
    pub(super) fn register(&mut self, reader: &Arc<Reader>) {
        self.registered = Some(self.channel.add_reader(reader.clone()));
    }

    pub(super) fn unregister(&mut self) {
        if let Some((key, _)) = self.registered.take() {
            self.channel.remove_reader(key);
        }
    }

    /// Whether there is something to read. There is nothing while the cursor waits for a snapshot.
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

    pub(super) fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
        if let Some((_, progress)) = &self.registered {
            let limit = self.channel.shared.settings.snapshot_timeout.as_millis();
            let waits = match self.is_waiting() {
                true => u64::try_from(limit).unwrap_or(u64::MAX),
                false => 0,
            };
            progress.waits.store(waits, Ordering::Relaxed);
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
        if let Some((_, progress)) = &self.registered {
            progress.position.store(self.position, Ordering::Relaxed);
        }
    }

    /// Called with the result of [`version_at`] after each look at the log.
    pub(super) fn note_version(&mut self, version: Option<u64>) {
        self.seen = version.unwrap_or(NEVER);
        if version.is_some() {
            self.overruns = 0;
        }
    }
}

/// The version of a channel if `position` is the end of its log. The caller has locked `log`, so
/// the version does not change.
pub(super) fn version_at(channel: &ChannelHandle, log: &Log, position: u64) -> Option<u64> {
    (position == log.end()).then(|| channel.version())
}
