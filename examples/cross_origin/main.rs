//! A page of one origin and an API of another, with a login by cookie, and the whole configuration
//! that this needs. A third origin, which is not allowed, shows how a page is refused.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --release --example cross_origin
//! ```
//!
//! and open <http://127.0.0.1:3000>. `HOST` and `PORT` set the address of the page, `API_PORT`
//! (3001) that of the API, and `OTHER_PORT` (3002) that of the same page on an origin that is not
//! allowed. `ORIGINS` lists the allowed origins, `API_URL` is the address of the API for pages if a
//! proxy is in front of it, and a login lasts for `SESSION` seconds.
//!
//! # Origins and sites
//!
//! Another port is another origin, but not another site, and neither is another subdomain:
//! `SameSite=Lax` cookies travel from `app.example.com` to `api.example.com`, and between the
//! ports here. Between sites they do not: open the page as <http://localhost:3000>, with that
//! origin in `ORIGINS`, and you cannot log in. That takes `SameSite=None; Secure`, which is
//! `CROSS_SITE=true`, and a browser that does not block third-party cookies. Only the allowlist
//! then keeps other sites' pages from acting in the user's name.

#[path = "../support/page.rs"]
mod page;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    error::Error,
    future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequestParts, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::Listener as _,
};
use axum_sse::{
    Access, Channel, LastEventId, OriginAllowlist, Shutdown, SseLayer, Start,
    layer::{Cors, Limits},
    listener::{self, TcpStreams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use support::setting;
use tokio::sync::{Mutex, watch};

#[derive(Serialize)]
struct Message {
    from: String,
    text: String,
}

struct Api {
    messages: Channel<Message>,
    /// By the token in the cookie.
    sessions: Mutex<HashMap<String, Session>>,
    lasts: Duration,
    /// Whether pages of other sites may send the cookie too.
    cross_site: bool,
    /// How often the handler of the stream was called: never for a page that is refused.
    runs: AtomicU64,
}

struct Session {
    name: String,
    expires: SystemTime,
    /// Dropped with the session, which ends its streams.
    end: watch::Sender<()>,
}

#[tokio::main]
async fn main() -> ExitCode {
    support::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let host: IpAddr = setting("HOST", Ipv4Addr::LOCALHOST.into())?;
    let page = SocketAddr::new(host, setting("PORT", 3000)?);
    let origins: OriginAllowlist = setting("ORIGINS", format!("http://{page}").parse()?)?;
    let limits = Limits::new().total(1000);
    let shutdown = Shutdown::new();
    let api = Arc::new(Api {
        messages: Channel::builder().retry(Duration::from_secs(1)).build(),
        sessions: Mutex::default(),
        lasts: Duration::from_secs(setting("SESSION", 120)?),
        cross_site: setting("CROSS_SITE", false)?,
        runs: AtomicU64::new(0),
    });

    // The streams, and the origins that may read them: with cookies, resuming by `fetch` too.
    let streams = Router::new().route("/events", get(events)).route_layer(
        SseLayer::new()
            .origins(origins.clone())
            .limits(limits.clone())
            // A stream ends with its session; this is for sessions that last for days.
            .lifetime(Duration::from_secs(60 * 60))
            .shutdown(shutdown.clone()),
    );
    // What else the page calls. The same rules fit: every call is a `fetch` of an allowed page, and
    // a 403 before the handler keeps pages of other origins from logging somebody out with a plain
    // form. The layer adds only the CORS headers to responses that are not streams. It would refuse
    // pages, images and downloads: give such routes tower-http's `CorsLayer`, which takes the same
    // list by `AllowOrigin::predicate(move |origin, _| origins.allows(origin.as_bytes()))`.
    let calls = Router::new()
        .route("/session", post(log_in).delete(log_out))
        .route("/messages", post(say))
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(SseLayer::new().cors(Cors::new(origins.clone()).allow_methods([Method::DELETE])));
    let app = streams.merge(calls).with_state(api.clone());

    let listen = |port| {
        let options = listener::Options::new().shutdown(shutdown.clone());
        options.bind(SocketAddr::new(host, port))
    };
    let api_listener = listen(setting("API_PORT", 3001)?)?;
    let other_listener = listen(setting("OTHER_PORT", 3002)?)?;
    let api_url = setting("API_URL", format!("http://{}", api_listener.local_addr()?))?;

    // What the page needs to know, from its own server, so that a refused page knows it too.
    let about = json!({
        "api": api_url,
        "origins": origins.iter().collect::<Vec<_>>(),
        "pages": [format!("http://{page}"), format!("http://{}", other_listener.local_addr()?)],
    });
    let counts = move || {
        let (runs, open) = (api.runs.load(Ordering::Relaxed), limits.open());
        future::ready(Json(json!({ "runs": runs, "open": open })))
    };
    let pages = page::router(include_str!("index.html"))
        .route("/about", get(async || Json(about)))
        .route("/counts", get(counts));

    // Ctrl-C reaches the first one, which begins the shutdown of all three.
    tokio::try_join!(
        support::serve(pages.clone(), &shutdown),
        serve(other_listener, pages, &shutdown),
        serve(api_listener, app, &shutdown),
    )?;
    Ok(())
}

async fn serve(to: TcpStreams, app: Router, shutdown: &Shutdown) -> Result<(), Box<dyn Error>> {
    axum::serve(to, app.layer(support::known_hosts()?))
        .with_graceful_shutdown(shutdown.on(future::pending()))
        .await?;
    Ok(())
}

/// Streams until the session ends. The browser then reconnects, gets a 401, and gives up.
async fn events(
    State(api): State<Arc<Api>>,
    user: Result<User, Refusal>,
    last: LastEventId,
) -> Result<impl IntoResponse, Refusal> {
    api.runs.fetch_add(1, Ordering::Relaxed);
    let mut user = user?;
    let logged_out = async move { while user.end.changed().await.is_ok() {} };
    let access = Access::new()
        .expires_at(user.expires)
        .revoked_by(logged_out);
    Ok((
        access,
        api.messages.subscribe(last).start(Start::Newest(50)),
    ))
}

#[derive(Deserialize)]
struct Draft {
    text: String,
}

async fn say(
    State(api): State<Arc<Api>>,
    user: User,
    Json(Draft { text }): Json<Draft>,
) -> Result<StatusCode, Refusal> {
    let from = user.name;
    let published = api.messages.publish(&Message { from, text });
    published.map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "not published"))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

/// A real login would also check a password.
async fn log_in(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(Login { name }): Json<Login>,
) -> Result<Response, Refusal> {
    if name.trim().is_empty() || name.chars().count() > 24 {
        let rule = "a name has 1 to 24 characters";
        return Err((StatusCode::UNPROCESSABLE_ENTITY, rule));
    }
    let mut token = [0; 16];
    getrandom::fill(&mut token)
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "no randomness"))?;
    let token = format!("{:032x}", u128::from_le_bytes(token));
    let cookie = api.cookie(&token, api.lasts);
    let session = Session {
        name,
        expires: SystemTime::now() + api.lasts,
        end: watch::Sender::new(()),
    };
    let mut sessions = api.sessions.lock().await;
    sessions.retain(|_, session| session.expires > SystemTime::now());
    // A new login replaces the session that this browser had.
    sessions.remove(token_of(&headers));
    sessions.insert(token, session);
    Ok(([(header::SET_COOKIE, cookie)], Json(api.lasts.as_secs())).into_response())
}

