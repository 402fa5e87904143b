//! `LastEventId`: rules 73 to 83, as a typed header and as an extractor.

use std::{fmt::Debug, str::FromStr};

use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Request, StatusCode},
    routing::get,
};
use axum_sse::{EventId, LastEventId};
use headers::{Header, HeaderMapExt};
use proptest::prelude::*;
use tower::ServiceExt;

fn header(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap()
}

fn request(values: &[&[u8]], query: &str) -> Request<Body> {
    let mut request = Request::builder().uri(format!("/{query}"));
    for value in values {
        request = request.header("Last-Event-ID", header(value));
    }
    request.body(Body::empty()).unwrap()
}

async fn extract<T: FromStr>(values: &[&[u8]], query: &str) -> LastEventId<T> {
    let (mut parts, _) = request(values, query).into_parts();
    // Infallible: this does not compile if it could reject.
    let Ok(last) = LastEventId::from_request_parts(&mut parts, &()).await;
    last
}

fn decode<T: FromStr + std::fmt::Display>(values: &[&[u8]]) -> LastEventId<T> {
    let values: Vec<_> = values.iter().map(|value| header(value)).collect();
    LastEventId::decode(&mut values.iter()).unwrap()
}

/// The expected value in a table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect<'a, T> {
    Absent,
    Known(T),
    Unknown(&'a [u8]),
}

use Expect::{Absent, Known, Unknown};

#[track_caller]
fn check<T: FromStr + Debug + PartialEq>(
    actual: &LastEventId<T>,
    expected: &Expect<'_, T>,
    case: &dyn Debug,
) {
    let same = match (actual, expected) {
        (LastEventId::Absent, Absent) => true,
        (LastEventId::Known(a), Known(b)) => a == b,
        (LastEventId::Unknown(a), Unknown(b)) => a.as_bytes() == *b,
        _ => false,
    };
    assert!(same, "{case:?}: {actual:?} and not {expected:?}");
}

fn strings() -> Vec<(Vec<&'static [u8]>, Expect<'static, String>)> {
    let known = |text: &str| Known(text.to_owned());
    let kib: &'static [u8] = Box::leak(vec![b'x'; 1024].into_boxed_slice());
    let more: &'static [u8] = Box::leak(vec![b'x'; 1025].into_boxed_slice());
    // 1023 and 1025 bytes: the cap may fall inside a character.
    let wide: &'static [u8] =
        Box::leak(["é".repeat(511), "x".to_owned()].concat().into_boxed_str()).as_bytes();
    let wider: &'static [u8] =
        Box::leak(["x".to_owned(), "é".repeat(512)].concat().into_boxed_str()).as_bytes();
    vec![
        (vec![], Absent),
        (vec![b""], Absent),
        (vec![b"7"], known("7")),
        (vec!["é…".as_bytes()], known("é…")),
        (vec![b"\xC3\xA9\xE2\x80\xA6"], known("é…")),
        (vec![b"a b"], known("a b")),
        (vec![b"a\tb"], known("a\tb")),
        (vec![b"../../etc/passwd"], known("../../etc/passwd")),
        (vec![b"%41"], known("%41")),
        (vec![b"\xFF"], Unknown(b"\xFF")),
        (vec![b"a\xC3"], Unknown(b"a\xC3")),
        (vec![b"\xED\xA0\x80"], Unknown(b"\xED\xA0\x80")),
        // U+0085 is a control character that header fields allow.
        (vec![b"a\xC2\x85b"], Unknown(b"a\xC2\x85b")),
        (vec![kib], known(std::str::from_utf8(kib).unwrap())),
        (vec![wide], known(std::str::from_utf8(wide).unwrap())),
        // One byte over the limit is kept, which is enough to stay too long.
        (vec![more], Unknown(more)),
        (vec![wider], Unknown(wider)),
        (vec![b"1", b"2"], Unknown(b"1")),
        (vec![b"1", b"1"], Unknown(b"1")),
        (vec![b"", b"1"], Unknown(b"")),
        (vec![b"", b""], Unknown(b"")),
        (vec![b"1", b"2", b"3"], Unknown(b"1")),
    ]
}

