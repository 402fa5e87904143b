//! Everything that the API accepts comes out of a parser unchanged, and anything else is an error.

use std::time::Duration;

use axum::response::IntoResponse;
use axum_sse::{
    Channel, ErrorKind, Event, EventName, Sse, Start,
    testing::{Item, Message, Parser},
};
use futures_util::stream;
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::input::Input;

#[derive(Serialize)]
enum Named {
    Text(String),
    #[serde(rename = "a name: of its own ")]
    Odd {
        value: Value,
    },
    Unit,
}

/// What a client must see of one event.
#[derive(Clone)]
struct Sent {
    event: Event,
    comment: Option<String>,
    retry: Option<u64>,
    name: Option<String>,
    /// An empty id makes clients forget theirs.
    id: Option<String>,
    data: Option<String>,
}

pub(crate) fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let events: Vec<Sent> = (0..=input.below(6)).map(|_| sent(&mut input)).collect();
    let chunks = input.rest();

    let bytes: Vec<u8> = events
        .iter()
        .flat_map(|sent| sent.event.to_bytes())
        .collect();
    assert!(!bytes.contains(&b'\r'), "rule 4");
    assert_eq!(parse(&bytes, chunks), expected(&events), "Event::to_bytes");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let values: Vec<Event> = events.iter().map(|sent| sent.event.clone()).collect();
        let body = Sse::new(stream::iter(values)).into_response().into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(parse(&bytes, chunks), expected(&events), "Sse");
        through_a_channel(&events, chunks).await;
    });
}

/// A channel assigns the ids, and accepts what does not interfere with its own events.
async fn through_a_channel(events: &[Sent], chunks: &[u8]) {
    let channel: Channel<str> = Channel::new();
    let mut all = Vec::new();
    for Sent {
        event,
        comment,
        retry,
        name,
        id,
        data,
    } in events
    {
        let reserved = matches!(name.as_deref(), Some("gap" | "checkpoint"));
        let (None, None, Some(data), false) = (id, retry, data, reserved) else {
            let error = channel.publish_event(event).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotPublishable, "{event:?}");
            continue;
        };
        let id = channel.publish_event(event).unwrap().id().unwrap();
        all.extend(comment.iter().flat_map(|text| comments(text)));
        all.push(message(name.as_deref(), data, &id.to_string()));
    }
    channel.close(None).unwrap();
    if all.is_empty() {
        return;
    }
    let body = channel
        .subscribe(axum_sse::LastEventId::Absent)
        .start(Start::Oldest)
        .into_response()
        .into_body();
    let bytes = body.collect().await.unwrap().to_bytes();
    assert_eq!(parse(&bytes, chunks), all, "Channel");
}

fn sent(input: &mut Input<'_>) -> Sent {
    let mut sent = start(input);
    if input.flag() {
        name(&mut sent, &input.text());
    }
    if input.flag() {
        comment(&mut sent, input.text());
    }
    match input.below(4) {
        0 => {}
        1 => {
            sent.event = sent.event.clear_id();
            sent.id = Some(String::new());
        }
        2 => id(&mut sent, &input.text()),
        _ => id(&mut sent, &String::from_utf8_lossy(input.bytes())),
    }
    if input.flag() {
        // From zero to some years, with fractions of a millisecond.
        let time =
            Duration::from_nanos(1 << input.below(62)) + Duration::from_micros(input.byte().into());
        let (day, half_a_second) = (86_400_000_000_000, 500_000_000);
        let millis = time
            .as_nanos()
            .clamp(half_a_second, day)
            .div_ceil(1_000_000);
        sent.event = sent.event.retry(time);
        sent.retry = Some(millis.try_into().unwrap());
    }
    sent
}

