//! [`Log`]: a bounded run of the newest events of one channel, already encoded as SSE bytes.
//!
//! A pure data structure: no async, no clock (callers pass the time, in milliseconds), no I/O, no
//! lock. It compares ids and does not know where they come from.
//!
//! **Positions.** Entries are numbered without holes, and a number never changes. A reader is a
//! position: that of the next entry that it has not seen.
//!
//! **Bounds.** The log holds the longest run of newest events that meets all three of its
//! [`Limits`]. A [`seek`](Log::seek) can reach exactly this run. Beyond it, as far as the byte
//! limit allows, the log keeps what readers that keep up have not read yet (the *live floor*), so
//! that a burst does not cut them off. Its owner decides which readers keep up. Eviction is
//! logical per event; memory is freed per segment.
//!
//! **Slow readers.** A position before the oldest kept entry is an [`Overrun`](Read::Overrun): the
//! reader learns where to continue, and thus how much it has missed.
//!
//! **Holes.** The owner can note that something is missing at the end of the log
//! ([`hole`](Log::hole)); every reader that crosses that position learns of it.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::event::EventId;
use segment::Segment;

/// A segment is sealed at this size, or earlier if the log holds little. So evicted events that
/// still occupy the oldest segment take little memory compared with what the log holds.
const SEGMENT: usize = 64 * 1024;
const SMALLEST_SEGMENT: usize = 2 * 1024;

/// Smaller reads are copied, because a slice would keep a whole segment alive.
pub(crate) const SMALL: usize = 4 * 1024;

/// The maximum that is copied into one chunk, unless a single event is larger.
pub(crate) const GATHER: usize = 16 * 1024;

/// The largest event that a log accepts, whatever its limits.
const LARGEST_EVENT: usize = 1 << 30;

/// The bounds of a log. All three hold at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// In milliseconds.
    pub(crate) age: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Log {
    limits: Limits,
    segments: VecDeque<Segment>,
    /// The position of the oldest kept entry.
    first: u64,
    /// The position of the oldest entry that a seek can reach; never before `first`.
    replay: u64,
    /// Entries from this position on are kept for readers that keep up.
    live: u64,
    /// The position of the next entry.
    next: u64,
    /// Bytes ever appended.
    written: u64,
    /// What comes before the entry at `replay`, and before the one at `first`.
    before: Edge,
    before_first: Edge,
    /// The id that the log was created with, and the id of its first event ever.
    origin: EventId,
    eldest: Option<EventId>,
    newest: EventId,
    /// The number of holes among the kept entries, and whether there ever was one.
    holes: usize,
    had_holes: bool,
    /// The latest time that was passed in.
    now: u64,
    /// The last gathered chunk. Readers at the end of a log all want the same one.
    gathered: Option<Gathered>,
}

/// The id before an entry, and whether there is a hole between the two.
#[derive(Clone, Copy, Debug)]
struct Edge {
    id: EventId,
    is_hole: bool,
}

#[derive(Debug)]
struct Gathered {
    from: u64,
    to: u64,
    chunk: Bytes,
}

/// What has left the log. Drop it after releasing the lock around the log.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    _segments: Vec<Segment>,
    _gathered: Option<Gathered>,
}

/// The result of a seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// Exactly after the event, `pending` entries before the end.
    Exact { position: u64, pending: u64 },
    /// The entry after the event has been evicted.
    Evicted,
}

/// What a reader finds at its position.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing yet.
    End,
    /// Whole events in their wire format.
    Events { chunk: Bytes, next: u64 },
    /// Something is missing here that never reached the log. Continue at `next`.
    Hole { next: u64 },
    /// The position has been evicted. Continue at `next`, the oldest kept entry.
    Overrun { next: u64 },
}

impl Read {
    /// Where a reader at `position` continues.
    pub(crate) fn next(&self, position: u64) -> u64 {
        match self {
            Self::End => position,
            Self::Events { next, .. } | Self::Hole { next } | Self::Overrun { next } => *next,
        }
    }
}

impl Log {
    /// An empty log, which allocates nothing. The first event follows the id `before`.
    pub(crate) fn new(limits: Limits, before: EventId) -> Self {
        let edge = Edge {
            id: before,
            is_hole: false,
        };
        Self {
            limits,
            segments: VecDeque::new(),
            first: 0,
            replay: 0,
            live: 0,
            next: 0,
            written: 0,
            before: edge,
            before_first: edge,
            origin: before,
            eldest: None,
            newest: before,
            holes: 0,
            had_holes: false,
            now: 0,
            gathered: None,
        }
    }

    /// Whether an event of this size may be appended at all.
    pub(crate) fn fits(&self, size: usize) -> bool {
        size <= self.limits.bytes && size <= LARGEST_EVENT
    }

