//! [`Runs`]: jobs that produce a finite stream, and that clients resume by id.
//!
//! Each run is a separate channel, fed by [`Channel::forward`] in a task, and closed after the last
//! item. This module adds the map from a token to the channel, its bounds, the rule that only an
//! absent id starts a job, and the `end` event of runs that did not complete.

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

/// Digits of a token: 128 bits at six bits a digit.
const TOKEN_DIGITS: u32 = 22;

/// The event with which a run ends that did not complete. Items of a run cannot have this name.
const END: EventName = EventName::from_static("end");

/// The count in the id of an `end` event for a run that is not here. No run ever has that many
/// events, so a client that brings it can be told to stay away without knowing its run.
const AFTER_ALL: u64 = u64::MAX;

/// The least that a run may hold: there has to be room for its `end` event.
const MIN_BYTES: usize = 1024;

/// How many ended runs are looked at for one that has been read to its end: starting a run must
/// not take longer the more of them are kept.
const LOOKED_AT: usize = 1000;

/// Why a stream is not a complete run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndReason {
    /// The job panicked, gave an item that cannot be published, or its runtime was shut down.
    Failed,
    Cancelled,
    /// An item was larger than all that the run may hold.
    Overflow,
    /// The client's id is not of a run that is here and its own.
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

/// All that a client gets whose id is not of a run that is here. It is the same for runs that
/// never were, that are gone, and that are another owner's.
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

/// An id within a run: whoever knows it can read the run.
///
/// It carries 128 bits from the operating system's random source, so it cannot be guessed. It
/// travels in `Last-Event-ID`, in URLs and hence in logs: where that is not enough, give the run
/// an owner.
///
/// In JSON it is a string, and in a path `axum::extract::Path<RunId>` reads it.
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
    /// Does not show the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId(…-{})", self.sequence)
    }
}

impl FromStr for RunId {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] for anything but the one spelling that is printed.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('-')
            .and_then(|(token, sequence)| {
                Some(Self {
                    token: parse_token(token.as_bytes())?,
                    sequence: parse_number(sequence.as_bytes())?,
                })
            })
            .ok_or_else(|| {
                let message = format!("{} is not an id of a run", quoted(text));
                Error::new(ErrorKind::InvalidId, message)
            })
    }
}

impl Serialize for RunId {
    /// Serialises as the string that stands on the wire, secret token included.
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
        .map(move |place| digit(u64::try_from((token >> (6 * place)) & 63).unwrap_or(0)))
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

/// Resumable runs: an LLM's answer, a build, an export.
///
/// A job that produces a finite stream keeps running when its client drops, and any client that
/// brings one of its ids reads on from there, over any number of connections:
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
/// | what the client brings | what it gets |
/// | --- | --- |
/// | no id | a new run, from its start; first a checkpoint with the run's id |
/// | an id of a run | every event after it, then live, then the end |
/// | the last id of a run that has ended | 204: do not come back |
/// | any other id | an `end` event with the reason `unknown` |
///
/// **Reconnects.** A client that brings any id never starts a job. A client whose connection is
/// lost before the first bytes arrive has no id yet: when it reconnects, it starts a second job.
/// Where a job must not be started twice, let the page start it with a POST that returns the
/// [id](RunResponse::id), and follow it with `?lastEventId=`. A page that is reloaded sends no
/// header either; it keeps the id and passes it in the same way.
///
/// **The end.** After a run that completed comes no event: the stream ends, and the client that
/// returns with the last id gets a 204. A run that did *not* complete ends with an event named
/// `end`, whose data is JSON with a `reason`:
///
/// | reason | what happened |
/// | --- | --- |
/// | `failed` | the job panicked, gave an item that cannot be serialised, or its runtime was shut down |
/// | `cancelled` | [`cancel`](Runs::cancel) was called |
/// | `overflow` | an item was larger than all that a run may hold |
/// | `unknown` | the id is not of a run that is here: the server was restarted, the run has expired or made room for another, it is another owner's, or there never was one |
///
/// ```javascript
/// source.addEventListener("end", (event) => {
///     source.close();
///     if (!complete) show("incomplete", JSON.parse(event.data).reason);
/// });
/// ```
///
/// The next request with the id of an `end` event gets a 204, so a page without such a listener
/// stops, too.
///
/// The cases of `unknown` cannot be told apart on purpose: an answer must not tell whether
/// somebody else has a run of that id. So a client that has all of a complete run gets `unknown`,
/// too, if it comes back after that run has expired. And an `EventSource` does not tell a 204 from
/// the error of a proxy. A page that has to know that it has everything (`complete` above) takes
/// that from the last item. Nothing but the crate can send `end` in a run.
///
/// The end of a connection alone means nothing: a client comes back with its last id until it gets
/// `end` or a 204. `EventSource` does.
///
/// **Bounds.** A run is kept for [`keep`](RunsBuilder::keep) after it has ended. Each holds at most
/// [`bytes`](RunsBuilder::bytes) of events; of a longer one, late clients get a gap event and the
/// newest part. There are at most [`max_runs`](RunsBuilder::max_runs) runs, with at most
/// [`total_bytes`](RunsBuilder::total_bytes) in all. At either bound, ended runs are dropped: first
/// those that a client has read to the end (looked for among the thousand that ended first), then
/// the others, and of each the one that ended first.
/// If the rest is still running, nothing is started, and the client is told to come back in a few
/// seconds. Runs that are under way are never stopped for it, so all of them together can hold up
/// to `max_runs` × `bytes`.
///
/// `O` is the owner: any value that identifies who started a run, `()` if anyone may read it who
/// knows its id. Cheap to clone; all clones share the same runs.
pub struct Runs<T, O = ()>(Arc<Inner<T, O>>);

struct Inner<T, O> {
    bounds: Bounds,
    settings: Settings,
    /// Lends its wire manners to answers that belong to no run.
    refusals: Arc<Shared>,
    state: Mutex<State<T, O>>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    keep: Duration,
    runs: usize,
    /// Of all runs.
    bytes: u64,
}

struct State<T, O> {
    runs: HashMap<u128, Run<T, O>>,
    /// Runs that have ended, the first one first.
    ended: VecDeque<(Instant, u128)>,
    /// The sum over all runs.
    bytes: u64,
}

struct Run<T, O> {
    channel: Channel<T>,
    /// Shared, so that it can be compared without the lock: that is a user's code.
    owner: Arc<O>,
    cancel: Arc<Notify>,
    /// Whether a client has been given all of it.
    read_to_end: Arc<AtomicBool>,
    /// What its channel held when it was last looked at.
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

/// Sets the bounds of [`Runs`].
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
    /// How long a run is kept after it has ended; ten minutes by default. Its memory is freed when
    /// runs are next asked for, or another one ends.
    pub fn keep(mut self, time: Duration) -> Self {
        self.bounds.keep = time;
        self
    }

