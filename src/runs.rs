//! [`Runs`]: finite streams that continue without their client and can be resumed by id.
//!
//! Each run is a separate channel, filled by [`Channel::forward`] in a task and closed after the
//! last item. This module adds the map from tokens to channels, its limits, the rule that only a
//! request without an id starts a run, and the `end` event of runs that did not complete.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    str::FromStr,
    task::Poll,
    time::Duration,
};

use axum_core::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::Instant};

use crate::{
    channel::{
        Channel, clock::Clock, settings::Settings, shared::Shared, subscription::Subscription,
    },
    error::{Error, ErrorKind},
    event::{
        Event, EventId, EventName, Heartbeat, NotAResult, encode,
        id::{DIGITS, digit, from_string, parse_number, quoted, write_number},
        retry,
    },
    last_event_id::LastEventId,
    sse,
    sync::{Arc, AtomicBool, Mutex, Ordering, lock},
};

/// Digits of a token: 128 bits at six bits each.
const TOKEN_DIGITS: u32 = 22;

/// The name of the last event of a run that did not complete. Items cannot have this name.
const END: EventName = EventName::from_static("end");

/// The sequence in the id of an `end` event for an unknown run. No run has that many events, so a
/// client with this id gets a 204 without a lookup.
const AFTER_ALL: u64 = u64::MAX;

/// The smallest byte limit of a run: it needs room for its `end` event.
const MIN_BYTES: usize = 1024;

/// How many ended runs are searched for one that was read to its end, so that starting a run takes
/// bounded time.
const LOOKED_AT: usize = 1000;

/// Why a run did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReason {
    /// The run panicked, an item could not be published, or the runtime was shut down.
    Failed,
    Cancelled,
    /// An item was larger than the byte limit of the run.
    Overflow,
    /// The client's id does not belong to an existing run of the same owner.
    Unknown,
}

impl EndReason {
    /// The data of the event.
    fn json(self) -> &'static str {
        match self {
            Self::Failed => r#"{"reason":"failed"}"#,
            Self::Cancelled => r#"{"reason":"cancelled"}"#,
            Self::Overflow => r#"{"reason":"overflow"}"#,
            Self::Unknown => r#"{"reason":"unknown"}"#,
        }
    }
}

/// The whole response to an id of an unknown run. It is the same for runs that never existed, have
/// expired, or have another owner.
fn unknown_run(token: u128, retry: Option<u32>) -> Bytes {
    let mut out = encode::HEARTBEAT.to_vec();
    if let Some(millis) = retry {
        encode::retry(&mut out, millis);
    }
    encode::name(&mut out, END.as_str());
    let sequence = AFTER_ALL;
    encode::id(&mut out, |out| RunId { token, sequence }.write(out));
    encode::text(&mut out, EndReason::Unknown.json());
    encode::end(&mut out);
    out.into()
}

/// The id of an event in a run, or of its start. Any client that knows it can read the run.
///
/// It contains 128 random bits from the operating system, so it cannot be guessed. But it appears
/// in `Last-Event-ID`, in URLs, and so in logs. If that is a risk, give the run an owner.
///
/// It serializes as a string, and `axum::extract::Path<RunId>` reads it from a path.
///
/// ```
/// use axum_sse::{ErrorKind, LastEventId, RunId, Runs};
///
/// let runs: Runs<u64> = Runs::new();
/// let response = runs.resume_or_start(LastEventId::Absent, (), || tokio_stream::iter([1, 2]));
/// let id: RunId = response.id().unwrap();
/// assert_eq!(id.to_string().parse::<RunId>()?, id);
/// assert_eq!("1a-5".parse::<RunId>().unwrap_err().kind(), ErrorKind::InvalidId);
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId {
    token: u128,
    sequence: u64,
}

