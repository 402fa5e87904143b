//! Listeners for `axum::serve`, configured for event streams.
//!
//! Most apps need only [`bind`]. [`Options`] changes the defaults.
//!
//! ```no_run
//! # async fn run(app: axum::Router, shutdown: axum_sse::Shutdown) -> std::io::Result<()> {
//! use std::net::SocketAddr;
//!
//! let listener = axum_sse::listener::Options::new()
//!     .shutdown(shutdown.clone())
//!     .bind(([127, 0, 0, 1], 3000))?;
//! let app = app.into_make_service_with_connect_info::<SocketAddr>();
//! axum::serve(listener, app)
//!     .with_graceful_shutdown(shutdown.on(async { drop(tokio::signal::ctrl_c().await) }))
//!     .await
//! # }
//! ```
//!
//! # Differences from a plain listener
//!
//! | | why |
//! | --- | --- |
//! | `TCP_NODELAY` | otherwise a small event waits until the client has acknowledged the previous one: 40 ms and more |
//! | a backlog of 4096 | with the usual 128, some of a thousand clients that reconnect at once wait a second until they repeat their SYN. The [system's limit](max_backlog) applies |
//! | `TCP_USER_TIMEOUT` of 60 s (Linux) | detects a vanished peer, which otherwise takes a quarter of an hour of retransmissions. On other systems, the stall timeout detects it later |
//! | a stall timeout of 60 s | closes a connection to which nothing could be written for that time |
//! | closing of connections that do not read or do not finish a request head | see below |
//! | a count of open connections | [`Connections`] |
//! | an identity for each connection | [`PeerAddr`] |
//! | an optional limit for the send buffer | for a client that reads slowly, the kernel otherwise grows it to up to 4 MiB (Linux) |
//!
//! # Clients that do not read
//!
//! A server polls a response only when it can write more. A stream whose client does not read can
//! therefore not end itself: not after its [lifetime](crate::SseLayer::lifetime), not when its
//! [`Access`](crate::Access) is revoked, and not on [`Shutdown`](crate::Shutdown). These listeners
//! close the connection instead:
//!
//! * On HTTP/1.1, one second after the stream should have ended.
//! * On HTTP/2, only for a shutdown, because other streams share the connection. It is closed one
//!   second after the last stream should have ended, if the peer has sent nothing since the
//!   shutdown began (a live peer answers the server's PING), or if streams are open on it. The
//!   latter requires [`PeerAddr`] as the app's connect info. Without it, while any stream is open
//!   anywhere, every connection is closed that has not transferred a byte for half a second. All of
//!   this requires [`Options::shutdown`].
//!
//! With TLS between these sockets and the server, this works for HTTP/1.1 only.
//!
//! # Unfinished request heads
//!
//! `axum::serve` has no timeout for the head of a request, and a graceful shutdown waits for a head
//! of which even one byte has arrived. With [`Options::shutdown`], an HTTP/1.1 connection with an
//! unfinished head is closed one second after the last stream should have ended; without it, the
//! connection stays open. The listener never closes a connection because of a request body, an
//! `Upgrade`, or anything after those. With TLS, it cannot see heads and closes none.

mod head;
mod io;
mod options;
mod peer;
#[cfg(test)]
mod tests;

pub use io::StreamIo;
pub use options::{Connections, Options, StreamListener, TcpStreams, bind, max_backlog};
pub use peer::PeerAddr;
pub(crate) use peer::connection_of;
