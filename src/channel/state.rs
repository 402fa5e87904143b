//! [`ChannelState`]: one channel, regardless of the type of its values: its log and its readers.
//!
//! Lock order: the hub's registry, then `log`. Under `readers`, only wakers are taken. No user
//! code, no waker and no `Serialize` runs under any of them (law 8).

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
        id::quoted,
    },
    sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
};

/// How many readers are visited under one lock.
pub(super) const READER_BATCH: usize = 4096;

/// Upper bound for an id's line, which is written under the log's lock (law 1).
const ID_LINE: usize = 64;

pub(crate) struct ChannelState {
    name: Box<str>,
    log: Mutex<Log>,
    /// Odd between drawing an id and appending its event; different after each append. Changed
    /// only under the log's lock, but read without it: a reader that first loads the clock, and
    /// then finds the version of its last look, knows that the log holds nothing new up to the
    /// clock's id.
    version: AtomicU64,
    /// Nothing is appended any more. Changed only under the log's lock.
    closed: AtomicBool,
    readers: Mutex<Readers>,
    reader_count: AtomicUsize,
    /// Set while the channel is in the wake task's queue.
    dirty: AtomicBool,
    /// Counts handles and subscriptions. At zero, a channel in a registry is idle.
    handles: AtomicUsize,
    /// Counts handles that can publish, if the channel closes with the last of them.
    pub(super) publishers: AtomicUsize,
    pub(crate) counters: Counters,
    /// How many entries the slowest reader had yet to read when the wake task last looked.
    lag: AtomicU64,
    pub(crate) snapshots: OnceLock<Snapshots>,
    /// The name of the snapshot event, if it differs from the one in the settings.
    pub(super) snapshot_name: OnceLock<Option<EventName>>,
    /// Set if a state channel uses this channel: then only the state channel may publish.
    pub(super) has_state_channel: AtomicBool,
    closed_at: OnceLock<Instant>,
    /// How often the log was locked.
    #[cfg(test)]
    pub(crate) locked: std::sync::atomic::AtomicUsize,
}

/// The readers of a channel, by a growing key. So a round misses none, visits those that join
/// during it last, and visits only those that are still there.
#[derive(Default)]
struct Readers {
    progress: BTreeMap<u64, Arc<CursorProgress>>,
    next: u64,
}

/// A woken reader has this long, in milliseconds, to read what the log held at that moment. After
/// that, it no longer counts as keeping up.
pub(crate) const PATIENCE: u64 = 3000;

/// How far one connection has read one channel.
#[derive(Debug)]
pub(crate) struct CursorProgress {
    reader: Arc<Reader>,
    /// The cursor's position, stored by its reader; [`NOT_BEGUN`] until the reader has found it.
    pub(crate) position: AtomicU64,
    /// The log's end when the reader was woken, and the time of that. Only the wake task uses
    /// them: once the reader has reached the goal, the task sets both again.
    goal: AtomicU64,
    since: AtomicU64,
    /// How long the reader may wait for a snapshot, in milliseconds; 0 if it does not wait. It
    /// needs every event after the snapshot, so it does not count as slow while it waits.
    pub(crate) waits: AtomicU64,
}

/// The position of a reader that has joined but not looked at the log yet.
const NOT_BEGUN: u64 = u64::MAX;

impl CursorProgress {
    /// The oldest position to keep for this reader; `None` if nothing needs to be kept.
    fn floor(&self, end: u64, now: u64) -> Option<u64> {
        let position = match self.position.load(Ordering::Relaxed) {
            // The reader may have found its position already without having stored it.
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

    /// How many entries this reader has yet to read.
    fn lag(&self, end: u64) -> u64 {
        match self.waits.load(Ordering::Relaxed) {
            0 => end.saturating_sub(self.position.load(Ordering::Relaxed)),
            _ => 0,
        }
    }
}

/// One pass over the readers of a channel, which either wakes them or only checks their positions.
#[derive(Debug)]
pub(crate) struct Round {
    /// The log's end when the round began.
    end: u64,
    /// Readers with smaller keys are woken. Readers that joined later found the news in the log.
    wake_until: u64,
    next: u64,
    /// The oldest position to keep for the readers visited so far.
    floor: u64,
    lag: u64,
}

/// Whether a [`Round`] is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There are more readers to visit.
    More,
    /// Done, but worth another look soon: some events are kept only for readers, or a reader has
    /// yet to catch up.
    Unsettled,
    Settled,
}

/// An encoded event. Its id's line belongs at `id_offset`.
pub(crate) struct EncodedEvent<'a> {
    pub(crate) bytes: &'a mut Vec<u8>,
    pub(crate) id_offset: IdOffset,
}

