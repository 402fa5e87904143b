//! What a client has missed: noted at its cursor, and reported before anything that follows.
//!
//! The format of the gap event is in `channel/gap.rs`.

use crate::channel::{
    gap::{Gap, Notice, Part},
    shared::Shared,
    subscription::{Subscription, cursor::Snapshot},
};

impl Subscription {
    pub(super) fn note_gap(&mut self, index: usize, gap: Gap) {
        let cursor = &mut self.cursors[index];
        cursor.gap = Some(gap);
        cursor.channel.counters.gap(gap.reason);
        self.shared.counters.gap(gap.reason);
    }

    /// Reports every pending gap before anything that follows on any channel. An event with an id
    /// takes the client past everything older: if it went out first and the connection were then
    /// cut, the client would never learn of the gap. Channels that miss something for the same
    /// reason share one event, so a page need not react to each.
    pub(super) fn report_gaps(&mut self) -> bool {
        let mut notices: Vec<Notice<'_>> = Vec::new();
        for cursor in &mut self.cursors {
            // With one channel, nothing else can follow: wait for the snapshot's id.
            if cursor.gap.is_none() || (!self.many && cursor.is_waiting()) {
                continue;
            }
            let Some(gap) = cursor.gap.take() else {
                continue;
            };
            let log = cursor.channel.lock();
            // A snapshot that is still being made may contain some of the missing events.
            let missed = match cursor.is_waiting() {
                true => None,
                false => gap.missed(&log, cursor.position),
            };
            let next = log.id_at(cursor.position);
            drop(log);
            // The snapshot is old enough: nothing is missing before it.
            if missed == Some(0) {
                continue;
            }
            let oldest = match &cursor.snapshot {
                Snapshot::Ready(snapshot) => Some(snapshot.id),
                Snapshot::Pending(_) => None,
                Snapshot::None => next,
            };
            if oldest.is_none() {
                self.anchor.gap_at_end();
            }
            let part = Part {
                channel: cursor.channel.name(),
                missed,
                oldest,
            };
            let same = notices
                .iter_mut()
                .find(|notice| notice.reason == gap.reason);
            match same {
                Some(notice) => notice.parts.push(part),
                None => notices.push(Notice {
                    reason: gap.reason,
                    parts: vec![part],
                }),
            }
        }
        if notices.is_empty() {
            return false;
        }
        let mut out = Vec::new();
        for notice in notices {
            let Shared {
                settings, clock, ..
            } = &*self.shared;
            notice.encode(&mut out, &settings.gap, clock, self.many);
        }
        self.ready.push(out.into());
        true
    }
}
