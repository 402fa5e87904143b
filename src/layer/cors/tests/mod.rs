//! Rules 110 to 117 as tables; `laws` tests them against a model.

use crate::{Error, ErrorKind, layer::cors::OriginAllowlist};

mod laws;

fn list<const N: usize>(entries: [&str; N]) -> OriginAllowlist {
    OriginAllowlist::new(entries).unwrap()
}

fn canonical(entry: &str) -> String {
    let list = list([entry]);
    let mut entries = list.iter();
    let canonical = entries.next().unwrap().to_owned();
    assert_eq!(entries.next(), None);
    canonical
}

fn refusal(entry: &str) -> String {
    let error: Error = OriginAllowlist::new([entry])
        .map(|list| panic!("{entry:?} became {list:?}"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOrigin);
    error.to_string()
}

/// Each entry is refused, and for that reason.
fn assert_refused(table: &[(&str, &str)]) {
    for (entry, why) in table {
        let message = refusal(entry);
        assert!(message.contains(why), "{entry:?}: {message}");
        assert!(message.starts_with("origin \""), "{message}");
    }
}

#[test]
fn rule_98_no_wildcard() {
    assert_refused(&[("*", "wildcard together with credentials")]);
    for entry in [
        "http://*",
        "https://*:8080",
        "https://**.example.com",
        "https://*.*.example.com",
        "https://a*.example.com",
        "https://*a.example.com",
        "https://a.*.example.com",
        "https://example.*",
        "https://*example.com",
        "https://a.example.com:*",
        "chrome-extension://*",
        "tauri://*.example.com",
        "*://a.example.com",
        "http*://a.example.com",
        // A full-width asterisk becomes a plain one when names are converted to ASCII.
        "https://\u{ff0a}.example.com",
        "https://*.\u{ff0a}.example.com",
    ] {
        refusal(entry);
    }
    // A request cannot name a pattern.
    assert!(!list(["https://*.example.com"]).allows(b"https://*.example.com"));
}

#[test]
fn rule_110_null_is_refused_and_never_matches() {
    assert_refused(&[
        ("null", "any site can send it"),
        ("NULL", "no scheme"),
        ("file://", "null"),
        ("FILE:///home", "null"),
        ("data:text/html,x", "null"),
        ("blob:https://a.example", "null"),
        ("about:blank", "null"),
        ("javascript:x", "null"),
    ]);
    let list = list([
        "null://null",
        "tauri://localhost",
        "chrome-extension://abc",
        "https://null",
    ]);
    assert!(!list.allows(b"null"));
    assert!(list.allows(b"https://null"));
}

#[test]
fn rule_111_canonical_or_refused() {
    for (entry, origin) in [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example:443/", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("https://app.example:80/", "https://app.example:80"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:65535", "http://127.0.0.1:65535"),
        ("https://my_app-1.example", "https://my_app-1.example"),
        ("https://*.Example.COM:443/", "https://*.example.com"),
    ] {
        assert_eq!(canonical(entry), origin, "{entry}");
    }
    assert_refused(&[
        ("", "empty"),
        ("https://", "empty host"),
        ("https:///", "empty host"),
        ("https://:8080", "empty host"),
        ("https://*.", "empty host"),
        ("https:///a.example", "a path"),
        ("https://a.example//", "a path"),
        ("https://app.example/path", "a path"),
        ("https://app.example?q", "a query"),
        ("https://app.example/?q", "a path"),
        ("https://app.example#f", "a fragment"),
        ("https://user@app.example", "a user name"),
        ("https://user:password@app.example", "a user name"),
        ("https://@app.example", "a user name"),
        ("app.example", "no scheme"),
        ("app.example:8080", "no scheme"),
        ("//app.example", "no scheme"),
        ("://app.example", "no scheme"),
        ("https:app.example", "no scheme"),
        ("https:/app.example", "no scheme"),
        ("https:\\\\app.example", "no scheme"),
        (" https://app.example", "no scheme"),
        ("ht\ttps://app.example", "no scheme"),
        ("1https://app.example", "no scheme"),
        ("h\u{212a}://app.example", "no scheme"),
        ("https://app.example ", "' '"),
        ("https://app\t.example", "'\\t'"),
        ("https://app.example\n", "'\\n'"),
        ("https://app\0.example", "'\\0'"),
        ("https://a.example https://b.example", "' '"),
        ("https://app.example\\", "a `\\`"),
        ("https://%61pp.example", "a `%`"),
        ("https://app.example:", "a port"),
        ("https://app.example:/", "a port"),
        ("https://app.example:0", "a port"),
        ("https://app.example:0443", "a port"),
        ("https://app.example:+443", "a port"),
        ("https://app.example:65536", "a port"),
        ("https://app.example:99999999999999999999", "a port"),
        ("https://app.example:https", "a port"),
        ("https://app.example:80:80", "a port"),
        ("https://app.example.", "a dot"),
        ("https://app.example.:8080", "a dot"),
        ("https://.example", "a dot"),
        ("https://app..example", "a dot"),
        ("https://app!.example", "letters, digits"),
        ("https://a;b", "letters, digits"),
        ("https://a,b", "letters, digits"),
        ("https://[app.example]", "inside of an IPv6"),
        ("https://a|b", "does not parse"),
        ("https://xn--a", "does not parse"),
        ("ws://app.example", "is of http, not of ws"),
        ("WSS://app.example", "is of https, not of wss"),
        ("ftp://app.example", "ftp"),
    ]);
}

#[test]
fn rule_111_addresses_that_only_parsers_know() {
    for entry in [
        "http://0x7f.0.0.1",
        "http://0x7f000001",
        "http://0177.0.0.1",
        "http://127.1",
        "http://2130706433",
        "http://127.0.0.1.",
        "http://127.0.0.01",
        "http://256.0.0.1",
        "http://1.2.3.4.5",
        "http://app.example.1",
        "http://app.0x",
        "http://\u{ff11}27.0.0.1",
        "http://127\u{3002}0\u{3002}0\u{3002}1",
    ] {
        refusal(entry);
    }
}

#[test]
fn rule_112_only_the_canonical_form_matches() {
    let list = list([
        "https://app.example",
        "https://*.example.com",
        "http://[::1]",
    ]);
    for origin in [
        "https://app.example",
        "https://a.example.com",
        "http://[::1]",
    ] {
        assert!(list.allows(origin.as_bytes()), "{origin}");
        for spelling in [
            origin.to_uppercase(),
            origin.replacen('h', "H", 1),
            origin.replacen("app", "App", 1).replacen("a.e", "A.e", 1)
                + if origin.contains('[') { ":80" } else { "" },
            format!("{origin}:443"),
            format!("{origin}:80"),
            format!("{origin}:"),
            format!("{origin}/"),
            format!("{origin}."),
            format!(" {origin}"),
            format!("{origin} "),
            format!("{origin}\0"),
            format!("{origin},{origin}"),
            format!("{origin} {origin}"),
            format!("{origin}, {origin}"),
            format!("null, {origin}"),
            origin.replace("://", ":"),
            origin.replace("://", ":///"),
            origin.replace("://", "://user@"),
            origin.replace("::1", "0:0:0:0:0:0:0:1") + "x",
        ] {
            assert!(!list.allows(spelling.as_bytes()), "{spelling:?}");
        }
    }
    for origin in [
        &b""[..],
        b"null",
        b"*",
        b"://",
        b"https://",
        b"https://.",
        b"https://.example.com",
        b"https://app.example\xff",
        b"https://\xff.example.com",
        b"https://\xc3\xa9.example.com",
        b"http://[0:0:0:0:0:0:0:1]",
    ] {
        assert!(!list.allows(origin), "{origin:?}");
    }
}

#[test]
fn rule_113_international_names() {
    for (entry, origin) in [
        ("https://élève.example", "https://xn--lve-6lad.example"),
        ("https://ÉLÈVE.example", "https://xn--lve-6lad.example"),
        // Not in composed form.
        (
            "https://e\u{301}le\u{300}ve.example",
            "https://xn--lve-6lad.example",
        ),
        (
            "https://XN--lve-6lad.example",
            "https://xn--lve-6lad.example",
        ),
        ("https://*.élève.example", "https://*.xn--lve-6lad.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://app\u{3002}example", "https://app.example"),
    ] {
        assert_eq!(canonical(entry), origin, "{entry}");
    }
    assert!(list(["https://élève.example"]).allows(b"https://xn--lve-6lad.example"));
    assert!(list(["https://*.example.com"]).allows(b"https://xn--lve-6lad.example.com"));
    assert!(!list(["https://élève.example"]).allows("https://élève.example".as_bytes()));
    refusal("https://app.example\u{3002}");
    refusal("https://app\u{ff0f}.example");
    refusal("https://app\u{ff20}b.example");
}

#[test]
fn rule_114_ipv6() {
    for (entry, origin) in [
        ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://[2001:DB8::0:1]/", "https://[2001:db8::1]"),
        ("https://[1:0:0:2:0:0:0:3]", "https://[1:0:0:2::3]"),
        ("https://[1:0:2:3:4:5:6:7]", "https://[1:0:2:3:4:5:6:7]"),
        ("https://[::ffff:7F00:1]", "https://[::ffff:7f00:1]"),
        ("tauri://[0::1]:7", "tauri://[::1]:7"),
    ] {
        assert_eq!(canonical(entry), origin, "{entry}");
    }
    assert_refused(&[
        ("http://[::ffff:127.0.0.1]", "IPv4"),
        ("http://[::127.0.0.1]", "IPv4"),
        ("http://[64:ff9b::1.2.3.4]", "IPv4"),
        ("http://[::1", "a port"),
        ("http://[::1%25eth0]", "a `%`"),
        ("http://[::g]", "not an IPv6"),
        ("http://[]", "not an IPv6"),
        ("http://[", "not an IPv6"),
        ("http://[::1]x", "a port"),
        ("http://[::1]:", "a port"),
        ("http://[::1]]", "a port"),
        ("http://::1", "need `[]`"),
        ("http://1:2:3:4:5:6:7:8", "a port"),
        ("http://x[::1]", "a port"),
    ]);
}

#[test]
fn rule_115_port_and_scheme_count() {
    let list = list(["http://localhost:3000"]);
    assert!(list.allows(b"http://localhost:3000"));
    for origin in [
        "http://localhost:3001",
        "http://localhost",
        "http://localhost:300",
        "http://localhost:30000",
        "http://127.0.0.1:3000",
        "https://localhost:3000",
    ] {
        assert!(!list.allows(origin.as_bytes()), "{origin}");
    }
}

#[test]
fn rule_116_patterns() {
    let one = list(["https://*.example.com"]);
    for origin in ["a", "a-b", "0", "_x", "xn--lve-6lad"] {
        assert!(one.allows(format!("https://{origin}.example.com").as_bytes()));
    }
    let long = "a".repeat(63);
    assert!(one.allows(format!("https://{long}.example.com").as_bytes()));
    assert!(!one.allows(format!("https://{long}a.example.com").as_bytes()));
    for origin in [
        "https://example.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://evil-example.com",
        "https://example.com.evil.net",
        "https://a.example.com.evil.net",
        "https://.example.com",
        "https://..example.com",
        "https://a.example.com.",
        "https://evil.net/.example.com",
        "https://evil.net:80/.example.com",
        "https://a.b.example.com",
        "https://a@b.example.com",
        "https://a:80.example.com",
        "https://A.example.com",
        "https://a .example.com",
        "https://*.example.com",
        "https://https://a.example.com",
        "xhttps://a.example.com",
    ] {
        assert!(!one.allows(origin.as_bytes()), "{origin}");
    }
    let port = list(["https://*.example.com:8443"]);
    assert!(port.allows(b"https://a.example.com:8443"));
    assert!(!port.allows(b"https://a.example.com"));
    assert!(!port.allows(b"https://a.example.com:84430"));

    assert_refused(&[
        ("https://*.com", "two labels"),
        ("https://*.localhost:3000", "two labels"),
        ("https://*.127.0.0.1", "an address"),
        ("https://*.1", "browsers read"),
        ("https://*.[::1]", "an address"),
        ("https://*..com", "a dot"),
        ("https://*.example.com.", "a dot"),
        ("tauri://*.example.com", "after http or https"),
        ("*.example.com", "no scheme"),
    ]);
}

#[test]
fn rule_117_custom_schemes() {
    for (entry, origin) in [
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        (
            "MOZ-Extension://5d1f60e2-0a0b-4f3c-9d6e-000000000000/",
            "moz-extension://5d1f60e2-0a0b-4f3c-9d6e-000000000000",
        ),
        ("tauri://localhost", "tauri://localhost"),
        ("capacitor://localhost:443", "capacitor://localhost:443"),
        ("app://-", "app://-"),
        ("app://.", "app://."),
        ("x+y-1.z://Host", "x+y-1.z://Host"),
    ] {
        let list = list([entry]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [origin]);
        assert!(list.allows(origin.as_bytes()));
        assert!(!list.allows(b"null"));
        assert!(!list.allows(origin.to_uppercase().as_bytes()));
    }
    assert_refused(&[
        ("app://", "empty host"),
        ("app:///", "empty host"),
        ("tauri://localhost:0", "a port"),
        ("tauri://é", "ASCII"),
        ("tauri://a,b", "ASCII"),
        ("tauri://local host", "' '"),
        ("chrome-extension://abc/page.html", "a path"),
    ]);
}

#[test]
fn one_error_names_every_bad_entry() {
    let error = OriginAllowlist::new(["*", "https://a.example", "b.example", "null"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "origin \"*\": browsers refuse a wildcard together with credentials; list the origins; \
         origin \"b.example\": no scheme and `://` in front, such as `https://`; \
         origin \"null\": any site can send it, from a sandboxed frame",
    );
    let json = r#"["*","https://a.example","b.example","null"]"#;
    let from_json = serde_json::from_str::<OriginAllowlist>(json).unwrap_err();
    assert!(from_json.to_string().starts_with(&error.to_string()));
    let from_str = "*,https://a.example b.example\nnull".parse::<OriginAllowlist>();
    assert_eq!(from_str.unwrap_err().to_string(), error.to_string());
}

#[test]
fn everything_has_a_bound() {
    let long = format!("https://{}.example\n", "a.".repeat(100_000));
    let error = OriginAllowlist::new(vec![long; 500])
        .unwrap_err()
        .to_string();
    assert!(error.len() < 4096, "{}", error.len());
    assert!(error.ends_with("; and 484 more"), "{error}");

    let entry = |len: usize| format!("x://{}", "h".repeat(len - 4));
    canonical(&entry(OriginAllowlist::MAX_ENTRY_LEN));
    refusal(&entry(OriginAllowlist::MAX_ENTRY_LEN + 1));
    refusal(&format!("https://{}.example", "a".repeat(64)));
    // Short as it is written, and long in ASCII: every label gains its `xn--`.
    let written = format!("https://{}example", "é.".repeat(160));
    assert!(written.len() < OriginAllowlist::MAX_ENTRY_LEN);
    assert!(refusal(&written).contains("bytes, more than 512"));

    let most = OriginAllowlist::MAX_ENTRIES;
    let hosts = |count| (0..count).map(|host| format!("https://h{host}.example"));
    let list = OriginAllowlist::new(hosts(most)).unwrap();
    assert_eq!(list.iter().count(), most);
    assert!(list.allows(b"https://h9999.example"));
    let error = OriginAllowlist::new(std::iter::repeat("https://a.example")).unwrap_err();
    assert_eq!(error.to_string(), "more than 10000 origins in a list");
    let json = serde_json::to_string(&hosts(most + 1).collect::<Vec<_>>()).unwrap();
    let from_json = serde_json::from_str::<OriginAllowlist>(&json).unwrap_err();
    assert!(from_json.to_string().starts_with(&error.to_string()));
}

#[test]
fn lists_from_all_sides() {
    let list = list([
        "https://b.example",
        "http://*.a.example",
        "https://a.example",
        "HTTPS://A.EXAMPLE",
    ]);
    assert_eq!(
        format!("{list:?}"),
        r#"OriginAllowlist{"https://a.example", "https://b.example", "http://*.a.example"}"#
    );
    let text = "http://*.a.example,\n https://a.example\t,https://b.example/,";
    assert_eq!(text.parse::<OriginAllowlist>().unwrap(), list);
    let json = serde_json::to_value(text).unwrap();
    assert_eq!(
        serde_json::from_value::<OriginAllowlist>(json).unwrap(),
        list
    );
    assert_eq!(OriginAllowlist::new(list.iter()).unwrap(), list);
    assert!(!list.is_empty());

    for empty in [
        " , ".parse().unwrap(),
        OriginAllowlist::default(),
        super::tests::list([]),
    ] {
        assert!(empty.is_empty());
        assert_eq!(empty, OriginAllowlist::default());
        assert!(
            !empty.allows(b"https://a.example") && !empty.allows(b"") && !empty.allows(b"null")
        );
    }
    for json in ["null", "1", "[1]", "{}", r#"["https://a.example", null]"#] {
        let error = serde_json::from_str::<OriginAllowlist>(json).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}
