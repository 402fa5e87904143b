//! The router of the guide's chapter "One list for the whole app".

use axum::{
    Json, Router,
    http::{Method, header},
    routing::get,
};
use axum_sse::{OriginAllowlist, Sse, SseLayer};
use tower_http::{
    compression::CompressionLayer,
    cors::{AllowOrigin, CorsLayer},
    trace::TraceLayer,
};

async fn news() -> Sse<tokio_stream::Pending<u8>> {
    Sse::new(tokio_stream::pending())
}

fn app(origins: OriginAllowlist) -> Router {
    let streams = Router::new()
        .route("/news", get(news))
        .route_layer(SseLayer::new().origins(origins.clone()));
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            origins.allows(origin.as_bytes())
        }))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE]);
    let api = Router::new()
        .route(
            "/items",
            get(async || Json(vec!["item"; 100])).post(async || "made"),
        )
        .route_layer(cors);
    Router::new()
        .route("/", get("the page"))
        .merge(api)
        .merge(streams)
        .layer(CompressionLayer::new())
        .layer(TraceLayer::new_for_http())
}
use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use tower::ServiceExt;

async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap) {
    let origins = OriginAllowlist::new(["https://app.example"]).unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("accept-encoding", "gzip");
    let request = headers
        .iter()
        .fold(request, |all, (name, value)| all.header(*name, *value));
    let answer = app(origins)
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    (answer.status(), answer.headers().clone())
}

#[tokio::test]
async fn streams_and_json_share_one_allowlist() {
    let (listed, other) = (
        ("origin", "https://app.example"),
        ("origin", "https://evil.example"),
    );
    let method = ("access-control-request-method", "GET");
    let asks_for = |name| ("access-control-request-headers", name);
    let granted = |headers: &HeaderMap| {
        let all: Vec<_> = headers
            .get_all("access-control-allow-origin")
            .iter()
            .collect();
        assert!(all.len() < 2);
        all.first()
            .is_some_and(|origin| *origin == "https://app.example")
    };
    // Streams: the layer answers, also preflights, and refuses other origins.
    let (status, headers) = ask("GET", "/news", &[listed]).await;
    assert!(status == 200 && granted(&headers));
    assert!(!headers.contains_key("content-encoding"));
    let (status, headers) = ask(
        "OPTIONS",
        "/news",
        &[listed, method, asks_for("last-event-id")],
    )
    .await;
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    assert!(status == 200 && granted(&headers) && allowed.contains("last-event-id"));
    for asks in ["GET", "OPTIONS"] {
        let (status, headers) = ask(asks, "/news", &[other, method]).await;
        assert!(status == 403 && !granted(&headers));
    }
    // JSON: the same list, and compressed.
    let (status, headers) = ask("GET", "/items", &[listed]).await;
    assert!(status == 200 && granted(&headers));
    assert_eq!(headers["content-encoding"], "gzip");
    let (status, headers) = ask(
        "OPTIONS",
        "/items",
        &[listed, method, asks_for("content-type")],
    )
    .await;
    assert!(status == 200 && granted(&headers));
    let (_, headers) = ask("GET", "/items", &[other]).await;
    assert!(!granted(&headers));
    // Pages are opened by navigation, which the layer's guard for streams would refuse.
    let typed_in = [("sec-fetch-site", "none"), ("sec-fetch-dest", "document")];
    assert_eq!(ask("GET", "/", &typed_in).await.0, 200);
    assert_eq!(ask("GET", "/news", &typed_in).await.0, 403);
    assert_eq!(ask("GET", "/elsewhere", &[other]).await.0, 404);
}
