//! The server that is soaked: one of everything that the crate offers, and who publishes.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Query, State},
    response::IntoResponse,
    routing::get,
    serve::Listener as _,
};
use axum_sse::{
    Board, Channel, Heartbeat, Hub, LastEventId, RunId, Runs, Shutdown, Sse, SseLayer,
    layer::Limits,
    listener::{Connections, Options, PeerAddr},
};
use futures_util::{StreamExt, stream};
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};

use crate::{
    Break,
    check::{Counted, LONGEST_ITEM, Note, Track, items},
};

pub(crate) const ROOMS: usize = 24;
pub(crate) const USERS: usize = 100;
pub(crate) const BOARD: &str = "board";

/// How long a client may not read before its connection is cut.
const STALL: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After which time nothing is known any more of a run that is over, and after the double of it of a
/// channel.
const FORGOTTEN: Duration = Duration::from_secs(3);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) rooms: Vec<Arc<Track>>,
    pub(crate) users: Vec<Arc<Track>>,
    pub(crate) board: Arc<Track>,
    pub(crate) flood: Arc<Track>,
    /// Channels that are open for a few seconds each, the newest last.
    pub(crate) passing: Mutex<VecDeque<Arc<Track>>>,
    pub(crate) published: AtomicU64,
    /// Nothing more is published.
    pub(crate) over: AtomicBool,
}

#[derive(Clone)]
struct App {
    rooms: Hub,
    users: Hub,
    passing: Hub,
    flood: Channel<Note>,
    board: Board<Counted, Note>,
    runs: Runs<Note, usize>,
    run_count: Arc<AtomicU64>,
    leaks: bool,
}

pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    app: App,
    limits: Limits,
    connections: Connections,
    shutdown: Shutdown,
    task: JoinHandle<io::Result<()>>,
}

/// The names of the query, as in `?c=room-1&c=room-2`.
fn names(query: Vec<(String, String)>) -> impl Iterator<Item = String> {
    query.into_iter().map(|(_, name)| name)
}

type Names = Query<Vec<(String, String)>>;

/// With `--break leak`, some requests leave a task behind, and with it an open file.
async fn rooms(State(app): State<App>, Query(set): Names, last: LastEventId) -> impl IntoResponse {
    let number = app.run_count.load(Ordering::Relaxed);
    if app.leaks && number.is_multiple_of(10) {
        let file = std::fs::File::open("/proc/self/stat");
        tokio::spawn(async move {
            let _file = file;
            std::future::pending::<()>().await;
        });
    }
    app.rooms.subscribe(names(set), last)
}

async fn passing(
    State(app): State<App>,
    Query(set): Names,
    last: LastEventId,
) -> impl IntoResponse {
    app.passing.subscribe(names(set), last)
}

/// The client's name is whose channel it is; in an app, a session would say it.
async fn user(State(app): State<App>, Query(set): Names, last: LastEventId) -> impl IntoResponse {
    let names = names(set).take(1).map(|user| format!("user-{user}"));
    app.users.subscribe(names, last)
}

async fn flood(State(app): State<App>, last: LastEventId) -> impl IntoResponse {
    app.flood.subscribe(last)
}

async fn board(State(app): State<App>, last: LastEventId) -> impl IntoResponse {
    app.board.subscribe(last)
}

async fn run(
    State(app): State<App>,
    Query(set): Names,
    last: LastEventId<RunId>,
) -> impl IntoResponse {
    let user: usize = names(set).next().unwrap_or_default().parse().unwrap_or(0);
    let count = app.run_count.clone();
    app.runs.resume_or_start(last, user, move || {
        let run = count.fetch_add(1, Ordering::Relaxed);
        let name = format!("run-{user}-{run}");
        stream::iter(0..items(run)).then(move |number| {
            let note = Note::new(&name, number, LONGEST_ITEM);
            async move {
                sleep(Duration::from_millis(20 + run % 50)).await;
                note
            }
        })
    })
}

