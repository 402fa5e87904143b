//! Listeners for `axum::serve` that are made for event streams.
//!
//! [`bind`] is the one call that most apps need; [`Options`] is for everything else.
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
//! # What they do that a plain listener does not
//!
//! | | why |
//! | --- | --- |
//! | `TCP_NODELAY` | without, a small event waits until the client has acknowledged the one before: 40 ms and more |
//! | a backlog of 4096 | with the usual 128, a thousand clients that return at once wait for a second, until they repeat their SYN. [What the system allows](max_backlog) caps it |
//! | `TCP_USER_TIMEOUT` of 60 s (Linux) | a peer that has vanished would be noticed after a quarter of an hour of repeated segments. Elsewhere there is none, and the stall timeout notices it later |
//! | a stall timeout of 60 s | a client for which nothing could be written for so long is cut off |
//! | ends for clients that do not read, or stop in the middle of a request's head | see below |
//! | a count of open connections | [`Connections`] |
//! | a name for each connection | [`PeerAddr`] |
//! | a bound for the send buffer, if asked for | the kernel lets it grow up to 4 MiB (Linux) for a client that reads slowly; a bound switches that growing off |
//!
//! # Clients that do not read
//!
//! A server asks a response for more only when it could write what it has. So a stream whose
//! client does not read cannot end itself: not at the end of its
//! [lifetime](crate::SseLayer::lifetime), not when its [`Access`](crate::Access) is withdrawn,
//! and not on [`Shutdown`](crate::Shutdown). These listeners see to it:
//!
//! * on HTTP/1.1, the connection is cut one second after the stream should have ended;
//! * on HTTP/2 a connection carries many streams, perhaps of many users, and one of them is no
//!   reason to cut it: the end of a lifetime or of an access has to wait until the client reads
//!   on. For a shutdown it is cut, a second after the last stream should have ended, if the peer
//!   has been silent since the shutdown began (whoever is alive answers the server's PING), or if
//!   streams are open on it. The second takes [`PeerAddr`] as the app's connect info; without,
//!   nobody knows whose a stream is, and if any is open anywhere, connections are cut that have
//!   not moved a byte for half a second. All of this needs [`Options::shutdown`].
//!
//! With TLS between these sockets and the server, HTTP/1.1 works as before (the handshake and the
//! requests may even have tasks of their own), and what is said of HTTP/2 does not hold.
//!
//! # Clients that stop in the middle of a head
//!
//! `axum::serve` sets no time limit for the head of a request, and a graceful shutdown waits for a
//! head that has begun, be it with one byte. With [`Options::shutdown`], an HTTP/1.1 connection
//! whose head is still unfinished a second after the last stream should have ended is cut; without,
//! the listener cannot know of the shutdown, and nothing cuts it. Bodies of requests are left
//! alone, and so is what follows them on the same connection, or an `Upgrade`: how long those may
//! take is up to the app. With TLS in between, heads cannot be seen, and none is cut.
//!
//! With another listener, all of this holds for clients that read.

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
