//! [`Clock`]: draws the ids of one epoch of a hub, and checks whether an id is one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    channel::gap::GapReason,
    event::{EventId, id::write_number, retry::random},
    sync::{AtomicU64, Ordering},
};

#[derive(Debug)]
pub(crate) struct Clock {
    epoch: u64,
    /// What precedes the sequence number in a printed id.
    prefix: Box<[u8]>,
    sequence: AtomicU64,
}

impl Clock {
    /// A new epoch: the time in the high half, so that later epochs sort after earlier ones, and
    /// 32 random bits in the low half, so that two that start in the same second differ.
    pub(crate) fn new() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = time.unwrap_or(Duration::ZERO).as_secs();
        let epoch = (seconds << 32) | (random() >> 32);
        let mut prefix = Vec::new();
        write_number(epoch, &mut prefix);
        Self::with_prefix(epoch, prefix)
    }

    /// An epoch whose ids are printed with `prefix` in place of `epoch`.
    pub(crate) fn with_prefix(epoch: u64, mut prefix: Vec<u8>) -> Self {
        prefix.push(b'-');
        Self {
            epoch,
            prefix: prefix.into(),
            sequence: AtomicU64::new(0),
        }
    }

    /// Appends an id of this epoch in its wire format.
    pub(crate) fn write(&self, id: EventId, out: &mut Vec<u8>) {
        debug_assert_eq!(id.epoch(), self.epoch);
        out.extend_from_slice(&self.prefix);
        id.write_sequence(out);
    }

    /// The id of the next event. Called only under the lock of the log that it is for (law 1).
    pub(crate) fn draw(&self) -> EventId {
        // Release, pairs with the acquire below: a reader that sees this id drawn also sees that
        // its log's version turned odd before (see `ChannelState::append`).
        EventId::new(self.epoch, self.sequence.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// The newest id drawn. Its event may not be in its log yet, but a caller that locks that log
    /// after this call finds it there.
    pub(crate) fn newest(&self) -> EventId {
        EventId::new(self.epoch, self.sequence.load(Ordering::Acquire))
    }

    /// The id before the first event.
    pub(crate) fn start(&self) -> EventId {
        EventId::new(self.epoch, 0)
    }

    /// Whether this clock has drawn `id` (its start counts as drawn), or why not.
    pub(crate) fn check(&self, id: EventId) -> Result<EventId, GapReason> {
        if id.epoch() != self.epoch {
            Err(GapReason::Restarted)
        } else if id > self.newest() {
            Err(GapReason::Unknown)
        } else {
            Ok(id)
        }
    }
}
