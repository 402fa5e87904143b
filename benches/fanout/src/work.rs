//! [`Work`]: what one run does with one server, and the resulting figures.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Result,
    child::Child,
    client::{self, Load, Pace},
    measure::{self, Others, Usage},
    servers::{Kind, Setup},
};

/// Figures by name; see [`crate::report`] for their units.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// How long to keep reading after the last event, so that a server's last wake-ups are counted.
const TAIL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Publishes live events to open connections.
    Deliver {
        connections: usize,
        pace: Pace,
        events: u32,
        /// Bytes of data.
        size: usize,
        /// Whether one more connection never reads.
        silent: Silent,
    },
    /// Only opens connections.
    Idle { connections: usize },
    /// Waves of `clients` reconnect and replay `events` events each, until the server has used
    /// `least` seconds of CPU time.
    Replay {
        clients: usize,
        events: u32,
        least: f64,
    },
    /// All connections close and reopen at once, while publishing continues.
    Storm { connections: usize, per_second: u32 },
    /// Publishes to many channels, with connections to some of them.
    Channels { connections: usize },
}

/// Whether one client never reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silent {
    No,
    /// The run to compare with: the same events are published beforehand, but no client receives
    /// them.
    Without,
    /// The events published beforehand go to the silent client, and exceed its socket buffers.
    With,
}

/// Events published beforehand for a silent client: more than its socket buffers hold, and more
/// than a server keeps.
const FILL: u32 = 10_000;
const FILL_SIZE: usize = 1024;

/// The receive buffer of a silent client. As small as possible, because the server's side is
/// measured.
const SILENT_BUFFER: usize = 4096;

impl Work {
    /// How many open files this process needs for it.
    pub(crate) fn files(self) -> usize {
        let connections = match self {
            Self::Deliver { connections, .. }
            | Self::Idle { connections }
            | Self::Storm { connections, .. }
            | Self::Channels { connections } => connections,
            Self::Replay { clients, .. } => clients,
        };
        connections + 100
    }

    pub(crate) fn run(self, setup: Setup) -> Result<Figures> {
        let child = Child::start(setup)?;
        let mut load = Load::new(child.address, setup.channels, setup.groups)?;
        match self {
            Self::Deliver { .. } => self.deliver(&child, &mut load),
            Self::Idle { connections } => idle(&child, &mut load, connections),
            Self::Replay {
                clients,
                events,
                least,
            } => replay(&child, &mut load, clients, events, least),
            Self::Storm {
                connections,
                per_second,
            } => {
                load.ledger.lossy = matches!(setup.kind, Kind::Axum | Kind::AxumClone);
                storm(&child, &mut load, connections, per_second)
            }
            Self::Channels { connections } => channels(&child, &mut load, setup, connections),
        }
    }

    fn deliver(self, child: &Child, load: &mut Load) -> Result<Figures> {
        let Self::Deliver {
            connections,
            pace,
            events,
            size,
            silent,
        } = self
        else {
            return Ok(Figures::new());
        };
        let silent_socket = if silent == Silent::With {
            Some(client::silent(child.address, SILENT_BUFFER)?)
        } else {
            None
        };
        if silent != Silent::No {
            load.size = FILL_SIZE;
            // The server must have accepted the connection before the first event.
            load.idle(Duration::from_millis(50))?;
            load.publish(Pace::Free, FILL, |_| Ok(()))?;
            load.ledger.forget();
        }
        load.size = size;
        let before = (child.memory()?, measure::in_sockets()?);
        load.connect(connections)?;
        let connected = (child.memory()?, measure::in_sockets()?);
        load.publish(pace, (events / 20).clamp(2, 100), |_| Ok(()))?;

        let measured = Measured::begin(child, load)?;
        load.publish(pace, events, |_| Ok(()))?;
        load.idle(TAIL)?;
        let mut figures = measured.end(child, load)?;
        figures.insert("rss", child.memory()? / 1024.0);
        figures.insert("memory", (connected.0 - before.0) / connections as f64);
        if let Some(socket) = silent_socket {
            let port = socket.local_addr()?.as_socket().map(|own| own.port());
            let unsent = measure::unsent_to(port.unwrap_or_default())?;
            figures.insert("unsent", unsent / 1024.0);
        }
        Ok(figures)
    }
}