impl ChannelState {
    /// The first event follows the id `before`.
    pub(crate) fn new(name: &str, limits: Limits, before: EventId) -> Self {
        Self {
            name: name.into(),
            log: Mutex::new(Log::new(limits, before)),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            readers: Mutex::default(),
            reader_count: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
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

    /// How long the channel has been closed; `None` if it is open.
    pub(super) fn closed_for(&self, now: Instant) -> Option<std::time::Duration> {
        let closed = self.closed_at.get()?;
        Some(now.saturating_duration_since(*closed))
    }

    /// Whether the channel must stay in its registry. A channel with a snapshot stays until it is
    /// closed: if it were retired, the next lookup would create it without the snapshot.
    pub(crate) fn is_held(&self) -> bool {
        self.handles.load(Ordering::Acquire) > 0
            || self.snapshots.get().is_some() && !self.is_closed()
    }

    /// The name of this channel's snapshot event; without a name, the event goes to `onmessage`.
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

    /// Appends an event and signals the readers. The content of its buffer is unspecified
    /// afterwards.
    pub(crate) fn publish(
        self: &Arc<Self>,
        event: EncodedEvent<'_>,
        now: u64,
        clock: &Clock,
        wake: &Wake,
    ) -> Result<EventId, Error> {
        event.bytes.reserve(ID_LINE);
        let mut log = self.lock();
        let appended = self.append(&mut log, event, now, clock);
        drop(log);
        let (id, evicted) = appended?;
        drop(evicted);
        self.signal(wake);
        Ok(id)
    }

    /// Appends the last event, if any, and closes the channel, under one lock.
    pub(crate) fn close(
        self: &Arc<Self>,
        last: Option<EncodedEvent<'_>>,
        now: u64,
        clock: &Clock,
        wake: &Wake,
    ) -> Result<Option<EventId>, Error> {
        let mut log = self.lock();
        let appended = match last {
            Some(event) => self.append(&mut log, event, now, clock).map(Some),
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
        event: EncodedEvent<'_>,
        now: u64,
        clock: &Clock,
    ) -> Result<(EventId, Evicted), Error> {
        let EncodedEvent { bytes, id_offset } = event;
        let size = bytes.len();
        if self.is_closed() {
            return Err(self.closed_error());
        }
        if !log.fits(size + ID_LINE) {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "an event of {size} bytes exceeds the byte limit of {}",
                    self.described()
                ),
            ));
        }
        let version = self.version.load(Ordering::Relaxed);
        // Odd before the id is drawn: the draw is a release, so a reader that sees the id also
        // sees the odd version.
        self.version.store(version + 1, Ordering::Relaxed);
        let id = clock.draw();
        encode::id(bytes, |out| clock.write(id, out));
        let (fields, rest) = bytes.split_at(id_offset);
        let (data, id_line) = rest.split_at(size - id_offset);
        // A reader registers before it first takes this lock. So either it is counted here, or it
        // finds this event in the log.
        let evicted = log.append(id, &[fields, id_line, data], now, self.readers() > 0);
        self.version.store(version + 2, Ordering::Release);
        Ok((id, evicted))
    }

    fn closed_error(&self) -> Error {
        let message = format!("{} has been closed", self.described());
        Error::new(ErrorKind::Closed, message)
    }

    /// The channel in an error message. A stand-alone channel has no name.
    pub(super) fn described(&self) -> String {
        match self.name() {
            "" => "the channel".to_owned(),
            name => format!("channel {}", quoted(name)),
        }
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
        let remaining = self.reader_count.fetch_sub(1, Ordering::AcqRel) - 1;
        drop(progress);
        if remaining > 0 {
            return;
        }
        let mut log = self.lock();
        // A new reader may rely on the floor if it has joined and locked the log meanwhile.
        let evicted = (self.readers() == 0).then(|| log.drop_floor());
        drop(log);
        drop(evicted);
    }

    /// Called when the wake task has taken this channel from its queue, and before it takes any
    /// waker: a publisher that comes later queues the channel again.
    pub(crate) fn dequeued(&self) {
        self.dirty.swap(false, Ordering::AcqRel);
    }

    /// Begins a round that wakes all current readers.
    pub(crate) fn begin_round(&self) -> Round {
        // A reader that joins after this also locks the log after it, and finds the news there.
        let wake_until = lock(&self.readers).next;
        Round {
            wake_until,
            ..self.begin_look()
        }
    }

    /// Begins a round that wakes no readers.
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

    /// Visits a bounded number of readers and takes at most `most` wakers. After the last reader,
    /// the log releases what all readers that keep up have read.
    pub(crate) fn advance(
        &self,
        round: &mut Round,
        most: usize,
        now: u64,
        wakers: &mut Vec<Waker>,
    ) -> Progress {
        let most = wakers.len().saturating_add(most);
        let readers = lock(&self.readers);
        let from = round.next;
        for (visited, (key, progress)) in readers.progress.range(from..).enumerate() {
            if wakers.len() >= most || visited == READER_BATCH {
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
        // Under the lock, because the last reader to leave sets it to 0.
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

    /// Evicts events that are too old. Returns whether events are kept only for readers, so that a
    /// look at the readers may free some.
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

/// A channel in use: while a handle exists, the channel is not idle and stays in its hub.
#[derive(Debug)]
pub(crate) struct ChannelHandle {
    pub(crate) shared: Arc<Shared>,
    state: Arc<ChannelState>,
}

impl ChannelHandle {
    /// For a channel in a registry, call this under the registry's lock.
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<ChannelState>) -> Self {
        state.handles.fetch_add(1, Ordering::AcqRel);
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
        if self.state.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.registry.release(&self.state);
        }
    }
}
