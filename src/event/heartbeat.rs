//! [`Heartbeat`]: what is sent on a silent connection, and how often.
//!
//! `channel/heartbeats.rs` decides when one is due on a channel's connections, `sse/body.rs` when one is
//! due on those of an [`Sse`](crate::Sse).

use std::time::Duration;

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind},
    event::{Event, encode, variant},
};

/// What is sent on a connection that has been silent for a while. It keeps proxies from closing the
/// connection, and reveals that a client is gone.
///
/// The default is one comment line every 15 seconds, as the [HTML standard][notes] suggests.
/// Clients skip comments. Keep the interval under 18 seconds: several proxies and CDNs close a
/// connection after 30 silent seconds, and a heartbeat can be late (see
/// [`every`](Heartbeat::every)).
///
/// [notes]: https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes
///
/// ```
/// use axum_sse::Heartbeat;
/// use std::time::Duration;
///
/// let heartbeat = Heartbeat::every(Duration::from_secs(10));
/// assert_eq!(heartbeat.interval(), Some(Duration::from_secs(10)));
/// assert_eq!(Heartbeat::every(Duration::ZERO).interval(), Some(Heartbeat::MIN));
/// assert_eq!(Heartbeat::OFF.interval(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    interval: Option<Duration>,
    bytes: Bytes,
    /// The name of the event that replaces the comment.
    name: Option<Box<str>>,
}

impl Heartbeat {
    /// No heartbeat: for tests, or where another layer sends one.
    pub const OFF: Self = Self {
        interval: None,
        bytes: encode::HEARTBEAT,
        name: None,
    };

    /// The shortest interval: 100 ms.
    pub const MIN: Duration = Duration::from_millis(100);

    /// The longest interval: 1 hour.
    pub const MAX: Duration = Duration::from_secs(3600);

    /// Sends a heartbeat whenever a connection has been silent for `interval`, which is clamped to
    /// [`Heartbeat::MIN`] to [`Heartbeat::MAX`].
    ///
    /// A heartbeat is never early. On connections to a channel or hub, it can be late by a
    /// sixteenth of the interval. If one event went to more than a thousand connections of a hub,
    /// their next heartbeats are spread over another nine sixteenths.
    // Rules 41 and 43.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            interval: Some(interval.clamp(Self::MIN, Self::MAX)),
            ..Self::OFF
        }
    }

    /// Sends `event` instead of the comment, for pages that monitor their connection. The event
    /// needs a name, to stay out of `onmessage`, and must not have an id, which would replace the
    /// client's last event id.
    ///
    /// ```
    /// use axum_sse::{Event, Heartbeat, event_name};
    ///
    /// let beat = Event::empty().with_name(event_name!("alive"));
    /// let heartbeat = Heartbeat::default().with_event(&beat)?;
    /// # let _ = heartbeat;
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if the event has no name, or one that channels or runs use by
    /// default for events that they send themselves: `gap`, `checkpoint`, `snapshot`, `end`.
    /// [`ErrorKind::InvalidId`] if the event has an id.
    // Rule 45.
    pub fn with_event(mut self, event: &Event) -> Result<Self, Error> {
        if matches!(event.name_str(), None | Some("message")) {
            return Err(Error::new(
                ErrorKind::InvalidName,
                "a heartbeat event needs a name other than `message`, or it would reach onmessage",
            ));
        }
        if let Some(name) = event.name_str().filter(|name| variant::is_reserved(name)) {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!("heartbeat event name {name:?} is reserved for channels and runs"),
            ));
        }
        if event.has_id() {
            return Err(Error::new(
                ErrorKind::InvalidId,
                "a heartbeat event must not have an id, which would replace the client's own",
            ));
        }
        self.bytes = event.to_bytes();
        self.name = event.name_str().map(Into::into);
        Ok(self)
    }

    /// The interval, or `None` if heartbeats are off.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Default for Heartbeat {
    /// One comment line every 15 seconds.
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(15)),
            ..Self::OFF
        }
    }
}