impl RunId {
    fn write(self, out: &mut Vec<u8>) {
        out.extend(token_digits(self.token));
        out.push(b'-');
        write_number(self.sequence, out);
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(34);
        self.write(&mut text);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RunId {
    /// Hides the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId(…-{})", self.sequence)
    }
}

impl FromStr for RunId {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] for any text that [`Display`](fmt::Display) does not produce.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('-')
            .and_then(|(token, sequence)| {
                Some(Self {
                    token: parse_token(token.as_bytes())?,
                    sequence: parse_number(sequence.as_bytes())?,
                })
            })
            .ok_or_else(|| {
                let message = format!("{} is not a valid run id", quoted(text));
                Error::new(ErrorKind::InvalidId, message)
            })
    }
}

impl Serialize for RunId {
    /// Serializes as the string that is sent to clients, including the secret token.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    /// Reads the string that [`FromStr`] accepts.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer)
    }
}

fn token_digits(token: u128) -> impl Iterator<Item = u8> {
    (0..TOKEN_DIGITS)
        .rev()
        .map(move |position| digit(u64::try_from((token >> (6 * position)) & 63).unwrap_or(0)))
}

fn parse_token(digits: &[u8]) -> Option<u128> {
    if digits.len() != TOKEN_DIGITS as usize {
        return None;
    }
    digits.iter().try_fold(0u128, |token, digit| {
        let value = DIGITS.binary_search(digit).ok()? as u128;
        Some(token.checked_mul(64)? | value)
    })
}

/// Resumable runs: the answer of an LLM, a build, an export.
///
/// A run produces a finite stream in a separate task. It continues when its client disconnects, and
/// any client with one of its ids can resume it:
///
/// ```
/// use axum::{extract::State, response::IntoResponse};
/// use axum_sse::{LastEventId, RunId, Runs};
///
/// async fn answer(State(runs): State<Runs<String>>, last: LastEventId<RunId>) -> impl IntoResponse {
///     runs.resume_or_start(last, (), || tokio_stream::iter(["Hello,", " world"].map(String::from)))
/// }
/// # let app: axum::Router = axum::Router::new()
/// #     .route("/answer", axum::routing::get(answer)).with_state(Runs::new());
/// ```
///
/// | the request has | the response is |
/// | --- | --- |
/// | no id | a new run: a checkpoint with its id, then its events |
/// | an id of a run | the events after that id, then live events up to the end |
/// | the last id of a run that has ended | a 204: do not reconnect |
/// | any other id | an `end` event with the reason `unknown` |
///
/// # Reconnects
///
/// A request with an id never starts a run. A client that loses its connection before the first
/// bytes arrive has no id yet, so its reconnect starts a second run. If a run must not be started
/// twice, let the page start it with a POST that returns the [id](RunResponse::id), and open the
/// stream with `?lastEventId=`. A reloaded page also sends no header, so it must keep the id and
/// pass it in the same way.
///
/// # The end of a run
///
/// A complete run ends without a special event: the stream ends, and a client that reconnects with
/// the last id gets a 204. An incomplete run ends with an event named `end`, whose data is JSON with
/// a `reason`:
///
/// | reason | cause |
/// | --- | --- |
/// | `failed` | the run panicked, an item could not be serialized, or the runtime was shut down |
/// | `cancelled` | [`cancel`](Runs::cancel) was called |
/// | `overflow` | an item was larger than the byte limit of a run |
/// | `unknown` | the id belongs to no run: the server was restarted, the run has expired or was dropped for another, it has another owner, or it never existed |
///
/// ```javascript
/// source.addEventListener("end", (event) => {
///     source.close();
///     if (!complete) show("incomplete", JSON.parse(event.data).reason);
/// });
/// ```
///
/// A request with the id of an `end` event gets a 204, so pages without this listener stop, too.
/// Only the crate can send `end` in a run.
///
/// The causes of `unknown` are not distinguished, so that a response does not reveal whether
/// another owner has a run with that id. Therefore a client that has received a complete run also
/// gets `unknown` if it reconnects after the run has expired. An `EventSource` cannot distinguish a
/// 204 from a proxy error either. A page that must know whether it has everything (`complete`
/// above) has to learn that from the last item.
///
/// The end of a connection alone has no meaning: a client must reconnect with its last id until it
/// gets `end` or a 204, as `EventSource` does.
///
/// # Limits
///
/// A run is kept for [`keep`](RunsBuilder::keep) after it has ended. It holds at most
/// [`bytes`](RunsBuilder::bytes) of events; if it is longer, late clients get a `gap` event and the
/// newest events.
///
/// There are at most [`max_runs`](RunsBuilder::max_runs) runs with at most
/// [`total_bytes`](RunsBuilder::total_bytes) in total. When one of these limits is reached, ended
/// runs are dropped, oldest end first, but those that a client has read to the end before the
/// others (among the thousand oldest). If all remaining runs are active, no run is started, and the
/// client gets a stream that only asks it to reconnect in a few seconds. Active runs are never
/// stopped, so together they can hold up to `max_runs` × `bytes`.
///
/// `O` is the owner of a run, for instance a user id: only requests with an equal owner can read it.
/// With `()`, any client with its id can. Cheap to clone; all clones share the same runs.
pub struct Runs<T, O = ()>(Arc<Inner<T, O>>);