async fn log_out(State(api): State<Arc<Api>>, headers: HeaderMap) -> impl IntoResponse {
    api.sessions.lock().await.remove(token_of(&headers));
    let cookie = api.cookie("", Duration::ZERO);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)])
}

/// Browsers tell hosts apart by cookie, but not ports.
const COOKIE: &str = "cross-origin-session";

impl Api {
    fn cookie(&self, token: &str, lasts: Duration) -> String {
        let lasts = lasts.as_secs();
        let site = match self.cross_site {
            false => "SameSite=Lax", // With TLS, `Secure` belongs here too.
            true => "SameSite=None; Secure",
        };
        format!("{COOKIE}={token}; Path=/; HttpOnly; Max-Age={lasts}; {site}")
    }
}

/// The token in the cookie, or an empty string.
fn token_of(headers: &HeaderMap) -> &str {
    let cookies = headers.get_all(header::COOKIE).iter();
    cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split("; "))
        .find_map(|cookie| cookie.strip_prefix(COOKIE)?.strip_prefix('='))
        .unwrap_or_default()
}

type Refusal = (StatusCode, &'static str);

/// Who is logged in.
struct User {
    name: String,
    expires: SystemTime,
    end: watch::Receiver<()>,
}

impl FromRequestParts<Arc<Api>> for User {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Refusal> {
        let sessions = api.sessions.lock().await;
        match sessions.get(token_of(&parts.headers)) {
            Some(session) if session.expires > SystemTime::now() => Ok(Self {
                name: session.name.clone(),
                expires: session.expires,
                end: session.end.subscribe(),
            }),
            _ => Err((StatusCode::UNAUTHORIZED, "you are not logged in")),
        }
    }
}
