//! [`Channel<T>`]: the typed handle on a log. This folder has logs and cursors, but no HTTP.
//!
//! `state.rs` is one channel, `registry.rs` finds it by name, `clock.rs` draws its ids, `wake.rs`
//! wakes its readers, `heartbeats.rs` says when a heartbeat is due, and `hub.rs` combines many
//! channels.

pub(crate) mod builder;
pub(crate) mod clock;
pub(crate) mod gap;
mod heartbeats;
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

/// How many items [`Channel::forward`] publishes before it yields to other tasks.
const FORWARD_SLICE: usize = 64;

/// Publishes values to any number of clients, each of which resumes after the last id it saw.
///
/// A channel is a bounded log of encoded events. This is a handle on it, cheap to clone. Each value
/// is serialized once, when it is published, however many clients there are. Publishing needs no
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
/// **Slow clients** are only further back in the log. They need no queue and delay no other client.
/// If events are evicted before such a client has read them, it gets a gap event (see
/// [`Subscription`]).
///
/// **Full log**: the log retains the newest events within its limits (see [`ChannelBuilder`]) and
/// evicts older ones. A client that has missed evicted events gets a gap event, and then what is
/// retained.
///
/// **Dropped handles**: when the last handle is dropped, clients stay connected and get heartbeats,
/// because a hub can create new handles, and some channels are only read. To end the streams,
/// [`close`](Channel::close) the channel, or build it with
/// [`close_on_drop`](ChannelBuilder::close_on_drop).
pub struct Channel<T: ?Sized> {
    handle: Publisher,
    encode: Encode<T>,
    values: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Channel<T> {
    /// Creates a stand-alone channel with the defaults of [`ChannelBuilder`].
    ///
    /// ```
    /// let channel = axum_sse::Channel::<str>::new();
    /// assert_eq!(channel.stats().published, 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Configures a stand-alone channel, starting from the defaults.
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

    /// A handle that names events after their variants if the settings say so.
    pub(crate) fn of(handle: ChannelHandle) -> Self {
        let named = handle.shared.settings.named;
        Self::with_names(handle, named)
    }

    pub(crate) fn with_names(handle: ChannelHandle, named: bool) -> Self {
        Self {
            handle: Publisher::new(handle),
            encode: match named {
                true => encode_named,
                false => encode_json,
            },
            values: PhantomData,
        }
    }

    /// Publishes a value as an event.
    ///
    /// The value is serialized first; an error changes nothing and uses no id. Can be called from
    /// any thread, even within a `Serialize` implementation.
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
    /// - [`ErrorKind::Serialize`] if the value cannot be serialized.
    /// - [`ErrorKind::TooLarge`] if the event exceeds [`ChannelBuilder::bytes`].
    /// - [`ErrorKind::Closed`] if the channel has been closed.
    /// - [`ErrorKind::NotPublishable`] if the channel belongs to a
    ///   [`StateChannel`](crate::StateChannel), which must publish instead.
    /// - [`ErrorKind::InvalidName`], always, if the builder got the same name for two of the
    ///   channel's own events.
    /// - On a [`named`](ChannelBuilder::named) channel, the errors of [`Event::named`], and
    ///   [`ErrorKind::InvalidName`] for a variant with the name of the channel's gap, checkpoint or
    ///   snapshot event.
    pub fn publish(&self, value: &T) -> Result<Published, Error> {
        self.check_publisher()?;
        Ok(Published::new(self.append_value(value)?))
    }

    /// Publishes without the check that a [`StateChannel`](crate::StateChannel) does not own the
    /// channel.
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

    /// Publishes every item of `stream` until it ends, and returns their number.
    ///
    /// Does not depend on clients. Yields to other tasks after every 64 items. Dropping the future
    /// stops it between two items.
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
    /// A stream of `Result`s does not compile, because serde would publish its errors:
    ///
    /// ```compile_fail,E0283
    /// # async fn run() {
    /// let numbers = axum_sse::Channel::<Result<u8, String>>::new();
    /// let count = numbers.forward(tokio_stream::iter([Ok(1)])).await;
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of [`publish`](Channel::publish) for the first item that cannot be published.
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
    /// Publishes an [`Event`], for content that is not a serialized value: other text, a separate
    /// name, or empty data. The channel sets its id.
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
    /// [`ErrorKind::NotPublishable`] if the event has an id, a reconnection time or no data, or if
    /// its name is `error` or that of the channel's gap, checkpoint or snapshot event. Otherwise as
    /// for [`publish`](Channel::publish).
    pub fn publish_event(&self, event: &Event) -> Result<Published, Error> {
        self.check_publisher()?;
        self.check(event)?;
        let id = self.append(|out| Ok(event.encode_without_id(out)))?;
        Ok(Published::new(id))
    }

    /// Whether published events cannot have this name: clients would take them for events that only
    /// the channel sends, or that `EventSource` fires itself.
    fn is_reserved(&self, name: &str) -> bool {
        let settings = &self.handle.shared.settings;
        let own = [
            Some(&settings.gap),
            settings.checkpoint.as_ref(),
            // Also the default name: on a connection over several channels, clients would take the
            // event for another channel's snapshot.
            settings.snapshot.as_ref(),
            self.handle.snapshot_name(settings),
            settings.end.as_ref(),
        ];
        let mut own = own.into_iter().flatten().map(EventName::as_str);
        own.any(|own| own == name) || RESERVED.contains(&name)
    }

    /// The state of a `StateChannel` would never include an event that bypasses it.
    fn check_publisher(&self) -> Result<(), Error> {
        if !self.handle.has_state_channel.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NotPublishable,
            format!(
                "{} belongs to a StateChannel: publish through it",
                self.handle.described()
            ),
        ))
    }

    fn check(&self, event: &Event) -> Result<(), Error> {
        let flaw = event.not_publishable().or_else(|| {
            event
                .name_str()
                .is_some_and(|name| self.is_reserved(name))
                .then_some("its name is reserved for the channel or for `EventSource`")
        });
        match flaw {
            None => Ok(()),
            Some(flaw) => Err(Error::new(
                ErrorKind::NotPublishable,
                format!("this event cannot be published to a channel: {flaw}"),
            )),
        }
    }

    /// Subscribes a client that sent `last`, an extracted [`LastEventId`] or an [`EventId`]. It
    /// receives every event after that id, or a gap event first, and then live events. See
    /// [`Subscription`].
    ///
    /// If a handler also reads state for the client, it should do so after this call. If each
    /// change is committed before it is published, the state and the stream together then miss
    /// nothing.
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

    /// Closes the channel, after one `last` event if given, on which a page can call `close()`.
    /// Returns the result of publishing `last`. No other event can be published in between, nor
    /// afterwards.
    ///
    /// Subscribers receive the remaining events, and then their streams end. A client that returns
    /// with nothing left to receive gets a 204, which makes an `EventSource` [stop reconnecting].
    ///
    /// A closed channel of a hub is kept for a while (see
    /// [`retire_after`](crate::HubBuilder::retire_after)) and for as long as it has handles or
    /// subscriptions. Then it is retired, with its events and its snapshot, and its name is free
    /// for a new channel.
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
    /// [`ErrorKind::Closed`] if the channel is already closed. The errors of
    /// [`publish_event`](Channel::publish_event) for `last`; the channel then stays open.
    ///
    /// [stop reconnecting]: https://html.spec.whatwg.org/multipage/server-sent-events.html#server-sent-events-intro
    pub fn close(&self, last: Option<&Event>) -> Result<Option<Published>, Error> {
        if let Some(last) = last {
            self.check(last)?;
        }
        Ok(self.end_with(last)?.map(Published::new))
    }

    /// Closes the channel after an event that can have a reserved name.
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

    /// Statistics of this channel.
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

    /// Sets an async function that returns the state that the channel's events change, and the id
    /// of the last event that the state contains. New clients, and clients with a gap, receive that
    /// state first, as an event with that id, and then every event after it.
    ///
    /// The state must contain all events of this channel up to that id, and none after it.
    /// [`StateChannel`](crate::StateChannel) guarantees that.
    ///
    /// The function is called when a client needs the state, once for all clients that need it at
    /// the same time. Later clients get the same snapshot and the events after it, as long as the
    /// channel retains these and they stay few: up to half of the channel's limits, and no more
    /// bytes than the state has (or 64 KiB). So clients can miss a change of the state that has no
    /// event.
    ///
    /// If the function fails, or exceeds [`snapshot_timeout`](ChannelBuilder::snapshot_timeout),
    /// the streams that wait for it end, and their clients reconnect. The same happens to a client
    /// for which two snapshots in a row come too late.
    ///
    /// Do not capture the channel in the function. The channel owns the function, so neither would
    /// ever be dropped.
    ///
    /// A hub does not retire a channel with a snapshot while it is open, because the function would
    /// be lost; it counts towards [`max_channels`](crate::HubBuilder::max_channels). Its events are
    /// still evicted.
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
    /// [`ErrorKind::HasSnapshot`] if the channel already has a snapshot.
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

    /// Like [`snapshot`](Channel::snapshot), for a function that does not know the id. The newest
    /// id is read before the function is called, so an event that is published meanwhile can be in
    /// the state and also follow it.
    ///
    /// Commit each change before you publish it. Clients then get each change at least once;
    /// otherwise a change can be missing both from the state and from the events after it.
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
                format!("{} already has a snapshot", self.handle.described()),
            )
        })
    }

    /// Names this channel's snapshot events, instead of [`ChannelBuilder::snapshot_name`]. With
    /// `None` they have no name and reach `onmessage`.
    ///
    /// This lets a page over several channels distinguish their snapshots. Set the name before
    /// clients connect; it cannot be changed later. Only this channel reserves it, so choose a name
    /// that the other channels of the page do not use for events.
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
    /// [`ErrorKind::InvalidName`] if the channel's gap, checkpoint or heartbeat event has that
    /// name, or if another name is already set.
    pub fn set_snapshot_name(&self, name: impl Into<Option<EventName>>) -> Result<(), Error> {
        let name = name.into();
        let settings = &self.handle.shared.settings;
        let named = settings::Settings {
            snapshot: name.clone(),
            ..settings.clone()
        };
        let refused = |why: &str| {
            let message = format!("snapshot name of {}: {why}", self.handle.described());
            Err(Error::new(ErrorKind::InvalidName, message))
        };
        if let Some(conflict) = named.name_conflict() {
            return refused(&conflict);
        }
        match self.handle.snapshot_name.get_or_init(|| name.clone()) == &name {
            true => Ok(()),
            false => refused("another name is already set"),
        }
    }

    /// From now on, only the channel's [`StateChannel`](crate::StateChannel) can publish.
    pub(crate) fn give_to_state_channel(&self) {
        self.handle.has_state_channel.store(true, Ordering::Relaxed);
    }

    /// The newest id drawn on any channel of this channel's hub.
    pub(crate) fn hub_newest(&self) -> EventId {
        self.handle.shared.clock.newest()
    }

    /// The id of the newest event, or of the start if there is none.
    ///
    /// If each change is committed before it is published, state that is read after this call
    /// contains every event up to this id.
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

/// Counts the publishing handles: the channel can close when the last one is dropped.
struct Publisher(ChannelHandle);

impl Publisher {
    fn new(handle: ChannelHandle) -> Self {
        handle.publishers.fetch_add(1, Ordering::AcqRel);
        Self(handle)
    }
}

impl Deref for Publisher {
    type Target = ChannelHandle;

    fn deref(&self) -> &ChannelHandle {
        &self.0
    }
}

impl Clone for Publisher {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let left = self.publishers.fetch_sub(1, Ordering::AcqRel) - 1;
        let shared = &self.0.shared;
        if left == 0 && shared.settings.close_on_drop {
            // An error means that it is already closed.
            let _ = self
                .0
                .close(None, shared.now(), &shared.clock, &shared.wake);
        }
    }
}

/// The capacity up to which a thread keeps its buffer for the next publish.
const KEPT_BUFFER: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends this thread's buffer, empty. It is taken out of the thread local meanwhile, so a
/// `Serialize` that publishes gets a new one (law 8).
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
