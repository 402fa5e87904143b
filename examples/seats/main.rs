//! A seat map that many people change at once: a page gets one snapshot and then every change, so
//! it always matches the server.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example seats
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address, `HISTORY` how many changes
//! a reconnecting page can catch up on, `RATE` how many random changes are made per second (0 for
//! none).

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    error::Error,
    hash::BuildHasher,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use axum_sse::{Channel, EventId, LastEventId, Published, Shutdown, SseLayer, StateChannel};
use serde::{Deserialize, Serialize};
use support::setting;

const ROWS: [char; 10] = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J'];
const SEATS_PER_ROW: u8 = 10;
const MAX_NAME: usize = 24;
const GUESTS: [&str; 8] = ["Ada", "Alan", "Carl", "Emmy", "Ida", "Kurt", "Lise", "Tony"];

/// The state: each seat, and the name of the person who has it.
type Seats = BTreeMap<String, Option<String>>;

/// A change of the state. The variant is the name of the event.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Taken { seat: String, by: String },
    Freed { seat: String },
}

fn apply(seats: &mut Seats, change: &Change) {
    match change {
        Change::Taken { seat, by } => seats.insert(seat.clone(), Some(by.clone())),
        Change::Freed { seat } => seats.insert(seat.clone(), None),
    };
}

struct Theatre {
    seats: StateChannel<Seats, Change>,
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let rate: u32 = setting("RATE", 5)?;
    let channel = Channel::builder()
        .capacity(setting("HISTORY", 100)?)
        .retry(Duration::from_secs(1))
        .named()
        .build();
    let seats = ROWS
        .into_iter()
        .flat_map(|row| (1..=SEATS_PER_ROW).map(move |number| (format!("{row}{number}"), None)))
        .collect();
    let theatre = Arc::new(Theatre {
        seats: StateChannel::on(channel, seats, apply)?,
    });

    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        .route("/checksum", get(checksum))
        // Neither method can be sent here by a page of another origin.
        .route("/seats/{seat}", put(take).delete(free))
        .layer(DefaultBodyLimit::max(1024))
        .merge(streams)
        .with_state(theatre.clone());
    if rate > 0 {
        thread::spawn(move || theatre.make_random_changes(Duration::from_secs(1) / rate));
    }
    support::serve(app, &shutdown).await
}

async fn events(State(theatre): State<Arc<Theatre>>, last: LastEventId) -> impl IntoResponse {
    theatre.seats.subscribe(last)
}

#[derive(Serialize)]
struct Checksum {
    id: EventId,
    checksum: u32,
}

/// The checksum that a page's state must have once the page has reached `id`.
async fn checksum(State(theatre): State<Arc<Theatre>>) -> Result<Json<Checksum>, Refusal> {
    let channel = theatre.seats.channel();
    let checksum = theatre.seats.read(|seats| Checksum {
        // Publishing takes the lock that is held here, so `id` and checksum belong together.
        id: channel.newest(),
        checksum: fnv1a(seats),
    })?;
    Ok(Json(checksum))
}

fn fnv1a(seats: &Seats) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for (seat, by) in seats {
        let by = by.as_deref().unwrap_or_default();
        for byte in [seat, "=", by, "\n"].iter().flat_map(|part| part.bytes()) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    hash
}

#[derive(Deserialize)]
struct Visitor {
    by: String,
}

#[derive(Serialize)]
struct Done {
    id: EventId,
}

async fn take(
    State(theatre): State<Arc<Theatre>>,
    Path(seat): Path<String>,
    Json(Visitor { by }): Json<Visitor>,
) -> Result<Json<Done>, Refusal> {
    let fits = |char: char| char.is_alphanumeric() || char == '-' || char == '_';
    if by.is_empty() || by.chars().count() > MAX_NAME || !by.chars().all(fits) {
        let rule = format!("a name has 1 to {MAX_NAME} letters, digits, '-' or '_'");
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, rule));
    }
    let taken = theatre.change(&seat, |now| match now {
        Some(other) => Err(format!("{seat} is taken by {other}")),
        None => Ok(Change::Taken {
            seat: seat.clone(),
            by: by.clone(),
        }),
    })?;
    let id = taken.await?;
    Ok(Json(Done { id }))
}

async fn free(
    State(theatre): State<Arc<Theatre>>,
    Path(seat): Path<String>,
    Json(Visitor { by }): Json<Visitor>,
) -> Result<Json<Done>, Refusal> {
    let freed = theatre.change(&seat, |now| match now {
        Some(owner) if owner == by => Ok(Change::Freed { seat: seat.clone() }),
        Some(other) => Err(format!("{seat} is taken by {other}")),
        None => Err(format!("{seat} is free")),
    })?;
    let id = freed.await?;
    Ok(Json(Done { id }))
}

impl Theatre {
    /// Publishes the change that `decide` returns for the seat's current occupant.
    fn change(
        &self,
        seat: &str,
        decide: impl FnOnce(Option<String>) -> Result<Change, String>,
    ) -> Result<Published, Refusal> {
        self.seats.update(|seats| {
            let Some(now) = seats.get(seat) else {
                let what = "there is no such seat; they go from A1 to J10".to_owned();
                return Err(Refusal(StatusCode::NOT_FOUND, what));
            };
            decide(now.clone()).map_err(|why| Refusal(StatusCode::CONFLICT, why))
        })
    }

    /// Lets guests come and go until the process exits.
    fn make_random_changes(&self, every: Duration) {
        let random = RandomState::new();
        for n in 0_u64.. {
            thread::sleep(every);
            let pick = |of: usize, what: &str| {
                let choice = random.hash_one((n, what)) % of as u64;
                usize::try_from(choice).unwrap_or_default()
            };
            let row = ROWS[pick(ROWS.len(), "row")];
            let seat = format!("{row}{}", 1 + pick(SEATS_PER_ROW.into(), "number"));
            let guest = GUESTS[pick(GUESTS.len(), "guest")];
            let made = self.change(&seat, |now| match now {
                None => Ok(Change::Taken {
                    seat: seat.clone(),
                    by: guest.to_owned(),
                }),
                Some(by) if GUESTS.contains(&&*by) => Ok(Change::Freed { seat: seat.clone() }),
                Some(visitor) => Err(format!("{visitor} sits there")),
            });
            if let Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, why)) = made {
                support::complain(&why);
            }
        }
    }
}

struct Refusal(StatusCode, String);

impl From<axum_sse::Error> for Refusal {
    fn from(error: axum_sse::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
