//! [`Subscription`]: cursors into one or more logs, and the bytes that one client gets.
//!
//! Replay and live are the same loop: read what stands behind the cursor, move the cursor. There
//! is no seam between them. A hole in what the client will have seen is always said (a gap
//! event), exactly where it is.
//!
//! **Several channels** (law 5). The hub's newest id is loaded *before* any log is locked, and
//! nothing beyond it is read: so no event with a smaller id can still turn up on a channel that
//! was read before. What was read is merged by id (`merge.rs`).
//!
//! **Going to sleep.** The waker is stored first, then the logs' versions are compared with those
//! last read. A publisher changes the version first, and the wake task takes the waker after.

mod chunks;
mod cursor;
mod handle;
mod merge;
mod policy;
mod seek;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::{
    channel::{
        clock::Clock,
        gap::{Gap, GapReason, LostFrom},
        hub::Shared,
        log::{SMALL, Seek},
        snapshot::{Asked, SharedSnapshot},
        state::ChannelHandle,
        wake::Reader,
    },
    event::{EventId, EventName, encode, retry},
    last_event_id::LastEventId,
    sync::{Arc, AtomicBool, Ordering},
};

use chunks::ChunkQueue;
use cursor::{Cursor, Snapshot};
pub use handle::SubscriptionHandle;
use merge::Queue;
pub use policy::{OnGap, OnLag, Resumption, Start};

/// One client's place in one or more channels: a response that streams events from there.
///
/// Made by [`Channel::subscribe`](crate::Channel::subscribe) or
/// [`Hub::subscribe`](crate::Hub::subscribe). Return it from a handler.
///
/// ```
/// use axum::extract::State;
/// use axum_sse::{Channel, LastEventId, OnGap, OnLag, Resumption, Start, Subscription};
///
/// async fn news(State(news): State<Channel<str>>, last: LastEventId) -> Subscription {
///     let mut stream = news
///         .subscribe(last)
///         .start(Start::Newest(50))
///         .on_gap(OnGap::Live)
///         .on_lag(OnLag::End);
///     if let Resumption::Gap { reason, missed, .. } = stream.resumption() {
///         println!("{}: {missed:?} events missed", reason.as_str());
///     }
///     let control = stream.handle(); // To add and remove channels of a hub.
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
/// **GapCounts.** Where something is missing, an event named `gap` is sent before everything that
/// follows. It has no id. Its data is JSON:
///
/// | field | |
/// | --- | --- |
/// | `reason` | `evicted`, `unknown`, `restarted`, `lagged` or `truncated`: see [`GapReason`] |
/// | `missed` | how many events are missing, or `null` where the ids do not tell |
/// | `oldest` | the id of the event that delivery continues with, or `null` if there is none yet |
/// | `channels` | on a connection over several channels: `missed` and `oldest` of each channel concerned; then the other two are their sum and the smallest |
///
/// Channels that miss something for the same reason share one event. A page that reloads its
/// state after a gap does so once; after `truncated` there is nothing to reload.
///
/// **Snapshots.** A channel that has one (see [`Channel::snapshot`](crate::Channel::snapshot))
/// sends it to clients that are new or have a gap, as an event whose id is the last one that the
/// state contains; the events after that id follow. On a connection over several channels, the
/// others do not wait for it: their events go out with partial ids (they end with a dot), with
/// which a client that is cut off gets the snapshots again. Snapshots, and the events that bring
/// them to the place where the other channels are, have no ids. Then a checkpoint follows.
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
    cursors: Vec<Cursor>,
    /// Whether gap events name their channel.
    many: bool,
    start: Beginning,
    resume: Resumption,
    on_gap: OnGap,
    on_lag: OnLag,
    phase: Phase,
    control: Option<SubscriptionHandle>,
    /// What the handler excludes from any replay.
    not_before: Option<EventId>,
    /// The first event is a checkpoint, whatever follows.
    announced: bool,
    /// The client's id is partial: it is owed the snapshots.
    is_partial: bool,
    /// How many cursors are owed.
    owed: usize,
    /// The place up to which all channels are read before any id is whole again.
    catch_up: Option<EventId>,
    /// The place up to which everything had been handed out when nothing was left last.
    rested_at: EventId,
    /// Nothing with a whole id has been sent yet.
    unanchored: bool,
    /// A gap was said that nothing follows: the next rest needs a checkpoint.
    owes_checkpoint: bool,
    /// What is next on each channel that has news, where several have.
    queue: Queue,
    /// Chunks that are on their way out.
    ready: ChunkQueue,
    /// Set when all channels are closed and their events have been handed out.
    read_to_end: Option<Arc<AtomicBool>>,
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
enum Beginning {
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
    pub(crate) fn new(
        shared: Arc<Shared>,
        channels: Vec<ChannelHandle>,
        last: LastEventId,
    ) -> Self {
        let is_partial = matches!(last, LastEventId::Known(id) if id.is_partial());
        let start = match last {
            LastEventId::Absent => Beginning::Fresh {
                newest: shared.clock.newest(),
                start: Start::default(),
            },
            LastEventId::Known(id) => match shared.clock.check(id.whole()) {
                Ok(id) => Beginning::After(id),
                Err(reason) => Beginning::Gap(reason),
            },
            LastEventId::Unknown(_) => Beginning::Gap(GapReason::Unknown),
        };
        Self::starting(shared, channels, start, is_partial)
    }

