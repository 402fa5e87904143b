//! The server under test: one of everything that the crate offers.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
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
    Channel, Error, EventId, Heartbeat, Hub, LastEventId, Published, RunId, Runs, Shutdown, Sse,
    SseLayer, Start, StateChannel,
    layer::Limits,
    listener::{Connections, Options, PeerAddr},
};
use futures_util::{StreamExt, stream};
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};

use crate::{
    Break,
    run::{Kind, LONGEST_ITEM, Shared, cancelled_after, items, kind, panics_at, pause},
    state::Tally,
    track::{Note, Track},
};

pub(crate) const ROOMS: usize = 24;
/// The channels of the rooms' hub, for connections over a hundred of them.
pub(crate) const ROOMS_OF_ALL: Range<usize> = 0..ROOMS;
pub(crate) const BUSY_OF_ALL: Range<usize> = ROOMS..ROOMS + 4;
pub(crate) const QUIET_OF_ALL: Range<usize> = BUSY_OF_ALL.end..BUSY_OF_ALL.end + 200;
/// How many events each of them keeps: few, so that clients that stay away for long get a gap.
const KEPT: usize = 48;

/// The hub of state channels and chats: a steady state channel, one that changes in bursts, one
/// with slow snapshots that sometimes fail, and two channels without a state.
pub(crate) const STEADY: usize = 0;
pub(crate) const BURSTS: usize = 1;
pub(crate) const LATE: usize = 2;
pub(crate) const CHATS: Range<usize> = 3..5;
/// The sets of them that clients read.
pub(crate) const MIXES: [&[usize]; 8] = [
    &[STEADY, BURSTS, 3],
    &[STEADY, LATE, 4],
    &[BURSTS, LATE, 3, 4],
    &[STEADY, BURSTS, LATE, 3, 4],
    &[LATE, 3],
    &[STEADY, 4],
    &[LATE],
    &[BURSTS],
];

/// How many ids of runs are kept for clients to share.
pub(crate) const SHARED_RUNS: usize = 256;
pub(crate) const USERS: usize = 100;
pub(crate) const TALLY: &str = "tally";

/// How long a client may stall before its connection is cut.
const STALL: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a closed channel or an ended run is remembered.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    /// The rooms, then the busy channels, then the quiet ones.
    pub(crate) rooms: Vec<Arc<Track>>,
    pub(crate) users: Vec<Arc<Track>>,
    pub(crate) tally: Arc<Track>,
    pub(crate) flood: Arc<Track>,
    /// The hub of state channels and chats.
    pub(crate) mixed: Vec<Arc<Track>>,
    /// Ids of runs, for other clients of the same owner and of other owners.
    pub(crate) runs: Mutex<VecDeque<Shared>>,
    /// Set once a client has received an id that ends with a dot.
    pub(crate) has_partial_ids: AtomicBool,
    /// Channels that are open for a few seconds each, the newest last.
    pub(crate) passing: Mutex<VecDeque<Arc<Track>>>,
    pub(crate) published: AtomicU64,
    /// Set when nothing more is published.
    pub(crate) over: AtomicBool,
}

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) rooms: Hub,
    pub(crate) users: Hub,
    pub(crate) passing: Hub,
    pub(crate) flood: Channel<Note>,
    pub(crate) tally: StateChannel<Tally, Note>,
    pub(crate) mixed: Hub,
    pub(crate) steady: StateChannel<Tally, Note>,
    pub(crate) bursts: StateChannel<Tally, Note>,
    pub(crate) late: Late,
    runs: Runs<Note, usize>,
    run_count: Arc<AtomicU64>,
    how: Break,
}

/// A state outside its channel, as in a database that takes time to answer.
#[derive(Clone)]
pub(crate) struct Late {
    channel: Channel<Note>,
    /// The state, and the id up to which it contains every event.
    state: Arc<Mutex<(EventId, Tally)>>,
}

impl Late {
    fn new(channel: Channel<Note>) -> Self {
        let state = Tally::after(&mixed_name(LATE), 0);
        let state = Arc::new(Mutex::new((channel.newest(), state)));
        let (of_state, asked) = (state.clone(), AtomicU64::new(0));
        // Delays before and after, so the state is neither that of the request nor that of the
        // answer.
        let make = move || {
            let (state, number) = (of_state.clone(), asked.fetch_add(1, Ordering::Relaxed));
            async move {
                let time = Duration::from_millis(match number % 4 {
                    0 => 10,
                    1 => 100,
                    2 => 300,
                    _ => 1000,
                });
                sleep(time).await;
                let made = state.lock().unwrap().clone();
                sleep(time).await;
                if number % 30 == 29 {
                    return Err("as some of them do");
                }
                Ok(made)
            }
        };
        channel.snapshot(make).unwrap();
        Self { channel, state }
    }

