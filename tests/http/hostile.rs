//! Ids that no browser sends: invented, repeated, huge, or another user's; and the server that
//! `hostile_clients.rs` also uses.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::get,
    serve::Listener as _,
};
use axum_sse::{
    Channel, EventId, Hub, LastEventId, RunId, Runs, Shutdown, SseLayer, StateChannel,
    layer::Limits,
    listener::{Connections, Options},
    testing::{Message, Parser},
};
use futures_util::stream;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::client::Raw;

#[derive(Clone)]
pub(crate) struct App {
    /// A channel for each user.
    users: Hub,
    state: StateChannel<u32, u32>,
    runs: Runs<String, String>,
    pub(crate) flood: Channel<str>,
    /// Requests that have reached a handler.
    pub(crate) asked: Arc<AtomicUsize>,
}

pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
    pub(crate) limits: Limits,
    pub(crate) connections: Connections,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<io::Result<()>>,
}

impl App {
    fn new() -> Self {
        Self {
            users: Hub::builder().capacity(4).build(),
            state: StateChannel::new(0, |state, event| *state += event),
            runs: Runs::new(),
            flood: Channel::builder().bytes(1 << 20).build(),
            asked: Arc::default(),
        }
    }

    pub(crate) fn publish(&self, user: &str, text: &str) -> EventId {
        let channel: Channel<str> = self.users.channel(user).unwrap();
        channel.publish(text).unwrap().id().unwrap()
    }
}

async fn user(
    State(app): State<App>,
    Path(user): Path<String>,
    last: LastEventId,
) -> impl IntoResponse {
    app.asked.fetch_add(1, Ordering::Relaxed);
    app.users.subscribe([user], last)
}

async fn run(
    State(app): State<App>,
    Path(user): Path<String>,
    last: LastEventId<RunId>,
) -> impl IntoResponse {
    let text = format!("of {user}");
    app.runs
        .resume_or_start(last, user, || stream::iter([text]))
}

