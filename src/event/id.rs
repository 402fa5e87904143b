//! [`EventId`]: what an event is called on the wire, and how it is read back.
//!
//! Knows nothing of logs or hubs: ids are drawn by a hub's clock and compared by its logs.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorKind};

/// 64 digits in ASCII order. All of them are visible, safe in a CORS request header and in a URL
/// (rule 82; unreserved in RFC 3986), so an id never needs escaping on its way back.
pub(crate) const DIGITS: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// The largest count within one life.
const MAX_SEQUENCE: u64 = u64::MAX >> 1;

/// Digits of the largest `u64`.
const MAX_DIGITS: usize = 11;

/// The most bytes that the printed form of an id takes.
#[cfg(test)]
const MAX_LEN: usize = 2 * MAX_DIGITS + 2;

/// Ends a partial id; unreserved in RFC 3986, like the digits.
pub(crate) const PARTIAL: u8 = b'.';

/// The id of an event in a channel: ordered, short, and of one life of a hub.
///
/// `epoch` marks the life (a hub that starts anew gets another one), `sequence` counts the events of all
/// channels of the hub. An id seen on one channel therefore is a point in time for every channel
/// of its hub, and means nothing to any other hub (rules 87, 90).
///
/// Printed as `epoch-sequence` in base 64 with the digits `0-9A-Z_a-z~`, without leading zeros; there is
/// exactly one spelling of each id, and [`FromStr`] accepts no other (rule 79).
///
/// An id may end with a dot. It is then *partial*: its client has every event up to there, but is
/// still owed the snapshots of its channels, and gets them when it comes back. Such ids are sent
/// on connections over several channels while a snapshot is being made. A partial id sorts
/// directly after the same id without the dot.
///
/// Ids tell their reader how many events a hub has published and when it started. Where that is
/// a secret, do not send them.
///
/// ```
/// use axum_sse::EventId;
///
/// let id: EventId = "1a-5".parse()?;
/// assert_eq!((id.epoch(), id.sequence()), (101, 5));
/// assert_eq!(id, EventId::new(101, 5));
/// assert_eq!(id.to_string(), "1a-5");
/// assert!("1a-05".parse::<EventId>().is_err());
/// assert!(id < "1a-6".parse()?);
/// # Ok::<(), axum_sse::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    epoch: u64,
    /// Twice the sequence, plus one if the id is partial. This keeps the order, and an entry of a
    /// log small.
    ordinal: u64,
}

impl EventId {
    /// The id with these two halves. `sequence` is less than 2⁶³; a larger number is clamped.
    #[must_use]
    pub const fn new(epoch: u64, sequence: u64) -> Self {
        let sequence = if sequence > MAX_SEQUENCE {
            MAX_SEQUENCE
        } else {
            sequence
        };
        Self {
            epoch,
            ordinal: sequence << 1,
        }
    }

    pub(crate) const MAX: Self = Self::new(u64::MAX, MAX_SEQUENCE);

    /// The life of the hub that drew this id.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// The count within that life; 0 is the start, before any event.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.ordinal >> 1
    }

    /// Whether snapshots are still owed to a client with this id.
    pub(crate) const fn is_partial(self) -> bool {
        self.ordinal & 1 == 1
    }

    pub(crate) const fn partial(self) -> Self {
        Self {
            ordinal: self.ordinal | 1,
            ..self
        }
    }

    /// The same id without the dot.
    pub(crate) const fn whole(self) -> Self {
        Self {
            ordinal: self.ordinal & !1,
            ..self
        }
    }

    /// The largest id that is less than this one, which is whole.
    pub(crate) const fn before(self) -> Self {
        Self {
            ordinal: self.ordinal.saturating_sub(2),
            ..self
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        write_number(self.epoch, out);
        out.push(b'-');
        self.write_sequence(out);
    }

    /// What follows the hyphen.
    pub(crate) fn write_sequence(self, out: &mut Vec<u8>) {
        write_number(self.sequence(), out);
        if self.is_partial() {
            out.push(PARTIAL);
        }
    }
}

pub(crate) fn write_number(number: u64, out: &mut Vec<u8>) {
    let digits = (u64::BITS - (number | 1).leading_zeros()).div_ceil(6);
    out.extend(
        (0..digits)
            .rev()
            .map(|place| digit((number >> (6 * place)) & 63)),
    );
}

/// The digit of the lowest six bits.
pub(crate) fn digit(bits: u64) -> u8 {
    DIGITS[usize::try_from(bits & 63).unwrap_or(0)]
}

