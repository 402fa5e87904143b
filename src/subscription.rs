//! [`Subscription`]: cursors into one or more logs, and the bytes that one client gets.
//!
//! Replay and live are the same loop: read what stands behind the cursor, move the cursor. There
//! is no seam between them. A hole in what the client will have seen is always said (a gap
//! event), exactly where it is.
//!
//! **Several channels** (law 5). The hub's newest id is loaded *before* any log is locked, and
//! nothing beyond it is read: so no event with a smaller id can still turn up on a channel that
//! was read before. What was read is merged by id.
//!
//! **Going to sleep.** The waker is stored first, then the logs' versions are compared with those
//! last read. A publisher changes the version first, and the wake task takes the waker after.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::{
    event::EventName,
    frame,
    hub::{Shared, core::Core, wake::Reader},
    id::EventId,
    last_event_id::LastEventId,
    log::{GATHER, Read, Seek},
    sync::Arc,
};

/// One client's place in a channel: a response that streams events from there.
///
/// Made by [`Channel::subscribe`](crate::Channel::subscribe). Return it from a handler.
///
/// **Inert** until its body is first polled: making one registers nothing, so an answer to HEAD
/// or a dropped response leaves no trace. Where it starts is settled when it is made, though:
/// state that a handler reads afterwards has no hole between it and the stream.
///
/// **On the wire**: first a comment line, at once, and the reconnection time if the channel has
/// one; then every event behind the client's id, each once, in order; live events follow without
/// a seam. Where there is nothing to deliver at the start, a *checkpoint* is sent: a named event
/// without data whose id is the place where the stream stands, so that the client has an id to
/// come back with (rules 21, 22).
///
/// **Gaps.** Where something is missing, an event named `gap` says so, in the very place. It has
/// no id of its own. Its data is JSON: `reason` (`evicted`, `unknown`, `restarted` or `lagged`),
/// `missed` (how many events, or `null` where nobody knows), `oldest` (the id of the event that
/// delivery goes on with, or `null` if none is there), and `channel` on a connection over more
/// than one (rules 86, 89).
pub struct Subscription {
    shared: Arc<Shared>,
    sources: Vec<Source>,
    start: From,
    resume: Resume,
    on_gap: OnGap,
    on_lag: OnLag,
    phase: Phase,
    /// Chunks that are on their way out.
    ready: VecDeque<Bytes>,
}

enum Phase {
    Inert,
    Live(Arc<Reader>),
    Ended,
}

/// No version that a reader compares: it was never at the end of its log.
const NEVER: u64 = u64::MAX;

/// A cursor into one log.
struct Source {
    core: Arc<Core>,
    position: u64,
    /// The log's version when the cursor was last at its end.
    seen: u64,
    /// What is missing in front of `position` and has not been said yet.
    gap: Option<Gap>,
    /// Where the reader stands in the channel's list.
    key: usize,
}

#[derive(Clone, Copy)]
enum From {
    After(EventId),
    /// The client's id cannot be found again.
    Gap(GapReason),
    Fresh { newest: EventId, start: Start },
}

/// Where a client begins that brings no id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on.
    #[default]
    Live,
    /// With the oldest event that is retained.
    Oldest,
    /// With the newest *n* events that are retained (of each channel).
    Newest(u64),
}

/// What follows a gap that is there at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnGap {
    /// The gap event, and then everything that is retained.
    #[default]
    Replay,
    /// The gap event, and then what is published from now on.
    Live,
}

/// What happens to a client that reads so slowly that the log has moved on without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLag {
    /// A gap event (`lagged`, with the number of events missed), and then the oldest event that
    /// is retained and what follows.
    #[default]
    Gap,
    /// The stream ends; the client reconnects with its last id.
    End,
}

/// How a resume stands, as of the call that made the [`Subscription`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
    /// The client brought no id.
    Fresh,
    /// The client's id was found: it misses nothing.
    Exact {
        /// Events between the client's id and the newest one.
        pending: u64,
    },
    /// Something between the client's id and the oldest retained event is gone.
    Gap {
        /// Why.
        reason: GapReason,
        /// How many events, where that is known.
        missed: Option<u64>,
    },
}

/// Why there is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// The client was away for longer than the channel remembers.
    Evicted,
    /// The id is not one that this channel has ever given.
    Unknown,
    /// The id is of another life of the channel: the server has restarted since.
    Restarted,
    /// The client, connected, read more slowly than the channel forgets.
    Lagged,
}

