//! The waits of a reader, and their panic messages.

use std::{io, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use crate::{
    Sse,
    testing::{Item, Message, Reader},
};

/// The message of the panic.
async fn failure<T>(test: impl Future<Output = T>) -> String {
    match AssertUnwindSafe(test).catch_unwind().await {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => *payload.downcast::<String>().unwrap(),
    }
}

/// A stream that stays open after these chunks.
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
async fn a_timeout_reports_the_caller_and_the_items_received() {
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
            "no event within 5s, at {}:{line}:31\n3 items received:\n  1. Retry(10)\n  2. Comment(\" hi\")\n  \
             3. Message {{ event: \"a\", data: \"x\", last_event_id: \"1\" }}\n\
             and an unfinished event: \"y\\nd\"",
            file!()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn comments_do_not_extend_the_timeout() {
    let beats = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Some((Ok::<_, io::Error>(":\n"), ()))
    });
    let start = Instant::now();
    let mut reader = Reader::from_stream(beats.boxed()).timeout(Duration::from_secs(2));
    let said = failure(reader.next()).await;
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert!(said.starts_with("no event within 2s, at "), "{said}");
    assert!(said.contains("\n2 items received:\n"), "{said}");
    // The timeout has lost nothing: this comment arrives 2800 ms after the start.
    assert_eq!(reader.next_item().await, Some(Item::Comment(String::new())));
}

#[tokio::test(start_paused = true)]
async fn every_wait_has_a_timeout() {
    let said = [
        failure(open(&[]).next()).await,
        failure(open(&[]).next_item()).await,
        failure(open(&[]).next_message()).await,
        failure(open(&[]).expect_named("a")).await,
        failure(open(&[]).expect_end()).await,
        failure(open(&["data: 1\n\n"]).rest()).await,
    ];
    let starts = [
        "no event", "no item", "no event", "no event", "no event", "no end",
    ];
    for (said, start) in said.iter().zip(starts) {
        assert!(
            said.starts_with(&format!("{start} within 5s, at ")),
            "{said}"
        );
    }
    assert!(said[0].ends_with("\nnothing received"), "{}", said[0]);
    assert!(said[5].contains("\n1 item received:\n"), "{}", said[5]);
}

/// A stream that is always ready, so only the reader itself yields to the clock.
fn endless(chunk: &'static str) -> Reader {
    Reader::from_stream(stream::repeat(chunk).map(Ok::<_, io::Error>))
        .timeout(Duration::from_millis(100))
}

async fn waits_on_endless_streams() {
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
        "no end", "no event", "no event", "no event", "no event", "no item", "no item",
    ];
    for (said, start) in said.iter().zip(starts) {
        let start = format!("{start} within 100ms, at ");
        assert!(said.starts_with(&start), "{said}");
    }
}

#[tokio::test]
async fn a_body_that_is_always_ready_times_out() {
    waits_on_endless_streams().await;
    // Comments count as silence while the clock runs.
    endless(":\n")
        .expect_silence(Duration::from_millis(200))
        .await;
    // A timeout around the wait works, too.
    let mut reader = endless(":\n").timeout(Duration::from_secs(3600));
    let given_up = tokio::time::timeout(Duration::from_millis(1), reader.next()).await;
    assert!(given_up.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_times_out_with_a_paused_clock() {
    waits_on_endless_streams().await;
    let said = failure(endless(":\n").expect_silence(Duration::from_secs(3600))).await;
    let start = "the paused clock cannot advance: the stream is always ready, at ";
    assert!(said.starts_with(start), "{said}");
}

#[tokio::test]
async fn a_dropped_wait_loses_no_event() {
    let text: String = (1..=200).map(|n| format!(":\n\ndata: {n}\n\n")).collect();
    let mut reader = Reader::new(text);
    let mut read = Vec::new();
    let mut dropped = 0;
    while read.len() < 200 {
        match reader.next_message().now_or_never() {
            Some(message) => read.push(message.data),
            None => dropped += 1,
        }
    }
    assert!(dropped > 0);
    let all: Vec<_> = (1..=200).map(|n| n.to_string()).collect();
    assert_eq!(read, all);
}

#[tokio::test]
async fn an_end_and_an_error_are_different() {
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
async fn expectations_that_fail() {
    let said = failure(open(&["event: b\ndata: 1\n\n"]).expect_named("a")).await;
    assert!(
        said.starts_with("received event \"b\" instead of \"a\", at "),
        "{said}"
    );
    let said = failure(open(&["data: 1\n\n"]).expect_end()).await;
    assert!(
        said.starts_with("received an event instead of the end of the stream, at "),
        "{said}"
    );

    let second = Duration::from_secs(1);
    let said = failure(open(&["data: 1\n\n"]).expect_silence(second)).await;
    assert!(
        said.starts_with("received an unexpected event, at "),
        "{said}"
    );
    let said = failure(Reader::new(":\n").expect_silence(second)).await;
    assert!(
        said.starts_with("the stream ended instead of staying silent, at "),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_end_a_silence() {
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

/// The result of a test must not depend on how the bytes were split into chunks.
#[tokio::test]
async fn the_last_id_is_that_of_the_last_item_read() {
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
async fn a_panic_shows_the_newest_items_and_shortens_long_ones() {
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
    assert_eq!(lines[1], "26 items received, the last:");
    assert!(
        lines[2].starts_with("  7. Message { event: \"message\", data: \"7\""),
        "{said}"
    );
    let quoted = format!("data: \"{}\"… (2000 bytes)", "ü".repeat(300));
    assert!(lines[21].contains(&quoted), "{said}");
    assert_eq!(lines.len(), 22);
}

#[test]
fn a_json_error_contains_the_type_and_the_data() {
    let message = |data: &str| Message {
        event: "price".to_owned(),
        data: data.to_owned(),
        last_event_id: String::new(),
    };
    assert_eq!(message("[1, 2]").json::<Vec<u8>>().unwrap(), [1, 2]);
    let error = message("{}").json::<u64>().unwrap_err();
    let said = "the data of event \"price\" is not u64: invalid type: map, expected u64 at line 1 column 0; the data is \"{}\"";
    assert_eq!(error.to_string(), said);
    assert_eq!(format!("{error:?}"), said);
    assert!(std::error::Error::source(&error).is_some());
    let long = "x".repeat(400);
    let said = message(&long).json::<u64>().unwrap_err().to_string();
    let end = format!("; the data is \"{}\"… (400 bytes)", "x".repeat(300));
    assert!(said.ends_with(&end), "{said}");
}