    /// The id of the newest event, or the one that the log was created with.
    pub(crate) fn newest(&self) -> EventId {
        self.newest
    }

    /// The position after the newest entry.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }

    /// The position of the oldest entry that a seek can reach.
    pub(crate) fn oldest(&self) -> u64 {
        self.replay
    }

    /// How many events a seek can reach, and how many bytes they take.
    pub(crate) fn retained(&self) -> (u64, u64) {
        (
            self.next - self.replay,
            self.written - self.offset(self.replay),
        )
    }

    /// The id of the entry at `position`, if it is kept.
    pub(crate) fn id_at(&self, position: u64) -> Option<EventId> {
        (self.first..self.next)
            .contains(&position)
            .then(|| self.segments[self.locate(position)].id(position))
    }

    /// Appends one event, given in pieces. `id` must be greater than all before.
    ///
    /// Without `readers`, nothing is kept beyond the limits.
    pub(crate) fn append(
        &mut self,
        id: EventId,
        pieces: &[&[u8]],
        now: u64,
        readers: bool,
    ) -> Evicted {
        debug_assert!(id > self.newest);
        self.newest = id;
        self.eldest.get_or_insert(id);
        self.push(id, pieces, now);
        if readers {
            return self.trim();
        }
        self.drop_floor()
    }

    /// Drops the live floor: no reader needs anything beyond the limits.
    pub(crate) fn drop_floor(&mut self) -> Evicted {
        self.live = self.next;
        self.trim()
    }

    /// Notes that something is missing after the newest entry.
    #[allow(dead_code)] // For logs that are fed from outside, which may skip events. Only tests so far.
    pub(crate) fn hole(&mut self, now: u64) -> Evicted {
        self.holes += 1;
        self.had_holes = true;
        self.push(self.newest, &[], now);
        self.trim()
    }

    fn push(&mut self, id: EventId, pieces: &[&[u8]], now: u64) {
        self.now = self.now.max(now);
        let size = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let held = usize::try_from(self.written - self.offset(self.first)).unwrap_or(usize::MAX);
        let seal_at = (held / 4).clamp(SMALLEST_SEGMENT, SEGMENT);
        if !self
            .segments
            .back()
            .is_some_and(|tail| tail.fits(size, self.now, seal_at))
        {
            let capacity = match self.segments.back_mut() {
                Some(tail) => {
                    tail.seal();
                    size.max(seal_at)
                }
                // A hub may have many channels that never hold more than this.
                None => {
                    self.segments.reserve_exact(1);
                    size
                }
            };
            let segment = Segment::new(self.next, self.written, self.now, capacity);
            self.segments.push_back(segment);
        }
        if let Some(tail) = self.segments.back_mut() {
            tail.push(id, pieces, self.now);
            // Sealed, so that a large event is not copied for every reader.
            if size >= SMALL {
                tail.seal();
            }
        }
        self.next += 1;
        self.written += size as u64;
    }

    /// Advances the log's time and evicts events that are too old.
    pub(crate) fn expire(&mut self, now: u64) -> Evicted {
        self.now = self.now.max(now);
        self.trim()
    }

    /// Releases entries before this position: all readers that keep up have read them.
    pub(crate) fn keep_from(&mut self, position: u64) -> Evicted {
        self.live = self.live.max(position.min(self.next));
        self.trim()
    }

    /// Whether anything is kept only for readers.
    pub(crate) fn has_floor(&self) -> bool {
        self.first < self.replay
    }

    /// Whether any event has ever been evicted.
    pub(crate) fn has_evicted(&self) -> bool {
        self.replay > 0
    }

    fn trim(&mut self) -> Evicted {
        while self.replay < self.next && self.exceeds_limits(self.replay) {
            self.before = self.edge(self.replay);
            self.replay += 1;
        }
        let mut first = self.replay.min(self.live).max(self.first);
        while self.bytes_from(first) > self.limits.bytes as u64 {
            first += 1;
        }
        if self.holes > 0 {
            self.holes -= (self.first..first)
                .filter(|position| self.segments[self.locate(*position)].is_hole(*position))
                .count();
        }
        if first > self.first {
            self.before_first = self.edge(first - 1);
            self.first = first;
        }

        let mut evicted = Evicted::default();
        while self
            .segments
            .front()
            .is_some_and(|segment| segment.end() <= self.first)
        {
            evicted._segments.extend(self.segments.pop_front());
        }
        if self
            .gathered
            .as_ref()
            .is_some_and(|last| last.to != self.next)
        {
            evicted._gathered = self.gathered.take();
        }
        evicted
    }