struct Inner<T, O> {
    bounds: Bounds,
    settings: Settings,
    /// The settings of responses that belong to no run.
    refusals: Arc<Shared>,
    state: Mutex<State<T, O>>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    keep: Duration,
    runs: usize,
    /// The total of all runs.
    bytes: u64,
}

struct State<T, O> {
    runs: HashMap<u128, Run<T, O>>,
    /// Runs that have ended, oldest end first.
    ended: VecDeque<(Instant, u128)>,
    /// The total of all runs.
    bytes: u64,
}

struct Run<T, O> {
    channel: Channel<T>,
    /// Shared, so that it can be compared, which runs user code, without the lock.
    owner: Arc<O>,
    cancel: Arc<Notify>,
    /// Whether a client has received the whole run.
    read_to_end: Arc<AtomicBool>,
    /// The size of its channel when it was last measured.
    bytes: u64,
}

impl<T, O> Run<T, O> {
    /// A copy that can be used without the lock.
    fn share(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            owner: self.owner.clone(),
            cancel: self.cancel.clone(),
            read_to_end: self.read_to_end.clone(),
            bytes: self.bytes,
        }
    }

    fn subscribe(&self, last: EventId) -> Subscription {
        self.channel
            .subscribe(last)
            .on_read_to_end(self.read_to_end.clone())
    }
}

/// Configures [`Runs`].
///
/// ```
/// use axum_sse::{Heartbeat, Runs};
/// use std::time::Duration;
///
/// let runs: Runs<String> = Runs::builder()
///     .keep(Duration::from_secs(600))
///     .max_runs(500)
///     .bytes(1 << 20)
///     .total_bytes(100 << 20)
///     .retry(Duration::from_secs(2))
///     .heartbeat(Heartbeat::default())
///     .build();
/// assert!(runs.is_empty());
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct RunsBuilder {
    bounds: Bounds,
    settings: Settings,
}

impl RunsBuilder {
    /// Sets how long a run is kept after it has ended. The default is ten minutes. Its memory is
    /// freed when the runs are next used or another run ends.
    pub fn keep(mut self, time: Duration) -> Self {
        self.bounds.keep = time;
        self
    }

    /// Sets the maximum number of runs. The default is 1,000.
    pub fn max_runs(mut self, runs: usize) -> Self {
        self.bounds.runs = runs;
        self
    }

    /// Sets the reconnection time of clients. The default is one second, because after the end of a
    /// run they reconnect once and then get the 204 that stops them.
    pub fn retry(mut self, time: Duration) -> Self {
        self.settings.retry = Some(retry::millis(time));
        self
    }

