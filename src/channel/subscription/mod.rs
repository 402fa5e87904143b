//! [`Subscription`]: cursors into one or more logs, and the bytes for one client.
//!
//! Replay and live delivery are one loop: read the events after the cursor, move the cursor. A gap
//! event reports missing events, exactly where they are missing.
//!
//! | file | |
//! | --- | --- |
//! | `seek.rs` | where a client starts in each channel |
//! | `cursor.rs` | one position in one log |
//! | `merge.rs` | reading one channel, or several in one order |
//! | `snapshots.rs` | requesting and placing snapshots |
//! | `lag.rs` | what happens to a client that reads too slowly |
//! | `gaps.rs` | what the client has missed |
//! | `anchor.rs` | which id the client has: checkpoints and partial ids |
//! | `handle.rs`, `changes.rs` | adding and removing channels |
//!
//! **Several channels** (law 5). The hub's newest id is loaded *before* any log is locked, and no
//! event after it is read. So no smaller id can appear later on a channel that was already read.
//!
//! **Sleeping.** A reader first stores its waker, and then compares the versions of the logs with
//! those that it read. A publisher first changes the version; the wake task then takes the waker.

mod anchor;
mod changes;
mod chunks;
mod cursor;
mod gaps;
mod handle;
mod lag;
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

/// The response that streams one or more channels to a client, from the client's position on.
///
/// Created by [`Channel::subscribe`](crate::Channel::subscribe) or
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
///     let handle = stream.handle(); // Adds and removes channels of a hub.
///     # let _ = handle;
///     stream
/// }
/// # let app: axum::Router<Channel<str>> =
/// #     axum::Router::new().route("/news", axum::routing::get(news));
/// ```
///
/// **Events.** The stream starts at once, with a comment line, and the reconnection time if the
/// channel has one. Then the client receives every event after its id, each exactly once and in
/// order, with no boundary between replayed and live events. A client that starts live, or has
/// missed nothing, first receives a *checkpoint*: a named event with empty data and an id to resume
/// from.
///
/// **Position.** The position is fixed when the subscription is created, so state that the handler
/// reads afterwards is not older than the stream's start. Nothing is registered before the body is
/// first polled, so a HEAD request or a dropped response has no effect.
///
/// **Gaps.** If events are missing, an event named `gap` is sent before everything that follows. It
/// has no id. Its data is JSON:
///
/// | field | |
/// | --- | --- |
/// | `reason` | `evicted`, `unknown`, `restarted`, `lagged` or `truncated`: see [`GapReason`] |
/// | `missed` | how many events are missing, or `null` if unknown |
/// | `oldest` | the id of the event with which delivery continues, or `null` if there is none yet |
/// | `channels` | on a connection over several channels, an object with `missed` and `oldest` of each channel concerned; the other two fields are then the sum and the smallest id |
///
/// Channels with a gap for the same reason share one event, so a page that reloads its state on
/// `gap` does so once. It must not reload on `truncated`.
///
/// **Snapshots.** A channel with a snapshot (see [`Channel::snapshot`](crate::Channel::snapshot))
/// sends it to new clients and after gaps: an event with the state, whose id is that of the last
/// event that the state contains. The events after that id follow. On a connection over several
/// channels, the other channels do not wait. Meanwhile, their events have partial ids, which end
/// with a dot; a client that resumes from one gets the snapshots again. The snapshot, and the
/// events with which its channel catches up with the others, have no ids. Then a checkpoint with a
/// whole id follows.
///
/// **Closed channels.** When all channels are closed and the client has received everything, the
/// stream ends. If the client then reconnects, it gets a 204, which makes an `EventSource`
/// [stop reconnecting].
///
/// **Runtime.** Poll the body within a tokio runtime. Without one, it delivers what is retained,
/// but is not woken for new events.
///
/// # Panics
///
/// The first poll panics on a runtime that was built without timers (`enable_time`).
///
/// [stop reconnecting]: https://html.spec.whatwg.org/multipage/server-sent-events.html#server-sent-events-intro
// Rules 21, 22, 61, 84 to 95.
pub struct Subscription {
    shared: Arc<Shared>,
    cursors: Vec<Cursor>,
    /// Whether there are several channels, or can be: then gap events have `channels`.
    many: bool,
    beginning: Beginning,
    resumption: Resumption,
    on_gap: OnGap,
    on_lag: OnLag,
    phase: Phase,
    handle: Option<SubscriptionHandle>,
    /// Events up to this id are never replayed.
    not_before: Option<EventId>,
    /// Which id the client has.
    anchor: Anchor,
    /// What is next on each channel with unread events, if there are several.
    queue: Queue,
    /// Chunks that are ready to be sent.
    ready: ChunkQueue,
    /// Set when all channels are closed and their events have been handed out.
    read_to_end: Option<Arc<AtomicBool>>,
    /// Groups the log entries of this stream.
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

enum Phase {
    /// Not polled yet, and not registered anywhere.
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

