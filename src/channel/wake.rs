//! The hub's one task: it wakes readers when there is news, and when a heartbeat is due.
//!
//! A publisher appends and signals, and never wakes a client itself (law 10). The task takes the
//! channels with news and wakes their readers in slices that all of them share (`rounds.rs`), and
//! so do the readers whose heartbeat is due. After each slice it goes to the end of the line, so
//! that more events arrive meanwhile and each reader picks up all of them in one write.
//!
//! The task starts with the first poll of a subscription, on that runtime, and ends with the
//! last subscriber. It holds nothing of the hub but this module's [`Wake`]. If its runtime dies
//! under it, a guard says so and wakes all readers; the next one that is polled starts the task
//! anew, on a runtime that lives (law 12).
//!
//! With every tick it also sweeps a few channels: see [`Shared::sweep`]. No step takes longer the
//! more channels or readers there are, but for the wheel, which looks at a sixteenth of the
//! readers in each tick.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::AtomicUsize,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::{
    channel::{rounds::Rounds, shared::Shared, state::ChannelState},
    sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, WakerSlot, Weak, lock},
};

/// Ticks in a heartbeat's interval: a heartbeat is at most one tick late, unless more are due in
/// one tick than [`Wake::most_beats`] allows.
const TICKS: u64 = 16;

/// A reader's due tick is at most this far ahead; one more than [`TICKS`], since the tick in
/// which it wrote had begun already, and a heartbeat must not be early.
const AHEAD: u64 = TICKS + 1;

/// Readers woken in one go, before other tasks get their turn: half of what the queue of a tokio
/// worker takes, since what does not fit is run late. In loom's models, two readers make a round
/// of two slices.
pub(super) const SLICE: usize = if cfg!(all(test, axum_sse_loom)) {
    1
} else {
    128
};

/// How often the task looks around when heartbeats are off.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// What the task knows of one connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) waker: WakerSlot,
    /// The tick at which a heartbeat is due if nothing is written until then.
    due: AtomicU64,
    /// The task asks for a heartbeat.
    beat: AtomicBool,
    /// Where the wheel holds it. Only used under the lock of the wheel, so these are std's
    /// atomics also in loom's models.
    slot: AtomicUsize,
    index: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Wake {
    tick_length: Duration,
    beats: bool,
    coalesce: Duration,
    epoch: Instant,
    tick: AtomicU64,
    /// The first publisher after the task went idle sets it and wakes the task.
    signalled: AtomicBool,
    task: WakerSlot,
    /// The task died with its runtime. Checked by every reader before it goes to sleep.
    orphaned: AtomicBool,
    pub(super) queue: Mutex<VecDeque<Arc<ChannelState>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    readers: usize,
    /// The last tick whose slot was looked at.
    visited: u64,
    /// Readers by the tick at which they are looked at next, modulo the length of the wheel.
    wheel: Vec<Vec<Arc<Reader>>>,
}

impl State {
    fn slot_of(&self, tick: u64) -> usize {
        let slots = self.wheel.len() as u64;
        usize::try_from(tick % slots).unwrap_or(0)
    }

    fn put(&mut self, tick: u64, reader: Arc<Reader>) {
        let at = self.slot_of(tick);
        let slot = &mut self.wheel[at];
        reader.slot.store(at, Ordering::Relaxed);
        reader.index.store(slot.len(), Ordering::Relaxed);
        slot.push(reader);
    }

    fn remove(&mut self, reader: &Reader) -> Option<Arc<Reader>> {
        let slot = self.wheel.get_mut(reader.slot.load(Ordering::Relaxed))?;
        let index = reader.index.load(Ordering::Relaxed);
        if !slot
            .get(index)
            .is_some_and(|at| std::ptr::eq(&**at, reader))
        {
            return None;
        }
        let removed = slot.swap_remove(index);
        if let Some(moved) = slot.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
        // Its turn may come in an hour only.
        if slot.len() < slot.capacity() / 4 {
            slot.shrink_to(2 * slot.len());
        }
        Some(removed)
    }
}

