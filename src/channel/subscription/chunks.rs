//! [`ChunkQueue`]: the chunks that are ready to go out.

use std::collections::VecDeque;

use bytes::Bytes;

/// First in, first out. Every connection has a queue, and every chunk goes through it, but it
/// rarely holds more than one. So the first chunk needs no allocation.
#[derive(Debug, Default)]
pub(super) struct ChunkQueue {
    /// `None` only if the queue is empty.
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
}

impl ChunkQueue {
    pub(super) fn push(&mut self, chunk: Bytes) {
        match self.first {
            None => self.first = Some(chunk),
            Some(_) => self.more.push_back(chunk),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.first.take();
        if !self.more.is_empty() {
            self.first = self.more.pop_front();
        }
        chunk
    }

    /// Joins as many of the first chunks as fit into this many bytes.
    pub(super) fn join(&mut self, at_most: usize) {
        let Some(first) = &self.first else { return };
        let mut size = first.len();
        let fits = |chunk: &&Bytes| {
            size += chunk.len();
            size <= at_most
        };
        let joined = self.more.iter().take_while(fits).count();
        if joined == 0 {
            return;
        }
        let mut all = Vec::with_capacity(at_most.min(size));
        all.extend_from_slice(first);
        for chunk in self.more.drain(..joined) {
            all.extend_from_slice(&chunk);
        }
        self.first = Some(all.into());
        // Only the beginning of a stream queues several chunks: free the memory.
        if self.more.is_empty() {
            self.more = VecDeque::new();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}
