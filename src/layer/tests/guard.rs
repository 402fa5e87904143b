//! Rules 100 to 102, 110 to 117 and 122 to 126: which requests reach the handler.

use super::{
    cors::{get_from, list, preflight_from},
    *,
};

const EVIL: &str = "https://evil.example";
const APP: &str = "https://app.example";
const HOST: &str = "api.example:8080";

fn layer() -> SseLayer {
    SseLayer::new().origins(list())
}

fn silent() -> Response<Body> {
    event_stream(by_hand().1)
}

/// The status, and whether the handler ran.
async fn outcome(layer: SseLayer, request: Request<Body>) -> (u16, bool) {
    let (answer, calls) = counted(layer, request, silent()).await;
    (answer.status().as_u16(), calls > 0)
}

#[tokio::test]
async fn rule_101_a_refused_origin_is_answered_before_the_handler() {
    let (answer, calls) = counted(layer(), get_from(EVIL), silent()).await;
    assert_eq!((answer.status(), calls), (StatusCode::FORBIDDEN, 0));
    assert_ne!(values(&answer, "content-type"), ["text/event-stream"]);
    let (answer, calls) = counted(layer(), preflight_from(EVIL), silent()).await;
    assert_eq!((answer.status(), calls), (StatusCode::FORBIDDEN, 0));
}

#[tokio::test]
async fn rules_110_to_117_origins_that_are_not_on_the_list_however_they_are_spelt() {
    for origin in [
        "",
        "null",
        "Null",
        "*",
        "app.example",
        "https:app.example",
        "https://",
        "https://app.example:443",
        "https://app.example:80",
        "https://app.example:8443",
        "https://app.example/",
        "https://app.example/x",
        "https://app.example.",
        "https://user@app.example",
        "HTTPS://app.example",
        "https://APP.example",
        "http://app.example",
        "https://app.example, https://app.example",
        "https://app.example https://evil.example",
        "https://app.example,",
        "https://example.app.example",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "https://app.example\u{e9}",
        "https://\u{ff41}pp.example",
        "https://example.com",
        "https://*.example.com",
        "https://.example.com",
        "https://a.b.example.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://a.example.com.",
        "https://evil-example.com",
        "https://A.example.com",
        "https://evil.example/.example.com",
        "https://evil.example?.example.com",
        "https://evil.example#.example.com",
        "https://evil@a.example.com",
        "http://localhost",
        "http://localhost:3001",
        "http://127.0.0.1:3000",
        "https://localhost:3000",
        "http://[0:0:0:0:0:0:0:1]:8080",
        "http://[::1]",
        "http://::1:8080",
        "tauri://localhost:80",
        "tauri://LOCALHOST",
        "tauri:localhost",
    ] {
        for request in [get_from(origin), preflight_from(origin)] {
            assert_eq!(outcome(layer(), request).await, (403, false), "{origin:?}");
        }
    }
}

#[tokio::test]
async fn rule_112_two_origins_are_none() {
    for origins in [[APP, APP], [APP, EVIL], [EVIL, APP], ["", APP]] {
        let headers = origins.map(|origin| ("origin", origin));
        let request = ask(Method::GET, &headers);
        assert_eq!(outcome(layer(), request).await, (403, false), "{origins:?}");
    }
}

