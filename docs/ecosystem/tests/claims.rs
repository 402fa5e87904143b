//! What `docs/ecosystem.md` says about the behaviour of other crates.

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use axum_prometheus::PrometheusMetricLayerBuilder;
use axum_sse::{Channel, LastEventId, Subscription, testing::Client};
use tower_http::{
    compression::CompressionLayer,
    timeout::{ResponseBodyTimeoutLayer, TimeoutLayer},
    trace::TraceLayer,
};

async fn events(State(channel): State<Channel<str>>, last: LastEventId) -> Subscription {
    channel.subscribe(last)
}

fn streams(channel: &Channel<str>) -> Router {
    let router = Router::new().route("/events", get(events));
    router.with_state(channel.clone())
}

#[tokio::test(start_paused = true)]
async fn a_stream_passes_trace_timeout_and_compression() {
    let channel = Channel::new();
    let app = streams(&channel)
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            Duration::from_secs(10),
        ))
        .layer(TraceLayer::new_for_http());
    let client = Client::new(app).header("accept-encoding", "gzip");
    let mut page = client.get("/events").await.unwrap();
    assert_eq!(page.headers().get("content-encoding"), None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    page.expect_named("checkpoint").await;
    channel.publish("one").unwrap();
    assert_eq!(page.next_message().await.data, r#""one""#);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_between_frames_shorter_than_the_heartbeat_ends_a_stream() {
    let channel = Channel::new();
    for (seconds, ends) in [(5, true), (60, false)] {
        let layer = ResponseBodyTimeoutLayer::new(Duration::from_secs(seconds));
        let client = Client::new(streams(&channel).layer(layer));
        let mut page = client.get("/events").await.unwrap();
        page.expect_named("checkpoint").await;
        let mut page = page.timeout(Duration::from_secs(300));
        if ends {
            assert!(page.next().await.is_none());
        } else {
            page.expect_silence(Duration::from_secs(200)).await;
        }
        assert_eq!(page.error().is_some(), ends);
    }
}

/// Its histogram records the time to the headers, its gauge counts open streams.
#[tokio::test]
async fn axum_prometheus_counts_a_stream_as_one_fast_request() {
    let channel = Channel::new();
    let (layer, metrics) = PrometheusMetricLayerBuilder::new()
        .with_default_metrics()
        .build_pair();
    let client = Client::new(streams(&channel).layer(layer));
    let mut page = client.get("/events").await.unwrap();
    page.expect_named("checkpoint").await;
    let value = |name: &str| {
        let text = metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains("/events"));
        line.map(|line| line.rsplit(' ').next().unwrap().to_owned())
    };
    assert_eq!(value("axum_http_requests_pending").as_deref(), Some("1"));
    assert_eq!(
        value("axum_http_requests_duration_seconds_count").as_deref(),
        Some("1")
    );
    drop(page);
    let closed = async {
        while value("axum_http_requests_pending").as_deref() != Some("0") {
            tokio::task::yield_now().await;
        }
    };
    let bound = Duration::from_secs(60);
    assert!(tokio::time::timeout(bound, closed).await.is_ok());
}
