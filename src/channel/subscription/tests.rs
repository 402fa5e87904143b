//! Laws 2 to 5 and 7 under random interleavings: publishers; clients that read a little, are cut
//! in the middle of a chunk, and come back with any id; channels that are added, removed, closed,
//! retired and created again; and channels with a state whose snapshots take time.
//!
//! Each event carries its channel and its number in that channel. What a client's parser
//! dispatches must be a contiguous run of each channel, with a gap event exactly where something
//! is missing.

use std::{
    sync::Mutex,
    task::{Context, Waker},
};

use proptest::prelude::*;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

use super::*;
use crate::{
    BoxError, Channel, Hub,
    channel::state::{PATIENCE, Progress},
    testing::{Item, Message, Parser},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Publish {
        channel: usize,
        size: usize,
    },
    Burst {
        channel: usize,
        events: usize,
    },
    Poll {
        client: usize,
        chunks: usize,
    },
    /// Only part of the next chunk arrives, then the connection is cut.
    Cut {
        client: usize,
        part: usize,
    },
    Connect {
        client: usize,
        id: Id,
        channels: u8,
        policy: u8,
    },
    Add {
        client: usize,
        channel: usize,
    },
    Remove {
        client: usize,
        channel: usize,
    },
    /// One round of the wake task over every channel.
    Round,
    Retire {
        fillers: usize,
    },
    Close {
        channel: usize,
    },
    /// Lets this many pending snapshots finish.
    FinishSnapshots {
        snapshots: usize,
    },
}

#[derive(Clone, Debug)]
enum Id {
    Own,
    None,
    /// An id of the hub, this far back in the order of all events.
    Back(u64),
    Future,
    OtherEpoch,
    Garbage,
}

fn op(channels: usize, closing: u32) -> impl Strategy<Value = Op> {
    let channel = 0..channels;
    let client = 0..2usize;
    prop_oneof![
        20 => (channel.clone(), prop_oneof![4 => 0usize..60, 1 => 3000usize..5000])
            .prop_map(|(channel, size)| Op::Publish { channel, size }),
        4 => (channel.clone(), 2usize..12)
            .prop_map(|(channel, events)| Op::Burst { channel, events }),
        20 => (client.clone(), 1usize..4).prop_map(|(client, chunks)| Op::Poll { client, chunks }),
        4 => (client.clone(), 0usize..400).prop_map(|(client, part)| Op::Cut { client, part }),
        10 => (client.clone(), id(), 1u8..8, 0u8..4).prop_map(|(client, id, channels, policy)| {
            Op::Connect { client, id, channels, policy }
        }),
        2 => (client.clone(), channel.clone()).prop_map(|(client, channel)| Op::Add { client, channel }),
        2 => (client, channel.clone()).prop_map(|(client, channel)| Op::Remove { client, channel }),
        12 => prop_oneof![
            Just(Op::Round),
            (1usize..4).prop_map(|snapshots| Op::FinishSnapshots { snapshots }),
        ],
        1 => (0usize..6).prop_map(|fillers| Op::Retire { fillers }),
        closing => channel.prop_map(|channel| Op::Close { channel }),
    ]
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        10 => Just(Id::Own),
        1 => Just(Id::None),
        3 => (0u64..30).prop_map(Id::Back),
        1 => Just(Id::Future),
        1 => Just(Id::OtherEpoch),
        1 => Just(Id::Garbage),
    ]
}

/// What a client must see next of a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// The event with this count, or a gap.
    Exactly(u64),
    /// A gap before anything else.
    Gap,
    /// A snapshot.
    State,
}

impl Expect {
    fn count(self) -> u64 {
        match self {
            Self::Exactly(count) => count,
            Self::Gap | Self::State => 0,
        }
    }
}

