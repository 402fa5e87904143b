//! Ids of a hub as they are on the wire.

use std::{fmt, str::FromStr};

use axum_sse::EventId;

/// An id that a client has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) at: EventId,
    /// It ends with a dot: the client is owed snapshots of the connection's channels.
    pub(crate) is_partial: bool,
}

impl FromStr for Id {
    type Err = axum_sse::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_suffix('.');
        Ok(Self {
            at: digits.unwrap_or(text).parse()?,
            is_partial: digits.is_some(),
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.is_partial { "." } else { "" };
        write!(f, "{}{dot}", self.at)
    }
}
