//! Rules 97 to 120: CORS headers and preflights.

use super::*;
use crate::OriginAllowlist;

const APP: &str = "https://app.example";

pub(super) fn list() -> OriginAllowlist {
    OriginAllowlist::new([
        APP,
        "https://*.example.com",
        "http://localhost:3000",
        "http://[::1]:8080",
        "tauri://localhost",
    ])
    .unwrap()
}

fn with_credentials() -> SseLayer {
    SseLayer::new().origins(list())
}

fn silent() -> Response<Body> {
    event_stream(by_hand().1)
}

pub(super) fn get_from(origin: &str) -> Request<Body> {
    ask(Method::GET, &[("origin", origin)])
}

pub(super) fn preflight_from(origin: &str) -> Request<Body> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "last-event-id"),
    ];
    ask(Method::OPTIONS, &headers)
}

/// The CORS headers alone.
fn granted(answer: &Response<impl Sized>) -> Vec<&str> {
    let names = answer.headers().keys().map(HeaderName::as_str);
    names
        .filter(|name| name.starts_with("access-control-"))
        .collect()
}

/// The names in a list header, in lower case.
fn names(answer: &Response<impl Sized>, name: &str) -> Vec<String> {
    let values = values(answer, name);
    assert!(values.len() <= 1, "{name}: {values:?}");
    let names = values.iter().flat_map(|value| value.split(','));
    let mut names: Vec<_> = names.map(|name| name.trim().to_lowercase()).collect();
    names.sort();
    names
}

/// A response of an inner service that sets CORS headers itself.
fn opinionated(status: StatusCode) -> Response<Body> {
    let mut response = foreign(
        &[
            ("access-control-allow-origin", "https://inner.example"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "*"),
            ("access-control-allow-headers", "*"),
            ("access-control-allow-private-network", "true"),
            ("access-control-expose-headers", "set-cookie"),
            ("access-control-max-age", "86400"),
            ("content-type", "text/event-stream"),
        ],
        by_hand().1,
    );
    *response.status_mut() = status;
    response
}

#[tokio::test]
async fn rules_97_and_103_an_allowed_origin_is_named_once_with_its_own_bytes() {
    for origin in [
        APP,
        "https://a.example.com",
        "http://localhost:3000",
        "http://[::1]:8080",
        "tauri://localhost",
    ] {
        for response in [silent(), opinionated(StatusCode::OK)] {
            for method in [Method::GET, Method::HEAD, Method::POST] {
                let again = foreign(&[], Body::empty()).into_parts().0;
                let (mut parts, body) = (again, Body::empty());
                parts.headers = response.headers().clone();
                let response = Response::from_parts(parts, body);
                let ask = ask(method, &[("origin", origin)]);
                let (answer, calls) = counted(with_credentials(), ask, response).await;
                assert_eq!((answer.status(), calls), (StatusCode::OK, 1));
                assert_eq!(values(&answer, "access-control-allow-origin"), [origin]);
                let credentials = values(&answer, "access-control-allow-credentials");
                assert_eq!(credentials, ["true"]);
                assert_eq!(granted(&answer).len(), 2, "{:?}", answer.headers());
            }
        }
        let answer = through(with_credentials(), preflight_from(origin), ()).await;
        assert_eq!(values(&answer, "access-control-allow-origin"), [origin]);
        let credentials = values(&answer, "access-control-allow-credentials");
        assert_eq!(credentials, ["true"]);
    }
}

#[tokio::test]
async fn rule_97_credentials_are_allowed_exactly_when_they_are_enabled() {
    let layer = || SseLayer::new().cors(Cors::without_credentials(list()));
    for response in [silent(), opinionated(StatusCode::OK)] {
        let answer = through(layer(), get_from(APP), response).await;
        assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
        assert_eq!(granted(&answer), ["access-control-allow-origin"]);
    }
    let answer = through(layer(), preflight_from(APP), ()).await;
    assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
    assert!(!granted(&answer).contains(&"access-control-allow-credentials"));
    let (refused, calls) = counted(layer(), get_from("https://evil.example"), silent()).await;
    assert_eq!((refused.status(), calls), (StatusCode::FORBIDDEN, 0));
}

