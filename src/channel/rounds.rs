//! [`Rounds`]: the order in which the wake task serves its channels.
//!
//! A *round* wakes the readers of one channel. All rounds under way share each slice of wake-ups,
//! and a channel with news joins them at once. So a channel with few readers waits for a few
//! slices at most, however many readers the others have.
//!
//! Only the task uses this. If its runtime dies, rounds are lost, but the guard wakes all readers
//! anyway.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    channel::{
        state::{ChannelState, Progress, Round},
        wake::{SLICE, Wake},
    },
    sync::{Arc, Weak, lock},
};

/// How many readers of one channel are woken before the next channel's turn.
const QUANTUM: usize = if SLICE < 4 { 1 } else { SLICE / 4 };

/// How many channels are visited in one slice.
const VISITS: usize = 64;

/// How many channels are taken from the queue at a time.
const QUEUE_BATCH: usize = 1024;

/// Empty collections above this capacity are shrunk.
const MAX_SPARE: usize = 1024;

#[derive(Debug)]
pub(super) struct Rounds {
    coalesce: Duration,
    /// Channels whose round has yet to begin. They alternate with the rounds under way, and go
    /// first, because most rounds are done in one step.
    fresh: VecDeque<Arc<ChannelState>>,
    /// Rounds under way.
    line: VecDeque<(Arc<ChannelState>, Round)>,
    /// The channels that are in the line or resting, by address. The address is not reused
    /// meanwhile, because `fresh`, `line` or `resting` refers to it.
    known: HashMap<usize, Known>,
    /// Channels whose last round began less than `coalesce` ago, the earliest first.
    resting: VecDeque<(Instant, Weak<ChannelState>)>,
    /// Channels to look at after the next tick.
    unsettled: HashMap<usize, Arc<ChannelState>>,
    /// Channels to look at now.
    looks: hash_map::IntoValues<usize, Arc<ChannelState>>,
    /// The wake queue holds more channels than were taken.
    more: bool,
}

#[derive(Debug, Default)]
struct Known {
    in_line: bool,
    rests: bool,
    /// Set if there has been news since the last round began.
    news: Option<Arc<ChannelState>>,
}

fn key(channel: &Arc<ChannelState>) -> usize {
    Arc::as_ptr(channel).addr()
}

impl Rounds {
    pub(super) fn new(coalesce: Duration) -> Self {
        Self {
            coalesce,
            fresh: VecDeque::new(),
            line: VecDeque::new(),
            known: HashMap::new(),
            resting: VecDeque::new(),
            unsettled: HashMap::new(),
            looks: HashMap::new().into_values(),
            more: false,
        }
    }

    /// Whether anything can be done now.
    pub(super) fn has_work(&self) -> bool {
        self.has_rounds() || self.looks.len() > 0
    }

    /// Whether any round has readers to wake.
    pub(super) fn has_rounds(&self) -> bool {
        self.more || !self.fresh.is_empty() || !self.line.is_empty()
    }

    /// When the next channel has rested long enough.
    pub(super) fn next_rested(&self) -> Option<Instant> {
        self.resting.front().map(|(until, _)| *until)
    }

    /// Takes channels with news from the queue.
    pub(super) fn take_news(&mut self, wake: &Wake) {
        let mut queue = lock(&wake.queue);
        let taken = queue.len().min(QUEUE_BATCH);
        let channels: Vec<_> = queue.drain(..taken).collect();
        self.more = !queue.is_empty();
        if !self.more && queue.capacity() > MAX_SPARE {
            queue.shrink_to_fit();
        }
        drop(queue);
        for channel in channels {
            // Before any waker is taken, whenever the round begins.
            channel.dequeued();
            match self.known.entry(key(&channel)) {
                hash_map::Entry::Occupied(mut known) => known.get_mut().news = Some(channel),
                hash_map::Entry::Vacant(known) => {
                    known.insert(Known::default());
                    self.begin(channel);
                }
            }
        }
    }

    /// Lets channels that have rested begin their next round.
    pub(super) fn wake_rested(&mut self, now: Instant) {
        while self.resting.front().is_some_and(|(until, _)| *until <= now)
            && let Some((_, channel)) = self.resting.pop_front()
        {
            let key = channel.as_ptr().addr();
            if let Some(known) = self.known.get_mut(&key) {
                known.rests = false;
                self.settle(key);
            }
        }
    }

