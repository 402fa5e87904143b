//! The server of the interoperability tests: every shape of event that this crate can produce, and
//! connections that are cut. It prints its address; `tests/interop/interop.test.mjs` starts it.
//!
//! | path | what it sends |
//! | --- | --- |
//! | `/shapes` | one event of each shape, with heartbeats between; then an error ends the stream |
//! | `/pings` | heartbeats that are events |
//! | `/gap` | a `gap` and a replay, on a connection over two channels |
//! | `/snapshot` | a `gap` and a snapshot, on a state channel |
//! | `/resume?run=…` | a channel whose connections are cut (see `resume.rs`) |
//! | `/types` | the names of all these events, because an `EventSource` needs a listener for each |
//! | `/runs/…` | what the client of that run should have received, and its connections |
//! | `/page?run=…` | a page that reads all scenes, for browsers |
//! | `/transcripts/…` | POST: what the page received; GET: the same, or `null` |

mod beats;
mod resume;
mod shapes;

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
    serve::Listener as _,
};
use axum_sse::{
    Channel, Event, EventId, Heartbeat, Hub, LastEventId, OnGap, Published, Sse, SseLayer,
    StateChannel, event_name, listener,
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use beats::Beats;
use resume::Run;

/// The shortest interval.
const HEARTBEAT: Duration = Heartbeat::MIN;

/// An event as a client that follows the standard reports it.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    what: &'static str,
    r#type: String,
    data: String,
    last_event_id: String,
    /// The event has its own id, instead of that of an earlier event.
    own_id: bool,
}

impl Expected {
    fn new(
        what: &'static str,
        r#type: &str,
        data: impl Into<String>,
        id: Option<String>,
        before: Option<&Self>,
    ) -> Self {
        Self {
            what,
            r#type: r#type.to_owned(),
            data: data.into(),
            own_id: id.is_some(),
            last_event_id: id
                .or_else(|| before.map(|before| before.last_event_id.clone()))
                .unwrap_or_default(),
        }
    }
}

struct App {
    gap: Gap,
    snapshot: Snapshot,
    runs: Mutex<HashMap<String, Arc<Run>>>,
    transcripts: Mutex<HashMap<String, Value>>,
}

