//! Encodes fields as lines. No other module writes `data: `.
//!
//! Every function appends whole lines, each ending in one LF. No CR is ever written (rule 4). Every
//! line has a colon (rule 15) and a space after it, so that a leading space of the value survives
//! (rule 6). `Event` validates the values.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    error::{Error, ErrorKind},
    event::id::PARTIAL,
};

/// A comment line without a blank line, for which several widely used clients would report an
/// event (rule 36).
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

/// Where the `id` line belongs in an event that was encoded without it (rule 18: `retry`, `event`,
/// `id`, `data`). A channel encodes events first and draws their ids later, under its lock.
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

/// Appends the `id` line; `write` appends the id itself.
pub(crate) fn id(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"id: ");
    write(out);
    out.push(b'\n');
}

/// Empty text is one empty line: an event without a `data` line is never dispatched (rule 2).
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    lines(out, b"data: ", text.as_bytes());
}

/// Leaves `out` unchanged if the value cannot be serialized (rule 30).
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    data_written_by(out, |out| serde_json::to_writer(out, value))
}

/// Appends a `data` field whose value `write` writes as JSON. Leaves `out` unchanged on an error.
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
            format!("serializing to JSON: {source}"),
        )
        .with_source(source));
    }
    // serde_json writes one line, but it copies a `RawValue` verbatim, including any line breaks
    // between tokens (rule 29).
    if memchr::memchr2(b'\n', b'\r', &out[value..]).is_some() {
        let raw = out.split_off(value);
        out.truncate(start);
        lines(out, b"data: ", &raw);
    } else {
        out.push(b'\n');
    }
    Ok(())
}

/// What happens to the ids of encoded events that are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    Leave,
    /// Adds the dot of a partial id.
    Partial,
    Remove,
}

/// Copies whole encoded events to `out`, with their ids changed.
pub(crate) fn events(out: &mut Vec<u8>, mut events: &[u8], ids: Ids) {
    if ids == Ids::Leave {
        out.extend_from_slice(events);
        return;
    }
    out.reserve(events.len());
    while let Some(end) = memchr::memchr(b'\n', events) {
        let (line, rest) = events.split_at(end);
        events = &rest[1..];
        // Lines of data start with `data`, so this is the id.
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

/// Appends the blank line that makes a client dispatch the event.
pub(crate) fn end(out: &mut Vec<u8>) {
    out.push(b'\n');
}

/// Appends one line for each line of the value. CRLF, CR and LF each end a line (rule 3); a line
/// break at the end makes an empty last line (rule 5).
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