    /// Schedules a look at the channel after the next tick.
    pub(super) fn look_later(&mut self, channel: Arc<ChannelState>) {
        self.unsettled.insert(key(&channel), channel);
    }

    /// Called on each tick: the scheduled looks are due.
    pub(super) fn look_now(&mut self) {
        if self.looks.len() == 0 {
            self.looks = std::mem::take(&mut self.unsettled).into_values();
        }
    }

    /// Collects the next wakers: those of the rounds, then those of `beats`, whose heartbeat is
    /// due. If there are enough of both, each gets half of the slice.
    pub(super) fn next_slice(
        &mut self,
        now: u64,
        beats: &mut VecDeque<Waker>,
        wakers: &mut Vec<Waker>,
    ) {
        let news = SLICE - beats.len().min(SLICE / 2);
        let mut visits = VISITS;
        while wakers.len() < news && visits > 0 {
            let next = match visits.is_multiple_of(2) {
                true => self.begin_next().or_else(|| self.line.pop_front()),
                false => self.line.pop_front().or_else(|| self.begin_next()),
            };
            let Some((channel, round)) = next else { break };
            visits -= 1;
            let most = QUANTUM.min(news - wakers.len());
            self.advance(channel, round, most, now, wakers);
        }
        while visits > 0
            && let Some(channel) = self.looks.next()
        {
            visits -= 1;
            let known = self.known.get(&key(&channel));
            if channel.readers() > 0 && !known.is_some_and(|known| known.in_line) {
                let round = channel.begin_look();
                self.advance(channel, round, usize::MAX, now, wakers);
            }
        }
        let rest = SLICE.saturating_sub(wakers.len()).min(beats.len());
        wakers.extend(beats.drain(..rest));
        if beats.is_empty() && beats.capacity() > MAX_SPARE {
            beats.shrink_to_fit();
        }
    }

    fn begin_next(&mut self) -> Option<(Arc<ChannelState>, Round)> {
        let channel = self.fresh.pop_front()?;
        let round = channel.begin_round();
        Some((channel, round))
    }

    fn advance(
        &mut self,
        channel: Arc<ChannelState>,
        mut round: Round,
        most: usize,
        now: u64,
        wakers: &mut Vec<Waker>,
    ) {
        let progress = channel.advance(&mut round, most, now, wakers);
        let key = key(&channel);
        let known = self.known.entry(key).or_default();
        known.in_line = progress == Progress::More;
        match progress {
            Progress::More => self.line.push_back((channel, round)),
            Progress::Unsettled => {
                self.settle(key);
                self.look_later(channel);
            }
            Progress::Settled => self.settle(key),
        }
    }

    /// Begins the next round of a channel with news, unless it is in the line or resting; forgets
    /// a channel without news.
    fn settle(&mut self, key: usize) {
        let Some(known) = self.known.get_mut(&key) else {
            return;
        };
        if known.in_line || known.rests {
            return;
        }
        if let Some(channel) = known.news.take() {
            self.begin(channel);
            return;
        }
        self.known.remove(&key);
        if self.known.is_empty() && self.known.capacity() > MAX_SPARE {
            self.known.shrink_to_fit();
            self.fresh.shrink_to_fit();
            self.line.shrink_to_fit();
            self.resting.shrink_to_fit();
        }
    }

