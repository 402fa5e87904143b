//! The state of a board. It follows from the number of events alone, so a client can check it
//! without asking the server.

use serde::{Deserialize, Serialize};

/// Enough for a snapshot of some two kilobytes: connections are cut within it, too.
const KEYS: u64 = 256;

/// For each key the sum of the numbers of its events, counted from one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) channel: String,
    pub(crate) events: u64,
    sums: Vec<u64>,
}

impl Tally {
    /// What the state must be after that many events.
    pub(crate) fn after(channel: &str, events: u64) -> Self {
        let sums = (0..KEYS).map(|key| {
            let of_key = events / KEYS + u64::from(key < events % KEYS);
            of_key * (key + 1) + KEYS * of_key * of_key.saturating_sub(1) / 2
        });
        Self {
            channel: channel.to_owned(),
            events,
            sums: sums.collect(),
        }
    }

    /// Event by event, as a page would do it. Returns the new value of the event's key.
    pub(crate) fn apply(&mut self, number: u64) -> u64 {
        self.events += 1;
        let sum = &mut self.sums[usize::try_from(number % KEYS).unwrap()];
        *sum += number + 1;
        *sum
    }
}

/// The value that the key of that event has after it.
pub(crate) fn value(number: u64) -> u64 {
    let (key, before) = (number % KEYS, number / KEYS);
    (before + 1) * (key + 1) + KEYS * (before + 1) * before / 2
}
