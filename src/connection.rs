//! [`Connection`]: lets a stream's [`StreamEnd`] reach the socket that carries it.
//!
//! A client that does not read is a body that nobody polls, so its end has to come from the
//! socket's side. Nothing in the HTTP stack tells a response which connection it is written to.
//! But on HTTP/1.1 both are polled by one task: the connection leaves its name there, and the
//! body finds it with its first poll. On HTTP/2 every stream has a task of its own, and finds
//! nothing, unless the app asks for our `PeerAddr` as its connect info, which puts the connection
//! into each request. Even then no single stream cuts the connection that it shares with others,
//! but for a shutdown.

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

/// The connections of our listeners, by the task that polls them. One entry for each that is
/// open; several in one task cannot be told apart, and are not found.
static CONNECTIONS: LazyLock<Mutex<HashMap<Id, Entry>>> = LazyLock::new(Mutex::default);

struct Entry {
    connections: usize,
    connection: Weak<Connection>,
}

/// What the socket and the streams on it share.
#[derive(Default)]
pub(crate) struct Connection {
    /// Of the stream that is being written; several if there are layers upon layers.
    lives: Mutex<Vec<Arc<StreamEnd>>>,
    /// Whether there are any. Changes in the connection's own task.
    carries: AtomicBool,
    /// Its requests can name it, so that `http_2_streams` are all of them.
    named: AtomicBool,
    http_2_streams: AtomicUsize,
}

/// The connection that a request came on, as far as that is known.
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

/// How many streams have gone that a connection had to know of. As long as that stays as it is,
/// no connection has to look, when it is flushed, for what is history.
static GONE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// A stream on a connection that is known, until its body has gone.
pub(crate) enum Carried {
    OnHttp1,
    /// Counts.
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

/// A stream has begun, with its first poll. Its connection is the one that its request has
/// named, or else the one that this task polls.
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
    /// From now on, its requests name it.
    pub(crate) fn is_named(&self) {
        self.named.store(true, Ordering::Relaxed);
    }

    /// How many streams of HTTP/2 are open on it, if that is known.
    pub(crate) fn http_2_streams(&self) -> Option<usize> {
        self.named
            .load(Ordering::Relaxed)
            .then(|| self.http_2_streams.load(Ordering::Relaxed))
    }

    /// An error once the stream that is being written should have ended, and its time of grace
    /// has passed.
    pub(crate) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.carries.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        // Asked outside of the lock, since that runs code of others.
        let lives = lock(&self.lives).clone();
        // All of them, since each has to know whom to wake.
        let overdue = lives
            .iter()
            .filter(|life| life.poll_overdue(cx).is_ready())
            .count();
        if overdue == 0 {
            return Poll::Pending;
        }
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client did not read, and its stream had to end",
        ))
    }

    /// A stream whose body has gone is history.
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
    /// [`GONE`], with the last flush.
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

    /// To be called with each poll. The task may change: a handshake can have one of its own.
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

    /// Everything has been written.
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
