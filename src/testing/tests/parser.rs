//! The parser against the examples of the HTML standard (section 9.2.6) and the expectations of
//! web-platform-tests (`eventsource/format-*`).

use crate::testing::{Item, Message, Parser};

fn message(event: &str, data: &str, id: &str) -> Item {
    Item::Message(Message {
        event: event.to_owned(),
        data: data.to_owned(),
        last_event_id: id.to_owned(),
    })
}

fn data(data: &str) -> Item {
    message("message", data, "")
}

fn comment(text: &str) -> Item {
    Item::Comment(text.to_owned())
}

fn cases() -> Vec<(&'static [u8], Vec<Item>)> {
    vec![
        // The examples of the standard.
        (
            b"data: YHOO\ndata: +2\ndata: 10\n\n",
            vec![data("YHOO\n+2\n10")],
        ),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            vec![
                comment(" test stream"),
                message("message", "first event", "1"),
                message("message", "second event", ""),
                message("message", " third event", ""),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", vec![data(""), data("\n")]),
        (b"data:test\n\ndata: test\n\n", vec![data("test"), data("test")]),
        // Line ends.
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", vec![data("a"), data("b"), data("c")]),
        (b"data: a\rdata: b\r\ndata: c\n\r\n", vec![data("a\nb\nc")]),
        (b"\r\n\n\rdata: a\n\n", vec![data("a")]),
        (
            "data: a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\u{1e}g\n\n".as_bytes(),
            vec![data("a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\u{1e}g")],
        ),
        // One space after the colon is removed, and nothing else.
        (b"data:\n\n", vec![data("")]),
        (b"data: \n\n", vec![data("")]),
        (b"data:  \n\n", vec![data(" ")]),
        (b"data:\tx\n\n", vec![data("\tx")]),
        ("data:\u{a0}x\n\n".as_bytes(), vec![data("\u{a0}x")]),
        (b"data: a:b: c\n\n", vec![data("a:b: c")]),
        (b":\n:a\n: b\n", vec![comment(""), comment("a"), comment(" b")]),
        // Field names are case-sensitive, without spaces.
        (b"Data: a\nDATA: a\n data: a\ndata : a\nname: a\ndat\ndata2\n\n", vec![]),
        (b"data: a\nDATA: b\ndata : c\n\n", vec![data("a")]),
        // Event types.
        (b"event: x\ndata: a\n\ndata: b\n\n", vec![message("x", "a", ""), data("b")]),
        (b"event: x\nevent: y\ndata: a\n\n", vec![message("y", "a", "")]),
        (b"event: x\nevent:\ndata: a\n\n", vec![data("a")]),
        (b"event: x\n\ndata: a\n\n", vec![data("a")]),
        (b"event:  x \ndata: a\n\n", vec![message(" x ", "a", "")]),
        // An id lasts until the next one, which can be empty. One with NUL is ignored.
        (
            b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
            vec![message("message", "a", "1"), message("message", "b", "1"), data("c")],
        ),
        (
            b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
            vec![message("message", "a", "1"), message("message", "b", "1")],
        ),
        (b"id: 7\n\ndata: a\n\n", vec![message("message", "a", "7")]),
        (b"data: a\nid: 1\nid: 2\n\n", vec![message("message", "a", "2")]),
        ("id: é…\ndata: a\n\n".as_bytes(), vec![message("message", "a", "é…")]),
        // Reconnection times: ASCII digits only.
        (b"retry: 1000\n", vec![Item::Retry(1000)]),
        (b"retry: 0070\n", vec![Item::Retry(70)]),
        (b"retry: 0\n", vec![Item::Retry(0)]),
        (b"retry:\nretry\nretry: -1\nretry: +5\nretry: 1e3\nretry: 100x\nretry:  5\n", vec![]),
        ("retry: ٣\n".as_bytes(), vec![]),
        // One byte order mark at the start of the stream is removed.
        (b"\xEF\xBB\xBFdata: a\n\n", vec![data("a")]),
        (b"\xEF\xBB\xBF\xEF\xBB\xBFdata: a\n\n", vec![]),
        (b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", vec![data("a")]),
        (b"\n\xEF\xBB\xBFdata: a\n\n", vec![]),
        (b"\xEF\xBB\xBF\xEF\xBB\xBF\ndata: a\n\n", vec![data("a")]),
        ("data:\u{feff}a\n\n".as_bytes(), vec![data("\u{feff}a")]),
        // Invalid UTF-8 becomes U+FFFD, and nothing else changes.
        (b"data: \xE2\x82\n\ndata: \xFFb\n\n", vec![data("\u{fffd}"), data("\u{fffd}b")]),
        // NUL is a character like any other in data.
        (b"data: a\0b\n\n", vec![data("a\0b")]),
        (b"data: a\n\0\n\n", vec![data("a")]),
        // An event without its blank line is discarded at the end of the stream.
        (b"data: a\n\ndata: b\n", vec![data("a")]),
        (b"data: a\n\ndata: b\n\nid: 2", vec![data("a"), data("b")]),
        (b"", vec![]),
    ]
}

#[test]
fn cases_of_the_standard() {
    for (bytes, expected) in cases() {
        let quoted = String::from_utf8_lossy(bytes);
        assert_eq!(Parser::new().push(bytes), expected, "{quoted:?}");
    }
}

#[test]
fn the_size_of_chunks_makes_no_difference() {
    for (bytes, expected) in cases() {
        for size in 1..=bytes.len() {
            let mut parser = Parser::new();
            let items: Vec<_> = bytes
                .chunks(size)
                .flat_map(|chunk| parser.push(chunk))
                .collect();
            assert_eq!(
                items,
                expected,
                "{:?} by {size}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}

#[test]
fn rule_95_an_id_takes_effect_with_its_blank_line() {
    let mut parser = Parser::new();
    parser.push(b"id: 1\ndata: x\n\nid: 2\ndata: y\n");
    assert_eq!(parser.last_event_id(), "1");
    parser.push(b"\n");
    assert_eq!(parser.last_event_id(), "2");
}

#[test]
fn a_reconnection_time_takes_effect_before_the_event_ends() {
    let mut parser = Parser::new();
    parser.push(b"retry: 800\nretry: x\nda");
    assert_eq!(parser.retry(), Some(800));
}
