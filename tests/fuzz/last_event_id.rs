//! Whatever a client sends as its last id, it gets everything, or a gap for what is missing.

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderValue, Request, Uri},
    response::IntoResponse,
};
use axum_sse::{
    Channel, EventId, GapReason, LastEventId, Resumption,
    testing::{Item, Message, Parser},
};
use futures_util::FutureExt;
use headers::Header;
use http_body_util::BodyExt;
use url::form_urlencoded;

use crate::input::Input;

const CAPACITY: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    Absent,
    Known(u64, u64),
    Unknown,
}

pub(crate) fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let published = u64::from(input.byte() % 10);
    let channel: Channel<u64> = Channel::builder().capacity(4).build();
    let ids: Vec<EventId> = (0..published)
        .map(|n| channel.publish(&n).unwrap().id().unwrap())
        .collect();
    let hi = channel.newest().epoch();

    let values: Vec<HeaderValue> = (0..input.below(3))
        .filter_map(|_| HeaderValue::from_bytes(&given(&mut input, hi)).ok())
        .collect();
    let query = input.flag().then(|| query(&mut input, hi)).flatten();

    let mut request = Request::builder().uri(query.clone().unwrap_or_default());
    for value in &values {
        request = request.header("last-event-id", value);
    }
    let request = request.body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let last: LastEventId = extract(&parts);
    let expected = expect(&values, query.as_ref());
    check(&last, expected);

    let header: LastEventId = LastEventId::decode(&mut values.iter()).unwrap();
    check(&header, expect(&values, None));
    let _: LastEventId<u64> = extract(&parts);
    let _: LastEventId<String> = extract(&parts);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { resume(&channel, &ids, last, expected) });
}

fn resume(channel: &Channel<u64>, ids: &[EventId], last: LastEventId, expected: Expect) {
    let (hi, published) = (channel.newest().epoch(), ids.len() as u64);
    let oldest = published.saturating_sub(CAPACITY);
    let gap = |reason, missed| (Resumption::Gap { reason, missed }, oldest);
    let (resume, from) = match expected {
        Expect::Absent => (Resumption::Fresh, published),
        Expect::Unknown => gap(GapReason::Unknown, None),
        Expect::Known(life, _) if life != hi => gap(GapReason::Restarted, None),
        Expect::Known(_, lo) if lo > published => gap(GapReason::Unknown, None),
        Expect::Known(_, lo) if lo < oldest => gap(GapReason::Evicted, Some(oldest - lo)),
        Expect::Known(_, lo) => (
            Resumption::Exact {
                pending: published - lo,
            },
            lo,
        ),
    };

    let subscription = channel.subscribe(last);
    assert_eq!(subscription.resumption(), resume);
    let mut body = subscription.into_response().into_body();
    let mut parser = Parser::new();
    let mut messages = read(&mut body, &mut parser).into_iter();
    if let Resumption::Gap { reason, missed } = resume {
        let gap = messages.next().unwrap();
        let data: serde_json::Value = serde_json::from_str(&gap.data).unwrap();
        let oldest = ids
            .get(usize::try_from(oldest).unwrap())
            .map(EventId::to_string);
        let said =
            serde_json::json!({ "reason": reason.as_str(), "missed": missed, "oldest": oldest });
        assert_eq!((gap.event.as_str(), data), ("gap", said));
    }
    let mut next = from;
    for message in messages {
        if message.event == "checkpoint" {
            assert_eq!(message.last_event_id, channel.newest().to_string());
            assert_eq!(next, published, "law 4: the place is behind everything");
        } else {
            assert_eq!(message, event(ids[usize::try_from(next).unwrap()], next));
            next += 1;
        }
    }
    assert_eq!(next, published, "nothing is left behind");

    let live = channel.publish(&published).unwrap().id().unwrap();
    assert_eq!(read(&mut body, &mut parser), [event(live, published)]);
    assert_eq!(parser.last_event_id(), live.to_string());
}

fn event(id: EventId, number: u64) -> Message {
    Message {
        event: "message".to_owned(),
        data: number.to_string(),
        last_event_id: id.to_string(),
    }
}

