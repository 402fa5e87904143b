//! A client's plans: with which id it connects, at what pace it reads, and for how long.

use std::{sync::atomic::Ordering, time::Duration};

use axum_sse::EventId;

use super::{Client, Seen};
use crate::{check::Came, id::Id};

/// A separate random generator for each client, so that a seed gives the same clients.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, client: usize) -> Self {
        let mixed = (seed ^ (client as u64 + 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed | 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).rotate_left(32) % bound
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    /// Around `mean`: most are shorter, few much longer.
    pub(super) fn time(&mut self, mean: Duration) -> Duration {
        let share = u32::try_from(self.below(1000)).unwrap() + 1;
        mean.mul_f64(-(f64::from(share) / 1000.0).ln())
    }
}

/// What a client reads; some clients change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Rooms,
    /// A hundred channels of the same hub.
    Wide,
    User,
    StateChannel,
    /// State channels and chats, mostly several.
    Mixed,
    Flood,
    Passing,
    Run,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Fast,
    /// A few hundred bytes at a time, with pauses.
    Slow,
    /// Nothing at first.
    Silent,
}

/// The plan of one connection.
pub(super) struct Plan {
    pub(super) came: Came,
    pub(super) id: Vec<u8>,
    pub(super) pace: Pace,
    /// It is cut after this time or this many bytes, even in the middle of an event.
    pub(super) life: Duration,
    pub(super) bytes: usize,
    /// Whether it closes with a reset.
    pub(super) reset: bool,
    /// Read until a 204, even after the test is over.
    pub(super) to_the_end: bool,
}

impl Client {
    fn fresh(&self) -> Came {
        if self.from_oldest {
            Came::Oldest
        } else {
            Came::Fresh
        }
    }

    /// Reconnects like a browser: with its last id, if it has one.
    pub(super) fn back(&mut self) -> Plan {
        let came = match self.last.parse() {
            _ if self.last.is_empty() => self.fresh(),
            Ok(id) if self.target != Target::Run => Came::Back(id),
            _ => Came::Run,
        };
        Plan {
            came,
            id: self.last.clone().into_bytes(),
            pace: Pace::Fast,
            life: self.random.time(self.life),
            bytes: usize::MAX,
            reset: self.random.chance(50),
            to_the_end: false,
        }
    }

    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = self.back();
        if self.random.chance(25) {
            plan.bytes = self.random.index(4000);
        }
        if self.target == Target::Mixed && self.random.chance(20) {
            // Cut while a snapshot is being made.
            plan.life = self.random.time(Duration::from_millis(200));
        }
        let readers = if self.target == Target::Flood { 40 } else { 90 };
        plan.pace = match self.random.below(100) {
            dice if dice < readers => Pace::Fast,
            dice if dice % 2 == 0 => Pace::Slow,
            _ => Pace::Silent,
        };
        if let Seen::Run(run) = &mut self.seen {
            // Sometimes an id before its last one.
            if self.random.chance(15)
                && let Some(id) = run.back(|ids| self.random.index(ids))
            {
                self.last.clone_from(&id);
                plan.id = id.into_bytes();
            }
            return plan;
        }
        if self.last.is_empty() {
            return plan;
        }
        match self.random.below(100) {
            0..70 => {}
            70..80 => {
                plan.came = self.fresh();
                plan.id = [&b""[..], b"  "][self.random.index(2)].to_vec();
            }
            80..90 => (plan.came, plan.id) = self.garbage(),
            _ => (plan.came, plan.id) = self.borrowed(),
        }
        plan
    }

    fn garbage(&mut self) -> (Came, Vec<u8>) {
        let life = self.last.parse::<Id>().unwrap().at.epoch();
        let id = match self.random.below(10) {
            0 => b"0".to_vec(),
            1 => b"-1".to_vec(),
            2 => b"99999999999999999999999999-99999999999999999999".to_vec(),
            3 => b"../../etc/passwd".to_vec(),
            4 => b"\xC3\xA9\xE2\x80\xA6\xFF".to_vec(),
            5 => vec![b'a'; 2000],
            6 => b"1-1".to_vec(),
            // An id of this epoch that is not drawn yet.
            7 => EventId::new(life, u64::MAX).to_string().into_bytes(),
            8 => format!("{}..", self.last).into_bytes(),
            _ => (0..8)
                .map(|_| b'!' + u8::try_from(self.random.below(90)).unwrap())
                .collect(),
        };
        let known = std::str::from_utf8(&id)
            .ok()
            .and_then(|id| id.parse::<EventId>().ok());
        let reason = match known {
            Some(id) if id.epoch() != life => "restarted",
            _ => "unknown",
        };
        self.figures.garbage.fetch_add(1, Ordering::Relaxed);
        (Came::Stranger(reason), id)
    }

    /// An id that another client received: on another channel of the same hub, or of another hub.
    fn borrowed(&mut self) -> (Came, Vec<u8>) {
        let world = &self.world;
        let back = self.random.index(20);
        let (neighbours, other) = match self.target {
            Target::Rooms | Target::Wide => (&world.rooms[..], &world.flood),
            Target::User => (&world.users[..], &world.flood),
            Target::Mixed => (&world.mixed[..], &world.flood),
            Target::Flood => (&[][..], &world.tally),
            Target::StateChannel | Target::Passing | Target::Run => (&[][..], &world.flood),
        };
        let is_same_hub = !neighbours.is_empty() && self.random.chance(60);
        let track = if is_same_hub {
            &neighbours[self.random.index(neighbours.len())]
        } else {
            other
        };
        let Some(at) = track.recent(back) else {
            return (self.fresh(), Vec::new());
        };
        self.figures.foreign_ids.fetch_add(1, Ordering::Relaxed);
        // Only where such ids exist.
        let is_partial = is_same_hub
            && self.target == Target::Mixed
            && world.has_partial_ids.load(Ordering::Relaxed)
            && self.random.chance(30);
        let id = Id { at, is_partial };
        let came = if is_same_hub {
            Came::Borrowed(id)
        } else {
            Came::Stranger("restarted")
        };
        (came, id.to_string().into_bytes())
    }
}
