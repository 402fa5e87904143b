//! The publishers, at rates from one event in three seconds to floods.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use axum_sse::{Channel, Error, Hub, Published};

use crate::{
    Break,
    server::{App, BURSTS, BUSY_OF_ALL, CHATS, LATE, QUIET_OF_ALL, STEADY, Server, World},
    track::{Note, Track},
};

/// Starts publishers on threads without a runtime, at rates from one event in three seconds to
/// floods. At the end of the test, they close every channel and return.
pub(crate) fn start(server: &Server, rate: f64, how: Break) -> Vec<thread::JoinHandle<()>> {
    let mut threads = Vec::new();
    for half in ["a", "b"] {
        let (world, app) = (server.world.clone(), server.app.clone());
        // Two threads for the same rooms: ids of one hub, drawn at the same time.
        threads.push(publisher(&format!("rooms-{half}"), move || {
            publish_rooms(&world, &app.rooms, rate / 2.0, how);
        }));
    }
    let (world, app) = (server.world.clone(), server.app.clone());
    threads.push(publisher("flood", move || {
        publish_flood(&world, &app.flood, rate);
    }));
    let (world, app) = (server.world.clone(), server.app.clone());
    threads.push(publisher("others", move || {
        publish_others(&world, &app, rate, how);
    }));
    let (world, app) = (server.world.clone(), server.app.clone());
    threads.push(publisher("mixed", move || {
        publish_mixed(&world, &app, rate);
    }));
    let (world, app) = (server.world.clone(), server.app.clone());
    threads.push(publisher("passing", move || {
        publish_passing(&world, &app.passing);
    }));
    threads
}

fn publisher(name: &str, work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    let builder = thread::Builder::new().name(format!("publish-{name}"));
    builder.spawn(work).unwrap()
}

