//! [`Options`]: the configuration of a listener.

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
/// Practically no limit, and within the range of the clock.
const LONGEST_STALL: Duration = Duration::from_secs(24 * 60 * 60);

/// Listens on `address` with the [defaults](crate::listener). [`Options::bind`] has the errors.
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

/// The system's limit for the backlog of a listener: on Linux, `net.core.somaxconn`. `None` if it
/// cannot be read.
///
/// With the feature `tracing`, a listener that exceeds it logs a warning when it is created.
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

/// Counts the open connections of a listener. Clones share the count.
///
/// ```
/// let connections = axum_sse::listener::Options::new().connections();
/// assert_eq!(connections.open(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// The number of connections that were accepted and that the server has not closed.
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

/// Configures a listener for event streams. The module lists the [defaults](crate::listener).
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

    /// Sets how many connections can wait to be accepted. The default is 4096. The system can have
    /// a lower [limit](max_backlog).
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Sets how long sent bytes may stay unacknowledged before the system closes the connection
    /// (`TCP_USER_TIMEOUT`). The default is 60 s; `None` leaves the system's default. Also closes
    /// connections whose client does not read for that time. Only on Linux, Android and Fuchsia.
    pub fn user_timeout(mut self, time: Option<Duration>) -> Self {
        self.user_timeout = time;
        self
    }

    /// Sets the size of the kernel's send buffer in bytes. By default it grows as needed (up to
    /// 4 MiB on Linux). A fixed size limits the throughput of distant clients. Linux doubles the
    /// number for its bookkeeping.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Sets how long a write may make no progress before the connection is closed. The default is
    /// 60 s; the value is clamped to 100 ms to one day.
    ///
    /// The system reports free space only when a good part of its send buffer is free (on Linux,
    /// about a third of up to 4 MiB), so a client that reads very slowly can also be disconnected.
    /// On HTTP/2, a client with an exhausted window does not block writes and stays connected.
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.stall_timeout = time.clamp(Duration::from_millis(100), LONGEST_STALL);
        self
    }

    /// Sets the handle that ends the streams, so that connections that block the shutdown are
    /// closed: see [the module](crate::listener). Pass the same shutdown to the server, because its
    /// PING shows which HTTP/2 peers are alive.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = Some(shutdown);
        self
    }

    /// Returns the counter of open connections, which stays usable after the listener is moved.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Listens on `address`. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The error of the system and the address, for instance if the address is in use.
    pub fn bind(self, address: impl Into<SocketAddr>) -> io::Result<TcpStreams> {
        let address = address.into();
        let listen = || {
            let domain = Domain::for_address(address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            // Lets a restarted server bind while old connections are in TIME_WAIT. On Windows, the
            // option would let two servers share the address.
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

    /// Uses an existing listener, for instance from a service manager. Its backlog is unchanged.
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
        // axum supports `ConnectInfo<SocketAddr>` only for its own listeners, such as `TapIo`.
        listener.tap_io(|_| {})
    }

    /// As [`listen_on`](Options::listen_on), for a Unix socket. The TCP options have no effect.
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

/// The return type of [`bind`] and [`Options::bind`]: a [`StreamListener`] in an axum wrapper that
/// supports `into_make_service_with_connect_info::<SocketAddr>()`.
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

/// A listener for `axum::serve`, created by [`Options`].
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
        // These fail if the peer has already disconnected, and then do not matter.
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
