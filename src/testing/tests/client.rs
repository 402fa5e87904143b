//! The requests of a client, the responses it accepts, and how it resumes.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use futures_util::{FutureExt, StreamExt, stream};

use crate::{
    Channel, LastEventId, Sse,
    testing::{Client, Reader},
};

fn channel() -> (Channel<u64>, Router) {
    let channel = Channel::builder().retry(Duration::from_secs(7)).build();
    let handler =
        async |State(channel): State<Channel<u64>>, last: LastEventId| channel.subscribe(last);
    let app = Router::new()
        .route("/", get(handler))
        .with_state(channel.clone());
    (channel, app)
}

async fn served(app: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::tcp(listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    client
}

/// An app that records the request headers and responds with this body.
fn recording(body: &'static str) -> (Arc<Mutex<Vec<HeaderMap>>>, Client) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let app = Router::new().fallback({
        let requests = requests.clone();
        async move |request: Request| {
            requests.lock().unwrap().push(request.headers().clone());
            ([(CONTENT_TYPE, "Text/Event-Stream; charset=utf-8")], body)
        }
    });
    (requests, Client::new(app))
}

async fn resumes_after_the_last_id(client: Client, channel: Channel<u64>) {
    let mut page = client.get("/").await.unwrap();
    page.expect_named("checkpoint").await;
    assert_eq!(page.retry(), Some(Duration::from_secs(7)));
    for n in 1..=3 {
        channel.publish(&n).unwrap();
    }
    assert_eq!(page.next_message().await.json::<u64>().unwrap(), 1);
    // Whether the other two have been received makes no difference.
    page.resume().await.unwrap();
    assert_eq!(page.next_message().await.data, "2");
    assert_eq!(page.next_message().await.data, "3");
    channel.publish(&4).unwrap();
    page.resume().await.unwrap();
    assert_eq!(page.next_message().await.data, "4");
    assert_eq!(page.last_event_id(), channel.newest().to_string());

    channel.close(None).unwrap();
    page.expect_end().await;
    let refused = page.resume().await.unwrap_err();
    assert_eq!(
        (refused.status(), refused.body()),
        (StatusCode::NO_CONTENT, "")
    );
    // The reader stays at its end, and can be resumed again.
    page.expect_end().await;
    assert_eq!(
        page.resume().await.unwrap_err().status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test(start_paused = true)]
async fn resumes_from_a_service() {
    let (channel, app) = channel();
    resumes_after_the_last_id(Client::new(app), channel).await;
}

#[tokio::test]
async fn resumes_from_a_server() {
    let (channel, app) = channel();
    resumes_after_the_last_id(served(app).await, channel).await;
}

#[tokio::test]
async fn rule_73_an_empty_id_is_not_sent_and_others_go_as_their_bytes() {
    let (requests, client) = recording("data: a\n\nid: é…\ndata: b\n\nid:\ndata: c\n\n");
    let mut page = client
        .header("cookie", "a=b")
        .header("Accept", "*/*")
        .get("/")
        .await
        .unwrap();
    page.next_message().await;
    page.resume().await.unwrap();
    page.next_message().await;
    page.next_message().await;
    page.resume().await.unwrap();
    for last in ["é…", "é…", ""] {
        page.next_message().await;
        assert_eq!(page.last_event_id(), last);
    }
    page.resume().await.unwrap();

    let requests = requests.lock().unwrap();
    let ids: Vec<_> = requests
        .iter()
        .map(|headers| headers.get("last-event-id"))
        .collect();
    let ids: Vec<_> = ids.iter().map(|id| id.map(|id| id.as_bytes())).collect();
    assert_eq!(ids, [None, None, Some("é…".as_bytes()), None]);
    for headers in &*requests {
        let mut all: Vec<_> = headers
            .iter()
            .filter(|(name, _)| *name != "last-event-id")
            .collect();
        all.sort_unstable_by_key(|(name, _)| name.as_str());
        let all: Vec<_> = all
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let expected = [
            ("accept", "*/*"),
            ("cache-control", "no-cache"),
            ("cookie", "a=b"),
            ("host", "localhost"),
        ];
        assert_eq!(all, expected);
    }
}

/// Browsers also keep the time if the new connection does not set it.
#[tokio::test]
async fn the_reconnection_time_outlives_the_connection() {
    let streams = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(async move || {
        let text =
            ["retry: 70\ndata: a\n\n", "data: b\n\n"][streams.fetch_add(1, Ordering::Relaxed)];
        ([(CONTENT_TYPE, "text/event-stream")], text)
    });
    let mut page = Client::new(app).get("/").await.unwrap();
    page.next_message().await;
    page.resume().await.unwrap();
    assert_eq!(page.next_message().await.data, "b");
    assert_eq!(page.retry(), Some(Duration::from_millis(70)));
}

/// Counts when it is dropped.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_old_connection_is_dropped_before_the_new_request() {
    let gone = Arc::new(AtomicUsize::new(0));
    let handler = {
        let gone = gone.clone();
        async move || {
            let before = gone.load(Ordering::Relaxed);
            let guard = Gone(gone);
            Sse::new(
                stream::iter([before])
                    .chain(stream::pending())
                    .map(move |n| {
                        let _ = &guard;
                        n
                    }),
            )
        }
    };
    let mut page = Client::new(Router::new().route("/", get(handler)))
        .get("/")
        .await
        .unwrap();
    assert_eq!(page.next_message().await.data, "0");
    page.resume().await.unwrap();
    assert_eq!(page.next_message().await.data, "1");
    drop(page);
    assert_eq!(gone.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn responses_that_an_event_source_refuses() {
    let long = "x".repeat(70 * 1024);
    let app = Router::new()
        .route("/204", get(StatusCode::NO_CONTENT))
        .route(
            "/201",
            get((
                StatusCode::CREATED,
                [(CONTENT_TYPE, "text/event-stream")],
                "data: 1\n\n",
            )),
        )
        .route("/text", get("data: 1\n\n"))
        .route("/long", get(long.clone()))
        .route("/bare", get(async || Body::empty().into_response()))
        .route(
            "/endless",
            get(async || {
                Body::from_stream(
                    stream::iter([Ok::<_, std::io::Error>("data: 1\n\n")]).chain(stream::pending()),
                )
            }),
        );
    let client = Client::new(app);
    let refused = async |path: &str| client.get(path).await.unwrap_err();
    assert_eq!(
        refused("/204").await.to_string(),
        "GET /204: 204 No Content, which closes an EventSource permanently"
    );
    assert_eq!(refused("/201").await.status(), 201);
    assert_eq!(refused("/404").await.status(), 404);
    assert_eq!(refused("/bare").await.status(), 200);
    assert_eq!(refused("/text").await.body(), "data: 1\n\n");
    assert_eq!(refused("/long").await.body(), &long[..64 * 1024]);
    // The part of the body that arrived within the timeout.
    assert_eq!(refused("/endless").await.body(), "data: 1\n\n");
    let refused = client.get_after("/text", "7").await.unwrap_err();
    assert_eq!(
        format!("{refused:?}"),
        "GET /text with Last-Event-ID \"7\": 200 OK, \"text/plain; charset=utf-8\", \
         which closes an EventSource permanently: \"data: 1\\n\\n\""
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_response_with_endless_empty_frames() {
    let frames = || Body::from_stream(stream::repeat("").map(Ok::<_, std::io::Error>));
    let client = Client::new(Router::new().route("/", get(async move || frames())));
    let client = client.timeout(Duration::from_millis(100));
    assert_eq!(client.get("/").await.unwrap_err().body(), "");
}

#[tokio::test]
async fn a_dropped_resume_can_be_repeated() {
    let asked = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(async move || {
        if asked.fetch_add(1, Ordering::Relaxed) == 1 {
            std::future::pending::<()>().await;
        }
        ([(CONTENT_TYPE, "text/event-stream")], "id: 7\ndata: a\n\n")
    });
    let mut page = Client::new(app).get("/").await.unwrap();
    page.next_message().await;
    assert!(page.resume().now_or_never().is_none());
    assert_eq!(page.next().await, None);
    assert_eq!(page.last_event_id(), "7");
    page.resume().await.unwrap();
    assert_eq!(page.next_message().await.data, "a");
}

async fn failure<T>(test: impl Future<Output = T>) -> String {
    match AssertUnwindSafe(test).catch_unwind().await {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => *payload.downcast::<String>().unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails() {
    let app = Router::new().route("/slow", get(async || std::future::pending::<()>().await));
    let client = Client::new(app);
    let line = line!() + 1;
    let said = failure(client.get("/slow")).await;
    assert_eq!(
        said,
        format!("GET /slow: no response within 5s, at {}:{line}:31", file!())
    );
    let said = failure(client.clone().timeout(Duration::from_secs(9)).get("/slow")).await;
    assert!(
        said.starts_with("GET /slow: no response within 9s, at "),
        "{said}"
    );
    let said = failure(client.get("slow")).await;
    assert!(said.starts_with("invalid path \"slow\", at "), "{said}");
    let said = failure(client.get_after("/slow", "\n")).await;
    assert!(
        said.starts_with("invalid value for the header \"last-event-id\": \"\\n\", at "),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_listen() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::tcp(listener.local_addr().unwrap());
    drop(listener);
    let said = failure(client.get("/")).await;
    assert!(
        said.starts_with("GET /: ") && said.contains(", at "),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn readers_have_the_timeout_of_their_client() {
    let app = Router::new().route("/", get(async || Sse::new(stream::pending::<u64>())));
    let client = Client::new(app).timeout(Duration::from_secs(20));
    let mut page = client.get("/").await.unwrap();
    assert!(
        failure(page.next())
            .await
            .starts_with("no event within 20s, at ")
    );
    page.resume().await.unwrap();
    assert!(
        failure(page.next())
            .await
            .starts_with("no event within 20s, at ")
    );
}

#[test]
fn a_client_and_its_readers_are_send_and_debug_hides_header_values() {
    fn check<T: Send>(_: &T) {}
    let client = Client::new(Router::new()).header("cookie", "secret");
    check(&client);
    check(&client.get("/"));
    let mut reader = Reader::new("");
    check(&reader.next_message());
    check(&reader.rest());
    assert!(!format!("{client:?}").contains("secret"));
}