    /// The edge after the entry at `position`.
    fn edge(&self, position: u64) -> Edge {
        let segment = &self.segments[self.locate(position)];
        Edge {
            id: segment.id(position),
            is_hole: segment.is_hole(position),
        }
    }

    fn exceeds_limits(&self, position: u64) -> bool {
        let Limits { events, bytes, age } = self.limits;
        self.next - position > events as u64
            || self.bytes_from(position) > bytes as u64
            || age.is_some_and(|age| {
                self.now
                    .saturating_sub(self.segments[self.locate(position)].at(position))
                    > age
            })
    }

    fn bytes_from(&self, position: u64) -> u64 {
        self.written - self.offset(position)
    }

    fn offset(&self, position: u64) -> u64 {
        if position >= self.next {
            return self.written;
        }
        self.segments[self.locate(position)].offset(position)
    }

    /// The index of the segment that holds the entry at `position`, which must be kept.
    fn locate(&self, position: u64) -> usize {
        // Eviction works at the front and live readers at the back; only a replay searches.
        match (self.segments.front(), self.segments.back()) {
            (Some(front), _) if position < front.end() => 0,
            (_, Some(back)) if position >= back.first() => self.segments.len() - 1,
            _ => self
                .segments
                .partition_point(|segment| segment.end() <= position),
        }
    }

    /// The position exactly after the event `id`.
    ///
    /// The caller has checked that `id` is of this epoch and not newer than the newest id drawn.
    pub(crate) fn seek(&self, id: EventId) -> Seek {
        self.seek_between(id, self.before, self.replay)
    }

    /// Like [`seek`](Log::seek), for a reader that has been registered since `id` was the newest:
    /// it also finds what is kept only for readers.
    pub(crate) fn seek_kept(&self, id: EventId) -> Seek {
        self.seek_between(id, self.before_first, self.first)
    }

    fn seek_between(&self, id: EventId, before: Edge, oldest: u64) -> Seek {
        if id < before.id || (id == before.id && before.is_hole) {
            return Seek::Evicted;
        }
        let position = self.after(id).max(oldest);
        Seek::Exact {
            position,
            pending: self.next - position,
        }
    }

    /// How many events are between the event `id`, which may be gone, and `position`; `None` if
    /// the ids do not show it.
    pub(crate) fn missed(&self, id: EventId, position: u64) -> Option<u64> {
        if let Seek::Exact {
            position: after, ..
        } = self.seek_kept(id)
        {
            return Some(position.saturating_sub(after));
        }
        if self.had_holes || id < self.origin {
            return None;
        }
        // If every id drawn since the log was created is in this log, ids count its entries.
        let is_dense = self.newest.sequence() - self.origin.sequence() == self.next;
        let after = match self.eldest {
            Some(eldest) if id >= eldest && !is_dense => return None,
            Some(eldest) if id >= eldest => id.sequence() - self.origin.sequence(),
            _ => 0,
        };
        Some(position.saturating_sub(after))
    }

    /// Whether a state of `size` bytes that contains every event up to `id` is worth reusing: the
    /// events after it are retained, take at most half of what the log may hold, and are not much
    /// larger than the state.
    pub(crate) fn is_recent(&self, id: EventId, size: usize) -> bool {
        let Seek::Exact { position, pending } = self.seek(id) else {
            return false;
        };
        pending <= self.limits.events as u64 / 2
            && self.bytes_from(position) <= size.max(SEGMENT).min(self.limits.bytes / 2) as u64
    }

    /// The first position whose entry comes after `id`.
    fn after(&self, id: EventId) -> u64 {
        let index = self
            .segments
            .partition_point(|segment| segment.last_id().is_some_and(|last| last < id));
        // A hole has the id of the event before it, and may be in the next segment.
        match self.segments.get(index) {
            None => self.next,
            Some(segment) => match segment.after(id) {
                position if position == segment.end() => match self.segments.get(index + 1) {
                    Some(next) => next.after(id),
                    None => position,
                },
                position => position,
            },
        }
    }

    /// What a reader finds at `position`, up to the event `up_to`.
    pub(crate) fn read(&mut self, position: u64, up_to: EventId) -> Read {
        let (from, to) = match self.readable(position, up_to) {
            Ok(range) => range,
            Err(read) => return read,
        };
        self.slice(from, to)
            .unwrap_or_else(|| self.gather(from, to))
    }

