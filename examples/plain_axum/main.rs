//! axum's own `Sse` under `SseLayer`: the handler stays as it is, and its streams get the right
//! response headers, CORS, limits, a lifetime, and an end at shutdown.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example plain_axum
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address, `ORIGINS` the other origins
//! whose pages may read the stream, `STREAMS` how many may be open, and each ends after at most
//! `LIFETIME` seconds: in the last quarter of that time, so that not all reconnect at once.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{convert::Infallible, error::Error, future, process::ExitCode, time::Duration};

use axum::{
    Json, Router,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
};
use axum_sse::{OriginAllowlist, Shutdown, SseLayer, layer::Limits};
use support::setting;
use tokio::time;
use tokio_stream::{Stream, StreamExt, wrappers::IntervalStream};

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let origins: OriginAllowlist = setting("ORIGINS", "http://localhost:5173".parse()?)?;
    let limits = Limits::new()
        .total(setting("STREAMS", 3)?)
        .return_after(Duration::from_secs(2));
    let open = limits.clone();
    let shutdown = Shutdown::new();
    // All of axum-sse in this example.
    let layer = SseLayer::new()
        .origins(origins)
        .limits(limits)
        .lifetime(Duration::from_secs(setting("LIFETIME", 30)?))
        .shutdown(shutdown.clone());
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(layer);
    let app = page::router(include_str!("index.html"))
        .route("/open", get(move || future::ready(Json(open.open()))))
        .merge(streams);
    support::serve(app, &shutdown).await
}

/// A plain axum handler.
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let seconds = IntervalStream::new(time::interval(Duration::from_secs(1)));
    let mut n = 0_u64;
    let ticks = seconds.map(move |_| {
        n += 1;
        Ok(Event::default().data(n.to_string()))
    });
    Sse::new(ticks).keep_alive(KeepAlive::default())
}