/// Everything that is ready.
fn read(body: &mut Body, parser: &mut Parser) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(frame) = body.frame().now_or_never() {
        let data = frame.unwrap().unwrap().into_data().unwrap();
        messages.extend(
            parser
                .push(&data)
                .into_iter()
                .filter_map(|item| match item {
                    Item::Message(message) => Some(message),
                    _ => None,
                }),
        );
    }
    messages
}

fn extract<T: std::str::FromStr>(parts: &axum::http::request::Parts) -> LastEventId<T> {
    // Infallible: this does not compile if it could reject.
    let Ok(last) = LastEventId::from_request_parts(&mut parts.clone(), &())
        .now_or_never()
        .unwrap();
    last
}

/// Arbitrary bytes, or an id of the channel with some of them inserted.
fn given(input: &mut Input<'_>, hi: u64) -> Vec<u8> {
    let form = input.below(6);
    if form == 0 {
        return input.bytes().to_vec();
    }
    let hi = if input.below(8) == 7 { hi ^ 1 } else { hi };
    let lo = input.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 63, 64, u64::MAX]);
    let mut id = EventId::new(hi, lo).to_string().into_bytes();
    let hyphen = id.iter().position(|byte| *byte == b'-').unwrap();
    match form {
        1 => {
            let at = input.below(id.len() + 1);
            let removed = input.below(3).min(id.len() - at);
            id.splice(at..at + removed, input.bytes().iter().copied());
        }
        // Another spelling of the same numbers.
        2 => id.insert(input.pick(&[0, hyphen + 1]), input.pick(b"0+")),
        _ => {}
    }
    id
}

fn query(input: &mut Input<'_>, hi: u64) -> Option<Uri> {
    let mut text = String::from("/?");
    for _ in 0..input.below(3) {
        text.push_str(input.pick(&[
            "lastEventId=",
            "last_event_id=",
            "last-event-id=",
            "last%45ventId=",
            "other=",
            "lastEventId",
            "",
        ]));
        match input.below(3) {
            0 => text.extend(given(input, hi).iter().map(|byte| format!("%{byte:02x}"))),
            1 => text.push_str(&String::from_utf8_lossy(&given(input, hi))),
            _ => text.extend(form_urlencoded::byte_serialize(&given(input, hi))),
        }
        text.push('&');
    }
    text.parse().ok()
}

fn check(last: &LastEventId, expected: Expect) {
    let read = match last {
        LastEventId::Absent => Expect::Absent,
        LastEventId::Known(id) => Expect::Known(id.epoch(), id.sequence()),
        LastEventId::Unknown(id) => {
            assert!(id.as_bytes().len() <= 1025);
            Expect::Unknown
        }
    };
    assert_eq!(read, expected, "{last:?}");
}

/// Rules 73 to 81, implemented independently of the crate.
fn expect(values: &[HeaderValue], query: Option<&Uri>) -> Expect {
    let values: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
    if values.concat().is_empty() && values.len() < 2 {
        let query = query.and_then(Uri::query).unwrap_or_default();
        let in_query: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| {
                ["lastEventId", "last_event_id", "last-event-id"].contains(&&**name)
            })
            .map(|(_, value)| value.into_owned().into_bytes())
            .collect();
        return expect_one(&in_query.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    expect_one(&values)
}

fn expect_one(values: &[&[u8]]) -> Expect {
    match values {
        [] | [[]] => Expect::Absent,
        [value] => known(value).map_or(Expect::Unknown, |(hi, lo)| Expect::Known(hi, lo)),
        _ => Expect::Unknown,
    }
}

fn known(value: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let [hi, lo] = text
        .split('-')
        .map(number)
        .collect::<Option<Vec<_>>>()?
        .try_into()
        .ok()?;
    Some((hi, lo))
}

fn number(digits: &str) -> Option<u64> {
    let known = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    if digits.is_empty() || digits.len() > 20 || (digits.starts_with('0') && digits != "0") {
        return None;
    }
    let values = digits
        .chars()
        .map(|digit| known.find(digit))
        .collect::<Option<Vec<_>>>()?;
    values
        .iter()
        .try_fold(0u128, |sum, value| {
            Some(sum.checked_mul(64)? + *value as u128)
        })?
        .try_into()
        .ok()
}
