//! A client of the model: what it must see next, and what it has seen.

use std::task::{Context, Poll, Waker};

use axum::{
    body::{Body, HttpBody},
    http::StatusCode,
    response::IntoResponse,
};
use axum_sse::{
    EventId, LastEventId, OnGap, OnLag, Resumption, Start,
    testing::{Item, Message, Parser},
};
use headers::Header;

use crate::{
    input::Input,
    log::{Model, NAMES},
};

/// The longest time, in milliseconds, for which events are kept for a client that reads.
const PATIENCE: u64 = 3000;

pub(crate) enum Given {
    Nothing,
    /// The last id that this client received, like a browser.
    Own,
    Id(EventId),
    Garbage,
}

/// What a client must see next of a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// The event of this number, or a gap.
    Next(usize),
    /// A gap before anything else.
    Gap,
    /// A gap was reported without its end, which is between these two.
    Between(usize, usize),
}

impl Expect {
    fn least(self) -> usize {
        match self {
            Self::Next(at) | Self::Between(at, _) => at,
            Self::Gap => 0,
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Next(at) | Self::Between(_, at) => at,
            Self::Gap => 0,
        }
    }
}

pub(crate) struct Reader {
    body: Option<Body>,
    parser: Parser,
    last_id: String,
    /// By channel; `None` if not subscribed.
    expect: [Option<Expect>; 3],
    /// A gap was reported, or the client requested less than there is, and no id covers that yet:
    /// if it were cut off now, the gap would be reported again, or it would get more.
    uncovered: [bool; 3],
    /// Its id was made up, not received.
    fabricated: bool,
    start: Start,
    fresh: bool,
    on_lag: OnLag,
    begun: bool,
    /// When everything had been read, if it ever had.
    rested: Option<u64>,
    /// How much had been published by then, or when it connected.
    made_at: [usize; 3],
    many: bool,
}

impl Reader {
    pub(crate) fn connect(
        model: &Model,
        before: Option<Self>,
        given: Given,
        input: &mut Input<'_>,
    ) -> Self {
        let own = before
            .as_ref()
            .map(|reader| reader.last_id.clone())
            .unwrap_or_default();
        let text = match &given {
            Given::Nothing => String::new(),
            Given::Own => own,
            Given::Id(id) => id.to_string(),
            Given::Garbage => "not-an-id!".to_owned(),
        };
        let header = axum::http::HeaderValue::from_str(&text).unwrap();
        let last: LastEventId = LastEventId::decode(&mut [header].iter()).unwrap();
        let newest = model.all.last().map_or(model.start, |event| event.id);

        let set = 1 + input.below(7);
        let own_set = before
            .as_ref()
            .filter(|_| matches!(given, Given::Own))
            .map(Reader::channels);
        let channels = match own_set {
            _ if model.is_single() => vec![0],
            Some(same) => same,
            None => (0..3).filter(|at| set & (1 << at) != 0).collect(),
        };
        let mut expect = [None; 3];
        for &channel in &channels {
            expect[channel] = Some(match &last {
                LastEventId::Absent => Expect::Next(model.count(channel)),
                LastEventId::Known(id) if id.epoch() == newest.epoch() && *id <= newest => {
                    Expect::Next(model.up_to(channel, *id))
                }
                _ => Expect::Gap,
            });
        }
        if let (Given::Own, Some(before), LastEventId::Known(_)) = (&given, &before, &last) {
            before.agrees(&expect);
        }
        let fabricated = match given {
            Given::Own => before.as_ref().is_some_and(|reader| reader.fabricated),
            Given::Nothing => false,
            Given::Id(_) | Given::Garbage => true,
        };
        // The old connection ends before the new one begins.
        drop(before);

        let start = input.pick(&[
            Start::Live,
            Start::Snapshot,
            Start::Oldest,
            Start::Newest(2),
        ]);
        let on_gap = input.pick(&[OnGap::Replay, OnGap::Snapshot, OnGap::Live]);
        let on_lag = input.pick(&[OnLag::Gap, OnLag::End]);
        let fresh = last.is_absent();
        let subscription = model.subscribe(&channels, last);
        check_resume(model, &channels, &expect, fresh, subscription.resumption());
        let response = subscription
            .start(start)
            .on_gap(on_gap)
            .on_lag(on_lag)
            .into_response();

        let mut reader = Self {
            body: None,
            parser: Parser::new(),
            last_id: text,
            expect,
            uncovered: [false; 3],
            fabricated,
            start,
            fresh,
            on_lag,
            begun: false,
            rested: None,
            made_at: [0, 1, 2].map(|at| model.count(at)),
            many: channels.len() > 1,
        };
        if response.status() == StatusCode::NO_CONTENT {
            reader.begin(model);
            reader.check_end(model);
        } else {
            assert_eq!(response.status(), StatusCode::OK);
            reader.body = Some(response.into_body());
        }
        reader
    }

    fn channels(&self) -> Vec<usize> {
        (0..3).filter(|at| self.expect[*at].is_some()).collect()
    }

