//! Checks gap events: whether they are due, and whether they report exactly what is missing.

use std::collections::BTreeMap;

use axum_sse::EventId;
use serde::Deserialize;

use super::{Came, Transcript};
use crate::{PARTIAL_IDS, id::Id};

/// The data of a gap event. On a connection over several channels, it names the channels
/// concerned, with what is missing on each.
#[derive(Deserialize)]
struct Gap {
    reason: String,
    #[serde(flatten)]
    all: Part,
    channel: Option<String>,
    channels: Option<BTreeMap<String, Part>>,
}

/// What is missing on a channel, or on all of them.
#[derive(Clone, Deserialize)]
struct Part {
    missed: Option<u64>,
    oldest: Option<String>,
}

impl Part {
    fn oldest(&self) -> Result<Option<EventId>, String> {
        let id = self.oldest.as_ref().map(|id| id.parse()).transpose();
        id.map_err(|_| format!("the oldest is no id: {:?}", self.oldest))
    }
}

impl Transcript {
    pub(super) fn gap(&mut self, id: Option<Id>, data: &str) -> Result<(), String> {
        let gap: Gap = serde_json::from_str(data).map_err(|error| format!("{error}: {data:?}"))?;
        if id.is_some() {
            return Err(format!("a gap with an id: {data} (rule 89)"));
        }
        let parts = match (&gap.channel, &gap.channels) {
            (None, Some(parts)) => parts.clone(),
            (Some(name), None) => BTreeMap::from([(name.clone(), gap.all.clone())]),
            _ if self.places.len() == 1 => {
                let name = self.places[0].track.name.clone();
                BTreeMap::from([(name, gap.all.clone())])
            }
            _ => BTreeMap::new(),
        };
        if parts.is_empty() {
            return Err(format!("a gap of no channel: {data}"));
        }
        self.gaps.push(gap.reason.clone());
        let (mut missed, mut oldest) = (Some(0), None);
        for (name, part) in &parts {
            let at = self.places.iter().position(|p| p.track.name == *name);
            let Some(at) = at else {
                return Err(format!("channel {name}, which is not its own: {data}"));
            };
            self.gap_of(at, &gap.reason, part)
                .map_err(|what| format!("channel {name}: {what}: {data}"))?;
            missed = missed.zip(part.missed).map(|(a, b)| a + b);
            oldest = [oldest, part.oldest()?].into_iter().flatten().min();
        }
        if (missed, oldest) != (gap.all.missed, gap.all.oldest()?) {
            return Err(format!("it does not fit what its channels miss: {data}"));
        }
        Ok(())
    }

    fn is_due(&self, at: usize, reason: &str) -> bool {
        let place = &self.places[at];
        let is_gone = place.track.closed.get().is_some();
        match (self.came, place.told) {
            (Came::Stranger(due), false) => reason == due,
            // The client gets the state, which is complete.
            (Came::Back(_) | Came::Borrowed(_), false) if place.is_owed => reason == "lagged",
            (Came::Back(_) | Came::Borrowed(_), false) => {
                // A closed channel may also have been retired (law 7).
                ["evicted", "lagged"].contains(&reason) || (is_gone && reason == "unknown")
            }
            (Came::Oldest, false) => ["truncated", "lagged"].contains(&reason),
            (Came::Fresh | Came::Run, false) | (_, true) => reason == "lagged",
        }
    }

    fn gap_of(&mut self, at: usize, reason: &str, part: &Part) -> Result<(), String> {
        if !self.is_due(at, reason) {
            return Err("not the reason that its id gives".to_owned());
        }
        let (missed, oldest) = (part.missed, part.oldest()?);
        let place = &mut self.places[at];
        let before = place.next.take();
        place.told = true;
        place.is_sure = false;
        let next = if place.track.has_state {
            // The state comes next, whatever is missing.
            place.is_owed = true;
            place.promised = oldest;
            oldest.and_then(|id| place.track.after(id))
        } else {
            let just_before =
                |id: EventId| EventId::new(id.epoch(), id.sequence().saturating_sub(1));
            place.next = oldest.and_then(|id| place.track.after(just_before(id)));
            place.next
        };
        let has_state = place.track.has_state;
        // Without partial ids, the missing events of a state channel are counted up to the oldest
        // event.
        let is_counted = ["evicted", "lagged", "truncated"].contains(&reason);
        if !is_counted || (has_state && !PARTIAL_IDS) {
            return Ok(());
        }
        if missed.is_none() && !has_state && (reason != "evicted" || place.track.single) {
            return Err("it does not say how much is missing".to_owned());
        }
        if let (Some(before), Some(next)) = (before, next) {
            if next <= before {
                return Err(format!("nothing is missing up to number {before}"));
            }
            if missed.is_some_and(|missed| missed != next - before) {
                return Err(format!("numbers {before} to {} are missing", next - 1));
            }
        }
        Ok(())
    }
}
