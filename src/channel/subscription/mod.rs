//! [`Subscription`]: cursors into one or more logs, and the bytes that one client gets.
//!
//! Replay and live delivery are one loop: read what follows the cursor, move the cursor. Whatever
//! the client will not receive is reported by a gap event, exactly where it is missing.
//!
//! | file | |
//! | --- | --- |
//! | `seek.rs` | where a client starts in each channel |
//! | `cursor.rs` | one position in one log |
//! | `merge.rs` | reading one channel, or several in one order |
//! | `snapshots.rs` | snapshots on their way to the client |
//! | `gaps.rs` | what the client has missed |
//! | `anchor.rs` | which id the client has: checkpoints and partial ids |
//! | `handle.rs`, `changes.rs` | channels that are added and removed meanwhile |
//!
//! **Several channels** (law 5). The hub's newest id is loaded *before* any log is locked, and
//! nothing after it is read. So no event with a smaller id can turn up later on a channel that was
//! read before.
//!
//! **Going to sleep.** The waker is stored first, then the logs' versions are compared with those
//! last read. A publisher changes the version first, and the wake task takes the waker after.

mod anchor;
mod changes;
mod chunks;
mod cursor;
mod gaps;
mod handle;
mod merge;
mod policy;
mod seek;
mod snapshots;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::{
    channel::{gap::GapReason, log::SMALL, shared::Shared, state::ChannelHandle, wake::Reader},
    event::{EventId, encode, retry},
    last_event_id::LastEventId,
    sync::{Arc, AtomicBool, Ordering},
};

use anchor::{Anchor, Rest};
use chunks::ChunkQueue;
use cursor::Cursor;
pub use handle::SubscriptionHandle;
use merge::Queue;
pub use policy::{OnGap, OnLag, Resumption, Start};
use seek::Beginning;

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
    /// Whether gap events name their channels.
    many: bool,
    beginning: Beginning,
    resumption: Resumption,
    on_gap: OnGap,
    on_lag: OnLag,
    phase: Phase,
    handle: Option<SubscriptionHandle>,
    /// What the handler excludes from any replay.
    not_before: Option<EventId>,
    /// Which id the client has.
    anchor: Anchor,
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
    /// Not polled yet, and in no list.
    Inert,
    Live(Arc<Reader>),
    Ended,
}

impl Subscription {
    pub(crate) fn new(
        shared: Arc<Shared>,
        channels: Vec<ChannelHandle>,
        last: LastEventId,
    ) -> Self {
        let beginning = match last {
            LastEventId::Absent => Beginning::Fresh {
                newest: shared.clock.newest(),
                start: Start::default(),
            },
            LastEventId::Known(id) => match shared.clock.check(id.whole()) {
                Ok(whole) => Beginning::After {
                    id: whole,
                    is_partial: id.is_partial(),
                    announce: false,
                },
                Err(reason) => Beginning::Gap(reason),
            },
            LastEventId::Unknown(_) => Beginning::Gap(GapReason::Unknown),
        };
        Self::starting(shared, channels, beginning)
    }

    /// A stream that ends at once and tells its client to come back in a few seconds.
    pub(crate) fn refused(shared: Arc<Shared>) -> Self {
        shared.counters.refused();
        Self::starting(shared, Vec::new(), Beginning::Refused)
    }

    fn starting(shared: Arc<Shared>, channels: Vec<ChannelHandle>, beginning: Beginning) -> Self {
        let anchor = Anchor::new(shared.clock.start());
        let mut subscription = Self {
            shared,
            many: channels.len() > 1,
            cursors: channels.into_iter().map(Cursor::new).collect(),
            beginning,
            resumption: Resumption::Fresh,
            on_gap: OnGap::default(),
            on_lag: OnLag::default(),
            phase: Phase::Inert,
            handle: None,
            not_before: None,
            anchor,
            queue: Queue::default(),
            ready: ChunkQueue::default(),
            read_to_end: None,
            #[cfg(feature = "tracing")]
            span: tracing::Span::none(),
        };
        subscription.resumption = subscription.look_ahead();
        subscription
    }

