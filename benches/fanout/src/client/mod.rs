//! The load client: one thread on epoll that publishes, reads and checks.

mod ledger;
mod parser;
mod publisher;

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::{Domain, Socket, Type};

use crate::Result;
use ledger::{Ledger, Progress};
use parser::{Item, Parser};
use publisher::Publisher;

/// Connections that publish, each with at most one request outstanding.
const PUBLISHERS: usize = 8;

/// How many sockets connect at a time: fewer than the usual backlog of 128.
const CONNECTING: usize = 100;

/// Without progress for this long, the run fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How fast to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// This many events per second.
    PerSecond(u32),
    /// As fast as the server accepts them.
    Free,
    /// The same, but with at most this many events not yet received by all connections.
    InFlight(u32),
}

#[derive(Debug)]
pub(crate) struct Load {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    publishers: Vec<Publisher>,
    connections: Vec<Connection>,
    pub(crate) ledger: Ledger,
    groups: usize,
    heads: usize,
    buffer: Box<[u8]>,
    /// Bytes of an event's data.
    pub(crate) size: usize,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    parser: Parser,
    progress: Progress,
    request: Option<String>,
    has_head: bool,
}

impl Load {
    pub(crate) fn new(address: SocketAddr, channels: usize, groups: usize) -> Result<Self> {
        let mut load = Self {
            address,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            publishers: Vec::new(),
            connections: Vec::new(),
            ledger: Ledger::new(channels, groups, PUBLISHERS)?,
            groups,
            heads: 0,
            buffer: vec![0; 256 * 1024].into(),
            size: 200,
        };
        for index in 0..PUBLISHERS {
            // Connect now, so that no request has to wait for it.
            let socket = std::net::TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            load.register(&mut socket, index)?;
            load.publishers.push(Publisher::new(socket));
        }
        Ok(load)
    }

