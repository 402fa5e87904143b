//! Reading: one channel as it is, or several merged by id (law 5).
//!
//! **The merge** keeps a heap with the next id of each channel that has news. It takes from the
//! channel with the smallest id, up to the next smallest. So each log is locked once to find its
//! next id, and once for each run of events that no other channel interrupts. The heap is kept
//! between chunks, so a long replay of many channels does not rebuild it for each chunk.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;

use crate::{
    channel::{
        log::{GATHER, Read, SMALL},
        subscription::{
            Subscription,
            cursor::{Snapshot, version_at},
        },
    },
    event::{
        EventId,
        encode::{self, Ids},
    },
};

/// What comes next in a channel: an event, or the snapshot before its events. A snapshot may have
/// the id of another channel's event; then it comes after that event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    id: EventId,
    is_snapshot: bool,
    index: usize,
}

/// The channels of a connection that have news, ordered by what comes next.
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
        // Idle connections keep no memory here.
        if self.0.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What taking from one channel made ready.
enum Taken {
    Nothing,
    /// Something that more may follow in the same chunk.
    Some,
    /// A shared chunk. It goes out as it is, before anything else is gathered.
    Chunk,
}

impl Subscription {
    /// Reads what follows the cursors, up to `newest`, which the caller loaded before. Returns
    /// whether there was anything, the end included.
    pub(super) fn read_up_to(&mut self, newest: EventId) -> bool {
        let has_reported = self.report_gaps();
        self.read_events(newest) || has_reported
    }

    fn read_events(&mut self, newest: EventId) -> bool {
        if self.anchor.owes_snapshots() || !self.queue.is_empty() {
            return self.merge(newest);
        }
        let mut with_news = (0..self.cursors.len()).filter(|at| self.cursors[*at].has_news());
        match (with_news.next(), with_news.next()) {
            (None, _) => false,
            (Some(only), None) => {
                // A single channel needs no bound: there is no other whose event could come first.
                let up_to = match self.cursors.len() {
                    1 => EventId::MAX,
                    _ => newest,
                };
                self.read_one(only, up_to)
            }
            (Some(_), Some(_)) => self.merge(newest),
        }
    }

    /// Reads the only channel that has news. Its bytes go out as the log has them.
    fn read_one(&mut self, index: usize, up_to: EventId) -> bool {
        let mut has_reported = false;
        loop {
            let cursor = &mut self.cursors[index];
            let position = cursor.position;
            let mut log = cursor.channel.lock();
            let read = log.read(position, up_to);
            let version = version_at(&cursor.channel, &log, read.next(position));
            drop(log);
            cursor.note_version(version);
            match read {
                Read::End => return has_reported,
                Read::Events { chunk, next } => {
                    cursor.move_to(next);
                    self.push_events(chunk);
                    return true;
                }
                Read::Hole { .. } | Read::Overrun { .. } => self.lagged(index, &read),
            }
            if self.is_ended() || self.anchor.owes_snapshots() {
                return true;
            }
            has_reported |= self.report_gaps();
        }
    }

    /// Reads several channels and merges their events by id.
    fn merge(&mut self, newest: EventId) -> bool {
        for index in 0..self.cursors.len() {
            self.enqueue(index);
        }
        if self.is_ended() {
            return true;
        }
        // Gaps that were just found go out first: an event with an id takes the client past
        // everything older.
        let mut is_ready = self.report_gaps();

        // Small events are copied into one chunk. Nothing after `newest` goes out: an event with a
        // smaller id may have come on a channel that had no news when it was enqueued (law 5).
        let mut out = Vec::new();
        while out.len() < GATHER
            && let Some(next) = self.queue.peek()
            && next.id <= newest
        {
            self.queue.pop();
            self.cursors[next.index].queued = false;
            // No other channel has anything up to this id. At least `next.id` itself is taken,
            // also if the other is a snapshot with the same id, which comes after it.
            let up_to = match self.queue.peek() {
                Some(other) => other.id.before().min(newest).max(next.id),
                None => newest,
            };
            let taken = if next.is_snapshot {
                // `advance` has not seen the snapshot if its client was overtaken just now.
                if self.many {
                    self.anchor.catch_up_to(newest);
                }
                self.take_snapshot(next.index, &mut out)
            } else {
                self.take_events(next.index, up_to, &mut out)
            };
            is_ready |= !matches!(taken, Taken::Nothing);
            if matches!(taken, Taken::Chunk) || self.is_ended() {
                break;
            }
        }
        is_ready | self.push_gathered(&mut out)
    }