    /// Where a client begins that brings no id; [`Start::Snapshot`] by default. Without effect on
    /// one that brings an id.
    #[must_use]
    pub fn start(mut self, at: Start) -> Self {
        if let Beginning::Fresh { start, .. } = &mut self.beginning {
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
        if let Beginning::After { id: brought, .. } = &mut self.beginning
            && brought.epoch() == id.epoch()
        {
            *brought = id.max(*brought);
        }
        self.resumption = self.look_ahead();
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
        self.resumption
    }

    /// A handle that adds channels of the hub to this subscription, or takes them away, while it
    /// runs, and that knows when it has ended. From then on gap events name their channels.
    pub fn handle(&mut self) -> SubscriptionHandle {
        self.many = true;
        let Self {
            shared, cursors, ..
        } = self;
        self.handle
            .get_or_insert_with(|| {
                let names = cursors.iter().map(|cursor| cursor.channel.name().into());
                SubscriptionHandle::new(shared.clone(), names.collect())
            })
            .clone()
    }

    /// Gives a client that brought an id this id again, before anything else.
    pub(crate) fn announced(mut self) -> Self {
        if let Beginning::After { announce, .. } = &mut self.beginning {
            *announce = true;
        }
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
                // What was ready when the stream ended still goes out.
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

            // Nothing is left to send. From here on, the order counts: first the wakers are
            // stored, then everything that may have changed meanwhile is looked at again. A change
            // that comes after the look finds the waker.
            let Phase::Live(reader) = &self.phase else {
                continue;
            };
            reader.waker.store(cx.waker());
            if let Some(handle) = &self.handle {
                handle.0.waker.store(cx.waker());
                if handle.0.has_changed() {
                    self.change_channels();
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
            if self.shared.wake.is_orphaned() {
                self.shared.wake.ensure_running(&self.shared);
            }
            return Poll::Pending;
        }
    }

    /// Registers, seeks, and makes the first bytes ready.
    fn begin(&mut self) {
        if let Beginning::Refused = self.beginning {
            self.stop();
            self.ready.push(retry::come_back(retry::RETURN));
            return;
        }
        let reader = self.shared.wake.register();
        for cursor in &mut self.cursors {
            cursor.register(&reader);
        }
        // From here on, dropping the subscription takes it from the lists, even if there is no
        // runtime to start the task.
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
        // In one chunk: a client that has the first response's headers has its checkpoint, too
        // (law 4).
        if let Some(id) = self.first_id()
            && self.encode_checkpoint(id, &mut prelude)
        {
            self.anchor.checkpoint_sent(id);
        }
        self.ready.push(prelude.into());
        self.shared.counters.began(self.resumption);
        #[cfg(feature = "tracing")]
        self.trace_begin();
        self.advance();
        self.ready.join(SMALL);
    }

    /// The id that a client gets before anything else, if any.
    ///
    /// A client that starts live gets one even if nothing is to be delivered yet. Cut off within
    /// its first event, it would otherwise come back without an id, and never learn of that event
    /// (law 4).
    fn first_id(&self) -> Option<EventId> {
        match self.beginning {
            Beginning::After {
                id, announce: true, ..
            } => Some(id),
            Beginning::Fresh {
                start: Start::Live | Start::Snapshot,
                newest,
            } => match (self.anchor.owes_snapshots(), self.many) {
                (false, _) => Some(newest),
                // The snapshot brings its own id.
                (true, false) => None,
                (true, true) => Some(newest.partial()),
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
            resumption = ?self.resumption,
        );
        self.span
            .in_scope(|| tracing::debug!("an event stream begins"));
    }

    /// Makes the next chunk ready. Returns whether to look again; without that, nothing is left.
    fn advance(&mut self) -> bool {
        if self.is_ended() {
            return true;
        }
        // Loaded before any log is locked (law 5).
        let newest = self.shared.clock.newest();
        let owes = self.many && self.anchor.owes_snapshots();
        if owes && self.cursors.iter().any(Cursor::has_snapshot) {
            self.anchor.catch_up_to(newest);
        }
        let up_to = self.anchor.read_up_to(newest);
        if self.read_up_to(up_to) {
            return true;
        }
        match self.anchor.rest(up_to, &mut self.cursors) {
            Rest::Done => false,
            Rest::ReadOn => true,
            Rest::Checkpoint(id) => self.send_checkpoint(id),
        }
    }

    /// Returns whether there are checkpoints at all.
    fn send_checkpoint(&mut self, id: EventId) -> bool {
        let mut out = Vec::with_capacity(64);
        let is_sent = self.encode_checkpoint(id, &mut out);
        if is_sent {
            self.ready.push(out.into());
        }
        is_sent
    }

    fn encode_checkpoint(&self, id: EventId, out: &mut Vec<u8>) -> bool {
        let Some(name) = &self.shared.settings.checkpoint else {
            return false;
        };
        encode::name(out, name.as_str());
        encode::id(out, |out| self.shared.clock.write(id, out));
        encode::text(out, "");
        encode::end(out);
        true
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
        if let Some(handle) = &self.handle {
            handle.0.end();
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
            .field("resumption", &self.resumption)
            .finish_non_exhaustive()
    }
}
