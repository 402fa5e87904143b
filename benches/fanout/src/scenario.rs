//! The scenarios, their contestants, and the bars that this crate must meet.

use crate::{
    client::Pace,
    servers::{Kind, Setup},
    work::{Silent, Work},
};

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// For the command line.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) columns: &'static [Column],
}

#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) label: &'static str,
    pub(crate) setup: Setup,
    pub(crate) work: Work,
}

/// A figure that the table shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) figure: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) digits: usize,
}

const fn column(figure: &'static str, heading: &'static str, digits: usize) -> Column {
    Column {
        figure,
        heading,
        digits,
    }
}

/// The ratios in the table are of the first column.
const DELIVERY: &[Column] = &[
    column("cpu", "CPU µs/event", 3),
    column("per_write", "events/write", 2),
    column("p50", "p50 ms", 2),
    column("p99", "p99 ms", 2),
    column("seconds", "seconds", 2),
];
const REPLAY: &[Column] = &[
    column("cpu", "CPU µs/event", 3),
    column("per_write", "events/write", 1),
    column("seconds", "seconds", 2),
    column("cpu_seconds", "CPU s", 2),
];
const IDLE: &[Column] = &[
    column("memory", "KiB/connection", 2),
    column("used", "after an event", 2),
    column("sockets", "kernel KiB", 2),
    column("connect", "CPU µs/connect", 1),
];
const STORM: &[Column] = &[
    column("cpu_seconds", "CPU s", 3),
    column("back", "all back, ms", 1),
    column("lost", "lost/client", 2),
    column("p99", "p99 ms", 2),
];
const SILENT: &[Column] = &[
    column("cpu", "CPU µs/event", 3),
    column("p99", "p99 ms", 2),
    column("rss", "process MiB", 2),
    column("unsent", "unsent KiB", 0),
];

/// An upper bound on the ratio of one contestant's figure to another's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) scenario: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) of: &'static str,
    pub(crate) against: &'static str,
    pub(crate) at_most: f64,
}

const fn bar(
    scenario: &'static str,
    figure: &'static str,
    of: &'static str,
    against: &'static str,
    at_most: f64,
) -> Bar {
    Bar {
        scenario,
        figure,
        of,
        against,
        at_most,
    }
}

pub(crate) const BARS: &[Bar] = &[
    bar("free", "cpu", "ours", "limit", 1.6),
    bar("free", "cpu", "ours", "axum", 0.2),
    bar("in-flight", "cpu", "ours", "limit", 1.25),
    bar("in-flight", "p99", "ours", "limit", 1.5),
    bar("in-flight", "cpu", "ours", "axum", 0.4),
    bar("steady", "cpu", "ours", "limit", 1.2),
    bar("steady", "cpu", "ours", "axum", 0.9),
    bar("half", "cpu", "ours", "limit", 1.2),
    bar("half", "cpu", "ours", "axum", 0.9),
    bar("replay", "cpu", "ours", "limit", 0.8),
    bar("replay", "cpu", "ours", "handrolled", 0.15),
    bar("idle", "memory", "ours", "axum", 1.0),
    bar("silent", "cpu", "ours, one silent", "ours", 1.05),
    bar("silent", "p99", "ours, one silent", "ours", 1.05),
    bar("coalesce", "cpu", "ours, 50 ms", "ours", 0.4),
];

/// The contestants of the delivery scenarios.
const EVERYONE: [Kind; 5] = [
    Kind::Limit,
    Kind::Ours,
    Kind::Axum,
    Kind::AxumClone,
    Kind::HandRolled,
];

const ALL: [(&str, Kind); 6] = [
    ("limit", Kind::Limit),
    ("ours", Kind::Ours),
    ("axum", Kind::Axum),
    ("axum, one router", Kind::AxumOneRouter),
    ("axum, cloned", Kind::AxumClone),
    ("handrolled", Kind::HandRolled),
];

fn among(kinds: &[Kind], work: Work, change: impl Fn(&mut Setup)) -> Vec<Contestant> {
    let chosen = ALL.into_iter().filter(|(_, kind)| kinds.contains(kind));
    let contestant = |(label, kind)| {
        let mut setup = Setup::new(kind);
        change(&mut setup);
        Contestant { label, setup, work }
    };
    chosen.map(contestant).collect()
}

/// A free-running axum server takes eight times as long per event as this crate. All figures are
/// per event, so slower servers receive fewer events, and a round takes only seconds.
fn fewer(by: u32, contestants: Vec<Contestant>) -> Vec<Contestant> {
    let shorter = |mut one: Contestant| {
        if let (Work::Deliver { events, .. }, Kind::Axum | Kind::AxumClone | Kind::HandRolled) =
            (&mut one.work, one.setup.kind)
        {
            *events = events.div_ceil(by);
        }
        one
    };
    contestants.into_iter().map(shorter).collect()
}

