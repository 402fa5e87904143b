//! Law 9: where a foreign stream may end.

use super::*;
use crate::layer::boundary::EventBoundary;

/// The model: answers the same question from the whole text at once.
fn may_end_behind(text: &str) -> bool {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let Some((lines, last)) = text.rsplit_once('\n') else {
        return text.is_empty();
    };
    let block = lines.split('\n').rev().take_while(|line| !line.is_empty());
    let of_an_event = |line: &str| line.starts_with(['d', 'e', 'i', '\u{feff}']);
    last.is_empty() && !block.clone().any(of_an_event)
}

#[test]
fn law_9_examples() {
    for (text, expected) in [
        ("", true),
        ("data: a\n\n", true),
        ("data: a\r\n\r\n", true),
        ("data: a\r\r", true),
        ("data: a\n\r\n", true),
        ("data: a\n\n:\n", true),
        ("data: a\n\n: x", false),
        ("data: a\n\n\n\n", true),
        ("data: a\n", false),
        ("data: a\r\n", false),
        ("data: a\n:\n", false),
        ("data: a\n:\n\n", true),
        ("id: 1\n", false),
        ("id\n", false),
        ("event: x\n", false),
        ("retry: 5\n", true),
        ("retry: 5", false),
        ("x", false),
        ("\u{feff}data: a\n", false),
        ("\u{feff}data: a\n\n", true),
    ] {
        let mut boundary = EventBoundary::default();
        boundary.follow(text.as_bytes());
        assert_eq!(boundary.is_boundary(), expected, "{text:?}");
        assert_eq!(may_end_behind(text), expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn law_9_a_tail_knows_where_events_end_however_they_are_cut(
        text in "[\r\n\r\n:dier x]{0,24}",
        sizes in prop::collection::vec(0usize..6, 1..8),
    ) {
        let mut boundary = EventBoundary::default();
        let mut done = 0;
        for size in sizes.iter().cycle().take(200) {
            let next = text.len().min(done + size);
            boundary.follow(&text.as_bytes()[done..next]);
            done = next;
            prop_assert_eq!(boundary.is_boundary(), may_end_behind(&text[..done]), "{:?}", &text[..done]);
        }
    }
}