impl App {
    fn run(&self, name: &str) -> Arc<Run> {
        let mut runs = lock(&self.runs);
        runs.entry(name.to_owned()).or_default().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Arc::new(App {
        gap: Gap::new()?,
        snapshot: Snapshot::new()?,
        runs: Mutex::default(),
        transcripts: Mutex::default(),
    });
    let streams = Router::new()
        .route("/shapes", get(shapes))
        .route("/pings", get(pings))
        .route("/gap", get(gap))
        .route("/snapshot", get(snapshot))
        .route("/resume", get(resume::connect))
        .layer(SseLayer::new());
    let router = Router::new()
        .route("/page", get(async || Html(include_str!("../page.html"))))
        .route("/event-source.mjs", get(script))
        .route("/types", get(types))
        .route("/runs/{run}", get(result))
        .route("/transcripts/{run}", get(transcript).post(report))
        .layer(DefaultBodyLimit::max(64 * 1024 * 1024))
        .merge(streams)
        .with_state(app);
    let listener = listener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

#[derive(Deserialize)]
struct Which {
    run: String,
}

async fn script() -> impl IntoResponse {
    let javascript = [(header::CONTENT_TYPE, "text/javascript")];
    (javascript, include_str!("../event-source.mjs"))
}

/* Scenes */

async fn shapes(last: LastEventId<String>) -> Result<Response, Failure> {
    if !last.is_absent() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let beats = Beats::new();
    let steps = shapes::all()?.into_iter().map(Step::Event);
    let mut steps: Vec<_> = steps.collect();
    // After the first event with an id, in the middle, and at the end.
    for at in [2, steps.len() / 2, steps.len()] {
        steps.insert(at, Step::Silence);
    }
    let pause = beats.clone();
    let events = stream::iter(steps).filter_map(move |step| {
        let mut pause = pause.clone();
        async move {
            match step {
                Step::Event(shape) => Some(Ok(shape.event)),
                Step::Silence => {
                    pause.more(2).await;
                    None
                }
            }
        }
    });
    let events = events.chain(stream::iter([Err("the source is gone")]));
    let sse = Sse::try_new(events)
        .on_error(|error| {
            let failed = Event::text(error.to_string()).ok()?;
            Some(failed.with_name(event_name!("failed")))
        })
        .retry(Duration::from_millis(500))
        .heartbeat(Heartbeat::every(HEARTBEAT));
    Ok(beats.counted(sse))
}

enum Step {
    Event(shapes::Shape),
    Silence,
}

/// Two heartbeats, each of which is an event.
async fn pings(last: LastEventId<String>) -> Result<Response, Failure> {
    if !last.is_absent() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let ping = Event::json(&json!({"alive": true}))?.with_name(event_name!("ping"));
    let heartbeat = Heartbeat::every(HEARTBEAT).with_event(&ping)?;
    let beats = Beats::of(|chunk| chunk.starts_with(b"event: ping\n"));
    let mut pause = beats.clone();
    let first = Event::text("before")?.id("p1")?;
    let last = Event::text("after")?.id("p2")?;
    let events = stream::iter([first]).chain(stream::once(async move {
        pause.more(2).await;
        last
    }));
    let sse = Sse::new(events)
        .retry(Duration::from_millis(500))
        .heartbeat(heartbeat);
    Ok(beats.counted(sse))
}

fn expected_pings() -> Vec<Expected> {
    let first = Expected::new("the first", "message", "before", Some("p1".into()), None);
    let ping = Expected::new("a ping", "ping", r#"{"alive":true}"#, None, Some(&first));
    let last = Expected::new("the last", "message", "after", Some("p2".into()), None);
    vec![first, ping.clone(), ping, last]
}

/// Two closed channels with a capacity of two events each. A client that reconnects with the id
/// `stale` has missed an event.
struct Gap {
    hub: Hub,
    _channels: [Channel<str>; 2],
    stale: EventId,
    expected: Vec<Expected>,
}

impl Gap {
    fn new() -> Result<Self, Box<dyn Error>> {
        let hub = Hub::builder()
            .capacity(2)
            .retry(Duration::from_millis(500))
            .build();
        let [news, chat] = [hub.channel("news")?, hub.channel("chat")?];
        let stale = published(news.publish("one")?)?;
        news.publish("two")?;
        let three = published(news.publish("three")?)?;
        let hello = published(chat.publish("hello")?)?;
        let four = published(news.publish("four")?)?;
        news.close(None)?;
        let last = Event::empty().with_name(event_name!("closed"));
        let closed = published(chat.close(Some(&last))?.ok_or("no last event")?)?;

        let message = |data: &str, id: EventId| {
            Expected::new("retained", "message", data, Some(id.to_string()), None)
        };
        let part = format!(r#""missed":null,"oldest":"{three}""#);
        let gap = format!(r#"{{"reason":"evicted",{part},"channels":{{"news":{{{part}}}}}}}"#);
        let end = Some(closed.to_string());
        let expected = vec![
            Expected::new("a gap of one of two channels", "gap", gap, None, None),
            message(r#""three""#, three),
            message(r#""hello""#, hello),
            message(r#""four""#, four),
            Expected::new("the end", "closed", "", end, None),
        ];
        Ok(Self {
            hub,
            _channels: [news, chat],
            stale,
            expected,
        })
    }
}

async fn gap(State(app): State<Arc<App>>, last: LastEventId) -> impl IntoResponse {
    let scene = &app.gap;
    let last = late(last, scene.stale);
    let channels = ["news", "chat"];
    scene.hub.subscribe(channels, last).on_gap(OnGap::Replay)
}

fn published(event: Published) -> Result<EventId, &'static str> {
    event.id().ok_or("a local event has its id at once")
}

/// A client that connects for the first time has no id, so this returns one that is too old.
fn late(last: LastEventId, stale: EventId) -> LastEventId {
    if last.is_absent() { stale.into() } else { last }
}

struct Snapshot {
    sum: StateChannel<u64, u64>,
    stale: EventId,
    expected: Vec<Expected>,
}

impl Snapshot {
    fn new() -> Result<Self, Box<dyn Error>> {
        let channel = Channel::builder()
            .capacity(2)
            .retry(Duration::from_millis(500))
            .build();
        let sum = StateChannel::on(channel, 0, |sum, number: &u64| *sum += number)?;
        let stale = published(sum.publish(&1)?)?;
        for number in 2..=4 {
            sum.publish(&number)?;
        }
        let newest = sum.channel().newest();
        let last = Event::text("that was all")?.with_name(event_name!("closed"));
        let end = sum.channel().close(Some(&last))?;
        let end = published(end.ok_or("no last event")?)?;
        let gap = format!(r#"{{"reason":"evicted","missed":3,"oldest":"{newest}"}}"#);
        let id = Some(newest.to_string());
        let expected = vec![
            Expected::new("a gap", "gap", gap, None, None),
            Expected::new("the snapshot", "snapshot", "10", id, None),
            Expected::new(
                "the end",
                "closed",
                "that was all",
                Some(end.to_string()),
                None,
            ),
        ];
        Ok(Self {
            sum,
            stale,
            expected,
        })
    }
}

async fn snapshot(State(app): State<Arc<App>>, last: LastEventId) -> impl IntoResponse {
    let scene = &app.snapshot;
    scene.sum.subscribe(late(last, scene.stale))
}

/* Expectations */

async fn types(State(app): State<Arc<App>>) -> Result<Json<BTreeSet<String>>, Failure> {
    let shapes = shapes::expected(&shapes::all()?);
    let all = [
        shapes,
        expected_pings(),
        app.gap.expected.clone(),
        app.snapshot.expected.clone(),
    ];
    let types = all.into_iter().flatten().map(|event| event.r#type);
    Ok(Json(types.chain(resume::TYPES.map(String::from)).collect()))
}

async fn result(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    let run = app.run(&name);
    Ok(Json(json!({
        "expected": {
            "shapes": shapes::expected(&shapes::all()?),
            "pings": expected_pings(),
            "gap": app.gap.expected,
            "snapshot": app.snapshot.expected,
            "resume": run.expected(),
        },
        "connections": run.connections(),
    })))
}

async fn transcript(State(app): State<Arc<App>>, Path(run): Path<String>) -> Json<Option<Value>> {
    Json(lock(&app.transcripts).get(&run).cloned())
}

async fn report(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(transcript): Json<Value>,
) -> StatusCode {
    lock(&app.transcripts).insert(name, transcript);
    StatusCode::NO_CONTENT
}

struct Failure(String);

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}
