//! loom models: every interleaving, up to a few preemptions, of publishers, readers, and the
//! synchronous parts of the wake task.
//!
//! The task itself needs a runtime, which loom does not have; a [`Driver`] takes its steps by
//! hand. At the end of each model, [`settle`] acts as the runtime: it polls the tasks that were
//! woken, and no others, until all are asleep. What a reader has not received by then, it would
//! never receive.
//!
//! Each of these mutations was tried, and made the models after it fail:
//!
//! | mutation | failing models |
//! | --- | --- |
//! | the version does not turn odd before an id is drawn | `ids_of_two…`, `whoever_begins_meanwhile_misses…`, `a_channel_retires…` |
//! | what is read is not bounded by an id loaded before the locks | `whoever_begins_meanwhile_misses…` |
//! | a reader registers after its first read | `whoever_begins_meanwhile_misses…` |
//! | a reader registers between its seek and its first read | `whoever_begins_meanwhile_does_not_lag` |
//! | a reader stores its waker after its last look | `whoever_sleeps…` |
//! | the task stores its waker after its last look | `a_task_that_begins…` |
//! | a publisher signals before it queues its channel | `whoever_sleeps…`, `a_task_that_begins…`, `a_reader_that_goes…` |
//! | a round clears `dirty` after it has taken the wakers | `a_second_publisher…`, `a_task_that_ends…` |
//! | the task ends with channels in its queue | `a_task_that_ends…` |
//! | the task ends based on a number of readers read before the lock | `a_task_that_ends…` |
//! | `orphaned` is set after the wakers are taken | `a_task_that_dies…` |
//! | a channel is marked as closed outside its lock, or before its last event | `readers_of_a_closed…` |
//! | the last reader to leave frees the floor without checking again | `the_last_reader_to_leave…` |
//! | a reader that has joined but not begun counts as being at the end | `whoever_begins_beside…` |
//! | a channel is retired based on a check before the lock | `a_channel_retires…` |
//! | a lookup counts its handle after the lock | `a_channel_retires…` |
//! | a channel is retired without raising the watermark | `a_channel_retires…`, `a_channel_makes_room…` |

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use ::loom::{model, thread};

use crate::{
    channel::{
        Channel,
        hub::Hub,
        rounds::Rounds,
        subscription::Subscription,
        wake::{Guard, Wake},
    },
    event::{Event, EventId},
    last_event_id::LastEventId,
    sync::Arc,
};

/// A task that was woken and has not been polled since. Uses std's atomics, so that loom has
/// nothing to reorder, as with a real runtime.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What a client reads. Ids are reduced to their sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Checkpoint(u64),
    Event(u64, String),
    Gap,
}

struct Client {
    subscription: Subscription,
    woken: Arc<Woken>,
    got: Vec<Got>,
    ended: bool,
}

impl Client {
    /// Polls until the client sleeps, like the first polls of a connection.
    fn new(subscription: Subscription) -> Self {
        let mut client = Self {
            subscription,
            woken: Arc::default(),
            got: Vec::new(),
            ended: false,
        };
        client.poll();
        client
    }

    fn poll(&mut self) {
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(chunk) = self.subscription.poll_chunk(&mut cx) {
            let Some(chunk) = chunk else {
                self.ended = true;
                return;
            };
            let text = std::str::from_utf8(&chunk).unwrap();
            self.got.extend(text.split("\n\n").filter_map(parse));
        }
    }

    fn events(&self) -> Vec<(u64, &str)> {
        self.got
            .iter()
            .filter_map(|got| match got {
                Got::Event(id, data) => Some((*id, data.as_str())),
                Got::Checkpoint(_) | Got::Gap => None,
            })
            .collect()
    }

    fn data(&self) -> Vec<&str> {
        self.events().into_iter().map(|(_, data)| data).collect()
    }

    /// Law 5, as seen by one connection.
    fn assert_ids_increase(&self) {
        let ids: Vec<_> = self
            .got
            .iter()
            .filter_map(|got| match got {
                Got::Checkpoint(id) | Got::Event(id, _) => Some(*id),
                Got::Gap => None,
            })
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{:?}", self.got);
    }
}

fn parse(block: &str) -> Option<Got> {
    let mut name = None;
    let mut id = None;
    let mut data = None;
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", value)) => name = Some(value),
            Some(("id", value)) => id = Some(value.parse::<EventId>().unwrap().sequence()),
            Some(("data", value)) => data = Some(value.trim_matches('"').to_owned()),
            _ => {}
        }
    }
    match (name, id, data) {
        (Some("checkpoint"), Some(id), _) => Some(Got::Checkpoint(id)),
        (Some("gap"), None, Some(_)) => Some(Got::Gap),
        (None, Some(id), Some(data)) => Some(Got::Event(id, data)),
        (None, None, None) => None,
        _ => panic!("{block:?}"),
    }
}

