//! Rules 1 to 35: the exact bytes of each kind of event, and that a parser that follows the
//! standard reads back every event that can be built.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use proptest::prelude::*;
use serde::{Serialize, Serializer, ser};
use serde_json::value::RawValue;

use super::*;
use crate::testing::{Item, Message, Parser};

fn wire(event: &Event) -> String {
    String::from_utf8(event.to_bytes().to_vec()).unwrap()
}

fn text(text: &str) -> Event {
    Event::text(text).unwrap()
}

/// What a browser reads from one event.
fn read(event: &Event) -> Vec<Item> {
    Parser::new().push(&event.to_bytes())
}

fn data_of(event: &Event) -> String {
    match &read(event)[..] {
        [Item::Message(message)] => message.data.clone(),
        other => panic!("not exactly one event: {other:?}"),
    }
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.kind(),
    }
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

mod bytes {
    use super::*;

    #[test]
    fn rules_1_and_2_empty_data_is_a_data_line_and_one_event() {
        for event in [text(""), Event::empty()] {
            assert_eq!(wire(&event), "data: \n\n");
            assert_eq!(data_of(&event), "");
        }
    }

    #[test]
    fn rule_3_crlf_counts_once() {
        assert_eq!(wire(&text("a\r\nb")), "data: a\ndata: b\n\n");
        assert_eq!(wire(&text("a\rb\nc")), "data: a\ndata: b\ndata: c\n\n");
        // LF CR is two line breaks, and so are two CRs.
        assert_eq!(wire(&text("a\n\rb")), "data: a\ndata: \ndata: b\n\n");
        assert_eq!(wire(&text("a\r\r\nb")), "data: a\ndata: \ndata: b\n\n");
    }

    #[test]
    fn rule_5_a_last_line_break_survives() {
        assert_eq!(wire(&text("a\n")), "data: a\ndata: \n\n");
        assert_eq!(wire(&text("a\r\n")), "data: a\ndata: \n\n");
        assert_eq!(wire(&text("\n")), "data: \ndata: \n\n");
        assert_eq!(data_of(&text("\n\n")), "\n\n");
    }

    #[test]
    fn rule_6_a_first_space_survives() {
        let event = text(" a").name(" b").unwrap();
        assert_eq!(wire(&event), "event:  b\ndata:  a\n\n");
        assert_eq!(data_of(&event), " a");
    }

    #[test]
    fn rule_7_a_first_tab_nbsp_bom_or_colon_survives() {
        for value in ["\tx", "\u{a0}x", "\u{feff}x", ":x", ": x"] {
            assert_eq!(data_of(&text(value)), value);
        }
    }

    #[test]
    fn rule_8_other_line_separators_do_not_split() {
        let value = "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\u{1c}g\u{1d}h\u{1e}i";
        assert_eq!(wire(&text(value)), format!("data: {value}\n\n"));
        assert_eq!(data_of(&text(value)), value);
    }

    #[test]
    fn rule_9_a_byte_order_mark_never_comes_first() {
        let bom = "\u{feff}";
        for event in [
            text(bom),
            text("x").name(bom).unwrap(),
            Event::comment(bom).unwrap(),
            text("x").with_comment(bom).unwrap(),
        ] {
            assert!(!event.to_bytes().starts_with(bom.as_bytes()), "{event:?}");
        }
    }

    #[test]
    fn rule_12_a_comment_never_becomes_a_field() {
        let event = Event::comment("a\ndata: b\r\nid: 1\rretry: 1\n\n").unwrap();
        assert_eq!(
            wire(&event),
            ": a\n: data: b\n: id: 1\n: retry: 1\n: \n: \n"
        );
        assert!(
            read(&event)
                .iter()
                .all(|item| matches!(item, Item::Comment(_)))
        );
        assert_eq!(
            wire(&text("x").with_comment("why\nso").unwrap()),
            ": why\n: so\ndata: x\n\n"
        );
    }

