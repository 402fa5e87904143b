//! The hub's one task: it wakes readers when there is news and when a heartbeat is due.
//!
//! A publisher appends and signals, but never wakes a client itself (law 10). The task takes the
//! channels with news and wakes their readers in slices that all these channels share
//! (`rounds.rs`), together with the readers whose heartbeat is due (`heartbeats.rs`). After each slice, the task
//! yields to all ready tasks. More events arrive meanwhile, and each reader picks up all of them
//! in one write.
//!
//! The first poll of a subscription starts the task on its runtime, and the task ends with the
//! last subscriber. It owns nothing of the hub except this module's [`Wake`]. If its runtime dies,
//! a guard marks the task as gone and wakes all readers; the next one to be polled starts the task
//! again on its own runtime (law 12).
//!
//! On every tick, the task also sweeps a few channels: see [`Shared::sweep`]. The cost of a step
//! does not grow with the number of channels or readers, except for the wheel, which visits a
//! sixteenth of the readers in each tick.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::{
    channel::{
        heartbeats::{Timer, Wheel},
        rounds::Rounds,
        shared::Shared,
        state::ChannelState,
    },
    sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, WakerSlot, Weak, lock},
};

/// How many readers are woken before other tasks run: half the capacity of a tokio worker's queue,
/// because tasks that overflow it run late. In loom's models, a round over two readers takes two
/// slices.
pub(super) const SLICE: usize = if cfg!(all(test, axum_sse_loom)) {
    1
} else {
    128
};

/// The length of a tick when heartbeats are off.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// What the task knows of one connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) waker: WakerSlot,
    pub(super) timer: Timer,
}

#[derive(Debug)]
pub(crate) struct Wake {
    tick_length: Duration,
    beats: bool,
    coalesce: Duration,
    started: Instant,
    tick: AtomicU64,
    /// Set by every signal. The one that finds it clear wakes the task.
    signalled: AtomicBool,
    task: WakerSlot,
    /// Readers are without a task: it died with its runtime, or had no runtime to start on. Every
    /// reader checks this before it sleeps.
    orphaned: AtomicBool,
    pub(super) queue: Mutex<VecDeque<Arc<ChannelState>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: bool,
    readers: usize,
    wheel: Wheel,
}

impl Wake {
    /// `heartbeat` is the interval of heartbeats, if they are on; `coalesce` is the least time
    /// between two wake rounds.
    pub(crate) fn new(heartbeat: Option<Duration>, coalesce: Duration) -> Self {
        Self {
            tick_length: heartbeat.map_or(IDLE_TICK, |every| every / 16),
            beats: heartbeat.is_some(),
            coalesce,
            started: Instant::now(),
            tick: AtomicU64::new(0),
            signalled: AtomicBool::new(false),
            task: WakerSlot::default(),
            orphaned: AtomicBool::new(false),
            queue: Mutex::default(),
            state: Mutex::new(State {
                running: false,
                readers: 0,
                wheel: Wheel::new(),
            }),
        }
    }

    /// Adds a reader, for which the task must run: see [`Wake::ensure_running`].
    pub(crate) fn register(&self) -> Arc<Reader> {
        let reader = Arc::new(Reader::default());
        let tick = self.tick_at(Instant::now());
        // No task counted ticks while there were no readers.
        self.tick.fetch_max(tick, Ordering::Relaxed);
        let mut state = lock(&self.state);
        state.readers += 1;
        state.wheel.add(tick, reader.clone());
        drop(state);
        reader
    }

    /// The number of open connections.
    pub(crate) fn readers(&self) -> usize {
        lock(&self.state).readers
    }

    pub(crate) fn unregister(&self, reader: &Reader) {
        let mut state = lock(&self.state);
        let removed = state.wheel.remove(reader);
        state.readers -= 1;
        let last = state.readers == 0;
        drop(state);
        drop(removed);
        // Dropping a waker runs foreign code, which must not run under the lock.
        drop(reader.waker.take());
        if last {
            self.signal();
        }
    }

    /// Called after a write: the next heartbeat is due a whole interval from now.
    pub(crate) fn wrote(&self, reader: &Reader) {
        reader.timer.wrote(self.tick.load(Ordering::Relaxed));
    }

    /// Whether a heartbeat is due. Reports each one once.
    pub(crate) fn beat(&self, reader: &Reader) -> bool {
        reader.timer.take_beat()
    }

