//! Responses over a socket, from a server that is a list of writes.

use std::{net::SocketAddr, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::testing::Client;

/// A server that responds with these strings, each in a separate write.
async fn server(
    answers: Vec<&'static str>,
) -> (SocketAddr, tokio::task::JoinHandle<(String, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(socket.read_buf(&mut request).await.unwrap() > 0);
        }
        for answer in answers {
            socket.write_all(answer.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        (String::from_utf8(request).unwrap(), socket)
    });
    (address, task)
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_request_and_a_response_over_a_socket() {
    let (address, task) = server(vec![
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        HEAD,
        "b\r\ndata: 1\n\n:\n\r\n9\r\nda",
        "ta: 2\n\n\r\n0\r\n",
        "\r\n",
    ])
    .await;
    let client = Client::tcp(address).header("cookie", "a=b");
    let mut page = client.get_after("/news?room=1", "7").await.unwrap();
    assert_eq!(page.last_event_id(), "7");
    assert_eq!(page.next_message().await.data, "1");
    assert_eq!(page.next_message().await.data, "2");
    page.expect_end().await;
    let (request, mut socket) = task.await.unwrap();
    let mut lines: Vec<_> = request.split_terminator("\r\n").collect();
    lines[1..].sort_unstable();
    let host = format!("host: {address}");
    assert_eq!(
        lines,
        [
            "GET /news?room=1 HTTP/1.1",
            "",
            "accept: text/event-stream",
            "cache-control: no-cache",
            "cookie: a=b",
            host.as_str(),
            "last-event-id: 7",
        ]
    );
    // The client closes the connection at the end of the body.
    let closed = timeout(Duration::from_secs(60), socket.read(&mut [0])).await;
    assert_eq!(closed.expect("the client keeps it open").unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_closes_early_breaks_the_stream() {
    let (address, task) = server(vec![HEAD, "b\r\ndata: 1\n\nid\r\n"]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    assert_eq!(page.next_message().await.data, "1");
    drop(task.await.unwrap());
    assert_eq!(page.next().await, None);
    let said = page.error().unwrap().to_string();
    assert_eq!(
        said,
        "error reading a body from connection: unexpected EOF during chunk size line"
    );
}

#[tokio::test]
async fn a_body_ends_with_its_length_or_with_the_connection() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let whole = format!("{head}content-length: 9\r\n\r\ndata: 1\n\ndata: 2\n\n");
    let (address, _open) = server(vec![whole.leak()]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    assert_eq!(page.rest().await.len(), 1);

    let short = format!("{head}content-length: 99\r\n\r\ndata: 1\n\n");
    let (address, task) = server(vec![short.leak()]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    drop(task.await.unwrap());
    assert_eq!(page.next_message().await.data, "1");
    assert_eq!(page.next().await, None);
    assert!(page.error().is_some());

    let old = "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let (address, task) = server(vec![old, "data: 1\n\ndata: 2"]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    drop(task.await.unwrap());
    assert_eq!(page.next_message().await.data, "1");
    page.expect_end().await;
}

/// Head, event and error in one packet, or in three.
#[tokio::test]
async fn an_error_in_the_framing_comes_after_the_events_before_it() {
    let (head, chunk, error) = (HEAD, "9\r\ndata: 1\n\n\r\n", "x\r\n");
    let together = [head, chunk, error].concat();
    for answers in [vec![head, chunk, error], vec![&*together.leak()]] {
        let (address, _task) = server(answers).await;
        let mut page = Client::tcp(address).get("/").await.unwrap();
        assert_eq!(page.next_message().await.data, "1");
        assert_eq!(page.next().await, None);
        let said = page.error().unwrap().to_string();
        let expected = "error reading a body from connection: Invalid chunk size line";
        assert!(said.starts_with(expected), "{said}");
    }

    let together = [head, error].concat();
    let (address, task) = server(vec![&*together.leak()]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    assert_eq!(page.next().await, None);
    assert!(page.error().is_some());
    let (_, mut socket) = task.await.unwrap();
    let closed = timeout(Duration::from_secs(60), socket.read(&mut [0])).await;
    assert_eq!(closed.expect("the client keeps it open").unwrap(), 0);
}

/// The panic of a request that this server answers.
async fn failure(answers: Vec<&'static str>) -> String {
    let (address, task) = server(answers).await;
    let client = Client::tcp(address);
    let get = AssertUnwindSafe(async { client.get("/").await.map(drop) }).catch_unwind();
    let (result, ()) = tokio::join!(get, async { drop(task.await.unwrap()) });
    *result.unwrap_err().downcast::<String>().unwrap()
}

#[tokio::test]
async fn a_response_without_a_head_that_can_be_read() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(64 * 1024)).leak();
    for (answers, reason) in [
        (vec![], "connection closed before message completed"),
        (
            vec!["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"],
            "connection closed before message completed",
        ),
        (vec!["ICY 200 OK\r\n\r\n"], "invalid HTTP version parsed"),
        (
            vec!["HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"],
            "invalid HTTP header parsed",
        ),
        (vec![&*long], "message head is too large"),
    ] {
        let said = failure(answers).await;
        assert!(said.starts_with(&format!("GET /: {reason}, at ")), "{said}");
    }
}

#[tokio::test]
async fn a_head_of_64_kib_is_read() {
    let long = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx: {}\r\n\r\n",
        "x".repeat(63 * 1024)
    );
    let (address, _task) = server(vec![long.leak(), "data: 1\n\n"]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    assert_eq!(page.next_message().await.data, "1");
}

#[tokio::test]
async fn a_change_of_protocols_is_refused() {
    let (address, _task) = server(vec![
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    ])
    .await;
    let refused = Client::tcp(address).get("/").await.unwrap_err();
    assert_eq!(refused.status(), 101);
}

#[tokio::test]
async fn a_dropped_reader_closes_its_connection() {
    let (address, task) = server(vec![HEAD]).await;
    let page = Client::tcp(address).get("/").await.unwrap();
    let (_, mut socket) = task.await.unwrap();
    drop(page);
    let closed = timeout(Duration::from_secs(60), socket.read(&mut [0])).await;
    assert_eq!(closed.expect("the client keeps it open").unwrap(), 0);
}