#[derive(Default)]
struct Client {
    subscription: Option<Subscription>,
    parser: Parser,
    last_event_id: String,
    /// By channel; `None` if not subscribed.
    expect: [Option<Expect>; 3],
    /// A gap was reported that the client's id does not cover yet.
    gap_without_id: [bool; 3],
    /// Its id was made up, not received.
    fabricated: bool,
    newest_id: Option<EventId>,
    handle: Option<SubscriptionHandle>,
    ended: bool,
    many: bool,
    policy: u8,
    /// What had been published when the current chunk was made: several chunks are made at once
    /// and then wait.
    made_at: [u64; 3],
}

struct World {
    hub: Hub,
    single: Option<Channel<(usize, u64, String)>>,
    /// Every event ever published: id, channel, count.
    all: Vec<(EventId, usize, u64)>,
    published: [u64; 3],
    closed: [bool; 3],
    clients: [Client; 2],
    /// The wake task's time.
    now: u64,
    /// Of the channels with a state: its id, and how many events it contains.
    states: [Option<Arc<Mutex<State>>>; 3],
    /// One permit for each snapshot that may finish.
    permits: Arc<Semaphore>,
    runtime: Runtime,
}

type State = (EventId, u64);

impl World {
    fn publish(&mut self, channel: usize, size: usize) {
        let count = self.published[channel];
        let value = (channel, count, "x".repeat(size));
        let published = match &self.single {
            Some(single) => single.publish(&value),
            None => self
                .hub
                .channel::<(usize, u64, String)>(NAMES[channel])
                .and_then(|handle| handle.publish(&value)),
        };
        match published {
            Ok(published) => {
                let id = published.id().unwrap();
                assert!(self.all.last().is_none_or(|(last, ..)| *last < id), "law 1");
                self.all.push((id, channel, count));
                self.published[channel] += 1;
                self.closed[channel] = false;
                if let Some(state) = &self.states[channel] {
                    *state.lock().unwrap() = (id, count + 1);
                }
            }
            Err(error) => match error.kind() {
                crate::ErrorKind::Closed => assert!(self.closed[channel]),
                crate::ErrorKind::TooLarge | crate::ErrorKind::TooManyChannels => {}
                other => panic!("{other:?}: {error}"),
            },
        }
    }

    fn shared(&self) -> &Shared {
        match &self.single {
            Some(single) => single.shared(),
            None => self.hub.shared(),
        }
    }

    /// How many events of a channel have ids up to `id`.
    fn up_to(&self, channel: usize, id: EventId) -> u64 {
        let of_channel = self.all.iter().filter(|(_, of, _)| *of == channel);
        of_channel.filter(|(other, ..)| *other <= id).count() as u64
    }

