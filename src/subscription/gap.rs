//! What a client is told when something is missing: [`GapReason`], and the gap event.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::{event::EventName, frame, hub::clock::Clock, id::EventId};

/// Why there is a gap.
///
/// ```
/// use axum_sse::{Channel, GapReason, Resume};
///
/// let channel = Channel::builder().capacity(1).build();
/// let seen = channel.publish(&1)?;
/// channel.publish(&2)?;
/// channel.publish(&3)?;
/// let Resume::Gap { reason, missed, .. } = channel.subscribe(seen).resume() else { unreachable!() };
/// assert_eq!((reason, missed), (GapReason::Evicted, Some(1)));
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// The client was away for longer than the channel remembers.
    Evicted,
    /// The id is not one that this channel knows: it was never given, or the channel was retired
    /// since and made anew.
    Unknown,
    /// The id is of another life of the channel: the server has restarted since.
    Restarted,
    /// The client, connected, read more slowly than the channel forgets.
    Lagged,
    /// A client without an id asked for everything ([`Start::Oldest`](crate::Start::Oldest)), and
    /// the first events are gone. What is retained follows. Nothing is gained by reloading.
    Truncated,
}

impl GapReason {
    /// The reason as it stands in the gap event.
    ///
    /// ```
    /// assert_eq!(axum_sse::GapReason::Evicted.as_str(), "evicted");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Unknown => "unknown",
            Self::Restarted => "restarted",
            Self::Lagged => "lagged",
            Self::Truncated => "truncated",
        }
    }
}

/// Something that is missing in front of a cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub(super) reason: GapReason,
    pub(super) missed: Option<u64>,
}

impl Gap {
    /// One hole is one gap event, with the reason that came first.
    pub(super) fn widen(gap: &mut Option<Self>, missed: Option<u64>) {
        *gap = Some(match gap.take() {
            Some(before) => Self {
                reason: before.reason,
                missed: before.missed.zip(missed).map(|(a, b)| a + b),
            },
            None => Self {
                reason: GapReason::Lagged,
                missed,
            },
        });
    }

    /// Appends the gap event. It has no id, so that it does not move the client's (rule 89).
    pub(super) fn encode(
        self,
        out: &mut Vec<u8>,
        name: &EventName,
        clock: &Clock,
        oldest: Option<EventId>,
        channel: Option<&str>,
    ) {
        let oldest = oldest.map(|id| {
            let mut text = Vec::new();
            clock.write(id, &mut text);
            String::from_utf8(text).unwrap_or_default()
        });
        frame::name(out, name.as_str());
        let data = GapData {
            gap: self,
            oldest,
            channel,
        };
        // Of strings and numbers only: it serialises.
        let written = frame::json(out, &data);
        debug_assert!(written.is_ok());
        frame::end(out);
    }
}

/// The data of a gap event (rules 86, 89).
struct GapData<'a> {
    gap: Gap,
    oldest: Option<String>,
    channel: Option<&'a str>,
}

impl Serialize for GapData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Gap", 4)?;
        fields.serialize_field("reason", self.gap.reason.as_str())?;
        fields.serialize_field("missed", &self.gap.missed)?;
        fields.serialize_field("oldest", &self.oldest)?;
        if let Some(channel) = self.channel {
            fields.serialize_field("channel", channel)?;
        }
        fields.end()
    }
}
