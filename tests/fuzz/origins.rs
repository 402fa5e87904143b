//! Only origins that match an entry are allowed, checked with an independent parser.

use axum_sse::{ErrorKind, OriginAllowlist};
use url::Url;

use crate::input::Input;

pub(crate) fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let entries: Vec<String> = (0..=input.below(4)).map(|_| entry(&mut input)).collect();
    let taken: Vec<&String> = entries.iter().filter(|entry| is_taken(entry)).collect();
    assert_eq!(
        OriginAllowlist::new(&entries).is_ok(),
        taken.len() == entries.len()
    );

    let list = OriginAllowlist::new(&taken).unwrap();
    let canonical: Vec<&str> = list.iter().collect();
    assert_eq!(
        OriginAllowlist::new(&canonical).unwrap(),
        list,
        "canonical entries stay as they are"
    );
    assert_eq!(
        canonical.join(", ").parse::<OriginAllowlist>().unwrap(),
        list
    );

    for entry in &canonical {
        ask(&list, entry.as_bytes());
        // What a page of that origin sends, and what an attacker could send instead.
        let page = entry.replacen("://*.", "://shop.", 1).into_bytes();
        assert!(list.allows(&page), "{entry}");
        let mut other = page.clone();
        let at = input.below(page.len() + 1);
        let removed = input.below(3).min(page.len() - at);
        other.splice(at..at + removed, input.bytes().iter().copied());
        ask(&list, &other);
    }
    for origin in &entries {
        ask(&list, origin.as_bytes());
    }
    ask(&list, input.bytes());
    ask(&list, input.rest());
    assert!(!list.allows(b"null") && !list.allows(b"") && !list.allows(b"*"));
}

fn ask(list: &OriginAllowlist, origin: &[u8]) {
    let stands_for = |entry: &str| match entry.split_once("://*.") {
        None => entry.as_bytes() == origin,
        Some((scheme, rest)) => origin
            .strip_prefix(format!("{scheme}://").as_bytes())
            .and_then(|origin| origin.strip_suffix(format!(".{rest}").as_bytes()))
            .is_some_and(|label| {
                let known = |byte: &u8| b"abcdefghijklmnopqrstuvwxyz0123456789-_".contains(byte);
                (1..=63).contains(&label.len()) && label.iter().all(known)
            }),
    };
    let expected = list.iter().any(stands_for);
    assert_eq!(
        list.allows(origin),
        expected,
        "{:?}",
        String::from_utf8_lossy(origin)
    );
}

/// An accepted entry means the origin that the URL standard's parser finds in it.
fn is_taken(entry: &str) -> bool {
    let list = match OriginAllowlist::new([entry]) {
        Ok(list) => list,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidOrigin);
            return false;
        }
    };
    let canonical: Vec<&str> = list.iter().collect();
    let [canonical] = canonical[..] else {
        panic!("{entry:?} became {canonical:?}");
    };
    assert!(canonical.len() <= OriginAllowlist::MAX_ENTRY_LEN);
    assert!(
        canonical.bytes().all(|byte| byte.is_ascii_graphic()),
        "{canonical:?}"
    );
    let url = Url::parse(&entry.replacen("*.", "x.", 1)).unwrap();
    if matches!(url.scheme(), "http" | "https") {
        assert_eq!(
            canonical.replacen("*.", "x.", 1),
            url.origin().ascii_serialization(),
            "{entry:?}"
        );
    } else {
        // That parser calls the origin of every other scheme opaque.
        let host = url.host_str().unwrap();
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        assert_eq!(
            canonical,
            format!("{}://{host}{port}", url.scheme()),
            "{entry:?}"
        );
    }
    true
}

/// An entry made of likely parts, or of arbitrary bytes.
fn entry(input: &mut Input<'_>) -> String {
    const SCHEMES: [&str; 10] = [
        "https",
        "http",
        "HTTPS",
        "tauri",
        "chrome-extension",
        "null",
        "ws",
        "file",
        "x+y.z",
        "é",
    ];
    const LABELS: [&str; 14] = [
        "a",
        "b",
        "example",
        "com",
        "*",
        "A",
        "élève",
        "xn--lve-6lad",
        "127",
        "0x7f",
        "1",
        "-",
        "_",
        "ß",
    ];
    const ENDS: [&str; 16] = [
        "", "", "", ":1", ":80", ":443", ":8443", ":65535", "/", ".", ":", ":0", ":65536", "/x",
        "?", "#",
    ];
    if input.below(4) == 0 {
        return input.text();
    }
    let scheme = input.pick(&SCHEMES);
    let host = match input.below(8) {
        0 => input.text(),
        1 => format!(
            "[{}]",
            input.pick(&[
                "::1",
                "2001:DB8::1",
                "::ffff:127.0.0.1",
                "::ffff:7f00:1",
                "1",
                "::1%25eth0",
                ""
            ])
        ),
        _ => (0..=input.below(4))
            .map(|_| input.pick(&LABELS))
            .collect::<Vec<_>>()
            .join("."),
    };
    let middle = if input.below(16) == 15 {
        input.text()
    } else {
        "://".to_owned()
    };
    let star = if input.below(3) == 2 { "*." } else { "" };
    format!(
        "{scheme}{middle}{star}{host}{}{}",
        input.pick(&ENDS),
        input.pick(&["", "", "/"])
    )
}
