//! The response headers of event streams, for our own responses and for the layer.
//!
//! Depends only on `http`.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT_RANGES, AGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPIRES,
        LAST_MODIFIED, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
    },
};

pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// With `no`, nginx does not buffer the stream, nor its response headers.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// No intermediary may store the stream, answer from a cache, or transform it (rule 49).
const CACHE_DIRECTIVES: [&str; 3] = ["no-cache", "no-store", "no-transform"];

/// Lets caches ignore `no-store` (RFC 9111, section 5.2.2.3).
const MUST_UNDERSTAND: &str = "must-understand";

/// Headers that a stream must not have: those of the connection and of the body's length (rule 51);
/// validators, with which a cache could answer 304, after which an `EventSource` does not reconnect
/// (rule 54); and headers that override `Cache-Control` in CDNs (RFC 9213) or in nginx (rule 49).
const FORBIDDEN: [HeaderName; 15] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    AGE,
    EXPIRES,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("cloudflare-cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("x-accel-expires"),
];

/// Marks a response in which every chunk contains whole events or whole lines, so that the layer
/// can end it after any chunk. This no longer holds if a middleware in between splits chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeChunks;

/// Sets the headers of an event stream. Keeps a handler's cache directives, `X-Accel-Buffering` and
/// policies (rules 53 and 129).
pub(crate) fn apply(headers: &mut HeaderMap) {
    for name in &FORBIDDEN {
        headers.remove(name);
    }
    // Replaced even if present: Chromium rejects charsets other than UTF-8, and some clients
    // compare the value case-sensitively (rule 48).
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    let cache_control = cache_control(headers);
    headers.insert(CACHE_CONTROL, cache_control);
    for (name, value) in [
        (X_ACCEL_BUFFERING, "no"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Does not apply to `EventSource` and `fetch`, which use CORS for other origins.
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

/// For responses that are not streams: no cache may reuse one for another client (rule 128).
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Adds `names` to `Vary`, as one field with each name once. `*` replaces all names (rule 99).
#[cfg(feature = "layer")]
pub(crate) fn vary(headers: &mut HeaderMap, names: &[HeaderName]) {
    use http::header::VARY;

    if names.is_empty() {
        return;
    }
    let given = headers.get_all(VARY).iter();
    let given = given.filter_map(|value| value.to_str().ok());
    let given = given.flat_map(|value| value.split(','));
    let mut all: Vec<&str> = Vec::new();
    let ours = names.iter().map(HeaderName::as_str);
    for name in given.map(str::trim).chain(ours) {
        if !name.is_empty() && !all.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            all.push(name);
        }
    }
    let all = if all.contains(&"*") {
        "*".to_owned()
    } else {
        all.join(", ")
    };
    if let Ok(all) = HeaderValue::try_from(all) {
        headers.insert(VARY, all);
    }
}

/// Removes the CORS headers of an inner service, because only the layer decides which origins may
/// read (rules 97, 100, 102, 103 and 109).
#[cfg(feature = "cors")]
pub(crate) fn remove_cors(headers: &mut HeaderMap) {
    use http::header;
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderName::from_static("access-control-allow-private-network"),
    ] {
        headers.remove(name);
    }
}

/// One field with the directives that are present, and ours.
fn cache_control(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get_all(CACHE_CONTROL).iter();
    let given = given.filter_map(|value| value.to_str().ok());
    let mut directives: Vec<&str> = given
        .flat_map(directives)
        .filter(|directive| !directive.eq_ignore_ascii_case(MUST_UNDERSTAND))
        .collect();
    for ours in CACHE_DIRECTIVES {
        if !directives
            .iter()
            .any(|given| given.eq_ignore_ascii_case(ours))
        {
            directives.push(ours);
        }
    }
    HeaderValue::try_from(directives.join(", "))
        .unwrap_or(HeaderValue::from_static("no-cache, no-store, no-transform"))
}

/// The directives of one field. A comma inside a quoted string does not separate. An unterminated
/// string is dropped, because it would absorb the directives that we append.
fn directives(mut rest: &str) -> Vec<&str> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.bytes().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        });
        let (directive, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, ""),
        };
        if !quoted && !directive.trim().is_empty() {
            all.push(directive.trim());
        }
        rest = after;
    }
    all
}

/// Whether these are the headers of an event stream. Ignores case and parameters.
#[cfg(any(feature = "layer", feature = "testing"))]
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(EVENT_STREAM.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(given: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
        }
        apply(&mut headers);
        assert_eq!(headers.get_all(CACHE_CONTROL).iter().count(), 1);
        headers[CACHE_CONTROL].to_str().unwrap().to_owned()
    }

    #[test]
    fn rules_49_and_53_cache_directives_are_merged_into_one_field() {
        assert_eq!(merged(&[]), "no-cache, no-store, no-transform");
        assert_eq!(
            merged(&["private", "No-Store, max-age=0"]),
            "private, No-Store, max-age=0, no-cache, no-transform"
        );
        assert_eq!(
            merged(&["no-cache, no-store, no-transform"]),
            "no-cache, no-store, no-transform"
        );
    }

    #[test]
    fn rule_49_what_is_quoted_is_no_directive() {
        for (given, expected) in [
            (
                r#"private="x-a, no-store, x-b""#,
                r#"private="x-a, no-store, x-b", no-cache, no-store, no-transform"#,
            ),
            (
                r#"a="\", no-store, ", no-cache"#,
                r#"a="\", no-store, ", no-cache, no-store, no-transform"#,
            ),
            (
                r#"a="\\", no-store"#,
                r#"a="\\", no-store, no-cache, no-transform"#,
            ),
            // An unterminated string would absorb our directives.
            (
                r#"max-age=0, private="x, no-store"#,
                "max-age=0, no-cache, no-store, no-transform",
            ),
            (" , ,,", "no-cache, no-store, no-transform"),
            // `no-cache` with a field name is a different directive.
            (
                r#"no-cache="x", Must-Understand"#,
                r#"no-cache="x", no-cache, no-store, no-transform"#,
            ),
        ] {
            assert_eq!(merged(&[given]), expected, "{given}");
            // A second application changes nothing.
            let again = expected.to_owned().leak();
            assert_eq!(merged(&[again]), expected);
        }
    }
}