#[tokio::test]
async fn rules_73_to_78_what_a_header_says() {
    for (row, (values, expected)) in strings().into_iter().enumerate() {
        check(&decode(&values), &expected, &row);
        check(&extract(&values, "").await, &expected, &row);
    }
}

#[tokio::test]
async fn rule_79_typed_ids_have_defined_results() {
    // The format of a number is up to its `FromStr`; the header value is not changed before.
    for (value, expected) in [
        (&b"5"[..], Known(5)),
        (b"05", Known(5)),
        (b"+5", Known(5)),
        (b"18446744073709551615", Known(u64::MAX)),
        (b"18446744073709551616", Unknown(b"18446744073709551616")),
        (b"-1", Unknown(b"-1")),
        (b"5 ", Unknown(b"5 ")),
        (b" 5", Unknown(b" 5")),
        (b"5.0", Unknown(b"5.0")),
        ("٥".as_bytes(), Unknown("٥".as_bytes())),
    ] {
        check::<u64>(&decode(&[value]), &expected, &value);
        check::<u64>(&extract(&[value], "").await, &expected, &value);
    }
}

#[tokio::test]
async fn rule_79_a_hub_s_ids_have_one_spelling() {
    check(&decode(&[b"1a-5"]), &Known(EventId::new(101, 5)), &"1a-5");
    for value in [
        &b"1a-05"[..],
        b"5",
        b"1-",
        b"1a-+5",
        b"1a-5 ",
        b"~~~~~~~~~~~-1",
        b"1a-5-6",
    ] {
        check::<EventId>(&decode(&[value]), &Unknown(value), &value);
    }
}

#[tokio::test]
async fn rule_81_the_query_stands_in_for_the_header() {
    let known = |text: &str| Known(text.to_owned());
    for (query, expected) in [
        ("?lastEventId=7", known("7")),
        ("?last_event_id=7", known("7")),
        ("?last-event-id=7", known("7")),
        ("?a=b&lastEventId=7&c", known("7")),
        ("?last%45ventId=7", known("7")),
        ("?", Absent),
        ("?lastEventId", Absent),
        ("?lastEventId=", Absent),
        ("?LastEventId=7", Absent),
        ("?lasteventid=7", Absent),
        ("?xlastEventId=7", Absent),
        // Percent-decoding.
        ("?lastEventId=a+b", known("a b")),
        ("?lastEventId=a%20b%2Bc", known("a b+c")),
        ("?lastEventId=%c3%A9", known("é")),
        ("?lastEventId=a=b", known("a=b")),
        ("?lastEventId=a%26b", known("a&b")),
        ("?lastEventId=a%09b", known("a\tb")),
        // Anything that is not an escape is taken literally.
        ("?lastEventId=%", known("%")),
        ("?lastEventId=%4", known("%4")),
        ("?lastEventId=%zz", known("%zz")),
        ("?lastEventId=%+1", known("% 1")),
        ("?lastEventId=%2541", known("%41")),
        // What a header cannot contain.
        ("?lastEventId=a%00b", Unknown(b"a\0b")),
        ("?lastEventId=%0A", Unknown(b"\n")),
        ("?lastEventId=a%0D%0Adata:b", Unknown(b"a\r\ndata:b")),
        ("?lastEventId=%7F", Unknown(b"\x7F")),
        ("?lastEventId=%FF", Unknown(b"\xFF")),
        ("?lastEventId=%C3", Unknown(b"\xC3")),
        // Repeated.
        ("?lastEventId=1&lastEventId=2", Unknown(b"1")),
        ("?lastEventId=1&lastEventId=1", Unknown(b"1")),
        ("?lastEventId=1&last_event_id=1", Unknown(b"1")),
        ("?lastEventId=&last-event-id=1", Unknown(b"")),
    ] {
        check(&extract(&[], query).await, &expected, &query);
        check(&extract(&[b""], query).await, &expected, &query);
        // The header wins, even if it cannot be read.
        check(&extract(&[b"9"], query).await, &known("9"), &query);
        check::<String>(&extract(&[b"\xFF"], query).await, &Unknown(b"\xFF"), &query);
    }
}

