//! Whether what a client saw of a run is the run.

use std::time::Instant;

use axum_sse::testing::Message;

use crate::track::{Note, text};

/// One client's view of a run: from its first item to its last, whatever happens in between.
pub(crate) struct OneRun {
    /// Before the job was started.
    since: Instant,
    name: Option<String>,
    next: u64,
    pub(crate) events: u64,
}

/// How many items a run has, by its number.
pub(crate) fn items(run: u64) -> u64 {
    10 + run % 30
}

pub(crate) const LONGEST_ITEM: usize = 100;

impl OneRun {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            name: None,
            next: 0,
            events: 0,
        }
    }

    pub(crate) fn message(&mut self, message: &Message, user: usize) -> Result<(), String> {
        match message.event.as_str() {
            "checkpoint" => return Ok(()),
            "message" => {}
            other => return Err(format!("a run: an event named {other:?}")),
        }
        let note: Note = serde_json::from_str(&message.data).map_err(|error| error.to_string())?;
        let (name, number) = (&note.channel, note.number);
        if !name.starts_with(&format!("run-{user}-")) {
            return Err(format!(
                "{name}, number {number}: another user's run (rule 90)"
            ));
        }
        if self.name.get_or_insert(name.clone()) != name {
            return Err(format!("{name}, number {number}: another run"));
        }
        if number != self.next {
            return Err(format!(
                "{name}: number {number} where {} should come",
                self.next
            ));
        }
        if note.text != text(number, LONGEST_ITEM) {
            return Err(format!("{name}, number {number}: doctored text"));
        }
        self.next += 1;
        self.events += 1;
        Ok(())
    }

    pub(crate) fn stays_away(&self) -> Result<(), String> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let run = name.rsplit('-').next().and_then(|run| run.parse().ok());
        match run.map(items) {
            Some(all) if all == self.next => Ok(()),
            // It may have been forgotten: then nobody can tell how much is missing.
            Some(_) if self.since.elapsed() >= crate::server::FORGOTTEN => Ok(()),
            all => Err(format!(
                "{name}: told to stay away with {} of {all:?} items",
                self.next
            )),
        }
    }
}