    /// Runs the tasks that make snapshots.
    fn finish_snapshots(&mut self, snapshots: usize) {
        self.permits.add_permits(snapshots);
        self.runtime.block_on(async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        });
    }

    fn connect(&mut self, client: usize, id: Id, channels: u8, policy: u8) {
        let newest = self.shared().clock.newest();
        let own = self.clients[client].last_event_id.clone();
        let text = match id {
            Id::Own => own,
            Id::None => String::new(),
            Id::Back(back) => match self.all.iter().rev().nth(usize::try_from(back).unwrap()) {
                Some((id, ..)) => id.to_string(),
                None => self.shared().clock.start().to_string(),
            },
            Id::Future => EventId::new(newest.epoch(), newest.sequence() + 1 + u64::from(channels))
                .to_string(),
            Id::OtherEpoch => EventId::new(newest.epoch() ^ 1, 1).to_string(),
            Id::Garbage => "not-an-id!".to_owned(),
        };
        let last: LastEventId = match text.as_str() {
            "" => LastEventId::Absent,
            text => text.parse().map_or_else(
                |_| crate::LastEventId::unknown_for_tests(text),
                LastEventId::Known,
            ),
        };
        let old = &self.clients[client];
        let subscribed: Vec<usize> = match (&self.single, &id) {
            (Some(_), _) => vec![0],
            // The same channels, as a browser would request again; otherwise any.
            (None, Id::Own) if !own_set(old).is_empty() => own_set(old),
            (None, _) => (0..3).filter(|at| channels & (1 << at) != 0).collect(),
        };
        let mut expect = [None; 3];
        for &channel in &subscribed {
            let has_state = self.states[channel].is_some();
            expect[channel] = Some(match &last {
                LastEventId::Absent if has_state => Expect::State,
                LastEventId::Absent => Expect::Exactly(self.published[channel]),
                LastEventId::Known(id) if has_state && id.is_partial() => Expect::State,
                LastEventId::Known(id) if id.epoch() == newest.epoch() && id.whole() <= newest => {
                    Expect::Exactly(self.up_to(channel, *id))
                }
                _ => Expect::Gap,
            });
        }
        // Law 4: a client that reconnects with its own id expects what it expected before, and
        // what the id says must match.
        if let (Id::Own, LastEventId::Known(_)) = (&id, &last) {
            for &channel in &subscribed {
                if let Some(before) = old.expect[channel]
                    && !old.fabricated
                    && let Expect::Exactly(_) | Expect::State = before
                    && expect[channel] != Some(Expect::Gap)
                {
                    // A gap is reported again if the client was cut off before the next id.
                    let resumed = expect[channel].unwrap();
                    let again = old.gap_without_id[channel]
                        && (resumed.count() < before.count() || before == Expect::State);
                    // Only a state may come twice.
                    let again = again || resumed == Expect::State;
                    assert!(
                        again || resumed == before,
                        "law 4: {resumed:?}, not {before:?}"
                    );
                }
            }
        }
        let fabricated = match id {
            Id::Own => old.fabricated,
            Id::None | Id::Back(_) => false,
            Id::Future | Id::OtherEpoch | Id::Garbage => true,
        };
        // The old connection may end before or after the new one begins.
        self.clients[client].subscription = None;
        let subscription = match &self.single {
            Some(single) => single.subscribe(last.clone()),
            None => self
                .hub
                .subscribe(subscribed.iter().map(|at| NAMES[*at]), last.clone()),
        };
        let mut subscription = match policy {
            0 => subscription.on_gap(OnGap::Live),
            1 => subscription.on_gap(OnGap::Replay),
            2 => subscription.on_lag(OnLag::End),
            _ => subscription,
        };
        match subscription.resumption() {
            Resumption::Fresh => {}
            Resumption::Exact { pending } => {
                let pending_of = |channel: &usize| match expect[*channel] {
                    Some(Expect::Exactly(count)) => self.published[*channel] - count,
                    Some(Expect::State) => 0,
                    other => panic!("exact, but {other:?} of {channel}"),
                };
                assert_eq!(pending, subscribed.iter().map(pending_of).sum::<u64>());
            }
            Resumption::Gap { .. } => {}
        }
        if subscription.is_over() {
            for &channel in &subscribed {
                assert!(self.closed[channel]);
                assert_eq!(
                    expect[channel],
                    Some(Expect::Exactly(self.published[channel]))
                );
            }
        }
        let handle = (policy == 3 && self.single.is_none()).then(|| subscription.handle());
        let many = subscription.many;
        self.clients[client] = Client {
            subscription: Some(subscription),
            parser: Parser::new(),
            last_event_id: if last.is_absent() {
                String::new()
            } else {
                text
            },
            expect,
            gap_without_id: [false; 3],
            fabricated,
            newest_id: None,
            handle,
            ended: false,
            many,
            policy,
            made_at: self.published,
        };
    }

    /// Gives the client its next chunk, or the first `part` bytes of it.
    fn poll(&mut self, at: usize, part: Option<usize>) -> bool {
        let Some(mut subscription) = self.clients[at].subscription.take() else {
            return false;
        };
        if subscription.ready.is_empty() {
            self.clients[at].made_at = self.published;
        }
        let polled = subscription.poll_chunk(&mut Context::from_waker(Waker::noop()));
        let chunk = match polled {
            Poll::Pending => {
                self.clients[at].subscription = Some(subscription);
                return false;
            }
            Poll::Ready(None) => {
                self.clients[at].ended = true;
                return false;
            }
            Poll::Ready(Some(chunk)) => chunk,
        };
        assert!(chunk.ends_with(b"\n"), "law 9: whole lines");
        let arrived = part.map_or(chunk.len(), |part| part.min(chunk.len()));
        let items = self.clients[at].parser.push(&chunk[..arrived]);
        for item in items {
            if let Item::Message(message) = item {
                self.check(at, &message);
            }
        }
        let client = &mut self.clients[at];
        if !client.parser.last_event_id().is_empty() {
            client.last_event_id = client.parser.last_event_id().to_owned();
            client.fabricated = false;
        }
        if part.is_none() {
            client.subscription = Some(subscription);
        }
        true
    }

    fn check(&mut self, at: usize, message: &Message) {
        let client = &mut self.clients[at];
        match message.event.as_str() {
            "checkpoint" => {
                assert_eq!(message.data, "");
            }
            "gap" => {
                let gap: serde_json::Value = serde_json::from_str(&message.data).unwrap();
                let at = |name: &str| NAMES.iter().position(|own| name == *own).unwrap();
                let parts: Vec<(usize, &serde_json::Value)> = match gap.get("channels") {
                    Some(parts) => {
                        let parts = parts.as_object().unwrap().iter();
                        parts.map(|(name, part)| (at(name), part)).collect()
                    }
                    None => {
                        let only = client.expect.iter().position(Option::is_some);
                        vec![(only.unwrap(), &gap)]
                    }
                };
                assert_eq!(gap.get("channels").is_some(), client.many);
                let reason = gap["reason"].as_str().unwrap();
                let mut all_missed = Some(0);
                for (channel, part) in parts {
                    let then_state = client.policy > 1 && self.states[channel].is_some();
                    let next = match part["oldest"].as_str() {
                        // The snapshot decides.
                        _ if then_state => None,
                        Some(oldest) => {
                            let oldest: EventId = oldest.parse().unwrap();
                            let mut events = self.all.iter();
                            let (_, of, count) = events.find(|(id, ..)| *id == oldest).unwrap();
                            assert_eq!(*of, channel, "oldest is of the channel concerned");
                            Some(*count)
                        }
                        None => Some(client.made_at[channel]),
                    };
                    let missed = part["missed"].as_u64();
                    all_missed = all_missed.zip(missed).map(|(all, missed)| all + missed);
                    match (client.expect[channel].unwrap(), next) {
                        (Expect::Gap, _) => {
                            assert!(["unknown", "restarted"].contains(&reason), "{gap}");
                        }
                        (Expect::Exactly(expected), Some(next)) => {
                            assert!(next >= expected, "{gap}: goes back from {expected}");
                            // Law 7 allows a false gap where channels come and go.
                            assert!(
                                next > expected || reason == "unknown",
                                "{gap}: nothing is missing"
                            );
                            if let Some(missed) = missed {
                                assert_eq!(missed, next - expected, "{gap}");
                            } else {
                                assert!(reason != "lagged", "{gap}");
                                assert!(reason == "unknown" || self.single.is_none(), "{gap}");
                            }
                        }
                        (Expect::Exactly(_) | Expect::State, _) => {}
                    }
                    client.expect[channel] = Some(match next {
                        Some(next) => Expect::Exactly(next),
                        None => Expect::State,
                    });
                    client.gap_without_id[channel] = true;
                }
                assert_eq!(gap["missed"].as_u64(), all_missed, "{gap}");
            }
            "message" => {
                let (channel, count, _): (usize, u64, String) =
                    serde_json::from_str(&message.data).unwrap();
                let event = |(_, of, at): &&(EventId, usize, u64)| (*of, *at) == (channel, count);
                let (own_id, ..) = *self.all.iter().find(event).unwrap();
                let id: Option<EventId> = message.last_event_id.parse().ok();
                let id = id.filter(|id| id.whole() == own_id);
                // After a snapshot, its channel's events have no ids for a while.
                assert!(
                    id.is_some()
                        || (self.states[channel].is_some()
                            && message.last_event_id == client.last_event_id),
                    "its own id and data"
                );
                let fits = match client.expect[channel] {
                    Some(Expect::Exactly(expected)) => count == expected,
                    Some(Expect::Gap | Expect::State) | None => false,
                };
                assert!(
                    fits,
                    "law 3: channel {channel}: {count}, not {:?}",
                    client.expect[channel]
                );
                client.expect[channel] = Some(Expect::Exactly(count + 1));

                if let Some(id) = id {
                    assert!(
                        client.newest_id.is_none_or(|last| last < id),
                        "law 5: order across channels"
                    );
                    client.newest_id = Some(id);
                }
            }
            "snapshot" => {
                let (channel, id, count): (usize, String, u64) =
                    serde_json::from_str(&message.data).unwrap();
                let id: EventId = id.parse().unwrap();
                assert_eq!(self.up_to(channel, id), count, "its id and its state");
                let client = &mut self.clients[at];
                let by_lag = client.policy < 2 && client.gap_without_id[channel];
                let expected = client.expect[channel];
                assert!(by_lag || expected == Some(Expect::State), "{expected:?}");
                client.expect[channel] = Some(Expect::Exactly(count));
                if !client.many {
                    assert_eq!(message.last_event_id, id.to_string());
                    client.newest_id = Some(id);
                }
            }
            other => panic!("an event named {other}"),
        }
        let client = &mut self.clients[at];
        let is_new = message.last_event_id != client.last_event_id;
        client.last_event_id.clone_from(&message.last_event_id);
        // An id after a gap makes the gap final.
        if let Ok(id) = message.last_event_id.parse::<EventId>()
            && message.event != "gap"
        {
            if is_new && !id.is_partial() {
                let owed = client.expect.contains(&Some(Expect::State));
                assert!(!owed, "law 4: {id} stands for a state that was not sent");
            }
            for channel in 0..3 {
                let expected = self.clients[at].expect[channel];
                if expected.is_some_and(|expect| self.up_to(channel, id) >= expect.count()) {
                    self.clients[at].gap_without_id[channel] = false;
                }
            }
        }
    }

    fn add(&mut self, at: usize, channel: usize) {
        // What it misses is decided when the subscription adds the channel, so read everything
        // first.
        while self.poll(at, None) {}
        let client = &mut self.clients[at];
        if let (Some(handle), Some(_)) = (&client.handle, &client.subscription)
            && client.expect[channel].is_none()
            && handle.add(NAMES[channel]).is_ok()
        {
            client.expect[channel] = Some(match self.states[channel] {
                Some(_) => Expect::State,
                None => Expect::Exactly(self.published[channel]),
            });
            // A reconnect continues after the client's id, which may be older.
            client.gap_without_id[channel] = true;
            while self.poll(at, None) {}
        }
    }

    fn remove(&mut self, at: usize, channel: usize) {
        while self.poll(at, None) {}
        let client = &mut self.clients[at];
        if let (Some(handle), Some(_)) = (&client.handle, &client.subscription) {
            handle.remove(NAMES[channel]);
            // Everything has been read: nothing more of that channel will come.
            self.clients[at].expect[channel] = None;
            while self.poll(at, None) {}
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Publish { channel, size } => self.publish(channel, size),
            Op::Burst { channel, events } => {
                (0..events).for_each(|_| self.publish(channel, 10));
            }
            Op::Poll { client, chunks } => {
                for _ in 0..chunks {
                    self.poll(client, None);
                }
            }
            Op::Cut { client, part } => {
                self.poll(client, Some(part));
                self.clients[client].subscription = None;
            }
            Op::Connect {
                client,
                id,
                channels,
                policy,
            } => self.connect(client, id, channels, policy),
            Op::Add { client, channel } => self.add(client, channel),
            Op::Remove { client, channel } => self.remove(client, channel),
            Op::Round => {
                // Sometimes this exceeds the time that readers have.
                self.now += PATIENCE / 3;
                for state in self.shared().registry.channels() {
                    state.dequeued();
                    let mut round = state.begin_round();
                    let mut wakers = Vec::new();
                    while state.advance(&mut round, 1000, self.now, &mut wakers) == Progress::More {
                    }
                }
            }
            Op::Retire { fillers } => {
                for filler in 0..fillers {
                    drop(self.hub.channel::<str>(format!("filler {filler}")));
                }
            }
            Op::Close { channel } => {
                let closed = match &self.single {
                    Some(single) => single.close(None).is_ok(),
                    None => self
                        .hub
                        .channel::<(usize, u64, String)>(NAMES[channel])
                        .is_ok_and(|handle| handle.close(None).is_ok()),
                };
                self.closed[channel] |= closed;
            }
            Op::FinishSnapshots { snapshots } => self.finish_snapshots(snapshots),
        }
    }

    /// When everyone has read everything, nothing is missing.
    fn settle(&mut self) {
        for at in 0..self.clients.len() {
            // A snapshot that was requested too early is requested again.
            for _ in 0..3 {
                while self.poll(at, None) {}
                self.finish_snapshots(10);
            }
            while self.poll(at, None) {}
            let client = &self.clients[at];
            if let Some(subscription) = &client.subscription {
                assert!(subscription.anchor.is_settled());
                for (channel, expect) in client.expect.iter().enumerate() {
                    assert!(
                        expect.is_none_or(|e| e == Expect::Exactly(self.published[channel])),
                        "law 3: channel {channel} ends with {expect:?} of {}",
                        self.published[channel]
                    );
                }
            }
        }
    }
}

