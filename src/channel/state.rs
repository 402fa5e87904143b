//! [`ChannelState`]: one channel without its type: the log, its readers, and the order in which they are
//! touched.
//!
//! Lock order: a hub's registry, then `log`; `readers` is taken alone. No code of a user, no
//! waker and no `Serialize` runs under any of them (law 8).

use std::{collections::BTreeMap, ops::Deref, sync::OnceLock, task::Waker};

use tokio::time::Instant;

use crate::{
    channel::{
        clock::Clock,
        log::{Evicted, Limits, Log},
        settings::Settings,
        shared::Shared,
        snapshot::Snapshots,
        stats::Counters,
        wake::{Reader, Wake},
    },
    error::{Error, ErrorKind},
    event::{
        EventId, EventName,
        encode::{self, IdOffset},
    },
    sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
};

/// Readers that are looked at under one lock.
pub(super) const LOOKS: usize = 4096;

/// The most bytes that are written under the log's lock: an id's line (law 1).
const ID_LINE: usize = 64;

pub(crate) struct ChannelState {
    name: Box<str>,
    log: Mutex<Log>,
    /// Odd while an id is drawn whose event is not in the log yet; another number after each
    /// append. Changed under the log's lock only, read without it: a reader whose last look saw
    /// this very number, and that loaded the clock before, knows that nothing new is here.
    version: AtomicU64,
    /// Nothing is appended any more. Changed under the log's lock only.
    closed: AtomicBool,
    readers: Mutex<Readers>,
    reader_count: AtomicUsize,
    /// Set while the channel stands in the wake task's queue.
    dirty: AtomicBool,
    /// Handles and subscriptions. At zero, a channel in a registry is idle.
    handle: AtomicUsize,
    /// Handles that can publish, if the channel closes with the last of them.
    pub(super) publishers: AtomicUsize,
    pub(crate) counters: Counters,
    /// Entries that the slowest reader had in front of it when the wake task last came by.
    lag: AtomicU64,
    pub(crate) snapshots: OnceLock<Snapshots>,
    /// The name of its snapshot event, where it is not that of the settings.
    pub(super) snapshot_name: OnceLock<Option<EventName>>,
    /// Only the channel's board may publish.
    pub(super) has_state_channel: AtomicBool,
    closed_at: OnceLock<Instant>,
    /// How often the log was locked.
    #[cfg(test)]
    pub(crate) locked: std::sync::atomic::AtomicUsize,
}

/// The readers of a channel, by a number that grows: a round that is under way misses none, finds
/// those that join meanwhile after the others, and looks at no more than are there.
#[derive(Default)]
struct Readers {
    progress: BTreeMap<u64, Arc<CursorProgress>>,
    next: u64,
}

/// How long a reader may take to read what was there when it was woken, before it no longer
/// counts as one that keeps up. In milliseconds.
pub(crate) const PATIENCE: u64 = 3000;

/// Where one connection stands in one channel.
#[derive(Debug)]
pub(crate) struct CursorProgress {
    reader: Arc<Reader>,
    /// The cursor's position, as its reader says; [`NOT_BEGUN`] until it has found it.
    pub(crate) position: AtomicU64,
    /// The log's end when the reader was woken, and when that was. The wake task's own; it sets
    /// both anew when the reader has got there.
    goal: AtomicU64,
    since: AtomicU64,
    /// The reader waits for a snapshot, after which it wants every event: it is not slow. For how
    /// long it may, in milliseconds; 0 if it does not wait.
    pub(crate) waits: AtomicU64,
}

/// The position of a reader that has joined and not looked at the log yet.
const NOT_BEGUN: u64 = u64::MAX;

impl CursorProgress {
    /// What is to be kept for this reader: everything from here on, if anything.
    fn floor(&self, end: u64, now: u64) -> Option<u64> {
        let position = match self.position.load(Ordering::Relaxed) {
            // It may have found its position already and be about to note it.
            NOT_BEGUN => 0,
            position => position,
        };
        if position >= end {
            return None;
        }
        if position >= self.goal.load(Ordering::Relaxed) {
            self.goal.store(end, Ordering::Relaxed);
            self.since.store(now, Ordering::Relaxed);
            return Some(position);
        }
        let waited = now.saturating_sub(self.since.load(Ordering::Relaxed));
        let patience = PATIENCE + self.waits.load(Ordering::Relaxed);
        (waited < patience).then_some(position)
    }

    /// How many entries this reader has in front of it.
    fn lag(&self, end: u64) -> u64 {
        match self.waits.load(Ordering::Relaxed) {
            0 => end.saturating_sub(self.position.load(Ordering::Relaxed)),
            _ => 0,
        }
    }
}

/// One pass over the readers of a channel: wakes them, or only looks at where they are.
#[derive(Debug)]
pub(crate) struct Round {
    /// The log's end when it began.
    end: u64,
    /// Readers with smaller keys are woken. Those that joined later found in the log what the
    /// round is about.
    wake_until: u64,
    next: u64,
    /// What is to be kept for the readers that were looked at.
    floor: u64,
    lag: u64,
}

