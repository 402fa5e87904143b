//! Clients unlike any browser: slow or endless request headers, clients that do not read, floods
//! of connects and aborts. How the server reacts, and what it costs.

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use axum_sse::listener::Options;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{pause, sleep, timeout},
};

use super::{
    client::{Raw, bounded},
    hostile::{OK, Server, messages, told},
};

/// What this process uses, clients included, if the system reports it.
fn cost() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:"));
    let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    format!(
        "{}, {files} open files",
        resident.unwrap_or("VmRSS: unknown").replace('\t', " ")
    )
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_a_head() {
    let server = Server::start(Options::new());
    let id = server.app.publish("a", "1");
    server.app.publish("a", "2");
    let mut raw = Raw::connect(server.address).await;
    let head = format!("GET /user/a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {id}\r\n\r\n");
    for byte in head.as_bytes().chunks(1) {
        raw.send(byte).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.head().await[0], OK);
    let resumed = messages(&mut raw, 1).await;
    assert_eq!(resumed[0].data, "\"2\"");
}

/// Each costs a connection, but no limit slot and no subscription, and delays no other client.
#[tokio::test]
async fn half_open_clients_cost_a_connection_and_delay_no_client() {
    const EACH: usize = 400;
    let server = Server::start(Options::new());
    println!("before: {}", cost());
    let mut half_open = Vec::new();
    for round in 0..2 * EACH {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if round % 2 == 0 {
            let half = b"GET /user/a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: ";
            stream.write_all(half).await.unwrap();
        }
        half_open.push(stream);
    }
    while server.connections.open() < 2 * EACH {
        sleep(Duration::from_millis(5)).await;
    }
    let took = server.serves_a_fresh_client().await;
    println!(
        "{} half-open clients: {}; a fresh one served in {took:?}",
        2 * EACH,
        cost()
    );
    assert_eq!(server.app.asked.load(Ordering::Relaxed), 1, "the fresh one");
    drop(half_open);
    server.is_empty().await;
    println!("after: {}", cost());
}

/// hyper waits for the rest of a started request header, and even after an empty line; the
/// listener does not.
#[tokio::test]
async fn rule_66_no_unfinished_head_holds_up_a_shutdown() {
    for half in [
        "",
        "PRI",
        "P",
        "G",
        "\r\n",
        "GET /user/a HTTP/1.1\r\nHost: x\r\nLast-Ev",
    ] {
        let server = Server::start(Options::new());
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(half.as_bytes()).await.unwrap();
        server.serves_a_fresh_client().await;
        while server.connections.open() != 1 {
            sleep(Duration::from_millis(5)).await;
        }
        server.shutdown.begin();
        let stopped = timeout(Duration::from_secs(20), server.task).await;
        stopped.expect(half).unwrap().unwrap();
        drop(client);
    }
}

/// A whole request has arrived, and part of the next: this does not cut the first response short.
#[tokio::test]
async fn rule_66_a_stream_ends_as_any_with_half_a_request_behind_it() {
    let server = Server::start(Options::new());
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /user/a HTTP/1.1\r\nHost: x\r\n\r\nGET /us")
        .await;
    assert_eq!(raw.head().await[0], OK);
    assert_eq!(messages(&mut raw, 1).await[0].event, "checkpoint");
    server.shutdown.begin();
    bounded(server.task).await.unwrap().unwrap();
}

/// `axum::serve` gives hyper no timer, so hyper's own 30-second header timeout never starts. If
/// this test fails, that has changed, and docs/testing.md and docs/security.md are out of date.
#[tokio::test]
async fn nothing_ends_a_client_that_never_finishes_its_head() {
    let server = Server::start(Options::new());
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /user/a HTTP/1.1\r\nHost: x\r\n").await;
    while server.connections.open() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    pause();
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    assert_eq!(server.connections.open(), 1);
    raw.send("\r\n").await;
    assert_eq!(raw.head().await[0], OK);
}

/// A publisher waits for no client (law 10), and the listener cuts clients that do not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_70_clients_that_never_read_delay_no_client_and_are_cut() {
    const SILENT: usize = 100;
    const ROUNDS: usize = 200;
    let options = Options::new()
        .stall_timeout(Duration::from_secs(2))
        .send_buffer(16 * 1024);
    let server = Server::start(options);
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        let request = b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        silent.push(stream);
    }
    let (_, mut reader) = server.ask("/flood", b"").await;
    assert_eq!(told(&mut reader).await, "checkpoint");
    while server.app.flood.stats().subscribers < SILENT + 1 {
        sleep(Duration::from_millis(5)).await;
    }
    println!("before: {}", cost());
    let text = "x".repeat(10_000);
    let begun = Instant::now();
    let mut publishing = Duration::ZERO;
    for _ in 0..ROUNDS {
        let publish = Instant::now();
        server.app.flood.publish(&text).unwrap();
        publishing += publish.elapsed();
        // The client that reads gets everything, in order, without a gap.
        let got = messages(&mut reader, 1).await;
        assert_eq!(
            (got[0].event.as_str(), got[0].data.len()),
            ("message", text.len() + 2)
        );
    }
    println!(
        "{SILENT} that never read, 2 MB published to each: {}; publishing took {publishing:?} of {:?}",
        cost(),
        begun.elapsed()
    );
    while server.connections.open() > 1 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{}",
            server.connections.open()
        );
        sleep(Duration::from_millis(20)).await;
    }
    println!("cut after {:?}", begun.elapsed());
    assert_eq!(
        server.app.flood.stats().subscribers,
        1,
        "the one that reads"
    );
    drop((silent, reader));
    server.is_empty().await;
}

/// All at once instead of one after the other, and with other streams open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_69_a_flood_of_aborts_leaves_nothing_and_delays_no_client() {
    const TASKS: usize = 50;
    const EACH: usize = 100;
    let server = Server::start(Options::new());
    let before = server.app.publish("a", "before");
    let (_, mut beside) = server.with_id("/user/a", &before.to_string()).await;
    assert_eq!(told(&mut beside).await, "checkpoint");
    println!("before: {}", cost());
    let begun = Instant::now();
    let mut flood = JoinSet::new();
    for task in 0..TASKS {
        let address = server.address;
        flood.spawn(async move {
            let whole =
                format!("GET /user/a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {before}\r\n\r\n");
            for round in 0..EACH {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_zero_linger().unwrap();
                let part = match (task + round) % 3 {
                    0 => 0,
                    1 => whole.len() / 2,
                    _ => whole.len(),
                };
                stream.write_all(&whole.as_bytes()[..part]).await.unwrap();
            }
        });
    }
    let mut slowest = Duration::ZERO;
    while !flood.is_empty() {
        slowest = slowest.max(server.serves_a_fresh_client().await);
        while let Some(ended) = flood.try_join_next() {
            ended.unwrap();
        }
    }
    let took = begun.elapsed();
    println!(
        "{} connects and aborts in {took:?}: {}; fresh clients waited {slowest:?} at most",
        TASKS * EACH,
        cost()
    );
    server.app.publish("a", "after");
    let got = messages(&mut beside, 1).await;
    assert_eq!(got.last().unwrap().data, "\"after\"");
    drop(beside);
    server.is_empty().await;
    println!("after: {}", cost());
    // The system may report a connection before it is gone; a new one is accepted anyway.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /user/a HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let first = timeout(Duration::from_secs(10), stream.read_u8()).await;
    assert_eq!(first.unwrap().unwrap(), b'H');
}