    /// Sets what is sent on an idle connection, and how often. The default is that of channels.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.settings.heartbeat = heartbeat;
        self
    }

    /// Sets how many bytes of events each run holds: at least 1 KiB, 4 MiB by default. If a run is
    /// longer, late clients get a `gap` event and the newest events. A single item that is larger
    /// ends the run (`overflow`).
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.bytes = bytes.max(MIN_BYTES);
        self
    }

    /// Sets how many bytes of events all runs hold together. The default is 256 MiB. Above it, ended
    /// runs are dropped, and no run is started while the active ones alone exceed it.
    ///
    /// Active runs are not stopped and can exceed the limit, each up to
    /// [`bytes`](RunsBuilder::bytes). Only bytes on the wire are counted; with small events, the
    /// index needs about as much again.
    pub fn total_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// Creates the runs.
    #[must_use]
    pub fn build<T, O>(self) -> Runs<T, O> {
        let Self { bounds, settings } = self;
        let refusals = Shared::single(settings.clone(), Clock::new())
            .shared
            .clone();
        Runs(Arc::new(Inner {
            bounds,
            settings,
            refusals,
            state: Mutex::new(State {
                runs: HashMap::new(),
                ended: VecDeque::new(),
                bytes: 0,
            }),
        }))
    }
}

impl Runs<(), ()> {
    /// A builder with the default settings. Its [`build`](RunsBuilder::build) determines `T` and
    /// `O`.
    pub fn builder() -> RunsBuilder {
        let mut settings = Settings::default();
        settings.limits.events = usize::MAX;
        settings.limits.bytes = 4 << 20;
        settings.retry = Some(1000);
        settings.end = Some(END);
        RunsBuilder {
            bounds: Bounds {
                keep: Duration::from_secs(600),
                runs: 1000,
                bytes: 256 << 20,
            },
            settings,
        }
    }
}

impl<T, O> Runs<T, O> {
    /// Creates runs with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Runs::builder().build()
    }

    /// The number of runs, including those that have ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.expire();
        lock(&self.0.state).runs.len()
    }

    /// Whether there are no runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T, O> Runs<T, O>