fn own_set(client: &Client) -> Vec<usize> {
    (0..3).filter(|at| client.expect[*at].is_some()).collect()
}

fn run(single: bool, events: usize, bytes: usize, max_channels: usize, ops: Vec<Op>) {
    run_with_states(single, events, bytes, max_channels, 0, ops);
}

/// `states` has a bit for each channel with a snapshot.
fn run_with_states(
    single: bool,
    events: usize,
    bytes: usize,
    max_channels: usize,
    states: u8,
    ops: Vec<Op>,
) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let handle = runtime.handle().clone();
    let _entered = handle.enter();
    let hub = Hub::builder()
        .capacity(events)
        .bytes(bytes)
        .max_channels(max_channels)
        .build();
    let single = single.then(|| Channel::builder().capacity(events).bytes(bytes).build());
    let mut world = World {
        hub,
        single,
        all: Vec::new(),
        published: [0; 3],
        closed: [false; 3],
        clients: Default::default(),
        now: 0,
        states: Default::default(),
        permits: Arc::new(Semaphore::new(0)),
        runtime,
    };
    for (at, name) in NAMES.into_iter().enumerate() {
        if states & (1 << at) == 0 {
            continue;
        }
        let channel = match &world.single {
            Some(single) => single.clone(),
            None => world.hub.channel(name).unwrap(),
        };
        let state = Arc::new(Mutex::new((channel.newest(), 0)));
        world.states[at] = Some(state.clone());
        let permits = world.permits.clone();
        let made = channel.snapshot(move || {
            let (id, count): State = *state.lock().unwrap();
            let permits = permits.clone();
            async move {
                permits.acquire().await?.forget();
                Ok::<_, BoxError>((id, (at, id, count)))
            }
        });
        made.unwrap();
    }
    for op in ops {
        world.apply(op);
    }
    world.settle();
}

