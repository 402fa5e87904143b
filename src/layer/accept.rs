//! Whether the client accepts an event stream. Checked only with `SseLayer::strict_accept`.

use http::{HeaderMap, header::ACCEPT};

/// Whether a media range in `Accept` covers `text/event-stream` with a quality above 0. As in
/// [RFC 9110, 12.5.1](https://www.rfc-editor.org/rfc/rfc9110.html#section-12.5.1), the most
/// specific range decides, and without the header everything is acceptable.
pub(super) fn takes_event_streams(headers: &HeaderMap) -> bool {
    let mut best = None;
    let mut is_present = false;
    for value in headers.get_all(ACCEPT) {
        is_present = true;
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let specificity = match parts.next().unwrap_or_default() {
                range if range.eq_ignore_ascii_case("text/event-stream") => 2,
                range if range.eq_ignore_ascii_case("text/*") => 1,
                "*/*" => 0,
                _ => continue,
            };
            let is_excluded = parts.any(is_zero_quality);
            if best.is_none_or(|(known, _)| specificity > known) {
                best = Some((specificity, !is_excluded));
            }
        }
    }
    match best {
        Some((_, accepted)) => accepted,
        None => !is_present,
    }
}

/// `q=0`, `q=0.0` and so on.
fn is_zero_quality(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0f32)
}
