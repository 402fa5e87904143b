//! Detects unfinished HTTP/1 request heads that block a shutdown.
//!
//! hyper waits for them during a graceful shutdown, and `axum::serve` sets no timeout.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::lifetime::{
    end::GRACE,
    shutdown::{Shutdown, Waiting},
};

/// Starts of lines after which the head may be followed by a body or another protocol.
const LAST: [&[u8]; 4] = [
    b"content-length:",
    b"transfer-encoding:",
    b"upgrade:",
    b"connect ",
];

/// The position of a connection relative to a request head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Head {
    /// Not begun.
    None,
    /// After an empty line before the head: hyper waits for the rest.
    Blank,
    Line(Line),
    /// Not known from here on, as with TLS from its first byte.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    at: usize,
    /// A bit for each entry of `LAST` that the line matches so far.
    like: u8,
    last: bool,
}

/// Fails a connection whose unfinished head blocks a shutdown.
pub(super) struct Heads {
    shutdown: Shutdown,
    head: Head,
    /// `Some` while a head is unfinished.
    watch: Option<Box<Watch>>,
}

struct Watch {
    waiting: Waiting,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Head {
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            *self = match *self {
                Self::Unknown => return,
                Self::Line(line) => line.read(*byte),
                Self::None | Self::Blank if matches!(byte, b'\r' | b'\n') => Self::Blank,
                Self::None | Self::Blank if is_token(*byte) => Line::new(false).read(*byte),
                Self::None | Self::Blank => Self::Unknown,
            };
        }
    }

    pub(super) fn is_unfinished(self) -> bool {
        matches!(self, Self::Blank | Self::Line(_))
    }
}

impl Line {
    fn new(last: bool) -> Self {
        Self {
            at: 0,
            like: u8::MAX,
            last,
        }
    }

    fn read(mut self, byte: u8) -> Head {
        match byte {
            b'\n' if self.at > 0 => return Head::Line(Self::new(self.last)),
            b'\n' if self.last => return Head::Unknown,
            b'\n' => return Head::None,
            b'\r' => return Head::Line(self),
            _ => {}
        }
        for (bit, start) in LAST.iter().enumerate() {
            let agrees = start.get(self.at) == Some(&byte.to_ascii_lowercase());
            if !agrees {
                self.like &= !(1 << bit);
            } else if self.like & (1 << bit) != 0 && self.at + 1 == start.len() {
                self.last = true;
            }
        }
        self.at += 1;
        Head::Line(self)
    }
}

/// Whether a method can contain this byte (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Heads {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            head: Head::None,
            watch: None,
        }
    }

    pub(super) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.head.read(bytes);
        if !self.head.is_unfinished() {
            self.watch = None;
        }
    }

    /// An error if a head is unfinished one second after the last stream should have ended. Polled
    /// only while a read is pending: while it writes a response, hyper may leave the next head
    /// unread, however long the response takes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.head.is_unfinished() {
            return Poll::Pending;
        }
        let watch = self.watch.get_or_insert_with(|| {
            Box::new(Watch {
                waiting: self.shutdown.wait(),
                alarm: None,
            })
        });
        let end = ready!(poll_end(&mut watch.waiting, cx));
        let alarm = watch
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(end + GRACE)));
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "an unfinished request head blocked the shutdown",
        ))
    }
}

/// Ready once a shutdown has begun, with the time at which its last stream should end, or now if
/// that has passed.
pub(super) fn poll_end(waiting: &mut Waiting, cx: &mut Context<'_>) -> Poll<Instant> {
    ready!(waiting.poll(cx));
    match waiting.shutdown().moment(1.0) {
        Some(end) => Poll::Ready(end.max(Instant::now())),
        None => Poll::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The position after these bytes, which must not depend on how they are split.
    fn after(bytes: &str) -> Head {
        let bytes = bytes.as_bytes();
        let mut whole = Head::None;
        whole.read(bytes);
        for i in 0..=bytes.len() {
            for j in i..=bytes.len() {
                let mut head = Head::None;
                for part in [&bytes[..i], &bytes[i..j], &bytes[j..]] {
                    head.read(part);
                }
                assert_eq!(head, whole, "{i}, {j}");
            }
        }
        whole
    }

    #[test]
    fn a_head_is_unfinished_from_its_first_byte_to_its_empty_line() {
        for line_end in ["\r\n", "\n"] {
            let head = "GET / HTTP/1.1|Host: x|Accept: */*||".replace('|', line_end);
            for n in 1..head.len() {
                assert!(after(&head[..n]).is_unfinished(), "{:?}", &head[..n]);
            }
            assert_eq!(after(&head), Head::None);
            // The empty lines that may come first, too.
            for n in 1..4 {
                let blank = line_end.repeat(n);
                assert_eq!(after(&blank), Head::Blank);
                assert_eq!(after(&format!("{blank}{head}")), Head::None);
            }
            // And the next one.
            assert!(after(&format!("{head}G")).is_unfinished());
            assert_eq!(after(&head.repeat(2)), Head::None);
        }
    }

    #[test]
    fn what_follows_a_body_or_an_upgrade_is_no_head() {
        for line in [
            "Content-Length: 5",
            "content-length:5",
            "TRANSFER-ENCODING: chunked",
            "Upgrade: websocket",
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{line}\r\nA: b\r\n\r");
            assert!(after(&head).is_unfinished(), "{line}");
            assert_eq!(after(&format!("{head}\n")), Head::Unknown, "{line}");
            assert_eq!(after(&format!("{head}\nGET")), Head::Unknown, "{line}");
        }
        let tunnel = "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n";
        assert_eq!(after(tunnel), Head::Unknown);
        for line in [
            "Upgrade-Insecure-Requests: 1",
            "Connection: keep-alive",
            "X-Content-Length: 5",
            "A: content-length: 5",
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n");
            assert_eq!(after(&head), Head::None, "{line}");
        }
    }

    #[test]
    fn what_is_no_http_is_no_head() {
        for bytes in ["\x16\x03\x01", "\r\n\r\n\0\r\nQUIT\n", "\u{e9}", " GET"] {
            assert_eq!(after(bytes), Head::Unknown, "{bytes:?}");
        }
    }
}
