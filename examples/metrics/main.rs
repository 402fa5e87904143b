//! The metrics of a channel in the format of Prometheus, by the feature `metrics` and an exporter of
//! the `metrics` crate.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example metrics --features metrics
//! ```
//!
//! and open <http://127.0.0.1:3000>; Prometheus would read <http://127.0.0.1:3000/metrics>.
//! `HOST` and `PORT` set the address, `RATE` the number of events per second, `HISTORY` how many of
//! them a reconnecting page can catch up on.
//!
//! A channel that has subscribers reports once per heartbeat interval, which is a second here.
//! Metrics add nothing to the cost of an event.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{error::Error, future, process::ExitCode, thread, time::Duration};

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use axum_sse::{Channel, Heartbeat, LastEventId, Shutdown, SseLayer, layer::Limits};
use metrics_exporter_prometheus::PrometheusBuilder;
use support::setting;

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let rate: u32 = setting("RATE", 10)?;
    // The one recorder of the process. An app with histograms must also call
    // `prometheus.run_upkeep()` now and then.
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    let channel = Channel::builder()
        // The value of the label `hub`. A channel without a name reports nothing.
        .name("numbers")
        .capacity(setting("HISTORY", 100)?)
        .retry(Duration::from_secs(1))
        .heartbeat(Heartbeat::every(Duration::from_secs(1)))
        .build();
    // The layer counts open streams; the channel cannot know them. The app reports them itself.
    let limits = Limits::new().total(1000);
    let open = limits.clone();
    let metrics = move || {
        metrics::gauge!("streams_open").set(open.open() as f64);
        let text = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
        future::ready((text, prometheus.render()))
    };

    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().limits(limits).shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        .route("/metrics", get(metrics))
        .merge(streams)
        .with_state(channel.clone());
    thread::spawn(move || count(&channel, Duration::from_secs(1) / rate.max(1)));
    support::serve(app, &shutdown).await
}

async fn events(State(channel): State<Channel<u64>>, last: LastEventId) -> impl IntoResponse {
    channel.subscribe(last)
}

/// Publishes numbers, for as long as the process lives.
fn count(channel: &Channel<u64>, pace: Duration) {
    for n in 1.. {
        thread::sleep(pace);
        if let Err(error) = channel.publish(&n) {
            support::complain(&error);
        }
    }
}
