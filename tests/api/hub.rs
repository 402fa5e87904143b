//! `Hub`, `SubscriptionHandle`, closing and statistics, through the public API.

use std::time::Duration;

use axum::{http::StatusCode, response::IntoResponse};
use axum_sse::{
    BoxError, Channel, ErrorKind, Event, EventId, GapReason, Heartbeat, Hub, HubBuilder,
    LastEventId, OnGap, OnLag, Resumption, Start, event_name,
};
use tokio::time::{advance, sleep, timeout};

use serde_json::json;

use crate::wire::{Wire, messages, millis, secs};

const PRELUDE: &str = ":\n";

fn hub() -> Hub {
    builder().build()
}

fn builder() -> HubBuilder {
    Hub::builder().capacity(4)
}

fn publish(hub: &Hub, channel: &str, value: u32) -> EventId {
    hub.channel(channel)
        .unwrap()
        .publish(&value)
        .unwrap()
        .id()
        .unwrap()
}

/// The data of each event, in order.
fn data(bytes: &str) -> Vec<String> {
    messages(bytes)
        .into_iter()
        .map(|message| message.data)
        .collect()
}

fn come_back(bytes: &str) -> u64 {
    let (retry, rest) = bytes.trim_start_matches(":\n").split_once('\n').unwrap();
    assert_eq!(rest, ":\n");
    let millis = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((2000..=4000).contains(&millis), "{millis}");
    millis
}

