//! One client: it connects, reads at its own pace, disconnects, and comes back, again and again.

mod plan;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum_sse::testing::Item;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    check::Transcript,
    report::Figures,
    run::{OneRun, Shared},
    server::{BUSY_OF_ALL, MIXES, QUIET_OF_ALL, ROOMS, ROOMS_OF_ALL, SHARED_RUNS, USERS, World},
    track::Track,
    wire::Response,
};
use plan::{Pace, Plan, Random, Target};

/// Heartbeats are due much earlier: a client that reads and receives nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(40);

enum Seen {
    Channels(Transcript),
    Run(OneRun),
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Cut,
    /// The last chunk has arrived.
    Clean,
    /// The server has cut the connection.
    Lost,
    /// 204.
    StayAway,
}

pub(crate) struct Client {
    pub(crate) number: usize,
    world: Arc<World>,
    figures: Arc<Figures>,
    random: Random,
    life: Duration,
    target: Target,
    path: String,
    /// Without an id, it starts with the oldest event.
    from_oldest: bool,
    channels: String,
    seen: Seen,
    /// What a browser would send.
    last: String,
    connections: u64,
}

impl Client {
    pub(crate) fn new(
        number: usize,
        world: Arc<World>,
        figures: Arc<Figures>,
        seed: u64,
        life: Duration,
    ) -> Self {
        let random = Random::new(seed, number);
        let target = match number % 50 {
            0 => Target::Flood,
            1..=3 => Target::StateChannel,
            4..=8 => Target::Mixed,
            9..=13 => Target::Run,
            14..=17 => Target::Passing,
            18..=24 => Target::User,
            25..=27 => Target::Wide,
            _ => Target::Rooms,
        };
        Self {
            number,
            world,
            figures,
            random,
            life,
            target,
            path: String::new(),
            from_oldest: false,
            channels: String::new(),
            seen: Seen::Run(OneRun::new()),
            last: String::new(),
            connections: 0,
        }
    }

    /// Chooses what the client reads from now on, as a new client.
    fn choose(&mut self) {
        self.note_unproved();
        let world = &self.world;
        self.last.clear();
        self.from_oldest = self.target == Target::Rooms && self.random.chance(10);
        let (path, tracks) = match self.target {
            Target::Rooms => {
                let first = self.random.index(ROOMS);
                let tracks = (0..=self.random.index(4))
                    .map(|more| world.rooms[(first + more) % ROOMS].clone())
                    .collect();
                let path = if self.from_oldest {
                    "/oldest"
                } else {
                    "/rooms"
                };
                (path.to_owned(), tracks)
            }
            Target::Wide => ("/rooms".to_owned(), self.a_hundred()),
            Target::User => {
                let user = self.random.index(world.users.len());
                (
                    format!("/user?user={user}"),
                    vec![world.users[user].clone()],
                )
            }
            Target::StateChannel => ("/tally".to_owned(), vec![world.tally.clone()]),
            Target::Mixed => {
                let set = MIXES[self.random.index(MIXES.len())];
                let tracks = set.iter().map(|at| world.mixed[*at].clone());
                ("/mixed".to_owned(), tracks.collect())
            }
            Target::Flood => ("/flood".to_owned(), vec![world.flood.clone()]),
            Target::Passing => {
                let passing = world.passing.lock().unwrap();
                let track = passing[self.random.index(passing.len())].clone();
                ("/passing".to_owned(), vec![track])
            }
            Target::Run => (format!("/run?user={}", self.user()), Vec::new()),
        };
        self.path = path;
        if !self.path.contains('?') {
            let names = tracks.iter().map(|track| format!("c={}", track.name));
            self.path = format!("{}?{}", self.path, names.collect::<Vec<_>>().join("&"));
        }
        self.channels = tracks
            .iter()
            .map(|track| format!("{} ", track.name))
            .collect();
        self.seen = match self.target {
            Target::Run => Seen::Run(self.choose_run()),
            _ => Seen::Channels(Transcript::new(tracks)),
        };
    }

    /// A mix: some rooms, two busy channels, and many quiet ones.
    fn a_hundred(&mut self) -> Vec<Arc<Track>> {
        let world = self.world.clone();
        let mut tracks = Vec::new();
        for (kind, count) in [(ROOMS_OF_ALL, 4), (BUSY_OF_ALL, 2), (QUIET_OF_ALL, 94)] {
            let first = self.random.index(kind.len());
            let of_kind = (0..count).map(|more| kind.start + (first + more) % kind.len());
            tracks.extend(of_kind.map(|at| world.rooms[at].clone()));
        }
        tracks
    }

