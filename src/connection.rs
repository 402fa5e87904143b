//! [`Connection`]: lets a stream's [`Life`] reach the socket that carries it.
//!
//! A client that does not read is a body that nobody polls, so its end has to come from the
//! socket's side. Nothing in the HTTP stack tells a response which connection it is written to.
//! But on HTTP/1.1 both are polled by one task: the connection leaves its name there, and the
//! body finds it with its first poll. On HTTP/2 every stream has a task of its own, and finds
//! nothing: one stream must not cut the connection that it shares with others.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, LazyLock, Weak},
    task::{Context, Poll},
};

use tokio::task::{self, Id};

use crate::{
    layer::Life,
    sync::{AtomicBool, Mutex, Ordering, lock},
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
    life: Mutex<Option<Arc<Life>>>,
    /// Whether there is one: asked with every flush. Both change in the connection's own task.
    carries: AtomicBool,
}

/// The connection that the task carries now also carries this stream.
pub(crate) fn carries(life: &Arc<Life>) {
    let Some(task) = task::try_id() else { return };
    let connection = lock(&CONNECTIONS)
        .get(&task)
        .filter(|entry| entry.connections == 1)
        .and_then(|entry| entry.connection.upgrade());
    if let Some(connection) = connection {
        let before = lock(&connection.life).replace(life.clone());
        drop(before);
        connection.carries.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    /// An error once the stream that is being written should have ended, and its time of grace
    /// has passed.
    pub(crate) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let life = lock(&self.life).clone();
        match life {
            Some(life) => life.poll_overdue(cx).map(|_| {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client did not read, and its stream had to end",
                )
            }),
            None => Poll::Pending,
        }
    }

    /// Everything has been written: a stream whose body has gone is history.
    pub(crate) fn flushed(&self) {
        if !self.carries.load(Ordering::Relaxed) {
            return;
        }
        let gone = {
            let mut life = lock(&self.life);
            let gone = life
                .as_ref()
                .is_some_and(|life| Arc::strong_count(life) == 1);
            gone.then(|| life.take())
        };
        if gone.is_some() {
            self.carries.store(false, Ordering::Relaxed);
        }
    }
}

/// A connection's entry under the task that polls it.
pub(crate) struct Registration {
    connection: Arc<Connection>,
    task: Option<Id>,
}

impl Registration {
    pub(crate) fn new() -> Self {
        Self {
            connection: Arc::default(),
            task: None,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
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
