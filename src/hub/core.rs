//! [`Core`]: one channel without its type: the log, its readers, and the order in which they are
//! touched.
//!
//! Lock order: a hub's map, then `log`; `readers` is taken alone. No code of a user, no waker and
//! no `Serialize` runs under any of them (law 8).

use slab::Slab;

use super::{clock::Clock, wake::Reader, wake::Wake};
use crate::{
    error::{Error, ErrorKind},
    frame::{self, IdPlace},
    id::{EventId, MAX_LEN},
    log::{Evicted, Limits, Log},
    sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
};
use std::task::Waker;

/// The bytes of an id's line that are written under the log's lock (law 1).
const ID_LINE: usize = MAX_LEN + 5;

#[derive(Debug)]
pub(crate) struct Core {
    name: Box<str>,
    log: Mutex<Log>,
    /// Odd while an id is drawn whose event is not in the log yet; another number after each
    /// append. Changed under the log's lock only, read without it: a reader whose last look saw
    /// this very number, and that loaded the clock before, knows that nothing new is here.
    version: AtomicU64,
    readers: Mutex<Slab<Arc<Reader>>>,
    reader_count: AtomicUsize,
    /// Set while the channel stands in the wake task's queue.
    dirty: AtomicBool,
}

impl Core {
    /// `before` is the id that a first event follows.
    pub(crate) fn new(name: &str, limits: Limits, before: EventId) -> Self {
        Self {
            name: name.into(),
            log: Mutex::new(Log::new(limits, before)),
            version: AtomicU64::new(0),
            readers: Mutex::default(),
            reader_count: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Appends a framed event whose id's line belongs at `place`, and signals the readers. What
    /// `frame` holds afterwards is of no use to anyone.
    pub(crate) fn publish(
        self: &Arc<Self>,
        frame: &mut Vec<u8>,
        place: IdPlace,
        now: u64,
        clock: &Clock,
        wake: &Wake,
    ) -> Result<EventId, Error> {
        let size = frame.len();
        frame.reserve(ID_LINE);
        let mut log = self.lock();
        if !log.takes(size + ID_LINE) {
            drop(log);
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
        frame::id(frame, |out| id.write(out));
        let (head, rest) = frame.split_at(place);
        let (data, id_line) = rest.split_at(size - place);
        // A reader registers before it takes this lock for the first time. So either it is
        // counted here, or it will find this event in the log.
        let readers = self.reader_count.load(Ordering::Acquire) > 0;
        let evicted = log.append(id, &[head, id_line, data], now, readers);
        self.version.store(version + 2, Ordering::Release);
        drop(log);
        drop(evicted);
        if readers && !self.dirty.swap(true, Ordering::AcqRel) {
            wake.enqueue(self.clone());
        }
        Ok(id)
    }

    pub(crate) fn add_reader(&self, reader: Arc<Reader>) -> usize {
        self.reader_count.fetch_add(1, Ordering::AcqRel);
        lock(&self.readers).insert(reader)
    }

    pub(crate) fn remove_reader(&self, key: usize) {
        let reader = lock(&self.readers).try_remove(key);
        self.reader_count.fetch_sub(1, Ordering::AcqRel);
        drop(reader);
    }

    /// The wake task has taken this channel from its queue.
    pub(crate) fn begin_round(&self) {
        // Before the wakers are taken: a publisher that comes later queues the channel anew.
        self.dirty.swap(false, Ordering::AcqRel);
        let evicted: Evicted = self.lock().begin_round();
        drop(evicted);
    }

    /// Takes the wakers of at most `most` readers, from slot `from` on. Returns where to go on.
    pub(crate) fn take_wakers(
        &self,
        from: usize,
        most: usize,
        wakers: &mut Vec<Waker>,
    ) -> Option<usize> {
        let readers = lock(&self.readers);
        let mut taken = 0;
        for key in from..readers.capacity() {
            if taken == most {
                return Some(key);
            }
            if let Some(reader) = readers.get(key) {
                taken += 1;
                wakers.extend(reader.waker.take());
            }
        }
        None
    }
}
