//! [`Ring`]: the limit server's shared buffer of encoded events.

use std::{collections::VecDeque, ops::Range};

/// The newest events. A reader's cursor is an offset into all bytes ever written.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    /// Where each event begins.
    events: VecDeque<u64>,
    /// The number of the oldest retained event; the first event is 1.
    first: u64,
    end: u64,
    capacity: usize,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            events: VecDeque::new(),
            first: 1,
            end: 0,
            capacity,
        }
    }

    pub(super) fn push(&mut self, event: &[u8]) {
        if self.events.len() == self.capacity {
            self.events.pop_front();
            self.first += 1;
            let keep = self.end - self.events.front().copied().unwrap_or(self.end);
            let excess = self.bytes.len() as u64 - keep;
            self.bytes.drain(..excess as usize);
        }
        self.events.push_back(self.end);
        self.bytes.extend(event);
        self.end += event.len() as u64;
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The offset after event `number`; `None` if the event after it has been evicted.
    pub(super) fn after(&self, number: u64) -> Option<u64> {
        let next = (number + 1).checked_sub(self.first)?;
        Some(self.events.get(next as usize).copied().unwrap_or(self.end))
    }

    /// The bytes in `range`, in two pieces; `None` if they have been evicted.
    pub(super) fn get(&self, range: Range<u64>) -> Option<(&[u8], &[u8])> {
        let start = self.end - self.bytes.len() as u64;
        let from = range.start.checked_sub(start)? as usize;
        let to = (range.end - start) as usize;
        let (front, back) = self.bytes.as_slices();
        let middle = front.len();
        Some((
            &front[from.min(middle)..to.min(middle)],
            &back[from.max(middle) - middle..to.max(middle) - middle],
        ))
    }
}
