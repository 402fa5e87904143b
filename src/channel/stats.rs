//! [`Stats`]: statistics for operators. Connections update the counters; publishing updates none.

use crate::{
    channel::{gap::GapReason, subscription::Resumption},
    sync::{AtomicU64, Ordering},
};

/// Statistics of a channel or hub. The fields are read one after the other, so they need not match
/// exactly.
///
/// ```
/// let channel: axum_sse::Channel<str> = axum_sse::Channel::new();
/// channel.publish("hello")?;
/// let stats = channel.stats();
/// assert_eq!((stats.published, stats.events, stats.subscribers), (1, 1, 0));
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Existing channels.
    pub channels: usize,
    /// Open connections. A hub counts a connection over several channels once.
    pub subscribers: usize,
    /// Retained events, which a client can catch up on.
    pub events: u64,
    /// Encoded size of these events, in bytes.
    pub bytes: u64,
    /// Events published since the start.
    pub published: u64,
    /// Events handed to connections since the start, including replayed ones.
    pub delivered: u64,
    /// Connections that began without an id.
    pub fresh: u64,
    /// Connections that resumed without a gap.
    pub resumed: u64,
    /// Gaps by reason, at the start of a connection or later (`lagged`). A hub counts a gap once
    /// for each channel concerned.
    pub gaps: GapCounts,
    /// Refused subscriptions: too many channels on one connection, a full hub, or a channel name
    /// that is too long.
    pub refused: u64,
    /// Failed snapshots: the function failed, panicked, took too long, or returned a state that
    /// could not be serialized.
    pub snapshots_failed: u64,
    /// Connections that were ended, for the client to reconnect, because their snapshot failed or
    /// they read too slowly.
    pub sent_away: u64,
    /// How many events the slowest connection is behind. Updated when connections are woken, and
    /// then every sixteenth of the heartbeat interval until all have caught up.
    pub lag: u64,
}

/// Numbers of gaps by [`GapReason`].
///
/// ```
/// use axum_sse::Channel;
///
/// let channel = Channel::<str>::new();
/// assert_eq!(channel.stats().gaps.evicted, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GapCounts {
    /// See [`GapReason::Evicted`].
    pub evicted: u64,
    /// See [`GapReason::Unknown`].
    pub unknown: u64,
    /// See [`GapReason::Restarted`].
    pub restarted: u64,
    /// See [`GapReason::Lagged`].
    pub lagged: u64,
    /// See [`GapReason::Truncated`].
    pub truncated: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    delivered: AtomicU64,
    fresh: AtomicU64,
    resumed: AtomicU64,
    gaps: [AtomicU64; 5],
    refused: AtomicU64,
    snapshots_failed: AtomicU64,
    sent_away: AtomicU64,
}

impl Counters {
    pub(crate) fn delivered(&self, events: u64) {
        self.delivered.fetch_add(events, Ordering::Relaxed);
    }

    /// A connection has begun. Gaps are counted where they are found.
    pub(crate) fn began(&self, resumption: Resumption) {
        match resumption {
            Resumption::Fresh => self.fresh.fetch_add(1, Ordering::Relaxed),
            Resumption::Exact { .. } => self.resumed.fetch_add(1, Ordering::Relaxed),
            Resumption::Gap { .. } => 0,
        };
    }

    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot_failed(&self) {
        self.snapshots_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent_away(&self) {
        self.sent_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read_into(&self, stats: &mut Stats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let gaps = |reason: GapReason| read(&self.gaps[reason as usize]);
        stats.delivered = read(&self.delivered);
        stats.fresh = read(&self.fresh);
        stats.resumed = read(&self.resumed);
        stats.gaps = GapCounts {
            evicted: gaps(GapReason::Evicted),
            unknown: gaps(GapReason::Unknown),
            restarted: gaps(GapReason::Restarted),
            lagged: gaps(GapReason::Lagged),
            truncated: gaps(GapReason::Truncated),
        };
        stats.refused = read(&self.refused);
        stats.snapshots_failed = read(&self.snapshots_failed);
        stats.sent_away = read(&self.sent_away);
    }
}