#[derive(Clone, Copy)]
struct Gap {
    reason: GapReason,
    missed: Option<u64>,
}

impl GapReason {
    /// The reason as it stands in the gap event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Unknown => "unknown",
            Self::Restarted => "restarted",
            Self::Lagged => "lagged",
        }
    }
}

/// A gap as the client reads it.
struct GapData<'a> {
    reason: GapReason,
    missed: Option<u64>,
    oldest: Option<EventId>,
    channel: Option<&'a str>,
}

impl Serialize for GapData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Gap", 4)?;
        fields.serialize_field("reason", self.reason.as_str())?;
        fields.serialize_field("missed", &self.missed)?;
        fields.serialize_field("oldest", &self.oldest)?;
        if let Some(channel) = self.channel {
            fields.serialize_field("channel", channel)?;
        }
        fields.end()
    }
}

impl Subscription {
    pub(crate) fn new(shared: Arc<Shared>, cores: Vec<Arc<Core>>, last: LastEventId) -> Self {
        let start = match last {
            LastEventId::Absent => From::Fresh {
                newest: shared.clock.newest(),
                start: Start::Live,
            },
            LastEventId::Known(id) => match shared.clock.check(id) {
                Ok(id) => From::After(id),
                Err(reason) => From::Gap(reason),
            },
            LastEventId::Unknown(_) => From::Gap(GapReason::Unknown),
        };
        let sources = cores.into_iter().map(Source::new).collect();
        let mut subscription = Self {
            shared,
            sources,
            start,
            resume: Resume::Fresh,
            on_gap: OnGap::default(),
            on_lag: OnLag::default(),
            phase: Phase::Inert,
            ready: VecDeque::new(),
        };
        subscription.resume = subscription.look_ahead();
        subscription
    }

    /// Where a client begins that brings no id; [`Start::Live`] by default.
    #[must_use]
    pub fn start(mut self, at: Start) -> Self {
        if let From::Fresh { start, .. } = &mut self.start {
            *start = at;
        }
        self
    }

    /// What follows a gap that is there at the start; [`OnGap::Replay`] by default.
    #[must_use]
    pub fn on_gap(mut self, then: OnGap) -> Self {
        self.on_gap = then;
        self
    }

    /// What happens when this client is too slow; [`OnLag::Gap`] by default.
    #[must_use]
    pub fn on_lag(mut self, then: OnLag) -> Self {
        self.on_lag = then;
        self
    }

    /// How the resume stands. By the time the body is polled, more may have been published or
    /// evicted; the stream itself always says what is missing.
    #[must_use]
    pub fn resume(&self) -> Resume {
        self.resume
    }

    /// A read-only seek.
    fn look_ahead(&self) -> Resume {
        let id = match self.start {
            From::Fresh { .. } => return Resume::Fresh,
            From::Gap(reason) => {
                return Resume::Gap {
                    reason,
                    missed: None,
                };
            }
            From::After(id) => id,
        };
        let now = self.shared.now();
        let mut all_pending = 0;
        for source in &self.sources {
            let mut log = source.core.lock();
            let evicted = log.expire(now);
            let sought = log.seek(id);
            let missed = self.shared.missed(&log, id);
            drop(log);
            drop(evicted);
            match sought {
                Seek::Exact { pending, .. } => all_pending += pending,
                Seek::Evicted => {
                    return Resume::Gap {
                        reason: GapReason::Evicted,
                        missed,
                    };
                }
            }
        }
        Resume::Exact {
            pending: all_pending,
        }
    }

