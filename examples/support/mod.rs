//! What every example needs: settings, a listener, a way to end.

use std::{
    env,
    error::Error,
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    str::FromStr,
};

use axum::{Router, serve::Listener as _};
use axum_sse::{Shutdown, SseLayer, listener};

/// Serves `app` at `HOST` and `PORT` until Ctrl-C, which ends all streams. Browsers reach it by
/// address, as `localhost`, or by a name in `HOSTS`.
#[expect(clippy::print_stdout, reason = "the user waits for this line")]
pub(crate) async fn serve(app: Router, shutdown: &Shutdown) -> Result<(), Box<dyn Error>> {
    let host: IpAddr = setting("HOST", Ipv4Addr::LOCALHOST.into())?;
    let port: u16 = setting("PORT", 3000)?;
    let app = app.layer(known_hosts()?);
    let listener = listener::Options::new()
        .shutdown(shutdown.clone())
        .bind(SocketAddr::from((host, port)))?;
    println!("open http://{} in a browser", listener.local_addr()?);
    // One router for all connections: axum would clone it for each one.
    axum::serve(listener, app.into_make_service())
        .with_graceful_shutdown(shutdown.on(ctrl_c()))
        .await?;
    Ok(())
}

/// Refuses requests for other names: otherwise any site could make its own name point to this
/// machine, and read what the example shows (DNS rebinding).
pub(crate) fn known_hosts() -> Result<SseLayer, Box<dyn Error>> {
    let hosts: String = setting("HOSTS", String::new())?;
    let hosts = hosts.split([',', ' ']).filter(|host| !host.is_empty());
    Ok(SseLayer::new().hosts(hosts)?)
}

async fn ctrl_c() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        complain(&format!("cannot listen for Ctrl-C: {error}"));
        std::future::pending::<()>().await;
    }
}

/// A setting from the environment.
pub(crate) fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Err(env::VarError::NotPresent) => Ok(default),
        Err(error) => Err(format!("{name}: {error}")),
        Ok(value) => value
            .parse()
            .map_err(|error| format!("{name}={value}: {error}")),
    }
}

pub(crate) fn exit(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn complain(what: &dyn Display) {
    eprintln!("{}: {what}", env!("CARGO_BIN_NAME"));
}
