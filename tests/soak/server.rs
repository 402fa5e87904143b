//! The server that is soaked: one of everything that the crate offers.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
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
    Board, Channel, Heartbeat, Hub, LastEventId, RunId, Runs, Shutdown, Sse, SseLayer,
    layer::Limits,
    listener::{Connections, Options, PeerAddr},
};
use futures_util::{StreamExt, stream};
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};

use crate::{
    Break,
    run::{LONGEST_ITEM, items},
    track::{Counted, Note, Track},
};

pub(crate) const ROOMS: usize = 24;
pub(crate) const USERS: usize = 100;
pub(crate) const BOARD: &str = "board";

/// How long a client may not read before its connection is cut.
const STALL: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After which time nothing is known any more of a channel or a run that is over.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(5);

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
pub(crate) struct App {
    pub(crate) rooms: Hub,
    pub(crate) users: Hub,
    pub(crate) passing: Hub,
    pub(crate) flood: Channel<Note>,
    pub(crate) board: Board<Counted, Note>,
    runs: Runs<Note, usize>,
    run_count: Arc<AtomicU64>,
    leaks: bool,
}

pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    pub(crate) app: App,
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
            flood: of_channel(100).bytes(100 * 1024).build(),
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
