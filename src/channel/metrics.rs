//! Reports statistics through the [`metrics`] facade (feature `metrics`).
//!
//! The wake task reports once per heartbeat interval (every 16 seconds without heartbeats) while
//! there are subscribers, and when the last one has left. Delivering an event does not touch the
//! facade.

use crate::channel::stats::{GapCounts, Stats};

/// Reports metrics named `axum_sse_*`, with the label `hub`.
///
/// Does nothing for hubs without a name: there can be thousands, and they would overwrite each
/// other's metrics.
pub(crate) fn report(hub: &str, stats: impl FnOnce() -> Stats) {
    if hub.is_empty() {
        return;
    }
    let Stats {
        channels,
        subscribers,
        events,
        bytes,
        published,
        delivered,
        fresh,
        resumed,
        gaps,
        refused,
        snapshots_failed,
        sent_away,
        lag,
    } = stats();
    let hub = hub.to_owned();
    for (name, value) in [
        ("axum_sse_channels", channels as f64),
        ("axum_sse_subscribers", subscribers as f64),
        ("axum_sse_retained_events", events as f64),
        ("axum_sse_retained_bytes", bytes as f64),
        ("axum_sse_lag_events", lag as f64),
    ] {
        metrics::gauge!(name, "hub" => hub.clone()).set(value);
    }
    for (name, value) in [
        ("axum_sse_published_total", published),
        ("axum_sse_delivered_total", delivered),
        ("axum_sse_fresh_total", fresh),
        ("axum_sse_resumed_total", resumed),
        ("axum_sse_refused_total", refused),
        ("axum_sse_snapshots_failed_total", snapshots_failed),
        ("axum_sse_sent_away_total", sent_away),
    ] {
        metrics::counter!(name, "hub" => hub.clone()).absolute(value);
    }
    let GapCounts {
        evicted,
        unknown,
        restarted,
        lagged,
        truncated,
    } = gaps;
    for (reason, value) in [
        ("evicted", evicted),
        ("unknown", unknown),
        ("restarted", restarted),
        ("lagged", lagged),
        ("truncated", truncated),
    ] {
        metrics::counter!("axum_sse_gaps_total", "hub" => hub.clone(), "reason" => reason)
            .absolute(value);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder,
        SharedString, Unit,
    };

    type Values = Arc<Mutex<BTreeMap<String, f64>>>;

    #[derive(Default)]
    struct Recorded(Values);

    struct Value(String, Values);

    impl CounterFn for Value {
        fn increment(&self, _: u64) {
            panic!("metrics are absolute");
        }

        fn absolute(&self, value: u64) {
            self.set(value as f64);
        }
    }

    impl GaugeFn for Value {
        fn increment(&self, _: f64) {
            panic!("metrics are absolute");
        }

        fn decrement(&self, _: f64) {
            panic!("metrics are absolute");
        }

        fn set(&self, value: f64) {
            self.1.lock().unwrap().insert(self.0.clone(), value);
        }
    }

    impl Recorded {
        fn value(&self, key: &Key) -> Arc<Value> {
            let labels = key
                .labels()
                .map(|label| format!(" {}={}", label.key(), label.value()));
            let name = key.name().to_owned() + &labels.collect::<String>();
            Arc::new(Value(name, self.0.clone()))
        }
    }

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.value(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.value(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wake_task_reports_every_figure() {
        let recorded = Recorded::default();
        let values = recorded.0.clone();
        let _here = metrics::set_default_local_recorder(&recorded);
        let channel = crate::Channel::<u32>::builder()
            .name("prices")
            .capacity(2)
            .build();
        for n in 0..5 {
            channel.publish(&n).unwrap();
        }
        let start = crate::EventId::new(channel.newest().epoch(), 0);
        let mut reader = crate::testing::Reader::new(channel.subscribe(start));
        for _ in 0..3 {
            reader.next().await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        let reported = values.lock().unwrap().clone();
        for (name, expected) in [
            ("channels", 1.0),
            ("subscribers", 1.0),
            ("retained_events", 2.0),
            ("published_total", 5.0),
            ("delivered_total", 2.0),
            ("resumed_total", 0.0),
        ] {
            assert_eq!(
                reported[&format!("axum_sse_{name} hub=prices")],
                expected,
                "{name}"
            );
        }
        assert_eq!(
            reported["axum_sse_gaps_total hub=prices reason=evicted"],
            1.0
        );
        assert_eq!(reported.len(), 17);

        drop(reader);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(
            values.lock().unwrap()["axum_sse_subscribers hub=prices"],
            0.0
        );
    }
}
