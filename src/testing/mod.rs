//! A client for tests: reads event streams as the HTML standard says, with waits that end.
//!
//! The whole test of a handler, with what a browser does when its connection is cut:
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
//! // #[tokio::test(start_paused = true)] async fn what_was_missed_comes_first() {
//! let channel = Channel::new();
//! let app = Router::new().route("/news", get(news)).with_state(channel.clone());
//! let mut page = Client::new(app).get("/news").await?;
//! page.expect_named("checkpoint").await;
//! channel.publish("one")?;
//! assert_eq!(page.next_message().await.json::<String>()?, "one");
//! channel.publish("two")?;
//! page.resume().await?; // Cut off, and back again with `Last-Event-ID`.
//! assert_eq!(page.next_message().await.data, r#""two""#);
//! # Ok(())
//! # }
//! ```
//!
//! | to read | use |
//! | --- | --- |
//! | a `Router`, or any service, without a server | [`Client::new`] |
//! | a server that listens, over HTTP/1.1 | [`Client::tcp`] |
//! | what a handler returned, or another client's `http::Response` | [`Reader::new`] |
//! | a stream of bytes, such as reqwest's `bytes_stream()` | [`Reader::from_stream`] |
//! | a body of hyper or another `http_body` | [`Reader::from_body`] |
//! | bytes | [`Parser`] |
//!
//! # Waits
//!
//! Every wait ends after five seconds, or after what [`Reader::timeout`] and [`Client::timeout`]
//! say. It then panics, with the line of the caller and with what had arrived so far:
//!
//! ```text
//! no event within 5s, at tests/news.rs:31:10
//! 2 items had arrived:
//!   1. Comment("")
//!   2. Message { event: "checkpoint", data: "", last_event_id: "6h1MdPb1lDF-0" }
//! and, without the blank line that ends an event: "hello\n"
//! ```
//!
//! Tokio's clock must run (`#[tokio::test]` sees to that). With paused time
//! (`#[tokio::test(start_paused = true)]`) heartbeats, lifetimes and failures take no time; a wait
//! for something later than five seconds needs a longer timeout there too. Over sockets, leave the
//! time running: a paused clock does not wait for the network, and jumps.
//!
//! A body that is always ready, such as comments without an end, keeps a paused clock from going
//! on. A wait ends there when the clock has stood still for that long of real time.
//!
//! # What is bounded
//!
//! Waits, the head of a response read from a socket (64 KiB), and what a panic shows. Nothing
//! else: an event may be as large as it likes, since this is for servers that one trusts.

#![allow(clippy::panic, reason = "a test fails by a panic, and users see these")]

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
