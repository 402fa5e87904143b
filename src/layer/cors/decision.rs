//! The decision about a request, by its head alone and before anything else: which page has sent
//! it, whether that page may read, and whether the request is one that an `EventSource` sends.

// Rules 97 to 126.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts};

use super::{Cors, Origins, policy::Policy};

const WILDCARD: HeaderValue = HeaderValue::from_static("*");

pub(super) const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
pub(super) const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What a browser does with a response that no script has requested, as in
/// [Fetch](https://fetch.spec.whatwg.org/#concept-request-destination). Unknown values are treated
/// like a missing header.
// Rule 124.
const DESTINATIONS: [&str; 25] = [
    "audio",
    "audioworklet",
    "document",
    "embed",
    "fencedframe",
    "font",
    "frame",
    "iframe",
    "image",
    "json",
    "manifest",
    "object",
    "paintworklet",
    "report",
    "script",
    "serviceworker",
    "sharedworker",
    "speculationrules",
    "style",
    "text",
    "track",
    "video",
    "webidentity",
    "worker",
    "xslt",
];

pub(crate) enum Verdict {
    /// Goes to the handler; the response gets no CORS headers.
    Pass,
    /// Goes to the handler; the response gets CORS headers with this allowed origin.
    Allow(HeaderValue),
    /// A preflight, granted to this origin.
    Preflight(HeaderValue),
    /// A preflight that is answered, but granted nothing.
    EmptyPreflight,
    /// Answered with 403, for this reason.
    Refuse(&'static str),
}

impl Policy {
    pub(crate) fn judge(&self, request: &Parts) -> Verdict {
        let (cors, headers) = (&self.cors, &request.headers);
        let is_preflight = is_preflight(&request.method, headers);
        let allow = |origin| match is_preflight {
            true => Verdict::Preflight(origin),
            false => Verdict::Allow(origin),
        };
        let site = Site::of(headers);
        if cors.guards() && !cors.may_go_to(destination(headers), site) {
            return Verdict::Refuse("this is not what an EventSource or a fetch sends");
        }
        let sender = Sender::of(headers);
        if cors.metadata && site == Site::Unknown && matches!(sender, Sender::NoPage) {
            return Verdict::Refuse("neither Origin nor Sec-Fetch-Site identifies the sender");
        }
        let origin = match (&cors.origins, sender) {
            // All pages may read, but this is an image, or a fetch without CORS.
            (Origins::Any, Sender::NoPage) if cors.guards() && site == Site::Other => None,
            (Origins::Any, _) => return allow(WILDCARD),
            (Origins::Listed(_), Sender::NoPage) => None,
            (Origins::Listed(list), Sender::Page(origin)) => {
                if list.allows(origin.as_bytes()) {
                    return allow(origin.clone());
                }
                Some(origin.as_bytes())
            }
            (Origins::Listed(_), Sender::Several) => Some(&b""[..]),
        };
        // What remains is sent by no page, by a page of this server's own origin, or by a page of
        // an origin that is not allowed.
        let is_same_origin = match (site, origin) {
            (Site::Same, _) => true,
            (Site::Other, None) => !cors.guards(),
            (Site::Other, Some(_)) => false,
            (Site::Unknown | Site::NoPage, None) => true,
            // Some extensions send `none` together with the origin of their page.
            (Site::Unknown | Site::NoPage, Some(origin)) => {
                is_own_authority(origin, &request.uri, headers)
            }
        };
        if is_same_origin {
            Verdict::Pass
        } else if cors.refuse || (cors.guards() && site == Site::Other) {
            Verdict::Refuse("this origin is not on the allowlist")
        } else if is_preflight {
            Verdict::EmptyPreflight
        } else {
            Verdict::Pass
        }
    }
}

impl Cors {
    fn may_go_to(&self, destination: Option<&str>, site: Site) -> bool {
        match destination {
            None => true,
            Some("document") => self.navigation && site != Site::Other,
            Some(_) => false,
        }
    }
}

/// As in [Fetch](https://fetch.spec.whatwg.org/#cors-preflight-request). Other OPTIONS requests
/// are requests like any other.
// Rule 104.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The page that has sent the request, according to `Origin`.
enum Sender<'a> {
    NoPage,
    Page(&'a HeaderValue),
    /// More than one `Origin`, which no browser sends.
    Several,
}

impl<'a> Sender<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Self::NoPage,
            (Some(origin), None) => Self::Page(origin),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// The relation between the page and this server, according to the browser. Pages cannot set
/// this header themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    /// The same origin.
    Same,
    /// No page: the user has entered an address, for example.
    NoPage,
    /// Another origin. Pages of a sibling domain (`same-site`) belong to somebody else, too.
    Other,
    Unknown,
}

impl Site {
    fn of(headers: &HeaderMap) -> Self {
        match single(headers, &SITE) {
            Some("same-origin") => Self::Same,
            Some("none") => Self::NoPage,
            Some("same-site" | "cross-site") => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// The destination of the response, unless that is a script's `fetch` or `EventSource`.
fn destination(headers: &HeaderMap) -> Option<&str> {
    single(headers, &DEST).filter(|value| DESTINATIONS.contains(value))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether the origin has the authority that the request is for, so that the page is of the same
/// origin. Used for browsers that do not send `Sec-Fetch-Site`. The scheme is not compared, since
/// a proxy before this server may terminate TLS.
fn is_own_authority(origin: &[u8], uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => match single(headers, &header::HOST) {
            Some(host) => host,
            None => return false,
        },
    };
    let Some((scheme, rest)) = std::str::from_utf8(origin)
        .ok()
        .and_then(|origin| origin.split_once("://"))
    else {
        return false;
    };
    // A default port is never part of an `Origin`, but may be part of a `Host`.
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let authority = authority.strip_suffix(default).unwrap_or(authority);
    !rest.is_empty() && rest.eq_ignore_ascii_case(authority)
}
