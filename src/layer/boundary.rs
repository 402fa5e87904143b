//! [`EventBoundary`]: finds the ends of whole events in the bytes of a foreign stream.

use std::mem;

/// Whether a stream that this crate has not encoded is between two events.
///
/// It is after a line end, unless the lines since the last blank one contain a field of an event.
/// Comments do not count as an event: otherwise a stream could not end after a heartbeat, and a
/// stream that sends only heartbeats could not end for hours.
#[derive(Default)]
pub(super) struct EventBoundary {
    in_line: bool,
    in_event: bool,
    after_cr: bool,
}

impl EventBoundary {
    /// Reads the next bytes of the stream. Chunks may be cut anywhere, even inside CRLF.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if !self.in_line {
                match first {
                    b'\n' | b'\r' => self.in_event = false,
                    // `data`, `event` and `id`, or a byte order mark before one of them. A client
                    // ignores all other lines or acts on them at once.
                    b'd' | b'e' | b'i' | 0xEF => self.in_event = true,
                    _ => {}
                }
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.in_line = true;
                return;
            };
            self.in_line = false;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
    }

    pub(super) fn is_boundary(&self) -> bool {
        !self.in_line && !self.in_event
    }
}
