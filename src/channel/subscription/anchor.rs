//! [`Anchor`]: which id the client has, and which it has to be given.
//!
//! A client resumes from the last id that it received. So each one has to receive an id early, and
//! after each gap that no event follows; where no event brings one, a *checkpoint* does.
//!
//! **Partial ids.** On a connection over several channels, one id cannot say that the client has
//! one channel's state and not yet another's. While a snapshot is owed, ids are partial: they end
//! with a dot, and a client that comes back with one is sent the snapshots again. A snapshot that
//! arrives may be older than the events that were already sent on the other channels. It and the
//! events after it go out without ids, until its channel has caught up with the others; then a
//! checkpoint makes the id whole.

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
    /// It was told of a gap that no event follows. An event of another channel does not help: it
    /// may be older than the gap.
    IdAfterGap,
}

#[derive(Debug)]
pub(super) struct Anchor {
    need: Need,
    /// How many cursors owe the client a snapshot; see [`Cursor::owes_snapshot`].
    owed: usize,
    /// A snapshot has arrived: all channels are read up to this id before any id is whole again.
    catch_up: Option<EventId>,
    /// Everything up to this id was sent when nothing was left last.
    rested_at: EventId,
}

/// What follows when nothing is left to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// The client has everything, and an id that says so.
    Done,
    /// Ids have just become partial or whole, so there may be more to read.
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

    /// A checkpoint goes out.
    pub(super) fn checkpoint_sent(&mut self, id: EventId) {
        if !id.is_partial() && self.need == Need::Id {
            self.need = Need::Nothing;
        }
    }

    /// An event goes out, with its own id, on a connection over this many channels.
    pub(super) fn event_sent(&mut self, channels: usize) {
        if self.owed == 0 && (self.need == Need::Id || channels == 1) {
            self.need = Need::Nothing;
        }
    }

    /// A gap was reported, and nothing that was read follows it.
    pub(super) fn gap_at_end(&mut self) {
        self.need = Need::IdAfterGap;
    }

    /// The client is owed the snapshot of this cursor's channel.
    pub(super) fn owe(&mut self, cursor: &mut Cursor) {
        self.owed += usize::from(!cursor.owes_snapshot);
        cursor.owes_snapshot = true;
    }

    /// The snapshot has gone out with its id, or its channel is taken from the connection.
    pub(super) fn settle(&mut self, cursor: &mut Cursor) {
        self.owed -= usize::from(cursor.owes_snapshot);
        cursor.owes_snapshot = false;
    }

    /// Whether the client is owed any snapshot.
    pub(super) fn owes_snapshots(&self) -> bool {
        self.owed > 0
    }

    /// How the ids of a cursor's events go out.
    pub(super) fn ids(&self, cursor: &Cursor, many: bool) -> Ids {
        match (self.owed > 0 && many, cursor.owes_snapshot) {
            (false, _) => Ids::Leave,
            (true, false) => Ids::Partial,
            (true, true) => Ids::Remove,
        }
    }

    /// A snapshot goes out on a connection over several channels, which are read up to `newest`.
    pub(super) fn catch_up_to(&mut self, newest: EventId) {
        self.catch_up.get_or_insert(newest);
    }

    /// The id up to which channels are read now. `newest` is the newest that there is.
    pub(super) fn read_up_to(&mut self, newest: EventId) -> EventId {
        self.rested_at = self.catch_up.unwrap_or(newest);
        self.rested_at
    }

    /// Everything up to this id was sent when nothing was left last.
    pub(super) fn rested_at(&self) -> EventId {
        self.rested_at
    }

    /// Nothing is left to read up to `newest`.
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
