//! A channel whose connections are cut.
//!
//! | connection | what happens to it |
//! | --- | --- |
//! | 1 | over the layer's limit: an empty stream with a `retry` |
//! | 2 | receives a checkpoint and, after heartbeats, live events; breaks inside an event |
//! | 3 | resumes with that event; the stream ends after a whole event |
//! | 4 | resumes; the stream ends inside an event |
//! | 5 | receives the rest and, after heartbeats, a live event and the last event |
//! | 6 | receives a 204, which ends reconnecting |

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    response::Response,
    routing::get,
};
use axum_sse::{Channel, Event, Heartbeat, LastEventId, Sse, SseLayer, event_name, layer::Limits};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tower::ServiceExt;

use crate::{App, Expected, Failure, HEARTBEAT, Which, beats::Beats, lock};

pub(crate) const TYPES: [&str; 5] = ["checkpoint", "message", "counted", "note", "closed"];

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Number {
    Counted(u64),
}

/// The channel and the connections of one client.
#[derive(Default)]
pub(crate) struct Run {
    channel: OnceLock<Channel<Number>>,
    expected: Mutex<Vec<Expected>>,
    /// The `Last-Event-ID` of each connection.
    last_ids: Mutex<Vec<String>>,
}

/// The `Last-Event-ID` of each connection, expected and received.
#[derive(Serialize)]
pub(crate) struct Connections {
    expected: Vec<String>,
    got: Vec<String>,
}

impl Run {
    pub(crate) fn expected(&self) -> Vec<Expected> {
        lock(&self.expected).clone()
    }

    pub(crate) fn connections(&self) -> Connections {
        let expected = lock(&self.expected);
        // How many events the client has received before each connection: none before the first
        // two, then the checkpoint and three events, and so on.
        let seen = [0, 0, 4, 6, 7, 12];
        let id = |seen: usize| match seen {
            0 => String::new(),
            seen => expected
                .get(seen - 1)
                .map_or_else(String::new, |event| event.last_event_id.clone()),
        };
        Connections {
            expected: seen.map(id).into(),
            got: lock(&self.last_ids).clone(),
        }
    }

    fn channel(&self) -> Result<&Channel<Number>, axum_sse::Error> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel);
        }
        let heartbeat = Heartbeat::every(HEARTBEAT);
        Ok(self.channel.get_or_init(|| {
            let channel = Channel::builder()
                .retry(Duration::from_millis(500))
                .heartbeat(heartbeat)
                .named()
                .build();
            let start = Some(channel.newest().to_string());
            lock(&self.expected).push(Expected::new("a checkpoint", "checkpoint", "", start, None));
            channel
        }))
    }

    fn count(&self, numbers: impl IntoIterator<Item = u64>) -> Result<(), axum_sse::Error> {
        let channel = self.channel()?;
        for n in numbers {
            let (r#type, data, id) = match n % 3 {
                0 => {
                    let note = Event::text("two\nlines")?.with_name(event_name!("note"));
                    ("note", "two\nlines", channel.publish_event(&note)?)
                }
                2 => ("message", "", channel.publish_event(&Event::empty())?),
                _ => {
                    let id = channel.publish(&Number::Counted(n * 1000))?;
                    ("counted", &*(n * 1000).to_string(), id)
                }
            };
            let id = id.id().map(|id| id.to_string());
            let event = Expected::new("a live or replayed event", r#type, data, id, None);
            lock(&self.expected).push(event);
        }
        Ok(())
    }

    fn close(&self) -> Result<(), axum_sse::Error> {
        let last = Event::text("bye")?.with_name(event_name!("closed"));
        let published = self.channel()?.close(Some(&last))?;
        if let Some(id) = published.and_then(|last| last.id()) {
            let event = Expected::new("the end", "closed", "bye", Some(id.to_string()), None);
            lock(&self.expected).push(event);
        }
        Ok(())
    }
}

pub(crate) async fn connect(
    State(app): State<Arc<App>>,
    Query(which): Query<Which>,
    last: LastEventId,
    request: Request,
) -> Result<Response, Failure> {
    let run = app.run(&which.run);
    let channel = run.channel()?;
    let connection = {
        let header = request.headers().get("last-event-id");
        let id = header.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let mut last_ids = lock(&run.last_ids);
        last_ids.push(id.unwrap_or_default());
        last_ids.len()
    };
    if connection == 1 {
        return Ok(over_limit(request).await);
    }
    let mut beats = Beats::new();
    let response = beats.counted(channel.subscribe(last));
    Ok(match connection {
        2 => {
            tokio::spawn(async move {
                beats.more(2).await;
                run.count(1..=9)
            });
            response.map(|body| cut(body, 4, Cut::Broken))
        }
        3 => response.map(|body| cut(body, 2, Cut::Ended)),
        4 => response.map(|body| cut(body, 1, Cut::EndedInside)),
        5 => {
            tokio::spawn(async move {
                beats.more(2).await;
                run.count(10..=10)?;
                run.close()
            });
            response
        }
        _ => response,
    })
}

/// The response of an app that has reached its limit of open streams.
async fn over_limit(request: Request) -> Response {
    let limits = Limits::new().total(0).return_after(Duration::ZERO);
    let full = Router::new()
        .fallback(get(async || Sse::new(stream::pending::<u64>())))
        .layer(SseLayer::new().limits(limits));
    match full.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// The stream ends after a whole event.
    Ended,
    /// The stream ends inside an event, as from a proxy that has lost its server.
    EndedInside,
    /// The connection breaks before the blank line of an event, and the client sees an error.
    Broken,
}

/// Forwards `events` events, and then cuts the body.
fn cut(body: Body, events: usize, cut: Cut) -> Body {
    enum State<S> {
        Passing(S, usize),
        Breaking,
        Over,
    }
    let start = State::Passing(body.into_data_stream(), events);
    Body::from_stream(stream::unfold(start, move |state| async move {
        match state {
            State::Passing(mut chunks, left) => {
                let chunk = chunks.next().await?.ok()?;
                let ends = ends_of_events(&chunk);
                let cut_at = match cut {
                    Cut::Ended if left > 0 => ends.get(left - 1).copied(),
                    Cut::Ended => Some(0),
                    Cut::EndedInside => ends.get(left).map(|end| end - 4),
                    Cut::Broken => ends.get(left).map(|end| end - 1),
                };
                Some(match cut_at {
                    None => (Ok(chunk), State::Passing(chunks, left - ends.len())),
                    Some(at) if cut == Cut::Broken => (Ok(chunk.slice(..at)), State::Breaking),
                    Some(at) => (Ok(chunk.slice(..at)), State::Over),
                })
            }
            State::Breaking => {
                // Let the server send the last chunk before the error.
                tokio::task::yield_now().await;
                Some((Err(io::Error::other("cut")), State::Over))
            }
            State::Over => None,
        }
    }))
}

/// A chunk of this crate's bodies contains whole events, so none begins in another chunk.
fn ends_of_events(chunk: &[u8]) -> Vec<usize> {
    let mut start = 0;
    let pairs = chunk.windows(2).enumerate();
    let blank = pairs.filter(|(_, pair)| *pair == b"\n\n");
    let ends = blank.map(|(at, _)| at + 2);
    ends.filter(|&end| {
        let block = &chunk[start..end];
        start = end;
        block.windows(5).any(|bytes| bytes == b"data:")
    })
    .collect()
}
