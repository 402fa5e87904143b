//! Laws 2 to 5 and 7 for every interleaving that the strategies below can think of: publishers,
//! clients that read a bit, are cut in the middle of a chunk, come back with any id, channels
//! that are added, removed, closed, retired and made anew.
//!
//! Each event carries its channel and a count of that channel. What a client's parser dispatches
//! must be a contiguous run of each channel, or a gap event stands exactly at the hole.

use std::task::{Context, Waker};

use proptest::prelude::*;

use super::*;
use crate::{
    Channel, Hub,
    hub::core::{PATIENCE, Progress},
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
    /// Only a part of the next chunk arrives, then the connection is gone.
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
    /// What the wake task does to the logs.
    Round,
    Retire {
        fillers: usize,
    },
    Close {
        channel: usize,
    },
}

#[derive(Clone, Debug)]
enum Id {
    Own,
    None,
    /// Of the hub, this far back in the order of all events.
    Back(u64),
    Future,
    OtherLife,
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
        6 => Just(Op::Round),
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
        1 => Just(Id::OtherLife),
        1 => Just(Id::Garbage),
    ]
}

/// What a client must see next of a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// The event with this count, or a gap.
    Exactly(u64),
    /// A gap, whatever comes.
    Gap,
}

impl Expect {
    fn count(self) -> u64 {
        match self {
            Self::Exactly(count) => count,
            Self::Gap => 0,
        }
    }
}

