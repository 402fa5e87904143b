//! [`Channel<T>`]: the typed handle on one log. The folder: one log, many cursors; no HTTP.
//!
//! `state.rs` is one channel, `registry.rs` finds it by name, `clock.rs` draws its ids, `wake.rs`
//! wakes its readers, and `hub.rs` holds many channels together.

pub(crate) mod builder;
pub(crate) mod clock;
pub(crate) mod gap;
pub(crate) mod hub;
pub(crate) mod log;
#[cfg(feature = "metrics")]
mod metrics;
pub(crate) mod published;
mod registry;
mod rounds;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod subscription;
#[cfg(all(test, axum_sse_loom))]
mod tests {
    mod loom;
}
pub(crate) mod wake;

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    ops::Deref,
    pin::pin,
};

use futures_core::Stream;
use serde::Serialize;

use crate::{
    error::{BoxError, Error, ErrorKind},
    event::{
        Event, EventId, EventName, NotAResult,
        encode::IdOffset,
        id::quoted,
        payload::{Encode, encode_json, encode_named},
    },
    last_event_id::LastEventId,
    sync::{Arc, Ordering},
};
use builder::ChannelBuilder;
use published::Published;
use settings::RESERVED;
use shared::Shared;
use snapshot::{Snapshots, State};
use state::{ChannelHandle, EncodedEvent};
use stats::Stats;
use subscription::Subscription;
use wake::yield_fairly;

/// How many items [`Channel::forward`] takes from its source before other tasks get a turn.
const FORWARD_SLICE: usize = 64;

/// A channel: publish values from anywhere, and every client resumes from its `Last-Event-ID`.
///
/// A cheap-to-clone handle on one bounded log of events that are already framed. A value is
/// serialised once, when it is published, however many clients there are. Publishing needs no
/// runtime, never waits for a client, and costs the same with one subscriber as with 100,000.
///
/// ```
/// use axum::{Router, extract::State, response::IntoResponse, routing::get};
/// use axum_sse::{Channel, LastEventId};
///
/// #[derive(serde::Serialize)]
/// struct Price { cents: u64 }
///
/// async fn prices(State(prices): State<Channel<Price>>, last: LastEventId) -> impl IntoResponse {
///     prices.subscribe(last)
/// }
///
/// let channel = Channel::new();
/// let app: Router = Router::new().route("/prices", get(prices)).with_state(channel.clone());
/// channel.publish(&Price { cents: 1205 })?;
/// channel.publish(&Price { cents: 1206 })?;
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// **Slow**: a client that reads slowly is a cursor that lies further behind. It costs no queue
/// and holds nobody up. If the log moves on without it, the client gets a gap event (see
/// [`Subscription`]).
///
/// **Full**: the log holds the newest events within its bounds (see [`ChannelBuilder`]); older ones are
/// forgotten. A client that comes back for them gets a gap event, and then what is retained.
///
/// **Dropped**: clients stay connected when the last handle is dropped, and get heartbeats until
/// they leave, since another handle may be made (of a hub), or the channel may only be read. To
/// end their streams, [`close`](Channel::close) it, or let the builder do that
/// ([`close_on_drop`](ChannelBuilder::close_on_drop)).
pub struct Channel<T: ?Sized> {
    handle: Handle,
    encode: Encode<T>,
    values: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Channel<T> {
    /// A channel of its own, with the defaults of [`ChannelBuilder`].
    ///
    /// ```
    /// let channel = axum_sse::Channel::<str>::new();
    /// assert_eq!(channel.stats().published, 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts from the defaults and sets what differs.
    ///
    /// ```
    /// use axum_sse::Channel;
    ///
    /// let channel: Channel<u64> = Channel::builder().capacity(100).build();
    /// # let _ = channel;
    /// ```
    pub fn builder() -> ChannelBuilder<T> {
        ChannelBuilder::new()
    }

    /// A handle that publishes as the settings say.
    pub(crate) fn of(handle: ChannelHandle) -> Self {
        let named = handle.shared.settings.named;
        Self::with_names(handle, named)
    }

    pub(crate) fn with_names(handle: ChannelHandle, named: bool) -> Self {
        Self {
            handle: Handle::new(handle),
            encode: match named {
                true => encode_named,
                false => encode_json,
            },
            values: PhantomData,
        }
    }

    /// Appends one value as an event.
    ///
    /// The value is serialised before anything else happens; an error leaves no trace. May be
    /// called from any thread, and from within a `Serialize`.
    ///
    /// ```
    /// let numbers = axum_sse::Channel::new();
    /// let published = numbers.publish(&7)?;
    /// assert_eq!(published.id(), Some(numbers.newest()));
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if the value cannot be serialised, [`ErrorKind::TooLarge`] if it
    /// alone is more than the channel may hold, [`ErrorKind::Closed`] if the channel has been
    /// closed. On a [`named`](ChannelBuilder::named) channel also the errors of [`Event::named`], and
    /// [`ErrorKind::InvalidName`] for a variant that has a reserved name: `error`, `open`, or
    /// that of the channel's own gap, checkpoint or snapshot event. A refused publish uses up no
    /// id.
    ///
    /// [`ErrorKind::NotPublishable`] if the channel belongs to a [`StateChannel`](crate::StateChannel), which
    /// has to publish instead. [`ErrorKind::InvalidName`] on every publish if the builder was
    /// given one name for two of the channel's own events.
    pub fn publish(&self, value: &T) -> Result<Published, Error> {
        self.check_publisher()?;
        Ok(Published::new(self.append_value(value)?))
    }

    /// What [`publish`](Channel::publish) does once it is known who publishes. A [`StateChannel`]
    /// calls it on the channel that it owns.
    ///
    /// [`StateChannel`]: crate::StateChannel
    pub(crate) fn append_value(&self, value: &T) -> Result<EventId, Error> {
        self.append(|out| {
            let encoded = (self.encode)(value, out)?;
            match &encoded.name {
                Some(name) if self.is_reserved(name.as_str()) => Err(Error::new(
                    ErrorKind::InvalidName,
                    format!(
                        "event name {} is reserved for the channel",
                        quoted(name.as_str())
                    ),
                )),
                _ => Ok(encoded.id_offset),
            }
        })
    }

    /// Publishes every item of `stream` until it ends, and returns how many there were.
    ///
    /// Goes on whatever clients do, and lets other tasks run after every 64 items. Dropping the
    /// future cancels it between two items.
    ///
    /// ```
    /// # use axum_sse::Channel;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let numbers = Channel::new();
    /// assert_eq!(numbers.forward(tokio_stream::iter(1..=3)).await?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Stops at the first item that cannot be published, with the error of
    /// [`publish`](Channel::publish).
    pub async fn forward<S, Kind>(&self, stream: S) -> Result<u64, Error>
    where
        T: NotAResult<Kind> + Sized,
        S: Stream<Item = T>,
    {
        let mut stream = pin!(stream);
        let mut published = 0;
        loop {
            for _ in 0..FORWARD_SLICE {
                match poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
                    None => return Ok(published),
                    Some(value) => self.publish(&value)?,
                };
                published += 1;
            }
            yield_fairly().await;
        }
    }
}