impl Wake {
    /// `heartbeat` is the interval, if there are any; `coalesce` the least time between two
    /// wake rounds.
    pub(crate) fn new(heartbeat: Option<Duration>, coalesce: Duration) -> Self {
        let slots = usize::try_from(AHEAD).unwrap_or(0) + 1;
        Self {
            tick_length: heartbeat.map_or(IDLE_TICK, |every| every / 16),
            beats: heartbeat.is_some(),
            coalesce,
            epoch: Instant::now(),
            tick: AtomicU64::new(0),
            signalled: AtomicBool::new(false),
            task: WakerSlot::default(),
            orphaned: AtomicBool::new(false),
            queue: Mutex::default(),
            state: Mutex::new(State {
                running: false,
                readers: 0,
                visited: 0,
                wheel: vec![Vec::new(); slots],
            }),
        }
    }

    /// A new reader, for which the task is to be running.
    pub(crate) fn register(&self) -> Arc<Reader> {
        let reader = Arc::new(Reader::default());
        let tick = self.tick_at(Instant::now());
        reader.due.store(tick + AHEAD, Ordering::Relaxed);
        // Nobody counted while there were no readers.
        self.tick.fetch_max(tick, Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.readers += 1;
        state.put(tick + AHEAD, reader.clone());
        drop(state);
        reader
    }

    /// Connections that are open.
    pub(crate) fn readers(&self) -> usize {
        lock(&self.state).readers
    }

    pub(crate) fn unregister(&self, reader: &Reader) {
        let mut state = lock(&self.state);
        let removed = state.remove(reader);
        state.readers -= 1;
        let last = state.readers == 0;
        drop(state);
        drop(removed);
        // A waker's drop is foreign code, which may not run under the lock.
        drop(reader.waker.take());
        if last {
            self.signal();
        }
    }

    /// Something was written: the next heartbeat is due a whole interval from now.
    pub(crate) fn wrote(&self, reader: &Reader) {
        // A heartbeat that was asked for and not sent yet would be early now.
        reader.beat.store(false, Ordering::Relaxed);
        // Never earlier than it was: until a task that has just been started takes its first
        // look at the time, `tick` is that of the one before.
        reader
            .due
            .fetch_max(self.tick.load(Ordering::Relaxed) + AHEAD, Ordering::Relaxed);
    }

    /// Whether a heartbeat is due; asked once per heartbeat.
    pub(crate) fn beat(&self, reader: &Reader) -> bool {
        reader.beat.load(Ordering::Relaxed) && reader.beat.swap(false, Ordering::AcqRel)
    }

    /// To be asked by a reader after it stored its waker and before it sleeps: is there somebody
    /// who will wake it?
    pub(crate) fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
    }

