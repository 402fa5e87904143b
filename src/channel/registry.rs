//! [`Registry`]: the named channels of a hub, created on first use, retired when idle, and bounded
//! in number.
//!
//! Lookup and retirement take the same lock, so a name never has two logs, and a channel in use is
//! never retired (law 7). All that remains of retired channels is the watermark: the newest id
//! that any of them had.

use std::{
    any::TypeId,
    collections::{HashMap, VecDeque},
    time::Duration,
};

use slab::Slab;
use tokio::time::Instant;

use crate::{
    channel::{
        shared::Shared,
        state::{ChannelHandle, ChannelState},
    },
    error::{Error, ErrorKind},
    event::{EventId, id::quoted},
    sync::{Arc, Mutex, lock},
};

/// The longest name of a channel, in bytes.
const MAX_NAME: usize = 1024;

/// How many idle channels are visited under one lock.
const IDLE_BATCH: usize = 64;

/// How many channels one sweep visits.
const SWEEP_BATCH: usize = 256;

/// How many channels are returned at a time for their figures.
const TALLY_BATCH: usize = 512;

#[derive(Debug)]
pub(crate) struct Registry {
    /// `None` for a stand-alone channel, which is never looked up or retired.
    bounds: Option<Bounds>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) channels: usize,
    /// An idle channel is retired after this time.
    pub(crate) idle: Duration,
    /// A closed channel is kept for this time after it was closed.
    pub(crate) closed: Duration,
}

/// What the handles of a channel publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueKind {
    pub(crate) value: TypeId,
    /// Each event is named after its value's variant.
    pub(crate) named: bool,
}

#[derive(Debug)]
struct State {
    names: HashMap<Box<str>, usize>,
    entries: Slab<Entry>,
    /// Keys of idle channels, the longest idle first. A key whose stamp differs from its entry's
    /// is stale.
    idle: VecDeque<(usize, u64)>,
    stamps: u64,
    /// The newest id of any retired channel.
    watermark: EventId,
    /// Where the next sweep continues.
    sweep: usize,
}

#[derive(Debug)]
struct Entry {
    channel: Arc<ChannelState>,
    /// What its handles publish; `None` before the first one.
    published: Option<ValueKind>,
    idle: Option<Idle>,
}

#[derive(Clone, Copy, Debug)]
struct Idle {
    stamp: u64,
    since: Instant,
}