#[tokio::test]
async fn rule_75_the_cap_counts_decoded_bytes() {
    let escaped = |count: usize| format!("?lastEventId={}", "%78".repeat(count));
    check(
        &extract(&[], &escaped(1024)).await,
        &Known("x".repeat(1024)),
        &1024,
    );
    let LastEventId::<String>::Unknown(id) = extract(&[], &escaped(5000)).await else {
        panic!("5000 bytes are too many");
    };
    assert_eq!(id.as_bytes(), "x".repeat(1025).as_bytes());
}

#[tokio::test]
async fn rules_75_and_76_nothing_that_a_client_sends_is_refused() {
    let app = Router::new().route("/", get(async |last: LastEventId| format!("{last:?}")));
    let long = "x".repeat(9000);
    for values in [
        vec![],
        vec![&b""[..]],
        vec![b"\xFF\xFE"],
        vec![b"1", b"2"],
        vec![long.as_bytes()],
    ] {
        for query in ["", "?lastEventId=%00", "?lastEventId=%&lastEventId"] {
            let response = app.clone().oneshot(request(&values, query)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{values:?} {query}");
        }
    }
}

#[tokio::test]
async fn rule_80_debug_does_not_show_what_a_client_sent() {
    let last: LastEventId<u64> = extract(&[b"\x1bsecret".get(1..).unwrap()], "").await;
    assert_eq!(format!("{last:?}"), "Unknown(UnknownId(6 bytes))");
}

#[test]
fn the_typed_header_goes_there_and_back() {
    let mut headers = HeaderMap::new();
    assert_eq!(headers.typed_get::<LastEventId>(), None);
    headers.typed_insert(LastEventId::Known(EventId::new(101, 5)));
    assert_eq!(headers["last-event-id"], "1a-5");
    assert_eq!(
        headers.typed_get(),
        Some(LastEventId::Known(EventId::new(101, 5)))
    );
    headers.typed_insert(LastEventId::Known("é…".to_owned()));
    assert_eq!(headers["last-event-id"].as_bytes(), b"\xC3\xA9\xE2\x80\xA6");
    assert_eq!(
        headers.typed_get(),
        Some(LastEventId::Known("é…".to_owned()))
    );
}

#[test]
fn absent_and_what_no_header_can_carry_encode_to_nothing() {
    let encoded = |last: &LastEventId<String>| {
        let mut values: Vec<HeaderValue> = Vec::new();
        last.encode(&mut values);
        values
    };
    assert!(encoded(&LastEventId::Absent).is_empty());
    assert!(encoded(&LastEventId::Known("two\nlines".to_owned())).is_empty());
    assert_eq!(encoded(&LastEventId::Known("7".to_owned())), ["7"]);
    assert_eq!(encoded(&decode(&[b"\xFF"])), [header(b"\xFF")]);
}

#[test]
fn conversions() {
    assert_eq!(LastEventId::from(7).known(), Some(7));
    assert_eq!(LastEventId::<u8>::default(), LastEventId::Absent);
    assert!(LastEventId::<u8>::Absent.is_absent());
    assert!(!decode::<u8>(&[b"x"]).is_absent());
    assert_eq!(decode::<u8>(&[b"x"]).known(), None);
}

proptest! {
    #[test]
    fn rule_75_decoding_never_fails_and_a_proxy_that_passes_it_on_changes_nothing(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            "[ -~]{1000,1100}".prop_map(String::into_bytes),
        ],
    ) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let once = LastEventId::<String>::decode(&mut [value].iter()).unwrap();
        let mut values: Vec<HeaderValue> = Vec::new();
        once.encode(&mut values);
        prop_assert_eq!(values.is_empty(), bytes.is_empty());
        prop_assert_eq!(LastEventId::<String>::decode(&mut values.iter()).unwrap(), once);
    }

    #[test]
    fn rule_81_any_query_is_taken(query in "[a-z%+&=0-9]{0,40}") {
        let uri = format!("/?lastEventId={query}").parse().unwrap();
        let mut parts = Request::new(()).into_parts().0;
        parts.uri = uri;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Ok(_) = runtime.block_on(LastEventId::<String>::from_request_parts(&mut parts, &()));
    }
}
