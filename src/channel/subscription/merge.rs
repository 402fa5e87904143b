//! Reading: from one channel as it stands, or from several, merged by id (law 5).
//!
//! **The merge** keeps a heap with the id of the next event of each channel that has news, and
//! takes from the channel with the smallest one up to the next smallest. So each log is locked
//! once to see what is next, and once for each run of events that no other channel interrupts.
//! The heap stays from chunk to chunk: a long replay of many channels costs no more for each.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;

use crate::{
    channel::{
        gap::{Gap, GapReason, LostFrom, Notice, Part},
        hub::Shared,
        log::{GATHER, Read, SMALL},
        subscription::{
            OnGap, OnLag, Subscription,
            cursor::{Snapshot, version_at},
        },
    },
    event::{
        EventId,
        encode::{self, Ids},
    },
};

/// What a channel goes on with: an event, or the snapshot in front of its events. A snapshot may
/// stand at another channel's event, which it comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    id: EventId,
    is_snapshot: bool,
    index: usize,
}

/// The channels of a connection that have news, by what is next.
#[derive(Debug, Default)]
pub(super) struct Queue(BinaryHeap<Reverse<Next>>);

impl Queue {
    fn push(&mut self, next: Next) {
        self.0.push(Reverse(next));
    }

    fn peek(&self) -> Option<Next> {
        self.0.peek().map(|next| next.0)
    }

