//! What a client is told when something is missing: [`GapReason`], and the gap event.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::{
    channel::{clock::Clock, log::Log},
    event::{EventId, EventName, encode},
};

/// Why there is a gap.
///
/// ```
/// use axum_sse::{Channel, GapReason, Resumption};
///
/// let channel = Channel::builder().capacity(1).build();
/// channel.publish(&1)?;
/// let seen = channel.newest();
/// channel.publish(&2)?;
/// channel.publish(&3)?;
/// let Resumption::Gap { reason, missed, .. } = channel.subscribe(seen).resumption() else {
///     unreachable!()
/// };
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
    pub(super) from: LostFrom,
}

/// Where what is missing begins. It ends where delivery goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum LostFrom {
    /// After an event that may be gone itself.
    Event(EventId),
    Position(u64),
    Unknown,
}

impl Gap {
    /// How many events are missing before `position`, where that is known.
    pub(super) fn missed(self, log: &Log, position: u64) -> Option<u64> {
        match self.from {
            LostFrom::Event(id) => log.missed(id, position),
            LostFrom::Position(from) => Some(position.saturating_sub(from)),
            LostFrom::Unknown => None,
        }
    }

    /// A cursor at `from` was overtaken. What has not been said yet becomes one gap, with the
    /// reason that came first.
    pub(super) fn widen(gap: &mut Option<Self>, from: LostFrom) {
        let reason = GapReason::Lagged;
        match (gap.as_mut(), from) {
            (None, _) => *gap = Some(Self { reason, from }),
            (Some(before), LostFrom::Unknown) => before.from = from,
            (Some(_), _) => {}
        }
    }
}

/// One gap event: what is missing for the same reason, on one or more channels of a connection.
#[derive(Debug)]
pub(super) struct Notice<'a> {
    pub(super) reason: GapReason,
    pub(super) parts: Vec<Part<'a>>,
}

/// What is missing on one channel.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) channel: &'a str,
    pub(super) missed: Option<u64>,
    /// The id that delivery goes on with.
    pub(super) oldest: Option<EventId>,
}

impl Notice<'_> {
    /// Appends the gap event. It has no id, so that it does not move the client's (rule 89).
    pub(super) fn encode(&self, out: &mut Vec<u8>, name: &EventName, clock: &Clock, many: bool) {
        encode::name(out, name.as_str());
        let data = Data {
            notice: self,
            clock,
            many,
        };
        // Of strings and numbers only: it serialises.
        let written = encode::json(out, &data);
        debug_assert!(written.is_ok());
        encode::end(out);
    }
}

/// The data of a gap event (rules 86, 89).
struct Data<'a> {
    notice: &'a Notice<'a>,
    clock: &'a Clock,
    /// Whether the channels are named.
    many: bool,
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Notice { reason, parts } = self.notice;
        let missed = parts.iter().map(|part| part.missed).sum::<Option<u64>>();
        let oldest = parts.iter().filter_map(|part| part.oldest).min();
        let mut fields = serializer.serialize_struct("Gap", 4)?;
        fields.serialize_field("reason", reason.as_str())?;
        fields.serialize_field("missed", &missed)?;
        fields.serialize_field("oldest", &text(self.clock, oldest))?;
        if self.many {
            let channels = parts.iter().map(|part| {
                let details = Details {
                    missed: part.missed,
                    oldest: text(self.clock, part.oldest),
                };
                (part.channel, details)
            });
            fields.serialize_field("channels", &channels.collect::<BTreeMap<_, _>>())?;
        }
        fields.end()
    }
}

struct Details {
    missed: Option<u64>,
    oldest: Option<String>,
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Details", 2)?;
        fields.serialize_field("missed", &self.missed)?;
        fields.serialize_field("oldest", &self.oldest)?;
        fields.end()
    }
}

/// An id as it stands on the wire.
fn text(clock: &Clock, id: Option<EventId>) -> Option<String> {
    let mut text = Vec::new();
    clock.write(id?, &mut text);
    String::from_utf8(text).ok()
}
