//! The replay that users write by hand: broadcast for live events, a locked `VecDeque` for clients
//! that reconnect, and a chain of the two.
//!
//! In favour of this server, an event is encoded once, when it is published, and cloned for each
//! client.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use axum_sse::EventId;
use futures_util::{
    StreamExt,
    stream::{BoxStream, iter, select_all},
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::{Ids, Message, Setup, broadcast::event_of, refuse};
use crate::Result;

type Item = (EventId, Event);

#[derive(Debug)]
struct Shared {
    setup: Setup,
    ids: Ids,
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    /// Sent to while holding the lock of `history`, so that no event is lost or duplicated between
    /// the two.
    live: broadcast::Sender<Item>,
    history: Mutex<VecDeque<Item>>,
}

impl Channel {
    fn publish(
        &self,
        ids: &Ids,
        capacity: usize,
        message: &Message,
    ) -> Result<EventId, axum::Error> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let id = ids.draw();
        let item = (id, event_of(id, message)?);
        if history.len() == capacity {
            history.pop_front();
        }
        history.push_back(item.clone());
        // An error means that there are no receivers.
        let _ = self.live.send(item);
        Ok(id)
    }

    fn subscribe(&self, last: Option<EventId>) -> BoxStream<'static, Item> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let missed: Vec<_> = match last {
            None => Vec::new(),
            Some(last) => {
                let after = history.iter().filter(|(id, _)| *id > last);
                after.cloned().collect()
            }
        };
        drop(history);
        let live = BroadcastStream::new(live).filter_map(|item| async move { item.ok() });
        iter(missed).chain(live).boxed()
    }
}

pub(super) fn router(setup: Setup) -> Router {
    let channels = (0..setup.channels).map(|_| Channel {
        live: broadcast::Sender::new(setup.capacity),
        history: Mutex::default(),
    });
    let shared = Arc::new(Shared {
        setup,
        ids: Ids::new(),
        channels: channels.collect(),
    });
    Router::new()
        .route("/groups/{group}", get(stream))
        .route("/channels/{channel}", post(publish))
        .with_state(shared)
}

async fn stream(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<usize>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let last = match headers.get("last-event-id") {
        None => None,
        Some(last) => Some(last.to_str().map_err(refuse)?.parse().map_err(refuse)?),
    };
    let channels = shared.setup.channels_of(group);
    let mut streams: Vec<_> = channels
        .map(|channel| shared.channels[channel].subscribe(last))
        .collect();
    let items = match streams.pop() {
        Some(only) if streams.is_empty() => only,
        Some(last) => select_all(streams.into_iter().chain([last])).boxed(),
        None => return Err(StatusCode::NOT_FOUND),
    };
    let events = items.map(|(_, event)| Ok::<_, Infallible>(event));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

async fn publish(
    State(shared): State<Arc<Shared>>,
    Path(channel): Path<usize>,
    Json(message): Json<Message>,
) -> Result<String, StatusCode> {
    let channel = &shared.channels[channel];
    let id = channel.publish(&shared.ids, shared.setup.capacity, &message);
    Ok(id.map_err(refuse)?.to_string())
}
