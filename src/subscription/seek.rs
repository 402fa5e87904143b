//! Seeking: where a client's id stands in its channels, before the response starts and again when
//! its body is first polled.

use crate::{
    hub::core::Held,
    id::EventId,
    log::{Log, Seek},
};

use super::{
    From, OnGap, Resume, Start, Subscription,
    gap::{Gap, GapReason},
    source::Source,
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
            match self.seek_after(&source.held, id) {
                Ok((_, pending)) => all_pending += pending,
                Err((Gap { reason, missed }, _)) => return Resume::Gap { reason, missed },
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
            Seek::Evicted if log.has_evicted() => {
                let missed = self.shared.missed(log, id);
                let reason = GapReason::Evicted;
                Err((Gap { reason, missed }, log.oldest()))
            }
            // The channel has been retired since, and made anew (law 7).
            Seek::Evicted => {
                let reason = GapReason::Unknown;
                let missed = None;
                Err((Gap { reason, missed }, log.oldest()))
            }
        })
    }

    /// Whether all channels are closed, and nothing is left to say to this client: the moment to
    /// tell it not to come back.
    pub(crate) fn is_over(&self) -> bool {
        let nothing_left = |source: &Source| {
            source.held.is_closed()
                && match self.start {
                    From::After(id) => {
                        matches!(self.seek_after(&source.held, id), Ok((_, 0)))
                    }
                    From::Gap(_) | From::Refused => false,
                    From::Fresh { start, newest } => match start {
                        Start::Snapshot if source.held.snapshots.get().is_some() => false,
                        Start::Live | Start::Snapshot => {
                            matches!(self.seek_after(&source.held, newest), Ok((_, 0)))
                        }
                        Start::Oldest | Start::Newest(_) => {
                            self.look(&source.held, |log| log.retained().0 == 0)
                        }
                    },
                }
        };
        if let Some(control) = &self.control
            && control.0.has_changed()
        {
            return false;
        }
        !self.sources.is_empty() && self.sources.iter().all(nothing_left)
    }

    /// Puts a cursor where its client goes on, or notes what is missing in front of it.
    pub(super) fn seek(&mut self, index: usize) {
        let held = self.sources[index].held.clone();
        let has_snapshot = held.snapshots.get().is_some();
        let found = match self.start {
            // The snapshot says where it goes on.
            From::Fresh {
                start: Start::Snapshot,
                ..
            } if has_snapshot => Ok(self.look(&held, Log::end)),
            From::Fresh { start, newest } => match start {
                Start::Snapshot | Start::Live => self.position_after(&held, newest),
                Start::Oldest => Ok(self.look(&held, Log::oldest)),
                Start::Newest(n) => {
                    Ok(self.look(&held, |log| log.oldest().max(log.end().saturating_sub(n))))
                }
            },
            From::After(id) => self.position_after(&held, id),
            From::Gap(reason) => {
                let missed = None;
                Err((Gap { reason, missed }, self.look(&held, Log::oldest)))
            }
            From::Refused => Ok(0),
        };
        let (mut position, mut gap) = match found {
            Ok(position) => (position, None),
            Err((gap, oldest)) => (oldest, Some(gap)),
        };
        if let Some(gap) = &mut gap {
            self.shared.counters.gap(gap.reason);
            held.counters.gap(gap.reason);
            if self.on_gap == OnGap::Live {
                (position, gap.missed) = self.skip_to_end(&held);
            }
        } else {
            held.counters.began(self.resume);
        }
        let source = &mut self.sources[index];
        source.start_at(position);
        source.gap = gap;
        let fresh = matches!(
            self.start,
            From::Fresh {
                start: Start::Snapshot,
                ..
            }
        );
        if fresh || gap.is_some() {
            self.ask_for_snapshot(index);
        }
    }

    fn position_after(&self, held: &Held, id: EventId) -> Result<u64, (Gap, u64)> {
        self.seek_after(held, id).map(|(position, _)| position)
    }

    /// The end, and how many events a client misses that brings an id and goes on from there.
    fn skip_to_end(&self, held: &Held) -> (u64, Option<u64>) {
        let single = self.shared.registry.is_single();
        self.look(held, |log| {
            let missed = match self.start {
                From::After(id) | From::Fresh { newest: id, .. } if single => {
                    Some(log.newest().lo().saturating_sub(id.lo()))
                }
                _ => None,
            };
            (log.end(), missed)
        })
    }
}
