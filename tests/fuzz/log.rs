//! Channels against a list of everything ever published. A client that is cut anywhere, comes back
//! with any id, and reads as slowly as it likes gets each event once and in order, with a gap
//! event where something is missing.

use std::time::Duration;

use axum_sse::{Channel, ErrorKind, Event, EventId, EventName, Hub};
use tokio::time::{Instant, sleep};

use crate::{
    input::Input,
    reader::{Given, Reader},
};

pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Names for events of a channel; the first one means none.
const EVENT_NAMES: [&str; 4] = ["", "price", "id: 1", " "];

pub(crate) fn body(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut input = Input::new(data);
        let mut model = Model::new(&mut input);
        let mut readers = [const { None }; 2];
        while !input.is_empty() {
            step(&mut model, &mut readers, &mut input).await;
        }
        for reader in readers.iter_mut().flatten() {
            reader.settle(&model);
        }
    });
}

async fn step(model: &mut Model, readers: &mut [Option<Reader>; 2], input: &mut Input<'_>) {
    match input.below(16) {
        0..=4 => model.publish(input),
        5 => {
            let more = input.below(12);
            (0..more).for_each(|_| model.publish(input));
        }
        6..=9 => {
            if let Some(reader) = &mut readers[input.below(2)] {
                let most = input.below(4);
                let _ = (0..=most).all(|_| reader.poll(model, None));
            }
        }
        10 => {
            // Only part of the next chunk arrives, then the connection is cut.
            if let Some(reader) = &mut readers[input.below(2)] {
                let part = usize::from(input.byte()) * usize::from(input.byte());
                reader.poll(model, Some(part));
                reader.cut();
            }
        }
        11..=13 => {
            let at = input.below(2);
            let given = given(model, input);
            let before = readers[at].take();
            readers[at] = Some(Reader::connect(model, before, given, input));
        }
        14 => {
            // The wake task runs; sometimes longer than clients have to read.
            sleep(Duration::from_millis(input.pick(&[0, 1, 1, 7, 50, 3001]))).await;
            model.pass();
        }
        _ => {
            if input.below(4) == 3 {
                model.close(input);
            }
        }
    }
}

/// The id that a client sends.
fn given(model: &Model, input: &mut Input<'_>) -> Given {
    match input.below(16) {
        0 => Given::Nothing,
        1..=3 => {
            let back = input.below(40);
            let id = model
                .all
                .iter()
                .rev()
                .nth(back)
                .map_or(model.start, |event| event.id);
            Given::Id(id)
        }
        4 => Given::Id(EventId::new(model.start.epoch(), u64::from(input.byte()))),
        5 => Given::Id(EventId::new(
            model.start.epoch() ^ 1,
            u64::from(input.byte()),
        )),
        6 => Given::Garbage,
        _ => Given::Own,
    }
}

pub(crate) struct Published {
    pub(crate) id: EventId,
    pub(crate) channel: usize,
    pub(crate) name: &'static str,
    pub(crate) data: String,
    size: usize,
    at: u64,
}

enum Real {
    Single(Channel<str>),
    Hub(Hub),
}

/// The laws in their simplest form.
pub(crate) struct Model {
    real: Real,
    pub(crate) start: EventId,
    began: Instant,
    pub(crate) now: u64,
    events: usize,
    bytes: usize,
    age: Option<u64>,
    pub(crate) all: Vec<Published>,
    pub(crate) closed: [bool; 3],
    /// By channel, how many events can no longer be replayed.
    pub(crate) gone: [usize; 3],
}

impl Model {
    fn new(input: &mut Input<'_>) -> Self {
        let single = input.flag();
        let events = input.pick(&[1000, 0, 1, 2, 3, 5, 8, 13]);
        let bytes = input.pick(&[1 << 20, 400, 1000, 4000, 20_000, 150_000]);
        let age = input.pick(&[None, None, Some(0), Some(1), Some(40)]);
        let (real, start) = if single {
            let mut builder = Channel::builder().capacity(events).bytes(bytes);
            if let Some(age) = age {
                builder = builder.age(Duration::from_millis(age));
            }
            let channel = builder.build();
            let start = channel.newest();
            (Real::Single(channel), start)
        } else {
            let mut builder = Hub::builder().capacity(events).bytes(bytes);
            if let Some(age) = age {
                builder = builder.age(Duration::from_millis(age));
            }
            let hub = builder.build();
            let start = hub.newest();
            (Real::Hub(hub), start)
        };
        let began = Instant::now();
        Self {
            real,
            start,
            began,
            now: 0,
            events,
            bytes,
            age,
            all: Vec::new(),
            closed: [false; 3],
            gone: [0; 3],
        }
    }

