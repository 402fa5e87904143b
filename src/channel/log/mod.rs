//! [`Log`]: a bounded run of the newest events of one channel, already framed as SSE bytes.
//!
//! A pure data structure: no async, no clock (it is told the time, in milliseconds), no I/O, no
//! lock of its own. It compares ids and never asks where they come from.
//!
//! **Positions.** Every entry has a dense number of its own, which never changes. A reader is a
//! position: that of the next entry that it has not seen.
//!
//! **Full.** The log holds the longest run of newest events that meets all three of its
//! [`Limits`]. That run is what a [`seek`](Log::seek) can reach. Beside it the log keeps what
//! readers that keep up have not read yet (the *live floor*; who does is for its owner to say),
//! as long as the limit in bytes allows, so that a burst does not throw them off. Eviction is logical per event;
//! memory is freed per segment.
//!
//! **Slow.** A position in front of the oldest entry that is kept is an
//! [`Overrun`](Read::Overrun): the reader learns where to go on, and so how much it has missed.
//!
//! **Holes.** Whoever feeds a log can say that something is missing at its end
//! ([`hole`](Log::hole)); every reader that crosses the place is told.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::event::EventId;
use segment::Segment;

/// A segment is sealed at this size, or earlier while the log holds little: what eviction leaves
/// behind in the oldest segment should stay small beside what the log holds.
const SEGMENT: usize = 64 * 1024;
const SMALLEST_SEGMENT: usize = 2 * 1024;

/// Reads of less than this are copied, since a slice would keep a whole segment alive.
pub(crate) const SMALL: usize = 4 * 1024;

/// The most that is copied into one chunk (unless a single event is larger).
pub(crate) const GATHER: usize = 16 * 1024;

/// The largest event that a log takes, whatever its limits.
const LARGEST_EVENT: usize = 1 << 30;

/// What bounds a log: all three hold at once.
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
    /// Position of the oldest entry that is kept.
    first: u64,
    /// Position of the oldest entry that a seek can reach; never in front of `first`.
    replay: u64,
    /// What lies behind this position is kept for readers that keep up.
    live: u64,
    /// The position that the next entry gets.
    next: u64,
    /// Bytes ever appended.
    written: u64,
    /// What comes before the entry at `replay`, and before the one at `first`.
    before: Edge,
    before_first: Edge,
    /// The id that the log was made with, and that of its first event ever.
    origin: EventId,
    eldest: Option<EventId>,
    newest: EventId,
    /// Holes among the entries kept, and whether there ever was one.
    holes: usize,
    had_holes: bool,
    /// The newest time the log was told.
    now: u64,
    /// The chunk last gathered. Readers at the end of a log all want the same one.
    gathered: Option<Gathered>,
}

/// The id before an entry, and whether a hole lies between the two.
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

/// Segments that left the log. To be dropped after the lock around the log is gone.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    _segments: Vec<Segment>,
    _gathered: Option<Gathered>,
}

/// Where a seek landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// Exactly behind the event, `pending` entries in front of the end.
    Exact { position: u64, pending: u64 },
    /// What came next after the event is no longer there.
    Evicted,
}

/// What stands at a reader's position.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing yet.
    End,
    /// Whole events, as they go on the wire.
    Events { chunk: Bytes, next: u64 },
    /// Here something is missing that never reached the log. Go on at `next`.
    Hole { next: u64 },
    /// The position has been evicted. Go on at `next`, the oldest entry kept.
    Overrun { next: u64 },
}

impl Read {
    /// Where a reader at `position` goes on.
    pub(crate) fn next(&self, position: u64) -> u64 {
        match self {
            Self::End => position,
            Self::Events { next, .. } | Self::Hole { next } | Self::Overrun { next } => *next,
        }
    }
}

impl Log {
    /// An empty log, which allocates nothing. `before` is the id of what a first event follows.
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

    /// Whether an event of that many bytes may be appended at all.
    pub(crate) fn fits(&self, size: usize) -> bool {
        size <= self.limits.bytes && size <= LARGEST_EVENT
    }

    /// The id of the newest event, or what the log was made with.
    pub(crate) fn newest(&self) -> EventId {
        self.newest
    }

    /// The position behind the newest entry.
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

    /// Appends one event, given in pieces. `id` is larger than any before.
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

