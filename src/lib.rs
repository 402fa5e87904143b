//! Server-Sent Events for axum: typed streams, channels with exact replay, and the response head.
//!
//! **What.** [`Sse`] turns a stream of serde values into an event stream. [`Channel`] keeps the
//! newest events for many clients: one that comes back with its [`LastEventId`] gets exactly what
//! it missed, or an event that says that something is missing. [`SseLayer`] gives every
//! `text/event-stream` response of an app, axum's own `Sse` included, the head that it needs,
//! decides who may read it from another origin, and ends it when the server stops.
//!
//! **Why.** A browser's `EventSource` reconnects by itself and says which event it saw last.
//! What comes after that is the server's part, and axum leaves it to the handler: to have kept
//! the events, to find the place again without losing or doubling any, and to say so where it
//! cannot.
//!
//! **How.** Publish to a channel from anywhere. In the handler, take a [`LastEventId`] as an
//! extractor and return `channel.subscribe(last)`. Put the layer on the routes that stream.
//!
//! ```
//! use axum::{Router, extract::State, response::IntoResponse, routing::get};
//! use axum_sse::{Channel, LastEventId, Shutdown, SseLayer};
//!
//! #[derive(serde::Serialize)]
//! struct Price { cents: u64 }
//!
//! async fn stream(State(prices): State<Channel<Price>>, last: LastEventId) -> impl IntoResponse {
//!     prices.subscribe(last)
//! }
//!
//! let prices = Channel::new();
//! let shutdown = Shutdown::new();
//! let app: Router = Router::new()
//!     .route("/prices", get(stream))
//!     .route_layer(SseLayer::new().shutdown(shutdown.clone()))
//!     .with_state(prices.clone());
//!
//! // From any thread or task, with a runtime or without:
//! prices.publish(&Price { cents: 1205 })?;
//! # Ok::<(), axum_sse::Error>(())
//! ```
//!
//! A channel is a bounded log of events that are already framed, and a connection is a position
//! in it. Replay begins further back, live delivery at the end, and there is no seam between the
//! two. A slow client lies further behind: it costs no queue and holds nobody up.
//!
//! # Where to look
//!
//! | to | see |
//! | --- | --- |
//! | stream values that belong to one connection | [`Sse`], [`Heartbeat`] |
//! | name an event, give it an id, send text or nothing | [`Event`], [`event_name!`] |
//! | publish to many clients, and let them resume | [`Channel`], [`Builder`] |
//! | carry many channels on one connection | [`Hub`], [`SubscriptionHandle`] |
//! | send a state first, and then its changes | [`StateChannel`], [`Channel::snapshot`] |
//! | run a job that survives its client | [`Runs`] |
//! | say where a client starts and what follows a gap | [`Subscription`], [`Start`], [`OnGap`], [`OnLag`] |
//! | know how a resume stands before the response starts | [`Subscription::resumption`], [`Resumption`] |
//! | read a client's last id, for a channel or for ids of your own | [`LastEventId`], [`StrictLastEventId`], [`EventId`] |
//! | set the head of any event stream, end all of them | [`SseLayer`], [`Shutdown`] |
//! | let pages of other origins read, with cookies, and refuse the rest | [`OriginAllowlist`], [`layer::Cors`] |
//! | bound how many are open, and for how long | [`layer::Limits`], [`SseLayer::lifetime`], [`Access`] |
//! | listen for clients that may never read | [`listener`] |
//! | see figures | [`Stats`] |
//! | test a handler | [`testing`] |
//! | branch on an error | [`ErrorKind`] |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `layer` | yes | [`SseLayer`], [`Access`] |
//! | `cors` | yes | [`OriginAllowlist`], and what the layer does with it |
//! | `listener` | | [`listener`]: sockets for `axum::serve` that are made for event streams |
//! | `testing` | | [`testing`]: a client for tests that reads and resumes event streams as a browser does |
//! | `metrics` | | reports the [`Stats`] of hubs through the `metrics` facade |
//! | `tracing` | | a span for each subscription, and warnings for what ends a stream early or is refused |
//!
//! Where the documentation mentions a rule by number, it means our list of what a conforming
//! server puts on the wire, [the rules of the wire]; a law is an invariant of the log
//! (`docs/architecture.md`).
//!
//! [the rules of the wire]: https://github.com/axum-sse/axum-sse/blob/main/docs/wire.md
//!
#![cfg_attr(
    not(feature = "listener"),
    doc = "[`listener`]: https://docs.rs/axum-sse/latest/axum_sse/listener/"
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "[`testing`]: https://docs.rs/axum-sse/latest/axum_sse/testing/"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// The library reports errors; tests, examples and benchmarks may panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

mod channel;
#[cfg(feature = "listener")]
mod connection;
mod error;
mod event;
mod last_event_id;
#[cfg(feature = "layer")]
pub mod layer;
mod lifetime;
#[cfg(feature = "listener")]
pub mod listener;
mod runs;
mod sse;
mod state_channel;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

pub use channel::stats::{GapCounts, Stats};
pub use channel::{
    Channel,
    builder::{ChannelBuilder, HubBuilder},
    hub::Hub,
    published::Published,
};
pub use channel::{
    gap::GapReason,
    subscription::{OnGap, OnLag, Resumption, Start, Subscription, SubscriptionHandle},
};
pub use error::{BoxError, Error, ErrorKind};
pub use event::{Event, EventId, EventName, Heartbeat, NotAResult, Payload};
pub use last_event_id::{LastEventId, StrictLastEventId, UnknownId, UnknownIdRejection};
#[cfg(feature = "layer")]
pub use layer::SseLayer;
#[cfg(feature = "cors")]
pub use layer::cors::OriginAllowlist;
#[cfg(feature = "layer")]
pub use lifetime::Access;
pub use lifetime::Shutdown;
pub use runs::{RunId, RunResponse, Runs, RunsBuilder};
pub use sse::Sse;
pub use state_channel::StateChannel;

// The README's examples must compile, and the one that can run must pass; nothing else needs the
// README here, so it exists for rustdoc's tests only.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/migration.md")]
struct Migration;

#[cfg(all(
    any(doc, doctest),
    feature = "cors",
    feature = "listener",
    feature = "testing"
))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}
