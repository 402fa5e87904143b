//! Reading: from one channel as it stands, or from several, merged by id (law 5).

use crate::{
    frame,
    id::EventId,
    log::{GATHER, Read},
};

use super::{
    OnLag, Subscription,
    gap::{Gap, GapReason},
    source::{Awaited, Item, version_seen},
};

impl Subscription {
    /// Reads what stands behind the cursors, up to `newest`, which was loaded before. Returns
    /// whether there was anything, the end included.
    pub(super) fn read_up_to(&mut self, newest: EventId) -> bool {
        if self
            .sources
            .iter()
            .any(|source| matches!(source.snapshot, Awaited::Here(_)))
        {
            return self.merge(newest);
        }
        let mut with_news = (0..self.sources.len()).filter(|at| self.sources[*at].has_news());
        match (with_news.next(), with_news.next()) {
            (None, _) => false,
            (Some(only), None) => {
                // The only channel there is cannot be overtaken by another.
                let up_to = match self.sources.len() {
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
        loop {
            let source = &mut self.sources[index];
            let position = source.position;
            let mut log = source.held.lock();
            let read = log.read(position, up_to);
            let oldest = match (&read, &source.gap) {
                (Read::Events { .. }, Some(_)) => log.id_at(position),
                _ => None,
            };
            let next = match &read {
                Read::End => position,
                Read::Events { next, .. } | Read::Hole { next } | Read::Overrun { next, .. } => {
                    *next
                }
            };
            let (seen, at_end) = version_seen(&source.held, &log, next);
            drop(log);
            source.seen = seen;
            if at_end {
                source.overruns = 0;
            }
            match read {
                Read::End => return false,
                Read::Events { chunk, .. } => {
                    source.move_to(next);
                    self.say_gap(index, oldest);
                    self.ready.push_back(chunk);
                    return true;
                }
                Read::Hole { .. } => {
                    source.start_at(next);
                    self.lagged(index, None);
                }
                Read::Overrun { missed, .. } => {
                    source.start_at(next);
                    self.lagged(index, Some(missed));
                }
            }
            if self.is_ended() || self.awaits_snapshots() {
                return true;
            }
            // A hole may be the last thing there is.
            if at_end {
                self.say_gap(index, None);
                return true;
            }
        }
    }

    /// Something is missing in front of a cursor that was connected.
    fn lagged(&mut self, index: usize, missed: Option<u64>) {
        let source = &mut self.sources[index];
        source.overruns += 1;
        let too_often = source.overruns > 1 && source.held.snapshots.get().is_some();
        source.held.counters.gap(GapReason::Lagged);
        source.held.shared.counters.gap(GapReason::Lagged);
        if self.on_lag == OnLag::End || too_often {
            #[cfg(feature = "tracing")]
            tracing::debug!(channel = source.held.name(), "a slow client is sent away");
            self.end();
            return;
        }
        Gap::widen(&mut source.gap, missed);
        self.ask_for_snapshot(index);
    }

    /// Reads several channels, and puts their events into one order.
    ///
    /// A channel of which more is there than was read bounds how far the others may go.
    fn merge(&mut self, newest: EventId) -> bool {
        let mut items: Vec<Item> = Vec::new();
        let mut scratch = Vec::new();
        let mut bound = newest;
        let limit = GATHER / self.sources.len().max(1);

        for index in 0..self.sources.len() {
            self.collect(index, newest, limit, &mut bound, &mut items, &mut scratch);
            if self.is_ended() || self.awaits_snapshots() {
                return true;
            }
        }

        items.sort_by_key(|item| item.id);
        let mut out = Vec::with_capacity(scratch.len());
        for item in items.iter().take_while(|item| item.id <= bound) {
            self.write_gap(item.index, Some(item.id), &mut out);
            out.extend_from_slice(&scratch[item.bytes.clone()]);
            let source = &mut self.sources[item.index];
            match item.next {
                Some(next) => source.move_to(next),
                None => source.snapshot = Awaited::Nothing,
            }
        }
        // A hole may be the last thing there is on its channel.
        for index in 0..self.sources.len() {
            if !items.iter().any(|item| item.index == index) {
                self.write_gap(index, None, &mut out);
            }
        }
        if out.is_empty() {
            return false;
        }
        self.ready.push_back(out.into());
        true
    }

    fn collect(
        &mut self,
        index: usize,
        newest: EventId,
        limit: usize,
        bound: &mut EventId,
        items: &mut Vec<Item>,
        scratch: &mut Vec<u8>,
    ) {
        let source = &mut self.sources[index];
        if let Awaited::Here(snapshot) = &source.snapshot {
            let start = scratch.len();
            if let Some(name) = &self.shared.settings.snapshot {
                frame::name(scratch, name.as_str());
            }
            frame::id(scratch, |out| self.shared.clock.write(snapshot.id, out));
            scratch.extend_from_slice(&snapshot.data);
            frame::end(scratch);
            items.push(Item {
                id: snapshot.id,
                index,
                bytes: start..scratch.len(),
                next: None,
            });
        }
        while self.sources[index].has_news() {
            let source = &mut self.sources[index];
            let mut next = source.position;
            let log = source.held.lock();
            let read = log.read_each(source.position, newest, limit, |id, bytes| {
                let start = scratch.len();
                scratch.extend_from_slice(bytes);
                next += 1;
                items.push(Item {
                    id,
                    index,
                    bytes: start..scratch.len(),
                    next: Some(next),
                });
            });
            let more = !matches!(log.peek(next, newest), Read::End);
            let (seen, at_end) = version_seen(&source.held, &log, source.position);
            drop(log);
            match read {
                Read::End => {
                    source.seen = seen;
                    if at_end {
                        source.overruns = 0;
                    }
                    return;
                }
                Read::Events { .. } => {
                    if more && let Some(last) = items.last() {
                        *bound = last.id.min(*bound);
                    }
                    return;
                }
                Read::Hole { next } => {
                    source.start_at(next);
                    self.lagged(index, None);
                }
                Read::Overrun { missed, next } => {
                    source.start_at(next);
                    self.lagged(index, Some(missed));
                }
            }
            if self.is_ended() || self.awaits_snapshots() {
                return;
            }
        }
    }

    /// Puts the gap in front of this channel's cursor among the chunks to send, if there is one.
    pub(super) fn say_gap(&mut self, index: usize, oldest: Option<EventId>) {
        let mut out = Vec::new();
        self.write_gap(index, oldest, &mut out);
        if !out.is_empty() {
            self.ready.push_back(out.into());
        }
    }

    fn write_gap(&mut self, index: usize, oldest: Option<EventId>, out: &mut Vec<u8>) {
        let source = &mut self.sources[index];
        if let Some(gap) = source.gap.take() {
            let settings = &self.shared.settings;
            let channel = self.many.then(|| source.held.name());
            gap.encode(out, &settings.gap, &self.shared.clock, oldest, channel);
        }
    }
}
