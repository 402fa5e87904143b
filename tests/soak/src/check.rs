//! Checks that what a client saw is exactly what was published.
//!
//! Every event carries its channel and its number there, counted from 0 without holes. So a client
//! only needs to remember one number per channel, and the state of a state channel. The numbers do
//! not show which event an id belongs to: each [`Track`] remembers that for its newest events.

mod gap;

use std::sync::Arc;

use axum_sse::{EventId, testing::Message};

use crate::{
    PARTIAL_IDS,
    id::Id,
    state::Tally,
    track::{Note, Track, text},
};

/// The id that a client sends, and thus what it should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Fresh,
    /// Without an id, to a handler that starts with the oldest event.
    Oldest,
    /// With its own last id.
    Back(Id),
    /// With an id of the same hub that it never got: a point in time (rule 90).
    Borrowed(Id),
    /// With its own last id, which is one of a run.
    Run,
    /// With something that must cause a gap with this reason.
    Stranger(&'static str),
}

/// A client's position in one channel.
struct Place {
    track: Arc<Track>,
    /// The next number; `None` if only the next id will show it.
    next: Option<u64>,
    /// Everything before `next` has arrived, or was published before the client came. After a gap,
    /// the channel may continue far after the client's id.
    is_sure: bool,
    /// `next` and `is_sure` as they were when the client's last id was taken.
    taken: (Option<u64>, bool),
    /// Whether a gap has been reported on this connection.
    told: bool,
    /// A snapshot must come before any event.
    is_owed: bool,
    /// The state as the client knows it, for a state channel.
    state: Option<Tally>,
    /// The state that a gap has promised.
    promised: Option<EventId>,
}

/// One client's view of its channels, across all its connections.
pub(crate) struct Transcript {
    places: Vec<Place>,
    came: Came,
    /// The newest id on this connection, as received.
    id: String,
    last: Option<EventId>,
    /// Something came without an id, so a checkpoint must follow.
    is_ahead: bool,
    /// Events whose number could not be checked, because the last id was too old.
    pub(crate) unproved: u64,
    pub(crate) events: u64,
    pub(crate) snapshots: u64,
    pub(crate) gaps: Vec<String>,
}

impl Transcript {
    pub(crate) fn new(tracks: Vec<Arc<Track>>) -> Self {
        let place = |track| Place {
            track,
            next: None,
            is_sure: false,
            taken: (None, false),
            told: false,
            is_owed: false,
            state: None,
            promised: None,
        };
        Self {
            places: tracks.into_iter().map(place).collect(),
            came: Came::Fresh,
            id: String::new(),
            last: None,
            is_ahead: false,
            unproved: 0,
            events: 0,
            snapshots: 0,
            gaps: Vec::new(),
        }
    }

    /// A connection begins.
    pub(crate) fn connected(&mut self, came: Came) -> Result<(), String> {
        self.came = came;
        self.id.clear();
        self.last = None;
        self.is_ahead = false;
        for place in &mut self.places {
            place.begins(came)?;
        }
        Ok(())
    }

    pub(crate) fn message(&mut self, message: &Message) -> Result<(), String> {
        // Ids grow, so a repeated id is that of an earlier event.
        let is_new = message.last_event_id != self.id;
        self.id.clone_from(&message.last_event_id);
        let id = || {
            let id: Result<Id, _> = message.last_event_id.parse();
            id.map_err(|_| format!("no id of an event: {message:?}"))
        };
        let own_id = || is_new.then(id).transpose();
        match message.event.as_str() {
            "message" => self.event(own_id()?, &message.data),
            "checkpoint" => self.checkpoint(id()?),
            "snapshot" => self.snapshot(own_id()?, &message.data),
            "gap" => self.gap(own_id()?, &message.data),
            other => Err(format!("an event named {other:?}")),
        }
    }

    fn event(&mut self, id: Option<Id>, data: &str) -> Result<(), String> {
        let note: Note =
            serde_json::from_str(data).map_err(|error| format!("{error}: {data:?}"))?;
        let (channel, number) = (&note.channel, note.number);
        let place = self.places.iter().position(|p| p.track.name == *channel);
        let Some(at) = place else {
            return Err(format!(
                "an event of channel {channel}, number {number}, which is not its own (rule 90)"
            ));
        };
        let wrong = |what: String| Err(format!("channel {channel}, number {number}: {what}"));
        if note.text != text(number, self.places[at].track.longest) {
            return wrong("doctored text".to_owned());
        }
        if let Some(id) = id
            && self.last.is_some_and(|last| id.at <= last)
        {
            return wrong(format!("{id} comes after {:?}", self.last));
        }
        if self.places[at].is_owed {
            return wrong("its snapshot has not come yet".to_owned());
        }
        if let Some(id) = id
            && !id.is_partial
            && self.is_ahead
        {
            return wrong(format!("{id}, and no checkpoint after the snapshots"));
        }
        let follows = self.follows(at, number, id.is_some());
        let changes = self.places[at].advance(number, note.value);
        follows.and(changes)?;
        self.events += 1;
        let Some(id) = id else {
            return self.without_id(at, number);
        };
        let after = self.places[at].track.after(id.at);
        if after.is_some_and(|next| next != number + 1) {
            return Err(format!(
                "channel {channel}, number {number}: {id} is not its id"
            ));
        }
        self.take(id)
    }

