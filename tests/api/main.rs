//! The public API without a server: responses are read as bodies. Time is paused.

#[cfg(test)]
mod anchor;
#[cfg(test)]
mod channel;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod last_event_id;
#[cfg(test)]
mod run;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod sse;
#[cfg(test)]
mod wake;
#[cfg(test)]
mod wire;