fn start(input: &mut Input<'_>) -> Sent {
    let of = |event: Event, data: Option<String>| Sent {
        event,
        comment: None,
        retry: None,
        name: None,
        id: None,
        data,
    };
    match input.below(7) {
        0 => {
            let text = input.text();
            match Event::text(&text) {
                Ok(event) => {
                    assert!(!text.contains('\0'));
                    of(event, Some(lines(&text).join("\n")))
                }
                Err(error) => {
                    assert!(text.contains('\0') && error.kind() == ErrorKind::InvalidText);
                    of(Event::empty(), Some(String::new()))
                }
            }
        }
        1 => of(Event::empty(), Some(String::new())),
        2 => {
            let mut sent = of(Event::comment("").unwrap(), None);
            sent.comment = Some(String::new());
            comment(&mut sent, input.text());
            sent
        }
        3 => {
            let value = value(input, 0);
            of(Event::json(&value).unwrap(), Some(value.to_string()))
        }
        4 => {
            // Copied verbatim, whatever line breaks are between its tokens.
            let text = input.text();
            match serde_json::from_str::<Box<RawValue>>(&text) {
                Ok(raw) => of(
                    Event::json(&raw).unwrap(),
                    Some(lines(raw.get()).join("\n")),
                ),
                Err(_) => of(Event::empty(), Some(String::new())),
            }
        }
        5 => {
            let (value, name) = match input.below(3) {
                0 => (Named::Text(input.text()), "Text"),
                1 => (
                    Named::Odd {
                        value: value(input, 0),
                    },
                    "a name: of its own ",
                ),
                _ => (Named::Unit, "Unit"),
            };
            let data = match &value {
                Named::Text(text) => Value::from(text.as_str()),
                Named::Odd { value } => serde_json::json!({ "value": value }),
                Named::Unit => Value::Null,
            };
            let mut sent = of(Event::named(&value).unwrap(), Some(data.to_string()));
            sent.name = Some(name.to_owned());
            sent
        }
        _ => {
            let text = input.text();
            let error = Event::named(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotAVariant);
            of(
                Event::json(&text).unwrap(),
                Some(Value::from(text).to_string()),
            )
        }
    }
}

fn value(input: &mut Input<'_>, depth: usize) -> Value {
    match input.below(if depth < 4 { 7 } else { 5 }) {
        0 => Value::Null,
        1 => input.flag().into(),
        2 => (i64::from(input.byte()) << input.below(56)).into(),
        3 => (f64::from(input.byte()) / 7.0).into(),
        4 => input.text().into(),
        5 => (0..input.below(4))
            .map(|_| value(input, depth + 1))
            .collect(),
        _ => (0..input.below(4))
            .map(|_| (input.text(), value(input, depth + 1)))
            .collect(),
    }
}

fn name(sent: &mut Sent, name: &str) {
    let bad = name.contains(['\n', '\r', '\0']) || name == "error";
    match sent.event.clone().name(name) {
        Ok(event) => {
            assert!(!bad, "{name:?} was taken");
            sent.event = event;
            sent.name = (!name.is_empty()).then(|| name.to_owned());
        }
        Err(error) => assert!(
            bad && error.kind() == ErrorKind::InvalidName,
            "{name:?}: {error}"
        ),
    }
    assert_eq!(EventName::new(name).is_err(), bad || name.is_empty());
}

fn comment(sent: &mut Sent, text: String) {
    match sent.event.clone().with_comment(text.as_str()) {
        Ok(event) => {
            assert!(!text.contains('\0'));
            sent.event = event;
            sent.comment = Some(text);
        }
        Err(error) => assert!(text.contains('\0') && error.kind() == ErrorKind::InvalidText),
    }
}

fn id(sent: &mut Sent, id: &str) {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+,-./;=^_`|~".contains(&byte);
    let good = sent.data.is_some() && (1..=128).contains(&id.len()) && id.bytes().all(safe);
    match sent.event.clone().id(id) {
        Ok(event) => {
            assert!(good, "{id:?} was taken");
            sent.event = event;
            sent.id = Some(id.to_owned());
        }
        Err(error) => assert!(
            !good && error.kind() == ErrorKind::InvalidId,
            "{id:?}: {error}"
        ),
    }
}

/// The lines of a text: CRLF, CR and LF each end one.
fn lines(text: &str) -> Vec<String> {
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .split('\n')
        .map(str::to_owned)
        .collect()
}

fn comments(text: &str) -> Vec<Item> {
    lines(text)
        .iter()
        .map(|line| Item::Comment(format!(" {line}")))
        .collect()
}

fn message(name: Option<&str>, data: &str, id: &str) -> Item {
    let (event, data) = (name.unwrap_or("message").to_owned(), data.to_owned());
    Item::Message(Message {
        event,
        data,
        last_event_id: id.to_owned(),
    })
}

fn expected(events: &[Sent]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut last_id = String::new();
    for Sent {
        event: _,
        comment,
        retry,
        name,
        id,
        data,
    } in events
    {
        items.extend(comment.iter().flat_map(|text| comments(text)));
        items.extend(retry.map(Item::Retry));
        let Some(data) = data else { continue };
        if let Some(id) = id {
            last_id.clone_from(id);
        }
        items.push(message(name.as_deref(), data, &last_id));
    }
    items
}

/// What a client parses from these bytes, if they arrive in pieces of these sizes.
fn parse(bytes: &[u8], sizes: &[u8]) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    let mut rest = bytes;
    for size in sizes {
        let (piece, behind) = rest.split_at(usize::from(*size).min(rest.len()));
        items.extend(parser.push(piece));
        rest = behind;
    }
    items.extend(parser.push(rest));
    // An empty comment is a heartbeat: our own comments always have a space.
    items.retain(|item| *item != Item::Comment(String::new()));
    items
}
