//! [`Hosts`]: the host names of this server, as a protection against DNS rebinding.
//!
//! If the DNS name of an attacker's page resolves to this server, the browser takes the two for
//! the same origin. Only the host name in the request shows the attack.

// Rule 130.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use http::{HeaderMap, header, request::Parts, uri::Authority};

use crate::{
    error::{Error, ErrorKind},
    layer::cors::{
        OriginAllowlist,
        flaws::Flaws,
        origin::{Flaw, name_or_ipv4, other_part, refuse_if_long},
    },
};

/// Names in lower-case ASCII without a port, and patterns with their `*`.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(BTreeSet<String>);

impl Hosts {
    pub(crate) fn new<I, S>(entries: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut names = BTreeSet::new();
        let mut flaws = Flaws::of("host", ErrorKind::InvalidHost);
        for (count, entry) in entries.into_iter().enumerate() {
            if count == OriginAllowlist::MAX_ENTRIES {
                flaws.too_many(OriginAllowlist::MAX_ENTRIES);
                break;
            }
            match canonical(entry.as_ref()) {
                Ok(name) => _ = names.insert(name),
                Err(flaw) => flaws.add(entry.as_ref(), &flaw),
            }
        }
        flaws.into_result()?;
        Ok(Self(names))
    }

    /// Whether every host name in the request is on the list. A request without any passes: it is
    /// not from a browser, but may be a health check over HTTP/1.0.
    pub(crate) fn serve(&self, request: &Parts) -> bool {
        let target = request.uri.authority();
        target.is_none_or(|target| self.serve_authority(target))
            && self.serve_host(&request.headers)
    }

    fn serve_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => true,
            (Some(host), None) => {
                let host = Authority::try_from(host.as_bytes());
                host.is_ok_and(|host| self.serve_authority(&host))
            }
            (Some(_), Some(_)) => false,
        }
    }

    fn serve_authority(&self, authority: &Authority) -> bool {
        // No browser sends a user name, and a name before the `@` is not the host.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        // Rebinding needs a DNS name: addresses have none, and browsers resolve `localhost`
        // without DNS.
        is_address(host)
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.0.contains(host)
            || host.split_once('.').is_some_and(|(label, rest)| {
                !label.is_empty() && self.0.contains(&format!("*.{rest}"))
            })
    }
}

fn is_address(host: &str) -> bool {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

fn canonical(entry: &str) -> Result<String, Flaw> {
    refuse_if_long(entry)?;
    match entry {
        "" => return Err("it is empty".into()),
        "*" => return Err("it matches every name, including an attacker's".into()),
        _ if entry.contains("://") => return Err("a scheme; a host is a name alone".into()),
        _ => {}
    }
    if let Some(what) = other_part(entry) {
        return Err(format!("{what}; a host is a name alone").into());
    }
    if is_address(entry) || entry.parse::<Ipv6Addr>().is_ok() {
        return Ok(entry.to_ascii_lowercase());
    }
    if entry.contains(':') {
        return Err("a port; a host is listed for all ports".into());
    }
    let (star, name) = match entry.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", entry),
    };
    if name.contains('*') {
        return Err("`*` can only be the whole first label: *.example.com".into());
    }
    if !star.is_empty() && !name.contains('.') {
        return Err("a pattern needs two labels or more after `*.`".into());
    }
    let name = name_or_ipv4(name.strip_suffix('.').unwrap_or(name))?;
    if !star.is_empty() && is_address(&name) {
        return Err("an address has no subdomains".into());
    }
    let name = format!("{star}{name}");
    refuse_if_long(&name)?;
    Ok(name)
}
