//! The decision about a request, by its headers alone and before anything else: whose page sent
//! it, may that page, and is it what an `EventSource` sends (rules 97 to 126)?

use http::{HeaderMap, HeaderName, Method, Request, Uri, header};

use crate::layer::cors::{Cors, Origins};

pub(super) const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
pub(super) const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Where a browser puts a response that no script asked for. Values that we do not know are as
/// good as none (rule 124).
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the handler, and without CORS headers.
    Pass,
    /// To whoever answers preflights and sets CORS headers.
    Allow,
    /// To the handler, and with CORS headers: OPTIONS, but no preflight.
    AllowOptions,
    /// Answered with 403, for this reason.
    Refuse(&'static str),
    /// A preflight that is answered, and granted nothing.
    GrantNothing,
}

impl Cors {
    pub(crate) fn judge<B>(&self, request: &Request<B>) -> Verdict {
        let headers = request.headers();
        let preflight = is_preflight(request.method(), headers);
        let site = Site::of(headers);
        if self.guards() && !self.may_go_to(destination(headers), site) {
            return Verdict::Refuse("this is not what an EventSource or a fetch sends");
        }
        let sender = Sender::of(headers);
        if self.metadata && site == Site::Unknown && matches!(sender, Sender::NoPage) {
            return Verdict::Refuse("neither Origin nor Sec-Fetch-Site tells who asks");
        }
        let origin = match (&self.origins, sender) {
            // Everybody's page may read, but this is an image, or a fetch that does not want to.
            (Origins::Any, Sender::NoPage) if self.guards() && site == Site::Other => None,
            (Origins::Any, _) => return allow(request.method(), preflight),
            (Origins::Listed(_), Sender::NoPage) => None,
            (Origins::Listed(list), Sender::Page(origin)) => {
                if list.allows(origin) {
                    return allow(request.method(), preflight);
                }
                Some(origin)
            }
            (Origins::Listed(_), Sender::Several) => Some(&b""[..]),
        };
        // What is left is of no page, of one of our own origin, or of one that is not allowed.
        let ours = match (site, origin) {
            (Site::Same, _) => true,
            (Site::Other, None) => !self.guards(),
            (Site::Other, Some(_)) => false,
            (Site::Unknown | Site::NoPage, None) => true,
            // Some extensions send `none` and the origin of their own page.
            (Site::Unknown | Site::NoPage, Some(origin)) => is_own(origin, request.uri(), headers),
        };
        if ours {
            Verdict::Pass
        } else if self.refuses() || (self.guards() && site == Site::Other) {
            Verdict::Refuse("this origin is not on the allowlist")
        } else if preflight {
            Verdict::GrantNothing
        } else {
            Verdict::Pass
        }
    }

    fn may_go_to(&self, destination: Option<&str>, site: Site) -> bool {
        match destination {
            None => true,
            Some("document") => self.navigation && site != Site::Other,
            Some(_) => false,
        }
    }
}

/// tower-http takes every OPTIONS request for a preflight: those that are none go round it.
fn allow(method: &Method, preflight: bool) -> Verdict {
    if *method == Method::OPTIONS && !preflight {
        Verdict::AllowOptions
    } else {
        Verdict::Allow
    }
}

/// Rule 104.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Who says to have sent the request.
enum Sender<'a> {
    NoPage,
    Page(&'a [u8]),
    /// No browser sends that.
    Several,
}

impl<'a> Sender<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Self::NoPage,
            (Some(origin), None) => Self::Page(origin.as_bytes()),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// How the page stands to us, as the browser sees it. No page can set this header itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    /// The same origin.
    Same,
    /// No page at all: an address typed in.
    NoPage,
    /// Another origin, of the same site or not: a sibling's page is not ours (rule 125).
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

/// Where the response would go, if that is not a script.
fn destination(headers: &HeaderMap) -> Option<&str> {
    single(headers, &DEST).filter(|value| DESTINATIONS.contains(value))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether the origin names the very authority that was asked: a page of our own, in a browser
/// that does not say `Sec-Fetch-Site`. The scheme is not compared, since we may stand behind a
/// proxy that ends TLS.
fn is_own(origin: &[u8], uri: &Uri, headers: &HeaderMap) -> bool {
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
    // An `Origin` never tells a default port; a `Host` may.
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let authority = authority.strip_suffix(default).unwrap_or(authority);
    !rest.is_empty() && rest.eq_ignore_ascii_case(authority)
}