#[tokio::test]
async fn rule_98_any_origin_has_no_credentials_and_does_not_vary() {
    let layer = || SseLayer::new().cors(Cors::any_origin());
    let no_page = ask(Method::GET, &[]);
    for ask in [get_from(APP), get_from("null"), get_from("x"), no_page] {
        for response in [silent(), opinionated(StatusCode::OK)] {
            let quoted = format!("{ask:?}");
            let ask = get_like(&ask);
            let (answer, calls) = counted(layer(), ask, response).await;
            assert_eq!((answer.status(), calls), (StatusCode::OK, 1), "{quoted}");
            assert_eq!(values(&answer, "access-control-allow-origin"), ["*"]);
            assert_eq!(
                granted(&answer),
                ["access-control-allow-origin"],
                "{quoted}"
            );
            assert_eq!(values(&answer, "vary"), [""; 0], "{quoted}");
        }
    }
    let (answer, calls) = counted(layer(), preflight_from("https://any.example"), ()).await;
    assert_eq!((answer.status().is_success(), calls), (true, 0));
    assert_eq!(values(&answer, "access-control-allow-origin"), ["*"]);
    assert!(!granted(&answer).contains(&"access-control-allow-credentials"));
}

fn get_like(request: &Request<Body>) -> Request<Body> {
    let mut copy = ask(Method::GET, &[]);
    copy.headers_mut().clone_from(request.headers());
    copy
}

#[tokio::test]
async fn rules_98_and_106_a_wildcard_among_the_names_is_no_panic_and_no_wildcard() {
    let star = || HeaderName::from_static("*");
    let any_method = || Method::from_bytes(b"*").unwrap();
    let cors = Cors::new(list())
        .allow_headers([star()])
        .allow_methods([any_method()])
        .expose_headers([star()]);
    let layer = SseLayer::new().cors(cors);
    let answer = through(layer.clone(), get_from(APP), silent()).await;
    assert!(!names(&answer, "access-control-expose-headers").contains(&"*".to_owned()));
    let answer = through(layer, preflight_from(APP), ()).await;
    for name in [
        "access-control-allow-headers",
        "access-control-allow-methods",
    ] {
        assert!(!names(&answer, name).contains(&"*".to_owned()), "{name}");
        assert!(names(&answer, name).len() > 1, "{name}");
    }
    // Without credentials it is a wildcard.
    let layer = SseLayer::new().cors(Cors::any_origin().expose_headers([star()]));
    let answer = through(layer, get_from(APP), silent()).await;
    assert_eq!(values(&answer, "access-control-expose-headers"), ["*"]);
}

fn with_vary(status: StatusCode, vary: &[&str]) -> Response<Body> {
    let mut response = silent();
    *response.status_mut() = status;
    for vary in vary {
        let vary = HeaderValue::from_str(vary).unwrap();
        response.headers_mut().append(header::VARY, vary);
    }
    response
}

#[tokio::test]
async fn rules_99_and_126_vary_is_one_field_on_every_response() {
    let table: [(&[&str], &[&str]); 6] = [
        (&[], &[]),
        (&["accept-encoding"], &["accept-encoding"]),
        (&["Origin"], &[]),
        (&["ORIGIN, Cookie", "origin", "cookie"], &["cookie"]),
        (
            &["Sec-Fetch-Site", " , sec-fetch-dest,, Accept"],
            &["accept"],
        ),
        (&["x-a, x-b", "x-a"], &["x-a", "x-b"]),
    ];
    for (inner, more) in table {
        for status in [200, 204, 401, 404, 500] {
            for ask in [get_from(APP), ask(Method::GET, &[])] {
                let response = with_vary(StatusCode::from_u16(status).unwrap(), inner);
                let answer = through(with_credentials(), ask, response).await;
                assert_eq!(answer.status(), status);
                let ours = ["origin", "sec-fetch-dest", "sec-fetch-site"];
                let mut all: Vec<_> = more.iter().chain(&ours).map(|s| (*s).to_owned()).collect();
                all.sort();
                assert_eq!(names(&answer, "vary"), all, "{inner:?} {status}");
            }
        }
    }
    for ask in [
        get_from("https://evil.example"),
        preflight_from("https://evil.example"),
        preflight_from(APP),
    ] {
        let answer = through(with_credentials(), ask, ()).await;
        let expected = ["origin", "sec-fetch-dest", "sec-fetch-site"];
        assert_eq!(names(&answer, "vary"), expected);
    }
    // Even without the guard, `Sec-Fetch-Site` decides whether a request is of the same origin.
    let layer = SseLayer::new().cors(Cors::without_credentials(list()));
    let answer = through(layer, get_from(APP), silent()).await;
    assert_eq!(names(&answer, "vary"), ["origin", "sec-fetch-site"]);
    let layer = SseLayer::new().cors(Cors::new(list()).headers_only());
    let answer = through(layer, get_from("https://evil.example"), silent()).await;
    assert!(names(&answer, "vary").contains(&"origin".to_owned()));
}