    #[test]
    fn rule_14_setting_a_field_again_replaces_it() {
        let event = text("x")
            .name("a")
            .unwrap()
            .name("b")
            .unwrap()
            .id("1")
            .unwrap()
            .id("2")
            .unwrap()
            .retry(Duration::from_secs(1))
            .retry(Duration::from_secs(2))
            .with_comment("c")
            .unwrap()
            .with_comment("d")
            .unwrap();
        assert_eq!(
            wire(&event),
            ": d\nretry: 2000\nevent: b\nid: 2\ndata: x\n\n"
        );
    }

    #[test]
    fn rule_16_the_empty_name_writes_no_line() {
        assert_eq!(wire(&text("x").name("").unwrap()), "data: x\n\n");
        // It also removes a name that was set before.
        assert_eq!(
            wire(&text("x").name("a").unwrap().name("").unwrap()),
            "data: x\n\n"
        );
    }

    #[test]
    fn rule_17_clearing_the_id_is_said_and_not_slipped_into() {
        assert_eq!(wire(&text("x").clear_id()), "id: \ndata: x\n\n");
        assert_eq!(kind(text("x").id("")), ErrorKind::InvalidId);
        let mut parser = Parser::new();
        parser.push(&text("x").id("7").unwrap().to_bytes());
        assert_eq!(parser.last_event_id(), "7");
        parser.push(&text("x").clear_id().to_bytes());
        assert_eq!(parser.last_event_id(), "");
    }

    #[test]
    fn rules_18_and_27_fields_stand_in_one_order_without_a_blank_line() {
        let event = text("x\ny")
            .id("7")
            .unwrap()
            .with_comment("c")
            .unwrap()
            .name("n")
            .unwrap()
            .retry(Duration::from_millis(1500));
        assert_eq!(
            wire(&event),
            ": c\nretry: 1500\nevent: n\nid: 7\ndata: x\ndata: y\n\n"
        );
    }

    #[test]
    fn rule_20_a_comment_alone_ends_in_no_blank_line() {
        assert_eq!(wire(&Event::comment("").unwrap()), ": \n");
        assert_eq!(
            wire(
                &Event::comment("c")
                    .unwrap()
                    .retry(Duration::from_secs(1))
                    .clear_id()
            ),
            ": c\nretry: 1000\n"
        );
        assert_eq!(
            wire(&Event::comment("c").unwrap().name("n").unwrap()),
            ": c\n"
        );
    }

    #[test]
    fn rule_21_an_id_without_data_cannot_be_built() {
        let error = Event::comment("c").unwrap().id("7");
        assert_eq!(kind(error), ErrorKind::InvalidId);
    }

    #[test]
    fn rule_22_a_checkpoint_is_an_id_and_empty_data() {
        assert_eq!(wire(&Event::empty().id("7").unwrap()), "id: 7\ndata: \n\n");
    }

    #[test]
    fn rules_23_to_26_retry_is_whole_milliseconds_within_bounds() {
        for (given, printed) in [
            (Duration::ZERO, 500),
            (Duration::from_nanos(1), 500),
            (Duration::from_micros(499_999), 500),
            (Event::MIN_RETRY, 500),
            (Duration::from_nanos(500_000_001), 501),
            (Duration::from_micros(1_000_001), 1001),
            (Event::MAX_RETRY, 86_400_000),
            (Event::MAX_RETRY + Duration::from_nanos(1), 86_400_000),
            (Duration::from_millis(4_294_967_896), 86_400_000),
            (Duration::MAX, 86_400_000),
        ] {
            let event = text("x").retry(given);
            assert_eq!(
                wire(&event),
                format!("retry: {printed}\ndata: x\n\n"),
                "{given:?}"
            );
        }
    }

    #[test]
    fn rule_28_json_is_one_compact_line() {
        #[derive(Serialize)]
        struct Value {
            text: &'static str,
            list: [Option<u8>; 2],
        }
        let value = Value {
            text: "a\nb\r\u{0}",
            list: [Some(1), None],
        };
        assert_eq!(
            wire(&Event::json(&value).unwrap()),
            "data: {\"text\":\"a\\nb\\r\\u0000\",\"list\":[1,null]}\n\n"
        );
    }

