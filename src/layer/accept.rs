//! Does the client take an event stream? Asked only where an operator wants it strict.

use http::{HeaderMap, header::ACCEPT};

/// Whether a range in `Accept` covers `text/event-stream` with a quality above 0 (rule 59). The
/// most specific range decides, as RFC 9110 says in 12.5.1; without the header, everything goes.
pub(super) fn takes_event_streams(headers: &HeaderMap) -> bool {
    let mut best = None;
    let mut asked = false;
    for value in headers.get_all(ACCEPT) {
        asked = true;
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let specificity = match parts.next().unwrap_or_default() {
                range if range.eq_ignore_ascii_case("text/event-stream") => 2,
                range if range.eq_ignore_ascii_case("text/*") => 1,
                "*/*" => 0,
                _ => continue,
            };
            let refused = parts.any(is_zero_quality);
            if best.is_none_or(|(known, _)| specificity > known) {
                best = Some((specificity, !refused));
            }
        }
    }
    match best {
        Some((_, taken)) => taken,
        None => !asked,
    }
}

/// `q=0`, `q=0.0` and so on.
fn is_zero_quality(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0f32)
}