#[tokio::test]
async fn rule_99_a_star_in_vary_says_it_all() {
    for inner in [&["*"][..], &["*", "accept"], &["cookie, *"]] {
        for ask in [get_from(APP), ask(Method::GET, &[])] {
            let response = with_vary(StatusCode::OK, inner);
            let answer = through(with_credentials(), ask, response).await;
            assert_eq!(values(&answer, "vary"), ["*"], "{inner:?}");
        }
    }
    // Without CORS settings the header is left alone.
    let answer = answer(with_vary(StatusCode::OK, &["a", "A"])).await;
    assert_eq!(values(&answer, "vary"), ["a", "A"]);
}

#[tokio::test]
async fn rule_100_a_refused_origin_gets_no_cors_header_at_all() {
    let evil = "https://evil.example";
    for ask in [get_from(evil), preflight_from(evil), get_from("null")] {
        let answer = through(with_credentials(), ask, opinionated(StatusCode::OK)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(granted(&answer), [""; 0]);
    }
    // Not even if its request reaches a handler that sets CORS headers.
    let layer = SseLayer::new().cors(Cors::new(list()).headers_only());
    let (answer, calls) = counted(layer, get_from(evil), opinionated(StatusCode::OK)).await;
    assert_eq!((answer.status(), calls), (StatusCode::OK, 1));
    assert_eq!(granted(&answer), [""; 0]);
}

#[tokio::test]
async fn without_cors_settings_the_handler_s_own_headers_stay() {
    let response = opinionated(StatusCode::OK);
    let answer = answer(response).await;
    assert_eq!(granted(&answer).len(), 7, "{:?}", answer.headers());
}

#[tokio::test]
async fn rule_101_headers_only_leaves_the_refusing_to_others() {
    let layer = || SseLayer::new().cors(Cors::new(list()).headers_only());
    for origin in ["https://evil.example", "null", "https://app.example:443"] {
        let (answer, calls) = counted(layer(), get_from(origin), silent()).await;
        assert_eq!((answer.status(), calls), (StatusCode::OK, 1), "{origin}");
        assert_eq!(granted(&answer), [""; 0]);
        let (answer, calls) = counted(layer(), preflight_from(origin), ()).await;
        assert_eq!((answer.status().is_success(), calls), (true, 0));
        assert_eq!(granted(&answer), [""; 0]);
    }
    let answer = through(layer(), get_from(APP), silent()).await;
    assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
    let credentials = values(&answer, "access-control-allow-credentials");
    assert_eq!(credentials, ["true"]);
}

#[tokio::test]
async fn rule_102_a_request_of_no_page_passes_and_gets_no_cors_header() {
    for response in [silent(), opinionated(StatusCode::OK)] {
        let request = ask(Method::GET, &[]);
        let (answer, calls) = counted(with_credentials(), request, response).await;
        assert_eq!((answer.status(), calls), (StatusCode::OK, 1));
        assert_eq!(granted(&answer), [""; 0]);
    }
}

#[tokio::test]
async fn rule_104_a_preflight_is_options_with_origin_and_the_method_it_asks_for() {
    let acrm = ("access-control-request-method", "GET");
    let acrh = ("access-control-request-headers", "last-event-id");
    let origin = ("origin", APP);
    let evil = ("origin", "https://evil.example");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let table: [(Headers<'_>, usize, u16); 7] = [
        (&[], 1, 418),
        (&[acrm, acrh], 1, 418),
        (&[origin], 1, 418),
        (&[origin, acrh], 1, 418),
        (&[origin, acrm], 0, 200),
        (&[evil, acrm], 0, 403),
        (&[evil], 0, 403),
    ];
    for (headers, expected, status) in table {
        let teapot = StatusCode::IM_A_TEAPOT;
        let request = ask(Method::OPTIONS, headers);
        let (answer, calls) = counted(with_credentials(), request, teapot).await;
        assert_eq!(
            (calls, answer.status().as_u16()),
            (expected, status),
            "{headers:?}"
        );
    }
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
        let request = ask(method, &[origin, acrm]);
        let (_, calls) = counted(with_credentials(), request, ()).await;
        assert_eq!(calls, 1);
    }
}

#[tokio::test]
async fn rules_97_and_104_an_options_request_that_is_no_preflight_gets_the_headers_too() {
    let cors = Cors::new(list()).expose_headers([header::ALLOW]);
    for response in [().into_response(), opinionated(StatusCode::OK)] {
        let request = ask(Method::OPTIONS, &[("origin", APP)]);
        let layer = SseLayer::new().cors(cors.clone());
        let (answer, calls) = counted(layer, request, response).await;
        assert_eq!(calls, 1);
        assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
        let credentials = values(&answer, "access-control-allow-credentials");
        assert_eq!(credentials, ["true"]);
        assert_eq!(values(&answer, "access-control-expose-headers"), ["allow"]);
        assert_eq!(granted(&answer).len(), 3);
    }
    let layer = SseLayer::new().cors(Cors::any_origin());
    let request = ask(Method::OPTIONS, &[("origin", APP)]);
    let answer = through(layer, request, ()).await;
    assert_eq!(values(&answer, "access-control-allow-origin"), ["*"]);
    assert_eq!(granted(&answer).len(), 1);
}

#[tokio::test]
async fn rule_105_a_preflight_skips_the_handler_and_the_limits() {
    let full = Limits::new().total(0).before_handler().refuse();
    let layer = with_credentials().strict_accept().limits(full);
    let mut request = preflight_from(APP);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    let (answer, calls) = counted(layer, request, StatusCode::UNAUTHORIZED).await;
    assert_eq!(calls, 0);
    assert!(matches!(answer.status().as_u16(), 200 | 204));
    assert!(!answer.headers().contains_key(header::CONTENT_TYPE));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.is_empty());
}

