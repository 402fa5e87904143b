//! [`Core`]: one channel without its type: the log, its readers, and the order in which they are
//! touched.
//!
//! Lock order: a hub's registry, then `log`; `readers` is taken alone. No code of a user, no
//! waker and no `Serialize` runs under any of them (law 8).

use std::{ops::Deref, sync::OnceLock, task::Waker};

use slab::Slab;

use super::{
    Settings, Shared,
    clock::Clock,
    wake::{Reader, Wake},
};
use crate::{
    error::{Error, ErrorKind},
    event::EventName,
    frame::{self, IdPlace},
    id::EventId,
    log::{Evicted, Limits, Log},
    snapshot::Snapshots,
    stats::Counters,
    sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
};

/// Slots of the readers' list that are looked at under one lock.
const SLOTS: usize = 4096;

/// The most bytes that are written under the log's lock: an id's line (law 1).
const ID_LINE: usize = 64;

pub(crate) struct Core {
    name: Box<str>,
    log: Mutex<Log>,
    /// Odd while an id is drawn whose event is not in the log yet; another number after each
    /// append. Changed under the log's lock only, read without it: a reader whose last look saw
    /// this very number, and that loaded the clock before, knows that nothing new is here.
    version: AtomicU64,
    /// Nothing is appended any more. Changed under the log's lock only.
    closed: AtomicBool,
    readers: Mutex<Slab<Arc<Place>>>,
    reader_count: AtomicUsize,
    /// Set while the channel stands in the wake task's queue.
    dirty: AtomicBool,
    /// What this round has found so far to be kept for readers.
    floor: AtomicU64,
    /// Handles and subscriptions. At zero, a channel in a registry is idle.
    held: AtomicUsize,
    pub(crate) counters: Counters,
    /// Entries that the slowest reader had in front of it when the last wake round came by.
    lag: AtomicU64,
    pub(crate) snapshots: OnceLock<Snapshots>,
    /// The name of this channel's snapshot event, where it is not the hub's.
    pub(crate) snapshot_name: OnceLock<Option<EventName>>,
    /// How often the log was locked.
    #[cfg(test)]
    pub(crate) locked: std::sync::atomic::AtomicUsize,
}

/// How long a reader may take to read what was there when it was woken, before it no longer
/// counts as one that keeps up. In milliseconds.
pub(crate) const PATIENCE: u64 = 3000;

/// Where one connection stands in one channel.
#[derive(Debug)]
pub(crate) struct Place {
    reader: Arc<Reader>,
    /// The cursor's position, as its reader says.
    pub(crate) position: AtomicU64,
    /// The log's end when the reader was woken, and when that was. The wake task's own; it sets
    /// both anew when the reader has got there.
    goal: AtomicU64,
    since: AtomicU64,
    /// The reader waits for a snapshot, after which it wants every event: it is not slow.
    pub(crate) waits: AtomicBool,
}

impl Place {
    /// What is to be kept for this reader: everything from here on, if anything.
    fn floor(&self, end: u64, now: u64) -> Option<u64> {
        let position = self.position.load(Ordering::Relaxed);
        if position >= end {
            return None;
        }
        if position >= self.goal.load(Ordering::Relaxed) {
            self.goal.store(end, Ordering::Relaxed);
            self.since.store(now, Ordering::Relaxed);
            return Some(position);
        }
        let waited = now.saturating_sub(self.since.load(Ordering::Relaxed));
        let is_patient = waited < PATIENCE || self.waits.load(Ordering::Relaxed);
        is_patient.then_some(position)
    }
}

/// A framed event; its id's line belongs at `place`.
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a mut Vec<u8>,
    pub(crate) place: IdPlace,
}

