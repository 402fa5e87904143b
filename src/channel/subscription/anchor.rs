//! [`Anchor`]: which id the client has, and which one it still needs.
//!
//! A client resumes from the last id that it received. So every client must receive an id early,
//! and again after each gap that no event follows. If no event brings one, a *checkpoint* does.
//!
//! **Partial ids.** On a connection over several channels, one id cannot express that the client
//! has the state of one channel but not yet of another. While a snapshot is owed, ids are partial:
//! they end with a dot, and a client that comes back with one gets the snapshots again. A snapshot
//! may be older than events that were already sent on the other channels. It and the events after
//! it go out without ids until its channel has caught up with the others; then a checkpoint makes
//! the id whole.

use crate::{
    channel::subscription::cursor::Cursor,
    event::{EventId, encode::Ids},
};

/// Whether the client needs a checkpoint once nothing is left to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    /// It has no whole id yet. Any event brings one.
    Id,
    /// It has received a gap that no event follows. An event of another channel does not help,
    /// because it may be older than the gap.
    IdAfterGap,
}

#[derive(Debug)]
pub(super) struct Anchor {
    need: Need,
    /// How many cursors owe the client a snapshot; see [`Cursor::owes_snapshot`].
    owed: usize,
    /// A snapshot has arrived: ids are partial until all channels are read up to this id.
    catch_up: Option<EventId>,
    /// The id up to which channels were last read.
    rested_at: EventId,
}

/// What follows when nothing is left to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing to send until there is news.
    Done,
    /// Which snapshots are owed has changed, so there may be more to read.
    ReadOn,
    /// The client needs this id.
    Checkpoint(EventId),
}

impl Anchor {
    /// `start` is the id before the first event of the hub.
    pub(super) fn new(start: EventId) -> Self {
        Self {
            need: Need::Id,
            owed: 0,
            catch_up: None,
            rested_at: start,
        }
    }

    /// Called when a checkpoint goes out.
    pub(super) fn checkpoint_sent(&mut self, id: EventId) {
        if !id.is_partial() && self.need == Need::Id {
            self.need = Need::Nothing;
        }
    }

    /// Called when an event goes out with its own id, on a connection over this many channels.
    pub(super) fn event_sent(&mut self, channels: usize) {
        if self.owed == 0 && (self.need == Need::Id || channels == 1) {
            self.need = Need::Nothing;
        }
    }

    /// Called when a gap was reported and no event follows it yet.
    pub(super) fn gap_at_end(&mut self) {
        self.need = Need::IdAfterGap;
    }

    /// Notes that the client is owed the snapshot of this cursor's channel.
    pub(super) fn owe(&mut self, cursor: &mut Cursor) {
        self.owed += usize::from(!cursor.owes_snapshot);
        cursor.owes_snapshot = true;
    }

    /// Called when the snapshot has gone out with its id, or its channel leaves the connection.
    pub(super) fn settle(&mut self, cursor: &mut Cursor) {
        self.owed -= usize::from(cursor.owes_snapshot);
        cursor.owes_snapshot = false;
    }

    /// Whether the client is owed any snapshots.
    pub(super) fn owes_snapshots(&self) -> bool {
        self.owed > 0
    }

    /// How to write the ids of a cursor's events.
    pub(super) fn ids(&self, cursor: &Cursor, many: bool) -> Ids {
        match (self.owed > 0 && many, cursor.owes_snapshot) {
            (false, _) => Ids::Leave,
            (true, false) => Ids::Partial,
            (true, true) => Ids::Remove,
        }
    }

    /// Called once a snapshot has arrived on a connection over several channels: all of them are
    /// read up to `newest` before any id is whole again. Later calls change nothing.
    pub(super) fn catch_up_to(&mut self, newest: EventId) {
        self.catch_up.get_or_insert(newest);
    }

    /// Begins a pass over the channels, and returns the id up to which to read them. `newest` is the
    /// newest one drawn.
    pub(super) fn begin_pass(&mut self, newest: EventId) -> EventId {
        self.rested_at = self.catch_up.unwrap_or(newest);
        self.rested_at
    }

    /// The id up to which channels were last read. Once nothing is left to send, the client has
    /// everything up to it.
    pub(super) fn rested_at(&self) -> EventId {
        self.rested_at
    }

    /// Called when nothing is left to read up to `newest`.
    pub(super) fn rest(&mut self, newest: EventId, cursors: &mut [Cursor]) -> Rest {
        let caught_up = self.catch_up.take().is_some();
        if caught_up {
            for cursor in &mut *cursors {
                cursor.owes_snapshot = cursor.is_waiting() || cursor.has_snapshot();
            }
            self.owed = cursors.iter().filter(|it| it.owes_snapshot).count();
        }
        if self.owed > 0 {
            return match caught_up {
                true => Rest::ReadOn,
                false => Rest::Done,
            };
        }
        let need = std::mem::replace(&mut self.need, Need::Nothing);
        match caught_up || need > Need::Nothing {
            true => Rest::Checkpoint(newest),
            false => Rest::Done,
        }
    }

    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.owed == 0 && self.catch_up.is_none()
    }
}
