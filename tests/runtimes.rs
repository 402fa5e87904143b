//! Law 12: one runtime, several, or none.
//!
//! Where time matters, the clock is paused, so every asserted time is one that the crate
//! requested.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    response::IntoResponse,
};
use axum_sse::{
    Channel, Event, EventId, Heartbeat, Hub, LastEventId, Subscription,
    testing::{Item, Parser},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{Instant, advance, sleep},
};

/// The default heartbeat interval, and its tick.
const INTERVAL: Duration = Duration::from_secs(15);
const TICK: Duration = INTERVAL.checked_div(16).unwrap();

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// What a client has read of a channel of numbers.
struct Client {
    body: Body,
    parser: Parser,
    numbers: Vec<u32>,
    gaps: usize,
    heartbeats: usize,
    ended: bool,
}

impl Client {
    fn new(subscription: Subscription) -> Self {
        Self {
            body: subscription.into_response().into_body(),
            parser: Parser::new(),
            numbers: Vec::new(),
            gaps: 0,
            heartbeats: 0,
            ended: false,
        }
    }

    /// Takes one chunk, if one is ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Poll::Ready(frame) = std::pin::Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        let Some(frame) = frame else {
            self.ended = true;
            return Poll::Ready(());
        };
        for item in self.parser.push(&frame.unwrap().into_data().unwrap()) {
            match item {
                Item::Message(message) => match message.event.as_str() {
                    "message" => self.numbers.push(message.data.parse().unwrap()),
                    "gap" => self.gaps += 1,
                    "checkpoint" => {}
                    other => panic!("an event named {other}"),
                },
                Item::Comment(_) => self.heartbeats += 1,
                _ => {}
            }
        }
        Poll::Ready(())
    }

    /// Polls until nothing is left, as hyper does; `waker` is woken when there is more.
    fn drain(&mut self, waker: &Waker) {
        let mut cx = Context::from_waker(waker);
        while !self.ended && self.poll(&mut cx).is_ready() {}
    }

    /// Reads until `enough` and misses nothing. A lost wake-up would show as a heartbeat instead.
    async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            assert!(!self.ended && self.gaps == 0 && self.heartbeats < 10);
            std::future::poll_fn(|cx| self.poll(cx)).await;
        }
    }

    /// Falls asleep, and is woken at once by the next event.
    async fn hears(&mut self, channel: &Channel<u32>, number: u32) {
        let published = async {
            yield_now().await;
            channel.publish(&number).unwrap();
            Instant::now()
        };
        let heard = async {
            self.until(|client| client.numbers.last() == Some(&number))
                .await;
            Instant::now()
        };
        let (heard, published) = tokio::join!(biased; heard, published);
        assert_eq!(heard, published);
    }

    /// Begins the stream with a first poll, and leaves the client asleep.
    async fn rest(&mut self) {
        std::future::poll_fn(|cx| {
            while self.poll(cx).is_ready() {}
            Poll::Ready(())
        })
        .await;
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A heartbeat is never early and at most a tick late, on a clock with millisecond resolution.
#[track_caller]
fn assert_on_time(silent: Duration) {
    let latest = INTERVAL + TICK + Duration::from_millis(2);
    assert!((INTERVAL..=latest).contains(&silent), "{silent:?}");
}

fn channel(capacity: usize) -> Channel<u32> {
    Channel::builder().capacity(capacity).build()
}

fn subscribe(channel: &Channel<u32>) -> Client {
    Client::new(channel.subscribe(LastEventId::Absent))
}

#[test]
fn threads_without_a_runtime_publish() {
    const EACH: u32 = 500;
    let channel = channel(10_000);
    let mut client = subscribe(&channel);
    // Other threads do not wait for a paused clock, which advances whenever all tasks are idle.
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(client.rest());
    let publishers: Vec<_> = (0..4)
        .map(|_| {
            let channel = channel.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    channel.publish(&number).unwrap();
                }
            })
        })
        .collect();
    runtime.block_on(client.until(|client| client.numbers.len() == 4 * EACH as usize));
    for publisher in publishers {
        publisher.join().unwrap();
    }
    assert_eq!(client.gaps, 0);
}

#[test]
fn a_static_hub_serves_one_runtime_after_the_other() {
    static HUB: LazyLock<Hub> = LazyLock::new(Hub::new);
    let channel: Channel<u32> = HUB.channel("numbers").unwrap();
    let mut last: Option<EventId> = None;
    for number in 0..3 {
        let runtime = runtime();
        let published = runtime.block_on(async {
            // Paused clocks start at the current time, which must not run backwards from one to
            // the next.
            advance(2 * INTERVAL * number).await;
            let from = last.map_or(LastEventId::Absent, Into::into);
            let mut client = Client::new(HUB.subscribe(["numbers"], from));
            client.rest().await;
            client.hears(&channel, number).await;
            let published = channel.newest();
            let asked = Instant::now();
            let heard = client.heartbeats;
            client.until(|client| client.heartbeats > heard).await;
            assert_on_time(asked.elapsed());
            published
        });
        last = Some(published);
        // Dropped while the wake task runs on it, or has just been told to end.
        drop(runtime);
    }
}

