//! [`StreamIo`]: a connection that fails when its client does not read for too long.
//!
//! It passes bytes through. While a write is pending, it checks whether the current stream should
//! have ended. It also fails if it blocks a shutdown: on HTTP/2 by a peer that does not read, on
//! HTTP/1 by an unfinished request head.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    head::{Heads, poll_end},
    options::{OpenConnection, Options},
};
use crate::{
    connection::{Connection, Registration},
    lifetime::{
        end::GRACE,
        shutdown::{Shutdown, Waiting},
    },
};

/// The start of every HTTP/2 connection and of no HTTP/1 request (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI";

/// A connection of a [`listener`](crate::listener).
///
/// ```
/// use axum::serve::ListenerExt;
/// use axum_sse::listener::{StreamIo, bind};
/// use tokio::net::TcpStream;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let listener = bind(([127, 0, 0, 1], 0))?.tap_io(|io: &mut StreamIo<TcpStream>| {
///     println!("{:?}", io.get_ref().peer_addr());
/// });
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
pub struct StreamIo<S> {
    socket: S,
    registration: Registration,
    stall_timeout: Duration,
    /// Reused from one stall to the next.
    stall: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    http2: Http2,
    /// `None` on HTTP/2 and without a shutdown.
    heads: Option<Heads>,
    _open: OpenConnection,
    #[cfg(feature = "tracing")]
    _counted: Option<crate::lifetime::shutdown::OpenConnection>,
}

/// Whether the connection uses HTTP/2.
enum Http2 {
    /// Unknown after this many bytes of the preface.
    Perhaps(usize),
    No,
    Yes(Box<Watch>),
}

/// Closes an HTTP/2 connection that blocks a shutdown.
struct Watch {
    waiting: Waiting,
    /// The next check, and the time from which it may close the connection.
    alarm: Option<(Pin<Box<Sleep>>, Instant)>,
    /// Whether the peer has sent anything since the shutdown began. A live peer answers the
    /// server's PING.
    read: bool,
    /// Whether a byte was transferred since the alarm was set.
    moved: bool,
}

impl<S> StreamIo<S> {
    pub(super) fn new(socket: S, options: &Options, open: OpenConnection) -> Self {
        Self {
            socket,
            registration: Registration::new(),
            stall_timeout: options.stall_timeout,
            stall: None,
            stalled: false,
            http2: Http2::Perhaps(0),
            heads: options.shutdown.clone().map(Heads::new),
            _open: open,
            #[cfg(feature = "tracing")]
            _counted: options.shutdown.as_ref().map(Shutdown::count_connection),
        }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        self.registration.connection()
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    fn has_read(&mut self, bytes: &[u8]) {
        // A head begins before the protocol is known: `P` may go on as `RI` or as `OST`.
        if let Some(heads) = &mut self.heads {
            heads.read(bytes);
        }
        match &mut self.http2 {
            Http2::No => {}
            Http2::Yes(watch) => (watch.read, watch.moved) = (true, true),
            Http2::Perhaps(seen) => {
                let rest = &PREFACE[*seen..];
                let n = rest.len().min(bytes.len());
                if rest[..n] != bytes[..n] {
                    self.http2 = Http2::No;
                } else if n < rest.len() {
                    *seen += n;
                } else {
                    self.http2 = match self.heads.take() {
                        Some(heads) => Http2::Yes(Box::new(Watch::new(heads.shutdown()))),
                        None => {
                            #[cfg(feature = "tracing")]
                            tracing::warn!(
                                "HTTP/2 on a listener without a shutdown handle: a client that \
                                 does not read can block the shutdown"
                            );
                            Http2::No
                        }
                    };
                }
            }
        }
    }

    fn poll_held_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.http2 {
            Http2::Yes(watch) => watch.poll(self.registration.connection(), cx),
            _ => Poll::Pending,
        }
    }

    /// The result of a write, or an error if it has been pending for too long.
    fn written<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = false;
            if let Http2::Yes(watch) = &mut self.http2 {
                watch.moved = true;
            }
            return result;
        }
        if let Poll::Ready(error) = self.registration.connection().poll_overdue(cx) {
            return Poll::Ready(Err(error));
        }
        // Also polled here, because an HTTP/2 connection with a full socket does not read.
        if let Poll::Ready(error) = self.poll_held_up(cx) {
            return Poll::Ready(Err(error));
        }
        let newly = !self.stalled;
        let end = || Instant::now() + self.stall_timeout;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(sleep_until(end())));
        if newly {
            stall.as_mut().reset(end());
            self.stalled = true;
        }
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("write stalled for {:?}", self.stall_timeout),
        )))
    }
}

impl Watch {
    fn new(shutdown: &Shutdown) -> Self {
        Self {
            waiting: shutdown.wait(),
            alarm: None,
            read: false,
            moved: false,
        }
    }

    /// An error if the peer is silent or streams are open one second after the last stream should
    /// have ended.
    fn poll(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Poll<io::Error> {
        let from = ready!(poll_end(&mut self.waiting, cx));
        let shutdown = self.waiting.shutdown();
        let (alarm, late) = self.alarm.get_or_insert_with(|| {
            // Bytes before the shutdown do not count.
            (self.read, self.moved) = (false, false);
            (Box::pin(sleep_until(from + GRACE / 2)), from + GRACE)
        });
        loop {
            ready!(alarm.as_mut().poll(cx));
            let holds_up = match connection.http_2_streams() {
                _ if !self.read => true,
                Some(streams) => streams > 0,
                // The stream may belong to another connection if this one transfers bytes.
                None => shutdown.streams() > 0 && !self.moved,
            };
            if holds_up && Instant::now() >= *late {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the connection blocked the shutdown",
                ));
            }
            self.moved = false;
            alarm.as_mut().reset(Instant::now() + GRACE / 2);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StreamIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.registration.keep();
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(result) => {
                this.has_read(&buf.filled()[before..]);
                Poll::Ready(result)
            }
            Poll::Pending => match &mut this.heads {
                Some(heads) => heads.poll(cx).map(Err),
                None => this.poll_held_up(cx).map(Err),
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StreamIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written(result, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_flush(cx);
        if result.is_ready() {
            this.registration.flushed();
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.socket).poll_shutdown(cx) {
            Poll::Pending => this.poll_held_up(cx).map(Err),
            done => done,
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for StreamIo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamIo")
            .field("socket", &self.socket)
            .field("stalled", &self.stalled)
            .finish_non_exhaustive()
    }
}