where
    T: Serialize + Send + 'static,
    O: PartialEq + Send + Sync + 'static,
{
    /// Resumes the run of `last` after that id if it belongs to `owner`, or starts a run if `last`
    /// is absent. Any other id gets an `end` event with the reason `unknown`: see [`Runs`].
    ///
    /// A new run publishes the items of the stream that `start` returns. It starts when the response
    /// body is first polled, within a tokio runtime, so a HEAD request starts none. It then runs in
    /// a separate task, independent of the client. If `start` or the stream panics, the run ends
    /// with the reason `failed`.
    pub fn resume_or_start<S, Kind>(
        &self,
        last: LastEventId<RunId>,
        owner: O,
        start: impl FnOnce() -> S + Send + 'static,
    ) -> RunResponse
    where
        S: Stream<Item = T> + Send + 'static,
        T: NotAResult<Kind>,
    {
        match last {
            LastEventId::Known(id) => self.resume(id, &owner),
            LastEventId::Unknown(_) => RunResponse(Answer::Unknown(self.unknown(0))),
            LastEventId::Absent => {
                // Without random bits, ids would not be secret, so no run is started.
                let token = random_token();
                let runs = self.clone();
                let begin = move || match token {
                    Some(token) => runs.start(token, owner, start),
                    None => Subscription::refused(runs.0.refusals.clone()),
                };
                let id = token.map(|token| RunId { token, sequence: 0 });
                RunResponse(Answer::Start(id, Box::new(begin)))
            }
        }
    }

    /// The run with this id, if it belongs to `owner`.
    fn find(&self, id: RunId, owner: &O) -> Option<Run<T, O>> {
        self.0.expire();
        let run = lock(&self.0.state).runs.get(&id.token).map(Run::share)?;
        (*run.owner == *owner).then_some(run)
    }

    fn resume(&self, id: RunId, owner: &O) -> RunResponse {
        if id.sequence == AFTER_ALL {
            return RunResponse(Answer::Gone);
        }
        RunResponse(match self.find(id, owner) {
            None => Answer::Unknown(self.unknown(id.token)),
            Some(run) => {
                let subscription = run.subscribe(EventId::new(epoch(id.token), id.sequence));
                // The client has sent the last id of the run.
                if subscription.is_over() {
                    run.read_to_end.store(true, Ordering::Relaxed);
                }
                Answer::Resume(id, Box::new(subscription))
            }
        })
    }

    fn unknown(&self, token: u128) -> Bytes {
        unknown_run(token, self.0.settings.retry)
    }

    fn start<S, Kind>(&self, token: u128, owner: O, start: impl FnOnce() -> S) -> Subscription
    where
        S: Stream<Item = T> + Send + 'static,
        T: NotAResult<Kind>,
    {
        let clock = Clock::with_prefix(epoch(token), token_digits(token).collect());
        let channel = Channel::of(Shared::single(self.0.settings.clone(), clock));
        let run = Run {
            channel: channel.clone(),
            owner: Arc::new(owner),
            cancel: Arc::new(Notify::new()),
            read_to_end: Arc::new(AtomicBool::new(false)),
            bytes: 0,
        };
        let (cancel, subscription) = (
            run.cancel.clone(),
            run.subscribe(EventId::new(epoch(token), 0)).announced(),
        );
        if self.0.insert(token, run).is_err() {
            return Subscription::refused(self.0.refusals.clone());
        }

        // Created before any user code, so that the run ends however that code ends.
        let run = UnderWay {
            runs: self.0.clone(),
            channel,
            token,
            ending: Some(EndReason::Failed),
        };
        // On a panic, the client receives an `end` event. Otherwise its connection would break, and
        // its reconnect would start the same run again.
        let Ok(stream) = catch_unwind(AssertUnwindSafe(start)) else {
            #[cfg(feature = "tracing")]
            tracing::error!("a run panicked at its start");
            return subscription;
        };
        tokio::spawn(async move {
            let ending = run.work(stream, &cancel).await;
            run.end(ending);
        });
        subscription
    }

    /// Stops the run with this id if it belongs to `owner`. Its clients receive the items published
    /// so far, and then an `end` event with the reason `cancelled`. Returns whether there was such a
    /// run. A run that has already ended is unchanged.
    ///
    /// ```
    /// # use axum_sse::{LastEventId, Runs, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let runs: Runs<u64> = Runs::new();
    /// let response = runs.resume_or_start(LastEventId::Absent, (), tokio_stream::pending);
    /// let id = response.id().unwrap();
    /// let mut page = Reader::new(response);
    /// page.expect_named("checkpoint").await; // The run has started.
    /// assert_eq!(runs.len(), 1);
    /// assert!(runs.cancel(id, &()));
    /// assert_eq!(page.expect_named("end").await.data, r#"{"reason":"cancelled"}"#);
    /// page.expect_end().await;
    /// # }
    /// ```
    pub fn cancel(&self, id: RunId, owner: &O) -> bool {
        match self.find(id, owner) {
            None => false,
            Some(run) => {
                run.cancel.notify_one();
                true
            }
        }
    }
}

impl<T, O> Inner<T, O> {
    /// Adds a run, or returns it if there is no room even without the ended runs.
    fn insert(&self, token: u128, run: Run<T, O>) -> Result<(), Run<T, O>> {
        self.expire();
        let Bounds { runs, bytes, .. } = self.bounds;
        let mut dropped = Vec::new();
        let mut state = lock(&self.state);
        let mut full = state.runs.len() >= runs || state.bytes >= bytes;
        while full && let Some(ended) = state.drop_ended() {
            dropped.push(ended);
            full = state.runs.len() >= runs || state.bytes >= bytes;
        }
        let refused = if full {
            Err(run)
        } else {
            state.runs.insert(token, run);
            Ok(())
        };
        drop(state);
        let_go(dropped);
        refused
    }

    /// Records the size of a run. Drops ended runs if the total is over the limit.
    fn note_size(&self, token: u128, size: u64) {
        let mut dropped = Vec::new();
        let mut state = lock(&self.state);
        if let Some(run) = state.runs.get_mut(&token) {
            let before = std::mem::replace(&mut run.bytes, size);
            state.bytes = state.bytes - before + size;
        }
        while state.bytes > self.bounds.bytes
            && let Some(ended) = state.drop_ended()
        {
            dropped.push(ended);
        }
        drop(state);
        let_go(dropped);
    }