#[test]
fn readers_on_another_runtime_outlive_the_one_that_woke_them() {
    static HUB: LazyLock<Hub> = LazyLock::new(Hub::new);
    let channel: Channel<u32> = HUB.channel("numbers").unwrap();
    let (first, second) = (runtime(), runtime());
    let subscribe = || Client::new(HUB.subscribe(["numbers"], LastEventId::Absent));
    let (mut here, mut there) = (subscribe(), subscribe());
    first.block_on(here.rest());
    second.block_on(there.rest());
    let tasks = |runtime: &Runtime| runtime.metrics().num_alive_tasks();
    assert_eq!((tasks(&first), tasks(&second)), (1, 0));

    // While the first runtime exists, its task wakes readers of both.
    channel.publish(&0).unwrap();
    first.block_on(here.until(|client| client.numbers == [0]));
    second.block_on(there.until(|client| client.numbers == [0]));

    // News is pending when it is dropped.
    channel.publish(&1).unwrap();
    drop(first);
    second.block_on(there.until(|client| client.numbers == [0, 1]));
    second.block_on(async {
        there.hears(&channel, 2).await;
        let heard = there.heartbeats;
        let asked = Instant::now();
        there.until(|client| client.heartbeats > heard).await;
        assert_on_time(asked.elapsed());
        // The reader whose runtime is gone continues where it is polled next.
        here.until(|client| client.numbers == [0, 1, 2]).await;
    });
    assert_eq!(tasks(&second), 1);
}

/// The wake task has taken these wakers from their readers. If it dies before it has used them
/// all, nothing else could wake those readers.
#[test]
fn a_task_that_dies_has_woken_everybody() {
    // More than this runtime wakes before it polls anything but its tasks.
    const READERS: usize = 10_000;
    let channel = channel(10);
    let dying = runtime();
    let counts: Vec<Arc<Count>> = (0..READERS).map(|_| Arc::default()).collect();
    let woken = || {
        counts
            .iter()
            .filter(|count| count.0.load(Ordering::Relaxed) > 0)
            .count()
    };
    let mut clients: Vec<_> = (0..READERS).map(|_| subscribe(&channel)).collect();
    dying.block_on(async {
        for (client, count) in clients.iter_mut().zip(&counts) {
            client.drain(&count.clone().into());
        }
        // All heartbeats are due at once, and the task yields before it has woken all readers.
        advance(INTERVAL + 2 * TICK).await;
        while woken() == 0 {
            yield_now().await;
        }
        assert!(woken() < READERS);
    });
    drop(dying);
    assert_eq!(woken(), READERS);
}

#[tokio::test(start_paused = true)]
async fn a_burst_beyond_the_capacity_reaches_all_who_keep_up() {
    const BURST: u32 = 5000;
    let channel = channel(16);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = subscribe(&channel);
        client.rest().await;
        readers.spawn(async move {
            client
                .until(|client| client.numbers.last() == Some(&(2 * BURST - 1)))
                .await;
            client
        });
    }
    sleep(TICK).await;
    for burst in 0..2 {
        for number in 0..BURST {
            channel.publish(&(burst * BURST + number)).unwrap();
        }
        // Let them sleep again.
        sleep(TICK * 5).await;
    }
    while let Some(client) = readers.join_next().await {
        let client = client.unwrap();
        assert_eq!(client.gaps, 0);
        assert!(client.numbers.iter().copied().eq(0..2 * BURST));
    }
    let stats = channel.stats();
    assert_eq!((stats.events, stats.gaps.lagged), (16, 0));
    assert!(stats.bytes < 16 * 64);
}