    fn begin(&mut self, channel: Arc<ChannelState>) {
        let rests = !self.coalesce.is_zero();
        let known = self.known.entry(key(&channel)).or_default();
        known.in_line = true;
        known.rests = rests;
        if rests {
            let until = Instant::now() + self.coalesce;
            self.resting.push_back((until, Arc::downgrade(&channel)));
        }
        self.fresh.push_back(channel);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::{Channel, Hub, LastEventId, Subscription};

    async fn read_all(subscription: &mut Subscription) {
        poll_fn(|cx| {
            while let Poll::Ready(chunk) = subscription.poll_chunk(cx) {
                assert!(chunk.is_some());
            }
            Poll::Ready(())
        })
        .await;
    }

    async fn reader(channel: &Channel<u32>) -> Subscription {
        let mut subscription = channel.subscribe(LastEventId::Absent);
        read_all(&mut subscription).await;
        subscription
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_looks_at_those_who_are_there() {
        let channel = Channel::<u32>::new();
        let stays = reader(&channel).await;
        let mut crowd = Vec::new();
        for _ in 0..10_000 {
            crowd.push(reader(&channel).await);
        }
        let rounds = || {
            let channel = &channel.shared().registry.channels()[0];
            let (mut round, mut wakers) = (channel.begin_round(), Vec::new());
            let looks = std::iter::from_fn(|| {
                let progress = channel.advance(&mut round, usize::MAX, 0, &mut wakers);
                (progress == Progress::More).then_some(())
            });
            (looks.count(), wakers.len())
        };
        assert!(rounds().0 >= 10_000 / crate::channel::state::READER_BATCH);
        drop(crowd);
        assert_eq!(rounds().0, 0, "one look");
        drop(stays);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_known_of_channels_that_have_rested() {
        let hub = Hub::builder().coalesce(Duration::from_secs(1)).build();
        let wake = &hub.shared().wake;
        let mut rounds = Rounds::new(Duration::from_secs(1));
        let channels: Vec<_> = (0..10)
            .map(|n| hub.channel(n.to_string()).unwrap())
            .collect();
        let mut readers = Vec::new();
        for channel in &channels {
            readers.push(reader(channel).await);
        }
        let publish = || {
            for channel in &channels {
                channel.publish(&1).unwrap();
            }
        };
        let woken = |rounds: &mut Rounds| {
            rounds.take_news(wake);
            rounds.wake_rested(Instant::now());
            let mut wakers = Vec::new();
            while rounds.has_work() {
                rounds.next_slice(0, &mut VecDeque::new(), &mut wakers);
            }
            wakers.len()
        };
        publish();
        assert_eq!(woken(&mut rounds), 10);
        for reader in &mut readers {
            read_all(reader).await;
        }
        publish();
        assert_eq!(woken(&mut rounds), 0);
        advance(Duration::from_secs(1)).await;
        assert_eq!(woken(&mut rounds), 10);
        assert_eq!((rounds.known.len(), rounds.resting.len()), (10, 10));
        advance(Duration::from_secs(1)).await;
        assert_eq!(woken(&mut rounds), 0);
        assert_eq!((rounds.known.len(), rounds.resting.len()), (0, 0));
    }

    /// The time does not depend on the number of channels. The sweep alone would take one tick per
    /// 256 of them.
    #[tokio::test(start_paused = true)]
    async fn what_a_burst_leaves_goes_with_the_next_ticks() {
        const CHANNELS: usize = 3000;
        let hub = Hub::builder().capacity(1).build();
        let channels: Vec<Channel<u32>> = (0..CHANNELS)
            .map(|n| hub.channel(n.to_string()).unwrap())
            .collect();
        for channel in &channels {
            let mut subscription = channel.subscribe(LastEventId::Absent);
            tokio::spawn(async move {
                while poll_fn(|cx| subscription.poll_chunk(cx)).await.is_some() {}
            });
        }
        sleep(Duration::from_millis(1)).await;
        for channel in &channels {
            for n in 0..10 {
                channel.publish(&n).unwrap();
            }
        }
        let kept = || {
            let channels = hub.shared().registry.channels();
            let kept = channels.iter().filter(|channel| channel.lock().has_floor());
            kept.count()
        };
        assert_eq!(kept(), CHANNELS);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(kept(), 0);
        assert_eq!(hub.stats().lag, 0);
    }

    #[test]
    fn figures_are_summed_up_in_steps() {
        let hub = Hub::new();
        let channels: Vec<Channel<u32>> = (0..2000)
            .map(|n| hub.channel(n.to_string()).unwrap())
            .collect();
        for channel in &channels {
            channel.publish(&1).unwrap();
        }
        let mut tally = crate::channel::shared::Tally::default();
        let mut steps = 1;
        let stats = loop {
            match hub.shared().tally(&mut tally) {
                Some(stats) => break stats,
                None => steps += 1,
            }
        };
        assert!(steps >= 4, "{steps}");
        assert_eq!((stats.channels, stats.events), (2000, 2000));
        assert_eq!(stats, hub.stats());
    }
}