impl Registry {
    pub(crate) fn new(bounds: Option<Bounds>, start: EventId) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                names: HashMap::new(),
                entries: Slab::new(),
                idle: VecDeque::new(),
                stamps: 0,
                watermark: start,
                sweep: 0,
            }),
        }
    }

    /// Adds a stand-alone channel.
    pub(crate) fn insert_single(&self, channel: Arc<ChannelState>) {
        lock(&self.state).entries.insert(Entry {
            channel,
            published: None,
            idle: None,
        });
    }

    /// Whether this is the registry of a stand-alone channel, which has no name.
    pub(crate) fn is_single(&self) -> bool {
        self.bounds.is_none()
    }

    /// The channel of that name, created if there is none. `wanted` is what the caller will
    /// publish, if anything.
    pub(crate) fn look_up(
        &self,
        shared: &Arc<Shared>,
        name: &str,
        wanted: Option<ValueKind>,
    ) -> Result<ChannelHandle, Error> {
        if name.len() > MAX_NAME {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!(
                    "channel name {}: {} bytes, more than {MAX_NAME}",
                    quoted(name),
                    name.len()
                ),
            ));
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        let mut retired = self.retire_expired(&mut state, now);
        let known = state.names.get(name).copied();
        let known = known.filter(|key| {
            let free = self.is_free(&state.entries[*key].channel, now);
            if free {
                retired.push(state.retire(*key));
            }
            !free
        });
        let key = match known {
            Some(key) => key,
            None => {
                let bound = self.bounds.map_or(0, |bounds| bounds.channels);
                if state.entries.len() >= bound {
                    retired.extend(state.retire_longest_idle());
                }
                if state.entries.len() >= bound {
                    drop(state);
                    return Err(Error::new(
                        ErrorKind::TooManyChannels,
                        format!(
                            "no room for channel {}: all {bound} channels are in use",
                            quoted(name)
                        ),
                    ));
                }
                let limits = shared.settings.limits;
                let channel = ChannelState::new(name, limits, state.watermark);
                let key = state.entries.insert(Entry {
                    channel: Arc::new(channel),
                    published: None,
                    idle: None,
                });
                state.names.insert(name.into(), key);
                key
            }
        };
        let entry = &mut state.entries[key];
        let published = entry.published.or(wanted);
        let conflict = wanted.filter(|wanted| Some(*wanted) != published);
        let handle = conflict.is_none().then(|| {
            entry.published = published;
            entry.idle = None;
            ChannelHandle::new(shared.clone(), entry.channel.clone())
        });
        drop(state);
        drop(retired);
        handle.ok_or_else(|| {
            let same_type = published.map(|known| known.value) == wanted.map(|it| it.value);
            let why = match published {
                Some(ValueKind { named: true, .. }) if same_type => {
                    "names its events after their variants: get it with `named_channel`"
                }
                Some(ValueKind { named: false, .. }) if same_type => {
                    "does not name its events after their variants: get it with `channel`"
                }
                _ => "publishes values of another type",
            };
            Error::new(
                ErrorKind::OtherType,
                format!("channel {} {why}", quoted(name)),
            )
        })
    }

    /// Whether the name is free again: its channel was closed long enough ago and has no handle.
    fn is_free(&self, channel: &ChannelState, now: Instant) -> bool {
        let closed = self.bounds.map(|bounds| bounds.closed);
        !channel.is_held() && channel.closed_for(now) >= closed && closed.is_some()
    }

    /// Called when the last handle of `channel` has been dropped. A new one may exist by now.
    pub(crate) fn release(&self, channel: &Arc<ChannelState>) {
        if self.is_single() {
            return;
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        let Some(&key) = state.names.get(channel.name()) else {
            return;
        };
        let stamp = state.stamps + 1;
        let entry = &mut state.entries[key];
        if !Arc::ptr_eq(&entry.channel, channel) || entry.channel.is_held() {
            return;
        }
        if self.is_free(channel, now) {
            let retired = state.retire(key);
            drop(state);
            drop(retired);
            return;
        }
        entry.idle = Some(Idle { stamp, since: now });
        state.stamps = stamp;
        state.idle.push_back((key, stamp));
        state.compact();
        let retired = self.retire_expired(&mut state, now);
        drop(state);
        drop(retired);
    }

    /// Retires channels that have been idle for long enough. The caller drops them after the lock.
    fn retire_expired(&self, state: &mut State, now: Instant) -> Vec<Arc<ChannelState>> {
        let Some(bounds) = self.bounds else {
            return Vec::new();
        };
        let mut retired = Vec::new();
        for _ in 0..IDLE_BATCH {
            let Some(&(key, stamp)) = state.idle.front() else {
                break;
            };
            let Some(since) = state.idle_since(key, stamp) else {
                state.idle.pop_front();
                continue;
            };
            let idle = now.saturating_duration_since(since);
            if idle < bounds.idle {
                break;
            }
            state.idle.pop_front();
            let channel = &state.entries[key].channel;
            if channel.is_closed() && !self.is_free(channel, now) {
                // It stays longer, and must not delay those after it.
                state.idle.push_back((key, stamp));
            } else {
                retired.push(state.retire(key));
            }
        }
        retired
    }

    /// Visits a few channels, evicts events that are too old, and retires idle channels. Returns
    /// the channels whose readers should be looked at.
    pub(crate) fn sweep(&self, now: u64) -> Vec<Arc<ChannelState>> {
        let instant = Instant::now();
        let mut state = lock(&self.state);
        let retired = self.retire_expired(&mut state, instant);
        let mut channels = Vec::new();
        let capacity = state.entries.capacity();
        for _ in 0..SWEEP_BATCH.min(capacity) {
            state.sweep = (state.sweep + 1) % capacity;
            let entry = state.entries.get(state.sweep);
            channels.extend(entry.map(|entry| entry.channel.clone()));
        }
        drop(state);
        drop(retired);
        channels.retain(|channel| channel.sweep(now));
        channels
    }

    /// A bounded number of channels, starting at key `from`, and the key to continue with.
    pub(crate) fn some_channels(&self, from: usize) -> (Vec<Arc<ChannelState>>, Option<usize>) {
        let state = lock(&self.state);
        let entries = &state.entries;
        let end = entries.capacity().min(from.saturating_add(TALLY_BATCH));
        let channels = (from..end).filter_map(|key| Some(entries.get(key)?.channel.clone()));
        (
            channels.collect(),
            (end < entries.capacity()).then_some(end),
        )
    }

    #[cfg(test)]
    pub(crate) fn channels(&self) -> Vec<Arc<ChannelState>> {
        let state = lock(&self.state);
        let entries = state.entries.iter();
        entries.map(|(_, entry)| entry.channel.clone()).collect()
    }
}

impl State {
    fn idle_since(&self, key: usize, stamp: u64) -> Option<Instant> {
        let entry = self.entries.get(key)?;
        // Set when the last handle is dropped, and reset by the next lookup.
        let idle = entry.idle.filter(|idle| idle.stamp == stamp)?;
        Some(idle.since)
    }

    /// Open channels first: clients that come back to a closed channel should learn that it is
    /// closed.
    fn retire_longest_idle(&mut self) -> Option<Arc<ChannelState>> {
        let mut closed = Vec::new();
        let mut open = None;
        while closed.len() < IDLE_BATCH
            && let Some((key, stamp)) = self.idle.pop_front()
        {
            if self.idle_since(key, stamp).is_none() {
                continue;
            }
            if !self.entries[key].channel.is_closed() {
                open = Some(key);
                break;
            }
            closed.push((key, stamp));
        }
        let key = open.or_else(|| (!closed.is_empty()).then(|| closed.remove(0).0));
        for entry in closed.into_iter().rev() {
            self.idle.push_front(entry);
        }
        key.map(|key| self.retire(key))
    }

    fn retire(&mut self, key: usize) -> Arc<ChannelState> {
        let entry = self.entries.remove(key);
        self.names.remove(entry.channel.name());
        let newest = entry.channel.lock().newest();
        self.watermark = self.watermark.max(newest);
        entry.channel
    }

    /// Removes stale keys, which pile up if a channel is looked up and released over and over.
    fn compact(&mut self) {
        if self.idle.len() > 2 * self.entries.len() + IDLE_BATCH {
            let entries = &self.entries;
            self.idle.retain(|(key, stamp)| {
                entries
                    .get(*key)
                    .and_then(|entry| entry.idle)
                    .is_some_and(|idle| idle.stamp == *stamp)
            });
        }
    }
}
