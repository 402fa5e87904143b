//! Where a client starts in each of its channels.
//!
//! Only [`Subscription::start_in`] decides where in a log. The [`Resumption`] that a handler sees,
//! the 204 of closed channels, and the first poll of the body all use it.

use crate::{
    channel::{
        gap::{Gap, GapReason, LostFrom},
        log::{Log, Seek},
        state::ChannelHandle,
        subscription::{OnGap, Resumption, Start, Subscription},
    },
    event::EventId,
};

/// How a client begins, from the id that it sent.
#[derive(Clone, Copy)]
pub(super) enum Beginning {
    /// It sent an id of this hub.
    After {
        id: EventId,
        /// It is owed the snapshots of its channels.
        is_partial: bool,
        /// It gets this id again before anything else.
        announce: bool,
    },
    /// It sent an id that cannot be resumed from.
    Gap(GapReason),
    /// It sent no id.
    Fresh { newest: EventId, start: Start },
    /// The hub is full.
    Refused,
}

/// Where a client starts in one channel.
struct StartPoint {
    position: u64,
    /// How many retained events follow.
    pending: u64,
    /// Nothing follows, now or later.
    is_end: bool,
    /// What is missing before `position`, and how many events that is, if known.
    gap: Option<Gap>,
    missed: Option<u64>,
    /// The channel's snapshot comes first, and replaces `position`.
    snapshot: bool,
}

impl Subscription {
    /// How the client will resume. Moves no cursor.
    pub(super) fn look_ahead(&self) -> Resumption {
        match self.beginning {
            Beginning::Fresh { .. } | Beginning::Refused => return Resumption::Fresh,
            Beginning::Gap(reason) => {
                return Resumption::Gap {
                    reason,
                    missed: None,
                };
            }
            Beginning::After { .. } => {}
        }
        let mut pending = 0;
        for cursor in &self.cursors {
            let start = self.start_in(&cursor.channel);
            if let Some(Gap { reason, .. }) = start.gap {
                let missed = start.missed;
                return Resumption::Gap { reason, missed };
            }
            pending += start.pending;
        }
        Resumption::Exact { pending }
    }

    /// Whether all channels are closed and nothing is left to send to this client, so that it
    /// should not come back.
    pub(crate) fn is_over(&self) -> bool {
        if self.handle.as_ref().is_some_and(|it| it.0.has_changed()) {
            return false;
        }
        let has_checkpoints = self.shared.settings.checkpoint.is_some();
        let is_over = |channel: &ChannelHandle| {
            // Most channels are open, and that is cheap to see.
            if !channel.is_closed() {
                return false;
            }
            let start = self.start_in(channel);
            // Without checkpoints, no id would follow a gap at the end. The client would come back
            // with the same id, and get the same gap forever.
            let reports_gap = start
                .gap
                .is_some_and(|gap| has_checkpoints || gap.reason == GapReason::Truncated);
            start.is_end && !start.snapshot && !reports_gap
        };
        !self.cursors.is_empty() && self.cursors.iter().all(|it| is_over(&it.channel))
    }

    /// Moves a cursor to where its client starts.
    pub(super) fn seek(&mut self, index: usize) {
        let start = self.start_in(&self.cursors[index].channel);
        let cursor = &mut self.cursors[index];
        // A snapshot brings its own position. Until then the cursor has none, so that it does not
        // count as one that lags.
        if start.gap.is_some() || !start.snapshot {
            cursor.start_at(start.position);
        }
        match start.gap {
            Some(gap) => self.note_gap(index, gap),
            None => cursor.channel.counters.began(self.resumption),
        }
        if start.snapshot {
            self.request_snapshot(index);
        }
    }

    fn start_in(&self, channel: &ChannelHandle) -> StartPoint {
        let has_snapshot = channel.snapshots.get().is_some();
        let is_first = match self.beginning {
            Beginning::Fresh { start, .. } => start == Start::Snapshot,
            Beginning::After { is_partial, .. } => is_partial,
            Beginning::Gap(_) | Beginning::Refused => false,
        };
        if has_snapshot && is_first {
            return StartPoint {
                position: 0,
                pending: 0,
                is_end: false,
                gap: None,
                missed: None,
                snapshot: true,
            };
        }
        self.look(channel, |log| {
            let found = match self.beginning {
                Beginning::Fresh { newest, start } => match start {
                    Start::Snapshot | Start::Live => position_after(log, newest),
                    Start::Oldest => self.oldest(log),
                    Start::Newest(n) => Ok(log.oldest().max(log.end().saturating_sub(n))),
                },
                Beginning::After { id, .. } => position_after(log, id),
                Beginning::Gap(reason) => {
                    let from = LostFrom::Unknown;
                    Err(Gap { reason, from })
                }
                Beginning::Refused => Ok(0),
            };
            let gap = found.err();
            let mut position = found.unwrap_or(log.oldest());
            let missed = gap.and_then(|gap| gap.missed(log, position));
            // `Truncated` is no hole: the client asked for what is retained, and gets all of it.
            let is_hole = gap.is_some_and(|gap| gap.reason != GapReason::Truncated);
            if is_hole && self.on_gap == OnGap::Live {
                position = log.end();
            }
            if let Some(id) = self.not_before {
                position = position.max(self.first_allowed(log, id).unwrap_or(0));
            }
            StartPoint {
                position,
                pending: log.end() - position,
                // Under the log's lock, as a channel is closed: what was published before the close
                // is in `pending`.
                is_end: position == log.end() && channel.is_closed(),
                gap,
                missed,
                snapshot: is_hole && has_snapshot && self.on_gap == OnGap::Snapshot,
            }
        })
    }

    /// Looks at a log after evicting what is too old (law 6).
    pub(super) fn look<R>(&self, channel: &ChannelHandle, look: impl FnOnce(&Log) -> R) -> R {
        let mut log = channel.lock();
        let evicted = log.expire(self.shared.now());
        let seen = look(&log);
        drop(log);
        // Freed after the lock.
        drop(evicted);
        seen
    }

    /// The oldest retained event, or a gap if older ones are gone that this client may have.
    fn oldest(&self, log: &Log) -> Result<u64, Gap> {
        let not_before = self
            .not_before
            .filter(|id| self.shared.clock.check(*id).is_ok());
        let from = match not_before {
            Some(id) if position_after(log, id).is_ok() => return Ok(log.oldest()),
            Some(id) => LostFrom::Event(id),
            None => LostFrom::Position(0),
        };
        match log.oldest() {
            0 => Ok(0),
            _ => {
                let reason = GapReason::Truncated;
                Err(Gap { reason, from })
            }
        }
    }

    /// The position of the first event after `id`, which may be of an earlier epoch; `None` if
    /// that event is gone.
    fn first_allowed(&self, log: &Log, id: EventId) -> Option<u64> {
        match self.shared.clock.check(id) {
            Ok(id) => position_after(log, id).ok(),
            Err(_) => Some(0),
        }
    }
}

/// The position of the first event after `id`, or a gap if that event is gone.
pub(super) fn position_after(log: &Log, id: EventId) -> Result<u64, Gap> {
    match log.seek(id) {
        Seek::Exact { position, .. } => Ok(position),
        Seek::Evicted => {
            let reason = match log.has_evicted() {
                true => GapReason::Evicted,
                // The channel has been retired since, and created again (law 7).
                false => GapReason::Unknown,
            };
            let from = LostFrom::Event(id);
            Err(Gap { reason, from })
        }
    }
}
