//! [`SseLayer`]: a tower layer for routes that answer with event streams.
//!
//! | when | what |
//! | --- | --- |
//! | before the handler, on every request under the layer | preflight, 403 for other origins and for what is no stream's request; 406, 421 and limits only where asked for |
//! | after the handler, if the response is `text/event-stream` | head, CORS headers, a place within the limits, lifetime, shutdown |
//! | never | 405, `Allow`, redirects: they are the router's |
//!
//! A layer cannot know that a route is a stream before its handler has answered. So it belongs
//! on the stream routes and not on the whole app, whose pages, images and forms it would refuse:
//! put the streams into a `Router` of their own, put the layer on its routes with `route_layer`,
//! and merge it into the app. (A layer with nothing but `SseLayer::hosts` may go around
//! the whole app, and should.)
//!
//! It acts on responses of any make: our own, axum's `Sse`, a proxied stream. What is not an
//! event stream keeps its body and head, but for CORS headers. The service's error type stays
//! its own.
//!
//! # Ways to mount it
//!
//! A preflight is an OPTIONS request to the stream's path, for which there is no handler. It
//! reaches the layer that was put on with `Router::layer`, `Router::route_layer` or
//! `MethodRouter::layer`, and not one put on with `MethodRouter::route_layer`
//! (`get(h).route_layer(..)`), which wraps the handlers that are there.
//!
//! `Router::layer` also wraps the router's fallback, and `merge` takes that over: unless the app
//! sets a fallback of its own, its 404s are then answered under this layer, and with 403 to pages
//! of other origins. `Router::route_layer` wraps the routes alone.
//!
//! Put it on last, so that it is outermost: only then do a 401 of the authentication within and
//! a 429 of a limiter carry CORS headers, without which a page cannot tell them from a lost
//! connection (rule 118).

mod accept;
mod answer;
mod body;
mod boundary;
#[cfg(feature = "cors")]
pub(crate) mod cors;
#[cfg(feature = "cors")]
mod cors_service;
#[allow(clippy::module_inception)] // A file per tower role, as tower-http has them.
mod layer;
mod limits;
mod service;
mod streams;
#[cfg(test)]
mod tests;

pub use body::SseBody;
#[cfg(feature = "cors")]
pub use cors::Cors;
pub use layer::SseLayer;
pub use limits::Limits;
pub use service::{ResponseFuture, SseService};