impl Server {
    pub(crate) fn start(options: Options) -> Self {
        let app = App::new();
        let (limits, shutdown) = (Limits::new(), Shutdown::new());
        let layer = SseLayer::new()
            .limits(limits.clone())
            .shutdown(shutdown.clone());
        let state = async |State(app): State<App>, last: LastEventId| app.state.subscribe(last);
        let flood = async |State(app): State<App>, last: LastEventId| app.flood.subscribe(last);
        let router = Router::new()
            .route("/user/{user}", get(user))
            .route("/run/{user}", get(run))
            .route("/state", get(state))
            .route("/flood", get(flood))
            .layer(layer)
            .with_state(app.clone());
        let options = options.shutdown(shutdown.clone());
        let connections = options.connections();
        let listener = options.bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let serve = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.on(std::future::pending()));
        Self {
            app,
            address,
            limits,
            connections,
            shutdown,
            task: tokio::spawn(serve.into_future()),
        }
    }

    /// Sends a request with these header lines; returns the status line and the connection.
    pub(crate) async fn ask(&self, path: &str, lines: &[u8]) -> (String, Raw) {
        let mut raw = Raw::connect(self.address).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n"))
            .await;
        raw.send(lines).await;
        raw.send("\r\n").await;
        let status = raw.head().await.remove(0);
        (status, raw)
    }

    pub(crate) async fn with_id(&self, path: &str, id: &str) -> (String, Raw) {
        let line = format!("Last-Event-ID: {id}\r\n");
        self.ask(path, line.as_bytes()).await
    }

    /// A new client, which must be served at once whatever the others do.
    pub(crate) async fn serves_a_fresh_client(&self) -> Duration {
        let begun = Instant::now();
        let (status, mut raw) = self.ask("/user/fresh", b"").await;
        assert_eq!(status, OK);
        let first = messages(&mut raw, 1).await;
        assert_eq!(first[0].event, "checkpoint");
        begun.elapsed()
    }

    pub(crate) async fn is_empty(&self) {
        let held = || {
            [
                self.connections.open(),
                self.limits.open(),
                self.app.users.stats().subscribers,
                self.app.flood.stats().subscribers,
            ]
        };
        let begun = Instant::now();
        while held() != [0; 4] {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", held());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK";

/// The next events of a stream, at least `count`.
pub(crate) async fn messages(raw: &mut Raw, count: usize) -> Vec<Message> {
    use axum_sse::testing::Item;

    let mut parser = Parser::new();
    let mut messages = Vec::new();
    while messages.len() < count {
        let chunk = raw.chunk().await.expect("the stream ends");
        for item in parser.push(chunk.as_bytes()) {
            if let Item::Message(message) = item {
                messages.push(message);
            }
        }
    }
    messages
}

/// What comes first for a client with a foreign id: the gap's reason, or nothing.
pub(crate) async fn told(raw: &mut Raw) -> String {
    let first = messages(raw, 1).await.remove(0);
    if first.event != "gap" {
        return first.event;
    }
    let gap: serde_json::Value = serde_json::from_str(&first.data).unwrap();
    gap["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn rules_73_to_79_and_86_a_hostile_id_gets_a_200_and_a_gap() {
    let server = Server::start(Options::new());
    let id = server.app.publish("a", "1").to_string();
    let newest = server.app.publish("a", "2").to_string();
    let life = id.split_once('-').unwrap().0;
    let (long, longest) = ("a".repeat(1024), "a".repeat(64 * 1024));
    let twice = format!("Last-Event-ID: {id}\r\nLast-Event-ID: {newest}\r\n");
    let same_twice = format!("last-event-id: {id}\r\nLAST-EVENT-ID: {id}\r\n");
    let one_is_empty = format!("Last-Event-ID:\r\nLast-Event-ID: {id}\r\n");
    let line = |id: &str| format!("Last-Event-ID: {id}\r\n");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("two different ones", twice.into(), "unknown"),
        ("the same one twice", same_twice.into(), "unknown"),
        ("an empty one and another", one_is_empty.into(), "unknown"),
        (
            "two in one line",
            line(&format!("{id}, {newest}")).into(),
            "unknown",
        ),
        ("1 KiB", line(&long).into(), "unknown"),
        ("64 KiB", line(&longest).into(), "unknown"),
        (
            "a known one, and then 1 KiB",
            line(&(id.clone() + &long)).into(),
            "unknown",
        ),
        (
            "not UTF-8",
            b"Last-Event-ID: \xC0\x80\xFF\r\n".to_vec(),
            "unknown",
        ),
        (
            "half a character",
            [line(&id).trim_end().as_bytes(), b"\xC3\r\n"].concat(),
            "unknown",
        ),
        (
            "a tab in it",
            line(&id.replace('-', "\t-")).into(),
            "unknown",
        ),
        (
            "C1 controls, which are UTF-8",
            line("\u{85}\u{9F}").into(),
            "unknown",
        ),
        (
            "u64::MAX + 1 in decimal",
            line("18446744073709551616").into(),
            "unknown",
        ),
        (
            "more digits than a number has",
            line(&format!("{life}-~~~~~~~~~~~~")).into(),
            "unknown",
        ),
        (
            "a number that overflows",
            line(&format!("{life}-~~~~~~~~~~~")).into(),
            "unknown",
        ),
        (
            "the greatest number",
            line(&EventId::new(u64::MAX, u64::MAX).to_string()).into(),
            "restarted",
        ),
        (
            "the greatest of this life",
            line(&format!("{life}-F~~~~~~~~~~")).into(),
            "unknown",
        ),
        (
            "another spelling",
            line(&format!("{life}-01")).into(),
            "unknown",
        ),
        ("a sign", line(&format!("+{id}")).into(), "unknown"),
        (
            "text that closes an event",
            line("x\\n\\ndata: forged").into(),
            "unknown",
        ),
        // Only the whitespace around a value (RFC 9110, 5.5): no id.
        ("nothing", b"Last-Event-ID:\r\n".to_vec(), "checkpoint"),
        (
            "spaces and tabs",
            b"Last-Event-ID:  \t \r\n".to_vec(),
            "checkpoint",
        ),
        (
            "a known one in spaces",
            line(&format!(" \t{id} \t")).into(),
            "message",
        ),
    ];
    for (what, lines, expected) in cases {
        let (status, mut raw) = server.ask("/user/a", &lines).await;
        assert_eq!(status, OK, "{what}");
        let told = told(&mut raw).await;
        println!("{what}: 200, {told}");
        assert_eq!(told, expected, "{what}");
    }
    // In the query, which can express any bytes (rule 81).
    for (query, expected) in [
        ("lastEventId=%00", "unknown"),
        ("lastEventId=%0D%0Adata:%20forged", "unknown"),
        ("lastEventId=%FF%FE", "unknown"),
        ("lastEventId=1&last_event_id=2", "unknown"),
        ("lastEventId=%", "unknown"),
        (&format!("lastEventId={}", "%41".repeat(10_000)), "unknown"),
        ("lastEventId=", "checkpoint"),
        (&format!("lastEventId={id}"), "message"),
    ] {
        let (status, mut raw) = server.ask(&format!("/user/a?{query}"), b"").await;
        assert_eq!(status, OK, "{query:.40}");
        assert_eq!(told(&mut raw).await, expected, "{query:.40}");
    }
    server.is_empty().await;
}

/// hyper answers these before any handler. It closes the connection, and serves the next one.
#[tokio::test]
async fn what_is_no_head_never_reaches_a_handler() {
    let server = Server::start(Options::new());
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    let cases: [(&str, Vec<u8>, &str); 7] = [
        (
            "NUL in the id",
            b"Last-Event-ID: a\0b\r\n".to_vec(),
            "400 Bad Request",
        ),
        (
            "U+0001 in the id",
            b"Last-Event-ID: \x01\r\n".to_vec(),
            "400 Bad Request",
        ),
        (
            "DEL in the id",
            b"Last-Event-ID: \x7F\r\n".to_vec(),
            "400 Bad Request",
        ),
        (
            "a carriage return in the id",
            b"Last-Event-ID: a\rb\r\n".to_vec(),
            "400 Bad Request",
        ),
        (
            "a folded line",
            b"Last-Event-ID: a\r\n b\r\n".to_vec(),
            "400 Bad Request",
        ),
        (
            "200 fields",
            many.into(),
            "431 Request Header Fields Too Large",
        ),
        (
            "an id of 1 MiB",
            format!("Last-Event-ID: {}\r\n", "a".repeat(1024 * 1024)).into(),
            "431 Request Header Fields Too Large",
        ),
    ];
    for (what, lines, expected) in cases {
        // The server may stop reading and close before everything is sent.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = [b"GET /user/a HTTP/1.1\r\nHost: x\r\n", &lines[..], b"\r\n"].concat();
        let exchange = async {
            let _ = stream.write_all(&head).await;
            Raw::from(stream).rest().await
        };
        let rest = timeout(Duration::from_secs(20), exchange).await;
        let rest = rest.unwrap_or_else(|_| panic!("{what}: no answer, and no close"));
        println!("{what}: {:?}", rest.lines().next());
        assert!(
            rest.is_empty() || rest.starts_with(&format!("HTTP/1.1 {expected}\r\n")),
            "{what}: {rest}"
        );
    }
    assert_eq!(server.app.asked.load(Ordering::Relaxed), 0);
    server.serves_a_fresh_client().await;
    server.is_empty().await;
}

#[tokio::test]
async fn rule_90_nothing_of_another_user_is_ever_replayed() {
    let server = Server::start(Options::new());
    // Taken in turns, so that each id of one channel is between two of the other.
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(server.app.publish("alice", &format!("alice {n}")));
        ids.push(server.app.publish("bob", &format!("bob {n}")));
    }
    let elsewhere = [
        server.app.state.publish(&1).unwrap().id().unwrap(),
        server.app.flood.publish("x").unwrap().id().unwrap(),
        EventId::new(ids[0].epoch(), 0),
        EventId::new(ids[0].epoch(), u64::MAX),
    ];
    for id in ids.iter().chain(&elsewhere) {
        for name in ["alice", "bob"] {
            let (status, mut raw) = server
                .with_id(&format!("/user/{name}"), &id.to_string())
                .await;
            assert_eq!(status, OK);
            // Read up to the last event, published now.
            let last = server.app.publish(name, &format!("{name} last"));
            let mut seen = BTreeSet::new();
            while !seen.contains(&format!("{name} last")) {
                for message in messages(&mut raw, 1).await {
                    if message.event == "message" {
                        let text: String = serde_json::from_str(&message.data).unwrap();
                        assert!(
                            text.starts_with(name),
                            "{name} came with {id}, and got {text}"
                        );
                        seen.insert(text);
                    }
                }
            }
            assert!(last > *id || id.sequence() == u64::MAX >> 1 || id.epoch() != last.epoch());
        }
    }
    // Both at once: neither counts.
    let both = format!("Last-Event-ID: {}\r\nLast-Event-ID: {}\r\n", ids[0], ids[1]);
    let (_, mut raw) = server.ask("/user/bob", both.as_bytes()).await;
    assert_eq!(told(&mut raw).await, "unknown");
    drop(raw);
    // Any name is valid, and nothing is published under these.
    for path in [
        "/user/alice%00",
        "/user/alice%2F..%2Fbob",
        "/user/ALICE",
        "/user/alice%20",
    ] {
        let (status, mut raw) = server.with_id(path, &ids[0].to_string()).await;
        assert_eq!(status, OK, "{path}");
        let first = messages(&mut raw, 1).await;
        assert!(
            first.iter().all(|message| message.event != "message"),
            "{path}: {first:?}"
        );
    }
    server.is_empty().await;
}

#[tokio::test]
async fn rule_90_a_state_channel_and_a_run_replay_nothing_for_foreign_ids() {
    let server = Server::start(Options::new());
    let user = server.app.publish("alice", "alice");
    server.app.state.publish(&5).unwrap();
    let (status, mut raw) = server.with_id("/state", &user.to_string()).await;
    assert_eq!(status, OK);
    // After the gap comes what any new client would get.
    let got = messages(&mut raw, 2).await;
    assert_eq!(
        (got[0].event.as_str(), got[1].event.as_str()),
        ("gap", "snapshot")
    );
    assert_eq!(got[1].data, "5");

    // A run belongs to its owner; to others it looks unknown.
    let (status, mut raw) = server.ask("/run/alice", b"").await;
    assert_eq!(status, OK);
    let run = messages(&mut raw, 1).await[0].last_event_id.clone();
    for (name, id) in [
        ("bob", run.as_str()),
        ("bob", &user.to_string()),
        ("alice", &user.to_string()),
        ("alice", "x"),
        ("bob", &"0".repeat(22)),
    ] {
        let path = format!("/run/{name}");
        let (status, mut raw) = server.with_id(&path, id).await;
        assert_eq!(status, OK, "{name} with {id}");
        let end = messages(&mut raw, 1).await.remove(0);
        assert_eq!(
            (end.event.as_str(), end.data.as_str()),
            ("end", r#"{"reason":"unknown"}"#),
            "{name} with {id}"
        );
        let (status, _) = server.with_id(&path, &end.last_event_id).await;
        assert_eq!(status, "HTTP/1.1 204 No Content", "{name} after {id}");
    }
    assert_eq!(server.app.runs.len(), 1, "nobody has started another one");
    let (status, mut raw) = server.with_id("/run/alice", &run).await;
    assert_eq!(status, OK);
    let own = messages(&mut raw, 1).await;
    assert_eq!(own.last().unwrap().data, "\"of alice\"");
}