/// Between the slices of a round, a tick's sweep must keep what the readers of later slices have
/// yet to read, and woken readers must run before the next round releases what is older than the
/// last. There are more readers than a worker's queue holds, on the kind of runtime that servers
/// use.
#[test]
fn law_6_readers_that_keep_up_see_no_gap_however_fast_it_is() {
    const LAST: u32 = 1500;
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = channel(0);
        let readers: Vec<_> = (0..600)
            .map(|_| {
                let mut client = subscribe(&channel);
                tokio::spawn(async move {
                    let is_last = |client: &Client| client.numbers.last() == Some(&LAST);
                    client.until(is_last).await;
                    client.numbers
                })
            })
            .collect();
        while channel.stats().subscribers < 600 {
            yield_now().await;
        }
        // From outside the runtime, at any moment of a round.
        thread::spawn(move || {
            for n in 1..=LAST {
                channel.publish(&n).unwrap();
                thread::yield_now();
            }
        });
        for reader in readers {
            let numbers = reader.await.unwrap();
            assert!(numbers.iter().copied().eq(1..=LAST));
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_tick_amid_a_round_takes_nothing_away() {
    const READERS: usize = 1000;
    let channel = channel(0);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let mut client = subscribe(&channel);
        client.rest().await;
        readers.spawn(async move {
            client.until(|client| client.numbers.len() == 100).await;
            client
        });
    }
    sleep(TICK).await;
    for number in 0..100 {
        channel.publish(&number).unwrap();
    }
    // Less time than a reader has.
    for _ in 0..3 {
        advance(TICK).await;
    }
    while let Some(client) = readers.join_next().await {
        let client = client.unwrap();
        assert_eq!(client.gaps, 0);
        assert!(client.numbers.iter().copied().eq(0..100));
    }
}

#[tokio::test(start_paused = true)]
async fn capacity_0_delivers_live() {
    let channel = channel(0);
    let mut client = subscribe(&channel);
    client.rest().await;
    for number in 0..100 {
        client.hears(&channel, number).await;
    }
    assert_eq!((client.gaps, client.numbers.len()), (0, 100));
    assert_eq!(channel.stats().events, 0);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_reader_and_starts_with_the_next() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let channel = channel(10);
    for number in 0..3 {
        assert_eq!(tasks(), 0);
        let mut clients = [subscribe(&channel), subscribe(&channel)];
        assert_eq!(tasks(), 0, "a subscription is inert");
        for client in &mut clients {
            client.rest().await;
        }
        assert_eq!(tasks(), 1);
        let [first, mut second] = clients;
        drop(first);
        yield_now().await;
        assert_eq!(tasks(), 1);
        second.hears(&channel, number).await;
        drop(second);
        yield_now().await;
        assert_eq!(tasks(), 0);
    }
}

/// The task ends with a queued event that no reader waits for any more.
#[tokio::test(start_paused = true)]
async fn what_the_task_left_behind_is_no_news_to_its_successor() {
    let channel = channel(10);
    let mut first = subscribe(&channel);
    first.rest().await;
    yield_now().await;
    channel.publish(&0).unwrap();
    drop(first);
    yield_now().await;

    let mut second = subscribe(&channel);
    second.rest().await;
    second.hears(&channel, 1).await;
}

#[test]
fn polling_needs_no_runtime() {
    let channel = channel(10);
    let count: Arc<Count> = Arc::default();
    let waker = Waker::from(count.clone());
    let mut client = subscribe(&channel);
    client.drain(&waker);
    channel.publish(&0).unwrap();
    client.drain(&waker);
    assert_eq!(client.numbers, [0]);

    // Nothing wakes it until another client starts the task on a runtime.
    channel.publish(&1).unwrap();
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    let runtime = runtime();
    runtime.block_on(async {
        let mut other = subscribe(&channel);
        other.rest().await;
        yield_now().await;
        other.hears(&channel, 2).await;
    });
    assert!(count.0.load(Ordering::Relaxed) > 0);
    client.drain(&waker);
    assert_eq!(client.numbers, [0, 1, 2]);
}

#[test]
fn without_a_runtime_a_snapshot_sends_its_client_away() {
    let channel = channel(10);
    let start = channel.newest();
    let made = channel.snapshot(move || async move { Ok::<_, std::fmt::Error>((start, 0)) });
    made.unwrap();
    let mut client = subscribe(&channel);
    client.drain(Waker::noop());
    assert!(client.ended);
    assert!(client.parser.retry().is_some());
}

/// A runtime without timers cannot send heartbeats. Polling a stream there panics once; the hub
/// stays usable on other runtimes.
#[test]
fn a_runtime_without_timers_breaks_nothing_but_its_own_streams() {
    let channel: Channel<u32> = Channel::builder()
        .heartbeat(Heartbeat::every(INTERVAL))
        .build();
    let mut client = subscribe(&channel);
    let untimed = Builder::new_current_thread().build().unwrap();
    let served = untimed.block_on(async {
        let served = tokio::spawn(async move { client.rest().await }).await;
        for _ in 0..100 {
            yield_now().await;
        }
        served
    });
    assert!(served.unwrap_err().is_panic());
    assert_eq!(untimed.metrics().num_alive_tasks(), 0);

    runtime().block_on(async {
        let mut client = subscribe(&channel);
        client.rest().await;
        channel.publish_event(&Event::text("7").unwrap()).unwrap();
        client.until(|client| client.numbers == [7]).await;
    });
    assert_eq!(channel.stats().subscribers, 0);
}
