//! Gap events: whether they are due, and whether they say exactly what is missing.

use axum_sse::EventId;
use serde::Deserialize;

use super::{Came, Transcript};
use crate::id::Id;

/// The data of a gap event. One on a connection over several channels names them: one by one, or
/// all that have the same reason.
#[derive(Deserialize)]
struct Gap {
    reason: String,
    missed: Option<u64>,
    oldest: Option<String>,
    channel: Option<String>,
    channels: Option<Vec<String>>,
}

/// What one gap event says of several channels, as far as it has shown to be so.
pub(super) struct Sum {
    missed: u64,
    seen: u64,
    open: usize,
}

impl Transcript {
    pub(super) fn gap(&mut self, id: Option<Id>, data: &str) -> Result<(), String> {
        let gap: Gap = serde_json::from_str(data).map_err(|error| format!("{error}: {data:?}"))?;
        if id.is_some() {
            return Err(format!("a gap with an id: {data} (rule 89)"));
        }
        let Ok(oldest) = gap.oldest.as_ref().map(|id| id.parse()).transpose() else {
            return Err(format!("the oldest is no id: {data}"));
        };
        let names = match (&gap.channel, &gap.channels) {
            (Some(name), None) => vec![name.clone()],
            (None, Some(names)) => names.clone(),
            _ if self.places.len() == 1 => vec![self.places[0].track.name.clone()],
            _ => Vec::new(),
        };
        let mut among = Vec::new();
        for name in &names {
            let mut places = self.places.iter();
            match places.position(|place| place.track.name == *name) {
                Some(at) if !among.contains(&at) => among.push(at),
                _ => return Err(format!("channel {name}, which is not its own: {data}")),
            }
        }
        if among.is_empty() {
            return Err(format!("a gap of no channel: {data}"));
        }
        for at in &among {
            if !self.is_due(*at, &gap.reason) {
                return Err(format!(
                    "channel {}: not the reason that its id gives: {data}",
                    self.places[*at].track.name
                ));
            }
        }
        self.gaps.push(gap.reason.clone());
        match among[..] {
            [only] => self.gap_of_one(only, &gap, oldest),
            _ => {
                self.gap_of_several(&among, &gap, oldest);
                Ok(())
            }
        }
    }

    fn is_due(&self, at: usize, reason: &str) -> bool {
        let place = &self.places[at];
        let is_gone = place.track.closed.get().is_some();
        match (self.came, place.told) {
            (Came::Stranger(due), false) => reason == due,
            // It gets the state, and nothing of that is missing.
            (Came::Back(_) | Came::Borrowed(_), false) if place.is_owed => reason == "lagged",
            (Came::Back(_) | Came::Borrowed(_), false) => {
                // A channel that has been closed may have been forgotten, too (law 7).
                ["evicted", "lagged"].contains(&reason) || (is_gone && reason == "unknown")
            }
            (Came::Oldest, false) => ["truncated", "lagged"].contains(&reason),
            (Came::Fresh | Came::Run, false) | (_, true) => reason == "lagged",
        }
    }

    /// Returns where the channel was.
    fn tell(&mut self, at: usize) -> Option<u64> {
        let place = &mut self.places[at];
        place.told = true;
        place.is_sure = false;
        place.sum = None;
        place.least = None;
        if place.track.has_state {
            // The state comes next, whatever is missing.
            place.is_owed = true;
        }
        place.next.take()
    }

    fn gap_of_one(&mut self, at: usize, gap: &Gap, oldest: Option<EventId>) -> Result<(), String> {
        let before = self.tell(at);
        let is_alone = self.places.len() == 1;
        let place = &mut self.places[at];
        if place.track.has_state {
            self.promised = oldest.filter(|_| is_alone);
            return Ok(());
        }
        place.next = oldest.and_then(|id| place.track.after(just_before(id)));
        let Gap { reason, missed, .. } = gap;
        let wrong = |what: String| {
            let name = &place.track.name;
            Err(format!(
                "channel {name}: {what}: {reason}, {missed:?} missed, from {oldest:?}"
            ))
        };
        let is_counted = ["lagged", "truncated"].contains(&reason.as_str())
            || (reason == "evicted" && place.track.single);
        if is_counted && missed.is_none() {
            return wrong("it does not say how much is missing".to_owned());
        }
        if let (Some(before), Some(next)) = (before, place.next)
            && ["evicted", "lagged", "truncated"].contains(&reason.as_str())
        {
            if next <= before {
                return wrong(format!("nothing is missing up to number {before}"));
            }
            if missed.is_some_and(|missed| missed != next - before) {
                return wrong(format!("numbers {before} to {} are missing", next - 1));
            }
        }
        Ok(())
    }

    /// The oldest id is that of one of them, and the number is their sum: what each misses shows
    /// with its next event.
    fn gap_of_several(&mut self, among: &[usize], gap: &Gap, oldest: Option<EventId>) {
        let before: Vec<_> = among.iter().map(|at| self.tell(*at)).collect();
        for at in among {
            let place = &mut self.places[*at];
            place.least = oldest.and_then(|id| place.track.after(just_before(id)));
        }
        let is_counted = |(at, before): (&usize, &Option<u64>)| {
            before.is_some() && !self.places[*at].track.has_state
        };
        if let Some(missed) = gap.missed
            && among.iter().zip(&before).all(is_counted)
        {
            let sum = self.sums.len();
            self.sums.push(Sum {
                missed,
                seen: 0,
                open: among.len(),
            });
            for (at, before) in among.iter().zip(before) {
                self.places[*at].sum = before.map(|before| (sum, before));
            }
        }
    }

    /// A channel goes on with this number, after a gap or at a place that was not known.
    pub(super) fn goes_on(&mut self, at: usize, number: u64) -> Result<(), String> {
        let place = &mut self.places[at];
        let track = place.track.clone();
        let name = &track.name;
        if let Some(least) = place.least.take() {
            // What is retained follows, and that is at least so much.
            let most = track.end().saturating_sub(track.keeps);
            if number < least || number > most.max(least) {
                return Err(format!(
                    "channel {name}: it goes on with number {number}, and not one of {least} to {most}"
                ));
            }
        }
        place.next = Some(number);
        place.stands();
        let Some((sum, before)) = place.sum.take() else {
            return Ok(());
        };
        let Some(missed) = number.checked_sub(before) else {
            return Err(format!(
                "channel {name}: it goes on with number {number}, and was at {before} before"
            ));
        };
        let sum = &mut self.sums[sum];
        sum.seen += missed;
        sum.open -= 1;
        if sum.seen > sum.missed || (sum.open == 0 && sum.seen != sum.missed) {
            return Err(format!(
                "channel {name}: {} events are missing with it, and the gap said {}",
                sum.seen, sum.missed
            ));
        }
        Ok(())
    }
}

fn just_before(id: EventId) -> EventId {
    EventId::new(id.hi(), id.lo().saturating_sub(1))
}
