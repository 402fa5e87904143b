//! Shutdown, drain, lifetime and withdrawal over sockets, with clients that do not read.

use std::{
    convert::Infallible,
    future::pending,
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
    body::{Body, Bytes},
    http::{Request, StatusCode},
    response::{IntoResponse, sse},
    routing::get,
    serve::Listener as _,
};
use axum_sse::{
    Access, Event, Shutdown, Sse, SseLayer,
    layer::Limits,
    listener::{Connections, Options, PeerAddr},
    testing::Reader,
};
use futures_util::{Stream, StreamExt, stream};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use super::client::{Raw, bounded};

/// So long that it never takes effect here.
const NEVER: Duration = Duration::from_secs(3600);

/// Far longer than needed, far shorter than any other timeout.
const BOUND: Duration = Duration::from_secs(20);

/// A shutdown should take two seconds at most, and takes one; the rest is a margin for busy
/// machines.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    connections: Connections,
    limits: Limits,
    shutdown: Shutdown,
    /// How many items were polled from the endless streams.
    asked: Arc<AtomicUsize>,
    revoke: Arc<Notify>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start(shutdown: Shutdown, layer: SseLayer) -> Self {
        let signal = shutdown.on(pending());
        Self::start_with(shutdown, layer, signal)
    }

    fn start_with(
        shutdown: Shutdown,
        layer: SseLayer,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let limits = Limits::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let revoke = Arc::new(Notify::new());
        let endless = {
            let asked = asked.clone();
            async move || Sse::new(flood(asked))
        };
        let revocable = {
            let (asked, revoke) = (asked.clone(), revoke.clone());
            async move || {
                let revoked = async move { revoke.notified().await };
                (Access::new().revoked_by(revoked), Sse::new(flood(asked)))
            }
        };
        let axums = {
            let asked = asked.clone();
            async move || {
                let events = flood(asked);
                let text = "x".repeat(CHUNK);
                sse::Sse::new(
                    events.map(move |_| Ok::<_, Infallible>(sse::Event::default().data(&text))),
                )
                .into_response()
            }
        };
        let streams = Router::new()
            .route("/silent", get(async || Sse::new(stream::pending::<u8>())))
            .route("/endless", get(endless))
            .route(
                "/large",
                get(async || {
                    let large = Event::text("x".repeat(200_000)).unwrap();
                    Sse::new(stream::iter([large]).chain(stream::pending()))
                }),
            )
            .route("/revocable", get(revocable))
            .route("/axum", get(axums))
            .layer(layer.shutdown(shutdown.clone()).limits(limits.clone()));
        let app = Router::new()
            .route("/page", get("a page"))
            .route("/download", get(async || "x".repeat(DOWNLOAD)))
            .merge(streams);
        // Small buffers, so that a client that does not read is soon noticed.
        let options = Options::new()
            .stall_timeout(NEVER)
            .user_timeout(None)
            .send_buffer(16 * 1024)
            .shutdown(shutdown.clone());
        let connections = options.connections();
        let listener = options.bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let app = app.into_make_service_with_connect_info::<PeerAddr>();
        let serve = axum::serve(listener, app).with_graceful_shutdown(signal);
        Self {
            address,
            connections,
            limits,
            shutdown,
            asked,
            revoke,
            task: tokio::spawn(serve.into_future()),
        }
    }

    /// A client that sends a request and never reads.
    async fn silent(&self, path: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Waits until the endless streams are no longer polled: their clients do not read.
    async fn stuck(&self) {
        let mut before = 0;
        let mut still = 0;
        while still < 20 {
            sleep(Duration::from_millis(10)).await;
            let asked = self.asked.load(Ordering::Relaxed);
            still = if asked == before && asked > 0 {
                still + 1
            } else {
                0
            };
            before = asked;
        }
    }

    /// From the beginning of the shutdown until `axum::serve` has returned.
    async fn stops(self) -> Duration {
        let begun = Instant::now();
        self.shutdown.begin();
        bounded(self.task).await.unwrap().unwrap();
        let took = begun.elapsed();
        assert!(took < SHUTDOWN_BOUND, "it took {took:?}");
        took
    }
}

