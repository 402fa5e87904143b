//! [`Hosts`]: the names under which a server is asked, against DNS rebinding (rule 130).
//!
//! A page whose own name was made to point to this server is of the same origin to the browser,
//! so only the name that it asks for gives it away.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use http::{HeaderMap, Request, header, uri::Authority};

use crate::{
    error::{Error, ErrorKind},
    layer::cors::{
        OriginAllowlist,
        flaws::Flaws,
        origin::{Flaw, name_or_ipv4, other_part, refuse_if_long},
    },
};

/// Names in ASCII and lower case, without port; patterns with their `*`.
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

    /// Whether every name that the request asks for is served. One that asks for none passes,
    /// since every browser does: it may be a health check on HTTP/1.0.
    pub(crate) fn serve<B>(&self, request: &Request<B>) -> bool {
        let target = request.uri().authority();
        target.is_none_or(|target| self.serve_authority(target))
            && self.serve_host(request.headers())
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
        // No browser sends a user name, and what comes before it is not the host.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        // An attacker's page has a name. What browsers take for `localhost` is no DNS server's
        // to say.
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
        "*" => return Err("it stands for every name, the attacker's included".into()),
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
        return Err("`*` stands only for the first label: *.example.com".into());
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