fn capacity() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0usize), Just(1), 2usize..12, Just(1000)]
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![400usize..2000, 6000usize..20_000, Just(1 << 20)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_for_one_channel(
        capacity in capacity(),
        bytes in bytes(),
        ops in prop::collection::vec(op(1, 0), 1..120),
    ) {
        run(true, capacity, bytes, 0, ops);
    }

    #[test]
    fn laws_hold_for_a_hub(
        capacity in capacity(),
        bytes in bytes(),
        ops in prop::collection::vec(op(3, 0), 1..160),
    ) {
        run(false, capacity, bytes, 1000, ops);
    }

    #[test]
    fn law_7_holds_where_channels_come_and_go(
        capacity in capacity(),
        bytes in bytes(),
        max_channels in 1usize..5,
        ops in prop::collection::vec(op(3, 0), 1..160),
    ) {
        run(false, capacity, bytes, max_channels, ops);
    }

    #[test]
    fn laws_hold_where_channels_close(
        capacity in capacity(),
        bytes in bytes(),
        ops in prop::collection::vec(op(3, 2), 1..120),
    ) {
        run(false, capacity, bytes, 1000, ops);
    }

    #[test]
    fn laws_hold_where_one_channel_closes(
        capacity in capacity(),
        bytes in bytes(),
        ops in prop::collection::vec(op(1, 1), 1..120),
    ) {
        run(true, capacity, bytes, 0, ops);
    }

    #[test]
    fn laws_hold_for_channels_with_states(
        capacity in capacity(),
        bytes in bytes(),
        states in 1u8..8,
        ops in prop::collection::vec(op(3, 0), 1..160),
    ) {
        run_with_states(false, capacity, bytes, 1000, states, ops);
    }

    #[test]
    fn laws_hold_for_one_channel_with_a_state(
        capacity in capacity(),
        bytes in bytes(),
        ops in prop::collection::vec(op(1, 0), 1..120),
    ) {
        run_with_states(true, capacity, bytes, 0, 1, ops);
    }
}

