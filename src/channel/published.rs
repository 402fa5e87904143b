//! [`Published`]: what a publish returns.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{error::Error, event::EventId};

/// An event that was accepted, and a future of its id.
///
/// The event goes out whether this is awaited or dropped. Await it to learn the event's id:
///
/// ```
/// use axum_sse::Channel;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum_sse::Error> {
/// let orders = Channel::new();
/// orders.publish(&1)?;
/// let id = orders.publish(&2)?.await?;
/// assert_eq!(id, orders.newest());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Published(EventId);

impl Published {
    pub(crate) fn new(id: EventId) -> Self {
        Self(id)
    }

    /// The event's id, if it is known already. Events that are kept in memory have theirs at
    /// once.
    #[must_use]
    pub fn id(&self) -> Option<EventId> {
        Some(self.0)
    }
}

impl Future for Published {
    type Output = Result<EventId, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(self.0))
    }
}
