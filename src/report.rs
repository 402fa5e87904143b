//! Figures through the [`metrics`] facade (feature `metrics`).
//!
//! The wake task reports once per heartbeat interval (every 16 seconds if there are no
//! heartbeats), while there are subscribers. Nothing is counted on the way of an event.

use crate::stats::{Gaps, Stats};

/// Reports as `axum_sse_*`, with the label `hub`.
pub(crate) fn report(hub: &str, stats: &Stats) {
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
        lag,
    } = *stats;
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
    ] {
        metrics::counter!(name, "hub" => hub.clone()).absolute(value);
    }
    let Gaps {
        evicted,
        unknown,
        restarted,
        lagged,
    } = gaps;
    for (reason, value) in [
        ("evicted", evicted),
        ("unknown", unknown),
        ("restarted", restarted),
        ("lagged", lagged),
    ] {
        metrics::counter!("axum_sse_gaps_total", "hub" => hub.clone(), "reason" => reason)
            .absolute(value);
    }
}