/// A connection over many channels locks only the logs of those with news.
#[test]
fn only_logs_with_news_are_locked() {
    let hub = Hub::builder().max_channels_per_subscription(1000).build();
    let names: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    let mut subscription = hub.subscribe(&names, LastEventId::Absent);
    let mut poll = || subscription.poll_chunk(&mut Context::from_waker(Waker::noop()));
    while poll().is_ready() {}
    let locked = || -> Vec<usize> {
        let states = hub.shared().registry.channels();
        let locked = |state: &Arc<crate::channel::state::ChannelState>| {
            state.locked.swap(0, std::sync::atomic::Ordering::Relaxed)
        };
        states
            .iter()
            .map(locked)
            .filter(|locked| *locked > 0)
            .collect()
    };
    let channels = ["3", "700", "701"].map(|name| hub.channel::<u32>(name).unwrap());
    for news in 0..=3 {
        for channel in &channels[..news] {
            channel.publish(&1).unwrap();
        }
        locked();
        assert_eq!(poll().is_ready(), news > 0);
        while poll().is_ready() {}
        let locked = locked();
        assert_eq!(locked.len(), news, "{locked:?}");
        // Once to find what is next, and once to read it.
        assert!(locked.iter().all(|times| *times <= 2), "{locked:?}");
    }
}

