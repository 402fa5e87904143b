//! Events from a Rust enum, matched in TypeScript: the variant is the name of the event, its
//! content the data, and the page switches on a discriminated union.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example typed
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address, `PACE` the milliseconds
//! between two events.
//!
//! You would write `client.ts`; `tsc` compiled it to `client.js`, so that the page needs no build. A
//! test keeps the enum and the union in step: this program sends each variant in turn, and the
//! TypeScript compiler checks what it sent.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{error::Error, iter, process::ExitCode, thread, time::Duration};

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use axum_sse::{Channel, LastEventId, Shutdown, SseLayer, Start};
use serde::Serialize;
use support::setting;

/// What happens in a shop.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum Update {
    Opened,
    Placed {
        order: u32,
        items: Vec<&'static str>,
        gift_note: Option<String>,
    },
    Paid {
        order: u32,
        // JavaScript's numbers are exact up to 2^53: a `u64` would have to travel as text.
        cents: u32,
        by: Means,
    },
    OutForDelivery(u32), // The order's number.
    Delivered(u32),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Means {
    Card,
    Transfer,
}

/// Each variant in turn. A new variant does not compile until it has a place here.
fn next(before: &Update) -> Option<Update> {
    let second = |order: u32| order.is_multiple_of(2);
    let placed = |order: u32| Update::Placed {
        order,
        items: vec!["a lamp", "two bulbs"],
        gift_note: second(order).then(|| "For your desk".to_owned()),
    };
    Some(match *before {
        Update::Opened => placed(1),
        Update::Placed { order, .. } => Update::Paid {
            order,
            cents: 5980,
            by: if second(order) {
                Means::Transfer
            } else {
                Means::Card
            },
        },
        Update::Paid { order, .. } => Update::OutForDelivery(order),
        Update::OutForDelivery(order) => Update::Delivered(order),
        Update::Delivered(order) => placed(order + 1),
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let pace = Duration::from_millis(setting("PACE", 1500)?);
    let channel = Channel::builder()
        .retry(Duration::from_secs(1))
        .named()
        .build();
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let script = (
        [(CONTENT_TYPE, "text/javascript")],
        include_str!("client.js"),
    );
    let app = page::router(include_str!("index.html"))
        .route("/client.js", get(async move || script))
        .merge(streams)
        .with_state(channel.clone());
    thread::spawn(move || {
        for update in iter::successors(Some(Update::Opened), next) {
            if let Err(error) = channel.publish(&update) {
                support::complain(&error);
            }
            thread::sleep(pace);
        }
    });
    support::serve(app, &shutdown).await
}

async fn events(State(channel): State<Channel<Update>>, last: LastEventId) -> impl IntoResponse {
    channel.subscribe(last).start(Start::Oldest)
}
