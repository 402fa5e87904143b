//! [`EventId`]: its order, its printed form and its parser. Hubs draw ids with their clocks.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorKind};

/// 64 digits in ASCII order. All are safe in a CORS request header (rule 82) and unreserved in URLs
/// (RFC 3986), so clients never need to escape an id.
pub(crate) const DIGITS: &[u8; 64] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// The largest sequence: an ordinal has one more bit.
const MAX_SEQUENCE: u64 = u64::MAX >> 1;

/// Digits of the largest `u64`.
const MAX_DIGITS: usize = 11;

/// The length of the longest printed id, in bytes.
#[cfg(test)]
const MAX_LEN: usize = 2 * MAX_DIGITS + 2;

/// Ends a partial id; unreserved in RFC 3986, like the digits.
pub(crate) const PARTIAL: u8 = b'.';

/// The id of an event in a channel.
///
/// The `epoch` identifies the hub and changes at every start. The `sequence` counts the events of
/// all channels of the hub. So an id from one channel is a point in time for every channel of its
/// hub, and other hubs report it as a gap.
///
/// Printed as `epoch-sequence` in base 64, with the digits `0-9A-Z_a-z~` and no leading zeros. Each
/// id has exactly one spelling, and [`FromStr`] accepts no other. All its characters are unreserved
/// in URLs ([RFC 3986]) and allowed in a [CORS request header].
///
/// An id can end with a dot. It is then *partial*: its client has every event up to that id, but
/// still needs the snapshots of its channels, and receives them when it reconnects. Connections
/// over several channels send partial ids while a snapshot is being made. A partial id sorts
/// directly after the same id without the dot.
///
/// Anyone who sees an id can read from it how many events the hub has published and when it
/// started. If that is a secret, do not send ids.
///
/// [RFC 3986]: https://www.rfc-editor.org/rfc/rfc3986#section-2.3
/// [CORS request header]: https://fetch.spec.whatwg.org/#cors-unsafe-request-header-byte
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
    /// Twice the sequence, plus one if the id is partial: in order, and as small as the sequence.
    ordinal: u64,
}

impl EventId {
    /// The id with these numbers. `sequence` is clamped to 2⁶³ − 1.
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

    /// Identifies the hub and its start: 32 bits of Unix time in seconds, then 32 random bits.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// The number of this event in its hub; 0 stands for the start, before any event.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.ordinal >> 1
    }

    /// Whether a client with this id still needs snapshots.
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

    /// The largest whole id less than this one, which must be whole itself.
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

    /// Appends what follows the hyphen.
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
            .map(|position| digit((number >> (6 * position)) & 63)),
    );
}

/// The digit for the lowest six bits.
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
    /// [`ErrorKind::InvalidId`] for any text that [`Display`](fmt::Display) does not produce.
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
                    format!("{} is not a valid event id", quoted(text)),
                )
            })
    }
}

impl serde::Serialize for EventId {
    /// Serializes as the printed form.
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

/// Deserializes a string and parses it.
pub(crate) fn from_string<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = Error>,
    D: serde::Deserializer<'de>,
{
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// A value for an error message: escaped, and cut after 40 characters, because it can come from a
/// client (rule 80).
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
                // Rule 82: visible ASCII without CORS-unsafe bytes.
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
            r#""1-05" is not a valid event id"#
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
