//! Resumable runs: started once, picked up again, never started by a reconnect.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
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

    /// Starts a run whose client goes away at once.
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
    // The browser reconnects behind the end, and is told to stop.
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
    assert_eq!(
        status(model.ask(&runs, LastEventId::Known(id), 1)),
        StatusCode::NO_CONTENT
    );

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
    for last in ["", "garbage", "1a-5", &unknown].map(header) {
        if !last.is_absent() {
            assert_eq!(status(model.ask(&runs, last, 1)), StatusCode::NO_CONTENT);
        }
    }
    // Somebody else's run is as good as none.
    assert_eq!(
        status(model.ask(&runs, LastEventId::Known(id), 2)),
        StatusCode::NO_CONTENT
    );
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
    assert_eq!(wire.chunk().await, None);
    assert_eq!(runs.len(), 1, "it is kept like any other that has ended");
}

#[tokio::test(start_paused = true)]
async fn runs_are_kept_for_a_time_and_bounded_in_number() {
    let runs: Runs<String, u32> = Runs::builder().keep(secs(60)).max_runs(2).build();
    let model = Model::default();
    let first = model.begin(&runs).await;
    let second = model.begin(&runs).await;
    // Both are under way: nothing is started, and the client is to ask again.
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
    let gone = status(model.ask(&runs, LastEventId::Known(first), 1));
    assert_eq!(
        gone,
        StatusCode::NO_CONTENT,
        "the first that ended gave way"
    );
    sleep(secs(31)).await;
    assert_eq!(
        status(model.ask(&runs, LastEventId::Known(second), 1)),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        status(model.ask(&runs, LastEventId::Known(third), 1)),
        StatusCode::OK
    );
    sleep(secs(60)).await;
    assert!(runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_panics_ends_its_run() {
    let runs: Runs<u32> = Runs::new();
    let job = futures_util::stream::iter(0..).map(|n| {
        assert!(n < 2, "broken");
        n
    });
    let mut wire = Wire::new(runs.resume_or_start(LastEventId::Absent, (), move || job));
    let all = wire.all_at_once().await;
    assert_eq!(messages(&all).len(), 3);
    assert_eq!(wire.chunk().await, None);
    assert_eq!(runs.len(), 1);
    sleep(secs(600)).await;
    assert!(runs.is_empty(), "it is kept no longer than any other");
}
