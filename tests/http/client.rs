//! An HTTP/1 client that exposes the bytes.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Waits with a timeout.
pub(crate) async fn bounded<F: IntoFuture>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("it hangs")
}

pub(crate) struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        TcpStream::connect(address).await.unwrap().into()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Returns whether there was more.
    async fn receive(&mut self) -> bool {
        match bounded(self.stream.read_buf(&mut self.received)).await {
            Ok(count) => count > 0,
            // The system reports a reset if the server has left something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .received
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.received.split_off(at + end.len());
                self.received.truncate(at);
                let before = std::mem::replace(&mut self.received, rest);
                return String::from_utf8(before).unwrap();
            }
            assert!(self.receive().await, "closed before {end:?}");
        }
    }

    /// The status line and the header fields in order, without the date, which must be there.
    pub(crate) async fn head(&mut self) -> Vec<String> {
        let head = self.until("\r\n\r\n").await;
        let mut lines: Vec<_> = head.split("\r\n").map(str::to_owned).collect();
        let date = lines.iter().position(|line| line.starts_with("date: "));
        lines.remove(date.expect("a date"));
        lines[1..].sort_unstable();
        lines
    }

    /// The content of one chunk; `None` at the end of the chunked body.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.until("\r\n").await, 16).unwrap();
        while self.received.len() < size + 2 {
            assert!(self.receive().await, "closed within a chunk");
        }
        let rest = self.received.split_off(size + 2);
        let mut chunk = std::mem::replace(&mut self.received, rest);
        assert_eq!(chunk.split_off(size), b"\r\n");
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    /// Asserts that the next chunks are exactly this text.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut got = String::new();
            while got.len() < text.len() {
                got += &self
                    .chunk()
                    .await
                    .unwrap_or_else(|| panic!("{caller}: {got:?}"));
            }
            assert_eq!(got, text, "{caller}");
        }
    }

    /// All bytes up to the close.
    pub(crate) async fn rest(&mut self) -> String {
        while self.receive().await {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }
}
