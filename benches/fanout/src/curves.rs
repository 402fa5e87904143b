//! How cost grows: one quantity at a time, from small to large.

use serde_json::{Value, json};

use crate::{
    Result,
    client::Pace,
    measure,
    report::since_1970,
    rounds::Rounds,
    scenario::{Contestant, Scenario},
    servers::{Kind, Setup},
    work::{Silent, Work},
};

const SERVERS: [(&str, Kind); 3] = [
    ("limit", Kind::Limit),
    ("ours", Kind::Ours),
    ("axum", Kind::Axum),
];

/// Deliveries per second at each point, unless another limit is lower: a rate at which no server
/// falls behind.
const DELIVERIES: usize = 40_000;

/// Bytes per second at each point.
const BYTES: usize = 100_000_000;

#[derive(Debug)]
struct Curve {
    name: &'static str,
    values: &'static [usize],
    servers: &'static [(&'static str, Kind)],
    point: fn(&mut Setup, usize) -> Work,
}

const CURVES: [Curve; 4] = [
    Curve {
        name: "connections",
        values: &[100, 300, 1000, 3000, 10_000, 15_000],
        servers: &SERVERS,
        point: |_, connections| steady(connections, 200),
    },
    Curve {
        name: "event size",
        values: &[50, 200, 1000, 4000, 16_000, 65_536],
        servers: &SERVERS,
        point: |_, size| steady(500, size),
    },
    Curve {
        name: "ring size",
        values: &[0, 16, 128, 1024, 8192, 65_536, 262_144],
        servers: &[("ours", Kind::Ours)],
        point: |setup, capacity| {
            setup.capacity = capacity;
            setup.bytes = 1 << 30;
            Work::Deliver {
                connections: 200,
                pace: Pace::InFlight(16),
                events: 20_000,
                size: 200,
                silent: Silent::No,
            }
        },
    },
    Curve {
        name: "channels",
        values: &[1, 10, 100, 1000, 10_000, 100_000],
        servers: &[("ours", Kind::Ours)],
        point: |setup, channels| {
            setup.channels = channels;
            setup.groups = channels;
            Work::Channels { connections: 1000 }
        },
    },
];

fn steady(connections: usize, size: usize) -> Work {
    let rate = (DELIVERIES / connections).min(BYTES / (connections * size));
    let rate = rate.clamp(1, 100) as u32;
    Work::Deliver {
        connections,
        pace: Pace::PerSecond(rate),
        events: (2 * rate).max(6),
        size,
        silent: Silent::No,
    }
}

/// Measures all curves, or only the one named `chosen`.
pub(crate) fn run(chosen: Option<&str>, rounds: usize, tolerant: bool) -> Result<Value> {
    let mut points = Vec::new();
    for curve in CURVES {
        if chosen.is_some_and(|name| name != curve.name) {
            continue;
        }
        for &x in curve.values {
            let contestant = |&(label, kind)| {
                let mut setup = Setup::new(kind);
                let work = (curve.point)(&mut setup, x);
                Contestant { label, setup, work }
            };
            let scenario = Scenario {
                name: curve.name,
                title: format!("{} = {x}", curve.name),
                contestants: curve.servers.iter().map(contestant).collect(),
                columns: &[],
            };
            eprintln!("{}", scenario.title);
            let rounds = match Rounds::run(&scenario, rounds, tolerant) {
                Ok(rounds) => rounds,
                Err(error) => {
                    // The other points are still useful.
                    eprintln!("left out: {error}");
                    continue;
                }
            };
            for (index, one) in scenario.contestants.iter().enumerate() {
                let runs: Vec<_> = rounds.kept.iter().map(|round| &round[index]).collect();
                points.push(json!({
                    "curve": curve.name, "x": x, "label": one.label, "rounds": runs,
                }));
            }
        }
    }
    Ok(json!({
        "measured": since_1970(),
        "machine": measure::machine(),
        "points": points,
    }))
}
