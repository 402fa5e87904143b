//! [`Limits`]: how many streams may be open at once, and what requests over the limit get.

use std::{collections::HashMap, fmt, time::Duration};

use http::request::Parts;

use crate::{
    event::retry,
    sync::{Arc, AtomicUsize, Mutex, Ordering, lock},
};

type KeyOf = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// How many streams may be open at once, in total and for each key, such as an address or a user.
///
/// Requests over the limit get an empty 200 stream with a `retry`, since an `EventSource` does not
/// reconnect after any other status. Other clients can get [an error status](Limits::refuse)
/// instead.
///
/// Clones share their counts: give one clone to [`SseLayer::limits`](crate::SseLayer::limits) and
/// read [`open`](Limits::open) from another. Without any limit, streams are only counted.
///
/// ```
/// use axum_sse::{SseLayer, layer::Limits};
///
/// let limits = Limits::new().total(10_000).per_key(6, |request| {
///     // The client must not be able to choose the key: this header is set by our own proxy.
///     let address = request.headers.get("x-real-ip")?;
///     Some(address.to_str().ok()?.to_owned())
/// });
/// let layer = SseLayer::new().limits(limits.clone());
/// assert_eq!((limits.open(), limits.keys()), (0, 0));
/// # let _ = layer;
/// ```
///
/// A slot is taken when the handler has answered with an event stream, and is free again when the
/// stream has ended or its client has disconnected. HEAD takes no slot. The memory used is bounded
/// by the keys of the open streams.
#[derive(Clone)]
#[must_use]
pub struct Limits {
    total: usize,
    per_key: usize,
    key_of: Option<Arc<KeyOf>>,
    refuse: bool,
    pub(super) before_handler: bool,
    pub(super) answer_within: Duration,
    return_after: Duration,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    total: AtomicUsize,
    keys: Mutex<HashMap<Arc<str>, usize>>,
}

impl Limits {
    /// Counts streams without a limit.
    pub fn new() -> Self {
        Self {
            total: usize::MAX,
            per_key: usize::MAX,
            key_of: None,
            refuse: false,
            before_handler: false,
            answer_within: Duration::from_secs(30),
            return_after: Duration::from_secs(5),
            counts: Arc::default(),
        }
    }

    /// At most `n` streams in total.
    pub fn total(mut self, n: usize) -> Self {
        self.total = n;
        self
    }

    /// At most `n` streams for each key. `key_of` is called before the handler runs; if it returns
    /// `None`, only the total limit applies.
    ///
    /// Behind a proxy, the peer's address is that of the proxy, so all clients would have the same
    /// key. A header that clients can set themselves (`X-Forwarded-For` as received) limits no one.
    pub fn per_key<F>(mut self, n: usize, key_of: F) -> Self
    where
        F: Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    {
        self.per_key = n;
        self.key_of = Some(Arc::new(key_of));
        self
    }

    /// Answers requests over the limit with 429 (per key) or 503 (total) and `Retry-After`. An
    /// `EventSource` never reconnects after such a status, so use this only for clients that
    /// handle it.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use axum_sse::{Sse, SseLayer, layer::Limits, testing::Client};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let layer = SseLayer::new().limits(Limits::new().total(1).refuse());
    /// let app: Router = Router::new()
    ///     .route("/events", get(async || Sse::new(tokio_stream::pending::<u64>())))
    ///     .route_layer(layer);
    /// let client = Client::new(app);
    /// let _first = client.get("/events").await.unwrap();
    /// assert_eq!(client.get("/events").await.unwrap_err().status(), 503);
    /// # }
    /// ```
    pub fn refuse(mut self) -> Self {
        self.refuse = true;
        self
    }

