//! Seeking: where a client's id stands in its channels, before the response starts and again when
//! its body is first polled.

use crate::{
    channel::{
        gap::{Gap, GapReason, LostFrom},
        log::{Log, Seek},
        state::Held,
        subscription::{From, OnGap, Resume, Start, Subscription, cursor::Source},
    },
    event::EventId,
};

impl Subscription {
    /// A read-only seek.
    pub(super) fn look_ahead(&self) -> Resume {
        let id = match self.start {
            From::Fresh { .. } | From::Refused => return Resume::Fresh,
            From::Gap(reason) => {
                return Resume::Gap {
                    reason,
                    missed: None,
                };
            }
            From::After(id) => id,
        };
        let mut all_pending = 0;
        for source in &self.sources {
            if self.is_partial && source.held.snapshots.get().is_some() {
                continue;
            }
            match self.seek_after(&source.held, id) {
                Ok((_, pending)) => all_pending += pending,
                Err((gap, oldest)) => {
                    let missed = gap.missed(&source.held.lock(), oldest);
                    return Resume::Gap {
                        reason: gap.reason,
                        missed,
                    };
                }
            }
        }
        Resume::Exact {
            pending: all_pending,
        }
    }

    /// Looks at a log that has forgotten what is too old (law 6).
    pub(super) fn look<R>(&self, held: &Held, look: impl FnOnce(&Log) -> R) -> R {
        let mut log = held.lock();
        let evicted = log.expire(self.shared.now());
        let seen = look(&log);
        drop(log);
        drop(evicted);
        seen
    }

    /// The position behind `id` and how much lies behind it, or the gap and the oldest position.
    pub(super) fn seek_after(&self, held: &Held, id: EventId) -> Result<(u64, u64), (Gap, u64)> {
        self.look(held, |log| match log.seek(id) {
            Seek::Exact { position, pending } => Ok((position, pending)),
            Seek::Evicted => {
                let reason = match log.has_evicted() {
                    true => GapReason::Evicted,
                    // The channel has been retired since, and made anew (law 7).
                    false => GapReason::Unknown,
                };
                let from = LostFrom::Event(id);
                Err((Gap { reason, from }, log.oldest()))
            }
        })
    }

    /// Whether all channels are closed, and nothing is left to say to this client: the moment to
    /// tell it not to come back.
    pub(crate) fn is_over(&self) -> bool {
        let nothing_left = |source: &Source| {
            source.held.is_closed() && (self.has_everything(source) || self.gets_no_id(source))
        };
        if let Some(control) = &self.control
            && control.0.has_changed()
        {
            return false;
        }
        !self.sources.is_empty() && self.sources.iter().all(nothing_left)
    }

    fn has_everything(&self, source: &Source) -> bool {
        let has_snapshot = source.held.snapshots.get().is_some();
        match self.start {
            From::After(_) if self.is_partial && has_snapshot => false,
            From::After(id) => matches!(self.seek_after(&source.held, id), Ok((_, 0))),
            From::Gap(_) | From::Refused => false,
            From::Fresh { start, newest } => match start {
                Start::Snapshot if has_snapshot => false,
                Start::Live | Start::Snapshot => {
                    matches!(self.seek_after(&source.held, newest), Ok((_, 0)))
                }
                Start::Oldest => self.look(&source.held, |log| log.end() == 0),
                Start::Newest(_) => self.look(&source.held, |log| log.retained().0 == 0),
            },
        }
    }

    /// Whether nothing with an id can follow what is missing in front of the end: without
    /// checkpoints, the client would come back with the same id for ever.
    fn gets_no_id(&self, source: &Source) -> bool {
        let is_mute = self.shared.settings.checkpoint.is_none()
            && (self.on_gap != OnGap::Snapshot || source.held.snapshots.get().is_none());
        let replays =
            self.on_gap != OnGap::Live && self.look(&source.held, |log| log.retained().0 > 0);
        let has_gap = match self.start {
            From::Gap(_) => true,
            From::After(id) => self.seek_after(&source.held, id).is_err(),
            From::Fresh { .. } | From::Refused => false,
        };
        is_mute && has_gap && !replays
    }

    /// Puts a cursor where its client goes on, or notes what is missing in front of it.
    pub(super) fn seek(&mut self, index: usize) {
        let held = self.sources[index].held.clone();
        let has_snapshot = held.snapshots.get().is_some();
        // The snapshot says where it goes on.
        let by_snapshot = has_snapshot
            && match self.start {
                From::Fresh { start, .. } => start == Start::Snapshot,
                From::After(_) => self.is_partial,
                From::Gap(_) | From::Refused => false,
            };
        if by_snapshot {
            held.counters.began(self.resume);
            self.ask_for_snapshot(index);
            return;
        }
        let found = match self.start {
            From::Fresh { start, newest } => match start {
                Start::Snapshot | Start::Live => self.position_after(&held, newest),
                Start::Oldest => self.oldest(&held),
                Start::Newest(n) => {
                    Ok(self.look(&held, |log| log.oldest().max(log.end().saturating_sub(n))))
                }
            },
            From::After(id) => self.position_after(&held, id),
            From::Gap(reason) => {
                let from = LostFrom::Unknown;
                Err((Gap { reason, from }, self.look(&held, Log::oldest)))
            }
            From::Refused => Ok(0),
        };
        let (mut position, gap) = match found {
            Ok(position) => (position, None),
            Err((gap, oldest)) => (oldest, Some(gap)),
        };
        match gap {
            None => held.counters.began(self.resume),
            Some(Gap { reason, .. }) => {
                self.shared.counters.gap(reason);
                held.counters.gap(reason);
                if self.on_gap == OnGap::Live && reason != GapReason::Truncated {
                    position = self.look(&held, Log::end);
                }
            }
        }
        if let Some(id) = self.not_before {
            position = position.max(self.first_allowed(&held, id).unwrap_or(0));
        }
        let source = &mut self.sources[index];
        source.start_at(position);
        source.gap = gap;
        if gap.is_some_and(|gap| gap.reason != GapReason::Truncated) {
            self.ask_for_snapshot(index);
        }
    }

    fn position_after(&self, held: &Held, id: EventId) -> Result<u64, (Gap, u64)> {
        self.seek_after(held, id).map(|(position, _)| position)
    }

    /// The oldest event that is retained, and what is gone of all that the client may have.
    fn oldest(&self, held: &Held) -> Result<u64, (Gap, u64)> {
        let oldest = self.look(held, Log::oldest);
        let from = match self
            .not_before
            .filter(|id| self.shared.clock.check(*id).is_ok())
        {
            Some(id) if self.first_allowed(held, id).is_some() => return Ok(oldest),
            Some(id) => LostFrom::Event(id),
            None => LostFrom::Position(0),
        };
        match oldest {
            0 => Ok(0),
            _ => {
                let reason = GapReason::Truncated;
                Err((Gap { reason, from }, oldest))
            }
        }
    }

    /// The position of the first event after `id`, which may be of an earlier life; `None` if that
    /// event is gone.
    fn first_allowed(&self, held: &Held, id: EventId) -> Option<u64> {
        match self.shared.clock.check(id) {
            Ok(id) => self.position_after(held, id).ok(),
            Err(_) => Some(0),
        }
    }
}