    fn pop(&mut self) {
        self.0.pop();
        // Idle connections keep nothing.
        if self.0.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Subscription {
    /// Reads what stands behind the cursors, up to `newest`, which was loaded before. Returns
    /// whether there was anything, the end included.
    pub(super) fn read_up_to(&mut self, newest: EventId) -> bool {
        let said = self.say_gaps();
        self.read_events(newest) || said
    }

    fn read_events(&mut self, newest: EventId) -> bool {
        if self.owed > 0 || !self.queue.is_empty() {
            return self.merge(newest);
        }
        let mut with_news = (0..self.cursors.len()).filter(|at| self.cursors[*at].has_news());
        match (with_news.next(), with_news.next()) {
            (None, _) => false,
            (Some(only), None) => {
                // The only channel there is cannot be overtaken by another.
                let up_to = match self.cursors.len() {
                    1 => EventId::MAX,
                    _ => newest,
                };
                self.read_one(only, up_to)
            }
            (Some(_), Some(_)) => self.merge(newest),
        }
    }

    /// One channel alone has news: its bytes go out as they are.
    fn read_one(&mut self, index: usize, up_to: EventId) -> bool {
        let mut said = false;
        loop {
            let cursor = &mut self.cursors[index];
            let position = cursor.position;
            let mut log = cursor.channel.lock();
            let read = log.read(position, up_to);
            let version = version_at(&cursor.channel, &log, read.next(position));
            drop(log);
            cursor.note_version(version);
            match read {
                Read::End => return said,
                Read::Events { chunk, next } => {
                    cursor.move_to(next);
                    self.ready.push(chunk);
                    self.anchored();
                    return true;
                }
                Read::Hole { next } => self.lagged(index, LostFrom::Unknown, next),
                Read::Overrun { next } => {
                    self.lagged(index, LostFrom::Position(position), next);
                }
            }
            if self.is_ended() || self.owed > 0 {
                return true;
            }
            said |= self.say_gaps();
        }
    }

    /// Something is missing in front of a cursor that was connected.
    fn lagged(&mut self, index: usize, from: LostFrom, next: u64) {
        let cursor = &mut self.cursors[index];
        cursor.start_at(next);
        cursor.overruns = cursor.overruns.saturating_add(1);
        let too_often = cursor.overruns > 1
            && self.on_gap == OnGap::Snapshot
            && cursor.channel.snapshots.get().is_some();
        cursor.channel.counters.gap(GapReason::Lagged);
        cursor.channel.shared.counters.gap(GapReason::Lagged);
        if self.on_lag == OnLag::End || too_often {
            self.send_away(index, "a client reads too slowly");
            return;
        }
        Gap::widen(&mut cursor.gap, from);
        self.ask_for_snapshot(index);
    }

    /// Reads several channels, and puts their events into one order.
    fn merge(&mut self, newest: EventId) -> bool {
        for index in 0..self.cursors.len() {
            self.enqueue(index);
            if self.is_ended() {
                return true;
            }
        }
        let mut said = self.say_gaps();

        let mut out = Vec::new();
        while out.len() < GATHER
            && let Some(next) = self.queue.peek()
            && next.id <= newest
        {
            self.queue.pop();
            self.cursors[next.index].queued = false;
            // What this channel has up to here, no other channel has anything in front of.
            let up_to = match self.queue.peek() {
                Some(other) => other.id.before().min(newest).max(next.id),
                None => newest,
            };
            let (is_large, is_news) = match next.is_snapshot {
                true => {
                    // It may have been asked for just now, since its client was overtaken.
                    if self.many {
                        self.catch_up.get_or_insert(newest);
                    }
                    self.take_snapshot(next.index, &mut out)
                }
                false => self.take_events(next.index, up_to, &mut out),
            };
            said |= is_news;
            if is_large || self.is_ended() {
                break;
            }
        }
        if out.is_empty() {
            return said;
        }
        self.push_merged(&mut out);
        true
    }

    /// Puts a channel into the queue that is not there and has news.
    fn enqueue(&mut self, index: usize) {
        while !self.cursors[index].queued {
            let cursor = &mut self.cursors[index];
            let next = if let Snapshot::Ready(snapshot) = &cursor.snapshot {
                Next {
                    id: snapshot.id,
                    is_snapshot: true,
                    index,
                }
            } else if cursor.has_news() {
                let position = cursor.position;
                let log = cursor.channel.lock();
                let (read, id) = (log.peek(position, EventId::MAX), log.id_at(position));
                let version = version_at(&cursor.channel, &log, position);
                drop(log);
                cursor.note_version(version);
                match (read, id) {
                    (Read::Events { .. }, Some(id)) => Next {
                        id,
                        is_snapshot: false,
                        index,
                    },
                    (Read::Hole { next }, _) => {
                        self.lagged(index, LostFrom::Unknown, next);
                        if self.is_ended() {
                            return;
                        }
                        continue;
                    }
                    (Read::Overrun { next }, _) => {
                        self.lagged(index, LostFrom::Position(position), next);
                        if self.is_ended() {
                            return;
                        }
                        continue;
                    }
                    (Read::End | Read::Events { .. }, _) => return,
                }
            } else {
                return;
            };
            self.cursors[index].queued = true;
            self.queue.push(next);
        }
    }

    /// Hands out a channel's events up to `up_to`, and queues what comes after them. Returns
    /// whether they are a chunk of their own, and whether anything has been made ready.
    fn take_events(&mut self, index: usize, up_to: EventId, out: &mut Vec<u8>) -> (bool, bool) {
        let ids = self.ids_of(index);
        let cursor = &mut self.cursors[index];
        let position = cursor.position;
        let mut copied = Vec::new();
        // Ids are changed after the log has been let go.
        let target = if ids == Ids::Leave {
            &mut *out
        } else {
            &mut copied
        };
        let limit = GATHER.saturating_sub(target.len());
        let log = cursor.channel.lock();
        let (read, next_id) = log.read_into(position, up_to, limit, target);
        let next = read.next(position);
        let version = version_at(&cursor.channel, &log, next);
        drop(log);
        cursor.note_version(version);
        match read {
            Read::End => (false, false),
            Read::Events { chunk, .. } => {
                cursor.move_to(next);
                if let Some(id) = next_id {
                    cursor.queued = true;
                    self.queue.push(Next {
                        id,
                        is_snapshot: false,
                        index,
                    });
                }
                encode::events(out, &copied, ids);
                if chunk.is_empty() {
                    return (false, true);
                }
                self.push_merged(out);
                match ids {
                    Ids::Leave => self.push_events(chunk),
                    Ids::Partial | Ids::Remove => {
                        encode::events(out, &chunk, ids);
                        self.push_merged(out);
                    }
                }
                (true, true)
            }
            // What is missing lies in front of all that is still to come, and behind all that
            // has gone out: here it has to be said.
            Read::Hole { .. } | Read::Overrun { .. } => {
                let from = match read {
                    Read::Overrun { .. } => LostFrom::Position(position),
                    _ => LostFrom::Unknown,
                };
                self.push_merged(out);
                self.lagged(index, from, next);
                (false, self.requeue(index, out))
            }
        }
    }

    /// Queues a channel behind what it has just given, and says what it has lost meanwhile: nothing
    /// that comes later may go out before that. Returns whether anything has been made ready.
    fn requeue(&mut self, index: usize, out: &mut Vec<u8>) -> bool {
        if !self.is_ended() {
            self.enqueue(index);
        }
        if self.is_ended() {
            return true;
        }
        if self.cursors[index].gap.is_none() {
            return false;
        }
        self.push_merged(out);
        self.say_gaps()
    }

    /// Hands out a channel's snapshot: shared bytes in a chunk of their own, unless it is small.
    fn take_snapshot(&mut self, index: usize, out: &mut Vec<u8>) -> (bool, bool) {
        let awaited = &mut self.cursors[index].snapshot;
        let Snapshot::Ready(snapshot) = std::mem::replace(awaited, Snapshot::None) else {
            return (false, false);
        };
        let event = if self.many {
            snapshot.without_id()
        } else {
            // It has its id: no more is owed.
            self.cursors[index].owed = false;
            self.owed -= 1;
            snapshot.event()
        };
        if event.len() < SMALL {
            out.extend_from_slice(&event);
        } else {
            self.push_merged(out);
            self.push_events(event);
        }
        self.requeue(index, out);
        (false, true)
    }

    /// How a channel's events go out on a connection that is owed snapshots.
    ///
    /// One id cannot say that a client has this channel's state and not yet that one's. So events
    /// after a snapshot come without ids until the snapshot's channel has caught up with the
    /// others, whose ids are partial meanwhile.
    fn ids_of(&self, index: usize) -> Ids {
        match (self.owed > 0 && self.many, self.cursors[index].owed) {
            (false, _) => Ids::Leave,
            (true, false) => Ids::Partial,
            (true, true) => Ids::Remove,
        }
    }

    fn push_merged(&mut self, out: &mut Vec<u8>) {
        if !out.is_empty() {
            self.push_events(std::mem::take(out).into());
        }
    }

    fn push_events(&mut self, chunk: Bytes) {
        self.ready.push(chunk);
        if self.owed == 0 {
            self.anchored();
        }
    }

    /// An event goes out, with its id. Of a channel that has a gap, it lies behind that gap; of
    /// another, it may be older.
    fn anchored(&mut self) {
        self.unanchored = false;
        self.owes_checkpoint &= self.cursors.len() > 1;
    }

    /// Says every gap that is not said yet, in front of all that follows on any channel: an
    /// event with an id takes the client past everything that is older, so a gap behind it might
    /// never be heard of if the connection is cut in between. Channels that miss something for
    /// the same reason share one event: a page need not act on each.
    pub(super) fn say_gaps(&mut self) -> bool {
        let mut notices: Vec<Notice<'_>> = Vec::new();
        for cursor in &mut self.cursors {
            // Where nothing else can follow, the snapshot says where delivery goes on.
            if cursor.gap.is_none() || (!self.many && cursor.is_waiting()) {
                continue;
            }
            let Some(gap) = cursor.gap.take() else {
                continue;
            };
            let log = cursor.channel.lock();
            // Up to a snapshot that is still being made, nobody knows.
            let missed = match cursor.is_waiting() {
                true => None,
                false => gap.missed(&log, cursor.position),
            };
            let next = log.id_at(cursor.position);
            drop(log);
            // The snapshot stands early enough.
            if missed == Some(0) {
                continue;
            }
            let oldest = match &cursor.snapshot {
                Snapshot::Ready(snapshot) => Some(snapshot.id),
                Snapshot::Pending(_) => None,
                Snapshot::None => next,
            };
            self.owes_checkpoint |= oldest.is_none();
            let part = Part {
                channel: cursor.channel.name(),
                missed,
                oldest,
            };
            let same = notices.iter_mut().find(|said| said.reason == gap.reason);
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