impl Core {
    /// `before` is the id that a first event follows.
    pub(crate) fn new(name: &str, limits: Limits, before: EventId) -> Self {
        Self {
            name: name.into(),
            log: Mutex::new(Log::new(limits, before)),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            readers: Mutex::new(Slab::new()),
            reader_count: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
            floor: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            counters: Counters::default(),
            lag: AtomicU64::new(0),
            snapshots: OnceLock::new(),
            snapshot_name: OnceLock::new(),
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

    /// The name of this channel's snapshot event; `None` if it has none.
    pub(crate) fn snapshot_name<'a>(&'a self, settings: &'a Settings) -> Option<&'a EventName> {
        self.snapshot_name
            .get()
            .unwrap_or(&settings.snapshot)
            .as_ref()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
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
        frame: Frame<'_>,
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
        last: Option<Frame<'_>>,
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
        frame: Frame<'_>,
        now: u64,
        clock: &Clock,
    ) -> Result<(EventId, Evicted), Error> {
        let Frame { bytes, place } = frame;
        let size = bytes.len();
        if self.is_closed() {
            return Err(self.closed_error());
        }
        if !log.takes(size + ID_LINE) {
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
        frame::id(bytes, |out| clock.write(id, out));
        let (head, rest) = bytes.split_at(place);
        let (data, id_line) = rest.split_at(size - place);
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

    pub(crate) fn add_reader(&self, reader: Arc<Reader>) -> (usize, Arc<Place>) {
        let place = Arc::new(Place {
            reader,
            position: AtomicU64::new(u64::MAX),
            goal: AtomicU64::new(0),
            since: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        });
        self.reader_count.fetch_add(1, Ordering::AcqRel);
        (lock(&self.readers).insert(place.clone()), place)
    }

    pub(crate) fn remove_reader(&self, key: usize) {
        let mut readers = lock(&self.readers);
        let place = readers.try_remove(key);
        // A round looks at every slot, and a slab does not shrink by itself.
        if readers.is_empty() {
            readers.shrink_to_fit();
        }
        drop(readers);
        let left = self.reader_count.fetch_sub(1, Ordering::AcqRel) - 1;
        drop(place);
        if left > 0 {
            return;
        }
        let mut log = self.lock();
        // One that has come meanwhile may stand in the floor, if it locked the log before.
        let evicted = (self.readers() == 0).then(|| log.drop_floor());
        drop(log);
        drop(evicted);
    }

    /// The wake task has taken this channel from its queue. Returns the log's end.
    pub(crate) fn begin_round(&self) -> u64 {
        // Before the wakers are taken: a publisher that comes later queues the channel anew.
        self.dirty.swap(false, Ordering::AcqRel);
        self.lag.store(0, Ordering::Relaxed);
        let end = self.lock().end();
        self.floor.store(end, Ordering::Relaxed);
        end
    }

    /// Takes the wakers of at most `most` readers, from slot `from` on. Returns where to go on;
    /// behind the last reader, what all that keep up have read is let go.
    pub(crate) fn take_wakers(
        &self,
        end: u64,
        from: usize,
        most: usize,
        now: u64,
        wakers: &mut Vec<Waker>,
    ) -> Option<usize> {
        let readers = lock(&self.readers);
        let mut lag = 0;
        let mut taken = 0;
        let mut next = None;
        for key in from..readers.capacity() {
            if taken == most || key - from == SLOTS {
                next = Some(key);
                break;
            }
            if let Some(place) = readers.get(key) {
                taken += 1;
                lag = lag.max(end.saturating_sub(place.position.load(Ordering::Relaxed)));
                if let Some(floor) = place.floor(end, now) {
                    self.floor.fetch_min(floor, Ordering::Relaxed);
                }
                wakers.extend(place.reader.waker.take());
            }
        }
        drop(readers);
        self.lag.fetch_max(lag, Ordering::Relaxed);
        if next.is_none() {
            let floor = self.floor.load(Ordering::Relaxed);
            let evicted = self.lock().keep_from(floor);
            drop(evicted);
        }
        next
    }

    /// Forgets what has grown too old, and what all readers that keep up have read: after the
    /// last event there is no wake round that would.
    ///
    /// The two times are the hub's and the wake task's.
    pub(crate) fn sweep(&self, now: u64, wake_now: u64) {
        let mut log = self.lock();
        let evicted = log.expire(now);
        let end = log.has_floor().then(|| log.end());
        drop(log);
        drop(evicted);
        let Some(end) = end else { return };
        let floor = {
            let readers = lock(&self.readers);
            let floors = readers.iter();
            let floors = floors.filter_map(|(_, place)| place.floor(end, wake_now));
            floors.min().unwrap_or(end)
        };
        let evicted = self.lock().keep_from(floor);
        drop(evicted);
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A channel that somebody uses: it is not idle, and stays in its hub.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) shared: Arc<Shared>,
    core: Arc<Core>,
}

impl Held {
    /// For a channel in a registry, to be called under the registry's lock.
    pub(crate) fn new(shared: Arc<Shared>, core: Arc<Core>) -> Self {
        core.held.fetch_add(1, Ordering::AcqRel);
        Self { shared, core }
    }
}

impl Deref for Held {
    type Target = Arc<Core>;

    fn deref(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.core.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.core.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.registry.release(&self.core);
        }
    }
}