impl App {
    fn new(leaks: bool) -> Self {
        let heartbeat = Heartbeat::every(HEARTBEAT).unwrap();
        let of_hub = |capacity| {
            Hub::builder()
                .capacity(capacity)
                .heartbeat(heartbeat.clone())
        };
        let of_channel = |capacity| {
            let builder = Channel::<Note>::builder().capacity(capacity);
            builder.heartbeat(heartbeat.clone())
        };
        let apply = |state: &mut Counted, note: &Note| state.events = note.number + 1;
        let state = Counted { events: 0 };
        Self {
            // Small, so that those who stay away for long meet a gap.
            rooms: of_hub(48).build(),
            users: of_hub(1000).build(),
            passing: of_hub(1000)
                .retire_after(FORGOTTEN)
                .retry(Duration::from_millis(500))
                .build(),
            flood: of_channel(500).bytes(512 * 1024).build(),
            board: Board::on(of_channel(100).build(), state, apply).unwrap(),
            runs: Runs::builder()
                .keep(FORGOTTEN)
                .max_runs(10_000)
                .heartbeat(heartbeat)
                .build(),
            run_count: Arc::default(),
            leaks,
        }
    }

    fn router(&self, layer: SseLayer) -> Router {
        Router::new()
            .route("/rooms", get(rooms))
            .route("/user", get(user))
            .route("/passing", get(passing))
            .route("/flood", get(flood))
            .route("/board", get(board))
            .route("/run", get(run))
            .route("/silent", get(async || Sse::new(stream::pending::<u8>())))
            .layer(layer)
            .with_state(self.clone())
    }
}