fn idle(child: &Child, load: &mut Load, connections: usize) -> Result<Figures> {
    // Warm up, because one-time allocations do not belong to a connection.
    load.connect(100)?;
    load.publish(Pace::Free, 100, |_| Ok(()))?;
    load.disconnect();
    load.idle(Duration::from_millis(200))?;
    load.ledger.forget();

    let before = (child.memory()?, measure::in_sockets()?);
    let measured = Measured::begin(child, load)?;
    load.connect(connections)?;
    load.idle(Duration::from_millis(300))?;
    let mut figures = measured.end(child, load)?;
    let each = |now: f64, before: f64| (now - before) / connections as f64;
    figures.insert("memory", each(child.memory()?, before.0));
    figures.insert("sockets", each(measure::in_sockets()?, before.1));
    // Some servers send nothing at the start, and only now write for the first time.
    load.publish(Pace::Free, 1, |_| Ok(()))?;
    load.idle(Duration::from_millis(100))?;
    figures.insert("used", each(child.memory()?, before.0));
    let connect = figures.get("cpu_seconds").copied().unwrap_or(f64::NAN);
    figures.insert("connect", connect * 1e6 / connections as f64);
    Ok(figures)
}

fn replay(
    child: &Child,
    load: &mut Load,
    clients: usize,
    events: u32,
    least: f64,
) -> Result<Figures> {
    // The first event alone, because all clients resume after its id.
    load.publish(Pace::Free, 1, |_| Ok(()))?;
    load.publish(Pace::Free, events, |_| Ok(()))?;
    let measured = Measured::begin(child, load)?;
    loop {
        load.resume_after(0, clients)?;
        load.settle()?;
        load.idle(TAIL)?;
        if child.usage()?.since(measured.usage).cpu_seconds >= least {
            return measured.end(child, load);
        }
        load.disconnect();
    }
}

fn storm(child: &Child, load: &mut Load, connections: usize, per_second: u32) -> Result<Figures> {
    load.connect(connections)?;
    load.publish(Pace::PerSecond(per_second), per_second / 2, |_| Ok(()))?;

    let measured = Measured::begin(child, load)?;
    let mut began = None;
    let mut back = None;
    let half = load.ledger.published() + per_second / 2;
    load.publish(Pace::PerSecond(per_second), 2 * per_second, |load| {
        if began.is_none() && load.ledger.published() >= half && load.are_ids_known() {
            load.reconnect()?;
            began = Some(load.ledger.now());
        }
        if let (Some(began), None) = (began, back)
            && load.are_heads_here()
        {
            back = Some((load.ledger.now() - began) as f64 / 1e6);
        }
        Ok(())
    })?;
    let mut figures = measured.end(child, load)?;
    figures.insert("back", back.unwrap_or(f64::NAN));
    figures.insert("lost", load.ledger.lost as f64 / connections as f64);
    Ok(figures)
}

fn channels(child: &Child, load: &mut Load, setup: Setup, connections: usize) -> Result<Figures> {
    let before = child.memory()?;
    load.publish(Pace::Free, setup.channels as u32, |_| Ok(()))?;
    load.ledger.forget();
    let memory = child.memory()? - before;
    load.connect(connections)?;
    let measured = Measured::begin(child, load)?;
    let events = 4000;
    load.publish(Pace::PerSecond(2000), events, |_| Ok(()))?;
    load.idle(TAIL)?;
    let mut figures = measured.end(child, load)?;
    // The more channels there are, the fewer subscribers each has: per delivered event, the cost
    // would be almost only that of the POSTs.
    let cpu = figures.get("cpu_seconds").copied().unwrap_or(f64::NAN);
    figures.insert("published", cpu * 1e6 / f64::from(events));
    figures.insert("channel", memory / setup.channels as f64);
    Ok(figures)
}

/// A measurement in progress.
#[derive(Debug)]
struct Measured {
    usage: Usage,
    others: Others,
    began: u64,
    delivered: u64,
}

impl Measured {
    fn begin(child: &Child, load: &mut Load) -> Result<Self> {
        load.ledger.latency.reset();
        Ok(Self {
            others: child.watch_others()?,
            began: load.ledger.now(),
            delivered: load.ledger.delivered,
            usage: child.usage()?,
        })
    }

    fn end(self, child: &Child, load: &Load) -> Result<Figures> {
        let used = child.usage()?.since(self.usage);
        let delivered = (load.ledger.delivered - self.delivered) as f64;
        let latency = &load.ledger.latency;
        // An empty histogram would answer 0.
        let milliseconds = |quantile| match latency.is_empty() {
            true => f64::NAN,
            false => latency.value_at_quantile(quantile) as f64 / 1e6,
        };
        let mut figures = Figures::from([
            ("cpu", used.cpu_seconds * 1e6 / delivered),
            ("cpu_seconds", used.cpu_seconds),
            ("seconds", (load.ledger.now() - self.began) as f64 / 1e9),
            ("delivered", delivered),
            ("per_write", delivered / used.writes),
            ("bytes", used.written / delivered),
            ("sleeps", used.sleeps / delivered),
            ("p50", milliseconds(0.5)),
            ("p99", milliseconds(0.99)),
            ("others", self.others.cores()?),
        ]);
        // Nothing delivered or published: a division by zero.
        figures.retain(|_, figure| figure.is_finite());
        Ok(figures)
    }
}
