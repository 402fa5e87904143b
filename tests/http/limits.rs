//! Limits over sockets, and the listener's counts.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router, extract::ConnectInfo, response::IntoResponse, routing::get, serve::Listener as _,
};
use axum_sse::{
    Channel, LastEventId, Sse, SseLayer,
    layer::Limits,
    listener::{self, Options},
};
use futures_util::stream;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::client::{Raw, bounded};

fn peer(request: &axum::http::request::Parts) -> Option<String> {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.0.ip().to_string())
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    bounded(async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(condition(), "{what}");
}

#[tokio::test]
async fn rule_69_a_thousand_connects_and_aborts_leave_the_counters_at_zero() {
    let channel = Channel::<u32>::new();
    let limits = Limits::new().total(2000).per_key(2000, peer);
    let handler = {
        let channel = channel.clone();
        async move |last: LastEventId| channel.subscribe(last)
    };
    let app = Router::new()
        .route("/", get(handler))
        .route(
            "/axum",
            get(
                async || axum::response::sse::Sse::new(stream::pending::<Result<_, axum::Error>>()),
            ),
        )
        .layer(SseLayer::new().limits(limits.clone()));
    let options = Options::new();
    let connections = options.connections();
    let listener = options.bind(([127, 0, 0, 1], 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, app).into_future());

    let mut most = 0;
    for round in 0..1000 {
        most = most.max(limits.open());
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Close with a reset.
        stream.set_zero_linger().unwrap();
        let mut raw = match round % 4 {
            // Before the request, during the response headers, and after the first bytes.
            0 => continue,
            1 => Raw::from(stream),
            _ => {
                let path = ["/", "/axum"][round / 4 % 2];
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
                tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
                    .await
                    .unwrap();
                if round % 4 == 3 {
                    stream.read_u8().await.unwrap();
                }
                continue;
            }
        };
        raw.send("GET / HT").await;
    }
    until("everything is free", || {
        (limits.open(), limits.keys(), connections.open()) == (0, 0, 0)
    })
    .await;
    assert!(most > 0, "there were streams");
    assert_eq!(channel.stats().subscribers, 0);
}

#[tokio::test]
async fn rule_68_one_too_many_is_told_to_come_back_on_the_wire() {
    let limits = Limits::new().per_key(1, peer);
    let app = Router::new()
        .route("/", get(async || Sse::new(stream::pending::<u8>())))
        .layer(SseLayer::new().limits(limits.clone()));
    let listener = listener::bind(([127, 0, 0, 1], 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, app).into_future());

    let mut first = Raw::connect(address).await;
    first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    first.head().await;
    first.expect(":\n").await;
    let mut second = Raw::connect(address).await;
    second.send("GET / HTTP/1.0\r\n\r\n").await;
    let head = second.head().await;
    assert_eq!(head[0], "HTTP/1.0 200 OK");
    assert!(
        head.contains(&"content-type: text/event-stream".to_owned()),
        "{head:?}"
    );
    let rest = second.rest().await;
    let millis: u64 = rest
        .strip_prefix("retry: ")
        .and_then(|rest| rest.strip_suffix("\n:\n"))
        .unwrap()
        .parse()
        .unwrap();
    assert!((5000..=10_000).contains(&millis), "{millis}");

    drop(first);
    until("the place is free", || limits.open() == 0).await;
    let mut third = Raw::connect(address).await;
    third.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    third.head().await;
    third.expect(":\n").await;
}

#[tokio::test]
async fn a_handler_learns_the_peer_s_address() {
    let handler = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
    let app = Router::new().route("/", get(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // A connection that already exists.
    let options = Options::new();
    let connections = options.connections();
    let listener = options.listen_on(listener);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, app).into_future());
    let stream = TcpStream::connect(address).await.unwrap();
    let own = stream.local_addr().unwrap();
    let mut raw = Raw::from(stream);
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    raw.head().await;
    assert_eq!(connections.open(), 1);
    raw.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(raw.rest().await.ends_with(&own.to_string()));
    until("it has been closed", || connections.open() == 0).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_carries_streams_too() {
    use tokio::{
        io::AsyncWriteExt,
        net::{UnixListener, UnixStream},
    };

    let path = std::env::temp_dir().join(format!("axum-sse-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let handler = async || Sse::new(stream::iter([1, 2])).into_response();
    let app = Router::new()
        .route("/", get(handler))
        .layer(SseLayer::new());
    let options = Options::new();
    let connections = options.connections();
    let listener = options.listen_on_unix(UnixListener::bind(&path).unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    bounded(stream.read_to_string(&mut text)).await.unwrap();
    assert!(
        text.ends_with("\r\n\r\n:\ndata: 1\n\ndata: 2\n\n"),
        "{text}"
    );
    until("it has been closed", || connections.open() == 0).await;
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_system_s_cap_is_known_on_linux() {
    assert_eq!(listener::max_backlog().is_some(), cfg!(target_os = "linux"));
}
