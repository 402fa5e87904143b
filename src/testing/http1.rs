//! As much of an HTTP/1.1 client as a test of event streams needs: one request for each
//! connection, and a body of which every byte is handed on when it comes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::{body::Body, response::Response};
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

/// The longest head that is read, and the longest line between two chunks.
const MAX_HEAD: usize = 64 * 1024;

pub(super) async fn send(server: SocketAddr, request: Request<Body>) -> io::Result<Response> {
    let mut socket = TcpStream::connect(server).await?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut head = format!("{} {path} HTTP/1.1\r\n", request.method()).into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    socket.write_all(&head).await?;

    let mut received = Vec::new();
    loop {
        let head = read_head(&mut socket, &mut received).await?;
        let (response, framing) = parse_head(&head)?;
        // 103 Early Hints and the like come in front of the answer.
        if !response.status().is_informational() {
            let mut decoder = Decoder::new(framing);
            let first = decoder.push(&received);
            let body = Incoming {
                socket: Some(socket),
                first: first.into(),
                decoder,
            };
            return Ok(response.map(|()| Body::from_stream(body)));
        }
    }
}

/// Without the blank line; what follows stays in `received`.
async fn read_head(socket: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            received.truncate(end);
            return Ok(std::mem::replace(received, rest));
        }
        if received.len() > MAX_HEAD {
            return Err(malformed("a head of more than 64 KiB"));
        }
        if socket.read_buf(received).await? == 0 {
            return Err(closed("before the end of the response's head"));
        }
    }
}

pub(super) fn parse_head(head: &[u8]) -> io::Result<(http::Response<()>, Framing)> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.trim_ascii_end());
    let status = lines
        .next()
        .and_then(|line| {
            line.strip_prefix(b"HTTP/1.1 ")
                .or(line.strip_prefix(b"HTTP/1.0 "))
        })
        .and_then(|line| StatusCode::from_bytes(line.get(..3)?).ok())
        .ok_or_else(|| malformed("no status line of HTTP/1"))?;
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) =
            line.split_at(colon.ok_or_else(|| malformed("a header without a colon"))?);
        let name = HeaderName::from_bytes(name).map_err(malformed)?;
        let value = HeaderValue::from_bytes(value[1..].trim_ascii()).map_err(malformed)?;
        response.headers_mut().append(name, value);
    }
    let framing = framing(&response)?;
    Ok((response, framing))
}

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Chunked,
    Length(u64),
    /// It ends with the connection.
    Close,
}

fn framing(response: &http::Response<()>) -> io::Result<Framing> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        // Informational by its number, but no other head follows.
        return Err(malformed("a change of protocols, which was not asked for"));
    }
    if status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
    {
        return Ok(Framing::Length(0));
    }
    let mut codings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        return if coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none() {
            Ok(Framing::Chunked)
        } else {
            Err(malformed("a transfer coding other than chunked"))
        };
    }
    let mut lengths = response.headers().get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(Framing::Close);
    };
    if lengths.any(|length| length != first) {
        return Err(malformed("two Content-Lengths that differ"));
    }
    let length = number(first.as_bytes(), 10);
    Ok(Framing::Length(length.ok_or_else(|| {
        malformed("a Content-Length that is no number")
    })?))
}

/// Takes a body out of its framing, in pieces of any size.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Of the framing, as far as it has come.
    line: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Size,
    Chunk(u64),
    BehindChunk,
    Trailer,
    Length(u64),
    Close,
    Done,
    /// The framing is wrong, for this reason.
    Failed(&'static str),
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            state: match framing {
                Framing::Chunked => State::Size,
                Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::Close => State::Close,
            },
            line: Vec::new(),
        }
    }

    /// What these bytes hold of the body. What stands behind its end is left out, and so is what
    /// stands behind an error in the framing: [`failure`](Self::failure) has that, so that the
    /// body in front of it is not lost.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        while !bytes.is_empty() {
            match &mut self.state {
                State::Done | State::Failed(_) => break,
                State::Close => {
                    body.extend_from_slice(bytes);
                    break;
                }
                State::Chunk(left) | State::Length(left) => {
                    let count =
                        usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (now, later) = bytes.split_at(count);
                    body.extend_from_slice(now);
                    bytes = later;
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Chunk(_) => State::BehindChunk,
                            _ => State::Done,
                        };
                    }
                }
                State::Size | State::BehindChunk | State::Trailer => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let (now, later) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    self.line.extend_from_slice(now);
                    bytes = later;
                    if self.line.len() > MAX_HEAD {
                        self.state = State::Failed("a line of more than 64 KiB between chunks");
                    } else if end.is_some() {
                        self.end_of_line();
                    }
                }
            }
        }
        body
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.state = match (&self.state, line.strip_suffix(b"\r\n")) {
            (_, None) => State::Failed("a line between chunks without a carriage return"),
            (State::Size, Some(line)) => match chunk_size(line) {
                None => State::Failed("a chunk whose size is no number"),
                Some(0) => State::Trailer,
                Some(size) => State::Chunk(size),
            },
            (State::BehindChunk, Some(b"")) => State::Size,
            (State::BehindChunk, Some(_)) => State::Failed("a chunk longer than its size"),
            (_, Some(b"")) => State::Done,
            (_, Some(_)) => State::Trailer,
        };
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn failure(&self) -> Option<io::Error> {
        match self.state {
            State::Failed(reason) => Some(malformed(reason)),
            _ => None,
        }
    }

    /// Whether the connection may be closed here.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self.state {
            State::Failed(reason) => Err(malformed(reason)),
            State::Done | State::Close => Ok(()),
            State::Length(_) => Err(closed("before the end of the body")),
            _ => Err(closed("before the last chunk")),
        }
    }
}

/// Hexadecimal, and perhaps an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    number(digits.trim_ascii_end(), 16)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    // std would take a sign.
    let plain = digits.chars().all(|digit| digit.is_digit(radix));
    u64::from_str_radix(digits, radix).ok().filter(|_| plain)
}

fn malformed(what: impl Into<crate::BoxError>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn closed(place: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the connection was closed {place}"),
    )
}

struct Incoming {
    /// Until the body is over: then the server sees the connection closed.
    socket: Option<TcpStream>,
    /// What came along with the head.
    first: Bytes,
    decoder: Decoder,
}

impl Stream for Incoming {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut this.first))));
        }
        while let Some(socket) = this.socket.as_mut().filter(|_| !this.decoder.is_done()) {
            if let Some(error) = this.decoder.failure() {
                this.socket = None;
                return Poll::Ready(Some(Err(error)));
            }
            let mut space = [0; 8 * 1024];
            let mut space = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(socket).poll_read(cx, &mut space));
            let body = match read {
                Ok(()) if space.filled().is_empty() => this.decoder.finish().map(|()| None),
                Ok(()) => Ok(Some(this.decoder.push(space.filled()))),
                Err(error) => Err(error),
            };
            match body {
                Ok(Some(body)) if body.is_empty() => {}
                Ok(Some(body)) => return Poll::Ready(Some(Ok(body.into()))),
                Ok(None) => this.socket = None,
                Err(error) => {
                    this.socket = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        this.socket = None;
        Poll::Ready(None)
    }
}
