//! What was published, and whether what a client saw is exactly that.
//!
//! Every event carries its channel and its number in it, from 0 without a hole, so a client needs
//! to remember one number for each channel. What the numbers cannot tell is where an id stands:
//! that each [`Track`] remembers, for its newest events.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use axum_sse::{Error, EventId, testing::Message};
use serde::{Deserialize, Serialize};

/// What is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) channel: String,
    pub(crate) number: u64,
    /// As long as the number says, so that a doctored one is seen.
    pub(crate) text: String,
}

impl Note {
    pub(crate) fn new(channel: &str, number: u64, longest: usize) -> Self {
        Self {
            channel: channel.to_owned(),
            number,
            text: text(number, longest),
        }
    }
}

fn text(number: u64, longest: usize) -> String {
    let letter = b'a' + u8::try_from(number % 26).unwrap();
    let length = usize::try_from(number * 37).unwrap() % longest.max(1);
    String::from_utf8(vec![letter; length]).unwrap()
}

/// The state of a board: how many events it has had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) events: u64,
}

/// One channel's events, as they were published.
pub(crate) struct Track {
    pub(crate) name: String,
    /// The longest text.
    pub(crate) longest: usize,
    /// Alone in its hub: then gaps say how much is missing.
    pub(crate) single: bool,
    pub(crate) closed: OnceLock<Instant>,
    published: Mutex<Published>,
}

struct Published {
    life: Option<u64>,
    /// The number of the first event in `ids`.
    first: u64,
    ids: VecDeque<u64>,
}

impl Track {
    /// Remembers the places of the newest `remembered` events, in memory that it takes now.
    pub(crate) fn new(name: impl Into<String>, longest: usize, remembered: usize) -> Self {
        Self {
            name: name.into(),
            longest,
            single: false,
            closed: OnceLock::new(),
            published: Mutex::new(Published {
                life: None,
                first: 0,
                ids: VecDeque::with_capacity(remembered),
            }),
        }
    }

    pub(crate) fn single(mut self) -> Self {
        self.single = true;
        self
    }

    /// Publishes the next event. Under the lock, so that whoever has seen the event finds it here.
    pub(crate) fn publish(&self, publish: impl FnOnce(&Note) -> Result<EventId, Error>) {
        let mut published = self.lock();
        let number = published.first + published.ids.len() as u64;
        let id = publish(&Note::new(&self.name, number, self.longest)).unwrap();
        published.life = Some(id.hi());
        if published.ids.len() == published.ids.capacity() {
            published.ids.pop_front();
            published.first += 1;
        }
        published.ids.push_back(id.lo());
    }

    /// How many events there were.
    pub(crate) fn end(&self) -> u64 {
        let published = self.lock();
        published.first + published.ids.len() as u64
    }

    /// The id of the newest event but `back`.
    pub(crate) fn recent(&self, back: usize) -> Option<EventId> {
        let published = self.lock();
        let at = published.ids.len().checked_sub(1 + back)?;
        Some(EventId::new(published.life?, published.ids[at]))
    }

    /// The number of the first event behind that id; `None` if it is too long ago.
    fn after(&self, id: EventId) -> Option<u64> {
        let published = self.lock();
        if published.life.is_some_and(|life| life != id.hi()) {
            return None;
        }
        let at = published.ids.partition_point(|lo| *lo <= id.lo());
        (at > 0 || published.first == 0).then(|| published.first + at as u64)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

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

/// One client's view of a run: from its first item to its last, whatever happens in between.
#[derive(Default)]
pub(crate) struct OneRun {
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
            all => Err(format!(
                "{name}: told to stay away with {} of {all:?} items",
                self.next
            )),
        }
    }
}
