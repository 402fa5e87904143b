//! The state of a state channel. It depends only on the number of events, so a client can check it
//! without asking the server.

use serde::{Deserialize, Serialize};

/// Enough for a snapshot of about two kilobytes, so that connections are also cut within it.
const KEYS: u64 = 256;

/// For each key, the sum of the numbers of its events, counted from one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) channel: String,
    pub(crate) events: u64,
    sums: Vec<u64>,
}

impl Tally {
    /// The expected state after that many events.
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

    /// Applies one event, as a page would. Returns the new value of the event's key.
    pub(crate) fn apply(&mut self, number: u64) -> u64 {
        self.events += 1;
        let sum = &mut self.sums[usize::try_from(number % KEYS).unwrap()];
        *sum += number + 1;
        *sum
    }
}

/// The value of the event's key after the event.
pub(crate) fn value(number: u64) -> u64 {
    let (key, before) = (number % KEYS, number / KEYS);
    (before + 1) * (key + 1) + KEYS * (before + 1) * before / 2
}
