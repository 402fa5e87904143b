//! A tour of the format for newcomers: what is on the wire, and what a browser passes on to its
//! page. It takes ten seconds.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example format
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address, `ORIGINS` the other origins
//! whose pages may read the stream, `STEP` the milliseconds between two events.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_sse::{Event, LastEventId, OriginAllowlist, Shutdown, Sse, SseLayer, event_name};
use serde_json::json;
use support::setting;
use tokio_stream::StreamExt;

/// The ids count the events of the tour: after `id: 4`, four have been sent.
fn tour() -> Result<Vec<Event>, axum_sse::Error> {
    Ok(vec![
        Event::comment("a comment: every client skips it")?,
        Event::text("Data alone is an event. It has no name, so onmessage gets it.")?
            .retry(Duration::from_secs(3)),
        Event::text("This one has a name, and onmessage does not get it.")?
            .with_name(event_name!("greeting")),
        Event::text("A client that is cut off now reconnects with Last-Event-ID: 4")?.id("4")?,
        Event::text("No id: the last one stays.")?,
        Event::text("Several lines of data\narrive\nas one text.")?.id("6")?,
        Event::json(&json!({ "price": 12.05, "symbol": "ACME" }))?
            .with_name(event_name!("price"))
            .id("7")?,
        Event::empty()
            .with_name(event_name!("nothing"))
            .with_comment("no data is no event; empty data is one")?,
        Event::text("What a user writes stays data:\n\nevent: forged\ndata: nothing\n\n")?
            .id("9")?,
        Event::text("The next event asks the page to close the stream.")?.id("10")?,
        Event::empty().with_name(event_name!("close")).id("11")?,
    ])
}

struct Tour {
    events: Vec<Event>,
    pace: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let port: u16 = setting("PORT", 3000)?;
    let two = format!("http://127.0.0.1:{port}, http://localhost:{port}");
    let origins: OriginAllowlist = setting("ORIGINS", two.parse()?)?;
    let tour = Arc::new(Tour {
        events: tour()?,
        pace: Duration::from_millis(setting("STEP", 1000)?),
    });
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().origins(origins).shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        .merge(streams)
        .with_state(tour);
    support::serve(app, &shutdown).await
}

async fn events(State(tour): State<Arc<Tour>>, last: LastEventId<usize>) -> Response {
    let seen = last.known().unwrap_or(0);
    let Some(rest @ [_, ..]) = tour.events.get(seen..) else {
        // Nothing is left. An `EventSource` that gets a 204 does not reconnect.
        return StatusCode::NO_CONTENT.into_response();
    };
    let mut client = Client { sent: seen };
    let rest = tokio_stream::iter(rest.to_vec()).throttle(tour.pace);
    let rest = rest.map(move |event| client.count(event));
    let cookie = "format-tour=taken; Path=/; SameSite=Lax";
    ([(header::SET_COOKIE, cookie)], Sse::new(rest)).into_response()
}

/// Dropped with the stream: when the tour is over, or when its client leaves early.
struct Client {
    sent: usize,
}

impl Client {
    fn count(&mut self, event: Event) -> Event {
        self.sent += 1;
        event
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        support::complain(&format_args!(
            "a client has left after {} events",
            self.sent
        ));
    }
}
