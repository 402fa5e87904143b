//! One entry of an [`OriginAllowlist`]: converted to the form that browsers send, or refused.
//!
//! Only the host parser of the `url` crate is used. Its URL parser repairs input that should be
//! refused (`https:host`, backslashes, tabs), reads `app.example:8080` as a scheme, and prints the
//! origin of every custom scheme as `null`.

use std::{borrow::Cow, net::Ipv4Addr};

use url::Host;

use crate::layer::cors::OriginAllowlist;

/// The longest label in DNS, in bytes.
pub(super) const MAX_LABEL_LEN: usize = 63;

/// What is wrong with an entry, for the error's message.
pub(super) type Flaw = Cow<'static, str>;

/// An entry in canonical form.
pub(super) enum Entry {
    Exact(Box<str>),
    Pattern(Box<str>),
}

pub(super) fn canonical(entry: &str) -> Result<Entry, Flaw> {
    refuse_if_long(entry)?;
    let (scheme, rest) = split_scheme(entry)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(what) = other_part(rest) {
        return Err(format!("{what}; an origin ends after its host and port").into());
    }
    // Stripped before parsing, because parsers treat `*` as an ordinary character.
    let (pattern, rest) = match rest.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (host, port) = split_port(rest)?;
    if host.contains('*') || (pattern && !matches!(&*scheme, "http" | "https")) {
        let why =
            "`*` can only be the whole first label, after http or https: https://*.example.com";
        return Err(why.into());
    }
    let host = match &*scheme {
        _ if host.is_empty() => return Err("an empty host".into()),
        _ if host.starts_with('[') => ipv6(host)?,
        "http" | "https" => name_or_ipv4(host)?,
        _ => custom_host(host)?,
    };
    if pattern && (host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()) {
        return Err("an address has no subdomains".into());
    }
    if pattern && !host.contains('.') {
        return Err("a pattern needs two labels or more after `*.`".into());
    }
    let star = if pattern { "*." } else { "" };
    let port = match (&*scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    let origin = format!("{scheme}://{star}{host}{port}");
    // Names get longer when they are converted to ASCII.
    refuse_if_long(&origin)?;
    Ok(match pattern {
        true => Entry::Pattern(origin.into()),
        false => Entry::Exact(origin.into()),
    })
}

pub(super) fn refuse_if_long(entry: &str) -> Result<(), Flaw> {
    let (len, most) = (entry.len(), OriginAllowlist::MAX_ENTRY_LEN);
    if len > most {
        return Err(format!("{len} bytes, more than {most}").into());
    }
    Ok(())
}

/// The scheme in lower case, and what follows its `://`.
fn split_scheme(entry: &str) -> Result<(String, &str), Flaw> {
    match entry {
        "" => return Err("it is empty".into()),
        "*" => {
            return Err(
                "browsers refuse a wildcard together with credentials; list the origins".into(),
            );
        }
        "null" => return Err("any site can send it, from a sandboxed frame".into()),
        _ => {}
    }
    let (scheme, rest) = entry.split_once(':').unwrap_or(("", entry));
    let scheme = scheme.to_ascii_lowercase();
    match &*scheme {
        "file" | "filesystem" | "data" | "blob" | "about" | "javascript" => {
            return Err("its pages send `null` as their origin, as any site can".into());
        }
        "ws" | "wss" => {
            let http = scheme.replace("ws", "http");
            return Err(format!("the page that connects is of {http}, not of {scheme}").into());
        }
        "ftp" => return Err("browsers load no pages over ftp".into()),
        _ => {}
    }
    let is_scheme = scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    match rest.strip_prefix("//") {
        Some(rest) if is_scheme => Ok((scheme, rest)),
        _ => Err("no scheme and `://` in front, such as `https://`".into()),
    }
}

/// A part of a URL that is neither host nor port, or a character that parsers would repair.
pub(super) fn other_part(rest: &str) -> Option<Flaw> {
    rest.chars().find_map(|char| match char {
        '/' => Some("a path".into()),
        '?' => Some("a query".into()),
        '#' => Some("a fragment".into()),
        '@' => Some("a user name".into()),
        '\\' | '%' => Some(format!("a `{char}`").into()),
        char if char.is_whitespace() || char.is_control() => Some(format!("{char:?}").into()),
        _ => None,
    })
}

/// The host (an IPv6 address with its brackets) and the port.
fn split_port(rest: &str) -> Result<(&str, Option<u16>), Flaw> {
    let end = match rest.find(']') {
        Some(bracket) if rest.starts_with('[') => bracket + 1,
        _ => rest.find(':').unwrap_or(rest.len()),
    };
    let (host, port) = rest.split_at(end);
    if port.is_empty() {
        return Ok((host, None));
    }
    // `parse` would also accept a sign and leading zeros.
    let digits = port.strip_prefix(':').unwrap_or_default();
    if digits.starts_with(|char: char| matches!(char, '1'..='9'))
        && let Ok(port) = digits.parse()
    {
        return Ok((host, Some(port)));
    }
    Err("a port is a number from 1 to 65535 after the host; IPv6 addresses need `[]`".into())
}

/// An IPv6 address in the form that browsers print.
fn ipv6(host: &str) -> Result<String, Flaw> {
    if host.contains('.') {
        return Err("an IPv4 address inside of an IPv6 one".into());
    }
    match Host::parse(host) {
        Ok(host @ Host::Ipv6(_)) => Ok(host.to_string()),
        _ => Err("not an IPv6 address".into()),
    }
}

/// A name in lower-case ASCII, or an IPv4 address in the form that browsers print.
pub(super) fn name_or_ipv4(host: &str) -> Result<String, Flaw> {
    let name = match Host::parse(host) {
        Ok(Host::Domain(name)) => name,
        Ok(Host::Ipv4(address)) if address.to_string() == host => return Ok(host.to_owned()),
        Ok(Host::Ipv4(address)) => {
            return Err(format!("browsers read the host as {address}; write that").into());
        }
        Ok(host @ Host::Ipv6(_)) => return Ok(host.to_string()),
        Err(error) => return Err(format!("the host does not parse: {error}").into()),
    };
    // The URL standard allows more, even a `*` made of a full-width one. DNS names have none of it.
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !name.bytes().all(known) {
        return Err("a host is of letters, digits, `-`, `_` and dots".into());
    }
    match name
        .split('.')
        .map(str::len)
        .find(|len| !(1..=MAX_LABEL_LEN).contains(len))
    {
        None => Ok(name),
        Some(0) => Err("a dot without a label before or after it".into()),
        Some(len) => Err(format!("a label of {len} bytes, more than {MAX_LABEL_LEN}").into()),
    }
}

/// The host of a custom scheme, unchanged: the URL standard treats it as opaque.
fn custom_host(host: &str) -> Result<String, Flaw> {
    if host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    {
        return Ok(host.to_owned());
    }
    Err("a custom scheme's host is of ASCII letters, digits, `-`, `.`, `_` and `~`".into())
}
