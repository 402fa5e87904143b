//! Statistics of the clients, and of the process.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{check::Came, server::World};

/// More failures would add nothing.
const SHOWN_FAILURES: usize = 20;

#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) connections: AtomicU64,
    pub(crate) open: AtomicUsize,
    /// Connections over a hundred channels, and connections over several channels of which some
    /// have a state.
    pub(crate) wide: AtomicU64,
    pub(crate) mixed: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) foreign_ids: AtomicU64,
    pub(crate) stayed_away: AtomicU64,
    /// Events whose number could not be checked.
    pub(crate) unproved: AtomicU64,
    pub(crate) failures: AtomicU64,
    counted: Mutex<BTreeMap<String, u64>>,
}

impl Figures {
    /// Prints a failure at once, because the test may be long.
    pub(crate) fn fail(&self, what: String) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before < SHOWN_FAILURES as u64 {
            println!("FAILED: {what}");
        }
    }

    fn count(&self, what: String) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry(what).or_default() += 1;
    }

    pub(crate) fn run_ended(&self, outcome: &str) {
        self.count(format!("runs read to the end: {outcome}"));
    }

    pub(crate) fn gap(&self, reason: &str) {
        self.count(format!("gaps, {reason}"));
    }

    pub(crate) fn came(&self, came: &Came) {
        self.count(match came {
            Came::Run => "came back to their run".to_owned(),
            Came::Fresh => "came without an id".to_owned(),
            Came::Oldest => "came without an id, for everything".to_owned(),
            Came::Back(id) if id.is_partial => "came back with a partial id".to_owned(),
            Came::Back(_) => "came back with their last id".to_owned(),
            Came::Borrowed(_) => "came with an id of another channel of the hub".to_owned(),
            Came::Stranger(reason) => format!("came with an id that is {reason}"),
        });
    }

    pub(crate) fn ended(&self, how: &str) {
        self.count(match how {
            "fin" => "ended by the client with a good-bye".to_owned(),
            "reset" => "ended by the client with a reset".to_owned(),
            "clean" => "ended by the server, cleanly".to_owned(),
            "lost" => "ended by the server, in the middle".to_owned(),
            other => format!("answered with {other}"),
        });
    }

    pub(crate) fn print(&self) {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        row("connections", load(&self.connections));
        row("of these, over 100 channels", load(&self.wide));
        row("of these, over state channels and chats", load(&self.mixed));
        row("events delivered and checked", load(&self.delivered));
        row(
            "of these, number not known beforehand",
            load(&self.unproved),
        );
        row("snapshots received and checked", load(&self.snapshots));
        row("garbage ids", load(&self.garbage));
        row("ids of others", load(&self.foreign_ids));
        row(
            "told to stay away, with everything",
            load(&self.stayed_away),
        );
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, count) in counted.iter() {
            row(what, count);
        }
    }
}

pub(crate) fn row(what: &str, value: impl Display) {
    println!("| {what:<48} | {value:>14} |");
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}

/// What the process holds, if the system reports it (Linux); `None` elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) resident: Option<u64>,
    pub(crate) files: Option<usize>,
    /// Bytes requested from the allocator: exact on every system.
    pub(crate) heap: u64,
}

impl Held {
    pub(crate) fn now() -> Self {
        let stats = crate::ALLOCATOR.stats();
        let heap = stats.bytes_allocated - stats.bytes_deallocated;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            let kib = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
            Some(kib.parse::<u64>().ok()? * 1024)
        });
        Self {
            resident,
            files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            heap: u64::try_from(heap).unwrap(),
        }
    }

    pub(crate) fn resident(&self) -> String {
        self.resident.map_or("unknown".to_owned(), mib)
    }
}

/// How many files the process may open, if the system reports it.
pub(crate) fn file_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The CPU time of all threads whose name starts with `name`; of all threads for "".
pub(crate) fn cpu(name: &str) -> Duration {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let ticks: u64 = stats
        .filter_map(|stat| {
            let (front, back) = stat.rsplit_once(") ")?;
            let fields: Vec<_> = back.split(' ').collect();
            let of = |field: usize| fields.get(field)?.parse::<u64>().ok();
            front
                .split_once('(')?
                .1
                .starts_with(name)
                .then_some(of(11)? + of(12)?)
        })
        .sum();
    // Hundredths of a second on all common Linux systems.
    Duration::from_millis(ticks * 10)
}

/// Memory over the run.
#[derive(Default)]
pub(crate) struct Samples {
    /// After a tenth of the test and at its end, with all clients connected.
    early: Held,
    late: Held,
    resident: u64,
    pub(crate) files: usize,
}

pub(crate) fn sample(begun: Instant, time: Duration, figures: &Figures, world: &World) -> Samples {
    let mut samples = Samples::default();
    let every = (time / 20).clamp(Duration::from_secs(1), Duration::from_secs(60));
    let mut next = every;
    let mut has_early = false;
    while begun.elapsed() < time {
        thread::sleep(Duration::from_millis(500).min(time - begun.elapsed().min(time)));
        let held = Held::now();
        samples.resident = samples.resident.max(held.resident.unwrap_or(0));
        samples.files = samples.files.max(held.files.unwrap_or(0));
        samples.late = held;
        if begun.elapsed() >= time / 10 && !has_early {
            (samples.early, has_early) = (held, true);
        }
        if begun.elapsed() >= next {
            next += every;
            println!(
                "{:>6.0?}  open {:>5}  connections {:>8}  published {:>9}  delivered {:>10}  resident {:>9}  heap {:>9}",
                begun.elapsed(),
                figures.open.load(Ordering::Relaxed),
                figures.connections.load(Ordering::Relaxed),
                world.published.load(Ordering::Relaxed),
                figures.delivered.load(Ordering::Relaxed),
                held.resident(),
                mib(held.heap),
            );
        }
    }
    samples
}

impl Samples {
    pub(crate) fn print(&self, begin: &Held, end: &Held) {
        let held = [
            ("at the beginning", begin),
            ("after a tenth", &self.early),
            ("at the end, under load", &self.late),
            ("with everything closed", end),
        ];
        for (when, held) in held {
            row(&format!("resident, {when}"), held.resident());
        }
        row("resident, most", mib(self.resident));
        for (when, held) in held {
            row(&format!("heap, {when}"), mib(held.heap));
        }
    }

    pub(crate) fn judge(&self, time: Duration, begin: &Held, end: &Held) -> Vec<String> {
        const MIB: u64 = 1 << 20;
        let mut failed = Vec::new();
        // Allows for tables that keep their size. One MiB is less than a leak of four bytes for
        // each connection of an hour.
        if end.heap > begin.heap + MIB {
            failed.push(format!(
                "heap: {} more than at the beginning",
                mib(end.heap - begin.heap)
            ));
        }
        let under_load = |what: &str, early: u64, late: u64| {
            let grew = late > early + early / 4 + 16 * MIB;
            grew.then(|| {
                format!(
                    "{what}: {} after a tenth, {} at the end",
                    mib(early),
                    mib(late)
                )
            })
        };
        failed.extend(under_load("heap", self.early.heap, self.late.heap));
        // It takes minutes until the system's allocator stops growing for the same heap.
        if time >= Duration::from_secs(600) {
            let resident = |held: &Held| held.resident.unwrap_or(0);
            let (early, late) = (resident(&self.early), resident(&self.late));
            failed.extend(under_load("resident", early, late));
        }
        failed
    }
}
