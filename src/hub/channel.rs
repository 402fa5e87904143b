//! [`Channel<T>`]: the typed handle on one log.

use std::{cell::Cell, fmt, future::poll_fn, marker::PhantomData, pin::pin, task::Poll};

use futures_core::Stream;
use serde::Serialize;

use super::{Shared, builder::Builder, core::Core};
use crate::{
    error::{Error, ErrorKind},
    event::Event,
    frame::IdPlace,
    id::EventId,
    last_event_id::LastEventId,
    payload::{Encode, NotAResult, encode_named, sealed::Encode as _},
    subscription::Subscription,
    sync::Arc,
};

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
/// let prices = Channel::new();
/// let app: Router = Router::new().route("/prices", get(prices_handler())).with_state(prices.clone());
/// # fn prices_handler() -> impl axum::handler::Handler<((), State<Channel<Price>>, LastEventId), Channel<Price>> { prices }
/// let first = prices.publish(&Price { cents: 1205 })?;
/// let second = prices.publish(&Price { cents: 1206 })?;
/// assert!(first < second);
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// **Slow**: a client that reads slowly is a cursor that lies further behind. It costs no queue
/// and holds nobody up. If the log moves on without it, the client gets a gap event (see
/// [`Subscription`]).
///
/// **Full**: the log holds the newest events within its bounds (see [`Builder`]); older ones are
/// forgotten. A client that comes back for them gets a gap event, and then what is retained.
pub struct Channel<T: ?Sized> {
    shared: Arc<Shared>,
    core: Arc<Core>,
    encode: Encode<T>,
    values: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Channel<T> {
    /// A channel of its own, with the defaults of [`Builder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts from the defaults and sets what differs.
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }

    pub(crate) fn of(shared: Arc<Shared>, core: Arc<Core>) -> Self {
        Self {
            shared,
            core,
            encode: |value, out| value.encode(out),
            values: PhantomData,
        }
    }

    /// From here on, this handle (and its clones) publishes each value as an event that bears
    /// the name of its enum variant, as [`Event::named`] does. Clients and other handles are
    /// not concerned.
    #[must_use]
    pub fn named(mut self) -> Self {
        self.encode = encode_named;
        self
    }

    /// Appends one value as an event, and returns its id.
    ///
    /// The value is serialised before anything else happens; an error leaves no trace. May be
    /// called from any thread, and from within a `Serialize`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if the value cannot be serialised, [`ErrorKind::TooLarge`] if it
    /// alone is more than the channel may hold; on a [`named`](Channel::named) handle also the
    /// errors of [`Event::named`]. A refused publish uses up no id.
    pub fn publish<Kind>(&self, value: &T) -> Result<EventId, Error>
    where
        T: NotAResult<Kind>,
    {
        self.append(|out| (self.encode)(value, out))
    }

    /// Publishes every item of `stream` until it ends, and returns how many there were.
    ///
    /// Goes on whatever clients do, and lets other tasks run after every 64 items. Dropping the
    /// future cancels it between two items.
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
            yield_now().await;
        }
    }
}

impl<T: ?Sized> Channel<T> {
    /// Appends an [`Event`] of any content: text, a name of its own, empty data. The channel
    /// gives it its id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotPublishable`] if the event has an id or a reconnection time, carries no
    /// data, or bears the name of the channel's gap or checkpoint event, which only the channel
    /// may send. [`ErrorKind::TooLarge`] as for [`publish`](Channel::publish).
    pub fn publish_event(&self, event: &Event) -> Result<EventId, Error> {
        let settings = &self.shared.settings;
        let own = |name: &str| {
            name == settings.gap.as_str()
                || settings.checkpoint.as_ref().is_some_and(|own| name == own.as_str())
        };
        let flaw = event.unfit_for_a_channel().or_else(|| {
            event
                .name_str()
                .is_some_and(own)
                .then_some("it bears a name that only the channel itself may send")
        });
        if let Some(flaw) = flaw {
            return Err(Error::new(
                ErrorKind::NotPublishable,
                format!("this event cannot be published to a channel: {flaw}"),
            ));
        }
        self.append(|out| Ok(event.encode_without_id(out)))
    }

    /// A subscription for the client that brings `last`: everything behind that id, or a gap
    /// event, and then live. See [`Subscription`].
    ///
    /// Takes a [`LastEventId`] as extracted, or an [`EventId`].
    #[must_use]
    pub fn subscribe(&self, last: impl Into<LastEventId>) -> Subscription {
        Subscription::new(self.shared.clone(), vec![self.core.clone()], last.into())
    }

    /// The id of the newest event, or of the start if there is none.
    #[must_use]
    pub fn newest(&self) -> EventId {
        self.core.lock().newest()
    }

    fn append(
        &self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<IdPlace, Error>,
    ) -> Result<EventId, Error> {
        with_buffer(|buffer| {
            let place = encode(buffer)?;
            let Shared { clock, wake, .. } = &*self.shared;
            self.core.publish(buffer, place, self.shared.now(), clock, wake)
        })
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

/// tokio's `yield_now`, for any runtime: `forward` is plain code of its caller's.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<T: ?Sized> Clone for Channel<T> {
    fn clone(&self) -> Self {
        let Self {
            shared,
            core,
            encode,
            values,
        } = self;
        Self {
            shared: shared.clone(),
            core: core.clone(),
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
            .field("name", &self.core.name())
            .field("newest", &self.newest())
            .finish_non_exhaustive()
    }
}
