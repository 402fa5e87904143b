//! What a reader waits for, and what it says when that does not come.

use std::{io, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use crate::{
    Sse,
    testing::{Item, Message, Reader},
};

/// What a test says when it fails by this.
async fn failure<T>(test: impl Future<Output = T>) -> String {
    match AssertUnwindSafe(test).catch_unwind().await {
        Ok(_) => panic!("it passes"),
        Err(payload) => *payload.downcast::<String>().unwrap(),
    }
}

/// These chunks, and then nothing, without an end.
fn open(chunks: &[&'static str]) -> Reader {
    let chunks: Vec<_> = chunks
        .iter()
        .map(|chunk| Ok::<_, io::Error>(*chunk))
        .collect();
    Reader::from_stream(stream::iter(chunks).chain(stream::pending()))
}

fn cut(chunks: &[&'static str]) -> Reader {
    let error = Err(io::Error::other("the cable is out"));
    let chunks: Vec<_> = chunks.iter().copied().map(Ok).chain([error]).collect();
    Reader::from_stream(stream::iter(chunks))
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_and_says_where_and_what_had_arrived() {
    let start = Instant::now();
    let mut reader = open(&[
        "retry: 10\n: hi\nid: 1\nevent: a\ndata: x\n\nda",
        "ta: y\nid: 2\nd",
    ]);
    reader.next_message().await;
    let line = line!() + 1;
    let said = failure(reader.next_message()).await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(
        said,
        format!(
            "no event within 5s, at {}:{line}:31\n3 items had arrived:\n  1. Retry(10)\n  2. Comment(\" hi\")\n  \
             3. Message {{ event: \"a\", data: \"x\", last_event_id: \"1\" }}\n\
             and, without the blank line that ends an event: \"y\\nd\"",
            file!()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn the_bound_is_for_the_event_however_many_comments_come() {
    let beats = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Some((Ok::<_, io::Error>(":\n"), ()))
    });
    let start = Instant::now();
    let mut reader = Reader::from_stream(beats.boxed()).timeout(Duration::from_secs(2));
    let said = failure(reader.next()).await;
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert!(said.starts_with("no event within 2s, at "), "{said}");
    assert!(said.contains("\n2 items had arrived:\n"), "{said}");
    // 2800 ms after the start; giving up has lost nothing.
    assert_eq!(reader.next_item().await, Some(Item::Comment(String::new())));
}

#[tokio::test(start_paused = true)]
async fn every_wait_is_bounded() {
    let said = [
        failure(open(&[]).next()).await,
        failure(open(&[]).next_item()).await,
        failure(open(&[]).next_message()).await,
        failure(open(&[]).expect_named("a")).await,
        failure(open(&[]).expect_end()).await,
        failure(open(&["data: 1\n\n"]).rest()).await,
    ];
    let starts = [
        "no event", "nothing", "no event", "no event", "no event", "no end",
    ];
    for (said, start) in said.iter().zip(starts) {
        assert!(
            said.starts_with(&format!("{start} within 5s, at ")),
            "{said}"
        );
    }
    assert!(said[0].ends_with("\nnothing had arrived"), "{}", said[0]);
    assert!(said[5].contains("\n1 item had arrived:\n"), "{}", said[5]);
}

/// Always ready: nothing but the reader gives the clock a turn.
fn endless(chunk: &'static str) -> Reader {
    Reader::from_stream(stream::repeat(chunk).map(Ok::<_, io::Error>))
        .timeout(Duration::from_millis(100))
}

async fn waits_for_what_does_not_end() {
    let said = [
        failure(endless("data: 1\n\n").rest()).await,
        failure(endless(":\n").next()).await,
        failure(endless(":\n").next_message()).await,
        failure(endless(":\n").expect_named("a")).await,
        failure(endless(":\n").expect_end()).await,
        failure(endless("x").next_item()).await,
        failure(endless("").next_item()).await,
    ];
    let starts = [
        "no end", "no event", "no event", "no event", "no event", "nothing", "nothing",
    ];
    for (said, start) in said.iter().zip(starts) {
        let start = format!("{start} within 100ms, at ");
        assert!(said.starts_with(&start), "{said}");
    }
}

#[tokio::test]
async fn a_body_that_is_always_ready_ends_no_later() {
    waits_for_what_does_not_end().await;
    // Comments are silence, as long as the time passes.
    endless(":\n")
        .expect_silence(Duration::from_millis(200))
        .await;
    // A timeout of the test has its turn too.
    let mut reader = endless(":\n").timeout(Duration::from_secs(3600));
    let given_up = tokio::time::timeout(Duration::from_millis(1), reader.next()).await;
    assert!(given_up.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_ends_where_the_clock_stands_still() {
    waits_for_what_does_not_end().await;
    let said = failure(endless(":\n").expect_silence(Duration::from_secs(3600))).await;
    let start = "no pause in which the paused time could pass, at ";
    assert!(said.starts_with(start), "{said}");
}

#[tokio::test]
async fn what_was_not_read_when_a_wait_is_given_up_is_read_later() {
    let text: String = (1..=200).map(|n| format!(":\n\ndata: {n}\n\n")).collect();
    let mut reader = Reader::new(text);
    let mut read = Vec::new();
    let mut given_up = 0;
    while read.len() < 200 {
        match reader.next_message().now_or_never() {
            Some(message) => read.push(message.data),
            None => given_up += 1,
        }
    }
    assert!(given_up > 0);
    let all: Vec<_> = (1..=200).map(|n| n.to_string()).collect();
    assert_eq!(read, all);
}

#[tokio::test]
async fn an_end_and_a_break_are_told_apart() {
    let mut ended = Reader::new("data: 1\n\ndata: lost");
    assert_eq!(ended.next_message().await.data, "1");
    let said = failure(ended.next_message()).await;
    assert!(
        said.starts_with("the stream ended instead of an event, at "),
        "{said}"
    );
    ended.expect_end().await;
    assert!(ended.error().is_none());
    assert!(ended.rest().await.is_empty());

    let mut broken = cut(&["data: 1\n\n"]);
    assert_eq!(broken.next().await.unwrap().data, "1");
    assert_eq!(broken.next().await, None);
    assert_eq!(broken.next_item().await, None);
    assert_eq!(broken.error().unwrap().to_string(), "the cable is out");
    for said in [
        failure(broken.next_message()).await,
        failure(broken.expect_named("a")).await,
        failure(broken.expect_end()).await,
        failure(broken.expect_silence(Duration::from_secs(1))).await,
        failure(cut(&["data: 1\n\n"]).rest()).await,
    ] {
        assert!(
            said.starts_with("the stream broke: the cable is out, at "),
            "{said}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn expectations_that_are_not_met() {
    let said = failure(open(&["event: b\ndata: 1\n\n"]).expect_named("a")).await;
    assert!(
        said.starts_with("an event \"b\" instead of \"a\", at "),
        "{said}"
    );
    let said = failure(open(&["data: 1\n\n"]).expect_end()).await;
    assert!(
        said.starts_with("an event instead of the end of the stream, at "),
        "{said}"
    );

    let second = Duration::from_secs(1);
    let said = failure(open(&["data: 1\n\n"]).expect_silence(second)).await;
    assert!(
        said.starts_with("an event where none was expected, at "),
        "{said}"
    );
    let said = failure(Reader::new(":\n").expect_silence(second)).await;
    assert!(
        said.starts_with("the stream ended where silence was expected, at "),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_lasts_as_long_as_it_should_heartbeats_or_not() {
    let late = stream::once(async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        1
    });
    let start = Instant::now();
    let mut reader = Reader::new(Sse::new(late.boxed()));
    reader.expect_silence(Duration::from_secs(59)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(59));
    assert_eq!(reader.next_message().await.data, "1");
}

/// What a test sees may not depend on how the bytes were cut into chunks.
#[tokio::test]
async fn the_last_id_is_that_of_what_was_read_whatever_has_arrived() {
    let text = "id: 1\r\ndata: a\r\n\r\nid: 2\r\n\r\n: c\rid: 3\ndata: b\n\n";
    for size in 1..=text.len() {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(size)
            .map(|chunk| Ok::<_, io::Error>(chunk.to_vec()))
            .collect();
        let mut reader = Reader::from_stream(stream::iter(chunks));
        assert_eq!(reader.last_event_id(), "");
        assert_eq!(reader.next_message().await.data, "a");
        assert_eq!(reader.last_event_id(), "1");
        assert_eq!(reader.next_item().await, Some(Item::Comment(" c".into())));
        assert_eq!(reader.last_event_id(), "2");
        assert_eq!(reader.next_message().await.last_event_id, "3");
        assert_eq!(reader.last_event_id(), "3");
        reader.expect_end().await;
    }
}

#[tokio::test]
async fn a_failure_shows_the_newest_items_and_of_long_ones_the_start() {
    let mut text = String::new();
    for n in 1..=25 {
        text += &format!("data: {n}\n\n");
    }
    text += &format!("data: {}\n\n", "ü".repeat(1000));
    let mut reader = Reader::new(text);
    for _ in 0..26 {
        reader.next_message().await;
    }
    let said = failure(reader.next_message()).await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[1], "26 items had arrived, the last:");
    assert!(
        lines[2].starts_with("  7. Message { event: \"message\", data: \"7\""),
        "{said}"
    );
    let quoted = format!("data: \"{}\"… (2000 bytes)", "ü".repeat(300));
    assert!(lines[21].contains(&quoted), "{said}");
    assert_eq!(lines.len(), 22);
}

#[test]
fn data_that_is_no_such_json_is_shown_with_the_type() {
    let message = |data: &str| Message {
        event: "price".to_owned(),
        data: data.to_owned(),
        last_event_id: String::new(),
    };
    assert_eq!(message("[1, 2]").json::<Vec<u8>>().unwrap(), [1, 2]);
    let error = message("{}").json::<u64>().unwrap_err();
    let said = "the data of \"price\" is no u64: invalid type: map, expected u64 at line 1 column 0; it is \"{}\"";
    assert_eq!(error.to_string(), said);
    assert_eq!(format!("{error:?}"), said);
    assert!(std::error::Error::source(&error).is_some());
    let long = "x".repeat(400);
    let said = message(&long).json::<u64>().unwrap_err().to_string();
    let end = format!("; it is \"{}\"… (400 bytes)", "x".repeat(300));
    assert!(said.ends_with(&end), "{said}");
}