    #[test]
    fn rule_29_raw_json_with_line_breaks_stays_in_its_field() {
        let json = "{\"a\":1,\n\"b\":\r\n[2,\r3]\r\n\n}";
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        let event = Event::json(&raw).unwrap().id("7").unwrap();
        assert_eq!(
            wire(&event),
            "id: 7\ndata: {\"a\":1,\ndata: \"b\":\ndata: [2,\ndata: 3]\ndata: \ndata: }\n\n"
        );
        let back: serde_json::Value = serde_json::from_str(&data_of(&event)).unwrap();
        assert_eq!(back, serde_json::json!({"a": 1, "b": [2, 3]}));

        // One kind of line break alone is enough.
        for (json, lines) in [
            ("[1,\r2]", "data: [1,\ndata: 2]"),
            ("[1,\n2]", "data: [1,\ndata: 2]"),
        ] {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            assert_eq!(wire(&Event::json(&raw).unwrap()), format!("{lines}\n\n"));
        }

        // Also inside another value.
        let event = Event::json(&[&raw]).unwrap();
        let back: serde_json::Value = serde_json::from_str(&data_of(&event)).unwrap();
        assert_eq!(back, serde_json::json!([{"a": 1, "b": [2, 3]}]));
    }

    #[test]
    fn rule_29_a_lone_surrogate_escape_passes_through() {
        let raw = RawValue::from_string("\"\\ud800\"".to_owned()).unwrap();
        assert_eq!(wire(&Event::json(&raw).unwrap()), "data: \"\\ud800\"\n\n");
    }

    /// Fails after it has written something.
    struct Half;

    impl Serialize for Half {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(Some(2))?;
            ser::SerializeSeq::serialize_element(&mut list, "written\nalready")?;
            Err(ser::Error::custom("the disk is gone"))
        }
    }

    #[test]
    fn rule_30_what_cannot_be_serialised_leaves_nothing() {
        let error = Event::json(&Half).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize);
        assert_eq!(error.to_string(), "serializing to JSON: the disk is gone");
        assert!(std::error::Error::source(&error).is_some());

        let mut out = b"before\n".to_vec();
        encode::json(&mut out, &Half).unwrap_err();
        assert_eq!(out, b"before\n");
        let mut out = b"before\n".to_vec();
        crate::event::payload::sealed::Encode::encode(&Half, &mut out).unwrap_err();
        assert_eq!(out, b"before\n");
        #[derive(Serialize)]
        enum Named {
            Broken(Half),
        }
        let mut out = b"before\n".to_vec();
        crate::event::payload::encode_named(&Named::Broken(Half), &mut out).unwrap_err();
        assert_eq!(out, b"before\n");
    }

    #[test]
    fn rule_30_map_keys_that_json_cannot_hold_are_an_error() {
        let map = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(kind(Event::json(&map)), ErrorKind::Serialize);
    }

    #[test]
    fn rule_31_unit_none_and_the_empty_string_are_data() {
        assert_eq!(wire(&Event::json(&()).unwrap()), "data: null\n\n");
        assert_eq!(wire(&Event::json(&None::<u8>).unwrap()), "data: null\n\n");
        assert_eq!(wire(&Event::json("").unwrap()), "data: \"\"\n\n");
    }

    #[test]
    fn rule_32_text_goes_out_as_it_stands() {
        assert_eq!(wire(&text("[DONE]")), "data: [DONE]\n\n");
    }

    #[test]
    fn rule_33_long_lines_and_many_lines() {
        let long = "x".repeat(1 << 20);
        assert_eq!(data_of(&text(&long)), long);
        let many = "line\n".repeat(10_000);
        let event = text(&many);
        assert_eq!(data_of(&event), many);
        // Linear: each line adds only its prefix.
        assert_eq!(
            event.to_bytes().len(),
            many.len() + 10_001 * "data: ".len() + 2
        );
    }

    #[test]
    fn rule_34_nul_is_refused_in_text_and_comments() {
        assert_eq!(kind(Event::text("a\0b")), ErrorKind::InvalidText);
        assert_eq!(kind(Event::comment("\0")), ErrorKind::InvalidText);
        assert_eq!(kind(text("x").with_comment("\0")), ErrorKind::InvalidText);
        assert_eq!(
            wire(&Event::json("a\0b").unwrap()),
            "data: \"a\\u0000b\"\n\n"
        );
    }

    #[test]
    fn a_debug_print_shows_the_wire() {
        assert_eq!(format!("{:?}", text("x")), r#"Event("data: x\n\n")"#);
    }
}

