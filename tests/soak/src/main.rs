//! A soak test: thousands of connections that are slow or silent, are cut, and reconnect with any
//! id, for as long as you want. It checks every transcript, and that all resources are freed at
//! the end.
//!
//! `cargo run --release -p soak -- --for 1h`; without a time, a few seconds. See docs/testing.md.

mod check;
mod client;
mod id;
mod publish;
mod report;
mod run;
mod server;
mod state;
mod track;
mod wire;

use std::{
    alloc::System,
    process::{self, ExitCode},
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use client::Client;
use report::{Figures, Held, cpu, row, sample};
use server::Server;

/// Whether a run that did not complete ends with an event that reports it.
pub(crate) const RUNS_REPORT_THEIR_END: bool = true;

/// Whether a client of several channels gets partial ids, which end with a dot, before its
/// snapshots are made; and whether one that starts with the oldest event gets a gap if the first
/// ones are gone.
pub(crate) const PARTIAL_IDS: bool = true;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const USAGE: &str = "\
Usage: cargo run --release -p soak -- [OPTION...]

  --for TIME      how long to run: 90s, 2m, 1h (5s)
  --clients N     concurrent clients (4000; 200 for less than a minute)
  --rate N        multiple of the usual event rate (1)
  --seed N        seed for the clients' choices (the time)
  --break WHAT    inject a fault that the test must find: skip (an event is lost), foreign (an
                  event reaches another user), state (a channel's state lacks a change), run (a
                  run that seems complete lacks an item), leak (tasks and files stay open)
  --help          print this";

/// A deliberate fault, to check that it is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Nothing,
    Skip,
    Foreign,
    State,
    Run,
    Leak,
}

struct Options {
    time: Duration,
    clients: usize,
    rate: f64,
    seed: u64,
    fault: Break,
}

fn time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(digits.parse::<u64>().ok()? * seconds))
}

impl Options {
    /// `None` if only the usage was requested.
    fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            time: Duration::from_secs(5),
            clients: 0,
            rate: 1.0,
            seed: SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(0, |time| time.as_secs()),
            fault: Break::Nothing,
        };
        while let Some(word) = words.next() {
            if word == "--help" {
                return Ok(None);
            }
            let value = words.next().unwrap_or_default();
            let wrong = || format!("{word} cannot be {value:?}");
            match word.as_str() {
                "--for" => options.time = time(&value).ok_or_else(wrong)?,
                "--clients" => options.clients = value.parse().map_err(|_| wrong())?,
                "--rate" => options.rate = value.parse().map_err(|_| wrong())?,
                "--seed" => options.seed = value.parse().map_err(|_| wrong())?,
                "--break" => {
                    options.fault = match value.as_str() {
                        "skip" => Break::Skip,
                        "foreign" => Break::Foreign,
                        "state" => Break::State,
                        "run" => Break::Run,
                        "leak" => Break::Leak,
                        _ => return Err(wrong()),
                    }
                }
                _ => return Err(format!("unknown option {word}")),
            }
        }
        if options.clients == 0 {
            let is_short = options.time < Duration::from_secs(60);
            options.clients = if is_short { 200 } else { 4000 };
        }
        // This process opens both ends of each connection, and some other files.
        let room = report::file_limit().map_or(usize::MAX, |files| files.saturating_sub(200) / 2);
        if options.clients > room {
            println!("soak: only {room} clients, because of the limit on open files (ulimit -n)");
            options.clients = room;
        }
        Ok(Some(options))
    }
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("soak: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!(
        "soak: {} clients for {:?}, --seed {}",
        options.clients, options.time, options.seed
    );
    if soak(&options) {
        println!("soak: passed");
        ExitCode::SUCCESS
    } else {
        println!("soak: FAILED, --seed {}", options.seed);
        ExitCode::FAILURE
    }
}

fn runtime(name: &str, threads: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(threads)
        .thread_name(name)
        .enable_all();
    builder.build().unwrap()
}

/// Ends the process if it does not end by itself.
fn watch(bound: Duration, stage: &Arc<Mutex<&'static str>>) {
    let stage = stage.clone();
    let watch = move || {
        thread::sleep(bound);
        println!("soak: FAILED, it hangs: {}", stage.lock().unwrap());
        process::exit(1);
    };
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(watch)
        .unwrap();
}