    pub(crate) fn is_single(&self) -> bool {
        matches!(self.real, Real::Single(_))
    }

    pub(crate) fn subscribe(
        &self,
        channels: &[usize],
        last: axum_sse::LastEventId,
    ) -> axum_sse::Subscription {
        match &self.real {
            Real::Single(channel) => channel.subscribe(last),
            Real::Hub(hub) => hub.subscribe(channels.iter().map(|at| NAMES[*at]), last),
        }
    }

    fn channel(&self, at: usize) -> Channel<str> {
        match &self.real {
            Real::Single(channel) => channel.clone(),
            Real::Hub(hub) => hub.channel(NAMES[at]).unwrap(),
        }
    }

    fn choose(&self, input: &mut Input<'_>) -> usize {
        if self.is_single() { 0 } else { input.below(3) }
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let channel = self.choose(input);
        let name = input.pick(&EVENT_NAMES);
        let count = self.count(channel);
        let filler = "x".repeat(input.pick(&[0, 1, 10, 200, 500, 5000, 70_000]));
        let data = format!("{channel} {count} {filler}");
        let mut event = Event::text(&data).unwrap();
        if !name.is_empty() {
            event = event.with_name(EventName::new(name).unwrap());
        }
        match self.channel(channel).publish_event(&event) {
            Ok(published) => {
                let id = published.id().unwrap();
                assert!(!self.closed[channel]);
                let newest = self.all.last().map_or(self.start, |event| event.id);
                assert!(newest < id, "law 1");
                let size = event.to_bytes().len() + format!("id: {id}\n").len();
                assert!(size <= self.bytes);
                self.all.push(Published {
                    id,
                    channel,
                    name,
                    data,
                    size,
                    at: self.now,
                });
                self.trim();
            }
            Err(error) => match error.kind() {
                ErrorKind::Closed => assert!(self.closed[channel]),
                ErrorKind::TooLarge => assert!(event.to_bytes().len() + 64 > self.bytes),
                other => panic!("{other:?}: {error}"),
            },
        }
    }

    fn close(&mut self, input: &mut Input<'_>) {
        let channel = self.choose(input);
        let closed = self.channel(channel).close(None);
        assert_eq!(closed.is_err(), self.closed[channel]);
        self.closed[channel] = true;
    }

    fn pass(&mut self) {
        self.now = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        self.trim();
    }

    pub(crate) fn of(&self, channel: usize) -> impl DoubleEndedIterator<Item = &Published> {
        self.all
            .iter()
            .filter(move |event| event.channel == channel)
    }

    pub(crate) fn count(&self, channel: usize) -> usize {
        self.of(channel).count()
    }

    /// How many events of a channel have ids up to `id`.
    pub(crate) fn up_to(&self, channel: usize, id: EventId) -> usize {
        self.of(channel).take_while(|event| event.id <= id).count()
    }

    /// How many bytes of this channel a client has yet to read.
    pub(crate) fn bytes_behind(&self, channel: usize, position: usize) -> usize {
        self.of(channel)
            .skip(position)
            .map(|event| event.size)
            .sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A channel retains the longest run of newest events that meets all three bounds.
    fn trim(&mut self) {
        for channel in 0..3 {
            let (mut events, mut bytes) = (0, 0);
            for event in self.of(channel).rev() {
                let young = self.age.is_none_or(|age| self.now - event.at <= age);
                if events == self.events || bytes + event.size > self.bytes || !young {
                    break;
                }
                events += 1;
                bytes += event.size;
            }
            let gone = self.count(channel) - events;
            // It never moves back.
            self.gone[channel] = self.gone[channel].max(gone);
        }
    }
}
