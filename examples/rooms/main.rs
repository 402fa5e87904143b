//! Chat rooms, and a private channel for each name: many channels on one connection, and one id
//! that resumes all of them.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example rooms
//! ```
//!
//! and open <http://127.0.0.1:3000> in two tabs. `HOST` and `PORT` set the address, `HISTORY` how
//! many messages each room keeps.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_sse::{Channel, ErrorKind, EventId, Hub, LastEventId, Shutdown, SseLayer, Start};
use serde::{Deserialize, Serialize};
use support::setting;

const ROOMS: [&str; 4] = ["lobby", "rust", "music", "weather"];
/// How many messages of each channel a new page gets.
const SHOWN: u64 = 50;
const MAX_NAME: usize = 24;
const MAX_TEXT: usize = 2000;

/// The type of every channel. The variant is the name of the event, so a page listens for `said`
/// and for `whispered`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Message {
    Said {
        room: &'static str,
        from: Name,
        text: Text,
        at: u64,
    },
    Whispered {
        from: Name,
        to: Name,
        text: Text,
        at: u64,
    },
}

struct Chat {
    hub: Hub,
    /// The hub never drops a channel whose handle is held: these stay. Those of the users come and
    /// go.
    rooms: BTreeMap<&'static str, Channel<Message>>,
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder()
        .capacity(setting("HISTORY", 200)?)
        .retry(Duration::from_secs(1))
        // Anyone can invent names, and each name is a channel.
        .max_channels(10_000)
        .named()
        .build();
    let rooms = ROOMS
        .into_iter()
        .map(|room| Ok((room, hub.channel(format!("room/{room}"))?)))
        .collect::<Result<_, axum_sse::Error>>()?;
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        .route("/rooms", get(async || Json(ROOMS)))
        // These accept only JSON, which a page of another origin cannot send here.
        .route("/rooms/{room}", post(say))
        .route("/users/{name}", post(whisper))
        .layer(DefaultBodyLimit::max(16 * 1024))
        .merge(streams)
        .with_state(Arc::new(Chat { hub, rooms }));
    support::serve(app, &shutdown).await
}

#[derive(Deserialize)]
struct Wanted {
    /// Not authenticated. A hub does not check permissions: where private means private, take the
    /// name from a session, and authorize each room too.
    name: Name,
    /// Separated by commas.
    #[serde(default)]
    rooms: String,
}

async fn events(
    State(chat): State<Arc<Chat>>,
    Query(wanted): Query<Wanted>,
    last: LastEventId,
) -> Result<impl IntoResponse, Refusal> {
    let mut channels = vec![format!("user/{}", wanted.name)];
    for room in wanted.rooms.split(',').filter(|room| !room.is_empty()) {
        let (room, _) = chat.room(room)?;
        channels.push(format!("room/{room}"));
    }
    Ok(chat
        .hub
        .subscribe(channels, last)
        .start(Start::Newest(SHOWN)))
}

#[derive(Deserialize)]
struct Draft {
    from: Name,
    text: Text,
}

#[derive(Serialize)]
struct Posted {
    id: EventId,
}

async fn say(
    State(chat): State<Arc<Chat>>,
    Path(room): Path<String>,
    Json(Draft { from, text }): Json<Draft>,
) -> Result<Json<Posted>, Refusal> {
    let (room, channel) = chat.room(&room)?;
    let said = channel.publish(&Message::Said {
        room,
        from,
        text,
        at: unix_millis(),
    })?;
    let id = said.await?;
    Ok(Json(Posted { id }))
}

async fn whisper(
    State(chat): State<Arc<Chat>>,
    Path(to): Path<Name>,
    Json(Draft { from, text }): Json<Draft>,
) -> Result<Json<Posted>, Refusal> {
    let message = Message::Whispered {
        from: from.clone(),
        to: to.clone(),
        text,
        at: unix_millis(),
    };
    let id = chat.user(&to)?.publish(&message)?.await?;
    // The sender's pages show it too.
    if from != to {
        chat.user(&from)?.publish(&message)?;
    }
    Ok(Json(Posted { id }))
}

impl Chat {
    fn room(&self, name: &str) -> Result<(&'static str, &Channel<Message>), Refusal> {
        match self.rooms.get_key_value(name) {
            Some((name, channel)) => Ok((name, channel)),
            None => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!("no room has that name; there are {}", ROOMS.join(", ")),
            )),
        }
    }

    fn user(&self, name: &Name) -> Result<Channel<Message>, axum_sse::Error> {
        self.hub.channel(format!("user/{name}"))
    }
}

/// A name that is safe in a channel's name and on a page.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Name(String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = |char: char| char.is_alphanumeric() || char == '-' || char == '_';
        if name.is_empty() || name.chars().count() > MAX_NAME || !name.chars().all(fits) {
            return Err(format!(
                "a name has 1 to {MAX_NAME} letters, digits, '-' or '_'"
            ));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Text(String);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the text is empty".to_owned());
        }
        if text.chars().count() > MAX_TEXT {
            return Err(format!("a text has at most {MAX_TEXT} characters"));
        }
        Ok(Self(text))
    }
}

struct Refusal(StatusCode, String);

impl From<axum_sse::Error> for Refusal {
    fn from(error: axum_sse::Error) -> Self {
        let status = match error.kind() {
            ErrorKind::TooManyChannels => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
