//! [`Limits`]: how many streams may be open at once, and what those get that are too many.

use std::{collections::HashMap, fmt, time::Duration};

use http::request::Parts;

use crate::{
    event::retry,
    sync::{Arc, AtomicUsize, Mutex, Ordering, lock},
};

type KeyOf = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// How many streams may be open at once, in all and for each key: an address, a user.
///
/// A request over a limit is answered with a 200 that says when to come back and ends, since an
/// `EventSource` never comes back after any other status (rule 68). Clients that are not an
/// `EventSource` can be given [a status](Limits::refuse) instead.
///
/// Clones count together: give a clone to [`SseLayer::limits`](crate::SseLayer::limits), and ask
/// the other for [`open`](Limits::open). Without any limit set, it only counts.
///
/// ```
/// use axum_sse::{SseLayer, layer::Limits};
///
/// let limits = Limits::new().total(10_000).per_key(6, |request| {
///     // Who it is must not be for the client to choose: a header that our own proxy sets.
///     let address = request.headers.get("x-real-ip")?;
///     Some(address.to_str().ok()?.to_owned())
/// });
/// let layer = SseLayer::new().limits(limits.clone());
/// assert_eq!((limits.open(), limits.keys()), (0, 0));
/// # let _ = layer;
/// ```
///
/// A place is taken when the handler has answered with an event stream, and is free again when
/// that has ended or its client has gone. HEAD takes none. What it holds is bounded by the
/// number of open streams: their keys.
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
    /// Counts, and limits nothing.
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

    /// At most `n` streams in all.
    pub fn total(mut self, n: usize) -> Self {
        self.total = n;
        self
    }

    /// At most `n` streams for each key. `key_of` is asked before the handler runs; where it
    /// says `None`, only the total counts.
    ///
    /// Behind a proxy, the peer's address is the proxy's: every client would have the same key.
    /// A header that clients can send themselves (`X-Forwarded-For` as it arrives) limits nobody.
    pub fn per_key<F>(mut self, n: usize, key_of: F) -> Self
    where
        F: Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    {
        self.per_key = n;
        self.key_of = Some(Arc::new(key_of));
        self
    }

    /// Answers what is too much with 429 (for a key) or 503 (in all) and `Retry-After`. An
    /// `EventSource` that gets one is closed for good: only for clients that handle it.
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

    /// Takes the place before the handler runs, so that what is too much costs nothing. Any
    /// request but HEAD and OPTIONS then counts until it has been answered, whether a stream
    /// comes of it or not, and for at most [`answer_within`](Limits::answer_within).
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

    /// With [`before_handler`](Limits::before_handler), how long a request may keep its place
    /// before the handler has answered: 30 s by default. Otherwise, clients whose bodies never
    /// come could keep everybody else out. After that the handler's future is dropped, the place
    /// is free, and the request is answered like one that is too many: told to come back, or,
    /// with [`refuse`](Limits::refuse), with 503. Without `before_handler` it has no effect.
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

    /// When those that are too many should come back: between once and twice this time from
    /// then, each at a moment of its own. An `EventSource` keeps it for all later reconnects, until
    /// a stream tells it another (`Channel::builder().retry`), so a long time here has a long
    /// effect. 5 s by default; 500 ms to 24 hours, and what lies
    /// outside is moved to the nearest end.
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

    /// How many streams are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// How many keys have a stream open now.
    #[must_use]
    pub fn keys(&self) -> usize {
        lock(&self.counts.keys).len()
    }

    pub(super) fn needs_key(&self) -> bool {
        self.key_of.is_some()
    }

    pub(super) fn key(&self, request: &Parts) -> Option<String> {
        self.key_of.as_ref()?(request)
    }

    /// A place, which is free again when it is dropped.
    pub(super) fn take(&self, key: Option<&str>) -> Result<Slot, Full> {
        let counts = &self.counts;
        let below = |open: usize| (open < self.total).then_some(open + 1);
        if counts
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_err()
        {
            return Err(self.full(Reason::InAll));
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
                return Err(self.full(Reason::ForKey));
            }
            slot.key = Some(key);
        }
        Ok(slot)
    }

    /// The place was kept for too long without an answer.
    pub(super) fn too_slow(&self) -> Full {
        self.full(Reason::Slow)
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

/// Why a request has no place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    InAll,
    ForKey,
    Slow,
}

/// A request has no place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) reason: Reason,
    pub(super) refuse: bool,
    pub(super) return_after: Duration,
}

/// One stream's place.
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
