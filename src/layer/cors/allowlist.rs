//! [`OriginAllowlist`]: the allowed origins, from code or a configuration file.

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

/// The origins whose pages may read streams.
///
/// An entry is one of
///
/// - an exact origin: `https://app.example`, `http://localhost:3000`, `http://[::1]:8080`. Scheme
///   and port are significant: another port is another origin
///   ([RFC 6454, 5](https://www.rfc-editor.org/rfc/rfc6454.html#section-5));
/// - a subdomain pattern, with `http` or `https`: `https://*.example.com` matches every name with
///   exactly one more label, so neither `https://example.com` nor `https://a.b.example.com`;
/// - an origin with a custom scheme: `chrome-extension://<id>`, `tauri://localhost`.
///
/// Entries are converted to the form that browsers send: lower case, no default port, no trailing
/// slash, internationalized names as `xn--`, IPv6 addresses in their short form. The host of a
/// custom scheme keeps its case. Duplicates count once. An empty list is valid and allows no other
/// origin. The server's own pages need no entry.
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
/// The error lists up to 16 bad entries with the reason for each, and counts the others:
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
/// - `*`, because browsers refuse a wildcard
///   [together with credentials](https://fetch.spec.whatwg.org/#cors-protocol-and-credentials).
/// - `null`, and schemes whose pages send `null` as their origin (`file`, `data`, `blob`): any
///   site can send it from a sandboxed frame. Custom schemes are not checked; pages of a scheme
///   that the browser does not know send `null`, and are not allowed.
/// - Anything that is not exactly an origin: a path, a query, a fragment, a user name, an empty
///   host or port, port 0, whitespace; `ws`, `wss` and `ftp`, since no page has such an origin.
/// - Misleading spellings: `%61`, backslashes, IPv4 addresses in an unusual form or inside an IPv6
///   address (`[::ffff:127.0.0.1]`), and names with a trailing dot, although that is a separate
///   origin.
/// - A `*` anywhere but as the first label, or before an address or a single label
///   (`https://*.com`). **Longer public suffixes are not recognized**: `https://*.github.io`
///   allows the pages of strangers. A pattern also trusts anyone who takes over an abandoned
///   subdomain.
///
/// # From a configuration
///
/// It deserializes from a sequence of strings, or from one string as in [`FromStr`]. The format
/// has to be self-describing, as JSON, TOML and environment variables are. It serializes as a
/// sequence.
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

/// Both without duplicates and in byte order, for binary search.
#[derive(Default, PartialEq, Eq)]
struct Lists {
    exact: Box<[Box<str>]>,
    /// Including their `*`. Separate from `exact`, because a client can send a `*`.
    patterns: Box<[Box<str>]>,
}

impl OriginAllowlist {
    /// The maximum number of entries.
    pub const MAX_ENTRIES: usize = 10_000;

    /// The maximum length of an entry in bytes, both as written and in canonical form.
    pub const MAX_ENTRY_LEN: usize = 512;

    /// A list of these entries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidOrigin`] if an entry is [refused](Self#what-is-refused) or longer than
    /// [`MAX_ENTRY_LEN`](Self::MAX_ENTRY_LEN), or if there are more than
    /// [`MAX_ENTRIES`](Self::MAX_ENTRIES) entries.
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

    /// Whether the origin in this value of an `Origin` header is on the list.
    ///
    /// The comparison is byte by byte: a value in any other form than the one browsers send is not
    /// allowed, nor is `null`, and no value causes a panic. The time is logarithmic in the number
    /// of entries.
    // Rules 110 and 112.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        let Lists { exact, patterns } = &*self.0;
        contains(exact, origin.iter())
            || pattern_of(origin).is_some_and(|[scheme, star, rest]| {
                contains(patterns, scheme.iter().chain(star).chain(rest))
            })
    }

    /// The entries in canonical form, patterns last.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let Lists { exact, patterns } = &*self.0;
        exact.iter().chain(patterns).map(|entry| &**entry)
    }

    /// Whether the list has no entry, so that no other origin is allowed.
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

    /// Parses entries that are separated by commas, whitespace or both. No entries make an empty
    /// list.
    ///
    /// # Errors
    ///
    /// The same as for [`OriginAllowlist::new`].
    fn from_str(text: &str) -> Result<Self, Error> {
        let entries = text.split(|char: char| char == ',' || char.is_whitespace());
        Self::new(entries.filter(|entry| !entry.is_empty()))
    }
}

impl Serialize for OriginAllowlist {
    /// Serializes as the sequence of [`iter`](OriginAllowlist::iter).
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
        f.write_str("a sequence of origins, or a string of origins separated by commas")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OriginAllowlist, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OriginAllowlist, A::Error> {
        let mut entries: Vec<String> = Vec::new();
        // One more than allowed, so that `new` returns the error.
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

/// The only pattern that can match this origin, in three parts: the origin with `*` in place of
/// its first label. `None` if there is no label that a `*` matches.
fn pattern_of(origin: &[u8]) -> Option<[&[u8]; 3]> {
    let host = memchr::memmem::find(origin, b"://")? + 3;
    let dot = host + memchr::memchr(b'.', &origin[host..])?;
    let label = &origin[host..dot];
    let canonical = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    ((1..=MAX_LABEL_LEN).contains(&label.len()) && label.iter().all(canonical))
        .then(|| [&origin[..host], b"*", &origin[dot..]])
}
