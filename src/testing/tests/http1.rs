//! Bodies out of their framing (RFC 9112, sections 6 and 7), in pieces of any size.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::testing::{
    Client,
    http1::{Decoder, Framing, parse_head},
};

type Read = (String, Result<(), io::ErrorKind>);

/// The body, and what it means if the connection is closed then.
fn decode(framing: Framing, bytes: &[u8], size: usize) -> Read {
    let mut decoder = Decoder::new(framing);
    let mut body = Vec::new();
    for piece in bytes.chunks(size) {
        body.extend(decoder.push(piece));
    }
    let end = decoder.finish().map_err(|error| error.kind());
    (String::from_utf8(body).unwrap(), end)
}

fn chunked(bytes: &str) -> Read {
    let whole = decode(Framing::Chunked, bytes.as_bytes(), usize::MAX);
    for size in 1..bytes.len() {
        assert_eq!(
            decode(Framing::Chunked, bytes.as_bytes(), size),
            whole,
            "{bytes:?} by {size}"
        );
    }
    whole
}

fn whole(body: &str) -> Read {
    (body.to_owned(), Ok(()))
}

fn open(body: &str) -> Read {
    (body.to_owned(), Err(io::ErrorKind::UnexpectedEof))
}

fn wrong(body: &str) -> Read {
    (body.to_owned(), Err(io::ErrorKind::InvalidData))
}

