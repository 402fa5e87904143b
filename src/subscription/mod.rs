//! [`Subscription`]: cursors into one or more logs, and the bytes that one client gets.
//!
//! Replay and live are the same loop: read what stands behind the cursor, move the cursor. There
//! is no seam between them. A hole in what the client will have seen is always said (a gap
//! event), exactly where it is.
//!
//! **Several channels** (law 5). The hub's newest id is loaded *before* any log is locked, and
//! nothing beyond it is read: so no event with a smaller id can still turn up on a channel that
//! was read before. What was read is merged by id (`read.rs`).
//!
//! **Going to sleep.** The waker is stored first, then the logs' versions are compared with those
//! last read. A publisher changes the version first, and the wake task takes the waker after.

mod control;
mod gap;
mod policy;
mod read;
mod ready;
mod seek;
mod source;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::{
    event::EventName,
    frame,
    hub::{Shared, clock::Clock, core::Held, wake::Reader},
    id::EventId,
    last_event_id::LastEventId,
    log::SMALL,
    retry,
    sync::Arc,
};

pub use control::Control;
use gap::Gap;
pub use gap::GapReason;
pub use policy::{OnGap, OnLag, Resume, Start};
use ready::Ready;
use source::{Awaited, Source};

/// One client's place in one or more channels: a response that streams events from there.
///
/// Made by [`Channel::subscribe`](crate::Channel::subscribe) or
/// [`Hub::subscribe`](crate::Hub::subscribe). Return it from a handler.
///
/// ```
/// use axum::extract::State;
/// use axum_sse::{Channel, LastEventId, OnGap, OnLag, Resume, Start, Subscription};
///
/// async fn news(State(news): State<Channel<str>>, last: LastEventId) -> Subscription {
///     let mut stream = news
///         .subscribe(last)
///         .start(Start::Newest(50))
///         .on_gap(OnGap::Live)
///         .on_lag(OnLag::End);
///     if let Resume::Gap { reason, missed, .. } = stream.resume() {
///         println!("{}: {missed:?} events missed", reason.as_str());
///     }
///     let control = stream.control(); // To add and remove channels of a hub.
///     # let _ = control;
///     stream
/// }
/// # let app: axum::Router<Channel<str>> =
/// #     axum::Router::new().route("/news", axum::routing::get(news));
/// ```
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
/// **Gaps.** Where something is missing, an event named `gap` says so, in front of all that follows. It has
/// no id of its own. Its data is JSON: `reason` (`evicted`, `unknown`, `restarted` or `lagged`),
/// `missed` (how many events, or `null` where nobody knows), `oldest` (the id of the event that
/// delivery goes on with, or `null` if none is there), and `channel` on a connection over more
/// than one (rules 86, 89).
///
/// **Snapshots.** A channel that has one (see [`Channel::snapshot`](crate::Channel::snapshot))
/// gives it to clients that are new or have a gap, as an event whose id is where the state
/// stands; the events behind that id follow. On a connection over several channels, the
/// snapshots, and all events up to one common place, come without ids, and then a checkpoint with
/// that place: a client that is cut off before has not got all the states that its id would
/// stand for, and is given them again.
///
/// **Closed channels.** Once all channels are closed and the client has everything, the stream
/// ends. A client that comes back then, with nothing left for it, gets a 204, after which an
/// `EventSource` stays away.
///
/// **Runtime.** The body is to be polled within a tokio runtime. Polled without one, it delivers
/// what is there, and is not woken for more.
///
/// # Panics
///
/// The first poll panics on a runtime that was built without timers (`enable_time`).
pub struct Subscription {
    shared: Arc<Shared>,
    sources: Vec<Source>,
    /// Whether gap events name their channel.
    many: bool,
    start: From,
    resume: Resume,
    on_gap: OnGap,
    on_lag: OnLag,
    phase: Phase,
    control: Option<Control>,
    /// The first event is a checkpoint, whatever follows.
    announced: bool,
    /// Up to this place nothing gets an id; see `Subscription::up_to`.
    without_ids: Option<EventId>,
    /// Nothing with an id has been sent yet.
    unanchored: bool,
    /// A gap was said that nothing follows: the next rest needs a checkpoint.
    owes_checkpoint: bool,
    /// Chunks that are on their way out.
    ready: Ready,
    /// What is logged of this stream belongs together.
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

enum Phase {
    Inert,
    Live(Arc<Reader>),
    Ended,
}

#[derive(Clone, Copy)]
enum From {
    After(EventId),
    /// The client's id cannot be found again.
    Gap(GapReason),
    Fresh {
        newest: EventId,
        start: Start,
    },
    /// The hub is full.
    Refused,
}

impl Subscription {
    pub(crate) fn new(shared: Arc<Shared>, channels: Vec<Held>, last: LastEventId) -> Self {
        let start = match last {
            LastEventId::Absent => From::Fresh {
                newest: shared.clock.newest(),
                start: Start::default(),
            },
            LastEventId::Known(id) => match shared.clock.check(id) {
                Ok(id) => From::After(id),
                Err(reason) => From::Gap(reason),
            },
            LastEventId::Unknown(_) => From::Gap(GapReason::Unknown),
        };
        Self::starting(shared, channels, start)
    }

