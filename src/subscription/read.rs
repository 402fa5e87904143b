//! Reading: from one channel as it stands, or from several, merged by id (law 5).

use crate::{
    frame,
    hub::Shared,
    id::EventId,
    log::{GATHER, Read},
};

use super::{
    OnLag, Subscription,
    gap::{Gap, GapReason},
    source::{Awaited, Item, Source, version_seen},
};

impl Subscription {
    /// Reads what stands behind the cursors, up to `newest`, which was loaded before. Returns
    /// whether there was anything, the end included.
    pub(super) fn read_up_to(&mut self, newest: EventId) -> bool {
        let newest = self.up_to(newest);
        let said = self.say_gaps();
        self.read_events(newest) || said
    }

    /// How far to read. With snapshots on a connection over several channels, only up to one
    /// place at first, and without ids.
    ///
    /// One id cannot say that a client has this channel's state and not yet that one's: cut off in
    /// between, it would come back with an id that looks as if it had both. So nothing gets an id
    /// before all of it has been sent, and then the place gets a checkpoint.
    fn up_to(&mut self, newest: EventId) -> EventId {
        let here = |source: &Source| matches!(source.snapshot, Awaited::Here(_));
        if self.sources.len() > 1
            && self.shared.settings.checkpoint.is_some()
            && self.sources.iter().any(here)
        {
            self.without_ids = Some(newest);
        }
        self.without_ids.unwrap_or(newest)
    }

    fn read_events(&mut self, newest: EventId) -> bool {
        let here = |source: &Source| matches!(source.snapshot, Awaited::Here(_));
        if self.without_ids.is_some() || self.sources.iter().any(here) {
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
        let mut said = false;
        loop {
            let source = &mut self.sources[index];
            let position = source.position;
            let mut log = source.held.lock();
            let read = log.read(position, up_to);
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
                Read::End => return said,
                Read::Events { chunk, .. } => {
                    source.move_to(next);
                    self.ready.push(chunk);
                    self.anchored();
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
            said |= self.say_gaps();
        }
    }

    /// Something is missing in front of a cursor that was connected.
    fn lagged(&mut self, index: usize, missed: Option<u64>) {
        let source = &mut self.sources[index];
        source.overruns = source.overruns.saturating_add(1);
        let too_often = source.overruns > 1 && source.held.snapshots.get().is_some();
        source.held.counters.gap(GapReason::Lagged);
        source.held.shared.counters.gap(GapReason::Lagged);
        if self.on_lag == OnLag::End || too_often {
            #[cfg(feature = "tracing")]
            self.span.in_scope(|| {
                tracing::debug!(channel = source.held.name(), "a slow client is sent away");
            });
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

        let said = self.say_gaps();
        // A snapshot may stand at another channel's event: then its id covers that event, too.
        items.sort_by_key(|item| (item.id, item.next.is_none()));
        let mut out = Vec::with_capacity(scratch.len());
        for item in items.iter().take_while(|item| item.id <= bound) {
            let event = &scratch[item.bytes.clone()];
            match self.without_ids {
                None => out.extend_from_slice(event),
                Some(_) => frame::without_id(&mut out, event),
            }
            let source = &mut self.sources[item.index];
            match item.next {
                Some(next) => source.move_to(next),
                None => source.snapshot = Awaited::Nothing,
            }
        }
        if out.is_empty() {
            return said;
        }
        self.ready.push(out.into());
        if self.without_ids.is_none() {
            self.anchored();
        }
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

    /// An event goes out, with its id. Of a channel that has a gap, it lies behind that gap; of
    /// another, it may be older.
    fn anchored(&mut self) {
        self.unanchored = false;
        self.owes_checkpoint &= self.sources.len() > 1;
    }

    /// Says every gap that is not said yet, in front of all that follows on any channel: an
    /// event with an id takes the client past everything that is older, so a gap behind it might
    /// never be heard of if the connection is cut in between.
    fn say_gaps(&mut self) -> bool {
        let mut out = Vec::new();
        for source in &mut self.sources {
            let Some(gap) = source.gap.take() else {
                continue;
            };
            let oldest = match &source.snapshot {
                Awaited::Here(snapshot) => Some(snapshot.id),
                _ => source.held.lock().id_at(source.position),
            };
            self.owes_checkpoint |= oldest.is_none();
            let channel = self.many.then(|| source.held.name());
            let Shared {
                settings, clock, ..
            } = &*self.shared;
            gap.encode(&mut out, &settings.gap, clock, oldest, channel);
        }
        if out.is_empty() {
            return false;
        }
        self.ready.push(out.into());
        true
    }
}
