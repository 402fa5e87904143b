//! [`Published`]: what a publish returns.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{error::Error, event::EventId};

/// The result of a successful publish, and a future that resolves to the event's id.
///
/// The event is sent whether this is awaited or dropped. Await it if you need the id:
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

    /// The event's id, if it is already known. For events that are kept in memory, it always is.
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