    /// Whether there is no task that would wake a reader. A reader checks this after it has stored
    /// its waker and before it sleeps.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
    }

    /// Puts a channel with news in the task's queue. The caller has just set the channel's `dirty`
    /// flag, so a channel is queued at most once.
    pub(crate) fn enqueue(&self, channel: Arc<ChannelState>) {
        lock(&self.queue).push_back(channel);
        self.signal();
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel)
            && let Some(task) = self.task.take()
        {
            task.wake();
        }
    }

    /// Starts the task on the caller's runtime if it is not running.
    pub(crate) fn ensure_running(self: &Arc<Self>, shared: &Arc<Shared>) {
        let runtime = tokio::runtime::Handle::try_current().ok();
        if !self.claim(runtime.is_some()) {
            return;
        }
        let Some(runtime) = runtime else {
            return;
        };
        // Created before the spawn: a runtime that is shutting down drops the task unpolled, and
        // the guard with it.
        let guard = Guard::new(self.clone());
        // Here and not in the task: this panics on a runtime without timers, and a task that
        // panicked would be restarted forever.
        let ticks = self.ticks();
        runtime.spawn(run(guard, ticks, Arc::downgrade(shared)));
    }

    fn ticks(&self) -> Interval {
        let elapsed = u32::try_from(self.tick_at(Instant::now())).unwrap_or(0);
        let start = self.started + self.tick_length * elapsed;
        let mut ticks = tokio::time::interval_at(start, self.tick_length);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    /// Whether the caller must start the task. If so, the task counts as running from now on.
    ///
    /// Without a runtime, the task cannot start: a body that is polled there gets no heartbeats,
    /// and is only woken once another caller has started the task.
    pub(super) fn claim(&self, has_runtime: bool) -> bool {
        let mut state = lock(&self.state);
        if state.running || state.readers == 0 {
            return false;
        }
        state.running = has_runtime;
        self.orphaned.store(!has_runtime, Ordering::Release);
        has_runtime
    }

    /// Whether there has been a signal since the last call. If not, the task may sleep.
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

    /// Milliseconds since this [`Wake`] was created.
    pub(super) fn now(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn tick_at(&self, now: Instant) -> u64 {
        let ticks = now.saturating_duration_since(self.started).as_nanos()
            / self.tick_length.as_nanos().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn turn_wheel(&self, wakers: &mut VecDeque<Waker>) {
        let now = self.tick_at(Instant::now());
        let mut state = lock(&self.state);
        self.tick.fetch_max(now, Ordering::Relaxed);
        let readers = state.readers;
        state.wheel.turn(now, self.beats, readers, wakers);
    }
}

/// Owned by the task. If the task is dropped before it has ended properly, the guard marks it as
/// gone and wakes all readers.
pub(super) struct Guard {
    wake: Arc<Wake>,
    armed: bool,
    /// Taken from their readers but not woken yet.
    wakers: Vec<Waker>,
    /// Wakers of readers whose heartbeat is due, not yet part of a slice.
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
        let readers: Vec<_> = state.wheel.readers().cloned().collect();
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
        // Ticks come first, so that a flood of events does not delay the heartbeats of idle
        // connections.
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
                    for channel in shared.sweep() {
                        rounds.look_later(channel);
                    }
                    #[cfg(feature = "metrics")]
                    if wake
                        .tick
                        .load(Ordering::Relaxed)
                        .is_multiple_of(super::heartbeats::TICKS)
                        && !tallies
                    {
                        tally = shared.is_reported().then(super::shared::Tally::default);
                    }
                }
            }
            Turn::Work => {
                // Also before the task ends: a channel left in the queue would count as queued
                // forever, and the next task would miss its news.
                rounds.take_news(&wake);
                if !rounds.has_rounds() && guard.beats.is_empty() && wake.stop_if_idle() {
                    guard.armed = false;
                    // Report once more so that the gauge drops to zero.
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
                // Reversed and popped, which keeps their order; if a waker panics, the guard has
                // the rest.
                guard.wakers.reverse();
                while let Some(waker) = guard.wakers.pop() {
                    waker.wake();
                }
                // The last reader may have left while there was work to do, and its signal may
                // have been consumed: signal again, so that the task ends.
                if wake.readers() == 0 {
                    wake.signalled.store(true, Ordering::Release);
                }
                // After the last slice, too: the woken readers should read before the next round.
                yield_fairly().await;
            }
        }
    }
}

/// Counts some more channels, and reports after the last.
#[cfg(feature = "metrics")]
fn tally_on(tally: &mut Option<super::shared::Tally>, shared: &Shared) {
    if let Some(counting) = tally
        && let Some(stats) = shared.tally(counting)
    {
        crate::channel::metrics::report(&shared.settings.name, || stats);
        *tally = None;
    }
}

/// Lets all tasks that are ready now run first, including those that have just been woken.
///
/// tokio's `yield_now` does not do this: it reschedules the task at the next poll of the driver,
/// ahead of all tasks that wait by then. A task that wakes itself goes to the end of the queue.
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
        lock(&wake.state).wheel.size()
    }

    /// A reader that leaves is dropped at once, whatever the interval.
    #[tokio::test(start_paused = true)]
    async fn the_wheel_drops_readers_that_have_gone() {
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