    /// How many runs there are at the most; 1,000 by default.
    pub fn max_runs(mut self, runs: usize) -> Self {
        self.bounds.runs = runs;
        self
    }

    /// The reconnection time that clients are told; a second by default, since behind the end of
    /// a run they come back once more, to be told to stop.
    pub fn retry(mut self, time: Duration) -> Self {
        self.settings.retry = Some(retry::millis(time));
        self
    }

    /// What a silent connection says, and how often; as for channels by default.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.settings.heartbeat = heartbeat;
        self
    }

    /// How many bytes of events each run holds at the most; 4 MiB by default, and at least 1 KiB.
    /// Of a longer run, late clients get a gap event and the newest part. A single item that is
    /// larger ends the run (`overflow`).
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.bytes = bytes.max(MIN_BYTES);
        self
    }

    /// How many bytes of events all runs hold together before ended ones make room, and nothing
    /// new is started while the others run; 256 MiB by default.
    ///
    /// Runs that are under way are not stopped for it and may exceed it, each up to
    /// [`bytes`](RunsBuilder::bytes). Counted are the bytes on the wire; with small events, the
    /// index takes about as much again.
    pub fn total_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// The runs.
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
    /// Starts from the defaults and sets what differs. The types are those of what is built.
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
    /// Runs with the defaults of [`RunsBuilder`].
    #[must_use]
    pub fn new() -> Self {
        Runs::builder().build()
    }

    /// How many runs there are, those that have ended included.
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
    /// The run that `last` names, if it is `owner`'s, from after that id; or, if the client
    /// brings no id, a new one that publishes the items of the stream that `start` makes. Any
    /// other id gets the `end` event with the reason `unknown`: see [`Runs`].
    ///
    /// Nothing is started before the response is first polled, within a tokio runtime: an
    /// answer to HEAD starts no job. From then on the job runs in a separate task, whatever
    /// happens to the client. If it panics, in `start` or later, the run ends as `failed`.
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
                // Without its random source a system is not one that secrets can be made on.
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

    /// The run of that id, if it is `owner`'s.
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
                // It has brought the last id back.
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

        // Made before any code of the job's: however that ends, the run has ended then.
        let run = UnderWay {
            runs: self.0.clone(),
            channel,
            token,
            ending: Some(EndReason::Failed),
        };
        // The client is to read of the panic, instead of having its connection cut and asking for
        // the same once more.
        let Ok(stream) = catch_unwind(AssertUnwindSafe(start)) else {
            #[cfg(feature = "tracing")]
            tracing::error!("the start of a run has panicked");
            return subscription;
        };
        tokio::spawn(async move {
            let ending = run.work(stream, &cancel).await;
            run.end(ending);
        });
        subscription
    }

    /// Stops the job of a run, if it is `owner`'s. Its readers get what it has produced, and then
    /// the `end` event with the reason `cancelled`. Returns whether there was such a run; one that
    /// has ended already is left as it is.
    ///
    /// ```
    /// # use axum_sse::{LastEventId, Runs, testing::Reader};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let runs: Runs<u64> = Runs::new();
    /// let response = runs.resume_or_start(LastEventId::Absent, (), tokio_stream::pending);
    /// let id = response.id().unwrap();
    /// let mut page = Reader::new(response);
    /// page.expect_named("checkpoint").await; // Now it has begun.
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
    /// Adds a run, unless there is no room even without those that have ended.
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

    /// Notes what a run holds now. Those that have ended make room for it.
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

    /// Drops the runs whose time is over.
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