mod errors {
    use super::*;

    #[test]
    fn rule_10_line_breaks_in_names_are_errors_that_name_them() {
        assert_eq!(
            message(text("x").name("a\nb")),
            r#"event name "a\nb": a line feed at byte 1 would end the field"#
        );
        assert_eq!(
            message(text("x").name("ab\r")),
            r#"event name "ab\r": a carriage return at byte 2 would end the field"#
        );
        assert_eq!(
            message(EventName::new("\0")),
            r#"event name "\0": a NUL at byte 0 would end the field"#
        );
        assert_eq!(kind(text("x").name("a\nb")), ErrorKind::InvalidName);
        assert_eq!(message(EventName::new("")), r#"event name "": it is empty"#);
    }

    #[test]
    fn rule_65_no_event_is_called_error_by_accident() {
        let error = message(text("x").name("error"));
        assert!(
            error.starts_with(r#"event name "error": EventSource fires `error` itself"#),
            "{error}"
        );
        assert_eq!(
            wire(&text("x").with_name(EventName::ERROR)),
            "event: error\ndata: x\n\n"
        );
        // Names compare case-sensitively, so this one collides with nothing.
        assert_eq!(
            wire(&text("x").name("Error").unwrap()),
            "event: Error\ndata: x\n\n"
        );
    }

    #[test]
    fn rule_65_no_event_is_called_open() {
        let error = message(text("x").name("open"));
        assert!(
            error.starts_with(r#"event name "open": EventSource fires `open` itself"#),
            "{error}"
        );
        assert_eq!(kind(EventName::new("open")), ErrorKind::InvalidName);
        assert!(EventName::new("Open").is_ok() && EventName::new("opened").is_ok());
    }

    #[test]
    #[should_panic(expected = "`open` is EventSource's own event")]
    fn rule_65_nor_is_a_literal() {
        let _ = EventName::from_static("open");
    }

    #[test]
    fn rules_11_82_and_83_ids_hold_visible_ascii_only() {
        let good = |char: char| char.is_ascii_graphic() && !"\"():<>?@[\\]{}".contains(char);
        for char in (0..=0x17f)
            .filter_map(char::from_u32)
            .chain(['\u{2028}', '\u{feff}', '€'])
        {
            let result = text("x").id(format!("a{char}b"));
            if good(char) {
                assert_eq!(wire(&result.unwrap()), format!("id: a{char}b\ndata: x\n\n"));
            } else {
                assert_eq!(kind(result), ErrorKind::InvalidId, "{char:?}");
            }
        }
        assert!(text("x").id("x".repeat(Event::MAX_ID_LEN)).is_ok());
        assert_eq!(
            message(text("x").id("x".repeat(Event::MAX_ID_LEN + 1))),
            format!(
                "event id {:?}…: 129 bytes, more than the maximum of 128",
                "x".repeat(40)
            )
        );
        assert_eq!(
            message(text("x").id("a b")),
            "event id \"a b\": some clients cannot send ' ' at byte 1 back"
        );
        assert_eq!(
            message(text("x").id("")),
            "event id \"\": empty; to make a client forget its id, use clear_id()"
        );
    }

    #[test]
    fn rule_34_the_message_says_where_the_nul_is() {
        assert_eq!(
            message(Event::text("ab\0")),
            r#"text "ab\0": some browsers drop the NUL at byte 2"#
        );
        assert_eq!(
            message(Event::comment("\0")),
            r#"comment "\0": some browsers drop the NUL at byte 0"#
        );
    }

    #[test]
    fn rule_80_a_long_value_is_shown_in_part() {
        let error = message(Event::text(format!("{}\0", "é".repeat(5000))));
        assert!(error.len() < 200, "{error}");
        assert!(error.contains("at byte 10000"), "{error}");
    }
}

mod named {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Kinds<T> {
        UnitKind,
        NewtypeKind(T),
        TupleKind(T, u8),
        StructKind {
            first: T,
            #[serde(skip_serializing_if = "Option::is_none")]
            second: Option<u8>,
            #[serde(rename = "3rd")]
            third: (),
        },
        EmptyTuple(),
        EmptyStruct {},
        #[serde(rename = "with space: and colon")]
        Renamed,
    }

    fn named<T: Serialize>(value: T) -> String {
        wire(&Event::named(&value).unwrap())
    }

    #[test]
    fn all_kinds_of_variants_name_their_events() {
        use Kinds::{EmptyStruct, EmptyTuple, NewtypeKind, Renamed, StructKind, TupleKind};
        assert_eq!(
            named(Kinds::<()>::UnitKind),
            "event: unit_kind\ndata: null\n\n"
        );
        assert_eq!(
            named(NewtypeKind("a\nb")),
            "event: newtype_kind\ndata: \"a\\nb\"\n\n"
        );
        assert_eq!(
            named(TupleKind("a", 1)),
            "event: tuple_kind\ndata: [\"a\",1]\n\n"
        );
        assert_eq!(
            named(StructKind {
                first: vec![1],
                second: Some(2),
                third: ()
            }),
            "event: struct_kind\ndata: {\"first\":[1],\"second\":2,\"3rd\":null}\n\n"
        );
        assert_eq!(
            named(StructKind {
                first: 1,
                second: None,
                third: ()
            }),
            "event: struct_kind\ndata: {\"first\":1,\"3rd\":null}\n\n"
        );
        assert_eq!(
            named(EmptyTuple::<()>()),
            "event: empty_tuple\ndata: []\n\n"
        );
        assert_eq!(
            named(EmptyStruct::<()> {}),
            "event: empty_struct\ndata: {}\n\n"
        );
        assert_eq!(
            named(Renamed::<()>),
            "event: with space: and colon\ndata: null\n\n"
        );
    }

    #[test]
    fn the_content_is_plain_json_whatever_it_holds() {
        use Kinds::NewtypeKind;
        // A variant inside the content keeps serde's form.
        assert_eq!(
            named(NewtypeKind(NewtypeKind(1))),
            "event: newtype_kind\ndata: {\"newtype_kind\":1}\n\n"
        );
        assert_eq!(
            named(NewtypeKind(Kinds::<()>::UnitKind)),
            "event: newtype_kind\ndata: \"unit_kind\"\n\n"
        );
        assert_eq!(
            named(NewtypeKind(BTreeMap::from([(1, Some("x"))]))),
            "event: newtype_kind\ndata: {\"1\":\"x\"}\n\n"
        );
        let raw = RawValue::from_string("[1,\n2]".to_owned()).unwrap();
        assert_eq!(
            named(NewtypeKind(raw)),
            "event: newtype_kind\ndata: [1,\ndata: 2]\n\n"
        );
    }

    #[test]
    fn references_and_boxes_are_seen_through() {
        assert_eq!(
            named(Box::new(&Kinds::NewtypeKind(1))),
            "event: newtype_kind\ndata: 1\n\n"
        );
        assert_eq!(
            named(std::rc::Rc::<Kinds<u8>>::new(Kinds::UnitKind).as_ref()),
            "event: unit_kind\ndata: null\n\n"
        );
    }

    #[test]
    fn an_untagged_enum_is_what_it_holds() {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Any {
            Kind(Kinds<u8>),
            Number(u8),
        }
        assert_eq!(
            named(Any::Kind(Kinds::UnitKind)),
            "event: unit_kind\ndata: null\n\n"
        );
        assert_eq!(kind(Event::named(&Any::Number(1))), ErrorKind::NotAVariant);
    }

    #[derive(Serialize)]
    #[serde(tag = "type")]
    enum Internal {
        Unit,
        Struct { a: u8 },
        Newtype(BTreeMap<u8, u8>),
    }

    #[derive(Serialize)]
    #[serde(tag = "type", content = "value")]
    enum Adjacent {
        Unit,
    }

    #[derive(Serialize)]
    struct Newtype(Kinds<u8>);

    #[derive(Serialize)]
    struct Struct {
        kind: Kinds<u8>,
    }

    #[derive(Serialize)]
    struct Flat {
        #[serde(flatten)]
        kind: Kinds<u8>,
    }

    #[derive(Serialize)]
    struct Unit;

    #[test]
    fn whatever_is_no_variant_is_refused_by_what_it_is() {
        let variant = || Kinds::NewtypeKind(1);
        let refusals = [
            (
                "a struct",
                message(Event::named(&Struct { kind: variant() })),
            ),
            ("a map", message(Event::named(&Flat { kind: variant() }))),
            (
                "a newtype struct",
                message(Event::named(&Newtype(variant()))),
            ),
            ("an Option", message(Event::named(&Some(variant())))),
            ("None", message(Event::named(&None::<Kinds<u8>>))),
            ("a sequence", message(Event::named(&vec![variant()]))),
            ("a tuple", message(Event::named(&(variant(), 1)))),
            (
                "a map",
                message(Event::named(&BTreeMap::from([("a", variant())]))),
            ),
            ("a struct", message(Event::named(&Internal::Unit))),
            (
                "a struct",
                message(Event::named(&Internal::Struct { a: 1 })),
            ),
            (
                "a map",
                message(Event::named(&Internal::Newtype(BTreeMap::new()))),
            ),
            ("a struct", message(Event::named(&Adjacent::Unit))),
            ("a unit struct", message(Event::named(&Unit))),
            ("the unit value", message(Event::named(&()))),
            ("a string", message(Event::named("kind"))),
            ("a number", message(Event::named(&1.5))),
            ("a number", message(Event::named(&1u128))),
            ("a bool", message(Event::named(&true))),
            ("a char", message(Event::named(&'x'))),
        ];
        for (what, message) in refusals {
            assert!(message.starts_with(what), "{what}: {message}");
            assert!(
                message.ends_with("only a variant of an externally tagged enum can"),
                "{message}"
            );
        }
        assert_eq!(kind(Event::named(&Unit)), ErrorKind::NotAVariant);
    }

    #[derive(Serialize)]
    enum Forbidden {
        #[serde(rename = "error")]
        Error,
        #[serde(rename = "open")]
        Open,
        #[serde(rename = "gap")]
        Gap(u8),
        #[serde(rename = "")]
        Empty { a: u8 },
        #[serde(rename = "two\nlines")]
        Lines(u8, u8),
        #[serde(rename = "a\rb")]
        Return,
        #[serde(rename = "nul\0")]
        Nul,
        #[serde(skip)]
        Skipped,
    }

    #[test]
    fn rules_10_and_65_a_variant_has_no_more_rights_than_any_other_name() {
        use Forbidden::{Empty, Error, Gap, Lines, Nul, Open, Return};
        for value in [
            Error,
            Open,
            Gap(1),
            Empty { a: 1 },
            Lines(1, 2),
            Return,
            Nul,
        ] {
            assert_eq!(kind(Event::named(&value)), ErrorKind::InvalidName);
        }
        assert_eq!(
            message(Event::named(&Lines(1, 2))),
            r#"event name "two\nlines": a line feed at byte 3 would end the field"#
        );
        assert_eq!(
            message(Event::named(&Gap(1))),
            r#"event name "gap" is reserved for the channel"#
        );
    }

    #[test]
    fn rule_30_a_value_that_refuses_to_be_serialised_says_so() {
        let error = Event::named(&Forbidden::Skipped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize);
        assert!(
            error.to_string().contains("cannot be serialized"),
            "{error}"
        );

        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom("not today"))
            }
        }
        for result in [
            Event::named(&Refuses),
            Event::named(&Kinds::NewtypeKind(Refuses)),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Serialize);
            assert!(error.to_string().contains("not today"), "{error}");
        }
    }

    /// Serializes as a variant the first time and as a number the second time.
    struct Fickle<'a>(&'a std::cell::Cell<u8>, PhantomData<()>);

    impl Serialize for Fickle<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.replace(1) {
                0 => serializer.serialize_unit_variant("Fickle", 0, "first"),
                _ => serializer.serialize_u8(1),
            }
        }
    }

    #[test]
    fn rule_30_a_value_that_changes_its_mind_leaves_nothing() {
        let cell = std::cell::Cell::new(0);
        let mut out = b"before\n".to_vec();
        let error =
            crate::event::payload::encode_named(&Fickle(&cell, PhantomData), &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize);
        assert_eq!(out, b"before\n");
    }
}

