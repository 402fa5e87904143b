//! Many connections over real sockets, cut at random moments while several publishers run. Each
//! client's transcript, across its reconnects, must be contiguous for each of its channels and
//! free of duplicates, or have a gap event exactly where something is missing (laws 3 to 5).
//!
//! Bounded by counts: each client makes a fixed number of connections; the publishers continue
//! until no client has any left, and then close the channels.

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::serve::Listener as _;
use axum::{
    Router,
    extract::{Query, State},
    response::IntoResponse,
    routing::get,
};
use axum_sse::{
    Channel, EventId, Hub, LastEventId, SseLayer, listener,
    testing::{Item, Parser},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

const CHANNELS: usize = 6;
const PUBLISHERS: usize = 4;
const CLIENTS: usize = 400;
/// How many connections of each client are cut; 2,000 in all.
const CUTS: usize = 5;

/// Events by channel, in order.
type Published = Vec<Vec<EventId>>;

async fn stream(
    State(hub): State<Hub>,
    Query(set): Query<Vec<(String, String)>>,
    last: LastEventId,
) -> impl IntoResponse {
    hub.subscribe(set.into_iter().map(|(_, name)| name), last)
}

fn name(channel: usize) -> String {
    format!("channel-{channel}")
}

/// Publishes until no client has a cut left.
fn publish(hub: &Hub, publisher: usize, cuts_left: &AtomicUsize) -> Vec<(usize, EventId)> {
    let mut published = Vec::new();
    let mut turn = publisher;
    while cuts_left.load(Ordering::Relaxed) > 0 {
        for _ in 0..3 {
            turn += 1;
            let at = (turn * 7 + publisher) % CHANNELS;
            let channel: Channel<str> = hub.channel(name(at)).unwrap();
            // Most events are small; some are too large to be copied.
            let size = if turn.is_multiple_of(50) {
                5000
            } else {
                turn % 90
            };
            let id = channel.publish(&"x".repeat(size)).unwrap().id().unwrap();
            published.push((at, id));
        }
        // Let the clients run, even on two cores.
        thread::sleep(Duration::from_millis(1));
    }
    published
}

#[derive(Debug)]
enum Seen {
    Connected,
    Event(EventId),
    Checkpoint(EventId),
    Gap {
        channel: usize,
        oldest: Option<EventId>,
    },
}

struct Client {
    address: SocketAddr,
    channels: Vec<usize>,
    last: String,
    seen: Vec<Seen>,
    /// A separate random generator, so that each client is cut elsewhere.
    random: u64,
}

impl Client {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Reads one connection until `cut` bytes have arrived; `Break` if the server ends the
    /// reconnects with a 204.
    async fn connect(&mut self, cut: usize) -> ControlFlow<()> {
        let names: Vec<_> = self
            .channels
            .iter()
            .map(|at| format!("c={}", name(*at)))
            .collect();
        let mut head = format!("GET /?{} HTTP/1.0\r\nHost: x\r\n", names.join("&"));
        if !self.last.is_empty() {
            head += &format!("Last-Event-ID: {}\r\n", self.last);
        }
        head += "\r\n";
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        if cut.is_multiple_of(2) {
            // Close with a reset.
            socket.set_zero_linger().unwrap();
        }

        self.seen.push(Seen::Connected);
        let mut parser = Parser::new();
        let (mut bytes, mut body, mut total) = (Vec::new(), None, 0);
        loop {
            let at = bytes.len();
            let read = timeout(Duration::from_secs(50), socket.read_buf(&mut bytes)).await;
            let arrived = read.expect("it hangs").unwrap_or(0);
            if arrived == 0 {
                return ControlFlow::Continue(());
            }
            total += arrived;
            let end = bytes.len() - total.saturating_sub(cut).min(bytes.len());
            let from = match body {
                Some(()) => at,
                None => match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    None => continue,
                    Some(_) if bytes.starts_with(b"HTTP/1.0 204") => return ControlFlow::Break(()),
                    Some(end_of_head) => {
                        assert!(bytes.starts_with(b"HTTP/1.0 200"));
                        body = Some(());
                        end_of_head + 4
                    }
                },
            };
            for item in parser.push(&bytes[from..end.max(from)]) {
                self.note(item);
            }
            if !parser.last_event_id().is_empty() {
                parser.last_event_id().clone_into(&mut self.last);
            }
            if total >= cut {
                return ControlFlow::Continue(());
            }
            bytes.clear();
        }
    }

    fn note(&mut self, item: Item) {
        let Item::Message(message) = item else {
            return;
        };
        let id = || message.last_event_id.parse().unwrap();
        match message.event.as_str() {
            "message" => self.seen.push(Seen::Event(id())),
            "checkpoint" => self.seen.push(Seen::Checkpoint(id())),
            "gap" => {
                let gap: serde_json::Value = serde_json::from_str(&message.data).unwrap();
                let seen = |channel, part: &serde_json::Value| Seen::Gap {
                    channel,
                    oldest: part["oldest"].as_str().map(|id| id.parse().unwrap()),
                };
                match gap["channels"].as_object() {
                    Some(channels) => self.seen.extend(channels.iter().map(|(name, part)| {
                        seen(name.rsplit('-').next().unwrap().parse().unwrap(), part)
                    })),
                    None => self.seen.push(seen(self.channels[0], &gap)),
                }
            }
            other => panic!("an event named {other}"),
        }
    }

    async fn run(mut self, cuts_left: Arc<AtomicUsize>, mut closed: watch::Receiver<bool>) -> Self {
        for _ in 0..CUTS {
            let cut = 100 + usize::try_from(self.random(12_000)).unwrap();
            let goes_on = self.connect(cut).await;
            cuts_left.fetch_sub(1, Ordering::Relaxed);
            assert!(goes_on.is_continue(), "nothing is closed yet");
        }
        closed.wait_for(|closed| *closed).await.unwrap();
        // The rest, the end, and then a 204.
        while self.connect(usize::MAX).await.is_continue() {}
        self
    }

    /// Checks the transcript against everything that was published.
    fn check(&self, published: &Published) {
        let behind = |channel: usize, id: EventId| -> Option<EventId> {
            let all = &published[channel];
            all.get(all.partition_point(|other| *other <= id)).copied()
        };
        // The id after which each channel continues; `None` after a gap that does not show it.
        let mut known: Vec<Option<EventId>> = vec![None; CHANNELS];
        let mut last: Option<EventId> = None;
        for seen in &self.seen {
            match seen {
                Seen::Connected => {
                    for &channel in &self.channels {
                        // Law 5: the last id has not passed over an event.
                        if let (Some(before), Some(last)) = (known[channel], last) {
                            let lost = behind(channel, before).filter(|next| *next <= last);
                            assert_eq!(lost, None, "channel {channel} at {last}");
                        }
                        known[channel] = last;
                    }
                }
                Seen::Event(id) => {
                    let channel = (0..CHANNELS)
                        .find(|at| published[*at].binary_search(id).is_ok())
                        .expect("an event that was published");
                    assert!(self.channels.contains(&channel), "rule 90");
                    assert!(
                        last.is_none_or(|last| last < *id),
                        "law 5: {last:?} then {id}"
                    );
                    if let Some(before) = known[channel] {
                        assert_eq!(
                            behind(channel, before),
                            Some(*id),
                            "law 3: channel {channel}"
                        );
                    }
                    known[channel] = Some(*id);
                    last = Some(*id);
                }
                Seen::Checkpoint(id) => {
                    for &channel in &self.channels {
                        if let Some(before) = known[channel] {
                            let lost = behind(channel, before).filter(|next| next <= id);
                            assert_eq!(lost, None, "law 4: channel {channel} at {id}");
                        }
                        known[channel] = Some(*id);
                    }
                    last = Some(*id);
                }
                Seen::Gap { channel, oldest } => {
                    let before = oldest.map(|id| EventId::new(id.epoch(), id.sequence() - 1));
                    if let (Some(known), Some(before)) = (known[*channel], before) {
                        assert!(
                            behind(*channel, known) < behind(*channel, before),
                            "a false gap"
                        );
                    }
                    known[*channel] = before;
                }
            }
        }
        for &channel in &self.channels {
            let known = known[channel].expect("it was told where it stands");
            assert_eq!(behind(channel, known), None, "channel {channel} ends early");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laws_3_to_5_for_2_000_connections_that_are_cut() {
    let hub = Hub::builder().capacity(150).build();
    let listener = listener::bind(([127, 0, 0, 1], 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/", get(stream))
        .layer(SseLayer::new())
        .with_state(hub.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let cuts_left = Arc::new(AtomicUsize::new(CLIENTS * CUTS));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (hub, cuts_left) = (hub.clone(), cuts_left.clone());
            thread::spawn(move || publish(&hub, publisher, &cuts_left))
        })
        .collect();
    let (close, closed) = watch::channel(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let channels = match client % 4 {
                0 => vec![client % CHANNELS],
                1 => vec![client % CHANNELS, (client + 1) % CHANNELS],
                _ => (0..CHANNELS).filter(|at| (client >> at) & 1 == 0).collect(),
            };
            let client = Client {
                address,
                channels: if channels.is_empty() {
                    vec![0]
                } else {
                    channels
                },
                last: String::new(),
                seen: Vec::new(),
                random: 0x9E37_79B9_7F4A_7C15 ^ (client as u64 + 1),
            };
            tokio::spawn(client.run(cuts_left.clone(), closed.clone()))
        })
        .collect();

    let published = tokio::task::spawn_blocking(move || {
        let mut published: Published = vec![Vec::new(); CHANNELS];
        for publisher in publishers {
            for (channel, id) in publisher.join().unwrap() {
                published[channel].push(id);
            }
        }
        for (at, ids) in published.iter_mut().enumerate() {
            ids.sort_unstable();
            hub.channel::<str>(name(at)).unwrap().close(None).unwrap();
        }
        (published, hub)
    });
    let (published, hub) = published.await.unwrap();
    close.send_replace(true);
    let mut gaps = 0;
    let mut events = 0;
    for client in clients {
        let client = client.await.unwrap();
        client.check(&published);
        gaps += client
            .seen
            .iter()
            .filter(|seen| matches!(seen, Seen::Gap { .. }))
            .count();
        events += client
            .seen
            .iter()
            .filter(|seen| matches!(seen, Seen::Event(_)))
            .count();
    }
    println!(
        "{} events published, {events} received, {gaps} gaps",
        published.iter().map(Vec::len).sum::<usize>()
    );
    assert_eq!(hub.stats().subscribers, 0);
}