impl<T: ?Sized> Channel<T> {
    /// Appends an [`Event`] of any content: text, a name of its own, empty data. The channel
    /// gives it its id.
    ///
    /// ```
    /// use axum_sse::{Channel, Event, event_name};
    ///
    /// let tokens = Channel::<String>::new();
    /// tokens.publish_event(&Event::text("[DONE]")?.with_name(event_name!("done")))?;
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotPublishable`] if the event has an id or a reconnection time, carries no
    /// data, or has a reserved name: `error`, `open`, or that of the channel's gap, checkpoint or
    /// snapshot event, which only the channel may send. The others are those of
    /// [`publish`](Channel::publish).
    pub fn publish_event(&self, event: &Event) -> Result<Published, Error> {
        self.check_publisher()?;
        self.check(event)?;
        let id = self.append(|out| Ok(event.encode_without_id(out)))?;
        Ok(Published::new(id))
    }

    /// Whether nobody may publish events of that name: a gap or a state would be forged, and an
    /// `EventSource` fires `error` and `open` itself.
    fn is_reserved(&self, name: &str) -> bool {
        let settings = &self.handle.shared.settings;
        let own = [
            Some(&settings.gap),
            settings.checkpoint.as_ref(),
            // Both: on one connection, it would be taken for that of another channel.
            settings.snapshot.as_ref(),
            self.handle.snapshot_name(settings),
            settings.end.as_ref(),
        ];
        let mut own = own.into_iter().flatten().map(EventName::as_str);
        own.any(|own| own == name) || RESERVED.contains(&name)
    }

    /// An event published past its `StateChannel` would be missing from the state for ever.
    fn check_publisher(&self) -> Result<(), Error> {
        if !self.handle.has_state_channel.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = self.handle.name();
        Err(Error::new(
            ErrorKind::NotPublishable,
            format!("channel {name:?} belongs to a StateChannel: publish through it"),
        ))
    }

    fn check(&self, event: &Event) -> Result<(), Error> {
        let flaw = event.unfit_for_a_channel().or_else(|| {
            event
                .name_str()
                .is_some_and(|name| self.is_reserved(name))
                .then_some("its name is reserved for the channel or for browsers")
        });
        match flaw {
            None => Ok(()),
            Some(flaw) => Err(Error::new(
                ErrorKind::NotPublishable,
                format!("this event cannot be published to a channel: {flaw}"),
            )),
        }
    }

    /// A subscription for the client that brings `last`: everything behind that id, or a gap
    /// event, and then live. See [`Subscription`].
    ///
    /// Takes a [`LastEventId`] as extracted, or an [`EventId`].
    ///
    /// State that is read after this call has no hole between it and the stream, as long as each
    /// change is committed first and published then.
    ///
    /// ```
    /// # use axum_sse::{Channel, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let numbers = Channel::new();
    /// let seen = numbers.publish(&1)?.await?;
    /// numbers.publish(&2)?;
    /// let mut page = Reader::new(numbers.subscribe(seen));
    /// assert_eq!(page.next_message().await.data, "2");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe(&self, last: impl Into<LastEventId>) -> Subscription {
        Subscription::new(
            self.handle.shared.clone(),
            vec![self.handle.0.clone()],
            last.into(),
        )
    }

    /// Closes the channel, behind one `last` event if there is one (on which a page can call
    /// `close()`). Both happen under one lock: nothing comes in between, and nothing after.
    /// Returns the last event's id.
    ///
    /// Subscribers get the rest and then the end. Clients that come back are told by a 204 not
    /// to, once nothing is left for them: that is the standard's way to stop an `EventSource`.
    /// A closed channel of a hub stays known for a while after it was closed, whether somebody
    /// asks for it or not (see [`retire_after`](crate::HubBuilder::retire_after)), and for as long as a
    /// handle or a subscription holds it. Then it is retired with its events and its snapshot,
    /// and its name is free for a new channel.
    ///
    /// ```
    /// # use axum_sse::{Channel, Event, LastEventId, event_name, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let channel = Channel::<u64>::new();
    /// let mut page = Reader::new(channel.subscribe(LastEventId::Absent));
    /// channel.close(Some(&Event::empty().with_name(event_name!("close"))))?;
    /// assert!(channel.is_closed());
    /// page.expect_named("checkpoint").await;
    /// page.expect_named("close").await;
    /// page.expect_end().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] if it is closed already; for `last` those of
    /// [`publish_event`](Channel::publish_event), and then the channel stays open.
    pub fn close(&self, last: Option<&Event>) -> Result<Option<Published>, Error> {
        if let Some(last) = last {
            self.check(last)?;
        }
        Ok(self.end_with(last)?.map(Published::new))
    }

    /// Closes the channel after an event that may have one of the channel's own names.
    pub(crate) fn end_with(&self, last: Option<&Event>) -> Result<Option<EventId>, Error> {
        let Shared { clock, wake, .. } = &*self.handle.shared;
        let now = self.handle.shared.now();
        let mut bytes = Vec::new();
        let last = last.map(|event| {
            let id_offset = event.encode_without_id(&mut bytes);
            EncodedEvent {
                bytes: &mut bytes,
                id_offset,
            }
        });
        self.handle.close(last, now, clock, wake)
    }

    /// Whether the channel has been closed.
    ///
    /// ```
    /// let channel = axum_sse::Channel::<u64>::new();
    /// assert!(!channel.is_closed());
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Figures of this channel.
    ///
    /// ```
    /// let channel = axum_sse::Channel::new();
    /// channel.publish(&1)?;
    /// assert_eq!(channel.stats().events, 1);
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let log = self.handle.lock();
        let (events, bytes) = log.retained();
        let published = log.end();
        drop(log);
        let mut stats = Stats {
            channels: 1,
            subscribers: self.handle.readers(),
            events,
            bytes,
            published,
            lag: self.handle.lag(),
            ..Stats::default()
        };
        self.handle.counters.read_into(&mut stats);
        stats
    }

    /// Gives the channel a snapshot: an async function that returns the state which the events
    /// change, and the id that it stands at. New clients, and clients with a gap, first get that
    /// state, as an event with that id, and then every event behind it.
    ///
    /// The id must be one up to which the state contains every event of this channel, and none
    /// behind; [`StateChannel`](crate::StateChannel) gets that right without thinking.
    ///
    /// The function is called when a client needs it, once for all who need it at the same time.
    /// What it returns is also given to clients that come later, with the events that follow it,
    /// as long as the channel retains those and they are not too many (half of what it may retain,
    /// or more bytes than the state). So a state that changes without an event is out of date.
    /// If the function fails, or takes longer than
    /// [`snapshot_timeout`](ChannelBuilder::snapshot_timeout), the streams that wait for it end, and
    /// their clients come back. So does a client for which two in a row came too late.
    ///
    /// Do not capture the channel in the function: it is kept by the channel.
    ///
    /// In a hub, a channel with a snapshot counts as held until it is closed: it is never retired,
    /// which would lose the function, and takes one of
    /// [`max_channels`](crate::HubBuilder::max_channels). Its events still grow too old.
    ///
    /// ```
    /// # use axum_sse::{BoxError, Channel, LastEventId, testing::Reader};
    /// # use std::sync::{Arc, Mutex};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let channel = Channel::<u64>::new();
    /// // The id of the last event that is in the sum, and the sum.
    /// let sum = Arc::new(Mutex::new((channel.newest(), 0)));
    /// let for_snapshot = sum.clone();
    /// channel.snapshot(move || {
    ///     let sum = *for_snapshot.lock().unwrap();
    ///     async move { Ok::<_, BoxError>(sum) }
    /// })?;
    /// {
    ///     let mut sum = sum.lock().unwrap();
    ///     channel.publish(&41)?;
    ///     *sum = (channel.newest(), sum.1 + 41);
    /// }
    /// let mut page = Reader::new(channel.subscribe(LastEventId::Absent));
    /// assert_eq!(page.expect_named("snapshot").await.data, "41");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::HasSnapshot`] if the channel has one already.
    pub fn snapshot<S, F, Making, E>(&self, make: F) -> Result<(), Error>
    where
        S: Serialize,
        F: Fn() -> Making + Send + Sync + 'static,
        Making: Future<Output = Result<(EventId, S), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.set_snapshots(Snapshots::new(move || {
            let making = make();
            Box::pin(async move {
                let (id, state) = making.await.map_err(Into::into)?;
                Ok(State::of(id, &state)?)
            })
        }))
    }

    /// The same for a function that does not know an id: the channel's position is read before
    /// it is called. So an event that is published meanwhile may be in the state *and* follow
    /// it: clients get each change at least once, as long as each change is committed before it
    /// is published. One that is published first may be missing in the state and not follow it.
    ///
    /// ```
    /// # use axum_sse::{BoxError, Channel, LastEventId, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let channel = Channel::<u64>::new();
    /// channel.snapshot_at_least_once(async || Ok::<_, BoxError>("what a query has found"))?;
    /// let mut page = Reader::new(channel.subscribe(LastEventId::Absent));
    /// assert_eq!(page.expect_named("snapshot").await.data, r#""what a query has found""#);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`snapshot`](Channel::snapshot).
    pub fn snapshot_at_least_once<S, F, Making, E>(&self, make: F) -> Result<(), Error>
    where
        S: Serialize,
        F: Fn() -> Making + Send + Sync + 'static,
        Making: Future<Output = Result<S, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let shared = Arc::downgrade(&self.handle.shared);
        self.set_snapshots(Snapshots::new(move || {
            let id = shared.upgrade().map(|shared| shared.clock.newest());
            let making = make();
            Box::pin(async move {
                let id = id.ok_or("the channel is gone")?;
                let state = making.await.map_err(Into::into)?;
                Ok(State::of(id, &state)?)
            })
        }))
    }

    pub(crate) fn set_snapshots(&self, snapshots: Snapshots) -> Result<(), Error> {
        self.handle.snapshots.set(snapshots).map_err(|_| {
            Error::new(
                ErrorKind::HasSnapshot,
                format!("channel {:?} has a snapshot already", self.handle.name()),
            )
        })
    }

    /// Names this channel's snapshot event, in place of
    /// [`ChannelBuilder::snapshot_name`]; `None` sends it to `onmessage`.
    ///
    /// So a page on several channels with snapshots can tell them apart. To be set before clients
    /// come, and once: a later call is an error unless it says the same. Only this channel keeps
    /// others from publishing events of that name; choose one that no channel of the same page uses.
    ///
    /// ```
    /// # use axum_sse::{BoxError, Channel, Hub, LastEventId, event_name, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
    /// let hub = Hub::new();
    /// let prices: Channel<u64> = hub.channel("prices")?;
    /// prices.set_snapshot_name(event_name!("prices"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if it is the name of the channel's gap, checkpoint or heartbeat
    /// event, or another name was set before.
    pub fn set_snapshot_name(&self, name: impl Into<Option<EventName>>) -> Result<(), Error> {
        let name = name.into();
        let settings = &self.handle.shared.settings;
        let named = settings::Settings {
            snapshot: name.clone(),
            ..settings.clone()
        };
        let refused = |why: &str| {
            let channel = self.handle.name();
            let message = format!("snapshot name of channel {channel:?}: {why}");
            Err(Error::new(ErrorKind::InvalidName, message))
        };
        if let Some(conflict) = named.name_conflict() {
            return refused(&conflict);
        }
        match self.handle.snapshot_name.get_or_init(|| name.clone()) == &name {
            true => Ok(()),
            false => refused("another one was set before"),
        }
    }

    /// From now on only the channel's board may publish.
    pub(crate) fn give_to_state_channel(&self) {
        self.handle.has_state_channel.store(true, Ordering::Relaxed);
    }

    /// The newest id of all channels of this one's hub.
    pub(crate) fn hub_newest(&self) -> EventId {
        self.handle.shared.clock.newest()
    }

    /// The id of the newest event, or of the start if there is none.
    ///
    /// A state that is read afterwards contains every event up to it, as long as each change is
    /// committed first and published then.
    ///
    /// ```
    /// let channel = axum_sse::Channel::new();
    /// assert_eq!(channel.newest().sequence(), 0);
    /// assert_eq!(channel.publish(&1)?.id(), Some(channel.newest()));
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    #[must_use]
    pub fn newest(&self) -> EventId {
        self.handle.lock().newest()
    }

    fn append(
        &self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<IdOffset, Error>,
    ) -> Result<EventId, Error> {
        if let Some(conflict) = &self.handle.shared.name_conflict {
            return Err(Error::new(ErrorKind::InvalidName, conflict.as_str()));
        }
        with_buffer(|buffer| {
            let id_offset = encode(buffer)?;
            let Shared { clock, wake, .. } = &*self.handle.shared;
            let event = EncodedEvent {
                bytes: buffer,
                id_offset,
            };
            self.handle
                .publish(event, self.handle.shared.now(), clock, wake)
        })
    }
}

