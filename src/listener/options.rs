//! [`Options`]: what a listener is to do. The one module that names axum.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::serve::{Listener, ListenerExt, TapIo};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream, unix};

use super::io::StreamIo;
use crate::lifetime::shutdown::Shutdown;

const BACKLOG: u32 = 4096;
const TIMEOUT: Duration = Duration::from_secs(60);
/// As good as none, and within what the clock can count.
const LONGEST_STALL: Duration = Duration::from_secs(24 * 60 * 60);

/// Listens on `address` with all defaults: see [the module](crate::listener) for what that includes, and
/// [`Options::bind`] for the errors.
///
/// ```no_run
/// # async fn run(app: axum::Router) -> std::io::Result<()> {
/// let listener = axum_sse::listener::bind(([127, 0, 0, 1], 3000))?;
/// axum::serve(listener, app).await
/// # }
/// ```
pub fn bind(address: impl Into<SocketAddr>) -> io::Result<TcpStreams> {
    Options::new().bind(address)
}

/// The backlog that the system caps every listener at, where that can be read: on Linux,
/// `net.core.somaxconn`.
///
/// With the feature `tracing`, a listener that asks for more says so when it is made.
///
/// ```
/// if axum_sse::listener::max_backlog().is_some_and(|most| most < 4096) {
///     println!("raise net.core.somaxconn");
/// }
/// ```
#[must_use]
pub fn max_backlog() -> Option<u32> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    text.trim().parse().ok()
}