#[tokio::test]
async fn rules_100_to_102_a_page_of_our_own_in_an_old_browser() {
    let own = |host: &[&str], origin| {
        let mut headers: Vec<_> = host.iter().map(|host| ("host", *host)).collect();
        headers.push(("origin", origin));
        ask(Method::GET, &headers)
    };
    let table: [(&[&str], &str, bool); 22] = [
        (&["api.example"], "https://api.example", true),
        // A proxy may terminate TLS.
        (&["api.example"], "http://api.example", true),
        (&["API.example"], "https://api.example", true),
        (&["api.example:443"], "https://api.example", true),
        (&["api.example:80"], "http://api.example", true),
        (&["api.example:8080"], "http://api.example:8080", true),
        (&["[::1]:3000"], "http://[::1]:3000", true),
        (&["api.example:8080"], "http://api.example", false),
        (&["api.example"], "http://api.example:8080", false),
        (&["api.example:443"], "http://api.example", false),
        (&["api.example:80"], "https://api.example", false),
        (&["api.example"], "https://api.example:443", false),
        (&["api.example"], "https://api.example/", false),
        (&["api.example"], "https://evil.example", false),
        (&["api.example"], "https://api.example.evil.example", false),
        (&["api.example"], "https://evil-api.example", false),
        (&["api.example"], "ftp://api.example", false),
        (&["api.example"], "null", false),
        (&["null"], "null", false),
        (&[""], "https://", false),
        (&[], "https://api.example", false),
        (
            &["api.example", "evil.example"],
            "https://evil.example",
            false,
        ),
    ];
    for (host, origin, passes) in table {
        let expected = if passes { (200, true) } else { (403, false) };
        let got = outcome(layer(), own(host, origin)).await;
        assert_eq!(got, expected, "{host:?} {origin}");
    }
    // If the target has an authority, it counts and not `Host`.
    let mut request = own(&["evil.example"], EVIL);
    *request.uri_mut() = "https://api.example/".parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    assert_eq!(outcome(layer(), request).await, (403, false));
    let mut request = own(&[], "https://api.example");
    *request.uri_mut() = "https://api.example/".parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    assert_eq!(outcome(layer(), request).await, (200, true));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    NoPage,
    Listed,
    Unlisted,
    Null,
    /// The request's own authority.
    Own,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Get,
    Preflight,
    Options,
}

/// The settings of the layer.
#[derive(Clone, Copy, Debug, Default)]
struct Mode {
    any: bool,
    headers_only: bool,
    guard: bool,
    navigation: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Forbidden,
    /// The handler answers, with CORS headers or without.
    Handler(bool),
    /// The layer answers a preflight, and grants it or not.
    Answer(bool),
}

const GARBLED: [&str; 6] = [
    "",
    "Cross-Site",
    "cross-site, none",
    "cross site",
    "*",
    "\u{e9}",
];

/// The model: the rules in the words and the order of docs/wire.md.
fn decide(mode: Mode, asks: Asks, from: From, site: &[&str], dest: &[&str]) -> Expected {
    // Rule 124: a garbled value counts as absent.
    let no_page = site == ["none"];
    let site = match site {
        ["same-origin" | "none"] => Some(false),
        ["same-site" | "cross-site"] => Some(true),
        _ => None,
    };
    let allowed = match from {
        From::Listed => true,
        From::NoPage | From::Two if !mode.any => false,
        // With any origin allowed, every request with an `Origin` is.
        From::NoPage => false,
        _ => mode.any,
    };
    if mode.guard {
        // Rule 123.
        let to = match dest {
            [one] if GARBLED.contains(one) || *one == "empty" => None,
            [one] => Some(*one),
            _ => None,
        };
        let looked_at = to == Some("document") && mode.navigation && site != Some(true);
        if to.is_some() && !looked_at {
            return Expected::Forbidden;
        }
        // Rules 122 and 125.
        if site == Some(true) && !allowed {
            return Expected::Forbidden;
        }
    }
    // Rule 97; a wildcard does not depend on the request.
    if allowed || mode.any {
        return match asks {
            Asks::Preflight => Expected::Answer(true),
            _ => Expected::Handler(true),
        };
    }
    // Rules 100 to 102, as amended.
    // A request with an origin is sent by a page, even with `Sec-Fetch-Site: none`.
    let same_origin = match from {
        From::NoPage => true,
        From::Own => site != Some(true),
        _ => site == Some(false) && !no_page,
    };
    match (same_origin, mode.headers_only, asks) {
        (true, ..) => Expected::Handler(false),
        (_, false, _) => Expected::Forbidden,
        (_, true, Asks::Preflight) => Expected::Answer(false),
        (_, true, _) => Expected::Handler(false),
    }
}