/// The wake task, without its timers.
struct Driver {
    wake: Arc<Wake>,
    woken: Arc<Woken>,
    ended: bool,
}

impl Driver {
    /// The task as started by its first reader.
    fn start(hub: &Hub) -> Self {
        let wake = hub.0.wake.clone();
        assert!(wake.claim(true));
        Self {
            wake,
            woken: Arc::default(),
            ended: false,
        }
    }

    fn poll(&mut self) {
        let waker = Waker::from(self.woken.clone());
        let cx = Context::from_waker(&waker);
        let mut rounds = Rounds::new(Duration::ZERO);
        let mut wakers = Vec::new();
        while !self.ended && self.wake.has_signal(&cx) {
            rounds.take_news(&self.wake);
            self.ended = self.wake.stop_if_idle();
            if self.ended {
                return;
            }
            while rounds.has_work() {
                rounds.next_slice(0, &mut VecDeque::new(), &mut wakers);
                wakers.drain(..).for_each(Waker::wake);
            }
        }
    }
}

/// Runs woken tasks until all are asleep.
fn settle(driver: &mut Driver, client: &mut Client) {
    loop {
        if driver.woken.take() {
            driver.poll();
        } else if client.woken.take() {
            client.poll();
        } else {
            return;
        }
    }
}

fn hub() -> Hub {
    Hub::builder().capacity(2).build()
}

fn channel(hub: &Hub, name: &str) -> Channel<str> {
    hub.channel(name).unwrap()
}

/// Law 5: if a publisher has drawn its id and stalls, readers wait for it, on any channel.
#[test]
fn ids_of_two_channels_strictly_increase() {
    model(|| {
        let hub = hub();
        let (a, b) = (channel(&hub, "a"), channel(&hub, "b"));
        let mut client = Client::new(hub.subscribe(["a", "b"], LastEventId::Absent));
        let mut driver = Driver::start(&hub);

        let on_a = thread::spawn(move || {
            a.publish("a1").unwrap();
            a.publish("a2").unwrap();
            a
        });
        let on_b = thread::spawn(move || {
            b.publish("b1").unwrap();
            b
        });
        client.poll();
        let handles = (on_a.join().unwrap(), on_b.join().unwrap());

        client.woken.0.store(true, Ordering::SeqCst);
        settle(&mut driver, &mut client);
        client.assert_ids_increase();
        let mut data = client.data();
        data.sort_unstable();
        assert_eq!(data, ["a1", "a2", "b1"]);
        drop(handles);
    });
}

/// A reader that begins while events are published gets each of them exactly once.
#[test]
fn whoever_begins_meanwhile_misses_nothing() {
    model(|| {
        let hub = hub();
        let (a, b) = (channel(&hub, "a"), channel(&hub, "b"));
        let subscription = hub.subscribe(["a", "b"], LastEventId::Absent);

        let on_a = thread::spawn(move || {
            a.publish("a1").unwrap();
            a
        });
        let on_b = thread::spawn(move || {
            b.publish("b1").unwrap();
            b
        });
        let mut client = Client::new(subscription);
        let handles = (on_a.join().unwrap(), on_b.join().unwrap());

        let mut driver = Driver::start(&hub);
        driver.poll();
        settle(&mut driver, &mut client);
        client.assert_ids_increase();
        assert_eq!(client.events().len(), 2, "{:?}", client.got);
        drop(handles);
    });
}

/// Sleeping against waking: the reader, the publisher and the task run at once. The first event
/// has taken both wakers, so neither is stored.
#[test]
fn whoever_sleeps_is_woken() {
    model(|| {
        let hub = hub();
        let a = channel(&hub, "a");
        let mut client = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        driver.poll();
        a.publish("1").unwrap();
        assert!(driver.woken.take());
        driver.poll();
        assert!(client.woken.take());

        let publisher = thread::spawn(move || {
            a.publish("2").unwrap();
            a
        });
        let task = thread::spawn(move || {
            driver.poll();
            driver
        });
        client.poll();
        let a = publisher.join().unwrap();
        let mut driver = task.join().unwrap();

        settle(&mut driver, &mut client);
        assert_eq!(client.data(), ["1", "2"]);
        drop(a);
    });
}

/// The task's first look, against the first news.
#[test]
fn a_task_that_begins_hears_the_first_news() {
    model(|| {
        let hub = hub();
        let a = channel(&hub, "a");
        let mut client = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);

        let task = thread::spawn(move || {
            driver.poll();
            driver
        });
        a.publish("1").unwrap();
        let mut driver = task.join().unwrap();

        settle(&mut driver, &mut client);
        assert_eq!(client.data(), ["1"]);
    });
}

