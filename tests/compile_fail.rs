//! What must not compile: a `Result` where a value belongs. serde would send `{"Err":…}` to the
//! browser. The compiler's message has to say what to do instead.
//!
//! The messages are not compared as a whole, since they differ between compiler versions.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const HEAD: &str = "#![allow(dead_code)]
use axum_sse::{Channel, Sse};
use tokio_stream::{Stream, iter};
#[derive(serde::Serialize)]
enum Value { Number(u8) }
";

/// Does not compile, and the message for it names `try_new`.
const BAD: [(&str, &str); 5] = [
    (
        "new_of_results",
        "fn main() { let _ = Sse::new(iter([Ok::<u8, String>(1)])); }",
    ),
    // Most errors do not serialise, which must not be what the message is about.
    (
        "new_of_io_results",
        "fn lines() -> impl Stream<Item = std::io::Result<String>> { iter([Ok(String::new())]) }
         fn main() { let _ = Sse::new(lines()); }",
    ),
    (
        "named_of_results",
        "fn main() { let _ = Sse::named(iter([Ok::<Value, String>(Value::Number(1))])); }",
    ),
    (
        "publish",
        "fn main() { let _ = Channel::<Result<u8, String>>::new().publish(&Ok(1)); }",
    ),
    (
        "forward",
        "async fn run() { let _ = Channel::<Result<u8, String>>::new().forward(iter([Ok(1)])).await; }
         fn main() {}",
    ),
];

/// Compiles, so that what is above fails for its own reason.
const GOOD: &str = "
fn generic<T: serde::Serialize + Send + 'static>(items: impl Stream<Item = T> + Send + 'static) -> axum_core::response::Response {
    axum_core::response::IntoResponse::into_response(Sse::new(items))
}
fn wrapped(channel: &Channel<Value>, value: Value) -> Result<axum_sse::EventId, axum_sse::Error> {
    channel.publish(&value)
}
fn publish_any<T: serde::Serialize + ?Sized>(channel: &Channel<T>, value: &T) {
    let _ = channel.publish(value);
}
async fn forward() -> Result<u64, axum_sse::Error> {
    Channel::<Value>::new().forward(iter([Value::Number(1)])).await
}
fn main() {
    let _ = Sse::new(iter([1u8]));
    let _ = Sse::new(iter([\"text\"]));
    let _ = Sse::new(iter([Some(1u8)]));
    let _ = Sse::new(iter([axum_sse::Event::empty()]));
    let _ = Sse::named(iter([Value::Number(1)]));
    let _ = Sse::try_new(iter([Ok::<u8, std::io::Error>(1)]));
    let _ = Sse::try_new(iter([Ok::<u8, String>(1)]));
    let _ = Sse::try_named(iter([Ok::<Value, String>(Value::Number(1))]));
}
";

/// A package of its own, with the dependencies that this one has been built with.
fn package(root: &Path) -> io::Result<PathBuf> {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile-fail");
    let sources = package.join("src/bin");
    // What an earlier version of this test has left there would be compiled as well.
    let _ = fs::remove_dir_all(&sources);
    fs::create_dir_all(&sources)?;
    let manifest = format!(
        "[package]\nname = \"compile-fail\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [workspace]\n\n[dependencies]\n\
         axum-sse = {{ path = {root:?} }}\naxum-core = \"*\"\nserde = {{ version = \"*\", features = [\"derive\"] }}\ntokio-stream = \"*\"\n"
    );
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?;
    for (name, code) in BAD.into_iter().chain([("good", GOOD)]) {
        fs::write(
            sources.join(name).with_extension("rs"),
            format!("{HEAD}{code}"),
        )?;
    }
    Ok(package)
}

#[test]
fn a_result_is_not_a_value() {
    let package = package(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let output = Command::new(env::var_os("CARGO").unwrap())
        .args([
            "check",
            "--offline",
            "--keep-going",
            "--bins",
            "--message-format=json",
        ])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{printed}");

    let mut report = String::new();
    for (name, _) in BAD.into_iter().chain([("good", GOOD)]) {
        let errors: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["target"]["name"] == name && line["message"]["level"] == "error")
            .map(|line| line["message"]["rendered"].as_str().unwrap().to_owned())
            .collect();
        match name {
            "good" if errors.is_empty() => {}
            "good" => writeln!(report, "good does not compile: {errors:?}").unwrap(),
            _ if errors.is_empty() => writeln!(report, "{name} compiles").unwrap(),
            _ if errors.iter().any(|error| error.contains("try_new")) => {}
            _ => writeln!(report, "{name} does not point to try_new: {errors:?}").unwrap(),
        }
    }
    assert!(report.is_empty(), "{report}\n{printed}");
    // It was looked at, and not left out by a failure of another.
    let good = String::from_utf8_lossy(&output.stdout)
        .lines()
        .any(|line| line.contains("compiler-artifact") && line.contains("\"name\":\"good\""));
    assert!(good, "{printed}");
}