    /// Law 4: a client has seen exactly what its id stands for.
    fn agrees(&self, expect: &[Option<Expect>; 3]) {
        for channel in self.channels() {
            let (Some(seen), Some(Expect::Next(next))) = (self.expect[channel], expect[channel])
            else {
                continue;
            };
            if self.fabricated || seen == Expect::Gap || (self.fresh && !self.begun) {
                continue;
            }
            let again = self.uncovered[channel] && next <= seen.most();
            assert!(
                again || (seen.least()..=seen.most()).contains(&next),
                "law 4: {seen:?}, and then {next}"
            );
        }
    }

    pub(crate) fn cut(&mut self) {
        self.body = None;
    }

    /// Where it starts without an id is decided when the body is first polled.
    fn begin(&mut self, model: &Model) {
        self.begun = true;
        if !self.fresh {
            return;
        }
        for channel in self.channels() {
            let (gone, count) = (model.gone[channel], model.count(channel));
            let first = match self.start {
                // It is told what has been evicted.
                Start::Oldest => 0,
                Start::Newest(n) => count.saturating_sub(usize::try_from(n).unwrap()).max(gone),
                _ => continue,
            };
            self.expect[channel] = Some(Expect::Next(first));
            self.uncovered[channel] = true;
        }
    }

    /// Gives the client its next chunk, or the first `part` bytes of it. Returns whether there was
    /// one.
    pub(crate) fn poll(&mut self, model: &Model, part: Option<usize>) -> bool {
        let Some(mut body) = self.body.take() else {
            return false;
        };
        if !self.begun {
            self.begin(model);
        }
        let frame =
            std::pin::Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let chunk = match frame {
            Poll::Pending => {
                self.body = Some(body);
                self.check_rest(model);
                self.rested = Some(model.now);
                self.made_at = [0, 1, 2].map(|at| model.count(at));
                return false;
            }
            Poll::Ready(None) => {
                self.check_end(model);
                return false;
            }
            Poll::Ready(Some(frame)) => frame.unwrap().into_data().unwrap(),
        };
        assert!(chunk.ends_with(b"\n"), "law 9: whole lines");
        let arrived = part.unwrap_or(chunk.len()).min(chunk.len());
        for item in self.parser.push(&chunk[..arrived]) {
            if let Item::Message(message) = item {
                self.check(model, &message);
            }
        }
        if !self.parser.last_event_id().is_empty() {
            self.parser.last_event_id().clone_into(&mut self.last_id);
            self.fabricated = false;
        }
        self.body = Some(body);
        true
    }

    /// Law 4: with its id, a client that has everything would resume exactly here.
    fn check_rest(&self, model: &Model) {
        let id: Option<EventId> = self.last_id.parse().ok();
        for channel in self.channels() {
            let behind = id.map(|id| model.up_to(channel, id));
            assert_eq!(
                behind,
                Some(model.count(channel)),
                "law 4: {:?}",
                self.last_id
            );
        }
    }

    fn check(&mut self, model: &Model, message: &Message) {
        if message.event == "gap" {
            self.gap(model, &message.data);
            return;
        }
        let id: EventId = message.last_event_id.parse().unwrap();
        if message.event == "checkpoint" {
            assert_eq!(message.data, "");
        } else {
            let event = model.all.iter().find(|event| event.id == id).unwrap();
            let name = if event.name.is_empty() {
                "message"
            } else {
                event.name
            };
            assert_eq!((message.event.as_str(), &message.data), (name, &event.data));
            let count = model.up_to(event.channel, id) - 1;
            let expected = self.expect[event.channel];
            let next = match expected.unwrap() {
                Expect::Between(from, to) => (from..=to).contains(&count),
                Expect::Next(next) => next == count,
                Expect::Gap => false,
            };
            assert!(
                next,
                "law 3: {expected:?}, but event {count} of channel {} came",
                event.channel
            );
            self.expect[event.channel] = Some(Expect::Next(count + 1));
        }
        for channel in self.channels() {
            let (behind, expected) = (model.up_to(channel, id), self.expect[channel].unwrap());
            assert_ne!(expected, Expect::Gap, "an id before the gap was said");
            assert!(
                behind <= expected.most(),
                "law 5: {id} passes events of channel {channel}: {expected:?}"
            );
            // An id after a gap makes the gap final.
            if behind >= expected.least() {
                self.uncovered[channel] = false;
            }
        }
    }

    fn gap(&mut self, model: &Model, data: &str) {
        let gap: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(gap.get("channels").is_some(), self.many);
        match gap["channels"].as_object() {
            None => self.gap_of(model, self.channels()[0], &gap, &gap),
            Some(parts) => {
                for (name, part) in parts {
                    let channel = NAMES.iter().position(|own| name == own).unwrap();
                    self.gap_of(model, channel, &gap, part);
                }
                let missed = parts.values().map(|part| part["missed"].as_u64());
                assert_eq!(gap["missed"].as_u64(), missed.sum::<Option<u64>>(), "{gap}");
            }
        }
    }