    /// Drops the runs that have expired.
    fn expire(&self) {
        let now = Instant::now();
        let mut dropped = Vec::new();
        let mut state = lock(&self.state);
        while let Some((since, token)) = state.ended.front().copied()
            && now.saturating_duration_since(since) >= self.bounds.keep
        {
            state.ended.pop_front();
            dropped.extend(state.remove(token));
        }
        drop(state);
        drop(dropped);
    }
}

/// Drops runs to make room for others. Must be called without the lock, because the drop of an
/// owner is user code.
fn let_go<T, O>(dropped: Vec<Run<T, O>>) {
    #[cfg(feature = "tracing")]
    for run in &dropped {
        if !run.read_to_end.load(Ordering::Relaxed) {
            tracing::warn!("a run was dropped for lack of room before a client read it to its end");
        }
    }
    drop(dropped);
}

impl<T, O> State<T, O> {
    /// Removes the oldest ended run that was read to its end, or else the oldest ended run.
    fn drop_ended(&mut self) -> Option<Run<T, O>> {
        let is_read = |(_, token): &(Instant, u128)| {
            let run = self.runs.get(token);
            run.is_none_or(|run| run.read_to_end.load(Ordering::Relaxed))
        };
        let read = self.ended.iter().take(LOOKED_AT).position(is_read);
        let (_, token) = self.ended.remove(read.unwrap_or(0))?;
        self.remove(token)
    }

    fn remove(&mut self, token: u128) -> Option<Run<T, O>> {
        let run = self.runs.remove(&token)?;
        self.bytes -= run.bytes;
        Some(run)
    }
}

/// An active run. Its drop closes the channel and starts the time until it expires.
struct UnderWay<T, O> {
    runs: Arc<Inner<T, O>>,
    channel: Channel<T>,
    token: u128,
    /// Why the run did not complete. `Failed` until its stream has ended, so that a panic or the
    /// shutdown of the runtime leaves it so.
    ending: Option<EndReason>,
}

impl<T, O> UnderWay<T, O>
where
    T: Serialize,
{
    /// Publishes the items. Returns the reason if the run did not complete.
    async fn work<S, Kind>(&self, stream: S, cancel: &Notify) -> Option<EndReason>
    where
        S: Stream<Item = T>,
        T: NotAResult<Kind>,
    {
        let mut forwarding = pin!(self.channel.forward(stream));
        let mut cancelled = pin!(cancel.notified());
        let ended = poll_fn(|cx| match cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => {
                let polled = forwarding.as_mut().poll(cx);
                self.note_size();
                polled.map(Some)
            }
        });
        match ended.await {
            None => Some(EndReason::Cancelled),
            Some(Ok(_)) => None,
            Some(Err(error)) => {
                #[cfg(feature = "tracing")]
                tracing::error!(%error, "a run failed");
                Some(match error.kind() {
                    ErrorKind::TooLarge => EndReason::Overflow,
                    _ => EndReason::Failed,
                })
            }
        }
    }
}

impl<T, O> UnderWay<T, O> {
    /// Sets the result. The drop does the rest.
    fn end(mut self, ending: Option<EndReason>) {
        self.ending = ending;
    }

    fn note_size(&self) {
        self.runs.note_size(self.token, self.channel.stats().bytes);
    }
}

impl<T, O> Drop for UnderWay<T, O> {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        if std::thread::panicking() {
            tracing::error!("a run panicked");
        }
        let end = self.ending.and_then(|reason| {
            let event = Event::text(reason.json()).ok()?;
            Some(event.with_name(END))
        });
        // Cannot fail: only this closes the channel, and `MIN_BYTES` has room for the event.
        let _ = self.channel.end_with(end.as_ref());
        self.note_size();
        lock(&self.runs.state)
            .ended
            .push_back((Instant::now(), self.token));
        self.runs.expire();
    }
}

