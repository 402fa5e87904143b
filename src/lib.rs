//! Server-Sent Events for axum: typed streams, and channels with exact replay.
//!
//! A [`Channel`] keeps recent events, so a reconnecting client receives exactly what it missed, or
//! an explicit `gap` event. [`Sse`] turns a stream of serde values into a response. [`SseLayer`]
//! sets the right headers on every event stream, enforces a CORS allowlist, and closes streams on
//! shutdown.
//!
//! Browsers reconnect by themselves and send the last id they saw. The server has to do the rest:
//! keep the events, resume after that id without losing or repeating one, and tell the client when
//! events are gone.
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
//! // From any thread or task:
//! prices.publish(&Price { cents: 1205 })?;
//! # Ok::<(), axum_sse::Error>(())
//! ```
//!
//! A channel is a bounded log of encoded events, and a connection is a position in it. Replay
//! starts at an older position, so no event is lost or repeated where live delivery begins. A slow
//! client is an older position too: it needs no queue and delays nobody.
//!
//! The module [`guide`] leads from a plain stream to a complete app.
//!
//! # Where to look
//!
//! | to | see |
//! | --- | --- |
//! | stream the values of one connection | [`Sse`], [`Heartbeat`] |
//! | name an event, give it an id | [`Event`], [`event_name!`] |
//! | publish to many clients that can resume | [`Channel`], [`ChannelBuilder`] |
//! | put many channels on one connection | [`Hub`], [`HubBuilder`], [`SubscriptionHandle`] |
//! | send a state, then its changes | [`StateChannel`], [`Channel::snapshot`] |
//! | continue work without its client | [`Runs`] |
//! | choose where a client starts and what follows a gap | [`Subscription`], [`Start`], [`OnGap`], [`OnLag`] |
//! | know how a client resumes | [`Resumption`] |
//! | read the id that a client saw last | [`LastEventId`], [`EventId`] |
//! | set response headers, end all streams | [`SseLayer`], [`Shutdown`] |
//! | allow other origins, with cookies | [`OriginAllowlist`], [`layer::Cors`] |
//! | limit streams and their lifetime | [`layer::Limits`], [`SseLayer::lifetime`], [`Access`] |
//! | disconnect clients that stop reading | [`listener`] |
//! | read statistics | [`Stats`] |
//! | test a handler | [`testing`] |
//! | handle errors | [`ErrorKind`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `layer` | yes | [`SseLayer`], [`Access`] |
//! | `cors` | yes | [`OriginAllowlist`], the layer's CORS and origin check |
//! | `listener` | | [`listener`]: sockets tuned for event streams |
//! | `testing` | | [`testing`]: a client for tests |
//! | `metrics` | | statistics through the `metrics` facade |
//! | `tracing` | | spans for subscriptions, warnings for streams that end early |
//!
//! Without features, the crate depends on axum-core, not on axum.
//!
#![cfg_attr(
    not(feature = "listener"),
    doc = "[`listener`]: https://docs.rs/axum-sse/latest/axum_sse/listener/"
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "[`testing`]: https://docs.rs/axum-sse/latest/axum_sse/testing/"
)]
#![cfg_attr(
    not(all(feature = "cors", feature = "listener", feature = "testing")),
    doc = "[`guide`]: https://docs.rs/axum-sse/latest/axum_sse/guide/"
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

pub use channel::{
    Channel,
    builder::{ChannelBuilder, HubBuilder},
    gap::GapReason,
    hub::Hub,
    published::Published,
    stats::{GapCounts, Stats},
    subscription::{OnGap, OnLag, Resumption, Start, Subscription, SubscriptionHandle},
};
pub use error::{BoxError, Error, ErrorKind};
pub use event::{Event, EventId, EventName, Heartbeat, NotAResult, Payload};
pub use last_event_id::{LastEventId, UnknownId};
#[cfg(feature = "cors")]
pub use layer::cors::OriginAllowlist;
#[cfg(feature = "layer")]
pub use layer::layer::SseLayer;
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