    /// Queues a channel that has news and is not queued yet.
    fn enqueue(&mut self, index: usize) {
        if self.cursors[index].queued {
            return;
        }
        if let Some(next) = self.next_of(index) {
            self.cursors[index].queued = true;
            self.queue.push(next);
        }
    }

    fn next_of(&mut self, index: usize) -> Option<Next> {
        // After a loss, look again: the channel continues with what it still has, or with a
        // snapshot.
        while !self.is_ended() {
            let cursor = &mut self.cursors[index];
            if let Snapshot::Ready(snapshot) = &cursor.snapshot {
                return Some(Next {
                    id: snapshot.id,
                    is_snapshot: true,
                    index,
                });
            }
            if !cursor.has_news() {
                return None;
            }
            let position = cursor.position;
            let log = cursor.channel.lock();
            let (read, id) = (log.peek(position, EventId::MAX), log.id_at(position));
            let version = version_at(&cursor.channel, &log, position);
            drop(log);
            cursor.note_version(version);
            match read {
                Read::End => return None,
                Read::Events { .. } => {
                    return Some(Next {
                        id: id?,
                        is_snapshot: false,
                        index,
                    });
                }
                Read::Hole { .. } | Read::Overrun { .. } => self.lagged(index, &read),
            }
        }
        None
    }

    /// Takes a channel's events up to `up_to`, and queues what comes after them.
    fn take_events(&mut self, index: usize, up_to: EventId, out: &mut Vec<u8>) -> Taken {
        let cursor = &mut self.cursors[index];
        let ids = self.anchor.ids(cursor, self.many);
        let position = cursor.position;
        // Ids are rewritten after the log is unlocked.
        let mut copied = Vec::new();
        let target = match ids {
            Ids::Leave => &mut *out,
            Ids::Partial | Ids::Remove => &mut copied,
        };
        let limit = GATHER.saturating_sub(target.len());
        let log = cursor.channel.lock();
        let (read, next_id) = log.read_into(position, up_to, limit, target);
        let next = read.next(position);
        let version = version_at(&cursor.channel, &log, next);
        drop(log);
        cursor.note_version(version);
        let chunk = match read {
            Read::End => return Taken::Nothing,
            Read::Events { chunk, .. } => chunk,
            // The gap comes after everything gathered so far, and before everything that follows.
            Read::Hole { .. } | Read::Overrun { .. } => {
                self.push_gathered(out);
                self.lagged(index, &read);
                return self.requeue(index, out);
            }
        };
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
            return Taken::Some;
        }
        self.push_gathered(out);
        match ids {
            Ids::Leave => self.push_events(chunk),
            Ids::Partial | Ids::Remove => {
                encode::events(out, &chunk, ids);
                self.push_gathered(out);
            }
        }
        Taken::Chunk
    }

    /// Takes a channel's snapshot: shared bytes in a separate chunk, unless it is small.
    fn take_snapshot(&mut self, index: usize, out: &mut Vec<u8>) -> Taken {
        let cursor = &mut self.cursors[index];
        let Snapshot::Ready(snapshot) = std::mem::replace(&mut cursor.snapshot, Snapshot::None)
        else {
            return Taken::Nothing;
        };
        let event = if self.many {
            snapshot.without_id()
        } else {
            self.anchor.settle(cursor);
            snapshot.event()
        };
        if event.len() < SMALL {
            out.extend_from_slice(&event);
        } else {
            self.push_gathered(out);
            self.push_events(event);
        }
        self.requeue(index, out);
        Taken::Some
    }

    /// Queues a channel again after something was taken from it. Reports a loss at once, since
    /// nothing that comes later may go out before.
    fn requeue(&mut self, index: usize, out: &mut Vec<u8>) -> Taken {
        self.enqueue(index);
        if self.is_ended() {
            return Taken::Some;
        }
        if self.cursors[index].gap.is_none() {
            return Taken::Nothing;
        }
        self.push_gathered(out);
        match self.report_gaps() {
            true => Taken::Some,
            false => Taken::Nothing,
        }
    }

    fn push_gathered(&mut self, out: &mut Vec<u8>) -> bool {
        let has_any = !out.is_empty();
        if has_any {
            self.push_events(std::mem::take(out).into());
        }
        has_any
    }

    fn push_events(&mut self, chunk: Bytes) {
        self.ready.push(chunk);
        self.anchor.event_sent(self.cursors.len());
    }
}