    /// A stream that ends at once and sends its client away for a moment.
    pub(crate) fn refused(shared: Arc<Shared>) -> Self {
        shared.counters.refused();
        Self::starting(shared, Vec::new(), From::Refused)
    }

    fn starting(shared: Arc<Shared>, channels: Vec<Held>, start: From) -> Self {
        let mut subscription = Self {
            shared,
            many: channels.len() > 1,
            sources: channels.into_iter().map(Source::new).collect(),
            start,
            resume: Resume::Fresh,
            on_gap: OnGap::default(),
            on_lag: OnLag::default(),
            phase: Phase::Inert,
            control: None,
            announced: false,
            without_ids: None,
            unanchored: true,
            owes_checkpoint: false,
            ready: Ready::default(),
            #[cfg(feature = "tracing")]
            span: tracing::Span::none(),
        };
        subscription.resume = subscription.look_ahead();
        subscription
    }

    /// Where a client begins that brings no id; [`Start::Snapshot`] by default. Without effect on
    /// one that brings an id.
    #[must_use]
    pub fn start(mut self, at: Start) -> Self {
        if let From::Fresh { start, .. } = &mut self.start {
            *start = at;
        }
        self
    }

    /// What follows a gap; [`OnGap::Snapshot`] by default.
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

    /// A handle that adds channels of the hub to this subscription, or takes them away, while it
    /// runs. From then on gap events name their channel.
    pub fn control(&mut self) -> Control {
        self.many = true;
        let shared = &self.shared;
        self.control
            .get_or_insert_with(|| Control::new(shared.clone()))
            .clone()
    }

    /// Gives the client an id before anything else.
    pub(crate) fn announced(mut self) -> Self {
        self.announced = true;
        self
    }

