//! [`Flaws`]: one error for all bad entries of a list.

use crate::{
    error::{Error, ErrorKind},
    event::id::quoted,
};

/// The most bad entries that an error names; it counts the others.
const MAX_NAMED: usize = 16;

/// Collects what is wrong with the entries of one list.
pub(super) struct Flaws {
    what: &'static str,
    kind: ErrorKind,
    named: Vec<String>,
    more: usize,
    most: Option<usize>,
}

impl Flaws {
    pub(super) fn of(what: &'static str, kind: ErrorKind) -> Self {
        Self {
            what,
            kind,
            named: Vec::new(),
            more: 0,
            most: None,
        }
    }

    pub(super) fn add(&mut self, entry: &str, flaw: &str) {
        if self.named.len() < MAX_NAMED {
            // The text before an `@` may be a password, and errors end up in logs.
            let quoted = match entry.rsplit_once('@') {
                Some((_, host)) => quoted(&format!("...@{host}")),
                None => quoted(entry),
            };
            self.named.push(format!("{} {quoted}: {flaw}", self.what));
        } else {
            self.more += 1;
        }
    }

    /// The list has more than `most` entries.
    pub(super) fn too_many(&mut self, most: usize) {
        self.most = Some(most);
    }

    pub(super) fn into_result(self) -> Result<(), Error> {
        let Self {
            what,
            kind,
            named: mut parts,
            more,
            most,
        } = self;
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        if let Some(most) = most {
            parts.push(format!("more than {most} {what}s in a list"));
        }
        if parts.is_empty() {
            return Ok(());
        }
        Err(Error::new(kind, parts.join("; ")))
    }
}