impl Server {
    /// Streams live up to `lifetime`, so that the server cuts, too.
    pub(crate) fn start(runtime: &Runtime, lifetime: Duration, how: Break) -> Self {
        let app = App::new(how == Break::Leak);
        let (limits, shutdown) = (Limits::new(), Shutdown::new());
        let layer = SseLayer::new()
            .limits(limits.clone())
            .shutdown(shutdown.clone())
            .lifetime(lifetime);
        let options = Options::new()
            .stall_timeout(STALL)
            .send_buffer(32 * 1024)
            .shutdown(shutdown.clone());
        let connections = options.connections();
        let router = app.router(layer);
        let signal = shutdown.on(std::future::pending());
        let (address, task) = runtime.block_on(async move {
            let listener = options.bind(([127, 0, 0, 1], 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let service = router.into_make_service_with_connect_info::<PeerAddr>();
            let serve = axum::serve(listener, service).with_graceful_shutdown(signal);
            (address, tokio::spawn(serve.into_future()))
        });
        let tracks = |kind: &str, count: usize| {
            let track = |at| Arc::new(Track::new(format!("{kind}-{at}"), 200, 2048));
            (0..count).map(track).collect()
        };
        let world = World {
            address,
            rooms: tracks("room", ROOMS),
            users: tracks("user", USERS),
            board: Arc::new(Track::new(BOARD, 200, 4096).single()),
            flood: Arc::new(Track::new("flood", 1200, 16_384).single()),
            passing: Mutex::default(),
            published: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        Self {
            world: Arc::new(world),
            app,
            limits,
            connections,
            shutdown,
            task,
        }
    }

    /// From threads of no runtime, at rates from one event in three seconds to floods. They end,
    /// and close every channel, when it is over.
    pub(crate) fn publishers(&self, rate: f64, how: Break) -> Vec<thread::JoinHandle<()>> {
        let mut threads = Vec::new();
        for half in ["a", "b"] {
            let (world, app) = (self.world.clone(), self.app.clone());
            // Two threads for the same rooms: ids of one hub, drawn at the same time.
            threads.push(publisher(&format!("rooms-{half}"), move || {
                publish_rooms(&world, &app.rooms, rate / 2.0, how);
            }));
        }
        let (world, app) = (self.world.clone(), self.app.clone());
        threads.push(publisher("flood", move || {
            publish_flood(&world, &app.flood, rate)
        }));
        let (world, app) = (self.world.clone(), self.app.clone());
        threads.push(publisher("others", move || {
            publish_others(&world, &app, rate, how)
        }));
        let (world, app) = (self.world.clone(), self.app.clone());
        threads.push(publisher("passing", move || {
            publish_passing(&world, &app.passing)
        }));
        threads
    }

    pub(crate) fn close(&self) {
        let hubs = [
            (&self.app.rooms, &self.world.rooms),
            (&self.app.users, &self.world.users),
        ];
        for (hub, tracks) in hubs {
            for track in tracks {
                let channel: Channel<Note> = hub.channel(&track.name).unwrap();
                channel.close(None).unwrap();
            }
        }
        self.app.flood.close(None).unwrap();
        self.app.board.channel().close(None).unwrap();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connections.open() > 0
    }

    /// What should be zero with all clients gone; the names of those figures that are not.
    pub(crate) fn counters(&self) -> Vec<(&'static str, usize)> {
        let app = &self.app;
        let _ = app
            .passing
            .channel::<Note>("a look, which retires what is idle");
        vec![
            ("connections", self.connections.open()),
            ("streams", self.limits.open()),
            ("subscribers of rooms", app.rooms.stats().subscribers),
            ("subscribers of users", app.users.stats().subscribers),
            (
                "subscribers of passing channels",
                app.passing.stats().subscribers,
            ),
            ("subscribers of the flood", app.flood.stats().subscribers),
            (
                "subscribers of the board",
                app.board.channel().stats().subscribers,
            ),
            // The one of the look itself.
            (
                "passing channels",
                app.passing.stats().channels.saturating_sub(1),
            ),
            ("runs", app.runs.len()),
        ]
    }

    pub(crate) fn stats(&self) -> Vec<axum_sse::Stats> {
        let app = &self.app;
        vec![
            app.rooms.stats(),
            app.users.stats(),
            app.passing.stats(),
            app.flood.stats(),
            app.board.channel().stats(),
        ]
    }

    /// Ends, with whatever is open: how long it takes until `axum::serve` has returned.
    pub(crate) fn stop(self, runtime: &Runtime) -> Duration {
        let begun = Instant::now();
        self.shutdown.begin();
        runtime.block_on(self.task).unwrap().unwrap();
        begun.elapsed()
    }
}

fn publisher(name: &str, work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    let builder = thread::Builder::new().name(format!("publish-{name}"));
    builder.spawn(work).unwrap()
}

impl World {
    fn publish(&self, track: &Track, channel: &Channel<Note>) {
        track.publish(|note| channel.publish(note));
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
            let events = due[at].since(time, rate * [0.3, 1.0, 2.0, 4.0][at % 4]);
            for _ in 0..events {
                total += 1;
                if how == Break::Skip && total == 100 {
                    // Counted, and never published; the id is one that was drawn before.
                    let newest = channel.newest();
                    world.rooms[at].publish(|_| Ok(newest));
                    continue;
                }
                world.publish(&world.rooms[at], channel);
            }
        }
    });
}

/// Nothing for two seconds, and then more at once than the channel holds for replay.
fn publish_flood(world: &World, channel: &Channel<Note>, rate: f64) {
    let mut due = Due::default();
    ticking(world, Duration::from_millis(100), |time| {
        for _ in 0..due.since(time, 0.5) {
            for _ in 0..due_in_a_burst(rate) {
                world.publish(&world.flood, channel);
            }
        }
    });
}

fn due_in_a_burst(rate: f64) -> usize {
    Due::default().since(Duration::from_secs(1), 600.0 * rate)
}

fn publish_others(world: &World, app: &App, rate: f64, how: Break) {
    let channels: Vec<Channel<Note>> = world
        .users
        .iter()
        .map(|track| app.users.channel(&track.name).unwrap())
        .collect();
    let (mut due, mut board_due, mut at) = (Due::default(), Due::default(), 0);
    ticking(world, Duration::from_millis(10), |time| {
        for _ in 0..due.since(time, rate * channels.len() as f64) {
            at = (at + 1) % channels.len();
            world.publish(&world.users[at], &channels[at]);
            if how == Break::Foreign && at == 7 {
                // The event of one user, on the channel of another.
                channels[8]
                    .publish(&Note::new(&world.users[7].name, 0, 200))
                    .unwrap();
            }
        }
        for _ in 0..board_due.since(time, rate * 4.0) {
            world.board.publish(|note| app.board.publish(note));
            world.published.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// A channel every half second, each for four seconds, and then it is closed and let go.
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
        while let Some((_, track, channel)) =
            open.pop_front_if(|(since, ..)| since.elapsed() > OPEN)
        {
            close(&track, &channel);
        }
    });
    for (_, track, channel) in open {
        close(&track, &channel);
    }
}
