//! A chunked HTTP/1.1 response, read as it arrives in pieces of any size.

use axum_sse::testing::{Item, Parser};

/// What is left to read of a response.
enum State {
    Head,
    Size,
    Data(usize),
    EndOfData(usize),
    Done,
}

pub(crate) struct Response {
    state: State,
    line: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) parser: Parser,
}

impl Response {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            line: Vec::new(),
            status: 0,
            parser: Parser::new(),
        }
    }

    /// Whether the last chunk has arrived, or there is no body.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Returns the items that these bytes complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            match self.state {
                State::Head => {
                    self.line.push(bytes[0]);
                    bytes = &bytes[1..];
                    if self.line.ends_with(b"\r\n\r\n") {
                        self.head()?;
                    }
                }
                State::Size => {
                    self.line.push(bytes[0]);
                    bytes = &bytes[1..];
                    if let Some(digits) = self.line.strip_suffix(b"\r\n") {
                        let text = String::from_utf8_lossy(digits);
                        let size = usize::from_str_radix(&text, 16)
                            .map_err(|_| format!("the size of a chunk: {text:?}"))?;
                        self.line.clear();
                        self.state = match size {
                            0 => State::Done,
                            size => State::Data(size),
                        };
                    }
                }
                State::Data(left) => {
                    let (data, rest) = bytes.split_at(left.min(bytes.len()));
                    items.extend(self.parser.push(data));
                    bytes = rest;
                    self.state = match left - data.len() {
                        0 => State::EndOfData(2),
                        left => State::Data(left),
                    };
                }
                State::EndOfData(left) => {
                    if !b"\r\n".contains(&bytes[0]) {
                        return Err("a chunk that is longer than it says".to_owned());
                    }
                    bytes = &bytes[1..];
                    self.state = match left {
                        1 => State::Size,
                        left => State::EndOfData(left - 1),
                    };
                }
                // The line after the last chunk.
                State::Done => break,
            }
        }
        Ok(items)
    }

    fn head(&mut self) -> Result<(), String> {
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.line)).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        self.status = status.ok_or_else(|| format!("no status: {head:?}"))?;
        self.state = match self.status {
            204 => State::Done,
            200 if head.contains("\r\ntransfer-encoding: chunked\r\n")
                && head.contains("\r\ncontent-type: text/event-stream\r\n") =>
            {
                State::Size
            }
            // "An `EventSource` never comes back after any status but 200": rules 68, 75, 86.
            _ => return Err(format!("an answer that ends an `EventSource`: {head:?}")),
        };
        Ok(())
    }
}
