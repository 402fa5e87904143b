//! [`Segment`]: a run of encoded events in one buffer, and an index into it.
//!
//! Open segments grow and are copied from; sealed ones are handed out in slices. Positions are
//! those of the log.

use bytes::Bytes;

use crate::event::EventId;

/// One event, or a hole if it has no bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: EventId,
    /// Where the event ends in the segment's bytes.
    end: u32,
    /// Milliseconds after the segment's start.
    at: u32,
}

#[derive(Debug)]
enum Buffer {
    Open(Vec<u8>),
    Sealed(Bytes),
}

#[derive(Debug)]
pub(super) struct Segment {
    /// Position of the first entry.
    first: u64,
    /// How many bytes were appended to the log before this segment.
    offset: u64,
    /// The time of the first entry, in milliseconds of the log's clock.
    started: u64,
    entries: Vec<Entry>,
    buffer: Buffer,
}

impl Segment {
    pub(super) fn new(first: u64, offset: u64, started: u64, capacity: usize) -> Self {
        Self {
            first,
            offset,
            started,
            entries: Vec::with_capacity(1),
            buffer: Buffer::Open(Vec::with_capacity(capacity)),
        }
    }

    /// Appends an event in pieces, or a hole if the pieces are empty.
    pub(super) fn push(&mut self, id: EventId, pieces: &[&[u8]], now: u64) {
        let Buffer::Open(bytes) = &mut self.buffer else {
            // The log opens another segment if `fits` is false, as it is for a sealed one.
            debug_assert!(false, "a sealed segment does not grow");
            return;
        };
        for piece in pieces {
            bytes.extend_from_slice(piece);
        }
        self.entries.push(Entry {
            id,
            end: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            at: u32::try_from(now.saturating_sub(self.started)).unwrap_or(u32::MAX),
        });
    }

    /// Whether an event of this size and time still belongs in this segment.
    pub(super) fn fits(&self, size: usize, now: u64, seal_at: usize) -> bool {
        let fits = self.len() + size <= seal_at || self.entries.is_empty();
        matches!(self.buffer, Buffer::Open(_))
            && fits
            && now.saturating_sub(self.started) < u64::from(u32::MAX)
    }

    /// From now on, bytes are handed out in slices of this buffer.
    pub(super) fn seal(&mut self) {
        if let Buffer::Open(bytes) = &mut self.buffer {
            let mut bytes = std::mem::take(bytes);
            // Spare capacity would stay allocated as long as any slice lives.
            if bytes.len() < bytes.capacity() / 8 * 7 {
                bytes.shrink_to_fit();
            }
            self.buffer = Buffer::Sealed(bytes.into());
            self.entries.shrink_to_fit();
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.buffer, Buffer::Sealed(_))
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The position after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn len(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.end as usize)
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position - self.first).unwrap_or(usize::MAX)
    }

    /// Where in this segment's bytes the entry at `position` begins.
    fn start(&self, position: u64) -> usize {
        match self.index(position) {
            0 => 0,
            index => self.entries[index - 1].end as usize,
        }
    }

    /// How many bytes were appended to the log before the entry at `position`.
    pub(super) fn offset(&self, position: u64) -> u64 {
        self.offset + self.start(position) as u64
    }

    pub(super) fn id(&self, position: u64) -> EventId {
        self.entries[self.index(position)].id
    }

    /// When the entry was appended, in milliseconds of the log's clock.
    pub(super) fn at(&self, position: u64) -> u64 {
        self.started + u64::from(self.entries[self.index(position)].at)
    }

    pub(super) fn is_hole(&self, position: u64) -> bool {
        self.start(position) == self.entries[self.index(position)].end as usize
    }

    /// The id of the last entry, if there is one.
    pub(super) fn last_id(&self) -> Option<EventId> {
        self.entries.last().map(|entry| entry.id)
    }

    /// The first position whose entry comes after `id`. A hole has the id of the event before it,
    /// and comes after that event.
    pub(super) fn after(&self, id: EventId) -> u64 {
        let mut index = self.entries.partition_point(|entry| entry.id < id);
        if self.entries.get(index).is_some_and(|entry| entry.id == id)
            && !self.is_hole(self.first + index as u64)
        {
            index += 1;
        }
        self.first + index as u64
    }

    /// The end of the run of events from `from` on, up to the event `up_to`, the first hole, or the
    /// end of the segment.
    pub(super) fn run(&self, from: u64, up_to: EventId) -> u64 {
        let first = self.index(from);
        let mut start = self.start(from);
        let events = self.entries[first..].iter().take_while(|entry| {
            let is_event = entry.end as usize > start && entry.id <= up_to;
            start = entry.end as usize;
            is_event
        });
        from + events.count() as u64
    }

    /// The furthest position that is at most `limit` bytes after `from`, but at least one entry
    /// further.
    pub(super) fn within(&self, from: u64, limit: usize) -> u64 {
        let limit = self.start(from) + limit;
        let index = self
            .entries
            .partition_point(|entry| entry.end as usize <= limit);
        (self.first + index as u64).max(from + 1)
    }

    fn range(&self, from: u64, to: u64) -> std::ops::Range<usize> {
        self.start(from)..self.start(to)
    }

    pub(super) fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let range = self.range(from, to);
        match &self.buffer {
            Buffer::Open(bytes) => &bytes[range],
            Buffer::Sealed(bytes) => &bytes[range],
        }
    }

    /// Like [`bytes`](Segment::bytes) without a copy; `None` if this segment is open.
    pub(super) fn slice(&self, from: u64, to: u64) -> Option<Bytes> {
        match &self.buffer {
            Buffer::Open(_) => None,
            Buffer::Sealed(bytes) => Some(bytes.slice(self.range(from, to))),
        }
    }
}
