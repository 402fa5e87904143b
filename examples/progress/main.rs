//! A progress bar: a POST starts a task, and any page that has its address can follow it until it
//! is finished, also after a reload.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example progress
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address, `RATE` how many steps a task
//! makes per second.
//!
//! Here one request starts the task and others read its progress. Where the request that reads the
//! stream also starts the work, and the stream is the result, use `Runs`: see the example `answer`.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::{error::Error, num::NonZeroU16, process::ExitCode, thread, time::Duration};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router, http::StatusCode, response::IntoResponse};
use axum_sse::{Channel, Event, LastEventId, Shutdown, SseLayer, Start};
use serde::Serialize;
use support::setting;

/// Each task has a thread: publishing needs no runtime.
const MAX_RUNNING: usize = 8;
const MAX_KNOWN: usize = 1000;
const BUSY: &str = "too many tasks are running; try again when one is finished";

/// The variant is the name of the event.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Progress {
    Step { done: u16, of: u16 },
    Finished { of: u16 },
}

struct Tasks {
    /// By id, the oldest first. A task that is running is never removed.
    known: Mutex<Vec<(String, Channel<Progress>)>>,
    pace: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let rate: u32 = setting("RATE", 20)?;
    let (known, pace) = (Mutex::default(), Duration::from_secs(1) / rate.max(1));
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/tasks/{task}", get(follow))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        // This accepts only JSON, which a page of another origin cannot send here.
        .route("/tasks", post(start))
        .merge(streams)
        .with_state(Arc::new(Tasks { known, pace }));
    support::serve(app, &shutdown).await
}

/// Takes the number of steps, and returns the id of the task.
async fn start(
    State(tasks): State<Arc<Tasks>>,
    Json(steps): Json<NonZeroU16>,
) -> Result<(StatusCode, String), (StatusCode, &'static str)> {
    let mut known = tasks.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.iter().filter(|(_, task)| !task.is_closed()).count() >= MAX_RUNNING {
        return Err((StatusCode::SERVICE_UNAVAILABLE, BUSY));
    }
    if known.len() >= MAX_KNOWN {
        let oldest = known.iter().position(|(_, task)| task.is_closed());
        oldest.map(|at| known.remove(at));
    }
    // A bar needs only the newest step: a page that was away can skip the others.
    let builder = Channel::builder().capacity(1).retry(Duration::from_secs(1));
    let (channel, pace) = (builder.named().build(), tasks.pace);
    // Random, by keys from the system: nobody can guess it, and no restart repeats it.
    let id = format!("{:016x}", RandomState::new().hash_one(steps));
    known.push((id.clone(), channel.clone()));
    thread::spawn(move || {
        if let Err(error) = work(&channel, steps.get(), pace) {
            support::complain(&error);
            let _ = channel.close(None);
        }
    });
    Ok((StatusCode::ACCEPTED, id))
}

fn work(channel: &Channel<Progress>, of: u16, pace: Duration) -> Result<(), axum_sse::Error> {
    for done in 0..=of {
        channel.publish(&Progress::Step { done, of })?;
        thread::sleep(pace);
    }
    // This ends the stream, too: a browser that reconnects gets a 204 and gives up.
    channel.close(Some(&Event::named(&Progress::Finished { of })?))?;
    Ok(())
}

async fn follow(
    State(tasks): State<Arc<Tasks>>,
    Path(id): Path<String>,
    last: LastEventId,
) -> Result<impl IntoResponse, (StatusCode, &'static str)> {
    let known = tasks.known.lock().unwrap_or_else(PoisonError::into_inner);
    let task = known.iter().find(|(known, _)| *known == id);
    let (_, channel) = task.ok_or((StatusCode::NOT_FOUND, "there is no such task"))?;
    Ok(channel.subscribe(last).start(Start::Newest(1)))
}
