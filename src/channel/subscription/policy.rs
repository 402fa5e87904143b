//! The choices of a handler, [`Start`], [`OnGap`] and [`OnLag`], and what it can know:
//! [`Resumption`]. They are applied in `seek.rs`, `lag.rs` and `snapshots.rs`.

use crate::channel::gap::GapReason;

/// Where a client without an id starts.
///
/// ```
/// # use axum_sse::{Channel, LastEventId, Start, testing::Reader};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
/// let channel = Channel::new();
/// for n in 1..=3 {
///     channel.publish(&n)?;
/// }
/// let stream = channel.subscribe(LastEventId::Absent).start(Start::Newest(1));
/// let mut page = Reader::new(stream);
/// assert_eq!(page.next_message().await.data, "3");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the channel's snapshot if it has one, and otherwise as with [`Live`](Start::Live).
    #[default]
    Snapshot,
    /// With the events that are published from now on.
    ///
    /// This does not hide older events: a client that sends an id, even a made-up one, receives
    /// what is retained after that id. To hide them, use
    /// [`Subscription::not_before`](super::Subscription::not_before).
    Live,
    /// With the oldest retained event. If older events have been evicted, a gap event (`truncated`)
    /// comes first; all retained events follow it, whatever [`OnGap`] is set.
    Oldest,
    /// With the newest *n* retained events of each channel.
    Newest(u64),
}

/// What follows a gap event.
///
/// ```
/// # use axum_sse::{Channel, OnGap, testing::Reader};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
/// let channel = Channel::builder().capacity(1).build();
/// channel.publish(&1)?;
/// let seen = channel.newest();
/// channel.publish(&2)?;
/// channel.publish(&3)?;
/// let mut page = Reader::new(channel.subscribe(seen).on_gap(OnGap::Live));
/// page.expect_named("gap").await;
/// page.expect_named("checkpoint").await; // And not 3, which is retained.
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnGap {
    /// The channel's snapshot if it has one, otherwise all retained events.
    #[default]
    Snapshot,
    /// All retained events.
    Replay,
    /// The events that are published from now on. A client that was too slow continues with what is
    /// retained.
    Live,
}

/// What happens to a client that reads so slowly that events are evicted before it has read them.
///
/// ```
/// use axum_sse::{Channel, LastEventId, OnLag};
///
/// let channel = Channel::<str>::new();
/// let stream = channel.subscribe(LastEventId::Absent).on_lag(OnLag::End);
/// # let _ = stream;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnLag {
    /// It gets a gap event (`lagged`, with the number of missed events), and then what [`OnGap`]
    /// selects. If it is too slow twice in a row even for snapshots, its stream ends, as with
    /// [`End`](OnLag::End). Waiting for a snapshot does not count as slow.
    #[default]
    Gap,
    /// Its stream ends. The client reconnects after a few seconds, with its last id.
    End,
}

/// How a client resumes, as known when its [`Subscription`](super::Subscription) was created.
///
/// ```
/// use axum_sse::{Channel, Resumption};
///
/// let channel = Channel::new();
/// channel.publish(&1)?;
/// let seen = channel.newest();
/// channel.publish(&2)?;
/// assert_eq!(channel.subscribe(seen).resumption(), Resumption::Exact { pending: 1 });
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumption {
    /// The client has no id.
    Fresh,
    /// The client's id was found: it will miss nothing.
    Exact {
        /// How many events follow the client's id.
        pending: u64,
    },
    /// Events between the client's id and the oldest retained event are missing, or the id is not
    /// known.
    Gap {
        /// Why they are missing.
        reason: GapReason,
        /// How many events are missing, if that is known.
        missed: Option<u64>,
    },
}