/// Drops runs that have made room for others. Not to be called under the lock: an owner's drop is
/// a user's code.
fn let_go<T, O>(dropped: Vec<Run<T, O>>) {
    #[cfg(feature = "tracing")]
    for run in &dropped {
        if !run.read_to_end.load(Ordering::Relaxed) {
            tracing::warn!("a run is dropped to make room, and no client has read it to its end");
        }
    }
    drop(dropped);
}

impl<T, O> State<T, O> {
    /// Takes out the first run to end that has been read to its end, or else the first.
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

/// A run whose job is under way. However that ends, its channel is closed then, and its time runs.
struct UnderWay<T, O> {
    runs: Arc<Inner<T, O>>,
    channel: Channel<T>,
    token: u128,
    /// Why the run did not complete. `Failed` until the job has returned: a panic, or a runtime
    /// that is shut down, leaves it at that.
    ending: Option<EndReason>,
}

impl<T, O> UnderWay<T, O>
where
    T: Serialize,
{
    /// Returns why the run did not complete, if it did not.
    async fn work<S, Kind>(&self, stream: S, cancel: &Notify) -> Option<EndReason>
    where
        S: Stream<Item = T>,
        T: NotAResult<Kind>,
    {
        let mut job = pin!(self.channel.forward(stream));
        let mut cancelled = pin!(cancel.notified());
        let ended = poll_fn(|cx| match cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => {
                let polled = job.as_mut().poll(cx);
                self.note_size();
                polled.map(Some)
            }
        });
        match ended.await {
            None => Some(EndReason::Cancelled),
            Some(Ok(_)) => None,
            Some(Err(error)) => {
                #[cfg(feature = "tracing")]
                tracing::error!(%error, "a run ends early");
                Some(match error.kind() {
                    ErrorKind::TooLarge => EndReason::Overflow,
                    _ => EndReason::Failed,
                })
            }
        }
    }
}

impl<T, O> UnderWay<T, O> {
    /// The job has returned. The rest is done on drop.
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
            tracing::error!("the job of a run has panicked");
        }
        let end = self.ending.and_then(|reason| {
            let event = Event::text(reason.json()).ok()?;
            Some(event.with_name(END))
        });
        // Only this closes it, and `MIN_BYTES` leaves room for the event.
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

/// What [`Runs::resume_or_start`] answers: the run's stream, an `end` event, or 204.
///
/// ```
/// use axum_sse::{LastEventId, RunId, RunResponse, Runs};
///
/// fn answer(runs: &Runs<String>, last: LastEventId<RunId>) -> RunResponse {
///     let response = runs.resume_or_start(last, (), || tokio_stream::iter(["42".to_owned()]));
///     if let Some(id) = response.id() {
///         println!("to be read by whoever knows {id}");
///     }
///     response
/// }
/// # answer(&Runs::new(), LastEventId::Absent);
/// ```
#[must_use = "a response does nothing unless it is returned from a handler"]
pub struct RunResponse(Answer);

enum Answer {
    /// Nothing is left for this client.
    Gone,
    /// Not a run that is here.
    Unknown(Bytes),
    Resume(RunId, Box<Subscription>),
    Start(Option<RunId>, Box<dyn FnOnce() -> Subscription + Send>),
}

impl RunResponse {
    /// The id that the client brought, or that of the start of a new run: a client that has it can
    /// read what follows. A new run only exists once the response is polled. `None` if the
    /// client's id is not of a run that is here.
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
    async fn nobody_else_sends_the_end_of_a_run() {
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
            r#""1a-5" is not an id of a run"#
        );
        assert!(error("5").to_string().contains("expected a string"));
    }
}
