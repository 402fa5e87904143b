//! What happens to a client that reads too slowly: a gap, or the end of its stream.

use crate::{
    channel::{
        gap::{Gap, GapReason, LostFrom},
        log::Read,
        subscription::{OnGap, OnLag, Subscription},
    },
    event::retry,
};

impl Subscription {
    /// Moves a cursor that the log has overtaken. `read` is a hole or an overrun.
    pub(super) fn lagged(&mut self, index: usize, read: &Read) {
        let cursor = &mut self.cursors[index];
        let from = match read {
            Read::Overrun { .. } => LostFrom::Position(cursor.position),
            _ => LostFrom::Unknown,
        };
        cursor.start_at(read.next(cursor.position));
        cursor.overruns = cursor.overruns.saturating_add(1);
        // A client that is too slow even for snapshots would get one after the other.
        let too_often = cursor.overruns > 1
            && self.on_gap == OnGap::Snapshot
            && cursor.channel.snapshots.get().is_some();
        cursor.channel.counters.gap(GapReason::Lagged);
        self.shared.counters.gap(GapReason::Lagged);
        if self.on_lag == OnLag::End || too_often {
            self.send_away(index, "the client reads too slowly");
            return;
        }
        Gap::widen(&mut cursor.gap, from);
        self.request_snapshot(index);
    }

    /// Ends the stream, with a reconnection time of a few seconds.
    pub(super) fn send_away(&mut self, index: usize, _why: &str) {
        if self.is_ended() {
            return;
        }
        let cursor = &self.cursors[index];
        cursor.channel.counters.sent_away();
        self.shared.counters.sent_away();
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            tracing::info!(
                channel = cursor.channel.name(),
                "an event stream is ended and its client sent away: {_why}"
            );
        });
        self.stop();
        self.ready.push(retry::come_back(retry::RETURN));
    }
}