/// A second publisher finds the channel already in the queue, and relies on a round that has yet
/// to begin.
#[test]
fn a_second_publisher_relies_on_no_round_that_has_begun() {
    model(|| {
        let hub = hub();
        let a = channel(&hub, "a");
        let mut client = Client::new(a.subscribe(LastEventId::Absent));
        let other = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        driver.poll();
        a.publish("1").unwrap();
        assert!(driver.woken.take());

        let publisher = thread::spawn(move || {
            a.publish("2").unwrap();
            a
        });
        let task = thread::spawn(move || {
            driver.poll();
            driver
        });
        // The first event's round may have woken it, and continues with the other reader.
        thread::yield_now();
        if client.woken.take() {
            client.poll();
        }
        let a = publisher.join().unwrap();
        let mut driver = task.join().unwrap();

        settle(&mut driver, &mut client);
        assert_eq!(client.data(), ["1", "2"], "{:?}", client.got);
        drop((a, other));
    });
}

/// The last reader leaves, the task ends, and the next reader starts it again: no reader relies on
/// a task that is about to end, and an event without readers does not leave the channel marked as
/// queued forever.
#[test]
fn a_task_that_ends_leaves_no_reader_asleep() {
    model(|| {
        let hub = hub();
        let a = channel(&hub, "a");
        let first = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        driver.poll();
        a.publish("1").unwrap();
        assert!(driver.woken.take());

        let leaving = thread::spawn(move || drop(first));
        let task = thread::spawn(move || {
            driver.poll();
            driver
        });
        let mut client = Client::new(a.subscribe(LastEventId::Absent));
        let starts = hub.0.wake.claim(true);
        leaving.join().unwrap();
        let mut driver = task.join().unwrap();
        if starts {
            assert!(driver.ended);
            driver.ended = false;
            driver.poll();
        }

        settle(&mut driver, &mut client);
        assert!(!driver.ended);
        a.publish("2").unwrap();
        settle(&mut driver, &mut client);
        assert_eq!(client.data(), ["2"]);
    });
}

/// The task's runtime dies while a reader goes to sleep: either the reader is woken, or it has
/// noticed that no task would wake it, and starts a new one.
#[test]
fn a_task_that_dies_leaves_no_reader_asleep() {
    model(|| {
        let hub = hub();
        let wake = hub.0.wake.clone();
        let reader = wake.register();
        assert!(wake.claim(true));
        let guard = Guard::new(wake.clone());

        let dying = thread::spawn(move || drop(guard));
        let woken: Arc<Woken> = Arc::default();
        reader.waker.store(&woken.clone().into());
        let noticed = wake.is_orphaned();
        dying.join().unwrap();

        assert!(noticed || woken.take());
        assert!(wake.claim(true));
        wake.unregister(&reader);
    });
}

/// Law 3 at the end of a channel: everything published before the close arrives, then the end;
/// anything later is refused.
#[test]
fn readers_of_a_closed_channel_get_the_rest_and_the_end() {
    model(|| {
        let hub = hub();
        let a = channel(&hub, "a");
        let mut client = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        driver.poll();

        let publishing = a.clone();
        let publisher = thread::spawn(move || publishing.publish("1").is_ok());
        let closing = a.clone();
        let closer = thread::spawn(move || {
            let last = Event::text("last").unwrap();
            closing.close(Some(&last)).unwrap();
        });
        client.poll();
        let published = publisher.join().unwrap();
        closer.join().unwrap();

        settle(&mut driver, &mut client);
        let expected: &[&str] = if published { &["1", "last"] } else { &["last"] };
        assert_eq!(client.data(), expected);
        assert!(client.ended);
        assert!(driver.ended);
    });
}

/// A reader that leaves while events are published leaves no trace, and takes no wake-up from
/// another.
#[test]
fn a_reader_that_goes_takes_no_wake_up_along() {
    model(|| {
        let hub = hub();
        let a = channel(&hub, "a");
        let going = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        let mut client = Client::new(a.subscribe(LastEventId::Absent));
        driver.poll();

        let publishing = a.clone();
        let publisher = thread::spawn(move || {
            publishing.publish("1").unwrap();
        });
        let leaving = thread::spawn(move || drop(going));
        driver.poll();
        publisher.join().unwrap();
        leaving.join().unwrap();

        settle(&mut driver, &mut client);
        assert_eq!(client.data(), ["1"]);
        assert_eq!(a.stats().subscribers, 1);
        assert_eq!(hub.stats().subscribers, 1);
    });
}

