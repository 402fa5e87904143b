//! Fields to bytes: the only place that writes `data: `.
//!
//! Every function appends whole lines, each ended by one line feed. No byte 0x0D is ever written
//! (rule 4), every line has a colon (rule 15), and one space stands after it, so that a value's
//! own first space survives (rule 6). Nothing here decides what a field may hold: `Event` does.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    error::{Error, ErrorKind},
    event::id::PARTIAL,
};

/// One comment line and nothing else: with a blank line behind it, several widely used clients
/// would report an event that nobody sent (rule 36).
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

/// An event is encoded without its id, which a channel only knows under its lock: this is the
/// place where the id's line belongs (rule 18: `retry`, `event`, `id`, `data`).
pub(crate) type IdOffset = usize;

pub(crate) fn comment(out: &mut Vec<u8>, text: &str) {
    lines(out, b": ", text.as_bytes());
}

pub(crate) fn retry(out: &mut Vec<u8>, millis: u32) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(millis.to_string().as_bytes());
    out.push(b'\n');
}

pub(crate) fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
}

/// The id's line; `write` appends the id itself.
pub(crate) fn id(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"id: ");
    write(out);
    out.push(b'\n');
}

/// Empty text is one empty line: an event without any `data` line is never dispatched (rule 2).
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    lines(out, b"data: ", text.as_bytes());
}

/// Leaves `out` as it was if the value cannot be serialised (rule 30).
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    data_written_by(out, |out| serde_json::to_writer(out, value))
}

/// One `data` field whose value `write` appends as JSON, or nothing at all.
pub(crate) fn data_written_by(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
) -> Result<(), Error> {
    let start = out.len();
    out.extend_from_slice(b"data: ");
    let value = out.len();
    if let Err(source) = write(out) {
        out.truncate(start);
        return Err(Error::new(
            ErrorKind::Serialize,
            format!("serialising to JSON: {source}"),
        )
        .with_source(source));
    }
    // serde_json writes one line, but a `RawValue` is copied as it stands, line breaks between
    // its tokens included (rule 29).
    if memchr::memchr2(b'\n', b'\r', &out[value..]).is_some() {
        let raw = out.split_off(value);
        out.truncate(start);
        lines(out, b"data: ", &raw);
    } else {
        out.push(b'\n');
    }
    Ok(())
}

/// What becomes of the ids of events that are appended again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    Leave,
    /// Each gets the dot of a partial id.
    Partial,
    Remove,
}

/// Appends whole events, with their ids changed.
pub(crate) fn events(out: &mut Vec<u8>, mut events: &[u8], ids: Ids) {
    if ids == Ids::Leave {
        out.extend_from_slice(events);
        return;
    }
    out.reserve(events.len());
    while let Some(end) = memchr::memchr(b'\n', events) {
        let (line, rest) = events.split_at(end);
        events = &rest[1..];
        // Every line of data begins with `data`, so this is the id's line.
        if line.starts_with(b"id: ") {
            if ids == Ids::Remove {
                continue;
            }
            out.extend_from_slice(line);
            out.push(PARTIAL);
        } else {
            out.extend_from_slice(line);
        }
        out.push(b'\n');
    }
}

/// The blank line, which is what makes a client dispatch the event.
pub(crate) fn end(out: &mut Vec<u8>) {
    out.push(b'\n');
}

/// One line per line of the value: CRLF, CR and LF each end one (rule 3), and a value that ends
/// in a line break has an empty last line (rule 5).
fn lines(out: &mut Vec<u8>, prefix: &[u8], mut value: &[u8]) {
    loop {
        out.extend_from_slice(prefix);
        let Some(end) = memchr::memchr2(b'\n', b'\r', value) else {
            out.extend_from_slice(value);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&value[..end]);
        out.push(b'\n');
        let terminator = if value[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        value = &value[end + terminator..];
    }
}