#[derive(Default)]
struct Client {
    subscription: Option<Subscription>,
    parser: Parser,
    last_event_id: String,
    /// By channel, for those it is subscribed to.
    expect: [Option<Expect>; 3],
    /// A gap was said that the client's id does not cover yet.
    gap_without_id: [bool; 3],
    /// Its id is none that it was given.
    fabricated: bool,
    newest_id: Option<EventId>,
    control: Option<Control>,
    ended: bool,
    many: bool,
    /// What had been published when the chunk was made that is handed out now: several are made
    /// at once, and wait.
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
}

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
            Ok(id) => {
                assert!(self.all.last().is_none_or(|(last, ..)| *last < id), "law 1");
                self.all.push((id, channel, count));
                self.published[channel] += 1;
                self.closed[channel] = false;
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

    /// How many events of a channel stand up to `id`.
    fn up_to(&self, channel: usize, id: EventId) -> u64 {
        let of_channel = self.all.iter().filter(|(_, of, _)| *of == channel);
        of_channel.filter(|(other, ..)| *other <= id).count() as u64
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
            Id::Future => {
                EventId::new(newest.hi(), newest.lo() + 1 + u64::from(channels)).to_string()
            }
            Id::OtherLife => EventId::new(newest.hi() ^ 1, 1).to_string(),
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
            // The same set, as a browser would ask again; otherwise any.
            (None, Id::Own) if !own_set(old).is_empty() => own_set(old),
            (None, _) => (0..3).filter(|at| channels & (1 << at) != 0).collect(),
        };
        let mut expect = [None; 3];
        for &channel in &subscribed {
            expect[channel] = Some(match &last {
                LastEventId::Absent => Expect::Exactly(self.published[channel]),
                LastEventId::Known(id) if id.hi() == newest.hi() && *id <= newest => {
                    Expect::Exactly(self.up_to(channel, *id))
                }
                _ => Expect::Gap,
            });
        }
        // Across a reconnect with its own id, a client expects what it expected before: that is
        // law 4, and what the id says must be the same.
        if let (Id::Own, LastEventId::Known(_)) = (&id, &last) {
            for &channel in &subscribed {
                if let Some(before) = old.expect[channel]
                    && !old.fabricated
                    && before != Expect::Gap
                    && expect[channel] != Some(Expect::Gap)
                {
                    // A gap that was said, and then cut off before the next id, is said again.
                    let told = expect[channel].unwrap();
                    let again = old.gap_without_id[channel] && told.count() < before.count();
                    assert!(again || told == before, "law 4: {told:?}, not {before:?}");
                }
            }
        }
        let fabricated = match id {
            Id::Own => old.fabricated,
            Id::None | Id::Back(_) => false,
            Id::Future | Id::OtherLife | Id::Garbage => true,
        };
        // The old connection may go before or after the new one comes.
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
        match subscription.resume() {
            Resume::Fresh => {}
            Resume::Exact { pending } => {
                let behind = |channel: &usize| match expect[*channel] {
                    Some(Expect::Exactly(count)) => self.published[*channel] - count,
                    other => panic!("exact, but {other:?} of {channel}"),
                };
                assert_eq!(pending, subscribed.iter().map(behind).sum::<u64>());
            }
            Resume::Gap { .. } => {}
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
        let control = (policy == 3 && self.single.is_none()).then(|| subscription.control());
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
            control,
            ended: false,
            many,
            made_at: self.published,
        };
    }

    /// Hands the client its next chunk, or the first `part` bytes of it.
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
                let channel = match gap.get("channel") {
                    Some(name) => NAMES.iter().position(|own| name == own).unwrap(),
                    None => client.expect.iter().position(Option::is_some).unwrap(),
                };
                assert_eq!(gap.get("channel").is_some(), client.many);
                let next = match gap["oldest"].as_str() {
                    Some(oldest) => {
                        let oldest: EventId = oldest.parse().unwrap();
                        let (_, of, count) =
                            self.all.iter().find(|(id, ..)| *id == oldest).unwrap();
                        assert_eq!(*of, channel, "oldest is of the channel concerned");
                        *count
                    }
                    None => client.made_at[channel],
                };
                let reason = gap["reason"].as_str().unwrap();
                match client.expect[channel].unwrap() {
                    Expect::Gap => assert!(["unknown", "restarted"].contains(&reason), "{gap}"),
                    Expect::Exactly(expected) => {
                        assert!(next >= expected, "{gap}: goes back from {expected}");
                        // Law 7 allows a false gap where channels come and go.
                        assert!(
                            next > expected || reason == "unknown",
                            "{gap}: nothing is missing"
                        );
                        if let Some(missed) = gap["missed"].as_u64() {
                            assert_eq!(missed, next - expected, "{gap}");
                        } else {
                            assert!(reason != "lagged", "{gap}");
                            assert!(reason == "unknown" || self.single.is_none(), "{gap}");
                        }
                    }
                }
                client.expect[channel] = Some(Expect::Exactly(next));
                client.gap_without_id[channel] = true;
            }
            "message" => {
                let (channel, count, _): (usize, u64, String) =
                    serde_json::from_str(&message.data).unwrap();
                let id: EventId = message.last_event_id.parse().unwrap();
                assert!(
                    self.all.contains(&(id, channel, count)),
                    "its own id and data"
                );
                assert_eq!(
                    client.expect[channel],
                    Some(Expect::Exactly(count)),
                    "law 3: channel {channel}"
                );
                client.expect[channel] = Some(Expect::Exactly(count + 1));

                assert!(
                    client.newest_id.is_none_or(|last| last < id),
                    "law 5: order across channels"
                );
                client.newest_id = Some(id);
            }
            other => panic!("an event named {other}"),
        }
        // An id that lies behind what a gap was about makes that gap final.
        if message.event != "gap" {
            let id: EventId = message.last_event_id.parse().unwrap();
            for channel in 0..3 {
                let expected = self.clients[at].expect[channel];
                if expected.is_some_and(|expect| self.up_to(channel, id) >= expect.count()) {
                    self.clients[at].gap_without_id[channel] = false;
                }
            }
        }
    }

    fn add(&mut self, at: usize, channel: usize) {
        // What it misses is settled when the subscription takes it in: let it be at rest.
        while self.poll(at, None) {}
        let client = &mut self.clients[at];
        if let (Some(control), Some(_)) = (&client.control, &client.subscription)
            && client.expect[channel].is_none()
            && control.add(NAMES[channel]).is_ok()
        {
            client.expect[channel] = Some(Expect::Exactly(self.published[channel]));
            // Reconnecting brings what is behind the client's id, which may be older.
            client.gap_without_id[channel] = true;
            while self.poll(at, None) {}
        }
    }

    fn remove(&mut self, at: usize, channel: usize) {
        while self.poll(at, None) {}
        let client = &mut self.clients[at];
        if let (Some(control), Some(_)) = (&client.control, &client.subscription) {
            control.remove(NAMES[channel]);
            while self.poll(at, None) {}
            self.clients[at].expect[channel] = None;
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
                // Now and then a reader has had more time than it gets.
                self.now += PATIENCE / 3;
                for core in self.shared().registry.cores() {
                    core.dequeued();
                    let mut round = core.begin_round();
                    let mut wakers = Vec::new();
                    while core.go_on(&mut round, 1000, self.now, &mut wakers) == Progress::More {}
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
        }
    }

    /// Nothing is left behind when everybody has read everything.
    fn settle(&mut self) {
        for at in 0..self.clients.len() {
            while self.poll(at, None) {}
            let client = &self.clients[at];
            if client.subscription.is_some() {
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
    };
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
}