/// All scenarios; with `small`, with just enough load to show that they work.
pub(crate) fn all(small: bool) -> Vec<Scenario> {
    let scale = |full: usize| if small { full.div_ceil(50) } else { full };
    let events = |full: u32| if small { full.div_ceil(50) } else { full };
    let deliver = |connections, pace, count| Work::Deliver {
        connections: scale(connections),
        pace,
        events: events(count),
        size: 200,
        silent: Silent::No,
    };
    let silent = |silent| Work::Deliver {
        connections: scale(1000),
        pace: Pace::PerSecond(100),
        events: events(120),
        size: 200,
        silent,
    };
    let one = |label, kind, work, coalesce| Contestant {
        label,
        setup: Setup {
            coalesce,
            ..Setup::new(kind)
        },
        work,
    };
    let steady = deliver(1000, Pace::PerSecond(100), 120);
    vec![
        Scenario {
            name: "steady",
            title: "1,000 connections, 100 events/s".into(),
            contestants: among(&EVERYONE, steady, |_| ()),
            columns: DELIVERY,
        },
        Scenario {
            name: "half",
            title: "500 connections, 100 events/s".into(),
            contestants: among(&EVERYONE, deliver(500, Pace::PerSecond(100), 120), |_| ()),
            columns: DELIVERY,
        },
        Scenario {
            name: "many",
            title: "10,000 connections, 5 events/s".into(),
            contestants: among(&EVERYONE, deliver(10_000, Pace::PerSecond(5), 8), |_| ()),
            columns: DELIVERY,
        },
        Scenario {
            name: "free",
            title: "5,000 events (peers 625) to 1,000 connections, free-running".into(),
            contestants: fewer(8, among(&EVERYONE, deliver(1000, Pace::Free, 5000), |_| ())),
            columns: DELIVERY,
        },
        Scenario {
            name: "in-flight",
            title: "5,000 events (peers 313) to 1,000 connections, 16 in flight".into(),
            contestants: fewer(
                16,
                among(&EVERYONE, deliver(1000, Pace::InFlight(16), 5000), |_| ()),
            ),
            columns: DELIVERY,
        },
        Scenario {
            name: "idle",
            title: "10,000 idle connections".into(),
            contestants: among(
                &[Kind::Limit, Kind::Ours, Kind::Axum, Kind::AxumOneRouter],
                Work::Idle {
                    connections: scale(10_000),
                },
                |_| (),
            ),
            columns: IDLE,
        },
        Scenario {
            name: "replay",
            title: "200 clients catch up on 10,000 events".into(),
            contestants: among(
                &[Kind::Limit, Kind::Ours, Kind::HandRolled],
                Work::Replay {
                    clients: scale(200),
                    events: events(10_000),
                    least: if small { 0.0 } else { 3.0 },
                },
                |setup| setup.capacity = 16_384,
            ),
            columns: REPLAY,
        },
        Scenario {
            name: "storm",
            title: "1,000 clients reconnect at once, 20 events/s".into(),
            contestants: among(
                &EVERYONE,
                Work::Storm {
                    connections: scale(1000),
                    per_second: 20,
                },
                |_| (),
            ),
            columns: STORM,
        },
        Scenario {
            name: "silent",
            title: "one client that never reads beside 1,000 that do, 100 events/s".into(),
            contestants: vec![
                one("ours", Kind::Ours, silent(Silent::Without), 0),
                one("ours, one silent", Kind::Ours, silent(Silent::With), 0),
                one("axum", Kind::Axum, silent(Silent::Without), 0),
                one("axum, one silent", Kind::Axum, silent(Silent::With), 0),
            ],
            columns: SILENT,
        },
        Scenario {
            name: "channels",
            title: "1,000 connections with ten of 100 channels each, 1,000 events/s in all".into(),
            contestants: among(
                &EVERYONE,
                deliver(1000, Pace::PerSecond(1000), 1200),
                |setup| {
                    setup.channels = 100;
                    setup.groups = 10;
                },
            ),
            columns: DELIVERY,
        },
        Scenario {
            name: "coalesce",
            title: "1,000 connections, 100 events/s, at most one write per 50 ms".into(),
            contestants: vec![
                one("ours", Kind::Ours, steady, 0),
                one("ours, 50 ms", Kind::Ours, steady, 50),
            ],
            columns: DELIVERY,
        },
    ]
}