    /// Checks that this number is the next one.
    fn follows(&mut self, at: usize, number: u64, has_id: bool) -> Result<(), String> {
        let Place {
            track, next, told, ..
        } = &self.places[at];
        let channel = &track.name;
        let wrong = |what: &str| Err(format!("channel {channel}, number {number}: {what}"));
        match *next {
            Some(next) if next == number => Ok(()),
            Some(next) if next < number => Err(format!(
                "channel {channel}: numbers {next} to {} are missing, and no gap says so (law 3)",
                number - 1
            )),
            Some(next) => wrong(&format!("it comes where {next} should (law 3)")),
            None if matches!(self.came, Came::Stranger(_)) && !told => {
                wrong("no gap before it (rule 86)")
            }
            // What comes with a snapshot has no checkpoint before it, unless ids may be partial.
            None if self.came == Came::Fresh && !told && (has_id || PARTIAL_IDS) => {
                wrong("no checkpoint before it (law 4)")
            }
            None => {
                self.unproved += 1;
                Ok(())
            }
        }
    }

    /// On a connection over several channels, what comes with snapshots has no id: an id cannot
    /// express that the client has the state of one channel but not yet of another.
    fn without_id(&mut self, at: usize, number: u64) -> Result<(), String> {
        let channel = &self.places[at].track.name;
        if self.places.len() == 1 {
            return Err(format!("channel {channel}, number {number}: it has no id"));
        }
        if !self.is_ahead && !self.owes() {
            return Err(format!(
                "channel {channel}, number {number}: no id, and no snapshot is due"
            ));
        }
        self.is_ahead = true;
        Ok(())
    }

    fn owes(&self) -> bool {
        self.places.iter().any(|place| place.is_owed)
    }

