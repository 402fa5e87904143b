//! One event of each shape, and what a client should report for it.

use std::time::Duration;

use axum_sse::{Error, Event, EventName};
use serde::Serialize;
use serde_json::{json, value::RawValue};

use crate::Expected;

pub(crate) struct Shape {
    what: &'static str,
    pub(crate) event: Event,
    /// The event's own id; a comment has none.
    r#type: Option<&'static str>,
    data: String,
    id: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Chat {
    Cleared,
    Said(&'static str),
    Moved(i32, i32),
    UserJoined { name: &'static str, age: Option<u8> },
}

pub(crate) fn all() -> Result<Vec<Shape>, Error> {
    let mut shapes = Shapes(Vec::new());

    // Ids, names and reconnection times. The first heartbeats follow the second of these.
    shapes.message("text before any id", Event::text("first")?, "first");
    shapes
        .message("an id", Event::text("a")?.id("1")?, "a")
        .id("1");
    shapes.message("no id of its own", Event::text("b")?, "b");
    let longest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                   !#$%&'*+,-./;=^_`|~/0123456789abcdef0123456789abcdef0123456789ab";
    shapes
        .message("the longest id", Event::text("c")?.id(longest)?, "c")
        .id(longest);
    shapes
        .message("an id that is cleared", Event::text("d")?.clear_id(), "d")
        .id("");
    shapes.message("no id after that", Event::text("e")?, "e");
    shapes
        .message("an id again", Event::text("f")?.id("7-b")?, "f")
        .id("7-b");
    let retry = Event::text("g")?.retry(Duration::from_secs(86_400 * 365));
    shapes.message("a reconnection time that is too long", retry, "g");
    let retry = Event::text("h")?.retry(Duration::ZERO);
    shapes.message("a reconnection time that is too short", retry, "h");
    let all = Event::json(&1)?
        .with_comment("why\nnot")?
        .retry(Duration::from_millis(500))
        .name("all")?
        .id("8")?;
    shapes.named("everything at once", all, "all", "1").id("8");
    for name in [
        "price",
        " padded ",
        "a:b",
        "é-中-😀",
        "message",
        "data",
        "constructor",
    ] {
        shapes.named("a name", Event::text("x")?.name(name)?, name, "x");
    }
    let error = Event::text("not of the connection")?.with_name(EventName::ERROR);
    shapes.named("the name error", error, "error", "not of the connection");
    shapes.message("the empty name", Event::text("x")?.name("")?, "x");

    // Comments.
    shapes.comment(Event::comment("a comment")?);
    shapes.comment(Event::comment("")?);
    shapes.comment(Event::comment(
        "data: not\r\ndata: an\rdata: event\n\nid: 666\n",
    )?);
    let text = Event::text("behind a comment")?.with_comment(": \u{feff}data: no")?;
    shapes.message("a comment in front", text, "behind a comment");

    // JSON.
    shapes.message("null", Event::json(&())?, "null");
    shapes.message("a missing option", Event::json(&None::<u8>)?, "null");
    shapes.message("true", Event::json(&true)?, "true");
    shapes.message(
        "the largest integer",
        Event::json(&u64::MAX)?,
        "18446744073709551615",
    );
    shapes.message(
        "the smallest integer",
        Event::json(&i64::MIN)?,
        "-9223372036854775808",
    );
    shapes.message("a fraction", Event::json(&-0.5)?, "-0.5");
    shapes.message("no number", Event::json(&f64::NAN)?, "null");
    shapes.message("an empty string", Event::json("")?, r#""""#);
    let text = "\0 \u{1f} \" \\ \r\n \u{2028} \u{feff} é 😀";
    let data = "\"\\u0000 \\u001f \\\" \\\\ \\r\\n \u{2028} \u{feff} é 😀\"";
    shapes.message("a string to escape", Event::json(text)?, data);
    let nested = json!([[], {}, {"a": {"b": [1, null, "x: y"]}}]);
    shapes.message(
        "nested",
        Event::json(&nested)?,
        r#"[[],{},{"a":{"b":[1,null,"x: y"]}}]"#,
    );
    if let Ok(raw) = RawValue::from_string("{\n \"a\":\r\n [1,\r 2]\n}".to_owned()) {
        let data = "{\n \"a\":\n [1,\n 2]\n}";
        shapes.message("raw JSON with line breaks", Event::json(&raw)?, data);
    }

    // Variants.
    shapes.named(
        "a unit variant",
        Event::named(&Chat::Cleared)?,
        "cleared",
        "null",
    );
    shapes.named(
        "a newtype variant",
        Event::named(&Chat::Said("hi"))?,
        "said",
        r#""hi""#,
    );
    shapes.named(
        "a tuple variant",
        Event::named(&Chat::Moved(1, -2))?,
        "moved",
        "[1,-2]",
    );
    let joined = Event::named(&Chat::UserJoined {
        name: "Ada",
        age: None,
    })?;
    shapes.named(
        "a struct variant",
        joined,
        "user-joined",
        r#"{"name":"Ada","age":null}"#,
    );

    // Text.
    shapes.message("an empty event", Event::empty(), "");
    shapes
        .message("an empty event with an id", Event::empty().id("9")?, "")
        .id("9");
    for (what, text, data) in [
        ("the end of an OpenAI stream", "[DONE]", "[DONE]"),
        ("empty text", "", ""),
        ("three lines", "a\nb\nc", "a\nb\nc"),
        ("CRLF", "a\r\nb\r\n\r\nc", "a\nb\n\nc"),
        ("CR", "a\rb\r\rc", "a\nb\n\nc"),
        ("LF CR", "a\n\rb", "a\n\nb"),
        ("a line feed alone", "\n", "\n"),
        ("line feeds alone", "\n\n\n", "\n\n\n"),
        ("a line feed at the end", "a\n", "a\n"),
        ("an empty line at the start", "\na", "\na"),
        ("an empty line in the middle", "a\n\nb", "a\n\nb"),
        ("a space at the start", " a", " a"),
        ("two spaces around", "  a  ", "  a  "),
        ("a space alone", " ", " "),
        ("a tab at the start", "\ta", "\ta"),
        ("a no-break space at the start", "\u{a0}a", "\u{a0}a"),
        ("a colon at the start", ":a", ":a"),
        ("colons", "a: b: c", "a: b: c"),
        (
            "fields",
            "data: x\nid: 666\nevent: x\nretry: 1",
            "data: x\nid: 666\nevent: x\nretry: 1",
        ),
        ("a byte order mark at the start", "\u{feff}a", "\u{feff}a"),
        ("a byte order mark alone", "\u{feff}", "\u{feff}"),
        ("a byte order mark inside", "a\u{feff}b", "a\u{feff}b"),
        (
            "U+2028 and U+2029",
            "a\u{2028}b\u{2029}c",
            "a\u{2028}b\u{2029}c",
        ),
        ("U+0085", "a\u{85}b", "a\u{85}b"),
        ("vertical tab, form feed", "a\u{b}b\u{c}c", "a\u{b}b\u{c}c"),
        (
            "U+001C to U+001F",
            "a\u{1c}b\u{1d}c\u{1e}d\u{1f}e",
            "a\u{1c}b\u{1d}c\u{1e}d\u{1f}e",
        ),
        (
            "every length of UTF-8",
            "é中😀\u{10ffff}\u{fffd}",
            "é中😀\u{10ffff}\u{fffd}",
        ),
        ("HTML", "<p>&amp;</p>", "<p>&amp;</p>"),
    ] {
        shapes.message(what, Event::text(text)?, data);
    }
    let long = "0123456789abcde\u{e9}".repeat(64 * 1024);
    shapes.message("a line of a mebibyte", Event::text(&long)?, &long);
    let lines: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    shapes.message("10,000 lines", Event::text(&lines)?, &lines);
    shapes
        .message("an id at the end", Event::text("last")?.id("10")?, "last")
        .id("10");
    Ok(shapes.0)
}

/// What a client receives for all the shapes, and for the error after them.
pub(crate) fn expected(shapes: &[Shape]) -> Vec<Expected> {
    let mut expected: Vec<Expected> = Vec::new();
    for shape in shapes {
        if let Some(r#type) = shape.r#type {
            let id = shape.id.map(String::from);
            let data = shape.data.as_str();
            let event = Expected::new(shape.what, r#type, data, id, expected.last());
            expected.push(event);
        }
    }
    let last = "the source is gone";
    let failed = Expected::new("the error", "failed", last, None, expected.last());
    expected.push(failed);
    expected
}

struct Shapes(Vec<Shape>);

impl Shapes {
    fn message(&mut self, what: &'static str, event: Event, data: &str) -> &mut Shape {
        self.named(what, event, "message", data)
    }

    fn named(
        &mut self,
        what: &'static str,
        event: Event,
        r#type: &'static str,
        data: &str,
    ) -> &mut Shape {
        self.push(Shape {
            what,
            event,
            r#type: Some(r#type),
            data: data.to_owned(),
            id: None,
        })
    }

    fn comment(&mut self, event: Event) {
        self.push(Shape {
            what: "a comment",
            event,
            r#type: None,
            data: String::new(),
            id: None,
        });
    }

    fn push(&mut self, shape: Shape) -> &mut Shape {
        let at = self.0.len();
        self.0.push(shape);
        &mut self.0[at]
    }
}

impl Shape {
    fn id(&mut self, id: &'static str) {
        self.id = Some(id);
    }
}
