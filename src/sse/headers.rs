//! The head of an event stream: what its response headers say, and what they must not say.
//!
//! One place for our own responders and for the layer. Knows `http` and nothing of ours.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT_RANGES, AGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, EXPIRES,
        LAST_MODIFIED, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
    },
};

pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// nginx holds back even the response headers until the stream ends, unless told not to.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Rule 49: nothing in between may store the stream, answer from a store, or change it.
const CACHE_DIRECTIVES: [&str; 3] = ["no-cache", "no-store", "no-transform"];

/// With it, a cache may ignore `no-store` (RFC 9111, 5.2.2.3).
const MUST_UNDERSTAND: &str = "must-understand";

/// What a stream of unknown length has no use for, or what is fatal to it: with a validator, a
/// cache could answer 304, after which an `EventSource` never comes back (rules 51, 54). And what
/// outweighs `Cache-Control` in a CDN (RFC 9213) or in nginx (rule 49).
const UNFIT: [HeaderName; 15] = [
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

/// Marks a response whose body hands out whole events or whole lines in every chunk, so that it
/// may be ended between any two. A middleware in between that cuts chunks anew makes it a lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeChunks;

/// Makes these the headers of an event stream. A handler's own cache directives, its own
/// `X-Accel-Buffering` and its own policies are kept (rules 53, 129).
pub(crate) fn apply(headers: &mut HeaderMap) {
    for name in &UNFIT {
        headers.remove(name);
    }
    // Exactly this: Chromium refuses a charset other than UTF-8, and some clients compare the
    // start of the value case-sensitively (rule 48).
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    let cache_control = cache_control(headers);
    headers.insert(CACHE_CONTROL, cache_control);
    for (name, value) in [
        (X_ACCEL_BUFFERING, "no"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // `EventSource` and `fetch` of other origins ask by CORS, which does not look at it.
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

/// For an answer that is not a stream: no cache may give it to the next client (rule 128).
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Adds to what the response depends on: one field, each name once, and `*` says it all
/// (rule 99).
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

/// Who may read is for one place to say: what an inner service thinks of it goes (rules 97, 100,
/// 102, 103, 109).
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

/// One field with the directives that are there and those that are missing.
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

/// The directives of one field. A comma inside a quoted string separates nothing, and a string
/// that does not end is left out: what we add after it would be part of it.
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

/// Whether these are the headers of an event stream, whatever the parameters and the case.
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
            // A string without an end would swallow ours.
            (
                r#"max-age=0, private="x, no-store"#,
                "max-age=0, no-cache, no-store, no-transform",
            ),
            (" , ,,", "no-cache, no-store, no-transform"),
            // Without the name of a field, `no-cache` is another directive than with one.
            (
                r#"no-cache="x", Must-Understand"#,
                r#"no-cache="x", no-cache, no-store, no-transform"#,
            ),
        ] {
            assert_eq!(merged(&[given]), expected, "{given}");
            // Applied again, nothing changes.
            let again = expected.to_owned().leak();
            assert_eq!(merged(&[again]), expected);
        }
    }
}
