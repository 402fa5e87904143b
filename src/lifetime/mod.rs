//! What ends a stream: a shutdown, its lifetime, and access that expires or is withdrawn. Knows
//! tokio's time, and neither a response nor a connection.

#[cfg(feature = "layer")]
pub(crate) mod access;
#[cfg(feature = "layer")]
pub(crate) mod end;
pub(crate) mod shutdown;

#[cfg(feature = "layer")]
pub use access::Access;
pub use shutdown::Shutdown;
