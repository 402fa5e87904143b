//! Whether what a client saw is exactly what was published.
//!
//! Every event carries its channel and its number in it, from 0 without a hole, so a client needs
//! to remember one number for each channel. What the numbers cannot tell is where an id stands:
//! that each [`Track`] remembers, for its newest events.

use std::sync::Arc;

use axum_sse::{EventId, testing::Message};
use serde::Deserialize;

use crate::track::{Counted, Note, Track, text};

/// What a client brings to a connection, and so what it is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Fresh,
    /// With the last id of its own.
    Back(EventId),
    /// With an id of the same hub that it never got: a point in time (rule 90).
    Borrowed(EventId),
    /// With the last id of its own, which is one of a run.
    Run,
    /// With something that must be answered with a gap of this reason.
    Stranger(&'static str),
}

#[derive(Deserialize)]
struct Gap {
    reason: String,
    missed: Option<u64>,
    oldest: Option<String>,
    channel: Option<String>,
}

struct Place {
    track: Arc<Track>,
    /// The number that is to come; `None` where only the next id will tell.
    next: Option<u64>,
    /// As it was when the client's last id was taken.
    sure: Option<u64>,
    told: bool,
}

/// One client's view of its channels, across all its connections.
pub(crate) struct Transcript {
    places: Vec<Place>,
    came: Came,
    /// The newest id on this connection.
    last: Option<EventId>,
    /// The state that a gap has promised.
    promised: Option<EventId>,
    /// Events whose place could not be told, since that was too long ago.
    pub(crate) unproved: u64,
    pub(crate) events: u64,
    pub(crate) gaps: Vec<String>,
}

impl Transcript {
    pub(crate) fn new(tracks: Vec<Arc<Track>>) -> Self {
        let place = |track| Place {
            track,
            next: None,
            sure: None,
            told: false,
        };
        Self {
            places: tracks.into_iter().map(place).collect(),
            came: Came::Fresh,
            last: None,
            promised: None,
            unproved: 0,
            events: 0,
            gaps: Vec::new(),
        }
    }

