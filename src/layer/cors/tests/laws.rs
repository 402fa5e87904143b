//! Property tests: the allowlist against a model that does not parse URLs.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// An origin, or a pattern, as its parts: what the model compares.
#[derive(Clone, Debug, PartialEq)]
struct Parts {
    scheme: &'static str,
    pattern: bool,
    host: String,
    port: Option<u16>,
}

impl Parts {
    fn print(&self) -> String {
        let Self {
            scheme,
            pattern,
            host,
            port,
        } = self;
        let star = if *pattern { "*." } else { "" };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{star}{host}{port}")
    }

    fn default_port(&self) -> Option<u16> {
        match self.scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        }
    }

    /// The same origin in another spelling, as a configuration may have it.
    fn misspelled(&self, upper: bool, port: bool, slash: bool) -> String {
        let mut parts = self.clone();
        if port && parts.port.is_none() {
            parts.port = self.default_port();
        }
        let mut text = parts.print();
        if upper && self.default_port().is_some() {
            text = text.to_uppercase();
        }
        if slash {
            text.push('/');
        }
        text
    }

    /// Written from rules 115 to 117, over the whole text.
    fn stands_for(&self, origin: &[u8]) -> bool {
        if !self.pattern {
            return origin == self.print().as_bytes();
        }
        let exact = Self {
            pattern: false,
            ..self.clone()
        }
        .print();
        let (scheme, host) = exact.split_at(self.scheme.len() + 3);
        let label = origin
            .strip_prefix(scheme.as_bytes())
            .and_then(|rest| rest.strip_suffix(host.as_bytes()))
            .and_then(|rest| rest.strip_suffix(b"."));
        label.is_some_and(|label| {
            !label.is_empty()
                && label.len() < 64
                && label
                    .iter()
                    .all(|byte| b"abcdefghijklmnopqrstuvwxyz0123456789-_".contains(byte))
        })
    }
}

/// Made of so few names that entries and origins often match.
fn parts() -> impl Strategy<Value = Parts> {
    let scheme = select(vec!["https", "https", "http", "tauri", "null"]);
    let labels = vec(
        select(vec!["a", "b", "example", "com", "null", "xn--lve-6lad"]),
        1..4,
    );
    let port = select(vec![None, None, Some(1), Some(8443), Some(65535)]);
    (scheme, any::<bool>(), labels, port).prop_map(|(scheme, pattern, labels, port)| Parts {
        scheme,
        pattern: pattern && labels.len() > 1 && scheme.starts_with("http"),
        host: labels.join("."),
        port,
    })
}

