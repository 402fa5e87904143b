//! Reconnection times: what is ever sent, and how clients are spread that must come back.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    event::{MAX_RETRY, MIN_RETRY},
    frame,
    hub::clock::random,
};

/// Clients that are sent away come back between once and twice this long afterwards.
const RETURN: Duration = Duration::from_secs(2);

/// Milliseconds within what every client understands; rounded up, so never to 0 (rules 24-26).
pub(crate) fn millis(time: Duration) -> u32 {
    let time = time.clamp(MIN_RETRY, MAX_RETRY);
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// The last lines of a stream whose client should return: each gets a moment of its own, so that
/// they do not all come at once (rule 68).
pub(crate) fn come_back() -> Bytes {
    let extra = RETURN.mul_f64((random() >> 11) as f64 / (1u64 << 53) as f64);
    let mut out = Vec::with_capacity(24);
    frame::retry(&mut out, millis(RETURN + extra));
    out.extend_from_slice(&frame::HEARTBEAT);
    out.into()
}
