//! Pages of other origins: which may read ([`OriginAllowlist`]), what they may ask for
//! ([`Cors`]), and the decision about each request. Knows http and tower-http, and no body.

mod allowlist;
mod entry;
mod guard;
mod settings;
#[cfg(test)]
mod tests;

pub use allowlist::OriginAllowlist;
pub(crate) use guard::Verdict;
pub use settings::Cors;
