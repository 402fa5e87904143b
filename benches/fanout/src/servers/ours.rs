//! This crate's server, as a user would write it.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use axum_sse::{Channel, Hub, LastEventId, SseLayer};

use super::{Message, Setup, refuse};
use crate::Result;

pub(super) fn router(setup: Setup) -> Result<Router> {
    if setup.channels == 1 {
        let events = Channel::builder()
            .capacity(setup.capacity)
            .bytes(setup.bytes)
            .coalesce(Duration::from_millis(setup.coalesce))
            .build();
        return Ok(Router::new()
            .route("/groups/{group}", get(stream))
            .layer(SseLayer::new())
            .route("/channels/{channel}", post(publish))
            .with_state(events));
    }
    let hub = Hub::builder()
        .capacity(setup.capacity)
        .bytes(setup.bytes)
        .max_channels(setup.channels)
        .coalesce(Duration::from_millis(setup.coalesce))
        .build();
    Ok(Router::new()
        .route("/groups/{group}", get(stream_many))
        .layer(SseLayer::new())
        .route("/channels/{channel}", post(publish_to))
        .with_state((hub, setup)))
}

async fn stream(State(events): State<Channel<Message>>, last: LastEventId) -> impl IntoResponse {
    events.subscribe(last)
}

async fn publish(
    State(events): State<Channel<Message>>,
    Json(message): Json<Message>,
) -> Result<String, StatusCode> {
    let id = events.publish(&message).map_err(refuse)?.await;
    let id = id.map_err(refuse)?;
    Ok(id.to_string())
}

async fn stream_many(
    State((hub, setup)): State<(Hub, Setup)>,
    Path(group): Path<usize>,
    last: LastEventId,
) -> impl IntoResponse {
    hub.subscribe(setup.channels_of(group).map(name), last)
}

async fn publish_to(
    State((hub, _)): State<(Hub, Setup)>,
    Path(channel): Path<usize>,
    Json(message): Json<Message>,
) -> Result<String, StatusCode> {
    let channel: Channel<Message> = hub.channel(name(channel)).map_err(refuse)?;
    let id = channel.publish(&message).map_err(refuse)?.await;
    let id = id.map_err(refuse)?;
    Ok(id.to_string())
}

fn name(channel: usize) -> String {
    format!("channel/{channel}")
}