mod round_trip {
    use super::*;

    /// Text with many characters that are special in the format.
    fn any_text() -> impl Strategy<Value = String> {
        let special = prop::sample::select(
            &[
                '\r', '\n', '\r', '\n', '\0', ':', ' ', '\t', '\u{feff}', '\u{2028}', '\u{2029}',
                '\u{85}', 'd', '1',
            ][..],
        );
        let char = prop_oneof![3 => special, 2 => any::<char>()];
        prop::collection::vec(char, 0..20).prop_map(|chars| chars.into_iter().collect())
    }

    /// About half are valid ids.
    fn any_id() -> impl Strategy<Value = String> {
        prop_oneof![
            any_text(),
            "[!#-'*-9;=A-Z^-z|~]{1,20}",
            Just("x".repeat(Event::MAX_ID_LEN + 1))
        ]
    }

    #[derive(Clone, Debug)]
    enum Data {
        Text(String),
        Json(String),
        Empty,
        None,
    }

    #[derive(Clone, Debug)]
    enum Part {
        Heartbeat,
        Event {
            data: Data,
            name: Option<String>,
            id: Option<String>,
            comment: Option<String>,
            retry: Option<Duration>,
            clear_id: bool,
        },
    }

    fn any_part() -> impl Strategy<Value = Part> {
        let data = prop_oneof![
            4 => any_text().prop_map(Data::Text),
            2 => any_text().prop_map(Data::Json),
            1 => Just(Data::Empty),
            1 => Just(Data::None),
        ];
        let event = (
            data,
            prop::option::of(any_text()),
            prop::option::of(any_id()),
            prop::option::of(any_text()),
            prop::option::of(any::<Duration>()),
            prop::bool::weighted(0.1),
        )
            .prop_map(|(data, name, id, comment, retry, clear_id)| Part::Event {
                data,
                name,
                id,
                comment,
                retry,
                clear_id,
            });
        prop_oneof![1 => Just(Part::Heartbeat), 5 => event]
    }

