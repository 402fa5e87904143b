//! Channels that a [`SubscriptionHandle`](super::SubscriptionHandle) adds to a running
//! subscription or removes from it.

use crate::{
    channel::{
        gap::{Gap, GapReason, LostFrom},
        subscription::{Phase, Subscription, cursor::Cursor, handle::Wanted, merge::Queue, seek},
        wake::Reader,
    },
    event::EventId,
    sync::Arc,
};

impl Subscription {
    /// Applies the requested changes. Called when everything has been sent, so that a new channel
    /// starts where the others are.
    pub(super) fn change_channels(&mut self) {
        let (Some(handle), Phase::Live(reader)) = (self.handle.clone(), &self.phase) else {
            return;
        };
        let reader = reader.clone();
        for (name, wanted) in handle.0.take() {
            let mut cursors = self.cursors.iter();
            let at = cursors.position(|cursor| cursor.channel.name() == &*name);
            match (wanted, at) {
                (Wanted::Out, Some(at)) => self.remove_channel(at),
                (Wanted::In { channel, since }, None) => {
                    self.cursors.push(Cursor::new(channel));
                    self.add_channel(self.cursors.len() - 1, since, &reader);
                }
                (Wanted::Out, None) | (Wanted::In { .. }, Some(_)) => {}
            }
            if self.is_ended() {
                return;
            }
        }
    }

    fn remove_channel(&mut self, at: usize) {
        let mut cursor = self.cursors.swap_remove(at);
        self.anchor.settle(&mut cursor);
        cursor.unregister();
        // The queue refers to cursors by index, and one has moved.
        self.queue = Queue::default();
        for cursor in &mut self.cursors {
            cursor.queued = false;
        }
    }

    fn add_channel(&mut self, index: usize, since: Option<EventId>, reader: &Arc<Reader>) {
        self.cursors[index].register(reader);
        let here = self.anchor.rested_at();
        let channel = self.cursors[index].channel.clone();
        let (found, oldest) = self.look(&channel, |log| {
            (seek::position_after(log, here), log.oldest())
        });
        // A gap: events published since the last look are already gone, or the channel is new.
        if let Err(gap) = found
            && oldest > 0
            && since.is_none()
        {
            self.note_gap(index, gap);
        }
        let position = found.unwrap_or(oldest);
        self.cursors[index].start_at(position);
        if let Some(id) = since {
            let id = id.whole();
            let missed = match self.shared.clock.check(id) {
                Ok(id) => channel.lock().missed(id, position),
                Err(_) => None,
            };
            let from = match missed {
                Some(0) => return,
                Some(missed) => LostFrom::Position(position.saturating_sub(missed)),
                None => LostFrom::Unknown,
            };
            let reason = GapReason::Unknown;
            self.note_gap(index, Gap { reason, from });
        }
        self.request_snapshot(index);
        self.report_gaps();
        // From now on, the client's id must show that it is owed this channel's state.
        if self.anchor.owes_snapshots() && !self.is_ended() {
            self.send_checkpoint(here.partial());
        }
    }
}
