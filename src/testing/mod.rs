//! A client for tests that reads and resumes event streams as a browser does.
//!
//! It parses streams as the [HTML standard] specifies, and every wait has a timeout. The test of a
//! handler, including a reconnect:
//!
//! ```
//! use axum::{Router, extract::State, routing::get};
//! use axum_sse::{Channel, LastEventId, Subscription, testing::Client};
//!
//! async fn news(State(news): State<Channel<str>>, last: LastEventId) -> Subscription {
//!     news.subscribe(last)
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // #[tokio::test(start_paused = true)] async fn a_client_gets_what_it_missed() {
//! let channel = Channel::new();
//! let app = Router::new().route("/news", get(news)).with_state(channel.clone());
//! let mut page = Client::new(app).get("/news").await?;
//! page.expect_named("checkpoint").await;
//! channel.publish("one")?;
//! assert_eq!(page.next_message().await.json::<String>()?, "one");
//! channel.publish("two")?;
//! page.resume().await?; // Reconnects with `Last-Event-ID`.
//! assert_eq!(page.next_message().await.data, r#""two""#);
//! # Ok(())
//! # }
//! ```
//!
//! | to read | use |
//! | --- | --- |
//! | a `Router` or another service, without a server | [`Client::new`] |
//! | a running server, over plain HTTP/1.1 | [`Client::tcp`] |
//! | the return value of a handler, or any `http::Response` | [`Reader::new`] |
//! | a stream of bytes, such as reqwest's `bytes_stream()` | [`Reader::from_stream`] |
//! | hyper's body, or another `http_body::Body` | [`Reader::from_body`] |
//! | bytes | [`Parser`] |
//!
//! # Timeouts
//!
//! A wait that takes longer than five seconds panics; [`Reader::timeout`] and [`Client::timeout`]
//! change that. The message has the line of the caller and the items received so far:
//!
//! ```text
//! no event within 5s, at tests/news.rs:31:10
//! 2 items received:
//!   1. Comment("")
//!   2. Message { event: "checkpoint", data: "", last_event_id: "6h1MdPb1lDF-0" }
//! and an unfinished event: "hello\n"
//! ```
//!
//! Waits need a tokio runtime with time enabled, as `#[tokio::test]` has. With paused time
//! (`#[tokio::test(start_paused = true)]`), heartbeats, lifetimes and timeouts pass at once; events
//! more than five seconds apart still need a longer timeout. Do not pause time with
//! [`Client::tcp`]: a paused clock jumps ahead instead of waiting for the network.
//!
//! A paused clock also stops while the body is always ready, for instance with endless comments.
//! A wait then fails once the clock has not moved for the timeout in real time.
//!
//! # Limits
//!
//! For tests with trusted servers: the size of an event is not limited. The head of a response
//! from [`Client::tcp`] can have up to 64 KiB and 100 headers.
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html

#![allow(
    clippy::panic,
    reason = "the panics are how a test fails, and are documented"
)]

mod client;
#[cfg(all(test, feature = "tracing"))]
pub(crate) mod logged;
mod parser;
mod reader;
mod tcp;
mod wait;

pub use client::{Client, Refused};
pub use parser::{Item, JsonError, Message, Parser};
pub use reader::Reader;

#[cfg(test)]
mod tests;