fn read(subscription: &mut Subscription) -> String {
    let mut all = String::new();
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(chunk)) = subscription.poll_chunk(&mut cx) {
        all += std::str::from_utf8(&chunk).unwrap();
    }
    all
}

/// One round of the wake task over every channel.
fn round(shared: &Shared, now: u64) {
    for state in shared.registry.channels() {
        state.dequeued();
        let (mut round, mut wakers) = (state.begin_round(), Vec::new());
        while state.advance(&mut round, usize::MAX, now, &mut wakers) == Progress::More {}
    }
}

async fn let_others_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// The snapshot already exists when the client learns that it needs one.
#[tokio::test]
async fn a_client_that_is_overtaken_gets_whole_ids_again() {
    let hub = Hub::builder().capacity(4).build();
    let chat: Channel<u32> = hub.channel("chat").unwrap();
    let sum = hub.channel("sum").unwrap();
    let state_channel =
        crate::StateChannel::on(sum, 0, |sum: &mut u32, n: &u32| *sum += n).unwrap();
    let mut slow = hub.subscribe(["sum", "chat"], LastEventId::Absent);
    read(&mut slow);
    let_others_run().await;
    read(&mut slow);
    for _ in 0..10 {
        state_channel.publish(&1).unwrap();
    }
    (0..3).for_each(|n| round(hub.shared(), 2 * n * PATIENCE));
    let mut other = state_channel.subscribe(LastEventId::Absent);
    read(&mut other);
    let_others_run().await;
    assert!(read(&mut other).contains("event: snapshot"));
    chat.publish(&7).unwrap();
    let all = read(&mut slow);
    let newest = chat.newest();
    assert!(
        all.contains("\"lagged\"") && all.contains("event: snapshot"),
        "{all}"
    );
    assert!(all.ends_with(&format!("id: {newest}\ndata: \n\n")), "{all}");
    let next = state_channel.publish(&1).unwrap().id().unwrap();
    assert_eq!(read(&mut slow), format!("id: {next}\ndata: 1\n\n"));
}