/// Whether a browser would send the request after this answer, as in Fetch, 4.8.
fn grants(answer: &Answer, method: &str, headers: &[&str]) -> bool {
    let methods = names(answer, "access-control-allow-methods");
    let allowed = names(answer, "access-control-allow-headers");
    let safe = ["GET", "HEAD", "POST"].contains(&method);
    let mut headers = headers.iter();
    (safe || methods.contains(&method.to_lowercase()))
        && headers.all(|name| allowed.contains(&name.to_lowercase()))
}

#[tokio::test]
async fn rules_106_and_107_what_a_preflight_grants() {
    let ask_for = |method: &str, headers: &str| {
        let headers = [
            ("origin", APP),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ];
        ask(Method::OPTIONS, &headers)
    };
    let table: [(&str, &[&str], bool); 9] = [
        ("GET", &["last-event-id"], true),
        (
            "GET",
            &["authorization", "cache-control", "last-event-id"],
            true,
        ),
        ("GET", &["Last-Event-ID"], true),
        ("POST", &["content-type", "last-event-id"], true),
        ("GET", &["x-csrf-token"], false),
        ("GET", &["last-event-id", "x-other"], false),
        ("DELETE", &["last-event-id"], false),
        ("PUT", &[], false),
        ("GET", &["*"], false),
    ];
    for (method, headers, expected) in table {
        let request = ask_for(method, &headers.join(","));
        let (answer, calls) = counted(with_credentials(), request, ()).await;
        assert_eq!(calls, 0);
        assert_eq!(
            grants(&answer, method, headers),
            expected,
            "{method} {headers:?}"
        );
        for name in [
            "access-control-allow-headers",
            "access-control-allow-methods",
        ] {
            assert!(!names(&answer, name).contains(&"*".to_owned()), "{name}");
        }
    }
    let cors = Cors::new(list())
        .allow_headers([HeaderName::from_static("x-csrf-token")])
        .allow_methods([Method::DELETE]);
    let request = ask_for("DELETE", "x-csrf-token");
    let answer = through(SseLayer::new().cors(cors), request, ()).await;
    assert!(grants(
        &answer,
        "DELETE",
        &["x-csrf-token", "last-event-id"]
    ));
}