    /// A stream that ends at once and sends its client away for a moment.
    pub(crate) fn refused(shared: Arc<Shared>) -> Self {
        shared.counters.refused();
        Self::starting(shared, Vec::new(), Beginning::Refused, false)
    }

    fn starting(
        shared: Arc<Shared>,
        channels: Vec<ChannelHandle>,
        start: Beginning,
        is_partial: bool,
    ) -> Self {
        let rested_at = shared.clock.start();
        let mut subscription = Self {
            shared,
            many: channels.len() > 1,
            cursors: channels.into_iter().map(Cursor::new).collect(),
            start,
            resume: Resumption::Fresh,
            on_gap: OnGap::default(),
            on_lag: OnLag::default(),
            phase: Phase::Inert,
            control: None,
            not_before: None,
            announced: false,
            is_partial,
            owed: 0,
            catch_up: None,
            rested_at,
            unanchored: true,
            owes_checkpoint: false,
            queue: Queue::default(),
            ready: ChunkQueue::default(),
            read_to_end: None,
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
        if let Beginning::Fresh { start, .. } = &mut self.start {
            *start = match at {
                Start::Newest(0) => Start::Live,
                other => other,
            };
        }
        self
    }

    /// Excludes everything up to `id` from what this client is given, whatever id it brings: a
    /// user who has joined a room does not read what was said before. A snapshot is a state and
    /// no history: the client gets one that contains everything up to `id`, at least.
    ///
    /// A client whose own id is older resumes after `id`, and is told of no gap before it. An id
    /// of an earlier life of the hub excludes nothing.
    ///
    /// ```
    /// # use axum_sse::{Channel, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let room = Channel::new();
    /// room.publish("not for Ada")?;
    /// let joined = room.newest(); // Store it with her membership.
    /// room.publish("hello, Ada")?;
    /// let forged = axum_sse::EventId::new(joined.epoch(), 0);
    /// let mut page = Reader::new(room.subscribe(forged).not_before(joined));
    /// assert_eq!(page.next_message().await.data, r#""hello, Ada""#);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn not_before(mut self, id: EventId) -> Self {
        let id = id.whole().min(self.shared.clock.newest());
        self.not_before = self.not_before.max(Some(id));
        if let Beginning::After(brought) = &mut self.start
            && brought.epoch() == id.epoch()
        {
            *brought = id.max(*brought);
        }
        self.resume = self.look_ahead();
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
    pub fn resumption(&self) -> Resumption {
        self.resume
    }

    /// A handle that adds channels of the hub to this subscription, or takes them away, while it
    /// runs, and that knows when it has ended. From then on gap events name their channels.
    pub fn handle(&mut self) -> SubscriptionHandle {
        self.many = true;
        let Self {
            shared, cursors, ..
        } = self;
        self.control
            .get_or_insert_with(|| {
                let names = cursors.iter().map(|cursor| cursor.channel.name().into());
                SubscriptionHandle::new(shared.clone(), names.collect())
            })
            .clone()
    }

    /// Gives the client an id before anything else.
    pub(crate) fn announced(mut self) -> Self {
        self.announced = true;
        self
    }

    /// Sets `flag` once the client has been given everything, and the stream ends for that reason.
    pub(crate) fn on_read_to_end(mut self, flag: Arc<AtomicBool>) -> Self {
        self.read_to_end = Some(flag);
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
                    continue;
                }
                Phase::Live(reader) => reader,
                Phase::Ended => return Poll::Ready(self.ready.pop()),
            };
            if let Some(chunk) = self.ready.pop() {
                self.shared.wake.wrote(reader);
                return Poll::Ready(Some(chunk));
            }
            self.poll_snapshots(cx);
            if self.advance() {
                continue;
            }
            let Phase::Live(reader) = &self.phase else {
                continue;
            };
            reader.waker.store(cx.waker());
            if let Some(control) = &self.control {
                control.0.waker.store(cx.waker());
                if control.0.has_changed() {
                    let reader = reader.clone();
                    self.change_channels(&reader);
                    continue;
                }
            }
            if self.shared.wake.beat(reader) {
                self.ready.push(self.shared.settings.heartbeat.bytes());
                continue;
            }
            if self.cursors.iter().any(Cursor::has_news) {
                continue;
            }
            if !self.cursors.is_empty() && self.cursors.iter().all(Cursor::is_over) {
                if let Some(flag) = &self.read_to_end {
                    flag.store(true, Ordering::Relaxed);
                }
                self.stop();
                continue;
            }
            if self.shared.wake.is_driverless() {
                self.shared.wake.ensure_running(&self.shared);
            }
            return Poll::Pending;
        }
    }

    /// Registers, seeks, and makes the first bytes ready.
    fn begin(&mut self) {
        if let Beginning::Refused = self.start {
            self.stop();
            self.ready.push(retry::come_back(retry::RETURN));
            return;
        }
        let reader = self.shared.wake.register();
        for cursor in &mut self.cursors {
            cursor.register(&reader);
        }
        // From here on its drop leaves the lists, also if there is no runtime to start the task.
        self.phase = Phase::Live(reader);
        self.shared.wake.ensure_running(&self.shared);

        for index in 0..self.cursors.len() {
            self.seek(index);
            if self.is_ended() {
                return;
            }
        }
        let mut prelude = encode::HEARTBEAT.to_vec();
        if let Some(millis) = self.shared.settings.retry {
            encode::retry(&mut prelude, millis);
        }
        // In one chunk: a client that has the head of its first response has its checkpoint
        // too (law 4).
        if let (Some(place), Some(name)) = (self.first_place(), &self.shared.settings.checkpoint) {
            checkpoint(&mut prelude, name, place, &self.shared.clock);
            self.unanchored = place.is_partial();
        }
        self.ready.push(prelude.into());
        self.shared.counters.began(self.resume);
        #[cfg(feature = "tracing")]
        self.trace_begin();
        self.advance();
        self.ready.join(SMALL);
    }

    /// The id that a client gets before anything else, if it is to get one.
    ///
    /// One that begins live does, also where nothing is to be delivered yet: cut off within its
    /// first event, it would come back without an id, and never hear of it (law 4).
    fn first_place(&self) -> Option<EventId> {
        match self.start {
            Beginning::After(id) if self.announced => Some(id),
            Beginning::Fresh {
                start: Start::Live | Start::Snapshot,
                newest,
            } => match (self.owed, self.many) {
                (0, _) => Some(newest),
                // The snapshot says where it stands.
                (_, false) => None,
                (_, true) => Some(newest.partial()),
            },
            _ => None,
        }
    }

    #[cfg(feature = "tracing")]
    fn trace_begin(&mut self) {
        let channels: Vec<_> = self
            .cursors
            .iter()
            .map(|cursor| cursor.channel.name())
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
        let cursor = &mut self.cursors[index];
        if self.on_gap != OnGap::Snapshot && cursor.gap.is_some() {
            return;
        }
        let Some(snapshots) = cursor.channel.snapshots.get() else {
            return;
        };
        if !cursor.owed {
            cursor.owed = true;
            self.owed += 1;
        }
        let snapshots = snapshots.clone();
        // What is published from now on is kept for this reader until the snapshot is there. A
        // new one is not made before, so it contains everything up to here.
        let end = cursor.channel.lock().end();
        cursor.start_at(end);
        match snapshots.get(&cursor.channel, self.not_before) {
            Asked::Pending(pending) => cursor.await_snapshot(Snapshot::Pending(pending)),
            Asked::Ready(snapshot) => self.land(index, snapshot),
        }
    }

    /// Puts the cursor behind a snapshot that is here.
    fn land(&mut self, index: usize, snapshot: Arc<SharedSnapshot>) {
        let cursor = &mut self.cursors[index];
        let found = cursor.channel.lock().seek_kept(snapshot.id);
        let is_allowed = Some(snapshot.id) >= self.not_before;
        match found {
            Seek::Exact { position, .. } if is_allowed => {
                cursor.start_at(position);
                cursor.await_snapshot(Snapshot::Ready(snapshot));
            }
            // It was made for somebody who came earlier: what follows it was not kept, or is not
            // for this client.
            Seek::Exact { .. } | Seek::Evicted => {
                cursor.await_snapshot(Snapshot::None);
                cursor.overruns = cursor.overruns.saturating_add(1);
                if cursor.overruns > 1 {
                    self.send_away(index, "what follows its snapshots is gone, twice in a row");
                } else {
                    self.ask_for_snapshot(index);
                }
            }
        }
    }

    /// Looks whether snapshots are here that were asked for.
    fn poll_snapshots(&mut self, cx: &mut Context<'_>) {
        if self.owed == 0 {
            return;
        }
        for index in 0..self.cursors.len() {
            while let Snapshot::Pending(pending) = &mut self.cursors[index].snapshot {
                match Pin::new(pending).poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(snapshot)) => self.land(index, snapshot),
                    Poll::Ready(None) => self.send_away(index, "its snapshot failed"),
                }
                if self.is_ended() {
                    return;
                }
            }
        }
    }

    /// Makes the next chunk ready, if anything is there.
    fn advance(&mut self) -> bool {
        if self.is_ended() {
            return true;
        }
        let newest = self.shared.clock.newest();
        // From a snapshot's id to that of the other channels, events come without ids.
        if self.owed > 0
            && self.many
            && self.catch_up.is_none()
            && self.cursors.iter().any(Cursor::has_snapshot)
        {
            self.catch_up = Some(newest);
        }
        let newest = self.catch_up.unwrap_or(newest);
        self.rested_at = newest;
        self.read_up_to(newest) || self.rest(newest)
    }

    /// Nothing is left up to `newest`. A client that has no id yet, or was told of a gap that
    /// nothing follows, or has caught up behind its snapshots, gets this place as its id (law 4).
    fn rest(&mut self, newest: EventId) -> bool {
        let caught_up = self.catch_up.take().is_some();
        if caught_up {
            for cursor in &mut self.cursors {
                cursor.owed = cursor.is_waiting() || cursor.has_snapshot();
            }
            self.owed = self.cursors.iter().filter(|cursor| cursor.owed).count();
        }
        if self.owed > 0 {
            return caught_up;
        }
        let unanchored = std::mem::take(&mut self.unanchored);
        let owed = std::mem::take(&mut self.owes_checkpoint);
        if !caught_up && !owed && !unanchored {
            return false;
        }
        let Some(name) = &self.shared.settings.checkpoint else {
            return false;
        };
        let mut out = Vec::with_capacity(64);
        checkpoint(&mut out, name, newest, &self.shared.clock);
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
                .cursors
                .iter()
                .position(|cursor| cursor.channel.name() == &*name);
            match (wanted, at) {
                (handle::Wanted::Out, Some(at)) => self.take_out(at),
                (handle::Wanted::In { channel, since }, None) => {
                    self.cursors.push(Cursor::new(channel));
                    self.come_in(self.cursors.len() - 1, since, reader);
                }
                (handle::Wanted::Out, None) | (handle::Wanted::In { .. }, Some(_)) => {}
            }
            if self.is_ended() {
                return;
            }
        }
    }

    fn take_out(&mut self, at: usize) {
        let mut cursor = self.cursors.swap_remove(at);
        self.owed -= usize::from(cursor.owed);
        cursor.unregister();
        // What is queued knows the cursors by number.
        self.queue = Queue::default();
        for cursor in &mut self.cursors {
            cursor.queued = false;
        }
    }

    fn come_in(&mut self, index: usize, since: Option<EventId>, reader: &Arc<Reader>) {
        self.cursors[index].register(reader);
        let place = self.rested_at;
        let channel = self.cursors[index].channel.clone();
        let position = match self.seek_after(&channel, place) {
            Ok((position, _)) => position,
            // What has been published since the last look is gone already, or the channel is new.
            Err((gap, oldest)) => {
                if oldest > 0 && since.is_none() {
                    self.note_gap(index, gap);
                }
                oldest
            }
        };
        self.cursors[index].start_at(position);
        if let Some(id) = since {
            let id = id.whole();
            let known = self.shared.clock.check(id).is_ok();
            let missed = match known {
                true => channel.lock().missed(id, position),
                false => None,
            };
            if missed == Some(0) {
                return;
            }
            let from = match missed {
                Some(missed) => LostFrom::Position(position.saturating_sub(missed)),
                None => LostFrom::Unknown,
            };
            let reason = GapReason::Unknown;
            self.note_gap(index, Gap { reason, from });
        }
        self.ask_for_snapshot(index);
        self.say_gaps();
        // From here on, the client's id has to say that it is owed this channel's state.
        if self.owed > 0
            && !self.is_ended()
            && let Some(name) = &self.shared.settings.checkpoint
        {
            let mut out = Vec::with_capacity(64);
            checkpoint(&mut out, name, place.partial(), &self.shared.clock);
            self.ready.push(out.into());
        }
    }

    fn note_gap(&mut self, index: usize, gap: Gap) {
        let cursor = &mut self.cursors[index];
        cursor.gap = Some(gap);
        cursor.channel.counters.gap(gap.reason);
        self.shared.counters.gap(gap.reason);
    }

    fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Ends the stream, and tells the client to come back after a moment.
    fn send_away(&mut self, index: usize, _why: &str) {
        if self.is_ended() {
            return;
        }
        let cursor = &self.cursors[index];
        cursor.channel.counters.sent_away();
        self.shared.counters.sent_away();
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| {
            tracing::info!(
                channel = cursor.channel.name(),
                "an event stream is ended, to be opened again: {_why}"
            );
        });
        self.stop();
        self.ready.push(retry::come_back(retry::RETURN));
    }

    /// Leaves all lists.
    fn stop(&mut self) {
        if let Some(control) = &self.control {
            control.0.end();
        }
        if let Phase::Live(reader) = std::mem::replace(&mut self.phase, Phase::Ended) {
            for cursor in &mut self.cursors {
                cursor.unregister();
            }
            self.shared.wake.unregister(&reader);
            #[cfg(feature = "tracing")]
            self.span
                .in_scope(|| tracing::debug!("an event stream ends"));
        }
    }
}

fn checkpoint(out: &mut Vec<u8>, name: &EventName, id: EventId, clock: &Clock) {
    encode::name(out, name.as_str());
    encode::id(out, |out| clock.write(id, out));
    encode::text(out, "");
    encode::end(out);
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels: Vec<_> = self.cursors.iter().map(|s| s.channel.name()).collect();
        f.debug_struct("Subscription")
            .field("channels", &channels)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}
