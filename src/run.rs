//! [`Runs`]: jobs that produce a finite stream, started once and picked up again by whoever
//! comes with an id of them.
//!
//! Built from the parts that are there: each run is a channel of its own, fed by
//! [`Channel::forward`] in a task, and closed behind the last item. What this module adds is the
//! map from a token to the channel, its bounds, and the rule that only an absent id starts a job.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    str::FromStr,
    task::Poll,
    time::Duration,
};

use axum_core::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use crate::{
    error::{Error, ErrorKind},
    heartbeat::Heartbeat,
    hub::{Settings, Shared, channel::Channel, clock::Clock},
    id::{DIGITS, EventId, digit, parse_number, shown, write_number},
    last_event_id::LastEventId,
    payload::NotAResult,
    respond, retry,
    subscription::Subscription,
    sync::{Arc, Mutex, lock},
};

/// Digits of a token: 128 bits at six bits a digit.
const TOKEN_DIGITS: u32 = 22;

/// An id within a run: whoever knows it can read the run.
///
/// It carries 128 bits from the operating system's random source, so it cannot be guessed. It
/// travels in `Last-Event-ID`, in URLs and hence in logs: where that is not enough, give the run
/// an owner.
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
    lo: u64,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = token_digits(self.token);
        text.push(b'-');
        write_number(self.lo, &mut text);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RunId {
    /// Does not show the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId(…-{})", self.lo)
    }
}

impl FromStr for RunId {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] for anything but the one spelling that is printed.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('-')
            .and_then(|(token, lo)| {
                Some(Self {
                    token: parse_token(token.as_bytes())?,
                    lo: parse_number(lo.as_bytes())?,
                })
            })
            .ok_or_else(|| {
                let message = format!("{} is not an id of a run", shown(text));
                Error::new(ErrorKind::InvalidId, message)
            })
    }
}

