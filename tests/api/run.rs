//! Resumable runs: they start once, can be resumed, and are not started by a client that has an
//! id; and how a client learns of a run's end.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    body::HttpBody,
    http::{HeaderValue, StatusCode},
    response::IntoResponse,
};
use axum_sse::{LastEventId, RunId, RunResponse, Runs};
use futures_util::{Stream, StreamExt};
use headers::Header;
use tokio::time::sleep;
use tokio_stream::wrappers::IntervalStream;

use crate::wire::{Wire, messages, millis, secs};

#[derive(Clone, Default)]
struct Model {
    started: Arc<AtomicU32>,
}

impl Model {
    /// Five tokens, one every 100 ms.
    fn answer(&self) -> impl Stream<Item = String> + Send + 'static + use<> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + millis(100), millis(100));
        IntervalStream::new(ticks)
            .enumerate()
            .map(|(n, _)| format!("token {n}"))
            .take(5)
    }

    fn ask(&self, runs: &Runs<String, u32>, last: LastEventId<RunId>, owner: u32) -> RunResponse {
        let model = self.clone();
        runs.resume_or_start(last, owner, move || model.answer())
    }

    /// Starts a run whose client leaves at once.
    async fn begin(&self, runs: &Runs<String, u32>) -> RunId {
        let run = self.ask(runs, LastEventId::Absent, 1);
        let id = run.id().unwrap();
        Wire::new(run).chunk().await;
        id
    }

    fn starts(&self) -> u32 {
        self.started.load(Ordering::SeqCst)
    }
}

fn header(id: &str) -> LastEventId<RunId> {
    LastEventId::decode(&mut [HeaderValue::from_str(id).unwrap()].iter()).unwrap()
}

fn status(response: RunResponse) -> StatusCode {
    response.into_response().status()
}

/// Everything that is ready, with the token replaced by `T`.
async fn masked(wire: &mut Wire) -> String {
    let text = wire.all_at_once().await;
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("id: ") {
            Some(id) => out.push_str(&format!("id: T{}", &id[22..])),
            None => out.push_str(line),
        }
    }
    out
}

const UNKNOWN: &str =
    ":\nretry: 1000\nevent: end\nid: T-F~~~~~~~~~~\ndata: {\"reason\":\"unknown\"}\n\n";