/// How far a [`Round`] has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Readers are left.
    More,
    /// Something was found that the next look may find gone: events that are kept for readers
    /// alone, or a reader that is behind.
    Unsettled,
    Settled,
}

/// A framed event; its id's line belongs at `id_offset`.
pub(crate) struct EncodedEvent<'a> {
    pub(crate) bytes: &'a mut Vec<u8>,
    pub(crate) id_offset: IdOffset,
}

impl ChannelState {
    /// `before` is the id that a first event follows.
    pub(crate) fn new(name: &str, limits: Limits, before: EventId) -> Self {
        Self {
            name: name.into(),
            log: Mutex::new(Log::new(limits, before)),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            readers: Mutex::default(),
            reader_count: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
            handle: AtomicUsize::new(0),
            publishers: AtomicUsize::new(0),
            counters: Counters::default(),
            lag: AtomicU64::new(0),
            snapshots: OnceLock::new(),
            snapshot_name: OnceLock::new(),
            has_state_channel: AtomicBool::new(false),
            closed_at: OnceLock::new(),
            #[cfg(test)]
            locked: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        #[cfg(test)]
        self.locked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        lock(&self.log)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// How long the channel has been closed, if it is.
    pub(super) fn closed_for(&self, now: Instant) -> Option<std::time::Duration> {
        let closed = self.closed_at.get()?;
        Some(now.saturating_duration_since(*closed))
    }

    /// Whether the channel must stay in its registry. One with a snapshot does until it is
    /// closed: retired, it would be made anew without its snapshot.
    pub(crate) fn is_held(&self) -> bool {
        self.handle.load(Ordering::Acquire) > 0
            || self.snapshots.get().is_some() && !self.is_closed()
    }

    /// The name of this channel's snapshot event; without one, it goes to `onmessage`.
    pub(crate) fn snapshot_name<'a>(&'a self, settings: &'a Settings) -> Option<&'a EventName> {
        let own = self.snapshot_name.get();
        own.unwrap_or(&settings.snapshot).as_ref()
    }

    pub(crate) fn readers(&self) -> usize {
        self.reader_count.load(Ordering::Acquire)
    }

    pub(crate) fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// Appends an event and signals the readers. What `frame` holds afterwards is of no use.
    pub(crate) fn publish(
        self: &Arc<Self>,
        frame: EncodedEvent<'_>,
        now: u64,
        clock: &Clock,
        wake: &Wake,
    ) -> Result<EventId, Error> {
        frame.bytes.reserve(ID_LINE);
        let mut log = self.lock();
        let appended = self.append(&mut log, frame, now, clock);
        drop(log);
        let (id, evicted) = appended?;
        drop(evicted);
        self.signal(wake);
        Ok(id)
    }

    /// Appends a last event, if there is one, and closes the channel, under one lock.
    pub(crate) fn close(
        self: &Arc<Self>,
        last: Option<EncodedEvent<'_>>,
        now: u64,
        clock: &Clock,
        wake: &Wake,
    ) -> Result<Option<EventId>, Error> {
        let mut log = self.lock();
        let appended = match last {
            Some(frame) => self.append(&mut log, frame, now, clock).map(Some),
            None if self.is_closed() => Err(self.closed_error()),
            None => Ok(None),
        };
        if appended.is_ok() {
            self.closed.store(true, Ordering::Release);
            self.closed_at.get_or_init(Instant::now);
            let version = self.version.load(Ordering::Relaxed);
            self.version.store(version + 2, Ordering::Release);
        }
        drop(log);
        let appended = appended?;
        self.signal(wake);
        Ok(appended.map(|(id, _evicted)| id))
    }

    fn append(
        &self,
        log: &mut Log,
        frame: EncodedEvent<'_>,
        now: u64,
        clock: &Clock,
    ) -> Result<(EventId, Evicted), Error> {
        let EncodedEvent { bytes, id_offset } = frame;
        let size = bytes.len();
        if self.is_closed() {
            return Err(self.closed_error());
        }
        if !log.fits(size + ID_LINE) {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "an event of {size} bytes is more than channel {:?} may hold in all",
                    self.name
                ),
            ));
        }
        let version = self.version.load(Ordering::Relaxed);
        // Odd before the id is drawn: the draw is a release, so who sees the id sees this too.
        self.version.store(version + 1, Ordering::Relaxed);
        let id = clock.draw();
        encode::id(bytes, |out| clock.write(id, out));
        let (head, rest) = bytes.split_at(id_offset);
        let (data, id_line) = rest.split_at(size - id_offset);
        // A reader registers before it takes this lock for the first time. So either it is
        // counted here, or it will find this event in the log.
        let evicted = log.append(id, &[head, id_line, data], now, self.readers() > 0);
        self.version.store(version + 2, Ordering::Release);
        Ok((id, evicted))
    }

    fn closed_error(&self) -> Error {
        let message = format!("channel {:?} has been closed", self.name);
        Error::new(ErrorKind::Closed, message)
    }

    fn signal(self: &Arc<Self>, wake: &Wake) {
        if self.readers() > 0 && !self.dirty.swap(true, Ordering::AcqRel) {
            wake.enqueue(self.clone());
        }
    }

    pub(crate) fn add_reader(&self, reader: Arc<Reader>) -> (u64, Arc<CursorProgress>) {
        let progress = Arc::new(CursorProgress {
            reader,
            position: AtomicU64::new(NOT_BEGUN),
            goal: AtomicU64::new(0),
            since: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        });
        self.reader_count.fetch_add(1, Ordering::AcqRel);
        let mut readers = lock(&self.readers);
        let key = readers.next;
        readers.next += 1;
        readers.progress.insert(key, progress.clone());
        (key, progress)
    }

    pub(crate) fn remove_reader(&self, key: u64) {
        let mut readers = lock(&self.readers);
        let progress = readers.progress.remove(&key);
        if readers.progress.is_empty() {
            self.lag.store(0, Ordering::Relaxed);
        }
        drop(readers);
        let left = self.reader_count.fetch_sub(1, Ordering::AcqRel) - 1;
        drop(progress);
        if left > 0 {
            return;
        }
        let mut log = self.lock();
        // One that has come meanwhile may stand in the floor, if it locked the log before.
        let evicted = (self.readers() == 0).then(|| log.drop_floor());
        drop(log);
        drop(evicted);
    }

    /// The wake task has taken this channel from its queue: a publisher that comes later queues
    /// it anew. To be called before the wakers are taken.
    pub(crate) fn dequeued(&self) {
        self.dirty.swap(false, Ordering::AcqRel);
    }

    /// A round that wakes all who are there now.
    pub(crate) fn begin_round(&self) -> Round {
        // A reader that joins after this locks the log after it, too: it finds the news there.
        let wake_until = lock(&self.readers).next;
        Round {
            wake_until,
            ..self.begin_look()
        }
    }

    /// A round that wakes nobody.
    pub(crate) fn begin_look(&self) -> Round {
        let end = self.lock().end();
        Round {
            end,
            wake_until: 0,
            next: 0,
            floor: end,
            lag: 0,
        }
    }

    /// Takes the wakers of at most `most` readers, and looks at a bounded number of others. After
    /// the last reader, what all that keep up have read is let go.
    pub(crate) fn go_on(
        &self,
        round: &mut Round,
        most: usize,
        now: u64,
        wakers: &mut Vec<Waker>,
    ) -> Progress {
        let most = wakers.len().saturating_add(most);
        let readers = lock(&self.readers);
        let from = round.next;
        for (looked, (key, progress)) in readers.progress.range(from..).enumerate() {
            if wakers.len() >= most || looked == LOOKS {
                return Progress::More;
            }
            round.next = key + 1;
            round.lag = round.lag.max(progress.lag(round.end));
            if let Some(floor) = progress.floor(round.end, now) {
                round.floor = round.floor.min(floor);
            }
            if *key < round.wake_until {
                wakers.extend(progress.reader.waker.take());
            }
        }
        // Under the lock: the last one to leave sets it to 0.
        if !readers.progress.is_empty() {
            self.lag.store(round.lag, Ordering::Relaxed);
        }
        drop(readers);
        let mut log = self.lock();
        let evicted = log.keep_from(round.floor);
        let has_floor = log.has_floor();
        drop(log);
        drop(evicted);
        match has_floor || round.lag > 0 {
            true => Progress::Unsettled,
            false => Progress::Settled,
        }
    }

    /// Forgets what has grown too old. Returns whether the readers should be looked at: something
    /// is kept for them alone.
    pub(crate) fn sweep(&self, now: u64) -> bool {
        let mut log = self.lock();
        let evicted = log.expire(now);
        let has_floor = log.has_floor();
        drop(log);
        drop(evicted);
        has_floor
    }
}

impl std::fmt::Debug for ChannelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelState")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A channel that somebody uses: it is not idle, and stays in its hub.
#[derive(Debug)]
pub(crate) struct ChannelHandle {
    pub(crate) shared: Arc<Shared>,
    state: Arc<ChannelState>,
}

impl ChannelHandle {
    /// For a channel in a registry, to be called under the registry's lock.
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<ChannelState>) -> Self {
        state.handle.fetch_add(1, Ordering::AcqRel);
        Self { shared, state }
    }
}

impl Deref for ChannelHandle {
    type Target = Arc<ChannelState>;

    fn deref(&self) -> &Arc<ChannelState> {
        &self.state
    }
}

impl Clone for ChannelHandle {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.state.clone())
    }
}

impl Drop for ChannelHandle {
    fn drop(&mut self) {
        if self.state.handle.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.registry.release(&self.state);
        }
    }
}
