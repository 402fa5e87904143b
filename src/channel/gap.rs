//! Missing events: [`GapReason`], and the gap event that reports them to a client.
//!
//! `subscription/gaps.rs` decides when one is sent.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::{
    channel::{clock::Clock, log::Log},
    event::{EventId, EventName, encode},
};

/// Why a client has missed events.
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
    /// The client was disconnected for too long: events after its id are no longer retained.
    Evicted,
    /// The channel does not know the id: it never assigned it, or it was retired and created again
    /// since.
    Unknown,
    /// The id is from another epoch: the server has been restarted since, or the id is from another
    /// hub.
    Restarted,
    /// The client was connected, but read so slowly that events were evicted before it read them.
    Lagged,
    /// A client without an id starts with the oldest event
    /// ([`Start::Oldest`](crate::Start::Oldest)), and the first events are no longer retained. The
    /// retained events follow. A page must not reload for this reason, because it would get the
    /// same gap again.
    Truncated,
}

impl GapReason {
    /// The `reason` in the gap event.
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

/// Events that are missing before a cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub(super) reason: GapReason,
    pub(super) from: LostFrom,
}

/// Where the missing events begin. They end where delivery continues.
#[derive(Clone, Copy, Debug)]
pub(super) enum LostFrom {
    /// After this event, which can be evicted itself.
    Event(EventId),
    Position(u64),
    Unknown,
}

impl Gap {
    /// How many events are missing before `position`, if that is known.
    pub(super) fn missed(self, log: &Log, position: u64) -> Option<u64> {
        match self.from {
            LostFrom::Event(id) => log.missed(id, position),
            LostFrom::Position(from) => Some(position.saturating_sub(from)),
            LostFrom::Unknown => None,
        }
    }

    /// The log has overtaken a cursor at `from`. Merges this with a gap that is not reported yet,
    /// whose reason remains.
    pub(super) fn widen(gap: &mut Option<Self>, from: LostFrom) {
        let reason = GapReason::Lagged;
        match (gap.as_mut(), from) {
            (None, _) => *gap = Some(Self { reason, from }),
            (Some(before), LostFrom::Unknown) => before.from = from,
            (Some(_), _) => {}
        }
    }
}

/// One gap event, for all channels of a connection with the same reason.
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
    /// The id with which delivery continues.
    pub(super) oldest: Option<EventId>,
}

impl Notice<'_> {
    /// Appends the gap event. It has no id, so that the client keeps its own (rule 89).
    pub(super) fn encode(&self, out: &mut Vec<u8>, name: &EventName, clock: &Clock, many: bool) {
        encode::name(out, name.as_str());
        let data = Data {
            notice: self,
            clock,
            many,
        };
        // Strings and numbers always serialize.
        let written = encode::json(out, &data);
        debug_assert!(written.is_ok());
        encode::end(out);
    }
}

/// The data of a gap event (rules 86, 89).
struct Data<'a> {
    notice: &'a Notice<'a>,
    clock: &'a Clock,
    /// Whether there are details for each channel.
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

/// An id as it is sent to clients.
fn text(clock: &Clock, id: Option<EventId>) -> Option<String> {
    let mut text = Vec::new();
    clock.write(id?, &mut text);
    String::from_utf8(text).ok()
}