    /// A new run; a run that another client reads or has read; or another owner's.
    fn choose_run(&mut self) -> OneRun {
        let is_foreign = self.random.chance(5);
        if !is_foreign && self.random.chance(60) {
            return OneRun::new();
        }
        let user = self.user();
        let shared: Vec<Shared> = {
            let runs = self.world.runs.lock().unwrap();
            let of_user = runs.iter().filter(|run| (run.owner != user) == is_foreign);
            of_user.cloned().collect()
        };
        if shared.is_empty() {
            return OneRun::new();
        }
        let shared = &shared[self.random.index(shared.len())];
        self.last.clone_from(&shared.id);
        OneRun::from(shared, is_foreign)
    }

    fn user(&self) -> usize {
        self.number % USERS
    }

    fn note_unproved(&self) {
        if let Seen::Channels(transcript) = &self.seen {
            self.figures
                .unproved
                .fetch_add(transcript.unproved, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.world.over.load(Ordering::Relaxed)
    }

    pub(crate) async fn live(mut self) {
        self.pause(self.life / 4).await;
        self.choose();
        while !self.is_over() {
            let plan = self.plan();
            let end = self.connect(plan).await;
            match (self.target, end) {
                (Target::Run, End::Clean | End::Lost)
                    if self.run_has_end() && self.random.chance(50) =>
                {
                    // A page closes its stream on this event.
                    self.run_ended();
                    self.choose();
                }
                (Target::Run | Target::Passing, End::StayAway) => {
                    self.stays_away();
                    self.pause(Duration::from_secs(1)).await;
                    if self.is_over() {
                        break;
                    }
                    self.choose();
                }
                (_, End::StayAway) if !self.is_over() => {
                    self.fail("told to stay away from an open channel");
                }
                _ => {
                    // Most come back soon, some after a long time.
                    let away = if self.random.chance(8) {
                        self.life
                    } else {
                        Duration::from_millis(500)
                    };
                    self.pause(away).await;
                }
            }
            if self.target == Target::Passing && self.random.chance(5) {
                self.choose();
            }
        }
        self.read_to_the_end().await;
        self.note_unproved();
    }

    /// Everything is closed: reads the rest, the end, and then a 204.
    async fn read_to_the_end(&mut self) {
        if self.target == Target::Passing {
            // The channel may be retired already; then there is no 204.
            return;
        }
        for _ in 0..10 {
            let mut plan = self.back();
            plan.to_the_end = true;
            match self.connect(plan).await {
                End::StayAway => return self.stays_away(),
                _ if self.run_has_end() => return self.run_ended(),
                End::Cut => return,
                End::Clean | End::Lost => sleep(Duration::from_millis(100)).await,
            }
        }
        self.fail("came back ten times, and was never told to stay away");
    }

    fn run_has_end(&self) -> bool {
        matches!(&self.seen, Seen::Run(run) if run.has_end())
    }

    fn run_ended(&self) {
        if let Seen::Run(run) = &self.seen {
            self.figures.run_ended(&run.outcome());
        }
    }

    fn stays_away(&mut self) {
        self.run_ended();
        self.figures.stayed_away.fetch_add(1, Ordering::Relaxed);
        let complete = match &self.seen {
            Seen::Channels(transcript) => transcript.stays_away(),
            Seen::Run(run) => run.stays_away(),
        };
        if let Err(error) = complete {
            self.fail(&error);
        }
    }

    async fn pause(&mut self, mean: Duration) {
        let until = Instant::now() + self.random.time(mean);
        while Instant::now() < until && !self.is_over() {
            sleep((until - Instant::now()).min(Duration::from_millis(500))).await;
        }
    }

    fn fail(&self, what: &str) {
        self.figures.fail(format!(
            "client {} ({:?} {:.120}), connection {}, last id {:?}: {what}",
            self.number, self.target, self.channels, self.connections, self.last
        ));
    }

    async fn open(&self, plan: &Plan) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if plan.pace != Pace::Fast {
            socket.set_recv_buffer_size(4096)?;
        }
        let mut stream = socket.connect(self.world.address).await?;
        if plan.reset {
            stream.set_zero_linger()?;
        }
        let mut head = format!("GET {} HTTP/1.1\r\nHost: soak\r\n", self.path).into_bytes();
        if !plan.id.is_empty() {
            head.extend(b"Last-Event-ID: ");
            head.extend(&plan.id);
            head.extend(b"\r\n");
        }
        head.extend(b"\r\n");
        stream.write_all(&head).await?;
        Ok(stream)
    }

    async fn connect(&mut self, plan: Plan) -> End {
        self.connections += 1;
        self.figures.connections.fetch_add(1, Ordering::Relaxed);
        let stream = match timeout(Duration::from_secs(20), self.open(&plan)).await {
            Ok(Ok(stream)) => stream,
            failed => {
                self.fail(&format!("no connection: {failed:?}"));
                return End::Lost;
            }
        };
        match &mut self.seen {
            Seen::Channels(transcript) => {
                if let Err(error) = transcript.connected(plan.came) {
                    self.fail(&error);
                }
            }
            // Without an id, the client starts another run.
            Seen::Run(run) if plan.id.is_empty() => *run = OneRun::new(),
            Seen::Run(_) => {}
        }
        match self.target {
            Target::Wide => self.figures.wide.fetch_add(1, Ordering::Relaxed),
            Target::Mixed => self.figures.mixed.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        self.figures.came(&plan.came);
        self.figures.open.fetch_add(1, Ordering::Relaxed);
        let end = self.read(stream, &plan).await;
        self.figures.open.fetch_sub(1, Ordering::Relaxed);
        self.figures.ended(match end {
            End::Cut if plan.reset => "reset",
            End::Cut => "fin",
            End::Clean => "clean",
            End::Lost => "lost",
            End::StayAway => "204",
        });
        end
    }

    async fn read(&mut self, mut stream: TcpStream, plan: &Plan) -> End {
        let mut response = Response::new();
        let mut buffer = vec![0; if plan.pace == Pace::Fast { 4096 } else { 512 }];
        let until = Instant::now() + plan.life;
        let mut heard = Instant::now();
        let mut left = plan.bytes;
        if plan.pace == Pace::Silent {
            self.pause(Duration::from_secs(6)).await;
            heard = Instant::now();
        }
        loop {
            let now = Instant::now();
            if !plan.to_the_end && (now >= until || self.is_over()) {
                return End::Cut;
            }
            // Check every second whether the test is over.
            let look_up = (now + Duration::from_secs(1)).min(if plan.to_the_end {
                now + SILENCE
            } else {
                until
            });
            let size = buffer.len().min(left);
            let count = match timeout_at(look_up, stream.read(&mut buffer[..size])).await {
                Ok(Ok(0)) | Ok(Err(_)) => {
                    return if response.is_done() {
                        End::Clean
                    } else {
                        End::Lost
                    };
                }
                Ok(Ok(count)) => count,
                Err(_) if heard.elapsed() > SILENCE => {
                    self.fail("it hangs: not even a heartbeat");
                    return End::Cut;
                }
                Err(_) => continue,
            };
            heard = Instant::now();
            left -= count;
            match response.push(&buffer[..count]) {
                Ok(items) => items.into_iter().for_each(|item| self.note(&item)),
                Err(error) => {
                    self.fail(&error);
                    return End::Cut;
                }
            }
            let id = response.parser.last_event_id();
            if !id.is_empty() && id != self.last {
                id.clone_into(&mut self.last);
                if self.target == Target::Mixed && id.ends_with('.') {
                    let known = &self.world.has_partial_ids;
                    known.store(true, Ordering::Relaxed);
                }
            }
            match response.status {
                204 => return End::StayAway,
                _ if response.is_done() => return End::Clean,
                _ if left == 0 => return End::Cut,
                _ if plan.pace == Pace::Slow && !self.is_over() => {
                    sleep(Duration::from_millis(20 + self.random.below(200))).await;
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, item: &Item) {
        let Item::Message(message) = item else {
            return;
        };
        let user = self.user();
        let noted = match &mut self.seen {
            Seen::Channels(transcript) => {
                let noted = transcript.message(message);
                self.figures
                    .delivered
                    .fetch_add(std::mem::take(&mut transcript.events), Ordering::Relaxed);
                let snapshots = std::mem::take(&mut transcript.snapshots);
                self.figures
                    .snapshots
                    .fetch_add(snapshots, Ordering::Relaxed);
                for reason in transcript.gaps.drain(..) {
                    self.figures.gap(&reason);
                }
                noted
            }
            Seen::Run(run) => {
                let noted = run.message(message, user);
                self.figures
                    .delivered
                    .fetch_add(std::mem::take(&mut run.events), Ordering::Relaxed);
                if self.random.chance(10)
                    && let Some(shared) = run.share(user)
                {
                    let mut runs = self.world.runs.lock().unwrap();
                    if runs.len() == SHARED_RUNS {
                        runs.pop_front();
                    }
                    runs.push_back(shared);
                }
                noted
            }
        };
        if let Err(error) = noted {
            self.fail(&error);
        }
    }
}
