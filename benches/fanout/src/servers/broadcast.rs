//! axum's own `Sse` over `tokio::sync::broadcast` and `BroadcastStream`.
//!
//! In favour of this server, messages are shared (`Arc`) instead of cloned with their text, and a
//! lagging connection is not notified.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use axum_sse::EventId;
use futures_util::{StreamExt, stream::select_all};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::{Ids, Message, Setup, refuse};
use crate::Result;

#[derive(Debug)]
struct Shared<T> {
    setup: Setup,
    ids: Ids,
    channels: Vec<broadcast::Sender<T>>,
}

impl<T: Clone + Send + 'static> Shared<T> {
    fn new(setup: Setup) -> Arc<Self> {
        let channels = (0..setup.channels).map(|_| broadcast::Sender::new(setup.capacity));
        Arc::new(Self {
            setup,
            ids: Ids::new(),
            channels: channels.collect(),
        })
    }

    fn response(
        &self,
        group: usize,
        event: impl Fn(T) -> Result<Event, axum::Error> + Send + Copy + 'static,
    ) -> axum::response::Response {
        let live = move |channel: usize| {
            BroadcastStream::new(self.channels[channel].subscribe())
                .filter_map(move |item| async move { item.ok().map(event) })
                .boxed()
        };
        let mut streams: Vec<_> = self.setup.channels_of(group).map(live).collect();
        match streams.pop() {
            Some(only) if streams.is_empty() => respond(only),
            Some(last) => respond(select_all(streams.into_iter().chain([last]))),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

fn respond(
    stream: impl futures_util::Stream<Item = Result<Event, axum::Error>> + Send + 'static,
) -> axum::response::Response {
    Sse::new(stream)
        .keep_alive(KeepAlive::default())
        .into_response()
}

pub(super) fn event_of(id: EventId, message: &Message) -> Result<Event, axum::Error> {
    Event::default().id(id.to_string()).json_data(message)
}

type Messages = Arc<Shared<(EventId, Arc<Message>)>>;

/// Every connection encodes its own event.
pub(super) fn router(setup: Setup) -> Router {
    let shared: Messages = Shared::new(setup);
    Router::new()
        .route("/groups/{group}", get(stream))
        .route("/channels/{channel}", post(publish))
        .with_state(shared)
}

async fn stream(State(shared): State<Messages>, Path(group): Path<usize>) -> impl IntoResponse {
    shared.response(group, |(id, message)| event_of(id, &message))
}

async fn publish(
    State(shared): State<Messages>,
    Path(channel): Path<usize>,
    Json(message): Json<Message>,
) -> String {
    let id = shared.ids.draw();
    // An error means that there are no receivers.
    let _ = shared.channels[channel].send((id, Arc::new(message)));
    id.to_string()
}

type Clones = Arc<Shared<Event>>;

/// The event is encoded once, and cloned for each connection.
pub(super) fn router_of_clones(setup: Setup) -> Router {
    let shared: Clones = Shared::new(setup);
    Router::new()
        .route("/groups/{group}", get(stream_clones))
        .route("/channels/{channel}", post(publish_clone))
        .with_state(shared)
}

async fn stream_clones(
    State(shared): State<Clones>,
    Path(group): Path<usize>,
) -> impl IntoResponse {
    shared.response(group, Ok)
}

async fn publish_clone(
    State(shared): State<Clones>,
    Path(channel): Path<usize>,
    Json(message): Json<Message>,
) -> Result<String, StatusCode> {
    let id = shared.ids.draw();
    let event = event_of(id, &message).map_err(refuse)?;
    let _ = shared.channels[channel].send(event);
    Ok(id.to_string())
}