const CHUNK: usize = 64 * 1024;
const DOWNLOAD: usize = 20 << 20;

fn flood(asked: Arc<AtomicUsize>) -> impl Stream<Item = Event> + Send + 'static {
    let text = "x".repeat(CHUNK);
    stream::repeat_with(move || {
        asked.fetch_add(1, Ordering::Relaxed);
        Event::text(text.clone()).unwrap()
    })
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < BOUND, "still not so: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// 5,000 streams, of which 50 do not read. Each connection costs two descriptors here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_66_http_1_1_a_shutdown_returns_with_5000_streams_of_which_50_do_not_read() {
    let server = Server::start(Shutdown::new(), SseLayer::new());
    let mut silent = Vec::new();
    for n in 0..50 {
        silent.push(server.silent(["/endless", "/axum"][n % 2]).await);
    }
    let mut readers = JoinSet::new();
    for _ in 0..4950 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        readers.spawn(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all
        });
    }
    until("all are open", || server.limits.open() == 5000).await;
    server.stuck().await;
    let (limits, connections) = (server.limits.clone(), server.connections.clone());
    let took = server.stops().await;
    println!("HTTP/1.1: a shutdown with 5,000 streams, 50 of them silent, took {took:?}");
    for all in bounded(readers.join_all()).await {
        let text = String::from_utf8(all).unwrap();
        assert!(text.contains("retry: "), "{text}");
        assert!(text.ends_with("0\r\n\r\n"), "a clean end: {text}");
    }
    assert_eq!((limits.open(), connections.open()), (0, 0));
    drop(silent);
}

struct Http2 {
    sender: http2::SendRequest<Body>,
    address: SocketAddr,
    /// Keeps the connection, and stops it from reading.
    freeze: oneshot::Sender<()>,
    frozen: JoinHandle<()>,
}

impl Http2 {
    async fn connect(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(65_535)
            .handshake(io)
            .await
            .unwrap();
        let (freeze, stop) = oneshot::channel::<()>();
        let frozen = tokio::spawn(async move {
            let mut connection = Box::pin(connection);
            tokio::select! {
                _ = &mut connection => {}
                Ok(()) = stop => {
                    let _connection = connection;
                    pending::<()>().await;
                }
            }
        });
        Self {
            sender,
            address,
            freeze,
            frozen,
        }
    }

