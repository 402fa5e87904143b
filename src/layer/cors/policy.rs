//! [`Policy`]: a layer's [`Cors`] settings, with the header values that they lead to.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Cors, Origins, decision};

const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Made once per layer, so that an answer only copies header values.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(super) cors: Cors,
    /// What a preflight's answer grants, without the allowed origin.
    preflight: HeaderMap,
    exposed: Option<HeaderValue>,
    vary: Vec<HeaderName>,
}

impl Policy {
    pub(crate) fn new(cors: Cors) -> Self {
        Self {
            preflight: preflight(&cors),
            exposed: list(&cors, cors.expose_headers.iter().map(HeaderName::as_str)),
            vary: vary(&cors),
            cors,
        }
    }

    /// The request headers that every answer under the layer depends on.
    pub(crate) fn vary(&self) -> &[HeaderName] {
        &self.vary
    }

    /// Lets the page read a response.
    pub(crate) fn grant(&self, headers: &mut HeaderMap, origin: &HeaderValue) {
        if self.cors.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if let Some(exposed) = &self.exposed {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    /// What the answer to a preflight grants.
    pub(crate) fn preflight(&self, origin: HeaderValue) -> HeaderMap {
        let mut headers = self.preflight.clone();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers
    }
}

fn vary(cors: &Cors) -> Vec<HeaderName> {
    let is_listed = matches!(cors.origins, Origins::Listed(_));
    let mut names = Vec::new();
    if is_listed || cors.metadata {
        names.push(header::ORIGIN);
    }
    if cors.guards() || cors.metadata || (cors.refuse && is_listed) {
        names.push(decision::SITE);
    }
    if cors.guards() {
        names.push(decision::DEST);
    }
    names
}

fn preflight(cors: &Cors) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    let methods = list(cors, cors.allow_methods.iter().map(Method::as_str));
    let names = list(cors, cors.allow_headers.iter().map(HeaderName::as_str));
    let max_age = HeaderValue::from(cors.max_age.as_secs());
    headers.extend(methods.map(|methods| (header::ACCESS_CONTROL_ALLOW_METHODS, methods)));
    headers.extend(names.map(|names| (header::ACCESS_CONTROL_ALLOW_HEADERS, names)));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
    headers
}

/// A header value with these names. With credentials, `*` is not a wildcard to browsers but a
/// name like any other ([Fetch](https://fetch.spec.whatwg.org/#cors-protocol-and-credentials)),
/// so it is left out.
fn list<'a>(cors: &Cors, names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let names: Vec<_> = names
        .filter(|name| !cors.credentials || *name != "*")
        .collect();
    let value = HeaderValue::try_from(names.join(",")).ok()?;
    (!names.is_empty()).then_some(value)
}