/// How many connections of a listener are open. Clones count together.
///
/// ```
/// let connections = axum_sse::listener::Options::new().connections();
/// assert_eq!(connections.open(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many are open now: accepted, and not yet closed by the server.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) -> OpenConnection {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct OpenConnection(Connections);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a listener for event streams is to do; the defaults are in [the module](crate::listener).
///
/// ```
/// use axum_sse::listener::Options;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # let _guard = runtime.enter();
/// let options = Options::new()
///     .backlog(1024)
///     .user_timeout(None)
///     .stall_timeout(Duration::from_secs(20))
///     .send_buffer(256 * 1024)
///     .shutdown(axum_sse::Shutdown::new());
/// let connections = options.connections();
/// let listener = options.bind(([127, 0, 0, 1], 0))?;
/// assert_eq!(connections.open(), 0);
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    backlog: u32,
    user_timeout: Option<Duration>,
    send_buffer: Option<usize>,
    pub(super) stall_timeout: Duration,
    pub(super) shutdown: Option<Shutdown>,
    connections: Connections,
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            backlog: BACKLOG,
            user_timeout: Some(TIMEOUT),
            send_buffer: None,
            stall_timeout: TIMEOUT,
            shutdown: None,
            connections: Connections(Arc::default()),
        }
    }

    /// How many connections may wait to be accepted: 4096 by default. The system may cap it, see
    /// [`max_backlog`].
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// How long sent bytes may stay without acknowledgement before the connection is given up:
    /// 60 s by default, `None` for the system's own. It also ends connections whose client does
    /// not read for that long. `TCP_USER_TIMEOUT`; no effect but on Linux, Android and Fuchsia.
    pub fn user_timeout(mut self, time: Option<Duration>) -> Self {
        self.user_timeout = time;
        self
    }

    /// Bounds what the kernel holds for a client that reads slowly, in bytes; by default it
    /// grows as needed (up to 4 MiB on Linux). A bound switches that growing off, so distant
    /// clients get less throughput. Linux doubles the number for its own bookkeeping.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// How long the system may take no byte for a client before its connection is cut: 60 s by
    /// default, from 100 ms to a day. It counts only while there is something to write.
    ///
    /// The system tells of room when a good part of its send buffer is free (on Linux, about a
    /// third, of what may be 4 MiB): a client that reads very slowly but steadily may be cut
    /// too. On HTTP/2 a client whose window is used up keeps nobody waiting here, and is not.
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.stall_timeout = time.clamp(Duration::from_millis(100), LONGEST_STALL);
        self
    }

    /// The handle that ends the streams: with it, connections that hold up a shutdown can be told
    /// and are cut: on HTTP/1.1 for the head of a request that does not end, on HTTP/2 for a peer
    /// that does not read. The server is to be told of the same shutdown: it is its PING that
    /// peers are expected to answer.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = Some(shutdown);
        self
    }

    /// Tells how many connections are open, also after the listener has been handed over.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Listens on `address`. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What the system says, with the address: it is taken, or not allowed.
    pub fn bind(self, address: impl Into<SocketAddr>) -> io::Result<TcpStreams> {
        let address = address.into();
        let listen = || {
            let domain = Domain::for_address(address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            // A server that comes back finds its own old connections still winding down there.
            // On Windows the same option would let two servers share the address.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
            TcpListener::from_std(socket.into())
        };
        let listener = listen().map_err(|error| {
            io::Error::new(error.kind(), format!("listening on {address}: {error}"))
        })?;
        #[cfg(feature = "tracing")]
        if let Some(cap) = max_backlog().filter(|cap| *cap < self.backlog) {
            tracing::warn!(
                asked = self.backlog,
                cap,
                "the system caps the backlog (net.core.somaxconn)"
            );
        }
        Ok(self.listen_on(listener))
    }

    /// Takes a listener that is there already, from a service manager for instance. Its backlog
    /// stays what it is.
    ///
    /// ```no_run
    /// # async fn run(app: axum::Router) -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// let listener = axum_sse::listener::Options::new().listen_on(listener);
    /// axum::serve(listener, app).await
    /// # }
    /// ```
    pub fn listen_on(self, listener: TcpListener) -> TcpStreams {
        let listener = StreamListener {
            listener,
            options: self,
        };
        // axum can tell a handler the peer's address (`ConnectInfo<SocketAddr>`) for its own
        // listeners only, and `TapIo` is one. There is nothing left to tap.
        listener.tap_io(|_| {})
    }

    /// As [`listen_on`](Options::listen_on), for a Unix socket, where only the stall timeout,
    /// the send buffer, the count and the ends of streams have a meaning.
    ///
    /// ```no_run
    /// # async fn run(app: axum::Router) -> std::io::Result<()> {
    /// let listener = tokio::net::UnixListener::bind("/run/app.sock")?;
    /// let listener = axum_sse::listener::Options::new().listen_on_unix(listener);
    /// axum::serve(listener, app).await
    /// # }
    /// ```
    #[cfg(unix)]
    pub fn listen_on_unix(self, listener: UnixListener) -> StreamListener<UnixListener> {
        StreamListener {
            listener,
            options: self,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`bind`] and [`Options::bind`] return: a [`StreamListener`] in the wrapper of axum's with
/// which `into_make_service_with_connect_info::<SocketAddr>()` works.
///
/// ```
/// use axum_sse::listener::{TcpStreams, bind};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let listener: TcpStreams = bind(([127, 0, 0, 1], 0))?;
/// println!("{}", axum::serve::Listener::local_addr(&listener)?);
/// # Ok(())
/// # }
/// ```
pub type TcpStreams = TapIo<StreamListener<TcpListener>, fn(&mut StreamIo<TcpStream>)>;

/// A listener for `axum::serve`, made by [`Options`].
///
/// ```
/// use axum_sse::listener::{Options, StreamListener};
/// use tokio::net::UnixListener;
///
/// # #[cfg(unix)]
/// fn at(path: &str) -> std::io::Result<StreamListener<UnixListener>> {
///     Ok(Options::new().listen_on_unix(UnixListener::bind(path)?))
/// }
/// ```
pub struct StreamListener<L> {
    listener: L,
    options: Options,
}

impl Listener for StreamListener<TcpListener> {
    type Io = StreamIo<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let options = &self.options;
        // A connection that is gone already has no use for any of this.
        let _ = stream.set_nodelay(true);
        let socket = SockRef::from(&stream);
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        if options.user_timeout.is_some() {
            let _ = socket.set_tcp_user_timeout(options.user_timeout);
        }
        if let Some(bytes) = options.send_buffer {
            let _ = socket.set_send_buffer_size(bytes);
        }
        (
            StreamIo::new(stream, options, options.connections.add()),
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(unix)]
impl Listener for StreamListener<UnixListener> {
    type Io = StreamIo<UnixStream>;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, unix::SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let options = &self.options;
        if let Some(bytes) = options.send_buffer {
            let _ = SockRef::from(&stream).set_send_buffer_size(bytes);
        }
        (
            StreamIo::new(stream, options, options.connections.add()),
            address,
        )
    }

    fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}

impl<L> fmt::Debug for StreamListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamListener")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
