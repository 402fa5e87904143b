//! Snapshots on their way to one client: requested, awaited, and placed before the events that
//! follow them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    channel::{
        log::Seek,
        snapshot::{Asked, SharedSnapshot},
        subscription::{OnGap, Subscription, cursor::Snapshot},
    },
    sync::Arc,
};

impl Subscription {
    /// Requests the channel's snapshot, if it has one and the client should get it.
    pub(super) fn request_snapshot(&mut self, index: usize) {
        let cursor = &mut self.cursors[index];
        if self.on_gap != OnGap::Snapshot && cursor.gap.is_some() {
            return;
        }
        let Some(snapshots) = cursor.channel.snapshots.get() else {
            return;
        };
        let snapshots = snapshots.clone();
        self.anchor.owe(cursor);
        // Events from now on are kept for this reader until the snapshot arrives. A new snapshot
        // is only begun after this, so it contains everything before.
        let end = cursor.channel.lock().end();
        cursor.start_at(end);
        match snapshots.get(&cursor.channel, self.not_before) {
            Asked::Pending(pending) => cursor.set_snapshot(Snapshot::Pending(pending)),
            Asked::Ready(snapshot) => self.place_snapshot(index, snapshot),
        }
    }

    /// Takes the requested snapshots that have arrived.
    pub(super) fn poll_snapshots(&mut self, cx: &mut Context<'_>) {
        if !self.anchor.owes_snapshots() {
            return;
        }
        for index in 0..self.cursors.len() {
            // A snapshot that cannot be used is requested again, and the new one may be ready at
            // once.
            while let Snapshot::Pending(pending) = &mut self.cursors[index].snapshot {
                match Pin::new(pending).poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(snapshot)) => self.place_snapshot(index, snapshot),
                    Poll::Ready(None) => self.send_away(index, "its snapshot failed"),
                }
                if self.is_ended() {
                    return;
                }
            }
        }
    }

    /// Moves the cursor to the first event after a snapshot that has arrived.
    fn place_snapshot(&mut self, index: usize, snapshot: Arc<SharedSnapshot>) {
        let cursor = &mut self.cursors[index];
        let found = cursor.channel.lock().seek_kept(snapshot.id);
        let is_allowed = Some(snapshot.id) >= self.not_before;
        match found {
            Seek::Exact { position, .. } if is_allowed => {
                cursor.start_at(position);
                cursor.set_snapshot(Snapshot::Ready(snapshot));
            }
            // It was made for an earlier client: the events after it were not kept, or are not all
            // for this client.
            Seek::Exact { .. } | Seek::Evicted => {
                cursor.set_snapshot(Snapshot::None);
                cursor.overruns = cursor.overruns.saturating_add(1);
                if cursor.overruns > 1 {
                    self.send_away(
                        index,
                        "the events after its snapshot were evicted, twice in a row",
                    );
                } else {
                    self.request_snapshot(index);
                }
            }
        }
    }
}