/// Follows a new run to its end, and checks that the client stops reconnecting there. `items` are
/// the items between the checkpoint and the end; `reason` is that of the `end` event, if there is
/// one.
async fn assert_ends<T, S>(
    runs: &Runs<T>,
    source: impl Fn() -> S + Send + 'static,
    items: &[&str],
    reason: Option<&str>,
) where
    T: serde::Serialize + Send + 'static,
    S: Stream<Item = T> + Send + 'static,
{
    let mut expected = ":\nretry: 1000\nevent: checkpoint\nid: T-0\ndata: \n\n".to_owned();
    for (number, item) in (1..).zip(items) {
        expected.push_str(&format!("id: T-{number}\ndata: {item}\n\n"));
    }
    if let Some(reason) = reason {
        let number = items.len() + 1;
        let end = format!("event: end\nid: T-{number}\ndata: {{\"reason\":\"{reason}\"}}\n\n");
        expected.push_str(&end);
    }
    let response = runs.resume_or_start(LastEventId::Absent, (), source);
    let start = response.id().unwrap();
    let mut wire = Wire::new(response);
    assert_eq!(masked(&mut wire).await, expected);
    assert_eq!(wire.at_once().await, None);

    // Cut off anywhere, a client gets the same end.
    let again = |id: String| runs.resume_or_start(header(&id), (), tokio_stream::pending);
    let token = start.to_string()[..22].to_owned();
    let before = items.len().saturating_sub(1);
    let mut wire = Wire::new(again(format!("{token}-{before}")));
    let rest = masked(&mut wire).await;
    assert_eq!(rest.contains("event: end\n"), reason.is_some(), "{rest}");
    assert_eq!(wire.at_once().await, None);

    let last = items.len() + usize::from(reason.is_some());
    let after = again(format!("{token}-{last}"));
    assert_eq!(status(after), StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_without_its_client_and_is_picked_up() {
    let (runs, model) = (Runs::new(), Model::default());
    let mut first = Wire::new(model.ask(&runs, LastEventId::Absent, 1));
    let checkpoint = first.chunk().await.unwrap();
    let [start] = &messages(&checkpoint)[..] else {
        panic!("{checkpoint}")
    };
    assert_eq!(
        (start.event.as_str(), start.data.as_str()),
        ("checkpoint", "")
    );
    let two = [first.chunk().await.unwrap(), first.chunk().await.unwrap()].concat();
    let seen = messages(&two);
    drop(first);
    sleep(millis(150)).await;
    let mut second = Wire::new(model.ask(&runs, header(&seen[1].last_event_id), 1));
    let mut third = Wire::new(model.ask(&runs, header(&start.last_event_id), 1));
    sleep(secs(1)).await;
    let rest = messages(&second.all_at_once().await);
    assert_eq!(second.chunk().await, None, "it ends");
    let texts = |messages: &[axum_sse::testing::Message]| -> Vec<String> {
        messages
            .iter()
            .map(|message| message.data.clone())
            .collect()
    };
    assert_eq!(texts(&rest), ["\"token 2\"", "\"token 3\"", "\"token 4\""]);
    assert_eq!(messages(&third.all_at_once().await).len(), 5);
    assert_eq!(model.starts(), 1);
    // The browser reconnects after the end, and is told to stop.
    let last = header(&rest[2].last_event_id);
    assert_eq!(status(model.ask(&runs, last, 1)), StatusCode::NO_CONTENT);
    assert_eq!(model.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_an_absent_id_starts_a_run() {
    let (runs, model) = (Runs::new(), Model::default());
    let run = model.ask(&runs, LastEventId::Absent, 1);
    let id = run.id().unwrap();
    // A HEAD request gets no further than this.
    drop(run.into_response());
    assert_eq!((model.starts(), runs.len()), (0, 0));
    let mut wire = Wire::new(model.ask(&runs, LastEventId::Known(id), 1));
    assert_eq!(masked(&mut wire).await, UNKNOWN);

    let run = model.ask(&runs, LastEventId::Absent, 1);
    let id = run.id().unwrap();
    Wire::new(run).chunk().await;
    assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
    assert_eq!(
        id.to_string().split('-').next().unwrap().len(),
        22,
        "128 bits"
    );
    let unknown = format!("{}-3", "0".repeat(22));
    for last in ["garbage", "1a-5", &unknown].map(header) {
        let response = model.ask(&runs, last, 1);
        assert_eq!(response.id(), None);
        assert_eq!(masked(&mut Wire::new(response)).await, UNKNOWN);
    }
    // Another owner's run looks like an unknown one.
    let mut wire = Wire::new(model.ask(&runs, LastEventId::Known(id), 2));
    assert_eq!(masked(&mut wire).await, UNKNOWN);
    assert!(!runs.cancel(id, &2));
    assert_eq!(model.starts(), 1);
    let other = model.ask(&runs, LastEventId::Absent, 1).id().unwrap();
    assert_ne!(other, id);
    // Debug output ends up in logs.
    assert!(!format!("{id:?}").contains(id.to_string().split('-').next().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_run_can_be_cancelled() {
    let (runs, model) = (Runs::new(), Model::default());
    let run = model.ask(&runs, LastEventId::Absent, 1);
    let id = run.id().unwrap();
    let mut wire = Wire::new(run);
    wire.chunk().await;
    wire.chunk().await;
    assert!(runs.cancel(id, &1));
    let end = wire.chunk().await.unwrap();
    let [end] = &messages(&end)[..] else {
        panic!("{end}")
    };
    assert_eq!(
        (end.event.as_str(), end.data.as_str()),
        ("end", r#"{"reason":"cancelled"}"#)
    );
    assert_eq!(wire.chunk().await, None);
    assert_eq!(runs.len(), 1, "it is kept like any other that has ended");
    let last = header(&end.last_event_id);
    assert_eq!(status(model.ask(&runs, last, 1)), StatusCode::NO_CONTENT);
    // Too late: a run does not end twice.
    assert!(runs.cancel(id, &1));
    assert_eq!(
        messages(
            &Wire::new(model.ask(&runs, id.into(), 1))
                .all_at_once()
                .await
        )
        .len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn runs_are_kept_for_a_time_and_bounded_in_number() {
    let runs: Runs<String, u32> = Runs::builder().keep(secs(60)).max_runs(2).build();
    let model = Model::default();
    let first = model.begin(&runs).await;
    let second = model.begin(&runs).await;
    // Both are in progress: nothing is started, and the client must retry later.
    let mut wire = Wire::new(model.ask(&runs, LastEventId::Absent, 1));
    assert!(wire.chunk().await.unwrap().starts_with("retry: "));
    assert_eq!(wire.chunk().await, None);
    assert_eq!(model.starts(), 2);

    sleep(secs(30)).await;
    assert_eq!(
        status(model.ask(&runs, LastEventId::Known(first), 1)),
        StatusCode::OK
    );
    let third = model.begin(&runs).await;
    assert_eq!(runs.len(), 2);
    let mut gone = Wire::new(model.ask(&runs, LastEventId::Known(first), 1));
    assert_eq!(
        masked(&mut gone).await,
        UNKNOWN,
        "the first that ended gave way"
    );
    sleep(secs(31)).await;
    let mut gone = Wire::new(model.ask(&runs, LastEventId::Known(second), 1));
    assert_eq!(masked(&mut gone).await, UNKNOWN);
    assert_eq!(
        status(model.ask(&runs, LastEventId::Known(third), 1)),
        StatusCode::OK
    );
    sleep(secs(60)).await;
    assert!(runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_complete_run_has_no_end_event() {
    let runs = Runs::new();
    assert_ends(&runs, || tokio_stream::iter([0, 1]), &["0", "1"], None).await;
    assert_ends(&runs, tokio_stream::empty::<i32>, &[], None).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_run_as_failed() {
    let runs: Runs<u32> = Runs::new();
    let source = || {
        futures_util::stream::iter(0..).map(|n| {
            assert!(n < 2, "broken");
            n
        })
    };
    assert_ends(&runs, source, &["0", "1"], Some("failed")).await;
    let start = || -> tokio_stream::Empty<u32> { panic!("broken") };
    assert_ends(&runs, start, &[], Some("failed")).await;
    assert_eq!(runs.len(), 2);
    sleep(secs(600)).await;
    assert!(runs.is_empty(), "they are kept no longer than any other");
}

#[test]
fn a_runtime_that_shuts_down_ends_its_runs_as_failed() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let runs: Runs<u32> = Runs::new();
    let response = runs.resume_or_start(LastEventId::Absent, (), tokio_stream::pending);
    let id = response.id().unwrap();
    runtime().block_on(async { drop(Wire::new(response).chunk().await) });
    runtime().block_on(async {
        let mut wire = Wire::new(runs.resume_or_start(id.into(), (), tokio_stream::pending));
        let end = "event: end\nid: T-1\ndata: {\"reason\":\"failed\"}\n\n";
        let text = masked(&mut wire).await;
        assert!(text.ends_with(end), "{text}");
        assert_eq!(wire.at_once().await, None);
    });
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_serialised_ends_its_run_as_failed() {
    struct Item(u32);
    impl serde::Serialize for Item {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                2 => Err(serde::ser::Error::custom("broken")),
                n => serializer.serialize_u32(n),
            }
        }
    }
    let source = || tokio_stream::iter((0..5).map(Item));
    assert_ends(&Runs::new(), source, &["0", "1"], Some("failed")).await;
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_too_large_ends_its_run_as_overflow() {
    for bytes in [0, 1000, 2000] {
        let source = || tokio_stream::iter(["a".to_owned(), "b".repeat(2000), "c".to_owned()]);
        let runs = Runs::builder().bytes(bytes).build();
        assert_ends(&runs, source, &["\"a\""], Some("overflow")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_too_long_has_a_gap_and_is_complete() {
    let runs = Runs::builder().bytes(2000).build();
    let items = || tokio_stream::iter((0..10).map(|n| n.to_string().repeat(500)));
    let response = runs.resume_or_start(LastEventId::Absent, (), items);
    let start = response.id().unwrap();
    drop(Wire::new(response).chunk().await);
    sleep(secs(1)).await;
    let late = runs.resume_or_start(start.into(), (), items);
    let all = messages(&Wire::new(late).all_at_once().await);
    let names: Vec<_> = all.iter().map(|message| message.event.as_str()).collect();
    assert_eq!(names, ["gap", "message", "message", "message"]);
    assert!(all[3].data.contains("999"));
}

/// After a server restart, for an expired run, a displaced run, another owner's run, and an
/// invented id, the answer is the same, and the client stays away.
#[tokio::test(start_paused = true)]
async fn ids_of_runs_that_are_not_here_cannot_be_told_apart() {
    let runs: Runs<String, u32> = Runs::builder().keep(secs(60)).max_runs(2).build();
    let model = Model::default();
    let before_restart = model.begin(&Runs::new()).await;
    let expired = model.begin(&runs).await;
    sleep(secs(61)).await;
    let made_room = model.begin(&runs).await;
    sleep(secs(1)).await;
    model.begin(&runs).await;
    let foreign = model.begin(&runs).await;
    let starts = model.starts();
    for (owner, id) in [
        (1, before_restart.to_string()),
        (1, expired.to_string()),
        (1, made_room.to_string()),
        (2, foreign.to_string()),
        (1, format!("{}-1", "z".repeat(22).replacen('z', "1", 1))),
        (1, "nonsense".to_owned()),
    ] {
        let response = model.ask(&runs, header(&id), owner).into_response();
        assert_eq!(response.status(), StatusCode::OK, "{id}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.body().size_hint().exact(), None, "no length");
        let mut wire = Wire::new(response);
        let text = wire.all_at_once().await;
        assert_eq!(wire.at_once().await, None);
        let end = &messages(&text)[0];
        assert_eq!(
            masked(&mut Wire::new(model.ask(&runs, header(&id), owner))).await,
            UNKNOWN
        );

        let response = model.ask(&runs, header(&end.last_event_id), owner);
        assert_eq!(status(response), StatusCode::NO_CONTENT, "{id}");
        let elsewhere = model.ask(&Runs::new(), header(&end.last_event_id), owner);
        assert_eq!(status(elsewhere), StatusCode::NO_CONTENT, "{id}");
    }
    assert_eq!(model.starts(), starts);
}

#[tokio::test(start_paused = true)]
async fn what_has_been_read_to_its_end_makes_room_first() {
    let runs: Runs<String, u32> = Runs::builder().max_runs(3).build();
    let model = Model::default();
    let unread = model.begin(&runs).await;
    sleep(secs(1)).await;
    let run = model.ask(&runs, LastEventId::Absent, 1);
    let read = run.id().unwrap();
    let mut wire = Wire::new(run);
    while wire.chunk().await.is_some() {}
    // Its client had all of it, though it did not stay until the end.
    let brought_back = model.begin(&runs).await;
    sleep(secs(1)).await;
    let last = format!("{}-5", &brought_back.to_string()[..22]);
    assert_eq!(
        status(model.ask(&runs, header(&last), 1)),
        StatusCode::NO_CONTENT
    );

    let is_here = |id: RunId| runs.cancel(id, &1);
    for (here, gone) in [
        (vec![unread, brought_back], read),
        (vec![unread], brought_back),
    ] {
        model.begin(&runs).await;
        assert!(here.into_iter().all(is_here));
        assert!(!is_here(gone));
    }
}

/// An endless stream of items that the test sends on demand.
fn on_demand(items: tokio::sync::mpsc::Receiver<String>) -> impl Stream<Item = String> + Send {
    tokio_stream::wrappers::ReceiverStream::new(items)
}

#[tokio::test(start_paused = true)]
async fn all_runs_together_are_bounded_in_bytes() {
    let runs: Runs<String> = Runs::builder().total_bytes(5000).build();
    let begin = async |items: Vec<String>| {
        let (send, receive) = tokio::sync::mpsc::channel(10);
        let response = runs.resume_or_start(LastEventId::Absent, (), move || on_demand(receive));
        let id = response.id().unwrap();
        let started = Wire::new(response)
            .chunk()
            .await
            .unwrap()
            .contains("checkpoint");
        for item in items {
            let _ = send.send(item).await;
        }
        sleep(millis(10)).await;
        started.then_some((id, send))
    };
    let kilobyte = || "x".repeat(1000);
    let (first, send) = begin(vec![kilobyte(), kilobyte()]).await.unwrap();
    drop(send);
    let (second, send) = begin(vec![kilobyte()]).await.unwrap();
    drop(send);
    let (third, growing) = begin(vec![kilobyte()]).await.unwrap();
    assert_eq!(runs.len(), 3);
    // A growing run displaces the run that ended first.
    growing.send(kilobyte()).await.unwrap();
    sleep(millis(10)).await;
    assert_eq!(runs.len(), 2);
    assert!(!runs.cancel(first, &()));
    // It is not stopped when it exceeds the limit, but nothing new is started.
    for _ in 0..4 {
        growing.send(kilobyte()).await.unwrap();
    }
    sleep(millis(10)).await;
    assert_eq!(runs.len(), 1);
    assert!(!runs.cancel(second, &()));
    assert!(begin(vec![]).await.is_none());
    // Once it has ended, it can be displaced too.
    drop(growing);
    sleep(millis(10)).await;
    assert_eq!(runs.len(), 1);
    assert!(begin(vec![]).await.is_some());
    assert!(!runs.cancel(third, &()));
    assert_eq!(runs.len(), 1);
}

/// An `EventSource` that loses its connection before it has an id starts a run each time; a POST
/// that returns the id starts one.
#[tokio::test(start_paused = true)]
async fn a_post_starts_one_run_however_often_its_stream_is_cut() {
    let (runs, model) = (Runs::new(), Model::default());
    for _ in 0..3 {
        // Polled, but the response is lost.
        model.begin(&runs).await;
    }
    assert_eq!(model.starts(), 3);

    let id = model.begin(&runs).await;
    for _ in 0..3 {
        Wire::new(model.ask(&runs, id.into(), 1)).chunk().await;
    }
    assert_eq!(model.starts(), 4);
}
