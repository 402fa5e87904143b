//! What ends a stream early: a shutdown, a maximum lifetime, and access that expires or is revoked.
//!
//! [`EndConditions`](end::EndConditions) are what the layer and the handler ask for;
//! [`StreamEnd`](end::StreamEnd) applies them to one running stream. This module uses tokio's
//! time and knows neither bodies nor connections.

#[cfg(feature = "layer")]
pub(crate) mod access;
#[cfg(feature = "layer")]
pub(crate) mod end;
pub(crate) mod shutdown;

#[cfg(feature = "layer")]
pub use access::Access;
pub use shutdown::Shutdown;