fn token_digits(token: u128) -> Vec<u8> {
    (0..TOKEN_DIGITS)
        .rev()
        .map(|place| digit(u64::try_from((token >> (6 * place)) & 63).unwrap_or(0)))
        .collect()
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
/// A job that produces a finite stream is started once, keeps running when its client drops, and
/// is picked up again by whoever comes with an id of it, from any number of connections:
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
/// | an id of a run | what lies behind it, then live, then the end |
/// | the last id of a run that has ended | 204: do not come back |
/// | an unknown or expired id, or one of another owner's run | 204 |
///
/// So no tab ever starts a paid job again by reconnecting. A page that is reloaded sends no
/// header; it keeps the id itself and passes it as `?lastEventId=`.
///
/// **Bounds.** A run is kept for [`keep`](RunsBuilder::keep) after it has ended; there are at most
/// [`max_runs`](RunsBuilder::max_runs) of them, and each holds at most
/// [`bytes`](RunsBuilder::bytes). At the bound the run that ended first is dropped; if all are
/// still running, nothing is started, and the client is sent away for a few seconds.
///
/// `O` is the owner: any value that says who started a run, `()` if anyone may read it who knows
/// its id. Cheap to clone; all clones are one.
pub struct Runs<T, O = ()>(Arc<Inner<T, O>>);

struct Inner<T, O> {
    keep: Duration,
    max: usize,
    settings: Settings,
    /// Lends its wire manners to answers that belong to no run.
    nobody: Arc<Shared>,
    state: Mutex<State<T, O>>,
}

struct State<T, O> {
    runs: HashMap<u128, Run<T, O>>,
    /// Runs that have ended, the first one first.
    ended: VecDeque<(Instant, u128)>,
}

struct Run<T, O> {
    channel: Channel<T>,
    /// Shared, so that it can be compared without the lock: that is a user's code.
    owner: Arc<O>,
    cancel: Arc<Notify>,
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
///     .retry(Duration::from_secs(2))
///     .heartbeat(Heartbeat::default())
///     .build();
/// assert!(runs.is_empty());
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct RunsBuilder {
    keep: Duration,
    max: usize,
    settings: Settings,
}

impl RunsBuilder {
    /// How long a run is kept after it has ended; ten minutes by default. Its memory is freed when
    /// runs are next asked for, or another one ends.
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = time;
        self
    }

    /// How many runs there are at the most; 1,000 by default.
    pub fn max_runs(mut self, runs: usize) -> Self {
        self.max = runs;
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

    /// How many bytes of events each run holds at the most; 4 MiB by default. Of a longer one,
    /// late clients get a gap event and the newest part.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.settings.limits.bytes = bytes;
        self
    }

    /// The runs.
    #[must_use]
    pub fn build<T, O>(self) -> Runs<T, O> {
        let Self {
            keep,
            max,
            settings,
        } = self;
        let nobody = Shared::single(settings.clone(), Clock::new())
            .shared
            .clone();
        Runs(Arc::new(Inner {
            keep,
            max,
            settings,
            nobody,
            state: Mutex::new(State {
                runs: HashMap::new(),
                ended: VecDeque::new(),
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
        RunsBuilder {
            keep: Duration::from_secs(600),
            max: 1000,
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
    /// The run that `last` names, if it is `owner`'s, from behind that id; or, if the client
    /// brings no id, a new one that publishes the items of the stream that `start` makes.
    ///
    /// Nothing is started before the response is first polled, within a tokio runtime: an
    /// answer to HEAD starts no job. From then on it runs in a task of its own, whatever happens
    /// to the client.
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
            LastEventId::Unknown(_) => RunResponse(Answer::Gone),
            LastEventId::Absent => {
                // Without its random source a system is not one that secrets can be made on.
                let token = random_token();
                let runs = self.clone();
                let begin = move || match token {
                    Some(token) => runs.start(token, owner, start),
                    None => Subscription::refused(runs.0.nobody.clone()),
                };
                let id = token.map(|token| RunId { token, lo: 0 });
                RunResponse(Answer::Start(id, Box::new(begin)))
            }
        }
    }

    /// The run of that id, if it is `owner`'s.
    fn find(&self, id: RunId, owner: &O) -> Option<(Channel<T>, Arc<Notify>)> {
        self.0.expire();
        let state = lock(&self.0.state);
        let Run {
            channel,
            owner: of,
            cancel,
        } = state.runs.get(&id.token)?;
        let (found, of) = ((channel.clone(), cancel.clone()), of.clone());
        drop(state);
        (*of == *owner).then_some(found)
    }

    fn resume(&self, id: RunId, owner: &O) -> RunResponse {
        RunResponse(match self.find(id, owner) {
            None => Answer::Gone,
            Some((channel, _)) => {
                let last = EventId::new(life(id.token), id.lo);
                Answer::Resume(id, Box::new(channel.subscribe(last)))
            }
        })
    }

    fn start<S, Kind>(&self, token: u128, owner: O, start: impl FnOnce() -> S) -> Subscription
    where
        S: Stream<Item = T> + Send + 'static,
        T: NotAResult<Kind>,
    {
        let clock = Clock::with_prefix(life(token), token_digits(token));
        let channel = Channel::of(Shared::single(self.0.settings.clone(), clock));
        let cancel = Arc::new(Notify::new());
        let run = Run {
            channel: channel.clone(),
            owner: Arc::new(owner),
            cancel: cancel.clone(),
        };
        self.0.expire();
        let mut state = lock(&self.0.state);
        let dropped = if state.runs.len() >= self.0.max {
            state.drop_first_ended()
        } else {
            None
        };
        if state.runs.len() >= self.0.max {
            drop(state);
            return Subscription::refused(self.0.nobody.clone());
        }
        state.runs.insert(token, run);
        drop(state);
        drop(dropped);

        let subscription = channel.subscribe(EventId::new(life(token), 0)).announced();
        // Made before any code of the job's: however that ends, the run has ended then.
        let run = UnderWay {
            runs: self.0.clone(),
            channel,
            token,
        };
        let stream = start();
        tokio::spawn(async move { run.work(stream, &cancel).await });
        subscription
    }

    /// Stops the job of a run, if it is `owner`'s. Its readers get what it has produced, and the
    /// end. Returns whether there was such a run.
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
    /// page.expect_end().await;
    /// # }
    /// ```
    pub fn cancel(&self, id: RunId, owner: &O) -> bool {
        match self.find(id, owner) {
            None => false,
            Some((_, cancel)) => {
                cancel.notify_one();
                true
            }
        }
    }
}

impl<T, O> Inner<T, O> {
    /// Drops the runs whose time is over.
    fn expire(&self) {
        let now = Instant::now();
        let mut dropped = Vec::new();
        let mut state = lock(&self.state);
        while let Some((since, token)) = state.ended.front().copied()
            && now.saturating_duration_since(since) >= self.keep
        {
            state.ended.pop_front();
            dropped.extend(state.runs.remove(&token));
        }
        drop(state);
        drop(dropped);
    }
}

impl<T, O> State<T, O> {
    fn drop_first_ended(&mut self) -> Option<Run<T, O>> {
        let (_, token) = self.ended.pop_front()?;
        self.runs.remove(&token)
    }
}

/// A run whose job is under way. However that ends, its channel is closed then, and its time runs.
struct UnderWay<T, O> {
    runs: Arc<Inner<T, O>>,
    channel: Channel<T>,
    token: u128,
}

impl<T, O> UnderWay<T, O>
where
    T: Serialize,
{
    async fn work<S, Kind>(&self, stream: S, cancel: &Notify)
    where
        S: Stream<Item = T>,
        T: NotAResult<Kind>,
    {
        let mut job = pin!(self.channel.forward(stream));
        let mut cancelled = pin!(cancel.notified());
        let _ended = poll_fn(|cx| match cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(0)),
            Poll::Pending => job.as_mut().poll(cx),
        })
        .await;
        #[cfg(feature = "tracing")]
        if let Err(error) = _ended {
            tracing::warn!(%error, "a run ends early");
        }
    }
}

impl<T, O> Drop for UnderWay<T, O> {
    fn drop(&mut self) {
        // Only this closes it.
        let _ = self.channel.close(None);
        lock(&self.runs.state)
            .ended
            .push_back((Instant::now(), self.token));
        self.runs.expire();
    }
}

/// The `hi` of a run's ids. Never printed: the token is.
fn life(token: u128) -> u64 {
    u64::try_from(token >> 64).unwrap_or(u64::MAX)
}

fn random_token() -> Option<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(u128::from_le_bytes(bytes))
}

/// What [`Runs::resume_or_start`] answers: the run's stream, or 204.
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
    Gone,
    Resume(RunId, Box<Subscription>),
    Start(Option<RunId>, Box<dyn FnOnce() -> Subscription + Send>),
}

impl RunResponse {
    /// The id that the client brought, or that of the start of a new run: whoever has it can
    /// read what follows. A new run only exists once the response is polled.
    #[must_use]
    pub fn id(&self) -> Option<RunId> {
        match &self.0 {
            Answer::Gone => None,
            Answer::Resume(id, _) => Some(*id),
            Answer::Start(id, _) => *id,
        }
    }
}

impl IntoResponse for RunResponse {
    fn into_response(self) -> Response {
        match self.0 {
            Answer::Gone => respond::no_content(),
            Answer::Resume(_, subscription) => subscription.into_response(),
            Answer::Start(_, begin) => respond::begun_when_polled(begin),
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
            .field("max", &self.0.max)
            .field("keep", &self.0.keep)
            .finish_non_exhaustive()
    }
}