/// The `epoch` of a run's ids. Never printed: the token is.
fn epoch(token: u128) -> u64 {
    u64::try_from(token >> 64).unwrap_or(u64::MAX)
}

fn random_token() -> Option<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(u128::from_le_bytes(bytes))
}

/// The response of [`Runs::resume_or_start`]: the stream of a run, an `end` event, or a 204.
///
/// ```
/// use axum_sse::{LastEventId, RunId, RunResponse, Runs};
///
/// fn answer(runs: &Runs<String>, last: LastEventId<RunId>) -> RunResponse {
///     let response = runs.resume_or_start(last, (), || tokio_stream::iter(["42".to_owned()]));
///     if let Some(id) = response.id() {
///         println!("started or resumed after {id}");
///     }
///     response
/// }
/// # answer(&Runs::new(), LastEventId::Absent);
/// ```
#[must_use = "a response does nothing unless it is returned from a handler"]
pub struct RunResponse(Answer);

enum Answer {
    /// The id of an `end` event for an unknown run: a 204.
    Gone,
    /// The id belongs to no run: an `end` event.
    Unknown(Bytes),
    Resume(RunId, Box<Subscription>),
    Start(Option<RunId>, Box<dyn FnOnce() -> Subscription + Send>),
}

impl RunResponse {
    /// The client's id, or the id of the start of a new run. A client can resume after it with
    /// `?lastEventId=`. `None` if the client's id belongs to no run.
    ///
    /// A new run does not exist before the response body is polled.
    #[must_use]
    pub fn id(&self) -> Option<RunId> {
        match &self.0 {
            Answer::Gone | Answer::Unknown(_) => None,
            Answer::Resume(id, _) => Some(*id),
            Answer::Start(id, _) => *id,
        }
    }
}

impl IntoResponse for RunResponse {
    fn into_response(self) -> Response {
        match self.0 {
            Answer::Gone => sse::no_content(),
            Answer::Unknown(chunk) => sse::whole_stream(chunk),
            Answer::Resume(_, subscription) => subscription.into_response(),
            Answer::Start(_, begin) => sse::begun_when_polled(begin),
        }
    }
}

impl fmt::Debug for RunResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunResponse").field(&self.id()).finish()
    }
}

impl<T, O> Default for Runs<T, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, O> Clone for Runs<T, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, O> fmt::Debug for Runs<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runs")
            .field("len", &self.len())
            .field("bounds", &self.0.bounds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_prints_and_parses(token: u128, sequence: u64) {
            let id = RunId { token, sequence };
            let text = id.to_string();
            prop_assert_eq!(text.parse::<RunId>().unwrap(), id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(&json, &format!("{text:?}"));
            prop_assert_eq!(serde_json::from_str::<RunId>(&json).unwrap(), id);
        }

        #[test]
        fn an_id_has_one_spelling(text in "[0-9A-Za-z_~]{22}-[0-9A-Za-z_~]{1,11}|[ -~]{0,34}") {
            if let Ok(id) = text.parse::<RunId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_a_run_cannot_be_forged() {
        let runs: Runs<u32> = Runs::new();
        let last = LastEventId::Absent;
        let response = runs.resume_or_start(last, (), tokio_stream::pending);
        let id = response.id().unwrap();
        let mut page = crate::testing::Reader::new(response);
        page.expect_named("checkpoint").await;
        let channel = runs.find(id, &()).unwrap().channel;
        let forged = Event::empty().with_name(END);
        let error = channel.publish_event(&forged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPublishable);
        let error = channel.close(Some(&forged)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPublishable);
        // Outside of runs it is a name like any other.
        Channel::<u32>::new().publish_event(&forged).unwrap();
    }

    #[test]
    fn serde_names_what_is_no_id() {
        let error = |json: &str| serde_json::from_str::<RunId>(json).unwrap_err();
        assert_eq!(
            error(r#""1a-5""#).to_string(),
            r#""1a-5" is not a valid run id"#
        );
        assert!(error("5").to_string().contains("expected a string"));
    }
}
