//! When a heartbeat is due on each connection: a timer wheel for all readers of a hub.
//!
//! The wake task turns the wheel on every tick. A write only notes the time (a write must be
//! cheap): the wheel finds out when it next visits the reader, and moves the reader on.

use std::{collections::VecDeque, sync::atomic::AtomicUsize, task::Waker};

use crate::{
    channel::wake::{Reader, SLICE},
    sync::{Arc, AtomicBool, AtomicU64, Ordering},
};

/// Ticks per heartbeat interval. A heartbeat is at most one tick late, unless more are due in one
/// tick than [`Wheel::most_beats`] allows.
pub(super) const TICKS: u64 = 16;

/// A heartbeat is due this many ticks after a write. One more than [`TICKS`]: the tick of the
/// write has already begun, and a heartbeat must not be early.
const AHEAD: u64 = TICKS + 1;

/// When one reader's heartbeat is due.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// The tick at which a heartbeat is due if nothing is written until then.
    due: AtomicU64,
    /// A heartbeat is due, and was not sent yet.
    beat: AtomicBool,
    /// The reader's position in the wheel. Only used under the wheel's lock, so std's atomics will
    /// do in loom's models too.
    slot: AtomicUsize,
    index: AtomicUsize,
}

impl Timer {
    /// Called after a write in this tick: the next heartbeat is due a whole interval from now.
    pub(super) fn wrote(&self, tick: u64) {
        // A heartbeat that was due and is not sent yet would now be early.
        self.beat.store(false, Ordering::Relaxed);
        // Never moved back: until a new task has first read the time, `tick` is that of the
        // previous task.
        self.due.fetch_max(tick + AHEAD, Ordering::Relaxed);
    }

    /// Whether a heartbeat is due. Clears the flag, so each heartbeat is reported once.
    pub(super) fn take_beat(&self) -> bool {
        self.beat.load(Ordering::Relaxed) && self.beat.swap(false, Ordering::AcqRel)
    }
}

/// Readers by the tick of their next visit.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The last tick whose slot was visited.
    visited: u64,
    /// A tick's slot is its number modulo their number.
    slots: Vec<Vec<Arc<Reader>>>,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let slots = usize::try_from(AHEAD).unwrap_or(0) + 1;
        Self {
            visited: 0,
            slots: vec![Vec::new(); slots],
        }
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = &Arc<Reader>> {
        self.slots.iter().flatten()
    }

    /// Adds a reader in this tick.
    pub(super) fn add(&mut self, tick: u64, reader: Arc<Reader>) {
        reader.timer.due.store(tick + AHEAD, Ordering::Relaxed);
        self.put(tick + AHEAD, reader);
    }

    fn slot_of(&self, tick: u64) -> usize {
        let slots = self.slots.len() as u64;
        usize::try_from(tick % slots).unwrap_or(0)
    }

    fn put(&mut self, tick: u64, reader: Arc<Reader>) {
        let at = self.slot_of(tick);
        let slot = &mut self.slots[at];
        reader.timer.slot.store(at, Ordering::Relaxed);
        reader.timer.index.store(slot.len(), Ordering::Relaxed);
        slot.push(reader);
    }

    pub(super) fn remove(&mut self, reader: &Reader) -> Option<Arc<Reader>> {
        let slot = self
            .slots
            .get_mut(reader.timer.slot.load(Ordering::Relaxed))?;
        let index = reader.timer.index.load(Ordering::Relaxed);
        if !slot
            .get(index)
            .is_some_and(|at| std::ptr::eq(&**at, reader))
        {
            return None;
        }
        let removed = slot.swap_remove(index);
        if let Some(moved) = slot.get(index) {
            moved.timer.index.store(index, Ordering::Relaxed);
        }
        // The wheel may not reach this slot for an hour.
        if slot.len() < slot.capacity() / 4 {
            slot.shrink_to(2 * slot.len());
        }
        Some(removed)
    }

    /// Takes the wakers of readers whose heartbeat is due, if heartbeats are on, and moves the
    /// other readers to the slot of their due tick. Visits only one slot per tick. `readers` is the
    /// number of all readers.
    pub(super) fn turn(
        &mut self,
        now: u64,
        beats: bool,
        readers: usize,
        wakers: &mut VecDeque<Waker>,
    ) {
        let last = std::mem::replace(&mut self.visited, now);
        let passed = now.saturating_sub(last).min(AHEAD + 1);
        let mut left = Self::most_beats(readers);
        for tick in (now - passed + 1)..=now {
            let slot = self.slot_of(tick);
            for reader in std::mem::take(&mut self.slots[slot]) {
                let due = reader.timer.due.load(Ordering::Relaxed);
                let next = if due > tick {
                    due
                } else if beats && left == 0 {
                    now + 1
                } else {
                    if beats {
                        left -= 1;
                        reader.timer.beat.store(true, Ordering::Release);
                        wakers.extend(reader.waker.take());
                    }
                    reader.timer.due.store(now + AHEAD, Ordering::Relaxed);
                    now + AHEAD
                };
                self.put(next, reader);
            }
        }
    }

    /// The maximum number of heartbeats in one tick: twice the mean if all connections are silent.
    /// After an event that reached every connection, all heartbeats are due at once; those over
    /// the maximum move to the next ticks, and stay spread out from then on.
    fn most_beats(readers: usize) -> usize {
        let mean = readers / usize::try_from(AHEAD).unwrap_or(1);
        (2 * mean).max(SLICE)
    }

    /// The number of readers in the wheel, and for how many it has memory.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let capacity = self.slots.iter().map(Vec::capacity).sum();
        (self.readers().count(), capacity)
    }
}