    fn normalised(text: &str) -> String {
        text.replace("\r\n", "\n").replace('\r', "\n")
    }

    fn comments(text: &str) -> impl Iterator<Item = Item> {
        let lines: Vec<_> = normalised(text)
            .split('\n')
            .map(|line| format!(" {line}"))
            .collect();
        lines.into_iter().map(Item::Comment)
    }

    /// An event from all the fields that are valid, and what a browser should read from it.
    /// `last_id` is the browser's last event id.
    fn build(part: &Part, last_id: &mut String) -> (Vec<u8>, Vec<Item>) {
        let Part::Event {
            data,
            name,
            id,
            comment,
            retry,
            clear_id,
        } = part
        else {
            return (
                encode::HEARTBEAT.to_vec(),
                vec![Item::Comment(String::new())],
            );
        };
        let mut items = Vec::new();
        let (mut event, expected) = match data {
            Data::Text(given) => match Event::text(given) {
                Ok(event) => (event, Some(normalised(given))),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidText);
                    (Event::empty(), Some(String::new()))
                }
            },
            Data::Json(given) => (
                Event::json(given).unwrap(),
                Some(serde_json::to_string(given).unwrap()),
            ),
            Data::Empty => (Event::empty(), Some(String::new())),
            Data::None => {
                items.extend(comments("alone"));
                (Event::comment("alone").unwrap(), None)
            }
        };
        if let Some(given) = comment {
            match event.clone().with_comment(given) {
                Ok(with) => {
                    event = with;
                    items = comments(given).collect();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidText),
            }
        }
        if let Some(given) = *retry {
            event = event.retry(given);
            let millis = given
                .clamp(Event::MIN_RETRY, Event::MAX_RETRY)
                .as_nanos()
                .div_ceil(1_000_000);
            items.push(Item::Retry(u64::try_from(millis).unwrap()));
        }
        let mut expected_name = "message".to_owned();
        if let Some(given) = name {
            match event.clone().name(given) {
                Ok(with) => {
                    event = with;
                    if !given.is_empty() {
                        expected_name.clone_from(given);
                    }
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidName),
            }
        }
        if let Some(given) = id {
            match event.clone().id(given) {
                Ok(with) => {
                    event = with;
                    last_id.clone_from(given);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidId),
            }
        }
        if *clear_id {
            event = event.clear_id();
            if expected.is_some() {
                last_id.clear();
            }
        }
        if let Some(data) = expected {
            items.push(Item::Message(Message {
                event: expected_name,
                data,
                last_event_id: last_id.clone(),
            }));
        }
        (event.to_bytes().to_vec(), items)
    }

    proptest! {
        #[test]
        fn rules_1_to_13_what_can_be_built_comes_back_alone(part in any_part()) {
            let (bytes, expected) = build(&part, &mut String::new());
            prop_assert_eq!(&Parser::new().push(&bytes), &expected);
            prop_assert!(!bytes.contains(&b'\r'), "rule 4");
            prop_assert!(!bytes.starts_with("\u{feff}".as_bytes()), "rule 9");
            let lines = bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
            let blank = lines.clone().filter(|line| line.is_empty()).count();
            let events = expected.iter().filter(|item| matches!(item, Item::Message(_))).count();
            prop_assert_eq!(blank, events, "rule 19: one blank line per event");
            prop_assert!(
                lines.filter(|line| !line.is_empty()).all(|line| line.contains(&b':')),
                "rule 15"
            );
        }

        #[test]
        fn rules_1_and_37_a_stream_comes_back_in_chunks_of_any_size(
            parts in prop::collection::vec(any_part(), 1..12),
            sizes in prop::collection::vec(1usize..9, 1..8),
        ) {
            let mut last_id = String::new();
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for part in &parts {
                let (more, items) = build(part, &mut last_id);
                bytes.extend(more);
                expected.extend(items);
            }
            prop_assert!(!bytes.contains(&b'\r'), "rule 4");

            let (mut parser, mut items) = (Parser::new(), Vec::new());
            let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                items.extend(parser.push(chunk));
                rest = after;
            }
            prop_assert_eq!(items, expected);
            prop_assert_eq!(parser.last_event_id(), last_id);
        }

        /// A channel inserts the `id` line later; the bytes must be the same.
        #[test]
        fn rule_18_the_place_of_the_id_is_in_front_of_the_data(
            given in any_text(), name in any_text(), id in "[a-z]{1,9}",
        ) {
            let event = Event::json(&given).unwrap();
            let event = event.clone().name(&name).unwrap_or(event);
            let mut out = Vec::new();
            let id_offset = event.encode_without_id(&mut out);
            let data = out.split_off(id_offset);
            encode::id(&mut out, |out| out.extend(id.bytes()));
            out.extend(data);
            prop_assert_eq!(&out[..], &event.id(&id).unwrap().to_bytes()[..]);
        }
    }
}