    fn register(&self, socket: &mut TcpStream, token: usize) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(socket, Token(token), both)
    }

    /// Opens `count` more connections, and waits until all have response headers.
    pub(crate) fn connect(&mut self, count: usize) -> Result<()> {
        let target = self.connections.len() + count;
        while self.connections.len() < target {
            let group = self.connections.len() % self.groups;
            let progress = self.ledger.progress(group);
            self.ledger.members[group] += 1;
            self.open(progress, None)?;
            while self.connections.len() - self.heads >= CONNECTING {
                self.turn(PATIENCE)?;
            }
        }
        self.wait_for_heads()
    }

    /// Opens `count` connections that resume after event `n`.
    pub(crate) fn resume_after(&mut self, n: u32, count: usize) -> Result<()> {
        self.ledger.rewind(n);
        self.ledger.members[0] = count as u32;
        for _ in 0..count {
            let progress = self.ledger.progress(0);
            let last = self.ledger.last_id(&progress).map(str::to_owned);
            self.open(progress, Some(last.ok_or("an event without an id")?))?;
        }
        Ok(())
    }

    /// Whether every publish has been answered: only then is the id of each event known.
    pub(crate) fn are_ids_known(&self) -> bool {
        let mut publishers = self.publishers.iter();
        publishers.all(|publisher| publisher.waits_for.is_none())
    }

    /// Closes all reading connections.
    pub(crate) fn disconnect(&mut self) {
        self.connections.clear();
        self.heads = 0;
        self.ledger.members.fill(0);
    }

    /// Closes all reading connections and reopens them at once, each with its last id.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        let old = std::mem::take(&mut self.connections);
        self.heads = 0;
        let mut reopened = Vec::with_capacity(old.len());
        for connection in old {
            let last = self.ledger.last_id(&connection.progress).map(str::to_owned);
            if let (Some(seen), Some(last)) = (&connection.parser.id, &last)
                && seen != last
            {
                return Err(format!("event {last} arrived with the id {seen}").into());
            }
            reopened.push((connection.progress, last));
        }
        for (progress, last) in reopened {
            self.open(progress, last)?;
        }
        Ok(())
    }

    pub(crate) fn wait_for_heads(&mut self) -> Result<()> {
        while self.heads < self.connections.len() {
            self.turn(PATIENCE)?;
        }
        Ok(())
    }

    pub(crate) fn are_heads_here(&self) -> bool {
        self.heads == self.connections.len()
    }

    fn open(&mut self, progress: Progress, last: Option<String>) -> Result<()> {
        let index = self.connections.len();
        let mut socket = TcpStream::connect(self.address)?;
        self.register(&mut socket, PUBLISHERS + index)?;
        let group = index % self.groups;
        let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        self.connections.push(Connection {
            socket,
            parser: Parser::new(index == 0),
            progress,
            request: Some(request(group, &last)),
            has_head: false,
        });
        Ok(())
    }

    /// Publishes `count` events, and calls `between` after every turn. Returns when all
    /// connections have received all of them.
    pub(crate) fn publish(
        &mut self,
        pace: Pace,
        count: u32,
        mut between: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        let first = self.ledger.published();
        let end = first + count;
        loop {
            let next = self.ledger.published();
            let mut pause = PATIENCE;
            if next < end {
                let may = match pace {
                    Pace::Free => true,
                    Pace::InFlight(most) => next - self.ledger.complete < most,
                    Pace::PerSecond(rate) => {
                        let due = Duration::from_secs(u64::from(next - first)) / rate;
                        pause = due.saturating_sub(start.elapsed());
                        pause.is_zero()
                    }
                };
                let idle = |publisher: &Publisher| publisher.waits_for.is_none();
                if may && let Some(index) = self.publishers.iter().position(idle) {
                    let channel = self.ledger.channel_of(next);
                    self.ledger.publish(self.size, index);
                    self.publishers[index].send(channel, next, self.size)?;
                    continue;
                }
                if may {
                    pause = PATIENCE;
                }
            } else if self.is_settled() {
                return Ok(());
            }
            self.turn(pause)?;
            between(self)?;
        }
    }

    /// Whether all events are accepted, and received by all connections.
    pub(crate) fn is_settled(&self) -> bool {
        self.are_ids_known() && (self.connections.is_empty() || self.ledger.is_done())
    }

    /// Reads until all connections have received all events.
    pub(crate) fn settle(&mut self) -> Result<()> {
        while !self.is_settled() {
            self.turn(PATIENCE)?;
        }
        Ok(())
    }

    /// Reads for `time`.
    pub(crate) fn idle(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Waits for readiness, at most for `timeout`, and handles it.
    fn turn(&mut self, timeout: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let handled = self.handle(&events, timeout);
        self.events = events;
        handled
    }

    fn handle(&mut self, events: &Events, timeout: Duration) -> Result<()> {
        if events.is_empty() && timeout == PATIENCE {
            let Ledger { complete, .. } = self.ledger;
            let published = self.ledger.published();
            return Err(format!("no progress at event {complete} of {published}").into());
        }
        for event in events {
            let Token(token) = event.token();
            match token.checked_sub(PUBLISHERS) {
                None => {
                    let publisher = &mut self.publishers[token];
                    if event.is_writable() {
                        publisher.write()?;
                    }
                    if event.is_readable()
                        && let Some((n, id)) = publisher.read()?
                    {
                        self.ledger.accepted(n, &id);
                    }
                }
                Some(index) => {
                    if event.is_writable() {
                        self.request(index)?;
                    }
                    if event.is_readable() {
                        self.read(index)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let Some(request) = connection.request.take() else {
            return Ok(());
        };
        if let Some(error) = connection.socket.take_error()? {
            return Err(error.into());
        }
        let written = connection.socket.write(request.as_bytes())?;
        if written < request.len() {
            return Err("a new socket takes no request".into());
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let Self {
            connections,
            ledger,
            heads,
            buffer,
            ..
        } = self;
        let Connection {
            socket,
            parser,
            progress,
            has_head,
            ..
        } = &mut connections[index];
        loop {
            let count = match socket.read(buffer) {
                Ok(0) => return Err(format!("the server ended connection {index}").into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("connection {index}: {error}").into()),
            };
            let now = ledger.now();
            parser
                .read(&buffer[..count], |item| match item {
                    Item::Event { n, size } => ledger.note(progress, n, size, now),
                    Item::Gap => Err("a gap".into()),
                    Item::Head => {
                        *has_head = true;
                        *heads += 1;
                        Ok(())
                    }
                })
                .map_err(|error| format!("connection {index}: {error}"))?;
            // A short read means that the socket is empty: epoll(7).
            if count < buffer.len() {
                return Ok(());
            }
        }
    }
}

fn request(group: usize, more: &str) -> String {
    format!(
        "GET /groups/{group} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{more}\r\n"
    )
}

/// Requests the stream of group 0, and then never reads. The kernel buffers at most `buffer` bytes
/// on this side.
pub(crate) fn silent(address: SocketAddr, buffer: usize) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Before connecting: later it would not shrink the window.
    socket.set_recv_buffer_size(buffer)?;
    socket.connect(&address.into())?;
    (&socket).write_all(request(0, "").as_bytes())?;
    Ok(socket)
}
