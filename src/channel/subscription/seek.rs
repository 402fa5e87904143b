//! Seeking: where a client's id stands in its channels, before the response starts and again when
//! its body is first polled.

use crate::{
    channel::{
        gap::{Gap, GapReason, LostFrom},
        log::{Log, Seek},
        state::ChannelHandle,
        subscription::{Beginning, OnGap, Resumption, Start, Subscription, cursor::Cursor},
    },
    event::EventId,
};

impl Subscription {
    /// A read-only seek.
    pub(super) fn look_ahead(&self) -> Resumption {
        let id = match self.start {
            Beginning::Fresh { .. } | Beginning::Refused => return Resumption::Fresh,
            Beginning::Gap(reason) => {
                return Resumption::Gap {
                    reason,
                    missed: None,
                };
            }
            Beginning::After(id) => id,
        };
        let mut all_pending = 0;
        for cursor in &self.cursors {
            if self.is_partial && cursor.channel.snapshots.get().is_some() {
                continue;
            }
            match self.seek_after(&cursor.channel, id) {
                Ok((_, pending)) => all_pending += pending,
                Err((gap, oldest)) => {
                    let missed = gap.missed(&cursor.channel.lock(), oldest);
                    return Resumption::Gap {
                        reason: gap.reason,
                        missed,
                    };
                }
            }
        }
        Resumption::Exact {
            pending: all_pending,
        }
    }

    /// Looks at a log that has forgotten what is too old (law 6).
    pub(super) fn look<R>(&self, channel: &ChannelHandle, look: impl FnOnce(&Log) -> R) -> R {
        let mut log = channel.lock();
        let evicted = log.expire(self.shared.now());
        let seen = look(&log);
        drop(log);
        drop(evicted);
        seen
    }

    /// The position behind `id` and how much lies behind it, or the gap and the oldest position.
    pub(super) fn seek_after(
        &self,
        channel: &ChannelHandle,
        id: EventId,
    ) -> Result<(u64, u64), (Gap, u64)> {
        self.look(channel, |log| match log.seek(id) {
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
        let nothing_left = |cursor: &Cursor| {
            cursor.channel.is_closed() && (self.has_everything(cursor) || self.gets_no_id(cursor))
        };
        if let Some(control) = &self.control
            && control.0.has_changed()
        {
            return false;
        }
        !self.cursors.is_empty() && self.cursors.iter().all(nothing_left)
    }

    fn has_everything(&self, cursor: &Cursor) -> bool {
        let has_snapshot = cursor.channel.snapshots.get().is_some();
        match self.start {
            Beginning::After(_) if self.is_partial && has_snapshot => false,
            Beginning::After(id) => matches!(self.seek_after(&cursor.channel, id), Ok((_, 0))),
            Beginning::Gap(_) | Beginning::Refused => false,
            Beginning::Fresh { start, newest } => match start {
                Start::Snapshot if has_snapshot => false,
                Start::Live | Start::Snapshot => {
                    matches!(self.seek_after(&cursor.channel, newest), Ok((_, 0)))
                }
                Start::Oldest => self.look(&cursor.channel, |log| log.end() == 0),
                Start::Newest(_) => self.look(&cursor.channel, |log| log.retained().0 == 0),
            },
        }
    }

    /// Whether nothing with an id can follow what is missing in front of the end: without
    /// checkpoints, the client would come back with the same id for ever.
    fn gets_no_id(&self, cursor: &Cursor) -> bool {
        let is_mute = self.shared.settings.checkpoint.is_none()
            && (self.on_gap != OnGap::Snapshot || cursor.channel.snapshots.get().is_none());
        let replays =
            self.on_gap != OnGap::Live && self.look(&cursor.channel, |log| log.retained().0 > 0);
        let has_gap = match self.start {
            Beginning::Gap(_) => true,
            Beginning::After(id) => self.seek_after(&cursor.channel, id).is_err(),
            Beginning::Fresh { .. } | Beginning::Refused => false,
        };
        is_mute && has_gap && !replays
    }

    /// Puts a cursor where its client goes on, or notes what is missing in front of it.
    pub(super) fn seek(&mut self, index: usize) {
        let channel = self.cursors[index].channel.clone();
        let has_snapshot = channel.snapshots.get().is_some();
        // The snapshot says where it goes on.
        let by_snapshot = has_snapshot
            && match self.start {
                Beginning::Fresh { start, .. } => start == Start::Snapshot,
                Beginning::After(_) => self.is_partial,
                Beginning::Gap(_) | Beginning::Refused => false,
            };
        if by_snapshot {
            channel.counters.began(self.resume);
            self.ask_for_snapshot(index);
            return;
        }
        let found = match self.start {
            Beginning::Fresh { start, newest } => match start {
                Start::Snapshot | Start::Live => self.position_after(&channel, newest),
                Start::Oldest => self.oldest(&channel),
                Start::Newest(n) => Ok(self.look(&channel, |log| {
                    log.oldest().max(log.end().saturating_sub(n))
                })),
            },
            Beginning::After(id) => self.position_after(&channel, id),
            Beginning::Gap(reason) => {
                let from = LostFrom::Unknown;
                Err((Gap { reason, from }, self.look(&channel, Log::oldest)))
            }
            Beginning::Refused => Ok(0),
        };
        let (mut position, gap) = match found {
            Ok(position) => (position, None),
            Err((gap, oldest)) => (oldest, Some(gap)),
        };
        match gap {
            None => channel.counters.began(self.resume),
            Some(Gap { reason, .. }) => {
                self.shared.counters.gap(reason);
                channel.counters.gap(reason);
                if self.on_gap == OnGap::Live && reason != GapReason::Truncated {
                    position = self.look(&channel, Log::end);
                }
            }
        }
        if let Some(id) = self.not_before {
            position = position.max(self.first_allowed(&channel, id).unwrap_or(0));
        }
        let cursor = &mut self.cursors[index];
        cursor.start_at(position);
        cursor.gap = gap;
        if gap.is_some_and(|gap| gap.reason != GapReason::Truncated) {
            self.ask_for_snapshot(index);
        }
    }

    fn position_after(&self, channel: &ChannelHandle, id: EventId) -> Result<u64, (Gap, u64)> {
        self.seek_after(channel, id).map(|(position, _)| position)
    }

    /// The oldest event that is retained, and what is gone of all that the client may have.
    fn oldest(&self, channel: &ChannelHandle) -> Result<u64, (Gap, u64)> {
        let oldest = self.look(channel, Log::oldest);
        let from = match self
            .not_before
            .filter(|id| self.shared.clock.check(*id).is_ok())
        {
            Some(id) if self.first_allowed(channel, id).is_some() => return Ok(oldest),
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
    fn first_allowed(&self, channel: &ChannelHandle, id: EventId) -> Option<u64> {
        match self.shared.clock.check(id) {
            Ok(id) => self.position_after(channel, id).ok(),
            Err(_) => Some(0),
        }
    }
}