    /// There are no readers any more that anything is to be kept for beyond the limits.
    pub(crate) fn drop_floor(&mut self) -> Evicted {
        self.live = self.next;
        self.trim()
    }

    /// Notes that something is missing behind the newest entry.
    #[allow(dead_code)] // Fed by engines; see docs/architecture.md.
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
                // There may be many channels that never have more than this.
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
            // So that a large event is not copied for every reader.
            if size >= SMALL {
                tail.seal();
            }
        }
        self.next += 1;
        self.written += size as u64;
    }

    /// Tells the log what time it is, so that it forgets what has grown too old.
    pub(crate) fn expire(&mut self, now: u64) -> Evicted {
        self.now = self.now.max(now);
        self.trim()
    }

    /// What lies in front of this position need not be kept for readers any longer: those that
    /// keep up have it.
    pub(crate) fn keep_from(&mut self, position: u64) -> Evicted {
        self.live = self.live.max(position.min(self.next));
        self.trim()
    }

    /// Whether anything is kept for readers alone.
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

    /// The entry at `position`, as what comes before the next one.
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

    /// The segment that holds the entry at `position`, which is kept.
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

    /// The position exactly behind the event `id`.
    ///
    /// The caller knows that `id` is of this life, and not newer than what was drawn.
    pub(crate) fn seek(&self, id: EventId) -> Seek {
        self.seek_between(id, self.before, self.replay)
    }

    /// The same for a reader that has been registered since `id` was the newest: it also finds
    /// what is kept for readers alone.
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

    /// How many events lie between the event `id`, which may be gone, and `position`, if the
    /// ids tell.
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
        // All that the hub has drawn since the log was made are here: ids count the entries.
        let is_dense = self.newest.sequence() - self.origin.sequence() == self.next;
        let after = match self.eldest {
            Some(eldest) if id >= eldest && !is_dense => return None,
            Some(eldest) if id >= eldest => id.sequence() - self.origin.sequence(),
            _ => 0,
        };
        Some(position.saturating_sub(after))
    }

    /// Whether a state of `size` bytes that contains every event up to `id` is worth handing out
    /// again: what follows it is retained, at most half of what the log may hold, and not
    /// much larger than the state.
    pub(crate) fn is_recent(&self, id: EventId, size: usize) -> bool {
        let Seek::Exact { position, pending } = self.seek(id) else {
            return false;
        };
        pending <= self.limits.events as u64 / 2
            && self.bytes_from(position) <= size.max(SEGMENT).min(self.limits.bytes / 2) as u64
    }

    /// The position behind the last entry with an id up to `id`.
    fn after(&self, id: EventId) -> u64 {
        let index = self
            .segments
            .partition_point(|segment| segment.last_id().is_some_and(|last| last < id));
        // A hole bears the id of the event in front of it, and may lie in the next segment.
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

    /// What stands at `position`, no further than the event `up_to`.
    pub(crate) fn read(&mut self, position: u64, up_to: EventId) -> Read {
        let (from, to) = match self.readable(position, up_to) {
            Ok(range) => range,
            Err(read) => return read,
        };
        self.slice(from, to)
            .unwrap_or_else(|| self.gather(from, to))
    }

    /// The same for a reader that merges several logs, up to the end of a segment: what is copied
    /// is appended to `out`, at most `limit` bytes of it, but at least one event, and the chunk is
    /// empty. Returns the id of what comes next, too.
    ///
    /// Such reads are often of one event, so each of them searches for its segment only.
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
            // It comes after the event whose id it bears.
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

    /// Events without a copy: of a sealed segment, if they are not small.
    fn slice(&self, from: u64, to: u64) -> Option<Read> {
        let segment = &self.segments[self.locate(from)];
        let next = to.min(segment.end());
        if !segment.is_sealed() || self.offset(next) - segment.offset(from) < SMALL as u64 {
            return None;
        }
        let chunk = segment.slice(from, next)?;
        Some(Read::Events { chunk, next })
    }

    /// Copies events into one chunk; readers at the same place share it.
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
        // Only what ends at the end will be asked for again. A large event is not kept a second
        // time: nothing large may be dropped under the log's lock when it is replaced.
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
    /// least one. Returns the position behind the last one copied.
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

    /// The run of events that a reader at `position` may have: up to the first hole, and up to
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
