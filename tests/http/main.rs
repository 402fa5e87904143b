//! Tests over real sockets: `axum::serve`, and clients that show what is on the wire.
//!
//! Time is real here, but no test waits for a fixed time: every wait is for bytes, and its timeout
//! only prevents hanging on a failure.

#[cfg(test)]
mod client;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hostile_clients;
#[cfg(test)]
mod limits;
mod one_list;
#[cfg(test)]
mod shutdown;

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, io, net::SocketAddr, time::Duration};

    use axum::{
        Json, Router,
        body::Body,
        extract::State,
        http::{HeaderMap, Request, StatusCode, Version},
        response::{IntoResponse, sse},
        routing::get,
        serve::Listener as _,
    };
    use axum_sse::{
        Channel, EventId, LastEventId, OriginAllowlist, Shutdown, Sse, SseLayer, listener,
        testing::{Message, Parser, Reader},
    };
    use futures_util::{Stream, StreamExt, stream};
    use http_body_util::BodyExt;
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};

    use super::client::{Raw, bounded};

    type Numbers = Channel<u32>;

    struct Server {
        address: SocketAddr,
        channel: Numbers,
        shutdown: Shutdown,
        task: JoinHandle<io::Result<()>>,
    }

    impl Server {
        fn start() -> Self {
            let channel = Channel::builder().capacity(4).build();
            let shutdown = Shutdown::new();
            let layer = SseLayer::new().shutdown(shutdown.clone());
            let axums = async || {
                let event = sse::Event::default().data("x");
                let events = stream::iter([Ok::<_, Infallible>(event)]);
                sse::Sse::new(events.chain(stream::pending()))
            };
            let error = async || (StatusCode::CONFLICT, Json("no"));
            let app = Router::new()
                .route("/events", get(events))
                .route("/silent", get(async || Sse::new(stream::pending::<u8>())))
                .route("/three", get(async || Sse::new(stream::iter([1, 2, 3]))))
                .route("/axum", get(axums))
                .route("/error", get(error))
                .layer(layer)
                .with_state(channel.clone());
            let listener = listener::bind(([127, 0, 0, 1], 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let serve = axum::serve(listener, app).with_graceful_shutdown(shutdown.on(pending()));
            let task = tokio::spawn(serve.into_future());
            Self {
                address,
                channel,
                shutdown,
                task,
            }
        }

        fn publish(&self, numbers: std::ops::Range<u32>) -> Vec<EventId> {
            numbers
                .map(|n| self.channel.publish(&n).unwrap().id().unwrap())
                .collect()
        }

        async fn raw(&self, request: &str) -> Raw {
            let mut raw = Raw::connect(self.address).await;
            raw.send(request).await;
            raw
        }

        /// A stream on HTTP/1.1, after its response headers.
        async fn stream(&self, path: &str, headers: &str) -> Raw {
            let mut raw = self
                .raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))
                .await;
            assert_eq!(raw.head().await, stream_head("HTTP/1.1 200 OK", CHUNKED));
            raw
        }

        /// Waits until `axum::serve` has returned, after every connection has ended.
        async fn stops(self) {
            bounded(self.task).await.unwrap().unwrap();
        }
    }

    async fn events(State(channel): State<Numbers>, last: LastEventId) -> impl IntoResponse {
        channel.subscribe(last)
    }

    const CHUNKED: &[&str] = &["connection: keep-alive", "transfer-encoding: chunked"];

    /// The sorted lines of a stream's response headers, without the date.
    fn stream_head(status: &str, more: &[&str]) -> Vec<String> {
        let mut lines = vec![
            "content-type: text/event-stream",
            "cache-control: no-cache, no-store, no-transform",
            "x-accel-buffering: no",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
        ];
        lines.extend(more);
        lines.sort_unstable();
        lines.insert(0, status);
        lines.into_iter().map(str::to_owned).collect()
    }

    fn frame(id: EventId, data: usize) -> String {
        format!("id: {id}\ndata: {data}\n\n")
    }

    fn checkpoint(id: EventId) -> String {
        format!("event: checkpoint\nid: {id}\ndata: \n\n")
    }

    #[tokio::test]
    async fn rules_39_and_48_to_51_http_1_1_head_and_first_bytes_without_any_event() {
        let server = Server::start();
        let mut raw = server.stream("/silent", "").await;
        assert_eq!(raw.chunk().await.unwrap(), ":\n");
    }

    #[tokio::test]
    async fn rules_19_and_63_http_1_1_chunks_and_a_clean_end() {
        let server = Server::start();
        let mut raw = server.stream("/three", "").await;
        let expected = ":\ndata: 1\n\ndata: 2\n\ndata: 3\n\n";
        assert_eq!(raw.chunk().await.unwrap(), expected);
        assert_eq!(raw.chunk().await, None);
        // The connection stays open.
        raw.send("GET /three HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        let more = ["connection: close", "transfer-encoding: chunked"];
        assert_eq!(raw.head().await, stream_head("HTTP/1.1 200 OK", &more));
        assert_eq!(raw.chunk().await.unwrap(), expected);
        assert_eq!(raw.chunk().await, None);
        assert_eq!(raw.rest().await, "");
    }

    #[tokio::test]
    async fn rule_57_http_1_0_is_delimited_by_its_close() {
        let server = Server::start();
        // hyper itself promises to keep the connection if the client requests it, and then closes
        // it anyway.
        let wish = "Connection: keep-alive\r\n";
        for (headers, more) in [("", &[][..]), (wish, &["connection: keep-alive"])] {
            let mut raw = server
                .raw(&format!("GET /three HTTP/1.0\r\n{headers}\r\n"))
                .await;
            assert_eq!(raw.head().await, stream_head("HTTP/1.0 200 OK", more));
            assert_eq!(raw.rest().await, ":\ndata: 1\n\ndata: 2\n\ndata: 3\n\n");
        }
    }

    #[tokio::test]
    async fn rule_48_axum_s_own_sse_has_the_same_head() {
        let server = Server::start();
        let mut raw = server.stream("/axum", "").await;
        assert_eq!(raw.chunk().await.unwrap(), "data: x\n\n");
    }

    #[tokio::test]
    async fn rule_52_an_error_on_the_same_router_is_left_alone() {
        let server = Server::start();
        let mut raw = server.raw("GET /error HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(
            raw.head().await,
            [
                "HTTP/1.1 409 Conflict",
                "content-length: 4",
                "content-type: application/json"
            ]
        );
    }

    #[tokio::test]
    async fn rule_56_head_has_the_same_head_and_nothing_behind_it() {
        let server = Server::start();
        server.publish(0..3);
        for path in ["/events", "/silent", "/three", "/axum"] {
            let mut raw = server
                .raw(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .await;
            // A response to HEAD need not describe the framing of the body (RFC 9110, 9.3.2).
            let head = stream_head("HTTP/1.1 200 OK", &["connection: keep-alive"]);
            assert_eq!(raw.head().await, head);
            // The next bytes on this connection are the next response.
            raw.send("GET /error HTTP/1.0\r\n\r\n").await;
            assert_eq!(raw.head().await[0], "HTTP/1.0 409 Conflict");
            assert_eq!(raw.rest().await, "\"no\"");
        }
    }

    /// Starts a guarded server, and sends it a request on each version of HTTP.
    async fn guarded(origin: &str, host: &str) -> [(StatusCode, HeaderMap, String); 2] {
        let origins = OriginAllowlist::new(["https://app.example"]).unwrap();
        let layer = SseLayer::new().hosts(["app.example"]).unwrap();
        let app = Router::new()
            .route("/", get(async || Sse::new(stream::iter([1]))))
            .layer(layer.origins(origins));
        let listener = listener::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let io = || async { TokioIo::new(TcpStream::connect(address).await.unwrap()) };
        let (mut one, connection) = http1::handshake(io().await).await.unwrap();
        tokio::spawn(connection);
        let two = http2::handshake(TokioExecutor::new(), io().await);
        let (mut two, connection) = two.await.unwrap();
        tokio::spawn(connection);
        let request = |uri: String| {
            let request = Request::builder().uri(uri).header("origin", origin);
            request.body(Body::empty()).unwrap()
        };
        let mut with_host = request("/".to_owned());
        with_host
            .headers_mut()
            .insert("host", host.parse().unwrap());
        let answers = [
            bounded(one.send_request(with_host)).await.unwrap(),
            bounded(two.send_request(request(format!("http://{host}/"))))
                .await
                .unwrap(),
        ];
        let read = answers.map(async |answer| {
            let (head, body) = answer.into_parts();
            let body = bounded(body.collect()).await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            (head.status, head.headers, text)
        });
        let [one, two] = read;
        let answers = [one.await, two.await];
        server.abort();
        answers
    }

    #[tokio::test]
    async fn rules_101_128_and_130_refusals_have_a_length_and_are_not_stored() {
        for (origin, host, status) in [
            ("https://evil.example", "app.example", 403),
            ("https://app.example", "attacker.example", 421),
        ] {
            for (got, headers, text) in guarded(origin, host).await {
                assert_eq!(got, status);
                assert_eq!(headers["content-length"], text.len().to_string());
                assert!(!headers.contains_key("transfer-encoding"));
                assert_eq!(headers["cache-control"], "no-store");
                assert!(text.ends_with('\n') && text.len() > 10, "{text}");
            }
        }
        for (got, headers, text) in guarded("https://app.example", "app.example:80").await {
            assert_eq!(got, StatusCode::OK);
            assert!(!headers.contains_key("content-length"));
            assert_eq!(text, ":\ndata: 1\n\n");
        }
    }

    struct Http2 {
        sender: http2::SendRequest<Body>,
        address: SocketAddr,
    }

    impl Http2 {
        async fn connect(address: SocketAddr) -> Self {
            let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Self { sender, address }
        }

        async fn get(&mut self, path: &str, last_event_id: &str) -> Reader {
            let uri = format!("http://{}{path}", self.address);
            let mut request = Request::builder().uri(uri);
            if !last_event_id.is_empty() {
                request = request.header("last-event-id", last_event_id);
            }
            let request = request.body(Body::empty()).unwrap();
            let mut response = bounded(self.sender.send_request(request)).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.headers_mut().remove("date").is_some());
            let mut expected = HeaderMap::new();
            for line in &stream_head("", &[])[1..] {
                let (name, value) = line.split_once(": ").unwrap();
                let name: axum::http::HeaderName = name.parse().unwrap();
                expected.insert(name, value.parse().unwrap());
            }
            // Rule 51: no connection-specific fields, which would be malformed here.
            assert_eq!(response.headers(), &expected);
            Reader::new(response).timeout(Duration::from_secs(60))
        }
    }

    async fn message(reader: &mut Reader) -> Message {
        reader.next_message().await
    }

    #[tokio::test]
    async fn rule_58_http_2_carries_the_same_events() {
        let server = Server::start();
        let ids = server.publish(0..3);
        let mut client = Http2::connect(server.address).await;
        // Two at a time on one connection.
        let mut fresh = client.get("/events", "").await;
        let mut resumed = client.get("/events", &ids[0].to_string()).await;
        let checkpoint = message(&mut fresh).await;
        assert_eq!(checkpoint.event, "checkpoint");
        assert_eq!(checkpoint.last_event_id, ids[2].to_string());
        for (n, id) in ids.iter().enumerate().skip(1) {
            let message = message(&mut resumed).await;
            assert_eq!(message.data, n.to_string());
            assert_eq!(message.last_event_id, id.to_string());
        }
        let live = server.publish(3..4);
        for reader in [&mut fresh, &mut resumed] {
            let message = message(reader).await;
            assert_eq!(message.data, "3");
            assert_eq!(message.last_event_id, live[0].to_string());
        }

        let mut three = client.get("/three", "").await;
        for data in ["1", "2", "3"] {
            assert_eq!(message(&mut three).await.data, data);
        }
        assert_eq!(bounded(three.next()).await, None);
    }

    #[tokio::test]
    async fn rule_84_a_client_that_was_cut_off_gets_exactly_what_it_missed() {
        let server = Server::start();
        let mut raw = server.stream("/events", "").await;
        let start = server.channel.newest();
        raw.expect(&format!(":\n{}", checkpoint(start))).await;
        let ids = server.publish(0..2);
        raw.expect(&format!("{}{}", frame(ids[0], 0), frame(ids[1], 1)))
            .await;
        drop(raw);

        let missed = server.publish(2..4);
        let expected = format!(":\n{}{}", frame(missed[0], 2), frame(missed[1], 3));
        let header = format!("Last-Event-ID: {}\r\n", ids[1]);
        let mut raw = server.stream("/events", &header).await;
        raw.expect(&expected).await;
        let live = server.publish(4..5);
        raw.expect(&frame(live[0], 4)).await;

        // A page that cannot set the header sends the id in the query (rule 81).
        let path = format!("/events?lastEventId={}", missed[1]);
        let mut raw = server.stream(&path, "").await;
        raw.expect(&format!(":\n{}", frame(live[0], 4))).await;
    }

    #[tokio::test]
    async fn rules_75_and_86_no_id_is_refused_and_no_gap_is_silent() {
        let server = Server::start();
        let ids = server.publish(0..6);
        let retained: String = (2..6).map(|n| frame(ids[n], n)).collect();
        let other = Numbers::new().newest();
        let cases: [(Vec<u8>, &str, &str); 6] = [
            (other.to_string().into(), "restarted", "null"),
            (
                EventId::new(ids[0].epoch(), 0).to_string().into(),
                "evicted",
                "2",
            ),
            (b"x".to_vec(), "unknown", "null"),
            (b"\xC3\xA9\xE2\x80\xA6".to_vec(), "unknown", "null"),
            (b"\xFF\xFE".to_vec(), "unknown", "null"),
            (vec![b'x'; 9000], "unknown", "null"),
        ];
        for (id, reason, missed) in cases {
            let mut raw = Raw::connect(server.address).await;
            raw.send("GET /events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: ")
                .await;
            raw.send(&id).await;
            raw.send("\r\n\r\n").await;
            assert_eq!(raw.head().await, stream_head("HTTP/1.1 200 OK", CHUNKED));
            let oldest = ids[2];
            raw.expect(&format!(
                ":\nevent: gap\ndata: {{\"reason\":\"{reason}\",\"missed\":{missed},\"oldest\":\"{oldest}\"}}\n\n{retained}"
            ))
            .await;
        }
    }

    #[tokio::test]
    async fn rule_66_the_server_stops_while_streams_of_all_kinds_are_open() {
        let server = Server::start();
        let start = server.channel.newest();
        let mut one = Vec::new();
        for (path, first) in [
            ("/silent", ":\n".to_owned()),
            ("/axum", "data: x\n\n".to_owned()),
            ("/events", format!(":\n{}", checkpoint(start))),
        ] {
            let mut raw = server.stream(path, "").await;
            raw.expect(&first).await;
            one.push(raw);
        }
        let mut old = server.raw("GET /silent HTTP/1.0\r\n\r\n").await;
        old.head().await;
        let mut client = Http2::connect(server.address).await;
        let mut two = client.get("/events", "").await;
        assert_eq!(message(&mut two).await.event, "checkpoint");

        server.shutdown.begin();
        let comes_back = |text: &str| {
            let mut parser = Parser::new();
            parser.push(text.as_bytes());
            let millis = parser.retry().unwrap();
            assert!((2000..=4000).contains(&millis), "{text}");
            assert_eq!(text, format!("retry: {millis}\n:\n"));
        };
        for mut raw in one {
            comes_back(&raw.chunk().await.unwrap());
            assert_eq!(raw.chunk().await, None);
            assert_eq!(raw.rest().await, "");
        }
        let rest = old.rest().await;
        comes_back(rest.strip_prefix(":\n").unwrap());
        assert_eq!(bounded(two.next()).await, None);
        server.stops().await;
    }

    #[tokio::test]
    async fn rules_67_and_68_a_request_that_comes_too_late_is_told_to_come_back() {
        let server = Server::start();
        // A connection that is busy when the shutdown begins, with another request pipelined.
        let mut raw = server.stream("/silent", "").await;
        raw.expect(":\n").await;
        raw.send("GET /three HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.shutdown.begin();
        let last = raw.chunk().await.unwrap();
        assert!(last.starts_with("retry: "), "{last}");
        assert_eq!(raw.chunk().await, None);
        // The server may close here or respond, but never with an error.
        let rest = raw.rest().await;
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 200 OK\r\n"),
            "{rest}"
        );
        server.stops().await;
    }

    /// A stream that reports when it is dropped.
    fn watched() -> (impl Stream<Item = u8> + Send, oneshot::Receiver<()>) {
        let (alive, gone) = oneshot::channel::<()>();
        let items = stream::pending().map(move |item| {
            let _ = &alive;
            item
        });
        (items, gone)
    }

    #[tokio::test]
    async fn rule_69_the_source_is_dropped_when_the_client_goes() {
        let (source, gone) = watched();
        let source = std::sync::Arc::new(std::sync::Mutex::new(Some(source)));
        let handler = async move || Sse::new(source.lock().unwrap().take().unwrap());
        let app = Router::new()
            .route("/", get(handler))
            .layer(SseLayer::new());
        let listener = listener::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        let mut raw = Raw::connect(address).await;
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        raw.head().await;
        raw.expect(":\n").await;
        drop(raw);
        bounded(gone).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_listener_sets_nodelay_and_names_an_address_that_is_taken() {
        let mut first = listener::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = first.local_addr().unwrap();
        let error = listener::bind(address).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(
            error
                .to_string()
                .starts_with(&format!("listening on {address}: "))
        );
        let _client = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = bounded(first.accept()).await;
        assert!(accepted.get_ref().nodelay().unwrap());
    }
}
