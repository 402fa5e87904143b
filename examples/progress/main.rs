//! A job's progress bar: a POST starts the job, and whoever has its address follows it, from as
//! many pages as like to, reloaded as often as they like, until it is finished.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example progress
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` say where it listens, `RATE` how many
//! steps a job does in a second.
//!
//! The job here is started by a request of its own, and its progress is all that there is to
//! read. Where the stream is the result, and starts with the request that reads it, take `Runs`:
//! see the example `answer`.

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

/// Each has a thread: publishing needs no runtime.
const MAX_RUNNING: usize = 8;
const MAX_KNOWN: usize = 1000;
const BUSY: &str = "too many jobs are running; try again when one is finished";

/// The variant is the name of the event.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Progress {
    Step { done: u16, of: u16 },
    Finished { of: u16 },
}

struct Jobs {
    /// By id, the oldest first; one that runs is never forgotten.
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
        .route("/jobs/{job}", get(follow))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        // Only JSON is taken, which a page of another origin cannot send here.
        .route("/jobs", post(start))
        .merge(streams)
        .with_state(Arc::new(Jobs { known, pace }));
    support::serve(app, &shutdown).await
}

/// Takes the number of steps, and answers with the id of the job.
async fn start(
    State(jobs): State<Arc<Jobs>>,
    Json(steps): Json<NonZeroU16>,
) -> Result<(StatusCode, String), (StatusCode, &'static str)> {
    let mut known = jobs.known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.iter().filter(|(_, job)| !job.is_closed()).count() >= MAX_RUNNING {
        return Err((StatusCode::SERVICE_UNAVAILABLE, BUSY));
    }
    if known.len() >= MAX_KNOWN {
        let oldest = known.iter().position(|(_, job)| job.is_closed());
        oldest.map(|at| known.remove(at));
    }
    // To a bar only the newest step matters: whoever was away needs none of those before.
    let builder = Channel::builder().capacity(1).retry(Duration::from_secs(1));
    let (channel, pace) = (builder.named().build(), jobs.pace);
    // Random, by keys from the system: not to be guessed, and another one after a restart.
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
    // The end comes with it: a browser that comes back is told by a 204 to stay away.
    channel.close(Some(&Event::named(&Progress::Finished { of })?))?;
    Ok(())
}

async fn follow(
    State(jobs): State<Arc<Jobs>>,
    Path(id): Path<String>,
    last: LastEventId,
) -> Result<impl IntoResponse, (StatusCode, &'static str)> {
    let known = jobs.known.lock().unwrap_or_else(PoisonError::into_inner);
    let job = known.iter().find(|(known, _)| *known == id);
    let (_, channel) = job.ok_or((StatusCode::NOT_FOUND, "there is no such job"))?;
    Ok(channel.subscribe(last).start(Start::Newest(1)))
}