    async fn get(&mut self, path: &str) -> Body {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let response = bounded(self.sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Body::new(response.into_body())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_66_http_2_a_shutdown_returns_with_5000_streams_of_which_50_do_not_read() {
    let server = Server::start(Shutdown::new(), SseLayer::new());
    let mut clients = Vec::new();
    let mut silent = Vec::new();
    let mut readers = JoinSet::new();
    for n in 0..50 {
        let mut client = Http2::connect(server.address).await;
        for _ in 0..99 {
            let body = client.get("/silent").await;
            readers.spawn(async move {
                let mut reader = Reader::new(body).timeout(Duration::from_secs(300));
                reader.next().await
            });
        }
        // Their tasks do not read them, and on some connections nothing is read any more.
        silent.push(client.get(["/endless", "/axum"][n % 2]).await);
        if n % 10 == 0 {
            clients.push((client, true));
        } else {
            clients.push((client, false));
        }
    }
    until("all are open", || server.limits.open() == 5000).await;
    server.stuck().await;
    let mut kept = Vec::new();
    for (client, freeze) in clients {
        let Http2 {
            sender,
            freeze: stop,
            frozen,
            ..
        } = client;
        if freeze {
            stop.send(()).unwrap();
        } else {
            kept.push(stop);
        }
        silent.push(Body::empty());
        readers.spawn(async move {
            let _sender = sender;
            if !freeze {
                frozen.await.unwrap();
            }
            None
        });
    }
    let limits = server.limits.clone();
    let took = server.stops().await;
    println!("HTTP/2: a shutdown with 5,000 streams, 50 of them silent, took {took:?}");
    // The tasks of single streams may end a moment after their connection.
    until("every place is free", || limits.open() == 0).await;
    readers.abort_all();
}

/// A shutdown is held up neither by last bytes for which the client has no room, nor by a frozen
/// client that does not answer a PING, though everything sent to it went into its system's
/// buffers.
#[tokio::test]
async fn rule_66_http_2_a_shutdown_returns_whatever_is_left_unread() {
    let server = Server::start(Shutdown::new(), SseLayer::new());
    let mut unread = Http2::connect(server.address).await;
    let _large = unread.get("/large").await;
    let mut frozen = Http2::connect(server.address).await;
    let _silent = frozen.get("/silent").await;
    frozen.freeze.send(()).unwrap();
    // And a client that only sent its preface.
    let mut preface = TcpStream::connect(server.address).await.unwrap();
    preface
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    until("all are there", || server.connections.open() == 3).await;
    let (limits, connections) = (server.limits.clone(), server.connections.clone());
    server.stops().await;
    until("every place is free", || {
        (limits.open(), connections.open()) == (0, 0)
    })
    .await;
}

/// One layer's body within another's: both know when the stream has to end.
#[tokio::test]
async fn layers_upon_layers_cut_a_client_that_does_not_read() {
    let asked = Arc::new(AtomicUsize::new(0));
    let endless = async move || Sse::new(flood(asked));
    let shutdown = Shutdown::new();
    let app = Router::new()
        .route("/", get(endless))
        .route_layer(SseLayer::new().lifetime(NEVER))
        .layer(SseLayer::new().shutdown(shutdown.clone()))
        .layer(SseLayer::new().lifetime(NEVER));
    let options = Options::new().stall_timeout(NEVER).send_buffer(16 * 1024);
    let connections = options.connections();
    let listener = options.bind(([127, 0, 0, 1], 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = axum::serve(listener, app).with_graceful_shutdown(shutdown.on(pending()));
    let task = tokio::spawn(serve.into_future());
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    client.readable().await.unwrap();
    sleep(Duration::from_millis(200)).await;
    shutdown.begin();
    until("it is cut", || connections.open() == 0).await;
    bounded(task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_leaves_other_requests_the_time_they_take() {
    let shutdown = Shutdown::new();
    let (release, held) = oneshot::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(Some(held)));
    let slow = async move || {
        let held = held.lock().unwrap().take().unwrap();
        held.await.unwrap();
        "done"
    };
    let streams = Router::new()
        .route("/silent", get(async || Sse::new(stream::pending::<u8>())))
        .route("/endless", get(async || Sse::new(flood(Arc::default()))))
        .layer(SseLayer::new().shutdown(shutdown.clone()));
    let app = Router::new()
        .route("/slow", get(slow))
        .merge(streams)
        .into_make_service_with_connect_info::<PeerAddr>();
    let listener = Options::new()
        .shutdown(shutdown.clone())
        .bind(([127, 0, 0, 1], 0))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let serve = axum::serve(listener, app).with_graceful_shutdown(shutdown.on(pending()));
    let task = tokio::spawn(serve.into_future());

    // On a connection of HTTP/2 that also carries a stream.
    let mut client = Http2::connect(address).await;
    let body = client.get("/silent").await;
    let mut reader = Reader::new(body).timeout(Duration::from_secs(60));
    let uri = format!("http://{address}/slow");
    let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
    let slow = client.sender.send_request(request);
    let slow = tokio::spawn(slow);
    // On another connection, a client does not read.
    let mut other = Http2::connect(address).await;
    let _stuck = other.get("/endless").await;
    shutdown.begin();
    assert_eq!(bounded(reader.next()).await, None);
    // Longer than any grace period.
    sleep(Duration::from_millis(2500)).await;
    assert!(!task.is_finished());
    release.send(()).unwrap();
    let response = bounded(slow).await.unwrap().unwrap();
    let body = axum::body::to_bytes(Body::new(response.into_body()), 100)
        .await
        .unwrap();
    assert_eq!(body, Bytes::from("done"));
    drop(client.sender);
    bounded(task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lifetime_s_end_cuts_a_client_that_does_not_read() {
    let life = SseLayer::new().lifetime(Duration::from_secs(1));
    let server = Server::start(Shutdown::new(), life);
    let clients = [
        server.silent("/endless").await,
        server.silent("/axum").await,
    ];
    until("both are open", || server.limits.open() == 2).await;
    until("both are cut", || {
        (server.limits.open(), server.connections.open()) == (0, 0)
    })
    .await;
    drop(clients);
}

#[tokio::test]
async fn withdrawn_access_cuts_a_client_that_does_not_read() {
    let server = Server::start(Shutdown::new(), SseLayer::new());
    let client = server.silent("/revocable").await;
    server.stuck().await;
    assert_eq!(server.limits.open(), 1);
    server.revoke.notify_one();
    until("it is cut", || {
        (server.limits.open(), server.connections.open()) == (0, 0)
    })
    .await;
    drop(client);
}

#[tokio::test]
async fn a_client_that_goes_on_with_something_else_is_not_cut() {
    // The stream on this connection ends long before it would be cut.
    let life = SseLayer::new().lifetime(Duration::from_secs(1));
    let server = Server::start(Shutdown::new(), life);
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n").await;
    raw.head().await;
    while raw.chunk().await.is_some() {}
    sleep(Duration::from_millis(2200)).await;
    // More than all buffers can hold, and read late.
    raw.send("GET /download HTTP/1.0\r\n\r\n").await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(raw.head().await[0], "HTTP/1.0 200 OK");
    assert_eq!(raw.rest().await.len(), DOWNLOAD);
}

async fn open_streams(server: &Server, count: usize) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(server.address).await;
        raw.send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n").await;
        raw.head().await;
        raw.expect(":\n").await;
        clients.push(raw);
    }
    clients
}

#[tokio::test]
async fn a_drain_stops_accepting_first_and_ends_the_streams_one_by_one() {
    let server = Server::start(Shutdown::draining(Duration::from_secs(2)), SseLayer::new());
    let mut clients = open_streams(&server, 40).await;
    server.shutdown.begin();
    // Some stream stays open long enough: it is practically impossible that all forty end at once.
    let begun = Instant::now();
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(begun.elapsed() < BOUND);
        sleep(Duration::from_millis(1)).await;
    }
    assert!(server.limits.open() > 0, "nobody was cut off for that");
    for raw in &mut clients {
        assert!(raw.chunk().await.unwrap().starts_with("retry: "));
        assert_eq!(raw.chunk().await, None);
    }
    bounded(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_behind_a_load_balancer_goes_on_accepting() {
    let shutdown = Shutdown::draining(Duration::from_secs(1));
    let signal = shutdown.on_drained(pending());
    let server = Server::start_with(shutdown, SseLayer::new(), signal);
    let mut clients = open_streams(&server, 40).await;
    server.shutdown.begin();
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /page HTTP/1.0\r\n\r\n").await;
    assert_eq!(raw.head().await[0], "HTTP/1.0 200 OK");
    // New clients are told to come back later.
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /silent HTTP/1.0\r\n\r\n").await;
    assert_eq!(raw.head().await[0], "HTTP/1.0 200 OK");
    assert!(raw.rest().await.starts_with("retry: "));
    for raw in &mut clients {
        assert!(raw.chunk().await.unwrap().starts_with("retry: "));
        assert_eq!(raw.chunk().await, None);
    }
    bounded(server.task).await.unwrap().unwrap();
}