#[tokio::test]
async fn rules_100_to_102_and_122_to_125_every_combination() {
    let all = || Cors::new(list());
    let plain = Mode::default();
    let guard = Mode {
        guard: true,
        ..plain
    };
    let any = Mode { any: true, ..plain };
    let headers_only = Mode {
        headers_only: true,
        ..plain
    };
    let modes = [
        // The guard is on with credentials, unless it is set explicitly.
        (all(), guard),
        (Cors::without_credentials(list()), plain),
        (Cors::any_origin(), any),
        (all().headers_only(), headers_only),
        (all().guard(false), plain),
        (Cors::without_credentials(list()).guard(true), guard),
        (Cors::any_origin().guard(true), Mode { guard: true, ..any }),
        (
            all().headers_only().guard(true),
            Mode {
                guard: true,
                ..headers_only
            },
        ),
        (
            all().allow_navigation(),
            Mode {
                navigation: true,
                ..guard
            },
        ),
        (all().guard(false).allow_navigation(), plain),
    ];
    let known = ["same-origin", "none", "same-site", "cross-site"];
    let mut sites: Vec<Vec<&str>> = vec![vec![], vec!["cross-site", "same-origin"]];
    sites.extend(known.iter().chain(&GARBLED).map(|value| vec![*value]));
    // The destinations of the Fetch standard, and Chromium's fenced frames.
    let known = "empty audio audioworklet document embed fencedframe font frame iframe image json \
                 manifest object paintworklet report script serviceworker sharedworker \
                 speculationrules style text track video webidentity worker xslt";
    let mut dests: Vec<Vec<&str>> = vec![vec![], vec!["image", "image"]];
    dests.extend(known.split(' ').chain(GARBLED).map(|value| vec![value]));
    let own = format!("https://{HOST}");
    for (cors, mode) in modes {
        let layer = SseLayer::new().cors(cors);
        let calls = Arc::new(AtomicUsize::new(0));
        let handler_s = calls.clone();
        let service = ServiceBuilder::new().layer(layer).service_fn(move |_| {
            handler_s.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        for from in [
            From::NoPage,
            From::Listed,
            From::Unlisted,
            From::Null,
            From::Own,
            From::Two,
        ] {
            let origins: &[&str] = match from {
                From::NoPage => &[],
                From::Listed => &[APP],
                From::Unlisted => &[EVIL],
                From::Null => &["null"],
                From::Own => &[&own],
                From::Two => &[APP, APP],
            };
            for asks in [Asks::Get, Asks::Preflight, Asks::Options] {
                // Without an origin there is no preflight.
                if (from, asks) == (From::NoPage, Asks::Preflight) {
                    continue;
                }
                for site in &sites {
                    for dest in &dests {
                        let mut headers = vec![("host", HOST)];
                        headers.extend(origins.iter().map(|value| ("origin", *value)));
                        headers.extend(site.iter().map(|value| ("sec-fetch-site", *value)));
                        headers.extend(dest.iter().map(|value| ("sec-fetch-dest", *value)));
                        if asks == Asks::Preflight {
                            headers.push(("access-control-request-method", "GET"));
                        }
                        let method = match asks {
                            Asks::Get => Method::GET,
                            _ => Method::OPTIONS,
                        };
                        let before = calls.load(Ordering::SeqCst);
                        let Ok(answer) = service.clone().oneshot(ask(method, &headers)).await;
                        let ran = calls.load(Ordering::SeqCst) > before;
                        let granted = answer.headers().contains_key("access-control-allow-origin");
                        let got = match (answer.status().as_u16(), ran) {
                            (403, false) if !granted => Expected::Forbidden,
                            (200, true) => Expected::Handler(granted),
                            (200 | 204, false) => Expected::Answer(granted),
                            other => panic!("{other:?}"),
                        };
                        let expected = decide(mode, asks, from, site, dest);
                        assert_eq!(got, expected, "{mode:?} {asks:?} {headers:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn rules_122_and_123_what_pages_can_make_a_browser_send() {
    let sent = |site, dest, origin: Option<&'static str>| {
        let mut headers = vec![("sec-fetch-site", site), ("sec-fetch-dest", dest)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        ask(Method::GET, &headers)
    };
    let no = (403, false);
    let yes = (200, true);
    for (what, request, expected) in [
        ("EventSource", sent("cross-site", "empty", Some(APP)), yes),
        (
            "EventSource of ours",
            sent("same-origin", "empty", None),
            yes,
        ),
        (
            "EventSource of a sibling",
            sent("same-site", "empty", Some(EVIL)),
            no,
        ),
        ("fetch with no-cors", sent("cross-site", "empty", None), no),
        ("<img>", sent("cross-site", "image", None), no),
        ("<img> of ours", sent("same-origin", "image", None), no),
        (
            "<img crossorigin>",
            sent("cross-site", "image", Some(APP)),
            no,
        ),
        ("<script>", sent("same-site", "script", None), no),
        ("<iframe>", sent("cross-site", "iframe", None), no),
        ("an address typed in", sent("none", "document", None), no),
        ("a link", sent("cross-site", "document", None), no),
    ] {
        assert_eq!(outcome(layer(), request).await, expected, "{what}");
    }
    let looking = || SseLayer::new().cors(Cors::new(list()).allow_navigation());
    for (site, dest, expected) in [
        ("none", "document", yes),
        ("same-origin", "document", yes),
        ("same-site", "document", no),
        ("cross-site", "document", no),
        ("none", "iframe", no),
        ("same-origin", "image", no),
    ] {
        let got = outcome(looking(), sent(site, dest, None)).await;
        assert_eq!(got, expected, "{site} {dest}");
    }
}

#[tokio::test]
async fn rule_102_no_page_has_no_origin() {
    let none = |origin| {
        let headers = [
            ("host", HOST),
            ("sec-fetch-site", "none"),
            ("sec-fetch-dest", "empty"),
            ("origin", origin),
        ];
        ask(Method::POST, &headers)
    };
    let extension = "chrome-extension://aaaabbbbccccddddeeeeffffgggghhhh";
    for (origin, expected) in [
        (extension, (403, false)),
        (EVIL, (403, false)),
        ("null", (403, false)),
        (APP, (200, true)),
        ("https://api.example:8080", (200, true)),
    ] {
        let got = outcome(layer(), none(origin)).await;
        assert_eq!(got, expected, "{origin}");
    }
}

#[tokio::test]
async fn rule_124_metadata_can_be_required() {
    let required = |cors: Cors| SseLayer::new().cors(cors.require_metadata());
    let modes = [
        (Cors::new(list()), ["origin", "sec-fetch-site"]),
        (Cors::any_origin(), ["origin", "sec-fetch-site"]),
    ];
    let table: [(&[(&str, &str)], _); 8] = [
        // What an image on any site sends without TLS.
        (&[("referer", "http://evil.test/")], (403, false)),
        (&[], (403, false)),
        (&[("sec-fetch-site", "of-tomorrow")], (403, false)),
        (&[("sec-fetch-dest", "empty")], (403, false)),
        (&[("sec-fetch-site", "same-origin")], (200, true)),
        (&[("sec-fetch-site", "none")], (200, true)),
        (&[("origin", APP)], (200, true)),
        (
            &[("origin", APP), ("sec-fetch-site", "cross-site")],
            (200, true),
        ),
    ];
    for (cors, depends_on) in modes {
        for (headers, expected) in table {
            let request = ask(Method::GET, headers);
            let (answer, calls) = counted(required(cors.clone()), request, silent()).await;
            let got = (answer.status().as_u16(), calls > 0);
            assert_eq!(got, expected, "{cors:?} {headers:?}");
            let vary = values(&answer, "vary").concat();
            assert!(depends_on.iter().all(|name| vary.contains(name)), "{vary}");
        }
    }
    // Off by default.
    assert_eq!(outcome(layer(), ask(Method::GET, &[])).await, (200, true));
}

#[tokio::test]
async fn rule_128_what_is_refused_is_not_stored_and_has_a_length() {
    let strict = || layer().strict_accept();
    let none = ask(Method::GET, &[("accept", "text/html")]);
    let full = || SseLayer::new().limits(Limits::new().total(0).refuse());
    for (layer, request, status) in [
        (layer(), get_from(EVIL), 403),
        (layer(), preflight_from(EVIL), 403),
        (strict(), none, 406),
        (full(), ask(Method::GET, &[]), 503),
        (
            SseLayer::new().limits(Limits::new().per_key(0, |_| Some("a".into())).refuse()),
            ask(Method::GET, &[]),
            429,
        ),
        (
            SseLayer::new().cors(Cors::new(list()).headers_only()),
            preflight_from(EVIL),
            204,
        ),
    ] {
        let answer = through(layer, request, silent()).await;
        assert_eq!(answer.status(), status);
        assert_eq!(values(&answer, "cache-control"), ["no-store"], "{status}");
        let length = answer.body().size_hint().exact();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        if status != 204 {
            assert_eq!(length, Some(body.len() as u64), "{status}");
            assert!(!body.is_empty());
        }
    }
    let channel = Channel::<u8>::new();
    channel.close(None).unwrap();
    let over = channel.subscribe(channel.newest()).into_response();
    // A client with this id has already received `end` with `unknown`.
    let told: crate::RunId = "000000000000000000000A-F~~~~~~~~~~".parse().unwrap();
    let start = || stream::empty::<u8>();
    let gone = crate::Runs::new().resume_or_start(LastEventId::Known(told), (), start);
    for final_one in [over, gone.into_response()] {
        assert_eq!(final_one.status(), StatusCode::NO_CONTENT);
        assert_eq!(values(&final_one, "cache-control"), ["no-store"]);
    }
}

/// The model of the list, with each entry spelled out.
fn listed(origin: &[u8]) -> bool {
    let Ok(origin) = std::str::from_utf8(origin) else {
        return false;
    };
    let label = origin
        .strip_prefix("https://")
        .and_then(|rest| rest.strip_suffix(".example.com"));
    let of_a_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    [
        APP,
        "http://localhost:3000",
        "http://[::1]:8080",
        "tauri://localhost",
    ]
    .contains(&origin)
        || label.is_some_and(|label| !label.is_empty() && label.chars().all(of_a_label))
}

/// Any value that a header can have.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![0x20u8..0x7f, 0x80u8..=0xff, Just(b'\t')];
    prop::collection::vec(byte, 0..24)
}

fn any_origin() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop::sample::select(vec![
        APP,
        "https://a.example.com",
        "http://localhost:3000",
        "http://[::1]:8080",
        "tauri://localhost",
        "null",
        EVIL,
    ]);
    let mutated = (whole, any::<prop::sample::Index>(), any_value(), 0usize..3).prop_map(
        |(whole, at, with, gone)| {
            let mut bytes = whole.as_bytes().to_vec();
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + gone);
            bytes.splice(at..end, with.into_iter().take(2));
            bytes
        },
    );
    prop_oneof![any_value(), mutated]
}

fn any_of(known: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(known).prop_map(|value| value.as_bytes().to_vec());
    prop_oneof![known, any_value()]
}

proptest! {
    #[test]
    fn rules_97_and_112_no_bytes_grant_what_is_not_listed(
        origins in prop::collection::vec(any_origin(), 0..3),
        site in prop::option::of(any_of(&["same-origin", "none", "same-site", "cross-site"])),
        dest in prop::option::of(any_of(&["empty", "image", "document"])),
        host in prop::option::of(any_of(&["app.example", "evil.example", "null", "localhost:3000"])),
        asks in 0usize..3,
        headers_only: bool,
        guard: Option<bool>,
    ) {
        let method = [Method::GET, Method::OPTIONS, Method::OPTIONS][asks].clone();
        let mut request = ask(method, &[]);
        let mut put = |name: &'static str, value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        };
        origins.iter().for_each(|origin| put("origin", origin));
        site.iter().for_each(|site| put("sec-fetch-site", site));
        dest.iter().for_each(|dest| put("sec-fetch-dest", dest));
        host.iter().for_each(|host| put("host", host));
        if asks == 2 {
            put("access-control-request-method", b"GET");
        }
        let mut cors = Cors::new(list());
        if headers_only {
            cors = cors.headers_only();
        }
        if let Some(guard) = guard {
            cors = cors.guard(guard);
        }
        let layer = SseLayer::new().cors(cors);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answer, calls) = runtime.block_on(counted(layer, request, silent()));
        let allowed = matches!(&origins[..], [origin] if listed(origin));
        let granted: Vec<_> = answer.headers().get_all("access-control-allow-origin").iter().collect();
        if let [granted] = granted[..] {
            prop_assert!(allowed, "{:?} {:?}", origins, granted);
            prop_assert_eq!(granted.as_bytes(), &origins[0]);
        } else {
            prop_assert!(granted.is_empty());
            let names = answer.headers().keys();
            let mut names = names.filter(|name| name.as_str().starts_with("access-control-"));
            prop_assert_eq!(names.next(), None);
        }
        // An origin that is not listed passes only if it is the same origin.
        if calls > 0 && !allowed && !headers_only {
            let ours = matches!(site.as_deref(), Some(b"same-origin"));
            let named = host.as_ref().is_some_and(|host| {
                let host = host.to_ascii_lowercase();
                origins.iter().any(|origin| origin.to_ascii_lowercase().ends_with(&host) && !host.is_empty())
                    || host.ends_with(b":80")
                    || host.ends_with(b":443")
            });
            prop_assert!(origins.is_empty() || ours || named, "{:?} {:?} {:?}", origins, site, host);
        }
        prop_assert_eq!(values(&answer, "vary").len(), 1);
    }
}