pub(crate) fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_DIGITS || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| {
        let value = DIGITS.binary_search(digit).ok()? as u64;
        Some(number.checked_mul(64)? | value)
    })
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(2 * MAX_DIGITS + 2);
        self.write(&mut text);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

impl FromStr for EventId {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] for anything but the one spelling that [`Display`](fmt::Display)
    /// prints.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('-')
            .and_then(|(epoch, text)| {
                let digits = text.strip_suffix(char::from(PARTIAL)).unwrap_or(text);
                let epoch = parse_number(epoch.as_bytes())?;
                let sequence =
                    parse_number(digits.as_bytes()).filter(|sequence| *sequence <= MAX_SEQUENCE)?;
                let id = Self::new(epoch, sequence);
                Some(if digits == text { id } else { id.partial() })
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidId,
                    format!("{} is not an id that a hub has drawn", quoted(text)),
                )
            })
    }
}

impl serde::Serialize for EventId {
    /// Serialises as the string that stands on the wire.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for EventId {
    /// Reads the string that [`FromStr`] accepts.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer)
    }
}

/// Deserialises a string and parses it.
pub(crate) fn from_string<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = Error>,
    D: serde::Deserializer<'de>,
{
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A value as error messages show it: escaped, and cut after 40 characters, since it may come
/// from a client (rule 80).
pub(crate) fn quoted(value: &str) -> String {
    match value.char_indices().nth(40) {
        None => format!("{value:?}"),
        Some((cut, _)) => format!("{:?}…", &value[..cut]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prints_and_parses(epoch: u64, sequence in 0..=MAX_SEQUENCE, small in 0u64..5000) {
            let id = EventId::new(epoch, sequence);
            prop_assert_eq!((id.epoch(), id.sequence(), id.is_partial()), (epoch, sequence, false));
            for id in [id, id.partial(), EventId::new(epoch, small), EventId::new(small, 0)] {
                let text = id.to_string();
                prop_assert!(text.len() <= MAX_LEN);
                prop_assert_eq!(text.parse::<EventId>().unwrap(), id);
                let json = serde_json::to_string(&id).unwrap();
                prop_assert_eq!(&json, &format!("{text:?}"));
                prop_assert_eq!(serde_json::from_str::<EventId>(&json).unwrap(), id);
                // Rule 82: visible ASCII without the bytes that CORS calls unsafe.
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_~.".contains(&b)));
            }
        }

        #[test]
        fn a_partial_id_is_the_next_one(epoch: u64, sequence in 1..MAX_SEQUENCE) {
            let id = EventId::new(epoch, sequence);
            prop_assert!(id < id.partial() && id.partial() < EventId::new(epoch, sequence + 1));
            prop_assert_eq!(id.partial().whole(), id);
            prop_assert_eq!(id.before(), EventId::new(epoch, sequence - 1));
            prop_assert_eq!((id.partial().epoch(), id.partial().sequence()), (epoch, sequence));
        }

        #[test]
        fn one_spelling_each(text in "[0-9A-Za-z_~+ .-]{0,26}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn digits_keep_the_order(a: u64, b: u64) {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            write_number(a, &mut x);
            write_number(b, &mut y);
            prop_assert_eq!(a.cmp(&b), (x.len(), x).cmp(&(y.len(), y)));
        }
    }

    #[test]
    fn serde_names_what_is_no_id() {
        let error = |json: &str| serde_json::from_str::<EventId>(json).unwrap_err();
        assert_eq!(
            error(r#""1-05""#).to_string(),
            r#""1-05" is not an id that a hub has drawn"#
        );
        assert!(error("5").to_string().contains("expected a string"));
    }

    #[test]
    fn rule_79_defined_results_for_odd_spellings() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-+5",
            "1-05",
            "01-5",
            "1-5 ",
            " 1-5",
            "1-5-6",
            "1.5",
            "1-.",
            "1-5..",
            "1.-5",
            "1-~~~~~~~~~~~",
            "1-FFFFFFFFFFF",
            "~~~~~~~~~~~-1",
            "000000000000-1",
            "1-é",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
        }
        let most = EventId::new(u64::MAX, u64::MAX);
        assert_eq!(most, EventId::MAX);
        assert_eq!(most.to_string().parse::<EventId>().unwrap(), most);
        assert_eq!(EventId::new(0, 0).to_string(), "0-0");
    }
}