    /// A stream that ends at once, and whose client reconnects after a few seconds.
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

    /// Sets where a client without an id starts; [`Start::Snapshot`] by default. Has no effect on a
    /// client with an id.
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

    /// Excludes all events up to `id`, whatever id the client sends. Use it to hide the messages
    /// that were sent before a user joined a room.
    ///
    /// A client with an older id resumes after `id`, without a gap before it. Snapshots are not
    /// excluded: the client gets one that contains at least the events up to `id`. An id from an
    /// earlier epoch of the hub excludes nothing.
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
        if let Beginning::After { id: last, .. } = &mut self.beginning
            && last.epoch() == id.epoch()
        {
            *last = id.max(*last);
        }
        self.resumption = self.look_ahead();
        self
    }

    /// Sets what follows a gap; [`OnGap::Snapshot`] by default.
    #[must_use]
    pub fn on_gap(mut self, then: OnGap) -> Self {
        self.on_gap = then;
        self
    }

    /// Sets what happens if this client is too slow; [`OnLag::Gap`] by default.
    #[must_use]
    pub fn on_lag(mut self, then: OnLag) -> Self {
        self.on_lag = then;
        self
    }

    /// How this client resumes, as far as known. Before the body is polled, more events can be
    /// published or evicted; the stream reports those gaps too.
    #[must_use]
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// Returns a handle that adds channels of the hub to this subscription while it is streamed,
    /// removes them, and waits for its end. From then on, gap events have `channels`.
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

    /// Sends a client with an id this id again, before anything else.
    pub(crate) fn announced(mut self) -> Self {
        if let Beginning::After { announce, .. } = &mut self.beginning {
            *announce = true;
        }
        self
    }

    /// Sets `flag` when the stream ends because the client has received everything.
    pub(crate) fn on_read_to_end(mut self, flag: Arc<AtomicBool>) -> Self {
        self.read_to_end = Some(flag);
        self
    }

    /// The next bytes for the client: whole events, or whole lines between events (law 9). `None`
    /// is the end.
    ///
    /// Each turn of the loop sends a chunk that is ready, or makes one ready, or finds nothing left
    /// and sleeps. `advance` reads all channels up to the hub's newest id; everything that can
    /// change afterwards (versions, the handle, the next heartbeat) is checked between storing the
    /// waker and returning `Pending`.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let reader = match &self.phase {
                Phase::Inert => {
                    self.begin();
                    continue;
                }
                Phase::Live(reader) => reader,
                // Chunks that were ready when the stream ended are still sent.
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

            // Nothing is left to send. The order matters from here on: first store the wakers, then
            // check again everything that can have changed. A change after the check finds a waker.
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

    /// Registers the reader, places the cursors, and makes the first chunk ready.
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
        // Set before the wake task is started, which panics on some runtimes: dropping the
        // subscription then still unregisters it.
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
        // In the first chunk, so that a client that gets any bytes also gets its checkpoint (law
        // 4).
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

    /// The id of the checkpoint that a client gets before anything else, if any.
    ///
    /// A client without an id that starts live gets one even if an event follows at once. If it
    /// were cut off within that event, it would return without an id and never receive the event
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
                // The snapshot has an id itself.
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

    /// Makes the next chunk ready. Returns `false` if nothing is left to read.
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
        let up_to = self.anchor.begin_pass(newest);
        if self.read_up_to(up_to) {
            return true;
        }
        match self.anchor.rest(up_to, &mut self.cursors) {
            Rest::Done => false,
            Rest::ReadOn => true,
            Rest::Checkpoint(id) => self.send_checkpoint(id),
        }
    }

    /// Returns whether checkpoints are enabled.
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

    /// Ends the stream and unregisters it everywhere.
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
        let channels: Vec<_> = self.cursors.iter().map(|it| it.channel.name()).collect();
        f.debug_struct("Subscription")
            .field("channels", &channels)
            .field("resumption", &self.resumption)
            .finish_non_exhaustive()
    }
}