    fn checkpoint(&mut self, id: Id) -> Result<(), String> {
        if self.last.is_some_and(|last| id.at < last) {
            return Err(format!("the checkpoint {id} comes after {:?}", self.last));
        }
        let is_stranger = matches!(self.came, Came::Stranger(_));
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            // A client that comes back with a partial id gets these states again.
            if id.is_partial && place.track.has_state {
                continue;
            }
            let wrong = |what: String| Err(format!("channel {}: {what}", place.track.name));
            let next = place.track.after(id.at);
            match (place.next, next) {
                (Some(expected), Some(next)) if next > expected => {
                    return wrong(format!(
                        "the checkpoint {id} passes over numbers {expected} to {} (law 4)",
                        next - 1
                    ));
                }
                (Some(expected), Some(next)) if next < expected && place.is_sure => {
                    return wrong(format!(
                        "after the checkpoint {id}, numbers {next} to {} would come again",
                        expected - 1
                    ));
                }
                (None, _) if is_stranger && !place.told => {
                    return wrong("a checkpoint, and no gap before it (rule 86)".to_owned());
                }
                // A partial id may be the one that the client sent, from before the gap.
                (None, Some(_)) if place.is_owed || (place.told && id.is_partial) => {}
                (None, Some(next)) => {
                    place.next = Some(next);
                    place.stands();
                }
                _ => {}
            }
            let place = &mut self.places[at];
            place.is_sure |= next.is_some() && place.next == next;
        }
        self.take(id)
    }

    fn snapshot(&mut self, id: Option<Id>, data: &str) -> Result<(), String> {
        let state: Tally = serde_json::from_str(data).map_err(|error| error.to_string())?;
        let channel = state.channel.clone();
        let at = self.places.iter().position(|p| p.track.name == channel);
        let Some(at) = at else {
            return Err(format!(
                "a snapshot of channel {channel}, which is not its own (rule 90)"
            ));
        };
        let is_right = self.is_right(at, id, &state);
        let place = &mut self.places[at];
        place.promised = None;
        place.next = Some(state.events);
        place.is_sure = true;
        place.is_owed = false;
        place.state = None;
        place.stands();
        self.snapshots += 1;
        if let Err(what) = is_right {
            return Err(format!("channel {channel}: {what}"));
        }
        self.places[at].state = Some(state);
        match id {
            Some(id) => self.take(id),
            None => {
                self.is_ahead = true;
                Ok(())
            }
        }
    }

    fn is_right(&self, at: usize, id: Option<Id>, state: &Tally) -> Result<(), String> {
        let (place, events) = (&self.places[at], state.events);
        if *state != Tally::after(&state.channel, events) {
            return Err(format!("this is no state after {events} events: {state:?}"));
        }
        // A snapshot from before the client's position has no gap before it: the client misses
        // nothing.
        let is_early = PARTIAL_IDS && place.next.is_some_and(|next| events <= next);
        if !place.is_owed && !is_early {
            return Err("a snapshot that nothing calls for".to_owned());
        }
        if let Some(promised) = place.promised
            && place
                .track
                .after(promised)
                .is_some_and(|next| next != events)
        {
            return Err(format!("it is not the promised {promised}"));
        }
        if events > place.track.end() {
            return Err(format!("a state of {events} events, too many"));
        }
        let id = match (id, self.places.len()) {
            (Some(id), 1) => id,
            (None, 1) => return Err("a snapshot without an id".to_owned()),
            (Some(id), _) => return Err(format!("a snapshot with the id {id}, among others")),
            (None, _) => return Ok(()),
        };
        if self.last.is_some_and(|last| id.at < last) {
            return Err(format!("the snapshot {id} comes after {:?}", self.last));
        }
        let after = place.track.after(id.at);
        if after.is_some_and(|next| next != events) {
            return Err(format!("a state of {events} events at {id}"));
        }
        Ok(())
    }

    /// The client has stored an id.
    fn take(&mut self, id: Id) -> Result<(), String> {
        if !id.is_partial {
            if let Some(owed) = self.places.iter().find(|place| place.is_owed) {
                return Err(format!(
                    "channel {}: the id {id} says that nothing is owed, and its snapshot has not come",
                    owed.track.name
                ));
            }
        } else if !self.is_ahead && !self.owes() {
            return Err(format!("the id {id} is partial, and no snapshot is due"));
        }
        self.last = Some(id.at);
        for place in &mut self.places {
            place.taken = (place.next, place.is_sure);
        }
        if !id.is_partial {
            self.is_ahead = false;
        }
        Ok(())
    }

    /// It got a 204: then it must have everything.
    pub(crate) fn stays_away(&self) -> Result<(), String> {
        for place in &self.places {
            let name = &place.track.name;
            if place.is_owed {
                return Err(format!(
                    "channel {name}: told to stay away, and its snapshot is owed"
                ));
            }
            let end = place.track.end();
            if place.next.is_some_and(|next| next != end) {
                return Err(format!(
                    "channel {name}: told to stay away, and it has seen up to {:?} of {end}",
                    place.next
                ));
            }
        }
        Ok(())
    }
}

impl Place {
    /// A connection begins.
    fn begins(&mut self, came: Came) -> Result<(), String> {
        self.told = false;
        self.promised = None;
        self.next = match came {
            Came::Back(id) => {
                let taken = self.taken.0.filter(|_| self.taken.1);
                self.track.after(id.at).or(taken)
            }
            Came::Borrowed(id) => self.track.after(id.at),
            Came::Oldest if PARTIAL_IDS => Some(0),
            Came::Fresh | Came::Oldest | Came::Run | Came::Stranger(_) => None,
        };
        self.is_owed = self.track.has_state
            && match came {
                Came::Fresh => true,
                Came::Back(id) | Came::Borrowed(id) => id.is_partial,
                Came::Oldest | Came::Run | Came::Stranger(_) => false,
            };
        if self.is_owed {
            self.next = None;
        }
        self.is_sure = self.next.is_some();
        if let (Came::Back(id), Some(next), (Some(taken), is_sure)) = (came, self.next, self.taken)
            && (next > taken || (next < taken && is_sure))
        {
            return Err(format!(
                "channel {}: its id {id} stands before number {next}, and it has seen up to {taken} (law 5)",
                self.track.name
            ));
        }
        self.stands();
        Ok(())
    }

    /// Sets the state that the client should have at its position.
    fn stands(&mut self) {
        if !self.track.has_state {
            return;
        }
        let is_there = |state: &Tally| Some(state.events) == self.next;
        if !self.state.as_ref().is_some_and(is_there) {
            let events = self.next;
            self.state = events.map(|events| Tally::after(&self.track.name, events));
        }
    }

    /// The event has arrived.
    fn advance(&mut self, number: u64, value: Option<u64>) -> Result<(), String> {
        if self.next != Some(number) {
            self.next = Some(number);
            self.stands();
        }
        self.next = Some(number + 1);
        self.is_sure = true;
        let after = self.state.as_mut().map(|state| state.apply(number));
        if after != value {
            return Err(format!(
                "channel {}, number {number}: its state has {after:?}, and the event says {value:?}",
                self.track.name
            ));
        }
        Ok(())
    }
}
