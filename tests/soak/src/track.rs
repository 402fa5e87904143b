//! What was published: each channel's events by number, and the ids of the newest.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use axum_sse::EventId;
use serde::{Deserialize, Serialize};

use crate::state;

/// A published value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) channel: String,
    pub(crate) number: u64,
    /// Its length depends on the number, so that a changed text is noticed.
    pub(crate) text: String,
    /// For a state channel: the value of the event's key after the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<u64>,
}

impl Note {
    pub(crate) fn new(channel: &str, number: u64, longest: usize) -> Self {
        Self {
            channel: channel.to_owned(),
            number,
            text: text(number, longest),
            value: None,
        }
    }
}

pub(crate) fn text(number: u64, longest: usize) -> String {
    let letter = b'a' + u8::try_from(number % 26).unwrap();
    let length = usize::try_from(number * 37).unwrap() % longest.max(1);
    String::from_utf8(vec![letter; length]).unwrap()
}

/// One channel's events, as they were published.
pub(crate) struct Track {
    pub(crate) name: String,
    /// The longest text.
    pub(crate) longest: usize,
    /// A stand-alone channel: its gaps always have the number of missing events.
    pub(crate) single: bool,
    /// Its events change a state, of which new clients get a snapshot.
    pub(crate) has_state: bool,
    pub(crate) closed: OnceLock<Instant>,
    published: Mutex<Published>,
}

struct Published {
    epoch: Option<u64>,
    /// The number of the first event in `ids`.
    first: u64,
    ids: VecDeque<u64>,
}

impl Track {
    /// Remembers the ids of the newest `remembered` events, in memory that is allocated now.
    pub(crate) fn new(name: impl Into<String>, longest: usize, remembered: usize) -> Self {
        Self {
            name: name.into(),
            longest,
            single: false,
            has_state: false,
            closed: OnceLock::new(),
            published: Mutex::new(Published {
                epoch: None,
                first: 0,
                ids: VecDeque::with_capacity(remembered),
            }),
        }
    }

    pub(crate) fn single(mut self) -> Self {
        self.single = true;
        self
    }

    pub(crate) fn with_state(mut self) -> Self {
        self.has_state = true;
        self
    }

    /// Publishes the next event, under the lock: a client that has seen the event must find it
    /// here.
    pub(crate) fn publish(&self, publish: impl FnOnce(&Note) -> EventId) {
        let mut published = self.lock();
        let number = published.first + published.ids.len() as u64;
        let mut note = Note::new(&self.name, number, self.longest);
        note.value = self.has_state.then(|| state::value(number));
        let id = publish(&note);
        published.epoch = Some(id.epoch());
        if published.ids.len() == published.ids.capacity() {
            published.ids.pop_front();
            published.first += 1;
        }
        published.ids.push_back(id.sequence());
    }

    /// The number of events so far.
    pub(crate) fn end(&self) -> u64 {
        let published = self.lock();
        published.first + published.ids.len() as u64
    }

    /// The id of the event that is `back` before the newest.
    pub(crate) fn recent(&self, back: usize) -> Option<EventId> {
        let published = self.lock();
        let at = published.ids.len().checked_sub(1 + back)?;
        Some(EventId::new(published.epoch?, published.ids[at]))
    }

    /// The number of the first event after that id; `None` if the id is too old to be remembered.
    pub(crate) fn after(&self, id: EventId) -> Option<u64> {
        let published = self.lock();
        if published.epoch.is_some_and(|epoch| epoch != id.epoch()) {
            return None;
        }
        let at = published.ids.partition_point(|lo| *lo <= id.sequence());
        (at > 0 || published.first == 0).then(|| published.first + at as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
