//! [`Ready`]: the chunks that are ready to go out.

use std::collections::VecDeque;

use bytes::Bytes;

/// First in, first out. Hardly ever is more than one ready, so one needs no memory of its own:
/// there is a queue in every connection, and each chunk goes through it.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// `None` only if there is nothing.
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
}

impl Ready {
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

    /// One chunk out of all of them, if together they are no larger than this.
    pub(super) fn join(&mut self, at_most: usize) {
        let Some(first) = &self.first else { return };
        let size = first.len() + self.more.iter().map(Bytes::len).sum::<usize>();
        if self.more.is_empty() || size > at_most {
            return;
        }
        let mut all = Vec::with_capacity(size);
        while let Some(chunk) = self.pop() {
            all.extend_from_slice(&chunk);
        }
        // The queue was for the beginning.
        self.more = VecDeque::new();
        self.first = Some(all.into());
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}
