//! [`OriginAllowlist`]: origins from code or a configuration, in the form in which browsers send
//! them.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use crate::{
    error::{Error, ErrorKind},
    layer::cors::{
        flaws::Flaws,
        origin::{Entry, MAX_LABEL_LEN, canonical},
    },
    sync::Arc,
};

/// The origins whose pages may read streams, in the form in which browsers send them.
///
/// An entry is one of
///
/// - an exact origin: `https://app.example`, `http://localhost:3000`, `http://[::1]:8080`. Scheme
///   and port count: another port is another origin (rule 115);
/// - a subdomain pattern, of `http` or `https`: `https://*.example.com` stands for every name
///   with exactly one label more, so neither for `https://example.com` nor for
///   `https://a.b.example.com` (rule 116);
/// - an origin of a custom scheme: `chrome-extension://<id>`, `tauri://localhost` (rule 117).
///
/// Upper case, a default port, one trailing slash, an internationalised name and every spelling
/// of an IPv6 address are brought into the canonical form (rules 111, 113, 114). A custom
/// scheme's host keeps its case. Doubles count once.
/// An empty list is legal, and allows no other origin; the server's own pages need no entry.
///
/// ```
/// use axum_sse::OriginAllowlist;
///
/// let list = OriginAllowlist::new(["HTTPS://App.Example:443/", "https://*.example.com"])?;
/// assert!(list.allows(b"https://app.example"));
/// assert!(list.allows(b"https://shop.example.com"));
/// assert!(!list.allows(b"https://example.com"));
/// assert!(!list.allows(b"null"));
///
/// // From one environment variable: separated by commas or whitespace.
/// let list: OriginAllowlist = "https://élève.example, tauri://localhost".parse()?;
/// assert_eq!(
///     list.iter().collect::<Vec<_>>(),
///     ["https://xn--lve-6lad.example", "tauri://localhost"],
/// );
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// # What is refused
///
/// The error names up to 16 of the bad entries, with the reason, and counts the others:
///
/// ```
/// # use axum_sse::OriginAllowlist;
/// let error = OriginAllowlist::new(["https://a.example/x", "b.example", "*"]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "origin \"https://a.example/x\": a path; an origin ends after its host and port; \
///      origin \"b.example\": no scheme and `://` in front, such as `https://`; \
///      origin \"*\": browsers refuse a wildcard together with credentials; list the origins",
/// );
/// ```
///
/// - `*`, for that reason (rule 98).
/// - `null`, and schemes whose pages send `null` as their origin (`file`, `data`, `blob`): any
///   site can send it from a sandboxed frame (rule 110). A custom scheme is taken on trust; where
///   a browser does not know it, its pages send `null`, and are not allowed.
/// - What is more than an origin, or less: a path, a query, a fragment, a user name, an empty
///   host or port, port 0, whitespace; `ws`, `wss` and `ftp`, since no page is of these.
/// - Spellings that a reader takes for something else: `%61`, backslashes, IPv4 addresses in any
///   form but the usual, or in the middle of an IPv6 one (`[::ffff:127.0.0.1]`, rule 114), a name
///   with a dot at its end, even though that is an origin of its own.
/// - A `*` anywhere but as the first label, or in front of an address or a single label
///   (`https://*.com`). **Longer public suffixes are not recognised**: `https://*.github.io`
///   allows the pages of strangers. A pattern also trusts whoever takes over a forgotten
///   subdomain.
///
/// # From a configuration
///
/// With serde it is a sequence of strings, or one string as [`FromStr`] takes it; the format has
/// to describe itself, as JSON, TOML and environment variables do. It is written as a sequence.
///
/// ```
/// # use axum_sse::OriginAllowlist;
/// #[derive(serde::Deserialize)]
/// struct Config { origins: OriginAllowlist }
///
/// let config: Config = serde_json::from_str(r#"{ "origins": ["https://app.example"] }"#)?;
/// assert!(config.origins.allows(b"https://app.example"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OriginAllowlist(Arc<Lists>);

/// Both without doubles and in order of bytes, for binary search.
#[derive(Default, PartialEq, Eq)]
struct Lists {
    exact: Box<[Box<str>]>,
    /// With the `*` in its place. Apart from the others, since a client can send a `*`.
    patterns: Box<[Box<str>]>,
}

impl OriginAllowlist {
    /// The most entries that a list takes.
    pub const MAX_ENTRIES: usize = 10_000;

    /// The longest entry, in bytes, both as written and in canonical form.
    pub const MAX_ENTRY_LEN: usize = 512;

