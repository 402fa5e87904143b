//! A page at `/`, with the style sheet and the few functions that several pages share.

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::Html,
    routing::{MethodRouter, get},
};

pub(crate) fn router<S: Clone + Send + Sync + 'static>(html: &'static str) -> Router<S> {
    Router::new()
        .route("/", get(async move || Html(html)))
        .route("/page.css", file("text/css", include_str!("page.css")))
        .route("/page.js", file("text/javascript", include_str!("page.js")))
}

fn file<S>(kind: &'static str, text: &'static str) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    get(async move || ([(CONTENT_TYPE, kind)], text))
}
