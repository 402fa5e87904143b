//! Pages of other origins: which may read ([`OriginAllowlist`]), what they may ask for
//! ([`Cors`]), and the decision about each request; and the names under which this server is
//! asked ([`Hosts`]). Knows http and tower-http, and no body.

mod allowlist;
mod entry;
mod flaws;
mod guard;
mod hosts;
mod settings;
#[cfg(test)]
mod tests;

pub use allowlist::OriginAllowlist;
pub(crate) use guard::Verdict;
pub(crate) use hosts::Hosts;
pub use settings::Cors;
