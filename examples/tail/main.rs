//! The output of a command, live in every browser: a page that is opened later gets the newest
//! lines, and a page that was away learns how many lines it missed.
//!
//! Run with
//!
//! ```not_rust
//! journalctl -f | cargo run --release --example tail
//! ```
//!
//! or with the output of any other command, and open <http://127.0.0.1:3000>. `HOST` and `PORT` set
//! the address, `HISTORY` how many lines it keeps.
//!
//! When the input ends or cannot be read, each page gets an `end` event and its stream ends. New
//! pages can still read the lines, until Ctrl-C.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{
    error::Error,
    io::{self, BufRead as _, Read as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use axum_sse::{Channel, Event, LastEventId, Shutdown, SseLayer, Start, event_name};
use support::setting;

/// In bytes. A longer line becomes several; a character that is cut in two shows as �.
const MAX_LINE: u64 = 16 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let lines = Channel::builder()
        .capacity(setting("HISTORY", 1000)?)
        .retry(Duration::from_secs(1))
        // Logs come in bursts: at most ten times a second, a page gets one write with all new lines.
        .coalesce(Duration::from_millis(100))
        .build();
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        .merge(streams)
        .with_state(lines.clone());
    // Reading the standard input blocks, so it has a thread, which ends with the process.
    thread::spawn(move || {
        let result = forward(&lines);
        // Also after an error: no page may wait for lines that never come.
        if let Err(error) = lines.close(Some(&Event::empty().with_name(event_name!("end")))) {
            support::complain(&error);
        }
        match result {
            Ok(()) => support::complain(&"the input has ended; Ctrl-C ends this too"),
            Err(error) => support::complain(&error),
        }
    });
    support::serve(app, &shutdown).await
}

async fn events(State(lines): State<Channel<str>>, last: LastEventId) -> impl IntoResponse {
    lines.subscribe(last).start(Start::Oldest)
}

fn forward(lines: &Channel<str>) -> Result<(), Box<dyn Error>> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    while input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        // Invalid UTF-8 shows as �; JSON carries everything else, control characters too.
        lines.publish(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']))?;
        line.clear();
    }
    Ok(())
}