impl World {
    fn publish(&self, track: &Track, channel: &Channel<Note>) {
        track.publish(|note| channel.publish(note).unwrap().id().unwrap());
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    fn change(&self, at: usize, publish: impl FnOnce(&Note) -> Result<Published, Error>) {
        self.mixed[at].publish(|note| publish(note).unwrap().id().unwrap());
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// How many events are due since the last call, at `rate` a second.
#[derive(Default, Clone)]
struct Due(f64);

impl Due {
    fn since(&mut self, time: Duration, rate: f64) -> usize {
        self.0 += time.as_secs_f64() * rate;
        let mut due = 0;
        while self.0 >= 1.0 {
            self.0 -= 1.0;
            due += 1;
        }
        due
    }
}

/// Calls `work` with the time since the last call, until it is over.
fn ticking(world: &World, tick: Duration, mut work: impl FnMut(Duration)) {
    let mut before = Instant::now();
    while !world.is_over() {
        thread::sleep(tick);
        let now = Instant::now();
        work(now - before);
        before = now;
    }
}

fn publish_rooms(world: &World, hub: &Hub, rate: f64, how: Break) {
    let channels: Vec<Channel<Note>> = world
        .rooms
        .iter()
        .map(|track| hub.channel(&track.name).unwrap())
        .collect();
    let mut due = vec![Due::default(); channels.len()];
    let mut total = 0;
    ticking(world, Duration::from_millis(20), |time| {
        for (at, channel) in channels.iter().enumerate() {
            let usual = match at {
                at if BUSY_OF_ALL.contains(&at) => 5.0,
                at if QUIET_OF_ALL.contains(&at) => 0.02,
                at => [0.3, 1.0, 2.0, 4.0][at % 4],
            };
            let events = due[at].since(time, rate * usual);
            for _ in 0..events {
                total += 1;
                if how == Break::Skip && total == 100 {
                    // Counted but never published; the id was drawn before.
                    let newest = channel.newest();
                    world.rooms[at].publish(|_| newest);
                    continue;
                }
                world.publish(&world.rooms[at], channel);
            }
        }
    });
}

/// Nothing for a while, then as much at once as the channel retains.
fn publish_flood(world: &World, channel: &Channel<Note>, rate: f64) {
    let mut due = Due::default();
    ticking(world, Duration::from_millis(100), |time| {
        for _ in 0..due.since(time, 0.4) {
            for _ in 0..due_in_a_burst(rate) {
                world.publish(&world.flood, channel);
            }
        }
    });
}

fn due_in_a_burst(rate: f64) -> usize {
    Due::default().since(Duration::from_secs(1), 500.0 * rate)
}

fn publish_others(world: &World, app: &App, rate: f64, how: Break) {
    let channels: Vec<Channel<Note>> = world
        .users
        .iter()
        .map(|track| app.users.channel(&track.name).unwrap())
        .collect();
    let (mut due, mut tally_due, mut at) = (Due::default(), Due::default(), 0);
    ticking(world, Duration::from_millis(10), |time| {
        for _ in 0..due.since(time, rate * channels.len() as f64) {
            at = (at + 1) % channels.len();
            world.publish(&world.users[at], &channels[at]);
            if how == Break::Foreign {
                // One user's event on the next user's channel.
                let next = (at + 1) % channels.len();
                let note = Note::new(&world.users[at].name, 0, 200);
                channels[next].publish(&note).unwrap();
            }
        }
        for _ in 0..tally_due.since(time, rate * 4.0) {
            world
                .tally
                .publish(|note| app.tally.publish(note).unwrap().id().unwrap());
            world.published.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// State channels and chats of one hub, and every few seconds a burst on one of the state
/// channels.
fn publish_mixed(world: &World, app: &App, rate: f64) {
    let chats: Vec<Channel<Note>> = CHATS
        .map(|at| app.mixed.channel(&world.mixed[at].name).unwrap())
        .collect();
    let (mut chat_due, mut due, mut burst_due) = (Due::default(), Due::default(), Due::default());
    ticking(world, Duration::from_millis(10), |time| {
        for _ in 0..chat_due.since(time, rate * 3.0) {
            for (at, chat) in CHATS.zip(&chats) {
                world.publish(&world.mixed[at], chat);
            }
        }
        for _ in 0..due.since(time, rate * 3.0) {
            world.change(STEADY, |note| app.steady.publish(note));
            world.change(LATE, |note| app.late.publish(note));
        }
        for _ in 0..burst_due.since(time, 0.25) {
            for _ in 0..due_in_a_burst(rate) / 10 {
                world.change(BURSTS, |note| app.bursts.publish(note));
            }
        }
    });
}

/// Opens a channel every half second, and closes and drops each after four seconds.
fn publish_passing(world: &World, hub: &Hub) {
    const OPEN: Duration = Duration::from_secs(4);
    let mut open: VecDeque<(Instant, Arc<Track>, Channel<Note>)> = VecDeque::new();
    let (mut number, mut due, mut new_due) = (0, Due::default(), Due(1.0));
    let close = |track: &Track, channel: &Channel<Note>| {
        channel.close(None).unwrap();
        track.closed.set(Instant::now()).unwrap();
    };
    ticking(world, Duration::from_millis(50), |time| {
        for _ in 0..new_due.since(time, 2.0) {
            number += 1;
            let track = Arc::new(Track::new(format!("passing-{number}"), 200, 256));
            let channel = hub.channel(&track.name).unwrap();
            open.push_back((Instant::now(), track.clone(), channel));
            let mut known = world.passing.lock().unwrap();
            known.push_back(track);
            if known.len() > 8 {
                known.pop_front();
            }
        }
        for _ in 0..due.since(time, 5.0) {
            for (_, track, channel) in &open {
                world.publish(track, channel);
            }
        }
        while open
            .front()
            .is_some_and(|(since, ..)| since.elapsed() > OPEN)
        {
            let (_, track, channel) = open.pop_front().unwrap();
            close(&track, &channel);
        }
    });
    for (_, track, channel) in open {
        close(&track, &channel);
    }
}
