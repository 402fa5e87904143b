//! [`EventBoundary`]: where a stream of someone else's stands, so that it ends behind a whole event.

use std::mem;

/// Where a stream of someone else's stands: may it end here?
///
/// It may between two lines, unless a field of an event is among those since the last blank one.
/// Comments do not count: behind a heartbeat, a silent stream may not go on for hours.
#[derive(Default)]
pub(super) struct EventBoundary {
    in_line: bool,
    in_event: bool,
    after_cr: bool,
}

impl EventBoundary {
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if !self.in_line {
                match first {
                    b'\n' | b'\r' => self.in_event = false,
                    // `data`, `event` and `id`, or a byte order mark in front of one. All else
                    // is nothing to a client, or is acted on at once.
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