    pub(crate) fn publish(&self, note: &Note) -> Result<Published, Error> {
        let mut state = self.state.lock().unwrap();
        let published = self.channel.publish(note)?;
        state.0 = published.id().unwrap();
        state.1.apply(note.number);
        Ok(published)
    }
}

pub(crate) fn mixed_name(at: usize) -> String {
    match at {
        STEADY => "steady".to_owned(),
        BURSTS => "bursts".to_owned(),
        LATE => "late".to_owned(),
        chat => format!("chat-{chat}"),
    }
}

pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    pub(crate) app: App,
    limits: Limits,
    connections: Connections,
    shutdown: Shutdown,
    task: JoinHandle<io::Result<()>>,
}

/// The names in a query like `?c=room-1&c=room-2`.
fn names(query: Vec<(String, String)>) -> impl Iterator<Item = String> {
    query.into_iter().map(|(_, name)| name)
}

type Names = Query<Vec<(String, String)>>;

/// With `--break leak`, some requests leave a task behind, and thus an open file.
async fn rooms(State(app): State<App>, Query(set): Names, last: LastEventId) -> impl IntoResponse {
    let number = app.run_count.load(Ordering::Relaxed);
    if app.how == Break::Leak && number.is_multiple_of(10) {
        let file = std::fs::File::open("/proc/self/stat");
        tokio::spawn(async move {
            let _file = file;
            std::future::pending::<()>().await;
        });
    }
    app.rooms.subscribe(names(set), last)
}

async fn oldest(State(app): State<App>, Query(set): Names, last: LastEventId) -> impl IntoResponse {
    app.rooms.subscribe(names(set), last).start(Start::Oldest)
}

async fn mixed(State(app): State<App>, Query(set): Names, last: LastEventId) -> impl IntoResponse {
    app.mixed.subscribe(names(set), last)
}

async fn passing(
    State(app): State<App>,
    Query(set): Names,
    last: LastEventId,
) -> impl IntoResponse {
    app.passing.subscribe(names(set), last)
}

/// The query names the channel's owner; in an app, the session would.
async fn user(State(app): State<App>, Query(set): Names, last: LastEventId) -> impl IntoResponse {
    let names = names(set).take(1).map(|user| format!("user-{user}"));
    app.users.subscribe(names, last)
}

async fn flood(State(app): State<App>, last: LastEventId) -> impl IntoResponse {
    app.flood.subscribe(last)
}

async fn tally(State(app): State<App>, last: LastEventId) -> impl IntoResponse {
    app.tally.subscribe(last)
}

async fn run(
    State(app): State<App>,
    Query(set): Names,
    last: LastEventId<RunId>,
) -> impl IntoResponse {
    let user: usize = names(set).next().unwrap_or_default().parse().unwrap_or(0);
    let is_new = matches!(last, LastEventId::Absent);
    let run = app
        .run_count
        .fetch_add(u64::from(is_new), Ordering::Relaxed);
    let name = format!("run-{user}-{run}");
    let lacks = u64::from(app.how == Break::Run && run % 50 == 2);
    let response = app.runs.resume_or_start(last, user, move || {
        stream::iter(0..items(run) - lacks).then(move |number| {
            let note = Note::new(&name, number, LONGEST_ITEM);
            async move {
                sleep(pause(run)).await;
                if kind(run) == Kind::Panics && number == panics_at(run) {
                    // Without printing a panic message.
                    std::panic::resume_unwind(Box::new("a run that panics"));
                }
                note
            }
        })
    });
    if is_new
        && kind(run) == Kind::Cancelled
        && let Some(id) = response.id()
    {
        let runs = app.runs.clone();
        tokio::spawn(async move {
            sleep(cancelled_after(run)).await;
            runs.cancel(id, &user);
        });
    }
    response
}