#[test]
fn chunks() {
    assert_eq!(chunked("0\r\n\r\n"), whole(""));
    assert_eq!(chunked("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), whole("abc"));
    // A chunk may hold what looks like its end.
    assert_eq!(
        chunked("9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
        whole("\r\n0\r\n\r\n\r\n")
    );
    assert_eq!(
        chunked("1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n"),
        whole("abcdefghijklmnopqrstuvwxyz")
    );
    assert_eq!(
        chunked("000A\r\n0123456789\r\n000\r\n\r\n"),
        whole("0123456789")
    );
    // Extensions and trailers are read over.
    assert_eq!(
        chunked("1;a=\"0\";b\r\nx\r\n1 ;c\r\ny\r\n0;d\r\nA: b\r\nC: d\r\n\r\n"),
        whole("xy")
    );
    // What follows is not of this body.
    assert_eq!(
        chunked("1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"),
        whole("x")
    );
}

#[test]
fn a_chunked_body_is_whole_behind_its_last_chunk_only() {
    let text = "2\r\nab\r\n0\r\nT: x\r\n\r\n";
    for end in 0..text.len() {
        let expected = match end {
            0..=3 => "",
            4 => "a",
            _ => "ab",
        };
        assert_eq!(chunked(&text[..end]), open(expected), "{:?}", &text[..end]);
    }
}

#[test]
fn what_is_not_chunked_as_it_says() {
    for (text, body) in [
        ("\r\n", ""),
        ("x\r\n", ""),
        ("-1\r\na", ""),
        ("+1\r\na\r\n0\r\n\r\n", ""),
        (" 1\r\na\r\n0\r\n\r\n", ""),
        ("1\na\r\n0\r\n\r\n", ""),
        ("10000000000000000\r\n", ""),
        (";a\r\n", ""),
        // What stands in front of the error is body, however it was cut.
        ("1\r\nab\r\n0\r\n\r\n", "a"),
        ("1\r\na\n0\r\n\r\n", "a"),
        ("1\r\na\r\nx\r\n1\r\nb\r\n", "a"),
    ] {
        assert_eq!(chunked(text), wrong(body), "{text:?}");
    }
    let endless = "1".repeat(64 * 1024 + 1);
    let read = decode(Framing::Chunked, endless.as_bytes(), 1000);
    assert_eq!(read, wrong(""));
}

#[test]
fn other_framings() {
    for size in 1..6 {
        assert_eq!(decode(Framing::Length(3), b"abcde", size), whole("abc"));
        assert_eq!(decode(Framing::Length(6), b"abcde", size), open("abcde"));
        assert_eq!(decode(Framing::Close, b"abcde", size), whole("abcde"));
    }
    assert_eq!(decode(Framing::Length(0), b"a", 1), whole(""));
}

#[test]
fn heads() {
    let (response, framing) =
        parse_head(b"HTTP/1.1 200 OK\r\nContent-Type:text/event-stream \r\nx:  a: b\r\nX: c\r\nTransfer-Encoding: Chunked")
            .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let values: Vec<_> = response.headers().get_all("x").iter().collect();
    assert_eq!(values, ["a: b", "c"]);
    assert_eq!(framing, Framing::Chunked);

    let framing = |head: &str| {
        parse_head(head.as_bytes())
            .map(|(_, framing)| framing)
            .map_err(|error| error.kind())
    };
    let wrong = Err(io::ErrorKind::InvalidData);
    assert_eq!(framing("HTTP/1.0 200 OK"), Ok(Framing::Close));
    assert_eq!(framing("HTTP/1.1 404"), Ok(Framing::Close));
    assert_eq!(
        framing("HTTP/1.1 200 \r\ncontent-length: 12"),
        Ok(Framing::Length(12))
    );
    assert_eq!(
        framing("HTTP/1.1 200 \r\ncontent-length: 12\r\ntransfer-encoding: chunked"),
        Ok(Framing::Chunked)
    );
    assert_eq!(
        framing("HTTP/1.1 204 \r\ntransfer-encoding: chunked"),
        Ok(Framing::Length(0))
    );
    assert_eq!(
        framing("HTTP/1.1 304 \r\ncontent-length: 12"),
        Ok(Framing::Length(0))
    );
    assert_eq!(framing("HTTP/1.1 200 \r\ncontent-length: x"), wrong);
    assert_eq!(
        framing("HTTP/1.1 200 \r\ntransfer-encoding: gzip, chunked"),
        wrong
    );
    assert_eq!(
        framing("HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\ntransfer-encoding: gzip"),
        wrong
    );
    assert_eq!(
        framing("HTTP/1.1 200 \r\ncontent-length: 2\r\ncontent-length: 2"),
        Ok(Framing::Length(2))
    );
    assert_eq!(
        framing("HTTP/1.1 200 \r\ncontent-length: 2\r\ncontent-length: 3"),
        wrong
    );
    assert_eq!(framing("HTTP/1.1 200 \r\ncontent-length: +5"), wrong);
    assert_eq!(framing("HTTP/1.1 200 \r\ncontent-length:"), wrong);
    assert_eq!(framing("HTTP/1.1 103"), Ok(Framing::Length(0)));
    assert_eq!(framing("HTTP/1.1 101"), wrong);
    for head in [
        "",
        "HTTP/2 200",
        "ICY 200 OK",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nnonsense",
        "HTTP/1.1 200 OK\r\na b: c",
    ] {
        assert_eq!(framing(head), wrong, "{head:?}");
    }
}

/// A server that answers with these bytes, each as its own write.
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
async fn what_goes_over_a_socket() {
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
    // The end of the body is known before the connection ends, and is the client's sign to close.
    let closed = timeout(Duration::from_secs(60), socket.read(&mut [0])).await;
    assert_eq!(closed.expect("it is kept open").unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_closes_early_breaks_the_stream() {
    let (address, task) = server(vec![HEAD, "b\r\ndata: 1\n\nid\r\n"]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    assert_eq!(page.next_message().await.data, "1");
    drop(task.await.unwrap());
    assert_eq!(page.next().await, None);
    let said = page.error().unwrap().to_string();
    assert_eq!(said, "the connection was closed before the last chunk");
}

/// Head, event and error may come in one packet or in three.
#[tokio::test]
async fn an_error_in_the_framing_is_seen_behind_what_came_before_it() {
    let (head, chunk, error) = (HEAD, "9\r\ndata: 1\n\n\r\n", "x\r\n");
    let together = [head, chunk, error].concat();
    for answers in [vec![head, chunk, error], vec![&*together.leak()]] {
        let (address, _task) = server(answers).await;
        let mut page = Client::tcp(address).get("/").await.unwrap();
        assert_eq!(page.next_message().await.data, "1");
        assert_eq!(page.next().await, None);
        let said = page.error().unwrap().to_string();
        assert_eq!(said, "a chunk whose size is no number");
    }

    let together = [head, error].concat();
    let (address, _task) = server(vec![&*together.leak()]).await;
    let mut page = Client::tcp(address).get("/").await.unwrap();
    assert_eq!(page.next().await, None);
    assert!(page.error().is_some());
}

#[tokio::test]
async fn a_dropped_reader_closes_its_connection() {
    let (address, task) = server(vec![HEAD]).await;
    let page = Client::tcp(address).get("/").await.unwrap();
    let (_, mut socket) = task.await.unwrap();
    drop(page);
    let closed = timeout(Duration::from_secs(60), socket.read(&mut [0])).await;
    assert_eq!(closed.expect("it is kept open").unwrap(), 0);
}