#[tokio::test(start_paused = true)]
async fn law_5_one_id_resumes_any_set_of_channels() {
    let hub = Hub::builder().capacity(100).build();
    let ids: Vec<_> = (0..30)
        .map(|n| publish(&hub, ["a", "b", "c"][n as usize % 3], n))
        .collect();
    for (set, picked) in [
        (vec!["a", "b"], vec![0, 1]),
        (vec!["c", "a", "b", "a"], vec![0, 1, 2]),
        (vec!["b"], vec![1]),
    ] {
        for (at, id) in ids.iter().enumerate() {
            let expected: Vec<String> = (at + 1..30)
                .filter(|n| picked.contains(&(n % 3)))
                .map(|n| n.to_string())
                .collect();
            let subscription = hub.subscribe(&set, *id);
            let pending = expected.len() as u64;
            assert_eq!(subscription.resumption(), Resumption::Exact { pending });
            let all = Wire::new(subscription).all_at_once().await;
            let seen: Vec<_> = messages(&all)
                .into_iter()
                .filter(|message| message.event == "message")
                .map(|message| message.data)
                .collect();
            assert_eq!(seen, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_90_nothing_of_a_channel_that_was_not_subscribed_to() {
    let hub = hub();
    let secret = publish(&hub, "user/1", 1);
    publish(&hub, "user/1", 2);
    let mut wire = Wire::new(hub.subscribe(["user/2"], secret));
    let first = wire.all_at_once().await;
    assert_eq!(data(&first), [""], "a checkpoint alone: {first}");
    publish(&hub, "user/1", 3);
    publish(&hub, "user/2", 4);
    assert_eq!(data(&wire.all_at_once().await), ["4"]);
    // An id of another hub.
    let other = publish(&self::hub(), "user/1", 1);
    assert!(matches!(
        hub.subscribe(["user/1"], other).resumption(),
        Resumption::Gap {
            reason: GapReason::Restarted,
            missed: None,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn rule_86_each_channel_says_its_own_gap() {
    let hub = hub();
    let start = hub.newest();
    let a: Vec<_> = (0..6).map(|n| publish(&hub, "a", n)).collect();
    publish(&hub, "b", 10);
    let all = Wire::new(hub.subscribe(["a", "b"], start))
        .all_at_once()
        .await;
    let gap = format!(
        "event: gap\ndata: {{\"reason\":\"evicted\",\"missed\":2,\"oldest\":\"{0}\",\
         \"channels\":{{\"a\":{{\"missed\":2,\"oldest\":\"{0}\"}}}}}}\n\n",
        a[2]
    );
    assert!(
        all.starts_with(&format!("{PRELUDE}{gap}id: {}\n", a[2])),
        "{all}"
    );
    assert_eq!(data(&all)[1..], ["2", "3", "4", "5", "10"]);
}

#[tokio::test(start_paused = true)]
async fn law_7_a_channel_made_anew_does_not_hide_what_was_lost() {
    let hub = builder().max_channels(2).build();
    let first = publish(&hub, "room", 1);
    let last = publish(&hub, "room", 2);
    // Two other channels displace it.
    publish(&hub, "x", 3);
    publish(&hub, "y", 4);
    let subscription = hub.subscribe(["room"], first);
    assert_eq!(
        subscription.resumption(),
        Resumption::Gap {
            reason: GapReason::Unknown,
            missed: None
        }
    );
    // It may be a false gap for a client that has seen everything, but it is never silent.
    assert!(matches!(
        hub.subscribe(["room"], last).resumption(),
        Resumption::Gap { .. }
    ));
    let newest = publish(&hub, "room", 5);
    assert_eq!(
        hub.subscribe(["room"], newest).resumption(),
        Resumption::Exact { pending: 0 }
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_only_idle_channels_give_way() {
    let hub = builder().max_channels(2).build();
    let held: Channel<u32> = hub.channel("held").unwrap();
    let mut reader = Wire::new(hub.subscribe(["read"], LastEventId::Absent));
    reader.chunk().await;
    let error = hub.channel::<u32>("third").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyChannels);
    assert!(error.to_string().contains("\"third\""), "{error}");
    // A subscription cannot fail: its client is told to come back later.
    let mut refused = Wire::new(hub.subscribe(["third"], LastEventId::Absent));
    come_back(&refused.chunk().await.unwrap());
    assert_eq!(refused.chunk().await, None);

    drop(held);
    assert!(hub.channel::<u32>("third").is_ok());
    drop(reader);
    assert!(hub.channel::<u32>("fourth").is_ok());
    assert_eq!(hub.stats().channels, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_channel_is_retired_after_its_time() {
    let hub = builder().retire_after(secs(60)).build();
    publish(&hub, "quiet", 1);
    let kept: Channel<u32> = hub.channel("kept").unwrap();
    advance(secs(59)).await;
    drop(hub.channel::<u32>("other"));
    assert_eq!(hub.stats().channels, 3);
    advance(secs(2)).await;
    drop(hub.channel::<u32>("other"));
    assert_eq!(hub.stats().channels, 2, "quiet is gone, kept is held");
    drop(kept);
}

#[test]
fn a_name_belongs_to_one_type() {
    let hub = hub();
    let _numbers: Channel<u32> = hub.channel("a").unwrap();
    assert_eq!(
        hub.channel::<str>("a").unwrap_err().kind(),
        ErrorKind::OtherType
    );
    // A subscription alone does not fix the type.
    drop(hub.subscribe(["b"], LastEventId::Absent));
    assert!(hub.channel::<str>("b").is_ok());
    let long = "x".repeat(1025);
    assert_eq!(
        hub.channel::<u32>(&long).unwrap_err().kind(),
        ErrorKind::InvalidName
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscription_starts_where_it_is_told() {
    let hub = hub();
    for n in 0..6 {
        publish(&hub, "a", n);
    }
    for (start, expected) in [
        (Start::Newest(5), vec!["2", "3", "4", "5"]),
        (Start::Newest(2), vec!["4", "5"]),
        (Start::Newest(100), vec!["2", "3", "4", "5"]),
        (Start::Live, vec![""]),
        (Start::Snapshot, vec![""]),
    ] {
        let subscription = hub.subscribe(["a", "b"], LastEventId::Absent).start(start);
        assert_eq!(
            data(&Wire::new(subscription).all_at_once().await),
            expected,
            "{start:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn channels_come_into_a_running_subscription_and_go() {
    let hub = hub();
    let mut subscription = hub.subscribe(["a"], LastEventId::Absent);
    let control = subscription.handle();
    let mut wire = Wire::new(subscription);
    wire.all_at_once().await;
    let before = publish(&hub, "b", 1);
    publish(&hub, "b", 2);
    control.add("b").unwrap();
    assert_eq!(
        wire.all_at_once().await,
        "",
        "it starts where the connection stands"
    );
    publish(&hub, "b", 3);
    publish(&hub, "a", 4);
    assert_eq!(data(&wire.all_at_once().await), ["3", "4"]);

    control.remove("a");
    wire.all_at_once().await;
    publish(&hub, "a", 5);
    publish(&hub, "b", 6);
    assert_eq!(data(&wire.all_at_once().await), ["6"]);

    // A client that knows `c` up to an older id is told what it cannot get here.
    publish(&hub, "c", 7);
    control.add_since("c", before).unwrap();
    let said = wire.all_at_once().await;
    assert!(
        said.starts_with(
            "event: gap\ndata: {\"reason\":\"unknown\",\"missed\":1,\"oldest\":null,\"channels\":{\"c\":{\"missed\":1,\"oldest\":null}}}\n\n"
        ),
        "{said}"
    );
    control.remove("c");
    control.add_since("c", hub.newest()).unwrap();
    assert_eq!(wire.all_at_once().await, "");
}

#[tokio::test(start_paused = true)]
async fn close_gives_the_rest_and_the_end() {
    let hub = hub();
    let build: Channel<u32> = hub.channel("build").unwrap();
    let mut live = Wire::new(hub.subscribe(["build"], LastEventId::Absent));
    live.all_at_once().await;
    let first = build.publish(&1).unwrap().id().unwrap();
    let done = Event::empty().with_name(event_name!("done"));
    let last = build.close(Some(&done)).unwrap().unwrap().id().unwrap();
    let bytes = format!("id: {first}\ndata: 1\n\nevent: done\nid: {last}\ndata: \n\n");
    assert_eq!(live.chunk().await.unwrap(), bytes);
    assert_eq!(live.chunk().await, None);

    assert!(build.is_closed());
    assert_eq!(build.publish(&2).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(build.close(None).unwrap_err().kind(), ErrorKind::Closed);

    // A client that missed something gets it, and then the end; one that has everything gets a
    // 204.
    let mut late = Wire::new(hub.subscribe(["build"], first));
    assert!(
        late.all_at_once()
            .await
            .ends_with(&format!("id: {last}\ndata: \n\n"))
    );
    for subscription in [
        hub.subscribe(["build"], last),
        hub.subscribe(["build"], LastEventId::Absent),
        build.subscribe(last),
    ] {
        let response = subscription.into_response();
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "rule 61");
        assert!(response.headers().get("content-type").is_none());
    }
    // A client with an unknown id gets a gap first.
    let foreign = EventId::new(1, 1);
    let response = hub.subscribe(["build"], foreign).into_response();
    assert_eq!(response.status(), StatusCode::OK);
    let all = Wire::new(response).all_at_once().await;
    assert!(all.starts_with(":\nevent: gap\n"), "{all}");
    // One open channel keeps a connection over several channels open.
    let response = hub.subscribe(["build", "open"], last).into_response();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn rule_61_no_204_while_something_is_left() {
    let channel = Channel::<u32>::new();
    // Created before the last event, like in a handler that reads its state afterwards.
    let early = channel.subscribe(LastEventId::Absent);
    channel.publish(&1).unwrap();
    channel.close(None).unwrap();
    let response = early.into_response();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(data(&Wire::new(response).all_at_once().await), ["", "1"]);

    let hub = hub();
    hub.channel::<u32>("closed").unwrap().close(None).unwrap();
    let mut subscription = hub.subscribe(["closed"], LastEventId::Absent);
    subscription.handle().add("open").unwrap();
    assert_eq!(subscription.into_response().status(), StatusCode::OK);
}

/// Without it, the client would come back with an id before the gap, and be told of it again.
#[tokio::test(start_paused = true)]
async fn law_4_a_gap_at_the_end_brings_an_id_after_older_events_of_other_channels() {
    let hub = Hub::builder().capacity(2).build();
    let seen = hub.newest();
    publish(&hub, "b", 1);
    (2..=4).for_each(|n| {
        publish(&hub, "a", n);
    });
    let stream = hub.subscribe(["a", "b"], seen).on_gap(OnGap::Live);
    let all = Wire::new(stream).all_at_once().await;
    let names: Vec<_> = messages(&all).into_iter().map(|it| it.event).collect();
    assert_eq!(names, ["gap", "message", "checkpoint"], "{all}");
    assert_eq!(messages(&all)[2].last_event_id, hub.newest().to_string());
}

/// The id that it got first is partial, and nothing is owed any more.
#[tokio::test(start_paused = true)]
async fn law_4_a_channel_that_leaves_before_its_snapshot_leaves_a_whole_id() {
    let hub = hub();
    let slow: Channel<u32> = hub.channel("slow").unwrap();
    slow.snapshot(std::future::pending::<Result<(EventId, u32), BoxError>>)
        .unwrap();
    let mut stream = hub.subscribe(["slow", "b"], LastEventId::Absent);
    let handle = stream.handle();
    let mut wire = Wire::new(stream);
    let partial = messages(&wire.all_at_once().await).pop().unwrap();
    assert!(partial.last_event_id.ends_with('.'), "{partial:?}");
    handle.remove("slow");
    let whole = messages(&wire.all_at_once().await).pop().unwrap();
    assert_eq!(whole.event, "checkpoint");
    assert_eq!(whole.last_event_id, hub.newest().to_string());
}

#[tokio::test(start_paused = true)]
async fn rule_93_a_closed_channel_without_checkpoints_still_tells_what_is_gone() {
    let channel: Channel<u32> = Channel::builder().capacity(0).checkpoint_name(None).build();
    channel.publish(&1).unwrap();
    channel.close(None).unwrap();
    let stream = channel.subscribe(LastEventId::Absent).start(Start::Oldest);
    let all = Wire::new(stream).all_at_once().await;
    assert_eq!(messages(&all)[0].event, "gap", "{all}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_keeps_its_rest_for_those_who_come_back() {
    let hub = hub();
    let _sweeping = {
        let mut wire = Wire::new(hub.subscribe(["other"], LastEventId::Absent));
        wire.all_at_once().await;
        wire
    };
    let first = publish(&hub, "build", 1);
    let done = Event::empty().with_name(event_name!("done"));
    hub.channel::<u32>("build")
        .unwrap()
        .close(Some(&done))
        .unwrap();
    sleep(secs(60)).await;
    let all = Wire::new(hub.subscribe(["build"], first))
        .all_at_once()
        .await;
    assert!(
        all.contains("event: done\n") && !all.contains("gap"),
        "{all}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_control_keeps_nothing_for_a_stream_that_is_over() {
    let hub = builder().max_channels(2).build();
    let mut subscription = hub.subscribe(["a"], LastEventId::Absent);
    let control = subscription.handle();
    assert!(!control.is_ended());
    let waiting = tokio::spawn({
        let control = control.clone();
        async move { control.ended().await }
    });
    tokio::task::yield_now().await;
    drop(subscription);
    timeout(secs(1), waiting).await.unwrap().unwrap();
    control.ended().await;
    assert!(control.is_ended());
    assert_eq!(control.add("b").unwrap_err().kind(), ErrorKind::Closed);
    control.remove("a");
    assert!(hub.channel::<u32>("c").is_ok() && hub.channel::<u32>("d").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_control_knows_the_end_whatever_it_is() {
    let hub = builder().max_channels(1).build();
    let _only = hub.channel::<u32>("only").unwrap();
    let mut refused = hub.subscribe(["other"], LastEventId::Absent);
    let control = refused.handle();
    Wire::new(refused).all_at_once().await;
    assert!(control.is_ended());

    let mut closed = hub.subscribe(["only"], LastEventId::Absent);
    let control = closed.handle();
    let mut wire = Wire::new(closed);
    wire.all_at_once().await;
    assert!(!control.is_ended());
    hub.channel::<u32>("only").unwrap().close(None).unwrap();
    wire.all_at_once().await;
    assert!(control.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_control_adds_no_more_than_a_subscription_may_have() {
    let hub = Hub::builder().max_channels_per_subscription(3).build();
    let mut subscription = hub.subscribe(["a"], LastEventId::Absent);
    let control = subscription.handle();
    let mut wire = Wire::new(subscription);
    wire.all_at_once().await;
    control.add("b").unwrap();
    control.add("c").unwrap();
    control.add("a").unwrap();
    for _ in 0..2 {
        let error = control.add("d").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooManyChannels);
        assert!(error.to_string().contains("\"d\""), "{error}");
        wire.all_at_once().await;
    }
    control.remove("b");
    control.add("d").unwrap();
    wire.all_at_once().await;
    publish(&hub, "b", 1);
    publish(&hub, "d", 2);
    assert_eq!(data(&wire.all_at_once().await), ["2"]);
}

/// The page only needs to reload once, so there is one event.
#[tokio::test(start_paused = true)]
async fn rule_86_channels_that_miss_something_for_one_reason_share_a_gap() {
    let hub = hub();
    let b = publish(&hub, "b", 1);
    let a = publish(&hub, "a", 2);
    let names = ["a", "b", "c", "d"];
    let foreign = EventId::new(1, 1);
    let all = Wire::new(hub.subscribe(names, foreign)).all_at_once().await;
    let gaps: Vec<serde_json::Value> = data(&all)
        .iter()
        .filter(|data| data.contains("reason"))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let part = |oldest: Option<String>| json!({"missed": null, "oldest": oldest});
    assert_eq!(
        gaps,
        [json!({
            "reason": "restarted",
            "missed": null,
            "oldest": b.to_string(),
            "channels": {
                "a": part(Some(a.to_string())), "b": part(Some(b.to_string())),
                "c": part(None), "d": part(None),
            },
        })]
    );
    // Known numbers are added up.
    for n in 0..6 {
        publish(&hub, "a", n);
        publish(&hub, "b", n);
    }
    let all = Wire::new(hub.subscribe(["a", "b", "c"], b))
        .all_at_once()
        .await;
    let gap: serde_json::Value = serde_json::from_str(&data(&all)[0]).unwrap();
    let parts = gap["channels"].as_object().unwrap();
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["a", "b"]);
    let missed = parts.values().map(|part| part["missed"].as_u64());
    assert_eq!(gap["missed"].as_u64(), missed.sum::<Option<u64>>());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_events_on_two_of_many_channels_are_few_chunks() {
    let hub = Hub::builder()
        .capacity(10_000)
        .max_channels_per_subscription(1000)
        .build();
    let start = hub.newest();
    let names: Vec<_> = (0..1000).map(|n| format!("channel {n}")).collect();
    let channels = ["channel 3", "channel 700"].map(|name| hub.channel::<str>(name).unwrap());
    let text = "x".repeat(100);
    for n in 0..10_000 {
        channels[n % 2].publish(&text).unwrap();
    }
    let mut wire = Wire::new(hub.subscribe(&names, start));
    let (mut chunks, mut events) = (0, 0);
    while events < 10_000 {
        events += messages(&wire.chunk().await.unwrap()).len();
        chunks += 1;
    }
    assert_eq!(events, 10_000);
    assert!(chunks <= 120, "{chunks}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_last_event_leaves_the_channel_open() {
    let channel = Channel::<u32>::new();
    let own_id = Event::empty().id("1").unwrap();
    assert_eq!(
        channel.close(Some(&own_id)).unwrap_err().kind(),
        ErrorKind::NotPublishable
    );
    assert!(channel.publish(&1).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_stays_known_and_then_its_name_is_free() {
    let hub = builder().retire_after(secs(10)).retry(secs(30)).build();
    let id = publish(&hub, "build", 1);
    hub.channel::<u32>("build").unwrap().close(None).unwrap();
    // Requests in the meantime do not extend its time.
    for _ in 0..59 {
        advance(secs(5)).await;
        assert_eq!(
            hub.subscribe(["build"], id).into_response().status(),
            StatusCode::NO_CONTENT,
            "ten times retry"
        );
        let error = hub.channel::<u32>("build").unwrap().publish(&2);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Closed);
    }
    let held = hub.channel::<u32>("build").unwrap();
    advance(secs(6)).await;
    assert!(hub.channel::<u32>("build").unwrap().is_closed(), "held");
    drop(held);
    // Its name is free again, even for another type.
    hub.channel::<str>("build").unwrap().publish("2").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_without_requests_is_retired() {
    let hub = builder().retire_after(secs(10)).retry(secs(30)).build();
    publish(&hub, "build", 1);
    hub.channel::<u32>("build").unwrap().close(None).unwrap();
    let mut wire = Wire::new(hub.subscribe(["other"], LastEventId::Absent));
    wire.all_at_once().await;
    sleep(secs(290)).await;
    assert_eq!(hub.stats().channels, 2);
    sleep(secs(20)).await;
    assert_eq!(hub.stats().channels, 1);
}

#[tokio::test(start_paused = true)]
async fn a_channel_with_a_snapshot_is_not_retired() {
    let hub = builder().max_channels(2).retire_after(secs(60)).build();
    let prices: Channel<u32> = hub.channel("prices").unwrap();
    let newest = prices.newest();
    prices
        .snapshot(move || async move { Ok::<_, BoxError>((newest, 7)) })
        .unwrap();
    drop(prices);
    // It is retired neither after a time nor to make room.
    advance(secs(3600)).await;
    for n in 0..5 {
        drop(hub.channel::<u32>(format!("other/{n}")).unwrap());
    }
    let held = hub.channel::<u32>("held").unwrap();
    let full = hub.channel::<u32>("one too many").unwrap_err();
    assert_eq!(full.kind(), ErrorKind::TooManyChannels);
    drop(held);
    let mut wire = Wire::new(hub.subscribe(["prices"], LastEventId::Absent));
    assert_eq!(data(&wire.all_at_once().await), ["7"]);
    drop(wire);

    // Once closed, it is retired like any other channel.
    let prices: Channel<u32> = hub.channel("prices").unwrap();
    prices.close(None).unwrap();
    drop(prices);
    advance(secs(61)).await;
    assert!(hub.channel::<u32>("prices").unwrap().publish(&1).is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_subscription_has_a_bound() {
    let hub = builder().max_channels_per_subscription(3).build();
    let twice = ["a", "b", "c", "a", "b", "c"];
    let mut wire = Wire::new(hub.subscribe(twice, LastEventId::Absent));
    assert_eq!(data(&wire.all_at_once().await), [""]);
    assert_eq!((hub.stats().channels, hub.stats().refused), (3, 0));

    // An infinite iterator of names.
    let subscription = hub.subscribe((0..).map(|n| format!("x/{n}")), LastEventId::Absent);
    assert_eq!((hub.stats().channels, hub.stats().refused), (3, 1));
    let mut wire = Wire::new(subscription);
    come_back(&wire.all_at_once().await);
    assert_eq!(wire.chunk().await, None);
    assert_eq!((hub.stats().channels, hub.stats().refused), (3, 1));

    let hub = Hub::new();
    let names = |n: u32| (0..n).map(|n| format!("x/{n}"));
    drop(hub.subscribe(names(256), LastEventId::Absent));
    assert_eq!((hub.stats().channels, hub.stats().refused), (256, 0));
    drop(hub.subscribe(names(257), LastEventId::Absent));
    assert_eq!((hub.stats().channels, hub.stats().refused), (256, 1));
}

#[derive(serde::Serialize)]
enum Chat {
    Said(&'static str),
}

#[tokio::test(start_paused = true)]
async fn handles_agree_on_names() {
    let hub = hub();
    // A channel that only has subscribers is not decided yet.
    let mut wire = Wire::new(hub.subscribe(["room"], LastEventId::Absent));
    wire.all_at_once().await;
    let room = hub.named_channel::<Chat>("room").unwrap();
    let error = hub.channel::<Chat>("room").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OtherType);
    assert_eq!(
        error.to_string(),
        r#"channel "room" names its events after their variants: get it with `named_channel`"#
    );
    room.publish(&Chat::Said("hi")).unwrap();
    assert!(wire.all_at_once().await.starts_with("event: Said\n"));

    drop(hub.channel::<Chat>("plain").unwrap());
    let error = hub.named_channel::<Chat>("plain").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"channel "plain" does not name its events after their variants: get it with `channel`"#
    );
    let error = hub.named_channel::<u32>("plain").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"channel "plain" publishes values of another type"#
    );

    let hub = builder().named().build();
    let room = hub.channel::<Chat>("room").unwrap();
    hub.named_channel::<Chat>("room").unwrap();
    let mut wire = Wire::new(hub.subscribe(["room"], LastEventId::Absent));
    wire.all_at_once().await;
    room.publish(&Chat::Said("hi")).unwrap();
    assert!(wire.all_at_once().await.starts_with("event: Said\n"));
}

#[tokio::test(start_paused = true)]
async fn close_on_drop_closes_the_channels_of_a_hub() {
    let hub = builder().close_on_drop().retire_after(secs(60)).build();
    let mut wire = Wire::new(hub.subscribe(["build"], LastEventId::Absent));
    wire.all_at_once().await;
    // Nothing has been published yet.
    wire.silent_for(secs(10)).await;
    publish(&hub, "build", 1);
    assert_eq!(data(&wire.at_once().await.unwrap()), ["1"]);
    assert_eq!(wire.at_once().await, None);
    drop(wire);
    assert!(hub.channel::<u32>("build").unwrap().is_closed());
    advance(secs(61)).await;
    assert!(!hub.channel::<u32>("build").unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn rule_70_a_slow_client_is_told_or_sent_away() {
    for on_lag in [OnLag::Gap, OnLag::End] {
        let channel = Channel::<String>::builder().capacity(2).bytes(4000).build();
        let mut wire = Wire::new(channel.subscribe(LastEventId::Absent).on_lag(on_lag));
        wire.all_at_once().await;
        let ids: Vec<_> = (0..10)
            .map(|_| channel.publish(&"x".repeat(900)).unwrap().id().unwrap())
            .collect();
        match on_lag {
            OnLag::End => {
                come_back(&wire.chunk().await.unwrap());
                assert_eq!(wire.chunk().await, None);
            }
            _ => {
                let said = wire.all_at_once().await;
                let gap = format!(
                    "event: gap\ndata: {{\"reason\":\"lagged\",\"missed\":6,\"oldest\":\"{}\"}}\n\nid",
                    ids[6]
                );
                assert!(said.starts_with(&gap), "{said}");
                assert_eq!(messages(&said).len(), 5);
                assert_eq!(channel.stats().gaps.lagged, 1);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn law_6_age_bounds_what_a_client_can_catch_up_on() {
    let channel = Channel::<u32>::builder().age(secs(60)).build();
    let first = channel.publish(&1).unwrap().id().unwrap();
    advance(secs(50)).await;
    let second = channel.publish(&2).unwrap().id().unwrap();
    advance(secs(20)).await;
    assert_eq!(
        channel.subscribe(first).resumption(),
        Resumption::Exact { pending: 1 }
    );
    let start = EventId::new(first.epoch(), 0);
    assert_eq!(
        channel.subscribe(start).resumption(),
        Resumption::Gap {
            reason: GapReason::Evicted,
            missed: Some(1)
        }
    );
    advance(secs(50)).await;
    assert!(matches!(
        channel.subscribe(first).resumption(),
        Resumption::Gap { .. }
    ));
    assert_eq!(
        channel.subscribe(second).resumption(),
        Resumption::Exact { pending: 0 }
    );
    assert_eq!(channel.stats().events, 0);
}

#[tokio::test(start_paused = true)]
async fn the_sweep_forgets_without_anybody_asking() {
    let hub = Hub::builder().age(secs(60)).build();
    publish(&hub, "a", 1);
    let mut wire = Wire::new(hub.subscribe(["b"], LastEventId::Absent));
    wire.all_at_once().await;
    assert_eq!(hub.stats().events, 1);
    sleep(secs(70)).await;
    assert_eq!(hub.stats().events, 0);
}

#[tokio::test(start_paused = true)]
async fn coalesce_holds_writes_apart_but_not_the_first() {
    let channel = Channel::<u32>::builder()
        .coalesce(millis(50))
        .heartbeat(Heartbeat::OFF)
        .build();
    let mut wire = Wire::new(channel.subscribe(LastEventId::Absent));
    wire.all_at_once().await;
    sleep(secs(1)).await;
    channel.publish(&0).unwrap();
    let (first, time) = wire.timed().await;
    assert_eq!(
        (data(&first.unwrap()), time),
        (vec!["0".to_owned()], Duration::ZERO)
    );
    let reader = tokio::spawn(async move { wire.timed().await });
    for n in 1..=3 {
        sleep(millis(10)).await;
        channel.publish(&n).unwrap();
    }
    let (rest, time) = reader.await.unwrap();
    assert_eq!(data(&rest.unwrap()), ["1", "2", "3"]);
    assert!(time >= millis(50) && time <= millis(52), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn figures_say_what_happened() {
    let hub = hub();
    let start = hub.newest();
    for n in 0..6 {
        publish(&hub, "a", n);
    }
    let newest = hub.newest();
    let mut fresh = Wire::new(hub.subscribe(["a", "b"], LastEventId::Absent));
    let mut exact = Wire::new(hub.subscribe(["a"], newest));
    let mut gap = Wire::new(hub.subscribe(["a"], start));
    let mut foreign = Wire::new(hub.subscribe(["a"], EventId::new(1, 1)));
    for wire in [&mut fresh, &mut exact, &mut gap, &mut foreign] {
        wire.all_at_once().await;
    }
    publish(&hub, "b", 7);
    fresh.all_at_once().await;
    let stats = hub.stats();
    assert_eq!((stats.channels, stats.subscribers), (2, 4));
    assert_eq!((stats.published, stats.events), (7, 5));
    assert_eq!(stats.delivered, 4 + 4 + 1);
    assert_eq!((stats.fresh, stats.resumed), (1, 1));
    assert_eq!((stats.gaps.evicted, stats.gaps.restarted), (1, 1));
    let channel = hub.channel::<u32>("a").unwrap().stats();
    assert_eq!((channel.published, channel.subscribers), (6, 4));
    drop((fresh, exact, gap, foreign));
    assert_eq!(hub.stats().subscribers, 0);
}