impl App {
    fn new(how: Break) -> Self {
        let heartbeat = Heartbeat::every(HEARTBEAT);
        let of_hub = |capacity| {
            Hub::builder()
                .capacity(capacity)
                .heartbeat(heartbeat.clone())
        };
        let of_channel = |capacity| {
            let builder = Channel::<Note>::builder().capacity(capacity);
            builder.heartbeat(heartbeat.clone())
        };
        let forgets = how == Break::State;
        let apply = move |state: &mut Tally, note: &Note| {
            if !(forgets && note.number == 20) {
                state.apply(note.number);
            }
        };
        let state_channel = |channel, name: &str| {
            let state = Tally::after(name, 0);
            StateChannel::on(channel, state, apply).unwrap()
        };
        // Few bytes, so that a slow client of the bursts gets a gap.
        let mixed = of_hub(KEPT).bytes(32 * 1024).build();
        let of_mixed = |at| {
            let name = mixed_name(at);
            (mixed.channel(&name).unwrap(), name)
        };
        let state_channel_of_mixed = |at| {
            let (channel, name) = of_mixed(at);
            state_channel(channel, &name)
        };
        Self {
            rooms: of_hub(KEPT).build(),
            users: of_hub(1000).build(),
            passing: of_hub(1000)
                .retire_after(FORGOTTEN)
                .retry(Duration::from_millis(500))
                .build(),
            flood: of_channel(100).bytes(100 * 1024).build(),
            tally: state_channel(of_channel(100).build(), TALLY),
            steady: state_channel_of_mixed(STEADY),
            bursts: state_channel_of_mixed(BURSTS),
            late: Late::new(of_mixed(LATE).0),
            mixed: mixed.clone(),
            runs: Runs::builder()
                .keep(FORGOTTEN)
                .max_runs(10_000)
                .heartbeat(heartbeat)
                .build(),
            run_count: Arc::default(),
            how,
        }
    }

    fn router(&self, layer: SseLayer) -> Router {
        Router::new()
            .route("/rooms", get(rooms))
            .route("/oldest", get(oldest))
            .route("/mixed", get(mixed))
            .route("/user", get(user))
            .route("/passing", get(passing))
            .route("/flood", get(flood))
            .route("/tally", get(tally))
            .route("/run", get(run))
            .route("/silent", get(async || Sse::new(stream::pending::<u8>())))
            .layer(layer)
            .with_state(self.clone())
    }
}

impl Server {
    /// Starts the server. Streams live up to `lifetime`, so that the server cuts some, too.
    pub(crate) fn start(runtime: &Runtime, lifetime: Duration, how: Break) -> Self {
        let app = App::new(how);
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
            let kind = kind.to_owned();
            let track = move |at| Track::new(format!("{kind}-{at}"), 200, 2048);
            (0..count).map(track).map(Arc::new)
        };
        let rooms = tracks("room", ROOMS);
        let rooms = rooms.chain(tracks("busy", BUSY_OF_ALL.len()));
        let mixed = (0..CHATS.end).map(|at| {
            let longest = if at == BURSTS { 1500 } else { 200 };
            let track = Track::new(mixed_name(at), longest, 4096);
            Arc::new(match CHATS.contains(&at) {
                true => track,
                false => track.with_state(),
            })
        });
        let world = World {
            address,
            rooms: rooms.chain(tracks("quiet", QUIET_OF_ALL.len())).collect(),
            users: tracks("user", USERS).collect(),
            mixed: mixed.collect(),
            runs: Mutex::default(),
            has_partial_ids: AtomicBool::new(false),
            tally: Arc::new(Track::new(TALLY, 200, 4096).single().with_state()),
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

    pub(crate) fn close(&self) {
        let hubs = [
            (&self.app.rooms, &self.world.rooms),
            (&self.app.users, &self.world.users),
            (&self.app.mixed, &self.world.mixed),
        ];
        for (hub, tracks) in hubs {
            for track in tracks {
                let channel: Channel<Note> = hub.channel(&track.name).unwrap();
                channel.close(None).unwrap();
            }
        }
        self.app.flood.close(None).unwrap();
        self.app.tally.channel().close(None).unwrap();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connections.open() > 0
    }

    /// The figures that should be zero when all clients are gone, but are not.
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
                "subscribers of state channels and chats",
                app.mixed.stats().subscribers,
            ),
            (
                "subscribers of passing channels",
                app.passing.stats().subscribers,
            ),
            ("subscribers of the flood", app.flood.stats().subscribers),
            (
                "subscribers of the state channel",
                app.tally.channel().stats().subscribers,
            ),
            // Except the one for this look itself.
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
            app.mixed.stats(),
            app.passing.stats(),
            app.flood.stats(),
            app.tally.channel().stats(),
        ]
    }

    /// Shuts down with open streams. Returns the time until `axum::serve` has returned.
    pub(crate) fn stop(self, runtime: &Runtime) -> Duration {
        let begun = Instant::now();
        self.shutdown.begin();
        runtime.block_on(self.task).unwrap().unwrap();
        begun.elapsed()
    }
}
