//! The ways to mount the layer, and which requests reach it.

use axum::routing::{MethodRouter, post};

use super::*;

const STREAM: &str = "/events";

async fn stream() -> Response<Body> {
    event_stream(Watched::default().body())
}

/// The documented ways to mount the layer, except for the one that misses preflights.
fn mounted(layer: &SseLayer) -> [(&'static str, Router); 5] {
    let layer = || layer.clone();
    let route = |methods: MethodRouter| Router::new().route(STREAM, methods);
    [
        ("Router::layer", route(get(stream)).layer(layer())),
        (
            "Router::route_layer",
            route(get(stream)).route_layer(layer()),
        ),
        ("MethodRouter::layer", route(get(stream).layer(layer()))),
        (
            "as a fallback",
            Router::new().fallback_service(route(get(stream)).layer(layer())),
        ),
        (
            "merged",
            Router::new().merge(route(get(stream)).layer(layer())),
        ),
    ]
}

async fn to(app: &Router, path: &str, mut request: Request<Body>) -> Response<Body> {
    *request.uri_mut() = path.parse().unwrap();
    app.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn rule_62_405_and_allow_are_the_router_s() {
    let limits = Limits::new().total(9);
    for (mount, app) in mounted(&SseLayer::new().limits(limits)) {
        for method in [Method::DELETE, Method::POST, Method::OPTIONS] {
            let answer = to(&app, STREAM, ask(method, &[])).await;
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{mount}");
            assert_eq!(values(&answer, "allow"), ["GET,HEAD"], "{mount}");
        }
        let answer = to(&app, STREAM, ask(Method::GET, &[])).await;
        assert_eq!(answer.headers(), &stream_head(), "{mount}");
        assert_eq!(values(&answer, "allow"), [""; 0]);
        let answer = to(&app, STREAM, ask(Method::HEAD, &[])).await;
        assert_eq!(answer.headers(), &stream_head(), "{mount}");
    }
}

#[tokio::test]
async fn rule_62_post_streams_are_legal() {
    let limits = Limits::new().total(1);
    let shutdown = Shutdown::new();
    let layer = SseLayer::new()
        .limits(limits.clone())
        .shutdown(shutdown.clone());
    let app = Router::new()
        .route(STREAM, post(stream).get(stream))
        .route_layer(layer);
    let mut answer = to(&app, STREAM, ask(Method::POST, &[])).await;
    assert_eq!(answer.headers(), &stream_head());
    assert_eq!(limits.open(), 1);
    shutdown.begin();
    let last = answer.body_mut().frame().await.unwrap().unwrap();
    assert!(last.into_data().unwrap().starts_with(b"retry: "));
    assert!(answer.body_mut().frame().await.is_none());
}

#[cfg(feature = "cors")]
mod with_cors {
    use super::{
        super::cors::{get_from, list, preflight_from},
        *,
    };

    const APP: &str = "https://app.example";
    const EVIL: &str = "https://evil.example";

    fn layer() -> SseLayer {
        SseLayer::new().origins(list())
    }

    fn allowed(answer: &Response<Body>) -> bool {
        values(answer, "access-control-allow-origin") == [APP]
    }

    #[tokio::test]
    async fn rule_104_which_mounts_a_preflight_reaches() {
        for (mount, app) in mounted(&layer()) {
            let answer = to(&app, STREAM, preflight_from(APP)).await;
            assert!(answer.status().is_success(), "{mount} {}", answer.status());
            assert!(allowed(&answer), "{mount}");
            let answer = to(&app, STREAM, preflight_from(EVIL)).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{mount}");
            let answer = to(&app, STREAM, get_from(APP)).await;
            assert!(allowed(&answer), "{mount}");
            let answer = to(&app, STREAM, get_from(EVIL)).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{mount}");
            // Rule 118: a page can read the router's 405.
            let delete = ask(Method::DELETE, &[("origin", APP)]);
            let answer = to(&app, STREAM, delete).await;
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{mount}");
            assert!(allowed(&answer), "{mount}");
            assert_eq!(values(&answer, "allow"), ["GET,HEAD"], "{mount}");
        }
    }

    #[tokio::test]
    async fn rule_104_the_one_mount_that_a_preflight_does_not_reach() {
        let app = Router::new().route(STREAM, get(stream).route_layer(layer()));
        let answer = to(&app, STREAM, preflight_from(APP)).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(!allowed(&answer));
        assert!(allowed(&to(&app, STREAM, get_from(APP)).await));
        let answer = to(&app, STREAM, get_from(EVIL)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }

    /// An app with pages, images and JSON.
    fn pages() -> Router {
        let picture = async || ([("content-type", "image/png")], "\u{89}PNG");
        let echo = async |Json(sent): Json<Vec<u8>>| (StatusCode::CREATED, Json(sent));
        Router::new()
            .route("/", get(async || axum::response::Html("<h1>a page")))
            .route("/picture.png", get(picture))
            .route("/items", post(echo))
    }

    /// Requests of browsers for anything but streams, from all kinds of senders.
    fn foreign_requests() -> Vec<(&'static str, Request<Body>)> {
        let mut all = Vec::new();
        let senders: [&[(&str, &str)]; 6] = [
            &[],
            &[("origin", EVIL)],
            &[("origin", "null")],
            &[("origin", EVIL), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
        ];
        for sender in senders {
            for (path, dest) in [
                ("/", "document"),
                ("/", "iframe"),
                ("/picture.png", "image"),
            ] {
                let dest = [("sec-fetch-dest", dest), ("accept", "text/html")];
                let headers: Vec<_> = sender.iter().chain(&dest).copied().collect();
                all.push((path, ask(Method::GET, &headers)));
                all.push((path, ask(Method::HEAD, &headers)));
            }
            let json = [("content-type", "application/json")];
            let headers: Vec<_> = sender.iter().chain(&json).copied().collect();
            let mut send = ask(Method::POST, &headers);
            *send.body_mut() = Body::from("[1, 2]");
            all.push(("/items", send));
            all.push(("/items", preflight_from(EVIL)));
        }
        all
    }

    #[tokio::test]
    async fn what_is_beside_the_streams_is_untouched() {
        let limits = Limits::new().total(0).refuse().before_handler();
        let layer = layer().strict_accept().limits(limits).set_content_type();
        for (mount, streams) in mounted(&layer).into_iter().take(3) {
            let app = pages().merge(streams);
            for (path, request) in foreign_requests() {
                let quoted = format!("{mount} {path} {request:?}");
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let again = Request::from_parts(parts.clone(), Body::from(body.clone()));
                let alone = to(&pages(), path, again).await;
                let request = Request::from_parts(parts, Body::from(body));
                let answer = to(&app, path, request).await;
                assert_eq!(answer.status(), alone.status(), "{quoted}");
                assert_eq!(answer.headers(), alone.headers(), "{quoted}");
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let expected = alone.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, expected, "{quoted}");
            }
            // The layer is there.
            let answer = to(&app, STREAM, get_from(EVIL)).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{mount}");
        }
    }

    #[tokio::test]
    async fn router_layer_takes_the_app_s_default_404_along() {
        let status = async |app: &Router, request| to(app, "/nowhere", request).await.status();
        let [(_, with_fallback), (_, routes), (_, method), ..] = mounted(&layer());
        for streams in [routes, method] {
            let app = pages().merge(streams);
            assert_eq!(status(&app, get_from(EVIL)).await, StatusCode::NOT_FOUND);
            let answer = to(&app, "/nowhere", get_from(APP)).await;
            assert!(!allowed(&answer));
        }
        // axum also merges the fallbacks, and takes the layered one.
        let app = pages().merge(with_fallback.clone());
        assert_eq!(status(&app, get_from(EVIL)).await, StatusCode::FORBIDDEN);
        // Unless the app has its own fallback.
        let not_found = async || StatusCode::NOT_FOUND;
        let before = pages().fallback(not_found).merge(with_fallback.clone());
        let after = pages().merge(with_fallback).fallback(not_found);
        for app in [before, after] {
            assert_eq!(status(&app, get_from(EVIL)).await, StatusCode::NOT_FOUND);
        }
    }
}