    fn gap_of(
        &mut self,
        model: &Model,
        channel: usize,
        gap: &serde_json::Value,
        part: &serde_json::Value,
    ) {
        let reason = gap["reason"].as_str().unwrap();
        let missed = part["missed"]
            .as_u64()
            .map(|missed| usize::try_from(missed).unwrap());
        let oldest = part["oldest"].as_str().map(|oldest| {
            let event = model
                .all
                .iter()
                .find(|event| event.id.to_string() == oldest)
                .unwrap();
            assert_eq!(event.channel, channel, "{gap}");
            model.up_to(channel, event.id) - 1
        });
        // Without `oldest`, the gap ends where the log ended when it was made.
        let next = match oldest {
            Some(next) => Expect::Next(next),
            None => Expect::Between(self.made_at[channel], model.count(channel)),
        };
        match self.expect[channel].unwrap() {
            Expect::Gap => {
                assert!(
                    ["unknown", "restarted"].contains(&reason) && missed.is_none(),
                    "{gap}"
                );
            }
            Expect::Between(..) => assert_eq!(reason, "lagged", "{gap}"),
            Expect::Next(expected) => {
                assert!(
                    next.most() > expected,
                    "{gap}: nothing is missing after {expected}"
                );
                assert!(
                    model.gone[channel] > expected,
                    "{gap}: {expected} is still there"
                );
                let is_all = self.fresh && self.start == Start::Oldest && expected == 0;
                match reason {
                    "truncated" => assert!(is_all && missed.is_some(), "{gap}"),
                    "evicted" => assert!(!is_all, "{gap}"),
                    other => assert_eq!(other, "lagged", "{gap}"),
                }
                if let (Some(missed), Expect::Next(next)) = (missed, next) {
                    assert_eq!(missed, next - expected, "{gap}");
                }
                assert!(
                    missed.is_some() || (reason == "evicted" && !model.is_single()),
                    "{gap}"
                );
                if reason == "lagged" {
                    self.was_slow(model, channel, expected);
                }
            }
        }
        self.expect[channel] = Some(next);
        self.uncovered[channel] = true;
    }

    /// Law 6: for a client that keeps up, events are kept as long as the byte limit allows. A
    /// client that has not caught up yet has only what is retained.
    fn was_slow(&self, model: &Model, channel: usize, expected: usize) {
        let too_much = model.bytes_behind(channel, expected) > model.bytes();
        let too_long = self.rested.is_none_or(|at| model.now >= at + PATIENCE);
        assert!(
            too_much || too_long,
            "event {expected} of channel {channel} was not kept for long enough"
        );
    }

    /// The stream has ended: everything is closed and read, or the client was too slow.
    fn check_end(&self, model: &Model) {
        let over = |channel: &usize| {
            let count = model.count(*channel);
            let read = match self.expect[*channel].unwrap() {
                Expect::Next(next) => next == count,
                Expect::Between(_, most) => most == count,
                Expect::Gap => false,
            };
            model.closed[*channel] && read
        };
        let slow = |channel: &usize| {
            let expected = self.expect[*channel].unwrap();
            self.on_lag == OnLag::End && expected.least() < model.gone[*channel]
        };
        let channels = self.channels();
        assert!(
            channels.iter().all(over) || channels.iter().any(slow),
            "it ended, and expected {:?}",
            self.expect
        );
    }

    /// When everything has been read, nothing is missing.
    pub(crate) fn settle(&mut self, model: &Model) {
        while self.poll(model, None) {}
        if self.body.is_none() {
            return;
        }
        for channel in self.channels() {
            let (count, expected) = (model.count(channel), self.expect[channel].unwrap());
            let read = expected == Expect::Next(count)
                || matches!(expected, Expect::Between(_, most) if most == count);
            assert!(
                read,
                "law 3: channel {channel} ends with {expected:?} of {count}"
            );
        }
    }
}

/// What a handler learns before the response starts.
fn check_resume(
    model: &Model,
    channels: &[usize],
    expect: &[Option<Expect>; 3],
    fresh: bool,
    resume: Resumption,
) {
    let known: Vec<_> = channels
        .iter()
        .map(|at| match expect[*at].unwrap() {
            Expect::Next(next) => Some((next, model.gone[*at], model.count(*at))),
            _ => None,
        })
        .collect();
    let lost = known
        .iter()
        .any(|known| known.is_none_or(|(next, gone, _)| next < gone));
    match resume {
        Resumption::Fresh => assert!(fresh),
        Resumption::Exact { pending } => {
            assert!(!fresh && !lost, "exact, but {known:?}");
            let behind = known.iter().flatten().map(|(next, _, count)| count - next);
            assert_eq!(usize::try_from(pending).unwrap(), behind.sum::<usize>());
        }
        Resumption::Gap { reason, missed } => {
            assert!(!fresh && lost, "{reason:?}, but {known:?}");
            // It describes the first channel with a gap.
            let first = known.iter().flatten().find(|(next, gone, _)| next < gone);
            if let (Some(missed), Some((next, gone, _))) = (missed, first) {
                assert_eq!(usize::try_from(missed).unwrap(), gone - next);
            }
        }
        other => panic!("{other:?}"),
    }
}
