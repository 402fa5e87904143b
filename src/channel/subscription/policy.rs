//! What a handler can choose, and what it is told: [`Start`], [`OnGap`], [`OnLag`], [`Resumption`].

use crate::channel::gap::GapReason;

/// Where a client begins that brings no id.
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
    /// With the channel's snapshot if it has one, and then live.
    #[default]
    Snapshot,
    /// With what is published from now on. This hides no history: a client that sends an id, even
    /// one that it was never given, gets what is retained after that id. Where that is not for
    /// everybody, bound it with `Subscription::not_before`.
    Live,
    /// With the oldest event that is retained. If older ones are gone, a gap event (`truncated`)
    /// comes first, and all that is retained follows, whatever [`OnGap`] says.
    Oldest,
    /// With the newest *n* events that are retained (of each channel).
    Newest(u64),
}

/// What follows a gap.
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
    /// The gap event, then the channel's snapshot if it has one, or else what is retained.
    #[default]
    Snapshot,
    /// The gap event, and then everything that is retained.
    Replay,
    /// The gap event, and then what is published from now on. (A client that was too slow goes
    /// on with what is retained.)
    Live,
}

/// What happens to a client that reads so slowly that the log has moved on without it.
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
    /// A gap event (`lagged`, with the number of events missed), and then as [`OnGap`] says. A
    /// client that is too slow even for its snapshots, twice in a row, is sent away as with
    /// [`End`](OnLag::End). Waiting for a snapshot is not being slow.
    #[default]
    Gap,
    /// The stream ends; the client reconnects after a while, with its last id.
    End,
}

/// How a resume stands, as of the call that made the [`Subscription`](super::Subscription).
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
    /// The client brought no id.
    Fresh,
    /// The client's id was found: it misses nothing.
    Exact {
        /// Events between the client's id and the newest one.
        pending: u64,
    },
    /// Something between the client's id and the oldest retained event is gone.
    Gap {
        /// Why.
        reason: GapReason,
        /// How many events, where that is known.
        missed: Option<u64>,
    },
}
