//! [`Parser`]: parses a chunked HTTP/1.1 response with an event stream, as far as the check needs.
//!
//! It allocates only for a line that spans two reads, and looks at no byte more than twice, because
//! CPU time that the client uses is lost to the server on the same machine.

use memchr::{memchr, memmem};

use crate::Result;

/// What a connection received.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// The response headers, with status 200.
    Head,
    /// A whole event with data.
    Event {
        /// Its number.
        n: u32,
        /// Bytes of its data.
        size: usize,
    },
    /// The server reports missing events.
    Gap,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Head,
    /// In the line with a chunk's size.
    Size(usize),
    /// This many bytes of a chunk are left.
    Chunk(usize),
    /// This many bytes of the line break after a chunk are left.
    Break(usize),
}

#[derive(Debug)]
pub(crate) struct Parser {
    stage: Stage,
    /// The beginning of a line, or of the response headers.
    begun: Vec<u8>,
    event: Event,
    /// The last id, if this connection keeps it.
    pub(crate) id: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Event {
    data: Option<(u32, usize)>,
    has_id: bool,
    /// A control event of the server, such as `gap`.
    control: bool,
    gap: bool,
}

impl Parser {
    pub(crate) fn new(keep_id: bool) -> Self {
        Self {
            stage: Stage::Head,
            begun: Vec::new(),
            event: Event::default(),
            id: keep_id.then(String::new),
        }
    }

    /// Parses the next bytes, and calls `note` with each complete item.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        mut note: impl FnMut(Item) -> Result<()>,
    ) -> Result<()> {
        while let Some(&first) = bytes.first() {
            match self.stage {
                Stage::Head => {
                    let had = self.begun.len();
                    self.begun.extend_from_slice(bytes);
                    let Some(end) = memmem::find(&self.begun, b"\r\n\r\n") else {
                        return Ok(());
                    };
                    let head = String::from_utf8_lossy(&self.begun[..end]).to_ascii_lowercase();
                    if !head.starts_with("http/1.1 200")
                        || !head.contains("transfer-encoding: chunked")
                    {
                        return Err(format!("an unexpected response: {head}").into());
                    }
                    bytes = &bytes[end + 4 - had..];
                    self.begun.clear();
                    self.stage = Stage::Size(0);
                    note(Item::Head)?;
                }
                Stage::Size(size) => {
                    bytes = &bytes[1..];
                    self.stage = match (first, (first as char).to_digit(16)) {
                        (_, Some(digit)) => Stage::Size(size * 16 + digit as usize),
                        (b'\r', _) => Stage::Size(size),
                        (b'\n', _) if size > 0 => Stage::Chunk(size),
                        _ => return Err("the response ended, or is not chunked".into()),
                    };
                }
                Stage::Chunk(left) => {
                    let (chunk, rest) = bytes.split_at(left.min(bytes.len()));
                    bytes = rest;
                    self.stage = match left - chunk.len() {
                        0 => Stage::Break(2),
                        left => Stage::Chunk(left),
                    };
                    self.lines(chunk, &mut note)?;
                }
                Stage::Break(left) => {
                    bytes = &bytes[1..];
                    self.stage = match left {
                        1 => Stage::Size(0),
                        _ => Stage::Break(left - 1),
                    };
                }
            }
        }
        Ok(())
    }

    fn lines(&mut self, mut bytes: &[u8], note: &mut impl FnMut(Item) -> Result<()>) -> Result<()> {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.begun.is_empty() {
                self.line(&bytes[..end], note)?;
            } else {
                let mut line = std::mem::take(&mut self.begun);
                line.extend_from_slice(&bytes[..end]);
                self.line(&line, note)?;
                line.clear();
                self.begun = line;
            }
            bytes = &bytes[end + 1..];
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8], note: &mut impl FnMut(Item) -> Result<()>) -> Result<()> {
        let event = &mut self.event;
        if let Some(data) = line.strip_prefix(b"data: ") {
            if event.control {
                return Ok(());
            }
            if event.data.is_some() {
                return Err("an event with two lines of data".into());
            }
            event.data = Some((number(data)?, data.len()));
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            event.has_id = true;
            if let Some(kept) = &mut self.id {
                kept.clear();
                kept.push_str(std::str::from_utf8(id)?);
            }
        } else if line.is_empty() {
            match std::mem::take(event) {
                Event { gap: true, .. } => note(Item::Gap)?,
                Event {
                    data: Some((n, size)),
                    has_id: true,
                    ..
                } => note(Item::Event { n, size })?,
                Event { data: Some(_), .. } => return Err("an event without an id".into()),
                Event { .. } => {}
            }
        } else if let Some(name) = line.strip_prefix(b"event: ") {
            event.control = true;
            event.gap = name == b"gap";
        } else if !line.starts_with(b":") {
            let line = String::from_utf8_lossy(line);
            return Err(format!("an unexpected line: {line}").into());
        }
        Ok(())
    }
}

/// The number in `{"n":123,`.
fn number(data: &[u8]) -> Result<u32> {
    let digits = data.strip_prefix(br#"{"n":"#);
    let digits = digits.ok_or("data that was not published")?;
    let mut n: u32 = 0;
    for digit in digits {
        match digit {
            b'0'..=b'9' => n = n * 10 + u32::from(digit - b'0'),
            b',' => return Ok(n),
            _ => break,
        }
    }
    Err("data that was not published".into())
}
