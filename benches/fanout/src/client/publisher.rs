//! [`Publisher`]: a keep-alive connection that publishes with POSTs, one after the other.

use std::io::{self, Read, Write};

use memchr::memmem;
use mio::net::TcpStream;

use crate::Result;

#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) socket: TcpStream,
    /// The event that was sent, until the server answers.
    pub(crate) waits_for: Option<u32>,
    request: Vec<u8>,
    response: Vec<u8>,
    written: usize,
}

impl Publisher {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            waits_for: None,
            request: Vec::new(),
            response: Vec::new(),
            written: 0,
        }
    }

    /// Publishes event `n`, with `size` bytes of data, to a channel.
    pub(crate) fn send(&mut self, channel: usize, n: u32, size: usize) -> Result<()> {
        self.waits_for = Some(n);
        self.written = 0;
        self.request.clear();
        write!(
            self.request,
            "POST /channels/{channel} HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {size}\r\n\r\n"
        )?;
        let end = self.request.len() + size;
        write!(self.request, r#"{{"n":{n},"text":""#)?;
        if self.request.len() + 2 > end {
            return Err("the event size is too small to hold a number".into());
        }
        self.request.resize(end - 2, b'x');
        self.request.extend_from_slice(br#""}"#);
        self.write()
    }

    pub(crate) fn write(&mut self) -> Result<()> {
        while self.written < self.request.len() {
            match self.socket.write(&self.request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The accepted event and its id, once the answer has arrived.
    pub(crate) fn read(&mut self) -> Result<Option<(u32, String)>> {
        loop {
            let mut buffer = [0; 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err("the server ended a connection that publishes".into()),
                Ok(count) => self.response.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let Some(head) = memmem::find(&self.response, b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&self.response).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(format!("publishing failed: {text}").into());
        }
        let length = text.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
        let length: usize = length.ok_or("an answer without a length")?;
        let Some(id) = self.response.get(head + 4..head + 4 + length) else {
            return Ok(None);
        };
        let id = String::from_utf8_lossy(id).into_owned();
        self.response.clear();
        Ok(self.waits_for.take().map(|n| (n, id)))
    }
}
