//! This machine's load, live in a browser, with resume; and notes from anyone who posts one.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example quickstart
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address, `HOSTS` the names by which
//! browsers may reach it, `HISTORY` how many events a reconnecting page can catch up on.

#[path = "../support/page.rs"]
mod page;

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    str::FromStr,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
    serve::Listener as _,
};
use axum_sse::{
    Channel, Error, Event, EventId, EventName, LastEventId, Shutdown, SseLayer, Start, event_name,
    listener,
};
use serde::Serialize;
use sysinfo::{Networks, System};

const NOTE: EventName = event_name!("note");
const MAX_NOTE: usize = 64 * 1024;

/// One sample of the machine's counters.
#[derive(Serialize)]
struct Load {
    /// Counts the samples of this process.
    n: u64,
    /// Unix time in milliseconds.
    at: u64,
    /// Percent, over all cores.
    cpu: f32,
    memory_used: u64,
    memory_total: u64,
    /// Bytes per second, over all network interfaces but the loopback.
    received: u64,
    sent: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let host: IpAddr = setting("HOST", Ipv4Addr::LOCALHOST.into())?;
    let port: u16 = setting("PORT", 3000)?;
    let hosts: String = setting("HOSTS", String::new())?;
    let history: usize = setting("HISTORY", 1000)?;

    let channel = Channel::builder()
        .capacity(history)
        .retry(Duration::from_secs(1))
        .build();
    let shutdown = Shutdown::new();
    let streams = Router::new()
        .route("/events", get(events))
        .route_layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = page::router(include_str!("index.html"))
        .route("/publish", post(publish))
        .layer(DefaultBodyLimit::max(MAX_NOTE))
        .merge(streams)
        // Requests by address, as `localhost` or by these names. Any other name gets 421: a foreign
        // page can make its own name point to this machine (DNS rebinding).
        .layer(SseLayer::new().hosts(hosts.split([',', ' ']).filter(|host| !host.is_empty()))?)
        .with_state(channel.clone());

    let listener = listener::bind(SocketAddr::from((host, port)))?;
    println!("open http://{} in a browser", listener.local_addr()?);
    // Publishing needs no runtime: a plain thread will do.
    thread::spawn(move || sample(&channel));
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.on(ctrl_c()))
        .await?;
    Ok(())
}

async fn events(State(channel): State<Channel<Load>>, last: LastEventId) -> impl IntoResponse {
    // A new page starts with a minute of history, so that the chart is not empty.
    channel.subscribe(last).start(Start::Newest(60))
}

#[derive(Serialize)]
struct Noted {
    id: EventId,
}

async fn publish(
    State(channel): State<Channel<Load>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Noted>, (StatusCode, String)> {
    if from_another_origin(&headers) {
        let why = "notes are taken from this server's own page only";
        return Err((StatusCode::FORBIDDEN, why.to_owned()));
    }
    let refuse = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned());
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a note has at most {MAX_NOTE} bytes"),
        ),
        status => (status, error.body_text()),
    })?;
    let text = str::from_utf8(&body).map_err(|error| refuse(&format!("not UTF-8: {error}")))?;
    if text.is_empty() {
        return Err(refuse("the note is empty"));
    }
    let note = Event::text(text).map_err(|error| refuse(&error.to_string()))?;
    let failed = |error: Error| (StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
    let published = channel
        .publish_event(&note.with_name(NOTE))
        .map_err(failed)?;
    let id = published.await.map_err(failed)?;
    Ok(Json(Noted { id }))
}

/// Whether a page of another site sent this with its visitor's browser. Requests of other clients
/// have neither header.
fn from_another_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.as_bytes());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return site != b"same-origin" && site != b"none";
    }
    let own = text(header::HOST).unwrap_or_default();
    text(header::ORIGIN)
        .is_some_and(|origin| origin.strip_prefix(b"http://".as_slice()) != Some(own))
}

/// Publishes a sample once a second, for as long as the process lives.
fn sample(channel: &Channel<Load>) {
    const EVERY: Duration = Duration::from_secs(1);
    let mut system = System::new();
    let mut networks = Networks::new_with_refreshed_list();
    // The first reading of a processor's use is the start of the first span.
    system.refresh_cpu_usage();
    let mut next = Instant::now() + EVERY;
    for n in 1.. {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += EVERY;
        system.refresh_cpu_usage();
        system.refresh_memory();
        networks.refresh(true);
        let outside = || networks.iter().filter(|(name, _)| *name != "lo");
        let load = Load {
            n,
            at: unix_millis(),
            cpu: system.global_cpu_usage(),
            memory_used: system.used_memory(),
            memory_total: system.total_memory(),
            received: outside().map(|(_, network)| network.received()).sum(),
            sent: outside().map(|(_, network)| network.transmitted()).sum(),
        };
        if let Err(error) = channel.publish(&load) {
            eprintln!("quickstart: {error}");
        }
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

async fn ctrl_c() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("quickstart: cannot listen for Ctrl-C: {error}");
        std::future::pending::<()>().await;
    }
}

fn setting<T: FromStr<Err: std::fmt::Display>>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Err(env::VarError::NotPresent) => Ok(default),
        Err(error) => Err(format!("{name}: {error}")),
        Ok(value) => value
            .parse()
            .map_err(|error| format!("{name}={value}: {error}")),
    }
}