    /// The next bytes for the client: whole events, or whole lines between events (law 9).
    ///
    /// `None` is the end. It does not depend on any HTTP library.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let reader = match &self.phase {
                Phase::Inert => {
                    self.begin();
                    continue;
                }
                Phase::Live(reader) => reader,
                Phase::Ended => return Poll::Ready(self.ready.pop_front()),
            };
            if let Some(chunk) = self.ready.pop_front() {
                self.shared.wake.wrote(reader);
                return Poll::Ready(Some(chunk));
            }
            let reader = reader.clone();
            if self.advance() {
                continue;
            }
            if matches!(self.phase, Phase::Ended) {
                continue;
            }
            reader.waker.store(cx.waker());
            if self.shared.wake.beat(&reader) {
                self.ready.push_back(self.shared.settings.heartbeat.bytes());
                continue;
            }
            if self.has_news() {
                continue;
            }
            if self.shared.wake.is_driverless() {
                self.shared.wake.ensure_running();
            }
            return Poll::Pending;
        }
    }

    fn has_news(&self) -> bool {
        self.sources
            .iter()
            .any(|source| source.core.version() != source.seen)
    }

    /// Registers, seeks, and makes the first bytes ready.
    fn begin(&mut self) {
        let reader = self.shared.wake.register();
        for source in &mut self.sources {
            // Before the log is locked for the seek: see `Core::publish`.
            source.key = source.core.add_reader(reader.clone());
        }
        self.phase = Phase::Live(reader);

        let mut prelude = frame::HEARTBEAT.to_vec();
        if let Some(millis) = self.shared.settings.retry {
            frame::retry(&mut prelude, millis);
        }
        self.ready.push_back(prelude.into());

        let now = self.shared.now();
        for index in 0..self.sources.len() {
            self.seek(index, now);
        }
        let newest = self.shared.clock.newest();
        if !self.read_up_to(newest)
            && let Some(name) = &self.shared.settings.checkpoint
        {
            self.ready.push_back(checkpoint(name, newest));
        }
    }

    fn seek(&mut self, index: usize, now: u64) {
        let source = &mut self.sources[index];
        let mut log = source.core.lock();
        let evicted = log.expire(now);
        let mut gap = None;
        source.position = match self.start {
            From::Fresh { start, newest } => match start {
                Start::Live => match log.seek(newest) {
                    Seek::Exact { position, .. } => position,
                    Seek::Evicted => {
                        gap = Some((GapReason::Evicted, self.shared.missed(&log, newest)));
                        log.oldest()
                    }
                },
                Start::Oldest => log.oldest(),
                Start::Newest(n) => log.oldest().max(log.end().saturating_sub(n)),
            },
            From::After(id) => match log.seek(id) {
                Seek::Exact { position, .. } => position,
                Seek::Evicted => {
                    gap = Some((GapReason::Evicted, self.shared.missed(&log, id)));
                    log.oldest()
                }
            },
            From::Gap(reason) => {
                gap = Some((reason, None));
                log.oldest()
            }
        };
        if gap.is_some() && self.on_gap == OnGap::Live {
            source.position = log.end();
        }
        let nothing_follows = source.position == log.end();
        drop(log);
        drop(evicted);
        source.gap = gap.map(|(reason, missed)| Gap { reason, missed });
        if nothing_follows {
            self.say_gap(index, None);
        }
    }

    fn say_gap(&mut self, index: usize, oldest: Option<EventId>) {
        if let Some(gap) = self.sources[index].gap.take() {
            let bytes = self.gap_event(index, gap, oldest);
            self.ready.push_back(bytes.into());
        }
    }

    fn gap_event(&self, index: usize, gap: Gap, oldest: Option<EventId>) -> Vec<u8> {
        let data = GapData {
            reason: gap.reason,
            missed: gap.missed,
            oldest,
            channel: (self.sources.len() > 1).then(|| self.sources[index].core.name()),
        };
        let mut out = Vec::with_capacity(128);
        frame::name(&mut out, self.shared.settings.gap.as_str());
        // Of strings and numbers: it serialises.
        let written = frame::json(&mut out, &data);
        debug_assert!(written.is_ok());
        frame::end(&mut out);
        out
    }

    /// Makes the next chunk ready, if anything is there.
    fn advance(&mut self) -> bool {
        let newest = self.shared.clock.newest();
        self.read_up_to(newest)
    }

    /// Reads what stands behind the cursors, up to `newest`, which was loaded before. Returns
    /// whether there was anything.
    fn read_up_to(&mut self, newest: EventId) -> bool {
        let mut changed = self
            .sources
            .iter()
            .enumerate()
            .filter(|(_, source)| source.core.version() != source.seen)
            .map(|(index, _)| index);
        match (changed.next(), changed.next()) {
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

    fn read_one(&mut self, index: usize, up_to: EventId) -> bool {
        loop {
            let Source {
                core,
                position,
                seen,
                gap,
                ..
            } = &mut self.sources[index];
            let mut log = core.lock();
            let read = log.read(*position, up_to);
            let oldest = match (&read, &gap) {
                (Read::Events { .. }, Some(_)) => log.id_at(*position),
                _ => None,
            };
            if let Read::Events { next, .. } | Read::Hole { next } | Read::Overrun { next, .. } =
                &read
            {
                *position = *next;
            }
            let at_end = *position == log.end();
            *seen = if at_end { core.version() } else { NEVER };
            drop(log);
            match read {
                Read::End => return false,
                Read::Events { chunk, .. } => {
                    self.say_gap(index, oldest);
                    self.ready.push_back(chunk);
                    return true;
                }
                Read::Hole { .. } => widen(gap, None),
                Read::Overrun { .. } if self.on_lag == OnLag::End => {
                    self.end();
                    return true;
                }
                Read::Overrun { missed, .. } => widen(gap, Some(missed)),
            }
            if at_end {
                self.say_gap(index, None);
                return true;
            }
        }
    }

    /// Reads several channels, and puts their events into one order.
    fn merge(&mut self, newest: EventId) -> bool {
        struct Item {
            id: EventId,
            index: usize,
            bytes: std::ops::Range<usize>,
            next: u64,
        }
        let mut items: Vec<Item> = Vec::new();
        let mut scratch = Vec::new();
        let mut bound = newest;
        let limit = GATHER / self.sources.len().max(1);

        let mut too_slow = false;

        for (index, source) in self.sources.iter_mut().enumerate() {
            let Source {
                core,
                position,
                seen,
                gap,
                ..
            } = source;
            if core.version() == *seen {
                continue;
            }
            let log = core.lock();
            loop {
                let mut next = *position;
                let first = items.len();
                let read = log.read_each(*position, newest, limit, |id, bytes| {
                    let start = scratch.len();
                    scratch.extend_from_slice(bytes);
                    next += 1;
                    items.push(Item {
                        id,
                        index,
                        bytes: start..scratch.len(),
                        next,
                    });
                });
                match read {
                    Read::End if *position == log.end() => *seen = core.version(),
                    Read::End => {}
                    Read::Events { .. } => {
                        // Whatever comes after the last one read may belong in front of what
                        // other channels hold.
                        if !matches!(log.peek(next, newest), Read::End)
                            && let Some(last) = items[first..].last()
                        {
                            bound = bound.min(last.id);
                        }
                    }
                    Read::Hole { next } => {
                        *position = next;
                        widen(gap, None);
                        continue;
                    }
                    Read::Overrun { missed, next } => {
                        too_slow = true;
                        *position = next;
                        widen(gap, Some(missed));
                        continue;
                    }
                }
                break;
            }
        }
        if too_slow && self.on_lag == OnLag::End {
            self.end();
            return true;
        }

        items.sort_by_key(|item| item.id);
        let mut out = Vec::with_capacity(scratch.len());
        for item in items.iter().take_while(|item| item.id <= bound) {
            if let Some(gap) = self.sources[item.index].gap.take() {
                out.extend(self.gap_event(item.index, gap, Some(item.id)));
            }
            out.extend_from_slice(&scratch[item.bytes.clone()]);
            self.sources[item.index].position = item.next;
        }
        // A hole may be the last thing there is on its channel.
        for index in 0..self.sources.len() {
            if !items.iter().any(|item| item.index == index)
                && let Some(gap) = self.sources[index].gap.take()
            {
                out.extend(self.gap_event(index, gap, None));
            }
        }
        let any = !out.is_empty();
        if any {
            self.ready.push_back(out.into());
        }
        any
    }

    fn end(&mut self) {
        if let Phase::Live(reader) = std::mem::replace(&mut self.phase, Phase::Ended) {
            for source in &self.sources {
                source.core.remove_reader(source.key);
            }
            self.shared.wake.unregister(&reader);
        }
    }
}

impl Source {
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            position: 0,
            seen: NEVER,
            gap: None,
            key: 0,
        }
    }
}

/// Notes what is missing in front of a cursor. One hole is one gap event, with the reason that
/// came first.
fn widen(gap: &mut Option<Gap>, missed: Option<u64>) {
    *gap = Some(match gap.take() {
        Some(before) => Gap {
            reason: before.reason,
            missed: before.missed.zip(missed).map(|(a, b)| a + b),
        },
        None => Gap {
            reason: GapReason::Lagged,
            missed,
        },
    });
}

fn checkpoint(name: &EventName, id: EventId) -> Bytes {
    let mut out = Vec::with_capacity(64);
    frame::name(&mut out, name.as_str());
    frame::id(&mut out, |out| id.write(out));
    frame::text(&mut out, "");
    frame::end(&mut out);
    out.into()
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: Vec<_> = self.sources.iter().map(|s| s.core.name()).collect();
        f.debug_struct("Subscription")
            .field("channels", &channels)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}
