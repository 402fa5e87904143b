//! An answer that comes word by word, like a language model's, from a run that is started once: it
//! continues while its page is reloaded or offline, and the page picks it up again.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example answer
//! ```
//!
//! open <http://127.0.0.1:3000>, ask, and reload the page in the middle. `HOST` and `PORT` set the
//! address, `RATE` the number of words per second.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{
    error::Error,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{FromRequestParts, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{Html, IntoResponse, Response},
    routing::{delete, get},
};
use axum_sse::{LastEventId, RunId, Runs, Shutdown, SseLayer};
use serde::{Deserialize, Serialize};
use support::setting;
use tokio_stream::{Stream, StreamExt};

const MAX_PROMPT: usize = 400;

/// One piece of an answer.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Piece {
    Text(String),
    /// The answer is complete. A run that did not complete ends with the event `end` instead, which
    /// the crate sends, with the reason.
    End {
        words: usize,
    },
}

struct Service {
    /// Each run belongs to the visitor who started it.
    runs: Runs<Piece, String>,
    /// How many runs were started: that is what a real model costs.
    started: AtomicU64,
    pace: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let rate: u32 = setting("RATE", 20)?;
    let service = Arc::new(Service {
        runs: Runs::builder()
            .max_runs(500)
            .keep(Duration::from_secs(600))
            .build(),
        started: AtomicU64::new(0),
        pace: Duration::from_secs(1) / rate.max(1),
    });
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/answer", get(answer))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::assets()
        .route("/", get(index))
        .route("/answer", delete(cancel))
        .route("/started", get(started))
        .merge(streams)
        .with_state(service);
    support::serve(app, &shutdown).await
}

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    prompt: String,
}

/// The run that the client's id names; a new one if there is no id.
async fn answer(
    State(service): State<Arc<Service>>,
    Visitor(visitor): Visitor,
    Query(Question { prompt }): Query<Question>,
    last: LastEventId<RunId>,
) -> Response {
    if last.is_absent() && (prompt.trim().is_empty() || prompt.chars().count() > MAX_PROMPT) {
        let rule = format!("a prompt has 1 to {MAX_PROMPT} characters");
        return (StatusCode::BAD_REQUEST, rule).into_response();
    }
    let owned = service.clone();
    let start = move || {
        owned.started.fetch_add(1, Ordering::Relaxed);
        words(&prompt, owned.pace)
    };
    service
        .runs
        .resume_or_start(last, visitor, start)
        .into_response()
}

/// Stands in for a language model.
fn words(prompt: &str, pace: Duration) -> impl Stream<Item = Piece> + Send + use<> {
    let text = format!(
        "You asked: “{}”.\n\n{}",
        prompt.trim(),
        include_str!("answer.txt")
    );
    let words: Vec<_> = text.split_inclusive(' ').map(str::to_owned).collect();
    let end = Piece::End { words: words.len() };
    tokio_stream::iter(words)
        .map(Piece::Text)
        .chain(tokio_stream::once(end))
        .throttle(pace)
}

/// Cancels the run whose id is in the query, as it is for the stream.
async fn cancel(
    State(service): State<Arc<Service>>,
    Visitor(visitor): Visitor,
    id: LastEventId<RunId>,
) -> Response {
    match id.known() {
        Some(id) if service.runs.cancel(id, &visitor) => StatusCode::NO_CONTENT.into_response(),
        _ => (StatusCode::NOT_FOUND, "you have no such run").into_response(),
    }
}

#[derive(Serialize)]
struct Started {
    started: u64,
}

async fn started(State(service): State<Arc<Service>>) -> Json<Started> {
    let started = service.started.load(Ordering::Relaxed);
    Json(Started { started })
}

/// The page, and a cookie that identifies the owner of a run.
async fn index(headers: HeaderMap) -> Result<Response, StatusCode> {
    let mut response = Html(include_str!("index.html")).into_response();
    if Visitor::of(&headers).is_none() {
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let cookie = format!(
            "{}={:032x}; HttpOnly; SameSite=Strict; Path=/",
            Visitor::COOKIE,
            u128::from_le_bytes(token)
        );
        let cookie =
            HeaderValue::try_from(cookie).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The visitor, identified by a secret that only this browser has.
struct Visitor(String);

impl Visitor {
    /// Browsers tell hosts apart by cookie, but not ports.
    const COOKIE: &str = "answer-visitor";

    fn of(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .find_map(|cookie| {
                let (name, value) = cookie.trim().split_once('=')?;
                (name == Self::COOKIE && (1..=64).contains(&value.len()))
                    .then(|| Self(value.to_owned()))
            })
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let missing = "no cookie: open the page first, which sets one";
        Self::of(&parts.headers).ok_or((StatusCode::UNAUTHORIZED, missing))
    }
}
