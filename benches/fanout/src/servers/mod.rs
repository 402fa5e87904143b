//! The servers that are compared, each run as a child process of the benchmark.
//!
//! All of them use the same tokio runtime, `TCP_NODELAY`, the same routes, and the same events on
//! the wire with ids of the same length. Servers that keep events keep the newest `capacity`, which
//! is also the length of a broadcast queue.

mod broadcast;
mod handrolled;
mod limit;
mod ours;
mod ring;

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::serve::{Listener, ListenerExt};
use axum::{Router, http::StatusCode};
use axum_sse::EventId;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};

use crate::Result;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This crate, as its guide shows it.
    Ours,
    /// axum's `Sse` over `tokio::sync::broadcast`; every connection encodes its own event.
    Axum,
    /// The same, with one router for all connections, as in this crate's guide.
    AxumOneRouter,
    /// Like `Axum`, with the event encoded once and cloned for each connection.
    AxumClone,
    /// Broadcast, and a locked `VecDeque` for clients that reconnect.
    HandRolled,
    /// No HTTP framework: one shared buffer, one `writev`.
    Limit,
}

const NAMES: [(Kind, &str); 6] = [
    (Kind::Ours, "ours"),
    (Kind::Axum, "axum"),
    (Kind::AxumOneRouter, "axum-one-router"),
    (Kind::AxumClone, "axum-clone"),
    (Kind::HandRolled, "handrolled"),
    (Kind::Limit, "limit"),
];

/// A server's command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// Retained events.
    pub(crate) capacity: usize,
    /// Retained bytes; only for `Ours`.
    pub(crate) bytes: usize,
    pub(crate) channels: usize,
    /// A connection of group `g` reads every channel whose number is `g` modulo this.
    pub(crate) groups: usize,
    /// Milliseconds; only for `Ours`.
    pub(crate) coalesce: u64,
}

impl Setup {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            capacity: 8192,
            bytes: 64 << 20,
            channels: 1,
            groups: 1,
            coalesce: 0,
        }
    }

    pub(crate) fn to_arguments(self) -> Vec<String> {
        let Self {
            kind,
            capacity,
            bytes,
            channels,
            groups,
            coalesce,
        } = self;
        let name = NAMES.iter().find(|(of, _)| *of == kind);
        let name = name.map_or("", |(_, name)| name);
        let numbers = [capacity, bytes, channels, groups].map(|number| number.to_string());
        ["--server".to_owned(), name.to_owned()]
            .into_iter()
            .chain(numbers)
            .chain([coalesce.to_string()])
            .collect()
    }

    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Self> {
        let [name, capacity, bytes, channels, groups, coalesce] = arguments else {
            return Err("--server takes six values".into());
        };
        let kind = NAMES.iter().find(|(_, of)| of == name);
        Ok(Self {
            kind: kind.ok_or("no such server")?.0,
            capacity: capacity.parse()?,
            bytes: bytes.parse()?,
            channels: channels.parse()?,
            groups: groups.parse()?,
            coalesce: coalesce.parse()?,
        })
    }

    fn channels_of(self, group: usize) -> impl Iterator<Item = usize> {
        (group..self.channels).step_by(self.groups)
    }
}

/// The published message, as a user would define it.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    n: u64,
    text: String,
}

/// Ids for the other servers, as long as those of this crate.
#[derive(Debug)]
struct Ids {
    epoch: u64,
    drawn: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        Self {
            // As many digits as the epoch of a hub, which has the seconds since 1970 above 32 other
            // bits.
            epoch: 1_790_000_000 << 32,
            drawn: AtomicU64::new(0),
        }
    }

    fn draw(&self) -> EventId {
        EventId::new(self.epoch, self.drawn.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Runs one server until its standard input is closed.
pub(crate) fn run(setup: Setup) -> Result<()> {
    // One worker, because the load client needs the second of the two cores.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let address = runtime.block_on(async {
        match setup.kind {
            Kind::Ours => {
                let listener = axum_sse::listener::bind(anywhere())?;
                serve_one_router(listener, ours::router(setup)?)
            }
            Kind::AxumOneRouter => serve_one_router(bind().await?, broadcast::router(setup)),
            Kind::Axum => serve(bind().await?, broadcast::router(setup)),
            Kind::AxumClone => serve(bind().await?, broadcast::router_of_clones(setup)),
            Kind::HandRolled => serve(bind().await?, handrolled::router(setup)),
            Kind::Limit => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(anywhere())?;
                // The same backlog as this crate's listener.
                limit::serve(socket.listen(4096)?, setup)
            }
        }
    })?;
    println!("{address}");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // Skip the cleanup, because closing 10,000 connections takes time.
    std::process::exit(0);
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn bind() -> io::Result<impl Listener<Io = tokio::net::TcpStream, Addr = SocketAddr>> {
    Ok(TcpListener::bind(anywhere()).await?.tap_io(|stream| {
        // This fails only if the connection has already closed.
        let _ = stream.set_nodelay(true);
    }))
}

fn serve<L>(listener: L, app: Router) -> Result<SocketAddr>
where
    L: Listener<Addr = SocketAddr>,
{
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// `axum::serve` clones a `Router`, with its maps, for each connection. A make service shares one.
fn serve_one_router<L>(listener: L, app: Router) -> Result<SocketAddr>
where
    L: Listener<Addr = SocketAddr>,
{
    let address = listener.local_addr()?;
    let app = app.into_make_service();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

fn refuse<E>(_: E) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}
