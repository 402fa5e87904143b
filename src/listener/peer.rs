//! [`PeerAddr`]: whose connection a request came on, told to handlers and to the layer.

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, connect_info::Connected},
    serve::IncomingStream,
};
use http::Extensions;

use super::options::TcpStreams;
use crate::connection::Connection;

/// The peer's address, and the connection itself for the layer to know: connect info for
/// `into_make_service_with_connect_info`, in place of `SocketAddr`.
///
/// With it the layer knows on HTTP/2, too, which connection a stream is on, and so a shutdown
/// cuts those that carry a stream whose client does not read, and no others. On HTTP/1.1 it
/// knows anyway, as long as one task serves the connection.
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
    /// The address of the other end. Behind a proxy that is the proxy's.
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
