//! [`PeerAddr`]: the connection of a request, for handlers and the layer.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, connect_info::Connected},
    serve::IncomingStream,
};
use http::Extensions;

use super::options::TcpStreams;
use crate::connection::Connection;

/// The peer's address and connection. Use it instead of `SocketAddr` with
/// `into_make_service_with_connect_info`.
///
/// It tells the layer which HTTP/2 connection carries a stream, so that a shutdown closes only
/// connections whose clients do not read. HTTP/1.1 does not need it if one task serves each
/// connection.
///
/// ```no_run
/// use axum::extract::ConnectInfo;
/// use axum_sse::listener::{self, PeerAddr};
///
/// async fn handler(ConnectInfo(peer): ConnectInfo<PeerAddr>) -> String {
///     peer.address().to_string()
/// }
///
/// # async fn run(shutdown: axum_sse::Shutdown) -> std::io::Result<()> {
/// let app = axum::Router::new().route("/", axum::routing::get(handler));
/// let listener = listener::bind(([127, 0, 0, 1], 3000))?;
/// axum::serve(listener, app.into_make_service_with_connect_info::<PeerAddr>()).await
/// # }
/// ```
#[derive(Clone)]
pub struct PeerAddr {
    address: SocketAddr,
    connection: Arc<Connection>,
}

impl PeerAddr {
    /// The address of the peer, which is the proxy's address if there is one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Connected<IncomingStream<'_, TcpStreams>> for PeerAddr {
    fn connect_info(stream: IncomingStream<'_, TcpStreams>) -> Self {
        let connection = stream.io().connection().clone();
        connection.is_named();
        Self {
            address: *stream.remote_addr(),
            connection,
        }
    }
}

pub(crate) fn connection_of(extensions: &Extensions) -> Option<Arc<Connection>> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<PeerAddr>>()?;
    Some(peer.connection.clone())
}

impl fmt::Debug for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerAddr").field(&self.address).finish()
    }
}
