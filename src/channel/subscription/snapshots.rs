//! Snapshots on their way to one client: asked for, waited for, and placed before the events that
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
    /// Asks for the channel's snapshot, if it has one and the client is to get it.
    pub(super) fn ask_for_snapshot(&mut self, index: usize) {
        let cursor = &mut self.cursors[index];
        if self.on_gap != OnGap::Snapshot && cursor.gap.is_some() {
            return;
        }
        let Some(snapshots) = cursor.channel.snapshots.get() else {
            return;
        };
        let snapshots = snapshots.clone();
        self.anchor.owe(cursor);
        // What is published from now on is kept for this reader until the snapshot arrives. A new
        // one is not made before, so it contains everything up to here.
        let end = cursor.channel.lock().end();
        cursor.start_at(end);
        match snapshots.get(&cursor.channel, self.not_before) {
            Asked::Pending(pending) => cursor.await_snapshot(Snapshot::Pending(pending)),
            Asked::Ready(snapshot) => self.place_snapshot(index, snapshot),
        }
    }

    /// Looks whether snapshots have arrived that were asked for.
    pub(super) fn poll_snapshots(&mut self, cx: &mut Context<'_>) {
        if !self.anchor.owes_snapshots() {
            return;
        }
        for index in 0..self.cursors.len() {
            // A snapshot that cannot be used is asked for again, and may be ready.
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

    /// Puts the cursor behind a snapshot that has arrived.
    fn place_snapshot(&mut self, index: usize, snapshot: Arc<SharedSnapshot>) {
        let cursor = &mut self.cursors[index];
        let found = cursor.channel.lock().seek_kept(snapshot.id);
        let is_allowed = Some(snapshot.id) >= self.not_before;
        match found {
            Seek::Exact { position, .. } if is_allowed => {
                cursor.start_at(position);
                cursor.await_snapshot(Snapshot::Ready(snapshot));
            }
            // It was made for a client that came earlier. What follows it was not kept, or is not
            // for this client.
            Seek::Exact { .. } | Seek::Evicted => {
                cursor.await_snapshot(Snapshot::None);
                cursor.overruns = cursor.overruns.saturating_add(1);
                if cursor.overruns > 1 {
                    self.send_away(index, "what follows its snapshots is gone, twice in a row");
                } else {
                    self.ask_for_snapshot(index);
                }
            }
        }
    }
}