#[tokio::test]
async fn rules_108_and_109_what_is_only_on_a_preflight_and_what_is_only_on_the_rest() {
    let age = async |cors: Cors| {
        let layer = SseLayer::new().cors(cors);
        let answer = through(layer, preflight_from(APP), ()).await;
        let [age] = values(&answer, "access-control-max-age")[..] else {
            panic!("{:?}", answer.headers());
        };
        assert!(!granted(&answer).contains(&"access-control-expose-headers"));
        age.parse::<u64>().unwrap()
    };
    let cors = || Cors::new(list()).expose_headers([header::RETRY_AFTER, header::DATE]);
    assert!(age(cors()).await <= 7200);
    assert_eq!(age(cors().max_age(Duration::from_secs(60))).await, 60);
    assert_eq!(age(cors().max_age(Duration::MAX)).await, 7200);
    assert_eq!(age(cors().max_age(Duration::ZERO)).await, 0);

    for response in [silent(), opinionated(StatusCode::OK)] {
        let answer = through(SseLayer::new().cors(cors()), get_from(APP), response).await;
        let exposed = names(&answer, "access-control-expose-headers");
        assert_eq!(exposed, ["date", "retry-after"]);
        assert_eq!(granted(&answer).len(), 3, "{:?}", answer.headers());
    }
}

#[tokio::test]
async fn rule_118_a_page_can_read_every_status_from_within() {
    for status in [200, 204, 301, 400, 401, 403, 404, 405, 406, 429, 500, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = through(with_credentials(), get_from(APP), status).await;
        assert_eq!(answer.status(), status);
        assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
        let credentials = values(&answer, "access-control-allow-credentials");
        assert_eq!(credentials, ["true"]);
    }
}

#[tokio::test]
async fn rule_118_and_what_the_layer_answers_itself() {
    let over = || with_credentials().limits(Limits::new().total(0));
    let refusing = with_credentials().limits(Limits::new().total(0).refuse());
    let early = with_credentials().limits(Limits::new().total(0).before_handler());
    let json = ask(
        Method::GET,
        &[("origin", APP), ("accept", "application/json")],
    );
    let strict = with_credentials().strict_accept();
    for (layer, ask, status) in [
        (over(), get_from(APP), 200),
        (refusing, get_from(APP), 503),
        (early, get_from(APP), 200),
        (strict, json, 406),
    ] {
        let answer = through(layer, ask, silent()).await;
        assert_eq!(answer.status(), status);
        assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
        assert!(names(&answer, "vary").contains(&"origin".to_owned()));
    }
}

#[tokio::test]
async fn rule_119_the_head_is_complete_before_the_first_byte() {
    let watched = Watched::default();
    let answer = through(with_credentials(), get_from(APP), {
        event_stream(watched.body())
    });
    let answer = answer.await;
    assert_eq!(values(&answer, "access-control-allow-origin"), [APP]);
    assert_eq!((watched.polls(), watched.drops()), (0, 0));
}

#[tokio::test]
async fn rule_120_nothing_about_private_networks() {
    let mut request = preflight_from(APP);
    let name = HeaderName::from_static("access-control-request-private-network");
    let yes = HeaderValue::from_static("true");
    request.headers_mut().insert(name, yes);
    let answer = through(with_credentials(), request, ()).await;
    assert_eq!(
        values(&answer, "access-control-allow-private-network"),
        [""; 0]
    );
}