    /// Like [`read`](Log::read), for a reader that merges several logs. Reads no further than the
    /// end of a segment. What must be copied is appended to `out`, at most `limit` bytes but at
    /// least one event; then the chunk is empty. Also returns the id of the next entry.
    ///
    /// Such reads often cover a single event, so they do no more than find its segment.
    pub(crate) fn read_into(
        &self,
        position: u64,
        up_to: EventId,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> (Read, Option<EventId>) {
        if !(self.first..self.next).contains(&position) {
            return match self.readable(position, up_to) {
                Ok(_) => (Read::End, None),
                Err(read) => {
                    let next_id = self.id_at(read.next(position));
                    (read, next_id)
                }
            };
        }
        let segment = &self.segments[self.locate(position)];
        let run = segment.run(position, up_to);
        if run == position {
            // A hole comes after the event whose id it has.
            let is_due = segment.id(position) < up_to || self.newest <= up_to;
            let is_hole = segment.is_hole(position) && is_due;
            let next = position + 1;
            return match is_hole {
                true => (Read::Hole { next }, self.id_at(next)),
                false => (Read::End, Some(segment.id(position))),
            };
        }
        let size = segment.offset(run) - segment.offset(position);
        let chunk = match size >= SMALL as u64 {
            true => segment.slice(position, run),
            false => None,
        };
        let (chunk, next) = chunk.map_or_else(
            || {
                let next = run.min(segment.within(position, limit));
                out.extend_from_slice(segment.bytes(position, next));
                (Bytes::new(), next)
            },
            |chunk| (chunk, run),
        );
        let next_id = match next < segment.end() {
            true => Some(segment.id(next)),
            false => self.id_at(next),
        };
        (Read::Events { chunk, next }, next_id)
    }

    /// Events without a copy; `None` if the segment is open or the events are small.
    fn slice(&self, from: u64, to: u64) -> Option<Read> {
        let segment = &self.segments[self.locate(from)];
        let next = to.min(segment.end());
        if !segment.is_sealed() || self.offset(next) - segment.offset(from) < SMALL as u64 {
            return None;
        }
        let chunk = segment.slice(from, next)?;
        Some(Read::Events { chunk, next })
    }

    /// Copies events into one chunk, which readers at the same position share.
    fn gather(&mut self, from: u64, to: u64) -> Read {
        if let Some(last) = &self.gathered
            && last.from == from
            && last.to == to
        {
            return Read::Events {
                chunk: last.chunk.clone(),
                next: to,
            };
        }
        let mut out = Vec::new();
        let next = self.copy(from, to, GATHER, &mut out);
        let chunk = Bytes::from(out);
        // Other readers will only want a chunk that reaches the log's end. A large chunk is not
        // kept, because it would be dropped under the log's lock when it is replaced.
        if next == self.next && chunk.len() <= GATHER {
            self.gathered = Some(Gathered {
                from,
                to: next,
                chunk: chunk.clone(),
            });
        }
        Read::Events { chunk, next }
    }

    /// Copies whole events from `from` up to `to`, or as many as fit into `limit` bytes, but at
    /// least one. Returns the position after the last one copied.
    fn copy(&self, from: u64, to: u64, limit: usize, out: &mut Vec<u8>) -> u64 {
        let start = self.offset(from);
        let mut position = from;
        out.reserve(
            usize::try_from(self.offset(to) - start)
                .map_or(limit, |all| all.min(limit.max(self.size_at(from)))),
        );
        let before = out.len();
        for segment in self.segments.range(self.locate(from)..) {
            let end = to.min(segment.end());
            let left = limit - (out.len() - before).min(limit);
            let fitting = if position == from {
                segment.within(position, limit)
            } else if self.size_at(position) > left {
                break;
            } else {
                segment.within(position, left)
            };
            let stop = end.min(fitting);
            out.extend_from_slice(segment.bytes(position, stop));
            position = stop;
            if stop < segment.end() || stop == to {
                break;
            }
        }
        position
    }

    fn size_at(&self, position: u64) -> usize {
        usize::try_from(self.offset(position + 1) - self.offset(position)).unwrap_or(usize::MAX)
    }

    /// What [`read`](Log::read) would find, without the bytes.
    pub(crate) fn peek(&self, position: u64, up_to: EventId) -> Read {
        match self.readable(position, up_to) {
            Ok((_, next)) => Read::Events {
                chunk: Bytes::new(),
                next,
            },
            Err(read) => read,
        }
    }

    /// The range of events that a reader at `position` may read: up to the first hole, and up to
    /// the event `up_to`.
    fn readable(&self, position: u64, up_to: EventId) -> Result<(u64, u64), Read> {
        if position < self.first {
            return Err(Read::Overrun { next: self.first });
        }
        let mut to = self.next;
        if self.newest > up_to {
            to = self.after(up_to);
        }
        if position >= to {
            return Err(Read::End);
        }
        if self.holes > 0 {
            let hole = (position..to)
                .find(|position| self.segments[self.locate(*position)].is_hole(*position));
            if hole == Some(position) {
                return Err(Read::Hole { next: position + 1 });
            }
            to = hole.unwrap_or(to);
        }
        Ok((position, to))
    }
}
