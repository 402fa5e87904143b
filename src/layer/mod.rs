//! [`SseLayer`]: a tower layer for routes that answer with event streams.
//!
//! It acts on responses whose `Content-Type` is `text/event-stream`, whoever made them: our own,
//! axum's `Sse`, a proxied stream. Others pass untouched. It never changes the type of the
//! service's error, and never answers in its place.

mod body;
mod future;
#[allow(clippy::module_inception)] // A file per tower role, as tower-http has them.
mod layer;
mod service;
#[cfg(test)]
mod tests;

pub use body::SseBody;
pub use future::ResponseFuture;
pub use layer::SseLayer;
pub use service::SseService;