#[cfg(test)]
impl<T: ?Sized> Channel<T> {
    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

/// What makes a handle of those that publish: with the last of them the channel may close.
struct Handle(ChannelHandle);

impl Handle {
    fn new(handle: ChannelHandle) -> Self {
        handle.publishers.fetch_add(1, Ordering::AcqRel);
        Self(handle)
    }
}

impl Deref for Handle {
    type Target = ChannelHandle;

    fn deref(&self) -> &ChannelHandle {
        &self.0
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let left = self.publishers.fetch_sub(1, Ordering::AcqRel) - 1;
        let shared = &self.0.shared;
        if left == 0 && shared.settings.close_on_drop {
            // An error says that it has been closed before.
            let _ = self
                .0
                .close(None, shared.now(), &shared.clock, &shared.wake);
        }
    }
}

/// The largest buffer that a thread keeps for its next publish.
const KEPT_BUFFER: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends this thread's buffer, empty. It is out of its place meanwhile: a `Serialize` that
/// publishes gets a new one (law 8).
fn with_buffer<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = work(&mut buffer);
    if buffer.capacity() <= KEPT_BUFFER {
        BUFFER.set(buffer);
    }
    result
}

impl<T: ?Sized> Clone for Channel<T> {
    fn clone(&self) -> Self {
        let Self {
            handle,
            encode,
            values,
        } = self;
        Self {
            handle: handle.clone(),
            encode: *encode,
            values: *values,
        }
    }
}

impl<T: Serialize + ?Sized> Default for Channel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.handle.name())
            .field("newest", &self.newest())
            .finish_non_exhaustive()
    }
}
