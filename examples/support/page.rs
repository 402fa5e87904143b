//! A page at `/`, with the style sheet and the script that all example pages share.

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::Html,
    routing::{MethodRouter, get},
};

#[allow(dead_code, reason = "`answer` serves its page itself, with a cookie")]
pub(crate) fn router<S: Clone + Send + Sync + 'static>(html: &'static str) -> Router<S> {
    assets().route("/", get(async move || Html(html)))
}

pub(crate) fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/page.css", file("text/css", include_str!("page.css")))
        .route("/page.js", file("text/javascript", include_str!("page.js")))
}

fn file<S>(kind: &'static str, text: &'static str) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    get(async move || ([(CONTENT_TYPE, kind)], text))
}
