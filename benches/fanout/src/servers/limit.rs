//! The lower limit: what such a server costs with no HTTP framework and only the necessary work.
//! It has one shared buffer of encoded events, one cursor and one task per connection, and writes
//! everything pending in one `writev`.
//!
//! It only understands the benchmark's client.

use std::{
    io::{self, IoSlice, Write},
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use axum_sse::EventId;
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Ids, Setup, ring::Ring};
use crate::Result;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n";

/// One buffer for all channels of a group, because a connection reads all channels of its group.
#[derive(Debug)]
struct Group {
    ring: RwLock<Ring>,
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Shared {
    groups: Vec<Group>,
    ids: Ids,
}

pub(super) fn serve(listener: TcpListener, setup: Setup) -> Result<SocketAddr> {
    let groups = (0..setup.groups).map(|_| Group {
        ring: RwLock::new(Ring::new(setup.capacity)),
        news: watch::Sender::new(0),
    });
    let shared = Arc::new(Shared {
        groups: groups.collect(),
        ids: Ids::new(),
    });
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let shared = shared.clone();
            tokio::spawn(async move {
                // The client reports every connection that ends.
                let _ = socket.set_nodelay(true);
                let _ = connection(socket, shared).await;
            });
        }
    });
    Ok(address)
}

async fn connection(mut socket: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut input = Vec::with_capacity(1024);
    let mut out = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = memmem::find(&input, b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&input[..head]).into_owned();
        let wrong = || io::Error::other("not the benchmark's client");
        let number: usize = text
            .split(' ')
            .nth(1)
            .and_then(|path| path.rsplit('/').next()?.parse().ok())
            .ok_or_else(wrong)?;
        let group = &shared.groups[number % shared.groups.len()];
        if text.starts_with("GET") {
            let last = match header(&text, "last-event-id") {
                None => None,
                Some(id) => Some(id.parse::<EventId>().map_err(|_| wrong())?.sequence()),
            };
            return stream(socket, group, last).await;
        }
        let length = header(&text, "content-length").and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(wrong)?;
        while input.len() < head + length {
            if socket.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        let id = group.publish(&shared.ids, &input[head..head + length], &mut out);
        input.drain(..head + length);
        out.clear();
        let id = id.to_string();
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{id}",
            id.len()
        )?;
        socket.write_all(&out).await?;
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let field = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    field.map(|(_, value)| value)
}

impl Group {
    fn publish(&self, ids: &Ids, data: &[u8], event: &mut Vec<u8>) -> EventId {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let id = ids.draw();
        event.clear();
        // Cannot fail: it is a `Vec`.
        let _ = write!(event, "id: {id}\ndata: ");
        event.extend_from_slice(data);
        event.extend_from_slice(b"\n\n");
        ring.push(event);
        let end = ring.end();
        drop(ring);
        self.news.send_replace(end);
        id
    }

    fn ring(&self) -> std::sync::RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stream(mut socket: TcpStream, group: &Group, last: Option<u64>) -> io::Result<()> {
    let mut news = group.news.subscribe();
    let gone = || io::Error::other("the next event has been evicted");
    let mut cursor = match last {
        None => group.ring().end(),
        Some(last) => group.ring().after(last).ok_or_else(gone)?,
    };
    socket.write_all(HEAD).await?;
    loop {
        let end = *news.borrow_and_update();
        if cursor < end {
            cursor = write_chunk(&socket, group, cursor).await?;
        } else if news.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Writes everything from offset `from` as one chunk, and returns the offset after it.
async fn write_chunk(socket: &TcpStream, group: &Group, from: u64) -> io::Result<u64> {
    let to = group.ring().end();
    let mut head = [0; 20];
    let mut rest = &mut head[..];
    write!(rest, "{:x}\r\n", to - from)?;
    let free = rest.len();
    let head = &head[..head.len() - free];

    let payload = head.len() as u64 + (to - from);
    let total = payload + 2;
    let mut written = 0;
    while written < total {
        let attempt = {
            let ring = group.ring();
            let in_head = written.min(head.len() as u64);
            let at = from + (written - in_head).min(to - from);
            let pieces = ring.get(at..to);
            let (front, back) = pieces.ok_or_else(|| io::Error::other("too slow"))?;
            let tail = written.saturating_sub(payload) as usize;
            socket.try_write_vectored(&[
                IoSlice::new(&head[in_head as usize..]),
                IoSlice::new(front),
                IoSlice::new(back),
                IoSlice::new(&b"\r\n"[tail..]),
            ])
        };
        match attempt {
            Ok(count) => written += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(to)
}
