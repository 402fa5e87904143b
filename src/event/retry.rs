//! Reconnection times: their bounds, and random ones for clients that are sent away together.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use bytes::Bytes;

use crate::event::encode;

/// The shortest reconnection time that is sent (rule 24).
pub(crate) const MIN: Duration = Duration::from_millis(500);

/// The longest (rule 25).
pub(crate) const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Clients that are sent away reconnect after a random time between once and twice this long.
pub(crate) const RETURN: Duration = Duration::from_secs(2);

/// Whole milliseconds, rounded up and clamped to what every client understands (rules 24 to 26).
pub(crate) fn millis(time: Duration) -> u32 {
    let time = time.clamp(MIN, MAX);
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// A uniform random number from 0 (included) to 1 (excluded).
pub(crate) fn share() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

/// Random milliseconds between once and twice `after`, so that clients that are sent away together
/// do not return together.
pub(crate) fn spread(after: Duration) -> u32 {
    millis(after.mul_f64(1.0 + share()))
}

/// The last lines of a stream whose client should reconnect (rule 68).
pub(crate) fn come_back(after: Duration) -> Bytes {
    let mut out = Vec::with_capacity(24);
    encode::retry(&mut out, spread(after));
    out.extend_from_slice(&encode::HEARTBEAT);
    out.into()
}

/// 64 random bits. Not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