    /// A connection begins.
    pub(crate) fn connected(&mut self, came: Came) -> Result<(), String> {
        self.came = came;
        self.last = None;
        self.promised = None;
        for place in &mut self.places {
            place.told = false;
            place.next = None;
            if let Came::Back(id) | Came::Borrowed(id) = came {
                place.next = place.track.after(id);
            }
            if let (Came::Back(id), Some(sure), Some(next)) = (came, place.sure, place.next)
                && next > sure
            {
                return Err(format!(
                    "channel {}: its id {id} stands behind number {next}, and it has seen up to {sure} only (law 5)",
                    place.track.name
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn message(&mut self, message: &Message) -> Result<(), String> {
        let id = || {
            let id = message.last_event_id.parse();
            id.map_err(|_| format!("no id of an event: {message:?}"))
        };
        match message.event.as_str() {
            "message" => self.event(id()?, &message.data),
            "checkpoint" => self.checkpoint(id()?),
            "snapshot" => self.snapshot(id()?, &message.data),
            "gap" => self.gap(&message.data),
            other => Err(format!("an event named {other:?}")),
        }
    }

    fn event(&mut self, id: EventId, data: &str) -> Result<(), String> {
        let note: Note =
            serde_json::from_str(data).map_err(|error| format!("{error}: {data:?}"))?;
        let (channel, number) = (&note.channel, note.number);
        let place = self.places.iter_mut();
        let Some(place) = place.into_iter().find(|p| p.track.name == *channel) else {
            return Err(format!(
                "an event of channel {channel}, number {number}, which is not its own (rule 90)"
            ));
        };
        if note.text != text(number, place.track.longest) {
            return Err(format!("channel {channel}, number {number}: doctored text"));
        }
        if self.last.is_some_and(|last| id <= last) {
            return Err(format!(
                "channel {channel}, number {number}: {id} comes behind {:?}",
                self.last
            ));
        }
        let next = place.next.replace(number + 1);
        match next {
            Some(next) if next == number => {}
            Some(next) if next < number => {
                return Err(format!(
                    "channel {channel}: numbers {next} to {} are missing, and no gap says so (law 3)",
                    number - 1
                ));
            }
            Some(next) => {
                return Err(format!(
                    "channel {channel}: number {number} comes where {next} should (law 3)"
                ));
            }
            None if self.came == Came::Fresh => {
                return Err(format!(
                    "channel {channel}, number {number}: no checkpoint before it (law 4)"
                ));
            }
            None if matches!(self.came, Came::Stranger(_)) && !place.told => {
                return Err(format!(
                    "channel {channel}, number {number}: no gap before it (rule 86)"
                ));
            }
            None => self.unproved += 1,
        }
        if place.track.after(id).is_some_and(|next| next != number + 1) {
            return Err(format!(
                "channel {channel}, number {number}: {id} is not its id"
            ));
        }
        self.events += 1;
        self.take(id);
        Ok(())
    }

    fn checkpoint(&mut self, id: EventId) -> Result<(), String> {
        for place in &mut self.places {
            let next = place.track.after(id);
            match (place.next, next) {
                (Some(expected), Some(next)) if next > expected => {
                    return Err(format!(
                        "channel {}: the checkpoint {id} passes over numbers {expected} to {} (law 4)",
                        place.track.name,
                        next - 1
                    ));
                }
                (None, _) if matches!(self.came, Came::Stranger(_)) && !place.told => {
                    return Err(format!(
                        "channel {}: a checkpoint, and no gap before it (rule 86)",
                        place.track.name
                    ));
                }
                (None, next) => place.next = next,
                _ => {}
            }
        }
        self.take(id);
        Ok(())
    }

    fn snapshot(&mut self, id: EventId, data: &str) -> Result<(), String> {
        let state: Counted = serde_json::from_str(data).map_err(|error| error.to_string())?;
        let place = &mut self.places[0];
        if !place.told && (self.came != Came::Fresh || self.last.is_some()) {
            return Err(format!(
                "channel {}: a snapshot that nothing calls for",
                place.track.name
            ));
        }
        if self.promised.take().is_some_and(|promised| promised != id) {
            return Err(format!(
                "channel {}: the snapshot {id} is not the one that the gap promised",
                place.track.name
            ));
        }
        if place
            .track
            .after(id)
            .is_some_and(|next| next != state.events)
        {
            return Err(format!(
                "channel {}: a state of {} events at {id}",
                place.track.name, state.events
            ));
        }
        place.next = Some(state.events);
        self.take(id);
        Ok(())
    }

    fn gap(&mut self, data: &str) -> Result<(), String> {
        let gap: Gap = serde_json::from_str(data).map_err(|error| format!("{error}: {data:?}"))?;
        let place = match &gap.channel {
            Some(name) => self.places.iter_mut().find(|p| p.track.name == *name),
            None if self.places.len() == 1 => self.places.first_mut(),
            None => None,
        };
        let Some(place) = place else {
            return Err(format!("a gap of a channel that is not its own: {data}"));
        };
        let wrong = |what: &str| Err(format!("channel {}: {what}: {data}", place.track.name));
        let reason = gap.reason.as_str();
        let gone = place.track.closed.get().is_some();
        let due = match (self.came, place.told) {
            (Came::Stranger(due), false) => reason == due,
            (Came::Back(_) | Came::Borrowed(_), false) => {
                // A channel that has been closed may have been forgotten, too (law 7).
                ["evicted", "lagged"].contains(&reason) || (gone && reason == "unknown")
            }
            (Came::Fresh | Came::Run, false) | (_, true) => reason == "lagged",
        };
        if !due {
            return wrong("not the reason that its id gives");
        }
        self.gaps.push(gap.reason.clone());
        let oldest: Option<EventId> = match gap.oldest.map(|id| id.parse()).transpose() {
            Ok(oldest) => oldest,
            Err(_) => return wrong("no id"),
        };
        let before = place.next;
        place.told = true;
        place.next = None;
        if place.track.name == crate::server::BOARD {
            // The state comes next, whatever is missing.
            self.promised = oldest;
            return Ok(());
        }
        place.next = oldest.and_then(|id| place.track.after(EventId::new(id.hi(), id.lo() - 1)));
        let is_counted = reason == "lagged" || (reason == "evicted" && place.track.single);
        if is_counted && gap.missed.is_none() {
            return wrong("it does not say how much is missing");
        }
        if let (Some(before), Some(next), "evicted" | "lagged") = (before, place.next, reason) {
            if next <= before {
                return wrong(&format!("nothing is missing up to number {before}"));
            }
            if gap.missed.is_some_and(|missed| missed != next - before) {
                return wrong(&format!("numbers {before} to {} are missing", next - 1));
            }
        }
        Ok(())
    }

    /// The client has taken over an id.
    fn take(&mut self, id: EventId) {
        self.last = Some(id);
        for place in &mut self.places {
            place.sure = place.next;
        }
    }

    /// It was told not to come back: then it must have everything.
    pub(crate) fn stays_away(&self) -> Result<(), String> {
        for place in &self.places {
            let end = place.track.end();
            if place.next.is_some_and(|next| next != end) {
                return Err(format!(
                    "channel {}: told to stay away, and it has seen up to {:?} of {end}",
                    place.track.name, place.next
                ));
            }
        }
        Ok(())
    }
}