/// What a request may send instead of an origin.
#[derive(Clone, Debug)]
enum Change {
    Nothing,
    Flip(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index),
    Append(&'static str),
    Prepend(&'static str),
    Subdomain(String),
    Replace(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => Just(Change::Nothing),
        2 => index().prop_map(Change::Flip),
        2 => (index(), vec(any::<u8>(), 1..3)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => index().prop_map(Change::Remove),
        3 => select(vec![
            ":443", ":80", ":8443", ":", "/", ".", " ", "\0", ".evil.net", "/.example.com",
            ".com", "@a.com", ", null", "?", "#", "\\",
        ])
        .prop_map(Change::Append),
        2 => select(vec![" ", "null, ", "x", "https://", "a.", "*", "view-source:"])
            .prop_map(Change::Prepend),
        6 => prop_oneof![
            4 => "[a-z0-9_-]{1,5}",
            1 => "[a-z]{60,66}",
            1 => "[ -~]{0,4}",
            1 => ".{0,3}",
            1 => Just("*".to_owned()),
        ]
        .prop_map(Change::Subdomain),
        1 => vec(any::<u8>(), 0..40).prop_map(Change::Replace),
    ]
}

fn changed(parts: &Parts, change: &Change) -> Vec<u8> {
    let mut origin = Parts {
        pattern: false,
        ..parts.clone()
    }
    .print()
    .into_bytes();
    match change {
        Change::Nothing => {}
        Change::Flip(at) => {
            let at = at.index(origin.len());
            origin[at] ^= 0x20;
        }
        Change::Insert(at, bytes) => {
            let at = at.index(origin.len() + 1);
            origin.splice(at..at, bytes.iter().copied());
        }
        Change::Remove(at) => _ = origin.remove(at.index(origin.len())),
        Change::Append(text) => origin.extend(text.bytes()),
        Change::Prepend(text) => _ = origin.splice(..0, text.bytes()),
        Change::Subdomain(label) => {
            let at = parts.scheme.len() + 3;
            origin.splice(at..at, format!("{label}.").into_bytes());
        }
        Change::Replace(bytes) => origin.clone_from(bytes),
    }
    origin
}

/// Text that looks like an entry, and is usually a bad one.
fn entry() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![
        8 => select(vec!["https://", "HTTP://", "Tauri://", "app://", "null://"]).prop_map(String::from),
        1 => select(vec!["https:", "//", "ws://", "file://", ""]).prop_map(String::from),
        1 => "\\PC{0,5}://",
    ];
    let label = prop_oneof![
        4 => select(vec!["a", "Example", "COM", "élève", "straße", "ﬁ", "日本", "١", "I\u{307}", "xn--lve-6lad"])
            .prop_map(String::from),
        1 => select(vec!["*", "0x7f", "127", "0", "xn--", "-", "_", "", "[::1]", "[0:0::ffff:0]", "％", "＊", "\u{ad}", "\u{200d}"])
            .prop_map(String::from),
        1 => "[a-zA-Z0-9.~!-]{0,6}",
        1 => "\\PC{0,4}",
    ];
    let host = (
        prop_oneof![3 => Just(""), 1 => Just("*.")],
        vec(label, 1..4),
    )
        .prop_map(|(star, labels)| format!("{star}{}", labels.join(".")));
    let tail = prop_oneof![
        6 => Just(String::new()),
        4 => select(vec!["/", ":80", ":443/", ":1", ":", ":080", "//", "?", "#", ".", "\u{3002}"])
            .prop_map(String::from),
        1 => "\\PC{0,4}",
    ];
    (scheme, host, tail).prop_map(|(scheme, host, tail)| scheme + &host + &tail)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rules 112 and 115 to 117: a listed origin is allowed, and no other, however it is spelled.
    #[test]
    fn allows_what_the_model_allows(
        entries in vec((parts(), any::<[bool; 3]>()), 0..6),
        others in vec(parts(), 1..4),
        change in change(),
    ) {
        let texts = entries.iter().map(|(parts, [upper, port, slash])| parts.misspelled(*upper, *port, *slash));
        let list = OriginAllowlist::new(texts).unwrap();
        for parts in others.iter().chain(entries.iter().map(|(parts, _)| parts)) {
            let origin = changed(parts, &change);
            let expected = entries.iter().any(|(entry, _)| entry.stands_for(&origin));
            prop_assert_eq!(
                list.allows(&origin), expected,
                "{:?} by {:?}", String::from_utf8_lossy(&origin), list
            );
        }
    }

    /// Rule 112: no bytes panic, and none but an entry's own match an exact list.
    #[test]
    fn arbitrary_bytes_never_match(origin in vec(any::<u8>(), 0..600), host in "[ -~]{0,80}") {
        let list = list(["https://app.example", "https://*.example.com", "tauri://localhost"]);
        prop_assert!(!list.allows(&origin));
        let origin = [b"https://", &origin[..], b".example.com"].concat();
        let expected = Parts { scheme: "https", pattern: true, host: "example.com".into(), port: None };
        prop_assert_eq!(list.allows(&origin), expected.stands_for(&origin));
        let origin = format!("https://{host}.example.com");
        prop_assert_eq!(list.allows(origin.as_bytes()), expected.stands_for(origin.as_bytes()));
    }

    /// Rule 111: what is printed is read back as the same, from each of the three forms.
    #[test]
    fn the_canonical_form_is_a_fixed_point(entry in entry()) {
        let Ok(list) = OriginAllowlist::new([&entry]) else { return Ok(()) };
        let [origin] = list.iter().collect::<Vec<_>>()[..] else { panic!("{list:?}") };
        prop_assert_eq!(&OriginAllowlist::new([origin]).unwrap(), &list);
        prop_assert_eq!(&origin.parse::<OriginAllowlist>().unwrap(), &list);
        let json = serde_json::to_string(&list).unwrap();
        prop_assert_eq!(&serde_json::from_str::<OriginAllowlist>(&json).unwrap(), &list);

        // Rule 111: an ASCII host stays the same, except for its case.
        if entry.is_ascii() && !entry.contains('[') {
            let host = origin.split([':', '/']).nth(3).unwrap();
            prop_assert!(entry.to_lowercase().contains(&host.to_lowercase()), "{origin}");
        }

        // The `url` crate is the closest thing to a browser: the origin that it computes is ours.
        if let Some(name) = origin.strip_prefix("http").filter(|_| !origin.contains('*')) {
            let url = url::Url::parse(&format!("http{name}/")).unwrap();
            prop_assert_eq!(url.origin().ascii_serialization(), origin);
        }
        prop_assert_eq!(list.allows(origin.as_bytes()), !origin.contains('*'));
        prop_assert!(origin.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert!(!list.allows(b"null"));
    }

    /// Rule 110: whatever is listed, `null` does not match.
    #[test]
    fn null_never_matches(entries in vec((select(vec!["null", "Null", "tauri", "x"]), "[A-Za-z0-9._~-]{1,8}"), 0..9)) {
        let entries = entries.iter().map(|(scheme, host)| format!("{scheme}://{host}"));
        let list = OriginAllowlist::new(entries).unwrap();
        for origin in [&b"null"[..], b"NULL", b"null:", b"null://", b""] {
            prop_assert!(!list.allows(origin));
        }
    }

    /// A list comes back from JSON, and from one string, as it was.
    #[test]
    fn serde_round_trip(entries in vec(parts(), 0..8)) {
        let list = OriginAllowlist::new(entries.iter().map(Parts::print)).unwrap();
        let value = serde_json::to_value(&list).unwrap();
        prop_assert!(value.is_array());
        prop_assert_eq!(&serde_json::from_value::<OriginAllowlist>(value).unwrap(), &list);
        let text = list.iter().collect::<Vec<_>>().join(", ");
        let value = serde_json::Value::from(text);
        prop_assert_eq!(&serde_json::from_value::<OriginAllowlist>(value).unwrap(), &list);
        let mut expected: Vec<_> = entries.iter().map(Parts::print).collect();
        expected.sort_by_key(|text| (text.contains('*'), text.clone()));
        expected.dedup();
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), expected);
    }

    /// A list with a bad entry is refused as a whole, and only the bad entries are named.
    #[test]
    fn bad_entries_are_the_ones_refused_alone(entries in vec(entry(), 0..12)) {
        let bad = entries.iter().filter(|entry| OriginAllowlist::new([entry]).is_err()).count();
        match OriginAllowlist::new(&entries) {
            Ok(_) => prop_assert_eq!(bad, 0),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::InvalidOrigin);
                let alone: Vec<_> = entries.iter().filter_map(|entry| OriginAllowlist::new([entry]).err()).collect();
                let alone: Vec<_> = alone.iter().map(ToString::to_string).collect();
                prop_assert_eq!(error.to_string(), alone.join("; "));
            }
        }
    }
}