fn soak(options: &Options) -> bool {
    let stage = Arc::new(Mutex::new("start"));
    let enter = |name| *stage.lock().unwrap() = name;
    watch(options.time + Duration::from_secs(120), &stage);
    // Create what lives as long as the process before the first measurement: tokio's pipe for
    // signals.
    drop(runtime("first", 1));
    let figures = Arc::new(Figures::default());
    let begun = Instant::now();
    let at_begin = Held::now();

    let servers = runtime("server", 2);
    let clients = runtime("client", 1);
    let life = (options.time / 8).clamp(Duration::from_millis(700), Duration::from_secs(30));
    let server = Server::start(&servers, life * 3, options.fault);
    servers.block_on(first_answer(&server));
    let tasks_at_begin = servers.metrics().num_alive_tasks();
    let publishers = publish::start(&server, options.rate, options.fault);
    let world = server.world.clone();
    while world.passing.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    let mut living = JoinSet::new();
    for number in 0..options.clients {
        let client = Client::new(number, world.clone(), figures.clone(), options.seed, life);
        living.spawn_on(client.live(), clients.handle());
    }

    enter("the run itself");
    let samples = sample(begun, options.time, &figures, &world);

    // Only measured for threads that still exist.
    let publishers_used = cpu("publish");
    enter("publishers end, channels are closed");
    world.over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.join().unwrap();
    }
    server.close();
    enter("clients read to the end");
    let ended = clients.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), async {
            while let Some(ended) = living.join_next().await {
                ended.unwrap();
            }
        })
        .await
    });
    if ended.is_err() {
        figures.fail(format!(
            "{} clients hang: they were to read to the end",
            living.len()
        ));
        living.abort_all();
    }
    let used = [
        ("", cpu("")),
        ("server", cpu("server")),
        ("client", cpu("client")),
        ("publishers", publishers_used),
    ];

    enter("everything is given back");
    let back = back(&server, || {
        servers
            .metrics()
            .num_alive_tasks()
            .saturating_sub(tasks_at_begin)
    });
    let stats = server.stats();
    enter("the shutdown");
    let silent = clients.block_on(silent(world.address));
    let stopped = server.stop(&servers);
    let tasks = settles(|| servers.metrics().num_alive_tasks() == 0).then_some(0);
    let tasks = tasks.unwrap_or_else(|| servers.metrics().num_alive_tasks());
    drop((silent, living, world));
    let published = stats.iter().map(|stats| stats.published).sum::<u64>();
    drop((servers, clients));
    // Connections and tasks are gone; what the allocator keeps does not count.
    let at_end = Held::now();

    println!();
    row("wall clock", format!("{:.0?}", begun.elapsed()));
    row("events published", published);
    figures.print();
    for (who, time) in used {
        let share = time.as_secs_f64() / begun.elapsed().as_secs_f64();
        row(
            &format!(
                "CPU{}{who}, and cores on average",
                if who.is_empty() { "" } else { ", " }
            ),
            format!("{:.1} s, {share:.2}", time.as_secs_f64()),
        );
    }
    samples.print(&at_begin, &at_end);
    row(
        "files open, beginning / most / end",
        format!(
            "{:?} / {} / {:?}",
            at_begin.files.unwrap_or(0),
            samples.files,
            at_end.files.unwrap_or(0)
        ),
    );
    row("tasks of the server at the end", tasks);
    row(
        "the shutdown, with 20 silent streams",
        format!("{stopped:.1?}"),
    );
    println!();

    let mut failed = back;
    if tasks != 0 {
        failed.push(format!("{tasks} tasks of the server are left"));
    }
    if stopped > Duration::from_secs(5) {
        failed.push(format!("the shutdown took {stopped:?}"));
    }
    if at_begin.files != at_end.files {
        failed.push(format!(
            "open files: {:?} at the beginning, {:?} at the end",
            at_begin.files, at_end.files
        ));
    }
    failed.extend(samples.judge(options.time, &at_begin, &at_end));
    for what in failed {
        figures.fail(what);
    }
    if figures.delivered.load(Ordering::Relaxed) == 0 {
        figures.fail("no event was delivered".to_owned());
    }
    figures.failures.load(Ordering::Relaxed) == 0
}

/// Waits for a condition, for ten seconds at most.
fn settles(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    condition()
}

/// What the server still holds when all clients are gone.
fn back(server: &Server, tasks: impl Fn() -> usize) -> Vec<String> {
    let left = || {
        let mut left: Vec<_> = server.counters();
        left.push(("tasks of the server", tasks()));
        left.retain(|(_, count)| *count > 0);
        left
    };
    settles(|| left().is_empty());
    left()
        .into_iter()
        .map(|(what, count)| format!("{what}: {count} are left"))
        .collect()
}

/// After this, the server has started all tasks that it has without clients.
async fn first_answer(server: &Server) {
    let mut stream = TcpStream::connect(server.world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    while server.is_connected() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Streams that are never read, still open at the shutdown.
async fn silent(address: std::net::SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        silent.push(stream);
    }
    silent
}
