//! Server-Sent Events for axum.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod board;
mod body;
mod error;
mod event;
mod frame;
mod head;
mod heartbeat;
mod hub;
mod id;
mod last_event_id;
#[cfg(feature = "layer")]
pub mod layer;
#[cfg(feature = "listener")]
pub mod listener;
mod log;
mod named;
mod payload;
mod respond;
mod retry;
mod run;
mod shutdown;
mod snapshot;
mod stats;
mod subscription;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

pub use board::Board;
pub use error::{BoxError, Error, ErrorKind};
pub use event::{Event, EventName, MAX_ID_LEN, MAX_RETRY, MIN_RETRY};
pub use heartbeat::Heartbeat;
pub use hub::{Hub, builder::Builder, channel::Channel};
pub use id::EventId;
pub use last_event_id::{LastEventId, StrictLastEventId, UnknownId, UnknownIdRejection};
#[cfg(feature = "layer")]
pub use layer::SseLayer;
pub use payload::{NotAResult, Payload};
pub use respond::Sse;
pub use run::{RunId, RunResponse, Runs, RunsBuilder};
pub use shutdown::Shutdown;
pub use stats::{Gaps, Stats};
pub use subscription::{Control, GapReason, OnGap, OnLag, Resume, Start, Subscription};
