//! Requests over plain HTTP/1.1, each on a new connection.

use std::{
    error::Error as _,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use axum_core::{body::Body, response::Response};
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The longest response head that is accepted, in bytes.
const MAX_HEAD: usize = 64 * 1024;

type TcpConnection = Connection<TokioIo<TcpStream>, Body>;

pub(super) async fn send(server: SocketAddr, request: Request<Body>) -> io::Result<Response> {
    let socket = TcpStream::connect(server).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(described)?;
    let mut connection = Some(connection);
    let mut response = pin!(sender.send_request(request));
    let response = poll_fn(|cx| {
        loop {
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(response);
            }
            ready!(poll_connection(&mut connection, cx));
        }
    })
    .await
    .map_err(described)?;
    Ok(response.map(|body| Body::new(ResponseBody { body, connection })))
}

/// Ready if the connection has ended in this call: the response or its body then has an outcome.
fn poll_connection(connection: &mut Option<TcpConnection>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(open) = connection else {
        return Poll::Pending;
    };
    // An error is also the outcome of the response or its body, where it is reported.
    let _ = ready!(Pin::new(open).poll(cx));
    *connection = None;
    Poll::Ready(())
}

/// The body of a response, which drives its own connection: in a separate task, the connection of
/// a dropped reader would stay open until the server sent more.
struct ResponseBody {
    body: Incoming,
    /// `None` once it has ended. hyper closes it at the end of the body, since the sender of requests
    /// was dropped.
    connection: Option<TcpConnection>,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
                return Poll::Ready(frame.map(|frame| frame.map_err(described)));
            }
            ready!(poll_connection(&mut this.connection, cx));
        }
    }
}

/// hyper's message alone often leaves out the cause.
fn described(error: hyper::Error) -> io::Error {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    io::Error::other(message)
}