    /// The list of these entries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidOrigin`] if any entry is [refused](Self#what-is-refused) or longer
    /// than [`MAX_ENTRY_LEN`](Self::MAX_ENTRY_LEN), or if there are more than
    /// [`MAX_ENTRIES`](Self::MAX_ENTRIES).
    pub fn new<I, S>(entries: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let (mut exact, mut patterns) = (BTreeSet::new(), BTreeSet::new());
        let mut flaws = Flaws::of("origin", ErrorKind::InvalidOrigin);
        for (count, entry) in entries.into_iter().enumerate() {
            if count == Self::MAX_ENTRIES {
                flaws.too_many(Self::MAX_ENTRIES);
                break;
            }
            match canonical(entry.as_ref()) {
                Ok(Entry::Exact(origin)) => _ = exact.insert(origin),
                Ok(Entry::Pattern(pattern)) => _ = patterns.insert(pattern),
                Err(flaw) => flaws.add(entry.as_ref(), &flaw),
            }
        }
        flaws.into_result()?;
        Ok(Self(Arc::new(Lists {
            exact: exact.into_iter().collect(),
            patterns: patterns.into_iter().collect(),
        })))
    }

    /// Whether a request with this value of its `Origin` header comes from a listed origin.
    ///
    /// Bytes are compared with bytes: a value that is not spelled as browsers spell it is not
    /// allowed, and none makes this panic (rule 112). `null` never is (rule 110). Takes time
    /// that grows with the logarithm of the number of entries.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        let Lists { exact, patterns } = &*self.0;
        contains(exact, origin.iter())
            || pattern_of(origin).is_some_and(|[scheme, star, rest]| {
                contains(patterns, scheme.iter().chain(star).chain(rest))
            })
    }

    /// The entries in canonical form, the patterns last.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let Lists { exact, patterns } = &*self.0;
        exact.iter().chain(patterns).map(|entry| &**entry)
    }

    /// Whether there is no entry, so that no other origin is allowed.
    ///
    /// ```
    /// use axum_sse::OriginAllowlist;
    ///
    /// assert!("".parse::<OriginAllowlist>()?.is_empty());
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl fmt::Debug for OriginAllowlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OriginAllowlist")?;
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromStr for OriginAllowlist {
    type Err = Error;

    /// Entries separated by commas, whitespace or both. Without any, the list is empty.
    ///
    /// # Errors
    ///
    /// As [`OriginAllowlist::new`].
    fn from_str(text: &str) -> Result<Self, Error> {
        let entries = text.split(|char: char| char == ',' || char.is_whitespace());
        Self::new(entries.filter(|entry| !entry.is_empty()))
    }
}

impl<S: AsRef<str>> TryFrom<Vec<S>> for OriginAllowlist {
    type Error = Error;

    /// As [`OriginAllowlist::new`].
    fn try_from(entries: Vec<S>) -> Result<Self, Error> {
        Self::new(entries)
    }
}

impl<S: AsRef<str>> TryFrom<&[S]> for OriginAllowlist {
    type Error = Error;

    /// As [`OriginAllowlist::new`].
    fn try_from(entries: &[S]) -> Result<Self, Error> {
        Self::new(entries)
    }
}

impl Serialize for OriginAllowlist {
    /// Serialises as the sequence of [`iter`](OriginAllowlist::iter).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for OriginAllowlist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = OriginAllowlist;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of origins, or a string of origins with commas in between")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OriginAllowlist, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OriginAllowlist, A::Error> {
        let mut entries: Vec<String> = Vec::new();
        // One more than is allowed, so that it is `new` that refuses.
        while entries.len() <= OriginAllowlist::MAX_ENTRIES {
            let Some(entry) = seq.next_element()? else {
                break;
            };
            entries.push(entry);
        }
        OriginAllowlist::new(entries).map_err(de::Error::custom)
    }
}

/// Whether the sorted `list` holds these bytes.
fn contains<'a>(list: &'a [Box<str>], bytes: impl Iterator<Item = &'a u8> + Clone) -> bool {
    list.binary_search_by(|entry| entry.as_bytes().iter().cmp(bytes.clone()))
        .is_ok()
}

/// The only pattern that can stand for this origin, in three parts: that with `*` in place of
/// the first label. `None` if there is no label that a pattern stands for.
fn pattern_of(origin: &[u8]) -> Option<[&[u8]; 3]> {
    let host = memchr::memmem::find(origin, b"://")? + 3;
    let dot = host + memchr::memchr(b'.', &origin[host..])?;
    let label = &origin[host..dot];
    let canonical = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    ((1..=MAX_LABEL_LEN).contains(&label.len()) && label.iter().all(canonical))
        .then(|| [&origin[..host], b"*", &origin[dot..]])
}
