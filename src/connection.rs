//! [`Connection`]: connects the [`StreamEnd`] of a stream to the socket that carries it.
//!
//! While a client does not read, the server does not poll the body, so only the socket can end the
//! stream. The HTTP stack does not tell a response which connection it is written to. On HTTP/1.1
//! one task polls both: the connection registers itself under the id of the task, and the body
//! looks it up in its first poll. On HTTP/2 every stream has a separate task, so the lookup finds
//! nothing, unless the app uses `PeerAddr` as its connect info, which puts the connection into
//! each request. Because streams share an HTTP/2 connection, only a shutdown cuts one.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, LazyLock, Weak},
    task::{Context, Poll},
};

use tokio::task::{self, Id};

use crate::{
    lifetime::end::StreamEnd,
    sync::{AtomicBool, AtomicUsize, Mutex, Ordering, lock},
};

/// The open connections of the listeners, by the task that polls them. Several connections in one
/// task cannot be distinguished, so their lookup finds nothing.
static CONNECTIONS: LazyLock<Mutex<HashMap<Id, Entry>>> = LazyLock::new(Mutex::default);

struct Entry {
    connections: usize,
    connection: Weak<Connection>,
}

/// The state that a socket and its streams share.
#[derive(Default)]
pub(crate) struct Connection {
    /// The ends of the stream that is being written: one for each nested layer.
    lives: Mutex<Vec<Arc<StreamEnd>>>,
    /// Whether `lives` is not empty. Changed only in the task of the connection.
    carries: AtomicBool,
    /// Whether requests carry this connection, so that `http_2_streams` counts all streams.
    named: AtomicBool,
    http_2_streams: AtomicUsize,
}

/// The connection of a request.
pub(crate) struct Peer {
    connection: Arc<Connection>,
    http_2: bool,
}

impl Peer {
    pub(crate) fn of<B>(request: &http::Request<B>) -> Option<Self> {
        crate::listener::connection_of(request.extensions()).map(|connection| Self {
            connection,
            http_2: request.version() == http::Version::HTTP_2,
        })
    }
}

#[cfg(test)]
impl Peer {
    pub(crate) fn on_http_2(connection: &Arc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
            http_2: true,
        }
    }
}

/// The number of dropped HTTP/1 streams. While it is unchanged, a flush does not need to look for
/// dropped streams.
static GONE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// A stream on a known connection. Dropped with its body.
pub(crate) enum Carried {
    OnHttp1,
    /// Counted in the connection.
    OnHttp2(Arc<Connection>),
}

impl Drop for Carried {
    fn drop(&mut self) {
        match self {
            Self::OnHttp1 => drop(GONE.fetch_add(1, Ordering::Release)),
            Self::OnHttp2(on) => drop(on.http_2_streams.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}

/// Registers a stream in its first poll. Its connection is the one in its request, or else the one
/// that the current task polls.
pub(crate) fn carries(life: &Arc<StreamEnd>, peer: Option<Peer>) -> Option<Carried> {
    let connection = match peer {
        Some(Peer {
            connection,
            http_2: true,
        }) => {
            connection.http_2_streams.fetch_add(1, Ordering::Relaxed);
            return Some(Carried::OnHttp2(connection));
        }
        Some(peer) => peer.connection,
        None => {
            let task = task::try_id()?;
            lock(&CONNECTIONS)
                .get(&task)
                .filter(|entry| entry.connections == 1)?
                .connection
                .upgrade()?
        }
    };
    lock(&connection.lives).push(life.clone());
    connection.carries.store(true, Ordering::Relaxed);
    Some(Carried::OnHttp1)
}

impl Connection {
    /// Notes that requests carry this connection.
    pub(crate) fn is_named(&self) {
        self.named.store(true, Ordering::Relaxed);
    }

    /// The number of open HTTP/2 streams, if it is known.
    pub(crate) fn http_2_streams(&self) -> Option<usize> {
        self.named
            .load(Ordering::Relaxed)
            .then(|| self.http_2_streams.load(Ordering::Relaxed))
    }

    /// An error once the grace period after the end of the current stream is over.
    pub(crate) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.carries.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        // Polled without the lock, because that can run user code.
        let lives = lock(&self.lives).clone();
        // Polls every one, so that each registers the waker.
        let overdue = lives
            .iter()
            .filter(|life| life.poll_overdue(cx).is_ready())
            .count();
        if overdue == 0 {
            return Poll::Pending;
        }
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "the stream ended, but the client did not read",
        ))
    }

    /// Removes the streams whose body was dropped.
    fn forget_gone(&self) {
        if !self.carries.load(Ordering::Relaxed) {
            return;
        }
        let mut lives = lock(&self.lives);
        let is_open = |life: &Arc<StreamEnd>| Arc::strong_count(life) > 1;
        if lives.iter().all(is_open) {
            return;
        }
        let (open, gone) = std::mem::take(&mut *lives)
            .into_iter()
            .partition::<Vec<_>, _>(is_open);
        self.carries.store(!open.is_empty(), Ordering::Relaxed);
        *lives = open;
        drop(lives);
        drop(gone);
    }
}

/// A connection's entry under the task that polls it.
pub(crate) struct Registration {
    connection: Arc<Connection>,
    task: Option<Id>,
    /// The value of [`GONE`] at the last flush.
    gone: usize,
}

impl Registration {
    pub(crate) fn new() -> Self {
        Self {
            connection: Arc::default(),
            task: None,
            gone: 0,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Must be called in each poll. The task can change: a handshake may run in a separate one.
    pub(crate) fn keep(&mut self) {
        let task = task::try_id();
        if task == self.task {
            return;
        }
        self.leave();
        self.task = task;
        let Some(task) = task else { return };
        let mut connections = lock(&CONNECTIONS);
        let entry = connections.entry(task).or_insert_with(|| Entry {
            connections: 0,
            connection: Weak::new(),
        });
        entry.connections += 1;
        entry.connection = Arc::downgrade(&self.connection);
    }

    /// Called after a complete flush.
    pub(crate) fn flushed(&mut self) {
        let gone = GONE.load(Ordering::Acquire);
        if gone != self.gone {
            self.gone = gone;
            self.connection.forget_gone();
        }
    }

    fn leave(&mut self) {
        let Some(task) = self.task.take() else { return };
        let mut connections = lock(&CONNECTIONS);
        if let Some(entry) = connections.get_mut(&task) {
            entry.connections -= 1;
            if entry.connections == 0 {
                connections.remove(&task);
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
    }
}
