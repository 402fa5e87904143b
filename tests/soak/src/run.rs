//! Checks that what a client saw of a run is the run.

use std::time::{Duration, Instant};

use axum_sse::testing::Message;
use serde::Deserialize;

use crate::{
    RUNS_REPORT_THEIR_END,
    server::FORGOTTEN,
    track::{Note, text},
};

/// How a run ends, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Completes,
    Cancelled,
    Panics,
}

pub(crate) fn kind(run: u64) -> Kind {
    match run % 8 {
        5 | 6 => Kind::Cancelled,
        7 => Kind::Panics,
        _ => Kind::Completes,
    }
}

/// How many items a run has.
pub(crate) fn items(run: u64) -> u64 {
    10 + run % 30
}

/// The pause between two items.
pub(crate) fn pause(run: u64) -> Duration {
    Duration::from_millis(20 + run % 50)
}

/// The item in whose place it panics.
pub(crate) fn panics_at(run: u64) -> u64 {
    items(run) / 2
}

/// When a run is cancelled; some have completed by then.
pub(crate) fn cancelled_after(run: u64) -> Duration {
    Duration::from_millis(run % 13 * 100)
}

pub(crate) const LONGEST_ITEM: usize = 100;

/// An id of a run that one client shares with others, and what the run looks like from there.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) owner: usize,
    pub(crate) id: String,
    name: Option<String>,
    next: u64,
    since: Instant,
}

/// One client's view of a run, from where it joined to the last item, whatever happens between.
pub(crate) struct OneRun {
    /// A time before the run was started.
    since: Instant,
    name: Option<String>,
    next: u64,
    /// The ids that the client has received, and the number after each.
    ids: Vec<(String, u64)>,
    /// The reason of the event that ended it.
    end: Option<String>,
    /// The client sent an id of another owner's run.
    is_foreign: bool,
    pub(crate) events: u64,
}

#[derive(Deserialize)]
struct End {
    reason: String,
}

impl OneRun {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            name: None,
            next: 0,
            ids: Vec::new(),
            end: None,
            is_foreign: false,
            events: 0,
        }
    }

    /// Starts from an id that another client has received, of the same owner or of another.
    pub(crate) fn from(shared: &Shared, is_foreign: bool) -> Self {
        Self {
            since: shared.since,
            name: shared.name.clone(),
            next: shared.next,
            is_foreign,
            ..Self::new()
        }
    }

    /// Goes back to an earlier id, chosen by `die`.
    pub(crate) fn back(&mut self, die: impl FnOnce(usize) -> usize) -> Option<String> {
        if self.ids.is_empty() {
            return None;
        }
        self.ids.truncate(die(self.ids.len()) + 1);
        let (id, next) = self.ids.last()?;
        self.next = *next;
        self.end = None;
        Some(id.clone())
    }

    /// The newest id, to share with others.
    pub(crate) fn share(&self, owner: usize) -> Option<Shared> {
        let (id, next) = self.ids.last()?;
        Some(Shared {
            owner,
            id: id.clone(),
            name: self.name.clone(),
            next: *next,
            since: self.since,
        })
    }

    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    fn number(&self) -> Option<u64> {
        self.name.as_ref()?.rsplit('-').next()?.parse().ok()
    }

    fn is_forgotten(&self) -> bool {
        self.since.elapsed() >= FORGOTTEN
    }

    pub(crate) fn message(&mut self, message: &Message, user: usize) -> Result<(), String> {
        let result = match message.event.as_str() {
            "checkpoint" => Ok(()),
            "message" => self.item(&message.data, user),
            "end" => return self.end(&message.data),
            other => Err(format!("a run: an event named {other:?}")),
        };
        let id = &message.last_event_id;
        if !id.is_empty() && self.ids.last().is_none_or(|(last, _)| last != id) {
            self.ids.push((id.clone(), self.next));
        }
        result
    }

    fn item(&mut self, data: &str, user: usize) -> Result<(), String> {
        let note: Note = serde_json::from_str(data).map_err(|error| error.to_string())?;
        let (name, number) = (&note.channel, note.number);
        if self.is_foreign || !name.starts_with(&format!("run-{user}-")) {
            return Err(format!(
                "{name}, number {number}: another user's run (rule 90)"
            ));
        }
        if self.name.get_or_insert(name.clone()) != name {
            return Err(format!("{name}, number {number}: another run"));
        }
        if let Some(reason) = &self.end {
            return Err(format!("{name}, number {number}: after its end, {reason}"));
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
        if self.next > self.most() {
            return Err(format!("{name}, number {number}: one item too many"));
        }
        Ok(())
    }

    /// The maximum number of items.
    fn most(&self) -> u64 {
        self.number().map_or(u64::MAX, |run| match kind(run) {
            Kind::Completes | Kind::Cancelled => items(run),
            Kind::Panics => panics_at(run),
        })
    }

    /// Only a run that did not complete ends with an event.
    fn end(&mut self, data: &str) -> Result<(), String> {
        let End { reason } =
            serde_json::from_str(data).map_err(|error| format!("{error}: {data:?}"))?;
        let kind = self.number().map(kind);
        let is_due = match reason.as_str() {
            // The run is forgotten, or another owner's.
            "unknown" | "dropped" => self.is_foreign || self.is_forgotten(),
            _ if self.is_foreign => false,
            // Without an item, a client does not know which run it is.
            "cancelled" => kind.is_none_or(|kind| kind == Kind::Cancelled),
            "failed" => kind == Some(Kind::Panics) && self.next == self.most(),
            _ => false,
        };
        if !is_due {
            return Err(format!(
                "{:?}: it ends with {data} at number {}, and is one of {kind:?}",
                self.name, self.next
            ));
        }
        self.end = Some(reason);
        Ok(())
    }

    /// How it ended, for the statistics.
    pub(crate) fn outcome(&self) -> String {
        match &self.end {
            _ if self.is_foreign => "of another owner".to_owned(),
            Some(reason) => reason.clone(),
            None if self.number().is_some_and(|run| self.next == items(run)) => {
                "complete".to_owned()
            }
            None => "204 with a part".to_owned(),
        }
    }

    /// After a 204, the run must look complete, unless its end has been reported.
    pub(crate) fn stays_away(&self) -> Result<(), String> {
        if self.is_foreign || self.end.is_some() {
            return Ok(());
        }
        let run = self.number();
        if let Some(run) = run
            && self.next == items(run)
        {
            return Ok(());
        }
        let is_part = run.is_none_or(|run| kind(run) != Kind::Completes);
        if !RUNS_REPORT_THEIR_END && (is_part || self.is_forgotten()) {
            return Ok(());
        }
        Err(format!(
            "{:?}: told to stay away with {} of {:?} items",
            self.name,
            self.next,
            run.map(items)
        ))
    }
}
