//! [`Ledger`]: what was published, and the check that every connection receives each event of its
//! channels exactly once, and that all connections receive them in the same order.
//!
//! Events are published over several connections at once, so the server decides their order. The
//! first connection to receive a channel's next event fixes that order, and all others must match
//! it. Events published to a channel over one connection must keep their order.

use std::time::Instant;

use hdrhistogram::Histogram;

use crate::Result;

#[derive(Debug)]
pub(crate) struct Ledger {
    epoch: Instant,
    groups: usize,
    /// Indexed by event number.
    events: Vec<Published>,
    /// Event numbers by channel, in the order in which connections receive them.
    order: Vec<Vec<u32>>,
    /// By channel and publishing connection: the newest event that any connection received. The
    /// order between two channels is not guaranteed, so it is not checked.
    newest: Vec<Vec<Option<u32>>>,
    /// Connections by group.
    pub(crate) members: Vec<u32>,
    /// In nanoseconds, with two significant digits.
    pub(crate) latency: Histogram<u64>,
    pub(crate) delivered: u64,
    /// Events that all their connections have received.
    pub(crate) complete: u32,
    /// The server keeps no events, so a client that reconnects may miss some.
    pub(crate) lossy: bool,
    pub(crate) lost: u64,
}

#[derive(Debug)]
struct Published {
    sent: u64,
    size: usize,
    publisher: usize,
    id: Option<Box<str>>,
    position: Option<u32>,
    /// Connections that received it.
    received: u32,
}

/// The progress of one connection: by channel of its group, the next index in [`Ledger::order`].
#[derive(Debug)]
pub(crate) struct Progress {
    group: usize,
    next: Box<[u32]>,
}

impl Ledger {
    pub(crate) fn new(channels: usize, groups: usize, publishers: usize) -> Result<Self> {
        Ok(Self {
            epoch: Instant::now(),
            groups,
            events: Vec::new(),
            order: vec![Vec::new(); channels],
            newest: vec![vec![None; publishers]; channels],
            members: vec![0; groups],
            latency: Histogram::new(2)?,
            delivered: 0,
            complete: 0,
            lossy: false,
            lost: 0,
        })
    }

    /// Nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    pub(crate) fn published(&self) -> u32 {
        self.events.len() as u32
    }

    pub(crate) fn channel_of(&self, n: u32) -> usize {
        n as usize % self.order.len()
    }

    pub(crate) fn publish(&mut self, size: usize, publisher: usize) {
        self.events.push(Published {
            sent: self.now(),
            size,
            publisher,
            id: None,
            position: None,
            received: 0,
        });
    }

    pub(crate) fn accepted(&mut self, n: u32, id: &str) {
        self.events[n as usize].id = Some(id.into());
        if self.members[self.channel_of(n) % self.groups] == 0 {
            // No connection reads this channel, so there is nothing to wait for.
            self.complete += 1;
        }
    }

    /// The progress of a connection that has received everything delivered so far.
    pub(crate) fn progress(&self, group: usize) -> Progress {
        let channels = self.order.iter().skip(group).step_by(self.groups);
        Progress {
            group,
            next: channels.map(|order| order.len() as u32).collect(),
        }
    }

    /// The id of the last event that a connection with this progress received.
    pub(crate) fn last_id(&self, progress: &Progress) -> Option<&str> {
        let last = progress.next.first()?.checked_sub(1)?;
        let n = *self.order[progress.group].get(last as usize)?;
        self.events[n as usize].id.as_deref()
    }

    /// Stops waiting for the events published so far.
    pub(crate) fn forget(&mut self) {
        self.complete = self.published();
    }

    /// Forgets all deliveries. For clients that reconnect with the id of event `n` and receive
    /// everything published after it, in order.
    pub(crate) fn rewind(&mut self, n: u32) {
        self.complete = n + 1;
        for (event, at) in self.events.iter_mut().zip(0..) {
            event.received = 0;
            event.position = (at <= n).then_some(at);
        }
        self.newest[0].fill(None);
        self.order[0].clear();
        self.order[0].extend(0..=n);
    }

    /// Records that a connection received event `n` at the time `now`.
    pub(crate) fn note(
        &mut self,
        progress: &mut Progress,
        n: u32,
        size: usize,
        now: u64,
    ) -> Result<()> {
        let channel = n as usize % self.order.len();
        let Some(event) = self.events.get_mut(n as usize) else {
            return Err(format!("event {n} was never published").into());
        };
        if channel % self.groups != progress.group || size != event.size {
            return Err(format!("event {n} differs from what was published").into());
        }
        let next = &mut progress.next[channel / self.groups];
        let order = &mut self.order[channel];
        if event.position.is_none() {
            let newest = &mut self.newest[channel][event.publisher];
            if newest.is_some_and(|newest| newest > n) {
                return Err(format!("event {n} is out of order").into());
            }
            *newest = Some(n);
            event.position = Some(order.len() as u32);
            order.push(n);
        }
        match event.position {
            Some(position) if position == *next => {}
            Some(position) if position > *next && self.lossy => {
                self.lost += u64::from(position - *next);
                *next = position;
            }
            position => {
                let next = *next;
                return Err(format!("event {n} at {position:?} instead of {next}").into());
            }
        }
        *next += 1;
        event.received += 1;
        self.delivered += 1;
        if event.received == self.members[progress.group] {
            self.complete += 1;
        }
        self.latency.record(now.saturating_sub(event.sent))?;
        Ok(())
    }

    /// Whether every connection has received the last event of each of its channels.
    pub(crate) fn is_done(&self) -> bool {
        if !self.lossy {
            return self.complete == self.published();
        }
        let last = |order: &Vec<u32>| order.last().copied();
        self.order.iter().enumerate().all(|(channel, order)| {
            last(order).is_none_or(|n| {
                let event = &self.events[n as usize];
                event.received == self.members[channel % self.groups]
                    && n as usize + self.order.len() >= self.events.len()
            })
        })
    }
}
