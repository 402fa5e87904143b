//! A tower layer for routes that answer with event streams: [`SseLayer`](crate::SseLayer).
//!
//! | when | what |
//! | --- | --- |
//! | before the handler, for every request under the layer | with `origins` or `cors`: answers to preflights, and 403 for other origins and for requests that no stream client sends; if configured: 421, 406 and limits |
//! | after the handler, if the response is `text/event-stream` | response headers, CORS headers, limits, lifetime, shutdown |
//! | never | 405, `Allow` and redirects, which are the router's |
//!
//! The layer cannot know whether a route is a stream before its handler has answered. So put it
//! on the stream routes and not on the whole app, whose pages, images and forms it would refuse:
//! collect the streams in a separate `Router`, add the layer with `route_layer`, and merge that
//! router into the app. (A layer with nothing but `SseLayer::hosts` can and should wrap the whole
//! app.)
//!
//! It handles event streams from any source: this crate's types, axum's `Sse`, a proxied response.
//! Other responses keep their body and headers, except for CORS headers. The error type of the
//! inner service stays the same.
//!
//! # Ways to mount it
//!
//! A preflight is an OPTIONS request to the stream's path, which usually has no OPTIONS handler.
//! It reaches a layer added with `Router::layer`, `Router::route_layer` or `MethodRouter::layer`,
//! but not one added with `MethodRouter::route_layer` (`get(h).route_layer(..)`), which wraps
//! only the existing handlers.
//!
//! `Router::layer` also wraps the router's fallback, and `merge` takes that fallback over: unless
//! the app sets its own, its 404s are then answered under this layer, and with 403 for pages of
//! other origins. `Router::route_layer` wraps the routes alone.
//!
//! Add it last, so that it is the outermost layer. Only then do a 401 from authentication and a
//! 429 from a rate limiter carry CORS headers, without which a page cannot tell them from a lost
//! connection.

mod accept;
mod answer;
mod body;
mod boundary;
#[cfg(feature = "cors")]
pub(crate) mod cors;
mod future;
#[allow(clippy::module_inception)] // A file per tower role, as in tower-http.
pub(crate) mod layer;
mod limits;
mod service;
#[cfg(test)]
mod tests;

pub use body::SseBody;
#[cfg(feature = "cors")]
pub use cors::Cors;
pub use future::ResponseFuture;
pub use limits::Limits;
pub use service::SseService;