/// Law 6: from its first look at the log on, a reader is covered by the live floor.
#[test]
fn whoever_begins_meanwhile_does_not_lag() {
    model(|| {
        let hub = Hub::builder().capacity(0).build();
        let a = channel(&hub, "a");
        let coming = a.subscribe(LastEventId::Absent);
        let publishing = a.clone();
        let publisher = thread::spawn(move || {
            publishing.publish("1").unwrap();
        });
        let mut client = Client::new(coming);
        publisher.join().unwrap();

        let mut driver = Driver::start(&hub);
        driver.poll();
        settle(&mut driver, &mut client);
        assert_eq!(a.stats().gaps.lagged, 0, "{:?}", client.got);
        assert_ne!(client.got.contains(&Got::Gap), client.data() == ["1"]);
    });
}

/// Law 6: a running round does not mistake a reader that begins for one that has read everything.
/// A reader of another channel keeps the task running.
#[test]
fn whoever_begins_beside_a_round_does_not_lag() {
    model(|| {
        let hub = Hub::builder().capacity(0).build();
        let (a, b) = (channel(&hub, "a"), channel(&hub, "b"));
        let elsewhere = Client::new(hub.subscribe(["b"], LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        driver.poll();
        let coming = a.subscribe(LastEventId::Absent);
        let publishing = a.clone();
        let publisher = thread::spawn(move || {
            publishing.publish("1").unwrap();
            driver.poll();
            driver
        });
        let mut client = Client::new(coming);
        let mut driver = publisher.join().unwrap();
        driver.poll();
        settle(&mut driver, &mut client);
        assert_eq!(a.stats().gaps.lagged, 0, "{:?}", client.got);
        assert_ne!(client.got.contains(&Got::Gap), client.data() == ["1"]);
        drop((elsewhere, b));
    });
}

/// Law 6: a reader that leaves frees what was kept for it, but not what is kept for a new one.
#[test]
fn the_last_reader_to_leave_takes_nothing_from_one_that_comes() {
    model(|| {
        let hub = Hub::builder().capacity(0).build();
        let a = channel(&hub, "a");
        let leaving = Client::new(a.subscribe(LastEventId::Absent));
        let mut driver = Driver::start(&hub);
        driver.poll();
        let coming = a.subscribe(LastEventId::Absent);

        let leaver = thread::spawn(move || drop(leaving));
        let mut client = Client::new(coming);
        a.publish("1").unwrap();
        leaver.join().unwrap();

        settle(&mut driver, &mut client);
        assert_eq!(client.got, [Got::Checkpoint(0), Got::Event(1, "1".into())]);
    });
}

/// Law 7: retirement against lookup. A name never has two logs; after an old id comes everything
/// after it, or a gap.
#[test]
fn a_channel_retires_while_it_is_looked_up() {
    model(|| {
        let hub = Hub::builder()
            .capacity(2)
            .retire_after(Duration::ZERO)
            .build();
        let retiring = channel(&hub, "a");
        let known = retiring.publish("0").unwrap().id().unwrap();
        retiring.publish("1").unwrap();

        let releasing = thread::spawn(move || drop(retiring));
        let looking = hub.clone();
        let publisher = thread::spawn(move || {
            let a = channel(&looking, "a");
            a.publish("2").unwrap();
            a
        });
        let mut client = Client::new(hub.subscribe(["a"], known));
        releasing.join().unwrap();
        let a = publisher.join().unwrap();

        let mut driver = Driver::start(&hub);
        driver.poll();
        settle(&mut driver, &mut client);
        a.publish("3").unwrap();
        settle(&mut driver, &mut client);
        match client.got.contains(&Got::Gap) {
            true => assert_eq!(client.data().last(), Some(&"3")),
            false => assert_eq!(client.data(), ["1", "2", "3"]),
        }
        client.assert_ids_increase();
        assert_eq!(hub.stats().channels, 1);
    });
}

/// The same in a full hub, where a lookup retires an idle channel to make room.
#[test]
fn a_channel_makes_room_while_it_is_looked_up() {
    model(|| {
        let hub = Hub::builder().capacity(2).max_channels(1).build();
        let first = channel(&hub, "a");
        let known = first.publish("0").unwrap().id().unwrap();
        first.publish("1").unwrap();
        drop(first);

        let other = hub.clone();
        let taking_room = thread::spawn(move || {
            if let Ok(b) = other.channel::<str>("b") {
                b.publish("b").unwrap();
            }
        });
        let subscription = hub.subscribe(["a"], known);
        taking_room.join().unwrap();

        let mut client = Client::new(subscription);
        // Ended early if there was no room; otherwise nothing is lost without a gap.
        assert!(client.ended || client.data() == ["1"] || client.got.contains(&Got::Gap));
        client.poll();
    });
}
