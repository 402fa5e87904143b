//! Reconnection times: what is ever sent, and how clients are spread that must come back.

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

/// Clients that are sent away come back between once and twice this long afterwards.
pub(crate) const RETURN: Duration = Duration::from_secs(2);

/// Milliseconds within what every client understands; rounded up, so never to 0 (rules 24-26).
pub(crate) fn millis(time: Duration) -> u32 {
    let time = time.clamp(MIN, MAX);
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// At least 0 and below 1, evenly spread.
pub(crate) fn share() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}

/// Milliseconds between once and twice `after`: everybody who is sent away gets a moment of their
/// own, so that they do not all come at once.
pub(crate) fn spread(after: Duration) -> u32 {
    millis(after.mul_f64(1.0 + share()))
}

/// The last lines of a stream whose client should return (rule 68).
pub(crate) fn come_back(after: Duration) -> Bytes {
    let mut out = Vec::with_capacity(24);
    encode::retry(&mut out, spread(after));
    out.extend_from_slice(&encode::HEARTBEAT);
    out.into()
}

/// 64 bits that differ from call to call and from process to process. Not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