    /// The next bytes for the client: whole events, or whole lines between events (law 9).
    ///
    /// `None` is the end. It does not depend on any HTTP library.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let reader = match &self.phase {
                Phase::Inert => {
                    self.begin();
                    // A client that has the head of its first response has its checkpoint too
                    // (law 4).
                    self.ready.join(SMALL);
                    continue;
                }
                Phase::Live(reader) => reader,
                Phase::Ended => return Poll::Ready(self.ready.pop()),
            };
            if let Some(chunk) = self.ready.pop() {
                self.shared.wake.wrote(reader);
                return Poll::Ready(Some(chunk));
            }
            let waiting = self.awaits_snapshots() && self.poll_snapshots(cx).is_pending();
            if !waiting && self.advance() {
                continue;
            }
            let Phase::Live(reader) = &self.phase else {
                continue;
            };
            reader.waker.store(cx.waker());
            if let Some(control) = &self.control {
                control.0.waker.store(cx.waker());
                if control.0.has_changed() && !waiting {
                    let reader = reader.clone();
                    self.change_channels(&reader);
                    continue;
                }
            }
            if self.shared.wake.beat(reader) {
                self.ready.push(self.shared.settings.heartbeat.bytes());
                continue;
            }
            if !waiting {
                if self.sources.iter().any(Source::has_news) {
                    continue;
                }
                if !self.sources.is_empty() && self.sources.iter().all(Source::is_over) {
                    self.stop();
                    continue;
                }
            }
            if self.shared.wake.is_driverless() {
                self.shared.wake.ensure_running(&self.shared);
            }
            return Poll::Pending;
        }
    }

    /// Registers, seeks, and makes the first bytes ready.
    fn begin(&mut self) {
        if let From::Refused = self.start {
            self.phase = Phase::Ended;
            self.ready.push(retry::come_back(retry::RETURN));
            return;
        }
        let reader = self.shared.wake.register();
        for source in &mut self.sources {
            source.register(&reader);
        }
        // From here on its drop leaves the lists, also if there is no runtime to start the task.
        self.phase = Phase::Live(reader);
        self.shared.wake.ensure_running(&self.shared);

        let mut prelude = frame::HEARTBEAT.to_vec();
        if let Some(millis) = self.shared.settings.retry {
            frame::retry(&mut prelude, millis);
        }
        self.ready.push(prelude.into());

        let clock = &self.shared.clock;
        if let (true, From::After(id), Some(name)) =
            (self.announced, self.start, &self.shared.settings.checkpoint)
        {
            let mut out = Vec::new();
            checkpoint(&mut out, name, id, clock);
            self.ready.push(out.into());
            self.unanchored = false;
        }
        for index in 0..self.sources.len() {
            self.seek(index);
        }
        self.anchor();
        self.shared.counters.began(self.resume);
        #[cfg(feature = "tracing")]
        self.trace_begin();
        if !self.awaits_snapshots() {
            self.advance();
        }
    }

    /// A client that begins live gets its place before anything else: cut off within its first
    /// event, it would come back without an id, and never hear of it (law 4).
    ///
    /// Also where nothing is to be delivered yet: it may be by the time the logs are read.
    fn anchor(&mut self) {
        let From::Fresh {
            start: Start::Live | Start::Snapshot,
            newest,
        } = self.start
        else {
            return;
        };
        if self.awaits_snapshots() {
            return;
        }
        if let Some(name) = &self.shared.settings.checkpoint {
            let mut out = Vec::new();
            checkpoint(&mut out, name, newest, &self.shared.clock);
            self.ready.push(out.into());
            self.unanchored = false;
        }
    }

    #[cfg(feature = "tracing")]
    fn trace_begin(&mut self) {
        let channels: Vec<_> = self
            .sources
            .iter()
            .map(|source| source.held.name())
            .collect();
        self.span = tracing::debug_span!(
            "event_stream",
            hub = self.shared.settings.name,
            ?channels,
            resume = ?self.resume,
        );
        self.span
            .in_scope(|| tracing::debug!("an event stream begins"));
    }

    /// Asks for the channel's snapshot, if it has one and the client is to get it.
    fn ask_for_snapshot(&mut self, index: usize) {
        let source = &mut self.sources[index];
        // One that is here already stands in front of a hole now, whatever was asked for.
        let outdated = matches!(source.snapshot, Awaited::Here(_));
        if self.on_gap != OnGap::Snapshot && source.gap.is_some() && !outdated {
            return;
        }
        if let Some(snapshots) = source.held.snapshots.get() {
            let newest = source.held.lock().newest();
            source.snapshot = Awaited::Coming(snapshots.get(newest));
        }
    }

    fn awaits_snapshots(&self) -> bool {
        let coming = |source: &Source| matches!(source.snapshot, Awaited::Coming(_));
        self.sources.iter().any(coming)
    }

    /// Ready once every snapshot is here that was asked for, or the stream has ended.
    fn poll_snapshots(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pending = false;
        for index in 0..self.sources.len() {
            while let Awaited::Coming(flight) = &mut self.sources[index].snapshot {
                let Poll::Ready(snapshot) = flight.as_mut().poll(cx) else {
                    pending = true;
                    break;
                };
                // A state that stands nowhere in this hub cannot be followed by its events.
                let snapshot = snapshot.filter(|made| self.shared.clock.check(made.id).is_ok());
                let Some(snapshot) = snapshot else {
                    self.shared.counters.sent_away();
                    self.end();
                    return Poll::Ready(());
                };
                match self.seek_after(&self.sources[index].held, snapshot.id) {
                    Ok((position, _)) => {
                        let source = &mut self.sources[index];
                        source.start_at(position);
                        source.snapshot = Awaited::Here(snapshot);
                    }
                    // The log has moved on before the snapshot was there.
                    Err(_) => {
                        let source = &mut self.sources[index];
                        source.overruns = source.overruns.saturating_add(1);
                        if source.overruns > 1 {
                            self.end();
                            return Poll::Ready(());
                        }
                        self.ask_for_snapshot(index);
                    }
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Makes the next chunk ready, if anything is there.
    fn advance(&mut self) -> bool {
        if self.is_ended() {
            return true;
        }
        let newest = self.shared.clock.newest();
        self.read_up_to(newest) || self.rest(newest)
    }

    /// Nothing is left up to `newest`. A client that has no id yet, or was told of a gap that
    /// nothing follows, gets this place as its id (law 4).
    fn rest(&mut self, newest: EventId) -> bool {
        let place = self.without_ids.take();
        let unanchored = std::mem::take(&mut self.unanchored);
        let owed = std::mem::take(&mut self.owes_checkpoint);
        if place.is_none() && !owed && !unanchored {
            return false;
        }
        let Some(name) = &self.shared.settings.checkpoint else {
            return false;
        };
        let mut out = Vec::with_capacity(64);
        let place = place.unwrap_or(newest);
        checkpoint(&mut out, name, place, &self.shared.clock);
        self.ready.push(out.into());
        true
    }

    /// Everything up to the newest id has been handed out: that is the place where channels come
    /// in.
    fn change_channels(&mut self, reader: &Arc<Reader>) {
        let Some(control) = self.control.clone() else {
            return;
        };
        for (name, wanted) in control.0.take() {
            let at = self
                .sources
                .iter()
                .position(|source| source.held.name() == &*name);
            match (wanted, at) {
                (control::Wanted::Out, Some(at)) => {
                    let mut source = self.sources.remove(at);
                    source.unregister();
                }
                (control::Wanted::In { held, since }, None) => {
                    self.sources.push(Source::new(held));
                    self.come_in(self.sources.len() - 1, since, reader);
                }
                (control::Wanted::Out, None) | (control::Wanted::In { .. }, Some(_)) => {}
            }
        }
    }

    fn come_in(&mut self, index: usize, since: Option<EventId>, reader: &Arc<Reader>) {
        self.sources[index].register(reader);
        let newest = self.shared.clock.newest();
        let held = self.sources[index].held.clone();
        let position = match self.seek_after(&held, newest) {
            Ok((position, _)) => position,
            Err((_, oldest)) => oldest,
        };
        let missed = since.map(|id| {
            self.shared
                .clock
                .check(id)
                .ok()
                .and_then(|id| self.seek_after(&held, id).ok())
                .map(|(known, _)| position.saturating_sub(known))
        });
        self.sources[index].start_at(position);
        if let Some(missed) = missed
            && missed != Some(0)
        {
            let reason = GapReason::Unknown;
            self.shared.counters.gap(reason);
            held.counters.gap(reason);
            self.sources[index].gap = Some(Gap { reason, missed });
        }
    }

    fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Ends the stream, and sends the client away for a moment.
    fn end(&mut self) {
        if !self.is_ended() {
            self.stop();
            self.ready.push(retry::come_back(retry::RETURN));
        }
    }

    /// Leaves all lists.
    fn stop(&mut self) {
        if let Some(control) = &self.control {
            control.0.end();
        }
        if let Phase::Live(reader) = std::mem::replace(&mut self.phase, Phase::Ended) {
            for source in &mut self.sources {
                source.unregister();
            }
            self.shared.wake.unregister(&reader);
            #[cfg(feature = "tracing")]
            self.span
                .in_scope(|| tracing::debug!("an event stream ends"));
        }
    }
}

fn checkpoint(out: &mut Vec<u8>, name: &EventName, id: EventId, clock: &Clock) {
    frame::name(out, name.as_str());
    frame::id(out, |out| clock.write(id, out));
    frame::text(out, "");
    frame::end(out);
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: Vec<_> = self.sources.iter().map(|s| s.held.name()).collect();
        f.debug_struct("Subscription")
            .field("channels", &channels)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}
