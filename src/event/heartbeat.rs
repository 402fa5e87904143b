//! [`Heartbeat`]: what a silent connection says, and how often.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind},
    event::{Event, encode, variant},
};

/// Bytes that go out on a connection that has been silent for a while, so that no proxy takes it
/// for dead, and a client that is gone is noticed.
///
/// By default one comment line every 15 seconds, which every client skips. Keep the interval
/// under 18 seconds: several proxies and CDNs cut a connection after 30 silent ones, and in a
/// crowd a heartbeat can be late (rules 40, 41).
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
    /// Of the event that takes the place of the comment.
    name: Option<Box<str>>,
}

impl Heartbeat {
    /// No heartbeat at all: for tests, or where another layer sends one.
    pub const OFF: Self = Self {
        interval: None,
        bytes: encode::HEARTBEAT,
        name: None,
    };

    /// The shortest interval.
    pub const MIN: Duration = Duration::from_millis(100);

    /// The longest interval: an hour.
    pub const MAX: Duration = Duration::from_secs(3600);

    /// A heartbeat after this much silence. It is never early, and on a channel's connections at
    /// most a sixteenth of the interval late. If more than a thousand connections of a hub were
    /// written to at the same moment, their next heartbeats are spread over up to nine sixteenths
    /// more.
    ///
    /// An interval outside [`Heartbeat::MIN`] to [`Heartbeat::MAX`] is clamped.
    // Rule 43.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            interval: Some(interval.clamp(Self::MIN, Self::MAX)),
            ..Self::OFF
        }
    }

    /// Sends an event in place of the comment, for pages that want to see that the connection
    /// lives. The event needs a name of its own, so that it does not reach `onmessage`, and no
    /// id, so that it does not move the `Last-Event-ID` (rule 45).
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
    /// [`ErrorKind::InvalidName`] for an event without a name, or with one that a channel or
    /// a run gives its own events (`gap`, `checkpoint`, `snapshot`, `end`): a page would take the
    /// heartbeat for one of those. [`ErrorKind::InvalidId`] for an event with an id.
    pub fn with_event(mut self, event: &Event) -> Result<Self, Error> {
        if matches!(event.name_str(), None | Some("message")) {
            return Err(Error::new(
                ErrorKind::InvalidName,
                "a heartbeat event needs a name of its own: without, it would reach onmessage",
            ));
        }
        if let Some(name) = event
            .name_str()
            .filter(|name| variant::is_a_channel_s(name))
        {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!(
                    "heartbeat event {name:?}: a channel or a run gives this name to its own events"
                ),
            ));
        }
        if event.has_id() {
            return Err(Error::new(
                ErrorKind::InvalidId,
                "a heartbeat event may not have an id: it would move the Last-Event-ID",
            ));
        }
        self.bytes = event.to_bytes();
        self.name = event.name_str().map(Into::into);
        Ok(self)
    }

    /// The interval, or `None` if there is no heartbeat.
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
    /// One comment line every 15 seconds, as the HTML standard suggests.
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(15)),
            ..Self::OFF
        }
    }
}
