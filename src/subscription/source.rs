//! [`Source`]: one cursor into one channel.

use crate::{
    hub::core::{Held, Place},
    id::EventId,
    log::Log,
    snapshot::{Flight, Snapshot},
    sync::{Arc, Ordering},
};

use super::gap::Gap;

/// No version that a channel ever has: the cursor is not known to be at its end.
const NEVER: u64 = u64::MAX;

pub(super) struct Source {
    pub(super) held: Held,
    /// The position of the next entry that the client has not been given.
    pub(super) position: u64,
    /// The log's version when the cursor was last at its end.
    pub(super) seen: u64,
    /// What is missing in front of `position` and has not been said yet.
    pub(super) gap: Option<Gap>,
    pub(super) snapshot: Awaited,
    /// How often in a row the log overtook the cursor.
    pub(super) overruns: u8,
    registered: Option<(u64, Arc<Place>)>,
}

/// The snapshot that stands in front of `position`, if there is to be one.
pub(super) enum Awaited {
    Nothing,
    Coming(Flight),
    Here(Arc<Snapshot>),
}

impl Source {
    pub(super) fn new(held: Held) -> Self {
        Self {
            held,
            position: 0,
            seen: NEVER,
            gap: None,
            snapshot: Awaited::Nothing,
            overruns: 0,
            registered: None,
        }
    }

    /// To be called before the log is locked for a seek: a publisher that comes later counts
    /// this reader, one that came before is seen in the log.
    pub(super) fn register(&mut self, reader: &Arc<crate::hub::wake::Reader>) {
        self.registered = Some(self.held.add_reader(reader.clone()));
    }

    pub(super) fn unregister(&mut self) {
        if let Some((key, _)) = self.registered.take() {
            self.held.remove_reader(key);
        }
    }

    pub(super) fn has_news(&self) -> bool {
        self.held.version() != self.seen
    }

    /// Whether the channel is closed and the client has all of it.
    pub(super) fn is_over(&self) -> bool {
        self.held.is_closed() && !self.has_news() && matches!(self.snapshot, Awaited::Nothing)
    }

    /// Moves the cursor. Where it is given, `log` is this channel's, locked.
    pub(super) fn move_to(&mut self, position: u64) {
        let passed = position.saturating_sub(self.position);
        self.position = position;
        self.held.counters.delivered(passed);
        self.held.shared.counters.delivered(passed);
        self.note_position();
    }

    pub(super) fn note_position(&self) {
        if let Some((_, place)) = &self.registered {
            place.position.store(self.position, Ordering::Relaxed);
        }
    }

    /// Sets out from a place, which is none that was passed.
    pub(super) fn start_at(&mut self, position: u64) {
        self.position = position;
        self.note_position();
    }
}

/// What to remember of a log's version, for a cursor at `position`. To be called under the log's
/// lock, under which the version does not change.
pub(super) fn version_seen(held: &Held, log: &Log, position: u64) -> (u64, bool) {
    if position == log.end() {
        (held.version(), true)
    } else {
        (NEVER, false)
    }
}

/// An event on its way into the order of its connection.
pub(super) struct Item {
    pub(super) id: EventId,
    pub(super) index: usize,
    pub(super) bytes: std::ops::Range<usize>,
    /// Where its cursor stands behind it; `None` for a snapshot.
    pub(super) next: Option<u64>,
}
