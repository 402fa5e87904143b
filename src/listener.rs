//! A TCP listener for `axum::serve`, set up for event streams. The one module that names axum.

use std::{io, net::SocketAddr};

use axum::serve::ListenerExt;
use tokio::net::{TcpSocket, TcpStream};

/// Connections that may wait to be accepted. With the usual 128, a thousand clients that return
/// at once wait for a second, until they repeat their SYN. The system may cap it.
const BACKLOG: u32 = 4096;

/// Listens on `address`, with what event streams need and a plain listener lacks: `TCP_NODELAY`
/// on every connection (without it, a small event waits until the client has acknowledged the
/// one before), and a backlog for the moment when all clients reconnect at once.
///
/// ```no_run
/// # async fn run(app: axum::Router) -> std::io::Result<()> {
/// let listener = axum_sse::listener::bind(([127, 0, 0, 1], 3000))?;
/// axum::serve(listener, app).await
/// # }
/// ```
///
/// To be called within a tokio runtime.
///
/// # Errors
///
/// What the system says, with the address: it is taken, or not allowed.
pub fn bind(
    address: impl Into<SocketAddr>,
) -> io::Result<impl axum::serve::Listener<Io = TcpStream, Addr = SocketAddr>> {
    let address = address.into();
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A server that comes back finds its own old connections still winding down there. On
        // Windows the same option would let two servers share the address.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = listen().map_err(|error| {
        io::Error::new(error.kind(), format!("listening on {address}: {error}"))
    })?;
    Ok(listener.tap_io(|stream| {
        // A connection that is gone already has no use for it.
        let _ = stream.set_nodelay(true);
    }))
}