    /// Takes the slot before the handler runs, so that requests over the limit cost nothing. Every
    /// request except HEAD and OPTIONS then counts until it has been answered, whether with a
    /// stream or not, and for at most [`answer_within`](Limits::answer_within).
    ///
    /// ```
    /// use axum_sse::layer::Limits;
    ///
    /// let limits = Limits::new().total(100).before_handler();
    /// # let _ = limits;
    /// ```
    pub fn before_handler(mut self) -> Self {
        self.before_handler = true;
        self
    }

    /// With [`before_handler`](Limits::before_handler), how long a request may hold its slot until
    /// the handler has answered: 30 s by default. Without this bound, clients that never send
    /// their request body could lock out all others. After that time the handler's future is
    /// dropped, the slot is free, and the request is answered like one over the limit: with an
    /// empty stream or, with [`refuse`](Limits::refuse), with 503. Has no effect without
    /// `before_handler`.
    ///
    /// ```
    /// use axum_sse::layer::Limits;
    /// use std::time::Duration;
    ///
    /// let limits = Limits::new().total(100).before_handler().answer_within(Duration::from_secs(5));
    /// # let _ = limits;
    /// ```
    pub fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    /// When clients over the limit should come back: after a random time between once and twice
    /// `time`. An `EventSource` uses that time for all later reconnects, until a stream sends it
    /// another one (`Channel::builder().retry`), so a long time has a lasting effect. 5 s by
    /// default, clamped to 500 ms to 24 hours.
    ///
    /// ```
    /// use axum_sse::layer::Limits;
    /// use std::time::Duration;
    ///
    /// let limits = Limits::new().total(100).return_after(Duration::from_secs(20));
    /// # let _ = limits;
    /// ```
    pub fn return_after(mut self, time: Duration) -> Self {
        self.return_after = time.clamp(retry::MIN, retry::MAX);
        self
    }

    /// The number of open streams.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// The number of keys with an open stream.
    #[must_use]
    pub fn keys(&self) -> usize {
        lock(&self.counts.keys).len()
    }

    pub(super) fn key(&self, request: &Parts) -> Option<String> {
        self.key_of.as_ref()?(request)
    }

    /// Takes a slot, which is free again when it is dropped.
    pub(super) fn take(&self, key: Option<&str>) -> Result<Slot, Full> {
        let counts = &self.counts;
        let below = |open: usize| (open < self.total).then_some(open + 1);
        if counts
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_err()
        {
            return Err(self.full(Reason::Total));
        }
        let mut slot = Slot {
            counts: counts.clone(),
            key: None,
        };
        if let Some(key) = key {
            let key: Arc<str> = key.into();
            let taken = {
                let mut keys = lock(&counts.keys);
                let open = keys.entry(key.clone()).or_default();
                let free = *open < self.per_key;
                if free {
                    *open += 1;
                } else if *open == 0 {
                    keys.remove(&key);
                }
                free
            };
            if !taken {
                return Err(self.full(Reason::Key));
            }
            slot.key = Some(key);
        }
        Ok(slot)
    }

    /// The handler has held a slot for too long without an answer.
    pub(super) fn too_slow(&self) -> Full {
        self.full(Reason::TooSlow)
    }

    fn full(&self, reason: Reason) -> Full {
        Full {
            reason,
            refuse: self.refuse,
            return_after: self.return_after,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("total", &self.total)
            .field("per_key", &self.per_key)
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// Why a request gets no slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// The total limit is reached.
    Total,
    /// The limit of the request's key is reached.
    Key,
    /// The handler has taken too long to answer.
    TooSlow,
}

/// A request gets no slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) reason: Reason,
    pub(super) refuse: bool,
    pub(super) return_after: Duration,
}

/// The slot of one stream.
pub(super) struct Slot {
    counts: Arc<Counts>,
    key: Option<Arc<str>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counts.total.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = &self.key else {
            return;
        };
        let mut keys = lock(&self.counts.keys);
        if let Some(open) = keys.get_mut(key) {
            *open -= 1;
            if *open == 0 {
                keys.remove(key);
            }
        }
    }
}
