//! Rule 130: the host names that requests may use.

use super::*;
use crate::ErrorKind;

fn layer() -> SseLayer {
    let names = [
        "App.example",
        "élève.example.",
        "*.preview.example",
        "192.0.2.1",
    ];
    SseLayer::new().hosts(names).unwrap()
}

/// The status, and whether the handler ran.
async fn outcome(request: Request<Body>) -> (u16, bool) {
    let (answer, calls) = counted(layer(), request, Json(1)).await;
    (answer.status().as_u16(), calls > 0)
}

#[tokio::test]
async fn rule_130_a_host_that_is_not_listed_is_misdirected() {
    for (host, serves) in [
        ("app.example", true),
        ("APP.Example", true),
        ("app.example:8080", true),
        ("app.example.", true),
        ("app.example.:443", true),
        ("xn--lve-6lad.example", true),
        ("a.preview.example", true),
        ("localhost", true),
        ("localhost:3000", true),
        ("LOCALHOST.", true),
        ("app.localhost:3000", true),
        ("127.0.0.1", true),
        ("127.0.0.1:3000", true),
        ("10.1.2.3", true),
        ("[::1]", true),
        ("[::1]:3000", true),
        ("[2001:db8::1]:3000", true),
        ("attacker.example", false),
        ("attacker.example:3000", false),
        ("app.example.attacker.example", false),
        ("attackerapp.example", false),
        ("www.app.example", false),
        ("example", false),
        ("preview.example", false),
        (".preview.example", false),
        ("a.b.preview.example", false),
        ("app.example..", false),
        ("localhost.attacker.example", false),
        ("notlocalhost", false),
        ("127.0.0.1.attacker.example", false),
        ("127.1", false),
        ("0x7f.0.0.1", false),
        ("2130706433", false),
        ("[::1", false),
        ("::1", false),
        ("[fe80::1%eth0]", false),
        ("attacker.example@localhost", false),
        ("localhost@attacker.example", false),
        ("app.example/", false),
        ("app.example, attacker.example", false),
        ("\u{e9}l\u{e8}ve.example", false),
        (".", false),
        ("", false),
    ] {
        let expected = if serves { (200, true) } else { (421, false) };
        let get = ask(Method::GET, &[("host", host)]);
        assert_eq!(outcome(get).await, expected, "{host:?}");
        let preflight = [
            ("host", host),
            ("origin", "https://app.example"),
            ("access-control-request-method", "GET"),
        ];
        let got = outcome(ask(Method::OPTIONS, &preflight)).await;
        assert_eq!(got, expected, "{host:?}");
    }
}

#[tokio::test]
async fn rule_130_every_name_that_a_request_gives_has_to_be_listed() {
    let target = |target: &str, hosts: &[&str]| {
        let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let mut request = ask(Method::GET, &hosts);
        *request.uri_mut() = target.parse().unwrap();
        request
    };
    for (uri, hosts, serves) in [
        // A health check over HTTP/1.0, and no browser.
        ("/", &[][..], true),
        ("/", &["app.example", "app.example"], false),
        ("/", &["app.example", "attacker.example"], false),
        // HTTP/2, or a target in absolute form.
        ("https://app.example/", &[], true),
        ("https://attacker.example/", &[], false),
        ("https://app.example/", &["app.example"], true),
        ("https://app.example/", &["attacker.example"], false),
        ("https://attacker.example/", &["app.example"], false),
    ] {
        let expected = if serves { (200, true) } else { (421, false) };
        assert_eq!(
            outcome(target(uri, hosts)).await,
            expected,
            "{uri} {hosts:?}"
        );
    }
}

#[tokio::test]
async fn rules_128_and_130_the_answer_is_not_stored_and_grants_nothing() {
    let origins = crate::OriginAllowlist::new(["https://app.example"]).unwrap();
    let layer = layer().origins(origins);
    let headers = [
        ("host", "attacker.example"),
        ("origin", "https://app.example"),
    ];
    let answer = through(layer, ask(Method::GET, &headers), Json(1)).await;
    assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(values(&answer, "cache-control"), ["no-store"]);
    assert_eq!(values(&answer, "access-control-allow-origin"), [""; 0]);
}

#[tokio::test]
async fn rule_130_without_a_list_no_name_is_refused_and_an_empty_one_leaves_addresses() {
    let other = || ask(Method::GET, &[("host", "attacker.example")]);
    let (answer, calls) = counted(SseLayer::new(), other(), Json(1)).await;
    assert_eq!((answer.status(), calls), (StatusCode::OK, 1));
    let empty = || SseLayer::new().hosts([""; 0]).unwrap();
    let (answer, calls) = counted(empty(), other(), Json(1)).await;
    assert_eq!((answer.status().as_u16(), calls), (421, 0));
    let local = ask(Method::GET, &[("host", "127.0.0.1:3000")]);
    assert_eq!(
        through(empty(), local, Json(1)).await.status(),
        StatusCode::OK
    );
}

#[test]
fn rule_130_bad_entries_are_named() {
    for (entry, why) in [
        ("", "it is empty"),
        ("*", "every name"),
        ("https://app.example", "a scheme"),
        ("app.example:8080", "a port"),
        ("app.example/", "a path"),
        ("app.example?q", "a query"),
        ("user:secret@app.example", "a user name"),
        ("app example", "' '"),
        ("%61pp.example", "a `%`"),
        ("a*.example", "first label"),
        ("*.*.example.com", "first label"),
        ("*.com", "two labels"),
        ("*.127.0.0.1", "an address"),
        ("127.1", "127.0.0.1"),
        (".example", "a dot"),
        ("app..example", "a dot"),
        ("app!.example", "letters, digits"),
    ] {
        let error = SseLayer::new().hosts([entry]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidHost, "{entry}");
        let message = error.to_string();
        assert!(message.starts_with("host \""), "{message}");
        assert!(message.contains(why), "{entry}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let long = "a".repeat(600);
    let error = SseLayer::new().hosts([long.as_str()]).unwrap_err();
    assert!(
        error.to_string().contains("600 bytes, more than 512"),
        "{error}"
    );
    let many = SseLayer::new()
        .hosts(vec!["app.example"; 10_001])
        .unwrap_err();
    assert_eq!(many.to_string(), "more than 10000 hosts in a list");
}