    /// Puts a channel with news in the task's queue. The channel's `dirty` flag has just been set
    /// by the caller, so that a channel is queued at most once.
    pub(crate) fn enqueue(&self, state: Arc<ChannelState>) {
        lock(&self.queue).push_back(state);
        self.signal();
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel)
            && let Some(task) = self.task.take()
        {
            task.wake();
        }
    }

    /// Starts the task if it is not running, on the runtime of the caller.
    pub(crate) fn ensure_running(self: &Arc<Self>, shared: &Arc<Shared>) {
        let runtime = tokio::runtime::Handle::try_current().ok();
        if !self.claim(runtime.is_some()) {
            return;
        }
        let Some(runtime) = runtime else {
            return;
        };
        // Made before the spawn: a runtime that is shutting down drops the task unpolled, and
        // the guard with it.
        let guard = Guard::new(self.clone());
        // Here and not in the task: on a runtime without timers this panics, and a task that
        // did would be started over and over.
        let ticks = self.ticks();
        runtime.spawn(run(guard, ticks, Arc::downgrade(shared)));
    }

    fn ticks(&self) -> Interval {
        let started = u32::try_from(self.tick_at(Instant::now())).unwrap_or(0);
        let start = self.epoch + self.tick_length * started;
        let mut ticks = tokio::time::interval_at(start, self.tick_length);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    /// Whether the caller is to start the task; if so, it counts as running from now on.
    ///
    /// Without a runtime there is nothing to run it on; a body polled there stays without
    /// heartbeats, and is woken once somebody else starts the task.
    pub(super) fn claim(&self, has_runtime: bool) -> bool {
        let mut state = lock(&self.state);
        if state.running || state.readers == 0 {
            return false;
        }
        state.running = has_runtime;
        self.orphaned.store(!has_runtime, Ordering::Release);
        has_runtime
    }

    /// Whether somebody has signalled since the last time. If not, the task may sleep.
    pub(super) fn has_signal(&self, cx: &Context<'_>) -> bool {
        self.task.store(cx.waker());
        self.signalled.swap(false, Ordering::AcqRel)
    }

    /// Whether the task may end; if so, it counts as ended from now on.
    pub(super) fn stop_if_idle(&self) -> bool {
        let mut state = lock(&self.state);
        if state.readers == 0 {
            state.running = false;
        }
        !state.running
    }

    /// Milliseconds on a clock of its own.
    pub(super) fn now(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn tick_at(&self, now: Instant) -> u64 {
        let ticks = now.saturating_duration_since(self.epoch).as_nanos()
            / self.tick_length.as_nanos().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// How many heartbeats are asked for in one tick: twice the mean if all connections are
    /// silent. After an event that reached all of them, all are due at once; the rest waits for
    /// the next ticks, and from then on they are apart.
    fn most_beats(readers: usize) -> usize {
        let mean = readers / usize::try_from(AHEAD).unwrap_or(1);
        (2 * mean).max(SLICE)
    }

    /// Takes the wakers of readers whose heartbeat is due, and moves the others to where they are
    /// due. Only looks at one slot per tick.
    fn turn_wheel(&self, wakers: &mut VecDeque<Waker>) {
        let now = self.tick_at(Instant::now());
        let mut state = lock(&self.state);
        self.tick.fetch_max(now, Ordering::Relaxed);
        let last = std::mem::replace(&mut state.visited, now);
        let behind = now.saturating_sub(last).min(AHEAD + 1);
        let mut left = Self::most_beats(state.readers);
        for tick in (now - behind + 1)..=now {
            let slot = state.slot_of(tick);
            for reader in std::mem::take(&mut state.wheel[slot]) {
                let due = reader.due.load(Ordering::Relaxed);
                let next = if due > tick {
                    due
                } else if self.beats && left == 0 {
                    now + 1
                } else {
                    if self.beats {
                        left -= 1;
                        reader.beat.store(true, Ordering::Release);
                        wakers.extend(reader.waker.take());
                    }
                    reader.due.store(now + AHEAD, Ordering::Relaxed);
                    now + AHEAD
                };
                state.put(next, reader);
            }
        }
    }
}

/// Says so when the task goes without having been told to.
pub(super) struct Guard {
    wake: Arc<Wake>,
    armed: bool,
    /// Taken from their readers and not woken yet.
    wakers: Vec<Waker>,
    /// The same of those whose heartbeat is due; they wait for their slice.
    beats: VecDeque<Waker>,
}

impl Guard {
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self {
            wake,
            armed: true,
            wakers: Vec::new(),
            beats: VecDeque::new(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let mut state = lock(&self.wake.state);
        state.running = false;
        self.wake.orphaned.store(true, Ordering::Release);
        let readers: Vec<_> = state.wheel.iter().flatten().cloned().collect();
        drop(state);
        self.wakers.drain(..).for_each(Waker::wake);
        self.beats.drain(..).for_each(Waker::wake);
        for reader in readers {
            if let Some(waker) = reader.waker.take() {
                waker.wake();
            }
        }
    }
}

enum Turn {
    Tick,
    Work,
}

async fn run(mut guard: Guard, mut ticks: Interval, shared: Weak<Shared>) {
    let wake = guard.wake.clone();
    let mut pause = pin!(tokio::time::sleep(Duration::ZERO));
    let mut rounds = Rounds::new(wake.coalesce);
    #[cfg(feature = "metrics")]
    let mut tally: Option<super::shared::Tally> = None;

    loop {
        #[cfg(feature = "metrics")]
        let tallies = tally.is_some();
        #[cfg(not(feature = "metrics"))]
        let tallies = false;
        // Ticks come first: a flood of events does not keep heartbeats from idle connections.
        let turn = poll_fn(|cx| {
            if ticks.poll_tick(cx).is_ready() {
                return Poll::Ready(Turn::Tick);
            }
            if tallies || !guard.beats.is_empty() || rounds.has_work() || wake.has_signal(cx) {
                return Poll::Ready(Turn::Work);
            }
            let Some(rested) = rounds.next_rested() else {
                return Poll::Pending;
            };
            if pause.deadline() != rested {
                pause.as_mut().reset(rested);
            }
            pause.as_mut().poll(cx).map(|()| Turn::Work)
        })
        .await;
        match turn {
            Turn::Tick => {
                wake.turn_wheel(&mut guard.beats);
                rounds.look_now();
                if let Some(shared) = shared.upgrade() {
                    for state in shared.sweep() {
                        rounds.look_later(state);
                    }
                    #[cfg(feature = "metrics")]
                    if wake.tick.load(Ordering::Relaxed).is_multiple_of(TICKS) && !tallies {
                        tally = shared.is_reported().then(super::shared::Tally::default);
                    }
                }
            }
            Turn::Work => {
                // Also before the end: a channel that stayed in the queue would count as queued
                // for ever, and the task's next life would not hear of its news.
                rounds.take_news(&wake);
                if !rounds.has_rounds() && guard.beats.is_empty() && wake.stop_if_idle() {
                    guard.armed = false;
                    // Once more, or the last subscriber would stand there for ever.
                    #[cfg(feature = "metrics")]
                    {
                        if shared.upgrade().is_some_and(|shared| shared.is_reported()) {
                            tally = Some(super::shared::Tally::default());
                        }
                        while let (Some(_), Some(shared)) = (&tally, shared.upgrade()) {
                            tally_on(&mut tally, &shared);
                            drop(shared);
                            yield_fairly().await;
                        }
                    }
                    return;
                }
                rounds.wake_rested(Instant::now());
                rounds.next_slice(wake.now(), &mut guard.beats, &mut guard.wakers);
                #[cfg(feature = "metrics")]
                match shared.upgrade() {
                    Some(shared) => tally_on(&mut tally, &shared),
                    None => tally = None,
                }
                // In their order; if one panics, the guard has the rest.
                guard.wakers.reverse();
                while let Some(waker) = guard.wakers.pop() {
                    waker.wake();
                }
                // The last reader may have left while there was work to do, and its signal is used
                // up.
                if wake.readers() == 0 {
                    wake.signalled.store(true, Ordering::Release);
                }
                // After the last slice, too: whoever was woken should read before the next round.
                yield_fairly().await;
            }
        }
    }
}

/// Counts some more channels, and reports behind the last.
#[cfg(feature = "metrics")]
fn tally_on(tally: &mut Option<super::shared::Tally>, shared: &Shared) {
    if let Some(counting) = tally
        && let Some(stats) = shared.tally(counting)
    {
        crate::channel::metrics::report(&shared.settings.name, || stats);
        *tally = None;
    }
}

/// Lets the tasks run that are ready now, those first that have just been woken.
///
/// tokio's `yield_now` does not: it wakes the task with the next look at the driver, in front of
/// all that wait by then. A task that wakes itself goes to the end of the line.
pub(super) async fn yield_fairly() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn in_wheel(wake: &Wake) -> (usize, usize) {
        let state = lock(&wake.state);
        let all = state.wheel.iter();
        let capacity = all.clone().map(Vec::capacity).sum();
        (all.map(Vec::len).sum(), capacity)
    }

    /// Whatever the interval: nobody is kept until the wheel comes round.
    #[tokio::test(start_paused = true)]
    async fn the_wheel_keeps_nobody_who_has_gone() {
        let wake = Wake::new(Some(Duration::from_secs(3600)), Duration::ZERO);
        let staying: Vec<_> = (0..10).map(|_| wake.register()).collect();
        for _ in 0..1000 {
            let reader = wake.register();
            tokio::time::advance(Duration::from_secs(1)).await;
            wake.unregister(&reader);
            assert_eq!(Arc::strong_count(&reader), 1);
        }
        assert_eq!(in_wheel(&wake).0, 10);
        let crowd: Vec<_> = (0..10_000).map(|_| wake.register()).collect();
        assert_eq!(in_wheel(&wake).0, 10_010);
        // From the middle, both ends, and while it turns.
        for (at, reader) in crowd.iter().enumerate() {
            wake.unregister(reader);
            if at % 1000 == 0 {
                tokio::time::advance(Duration::from_secs(600)).await;
                wake.turn_wheel(&mut VecDeque::new());
            }
        }
        let (readers, capacity) = in_wheel(&wake);
        assert_eq!(readers, 10);
        assert!(capacity < 200, "{capacity}");
        assert!(staying.iter().all(|it| Arc::strong_count(it) == 2));
        for reader in &staying {
            wake.unregister(reader);
        }
        assert_eq!(in_wheel(&wake).0, 0);
    }
}