/// An event is published and evicted between the last look at the clock and the moment when the
/// channel is added.
#[test]
fn a_channel_that_comes_in_says_what_is_gone_already() {
    let hub = Hub::builder().capacity(0).build();
    let late: Channel<u32> = hub.channel("late").unwrap();
    let mut subscription = hub.subscribe(["a"], LastEventId::Absent);
    let handle = subscription.handle();
    read(&mut subscription);
    handle.add("late").unwrap();
    assert!(!subscription.advance());
    late.publish(&1).unwrap();
    subscription.change_channels();
    late.publish(&2).unwrap();
    let all = read(&mut subscription);
    assert!(
        all.starts_with("event: gap\ndata: {\"reason\":\"evicted\",\"missed\":1,"),
        "{all}"
    );
    assert!(all.contains("data: 2\n\n"), "{all}");
}

/// A client that waits for a snapshot and is never polled again does not keep the log forever.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_snapshot_keeps_the_log_for_a_time_only() {
    let channel: Channel<u32> = Channel::builder().capacity(8).build();
    let id = channel.newest();
    let made = channel.snapshot(move || async move { Ok::<_, BoxError>((id, "state")) });
    made.unwrap();
    let mut subscription = channel.subscribe(LastEventId::Absent);
    read(&mut subscription);
    let state = channel.shared().registry.channels()[0].clone();
    let kept = || {
        let log = state.lock();
        let kept = (0..log.end()).filter(|at| log.id_at(*at).is_some());
        kept.count()
    };
    for n in 0..300 {
        channel.publish(&n).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(kept(), 300);
    assert_eq!(channel.stats().lag, 0, "waiting is not lagging");
    for n in 0..100 {
        channel.publish(&n).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(kept() <= 9, "{}", kept());
}

#[test]
fn wishes_are_bounded() {
    let hub = Hub::new();
    let mut subscription = hub.subscribe(["a"], LastEventId::Absent);
    let handle = subscription.handle();
    for n in 0..1000 {
        let name = n.to_string();
        handle.add(&name).unwrap();
        handle.remove(&name);
        handle.remove("never there");
    }
    handle.remove("a");
    handle.add("a").unwrap();
    assert!(handle.0.take().is_empty());
    // A channel that cannot be added is not created either.
    for n in 0..255 {
        handle.add(format!("room {n}")).unwrap();
    }
    let channels = hub.stats().channels;
    assert!(handle.add("one more").is_err());
    assert_eq!(hub.stats().channels, channels);
}
