//! [`Logged`]: collects the log events of a test.

use std::fmt::Debug;

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::Field,
    span::{Attributes, Id, Record},
};

use crate::sync::{Arc, Mutex, lock};

/// Collects the events of one level. Install it with [`tracing::subscriber::set_default`], which
/// covers the current thread.
#[derive(Clone)]
pub(crate) struct Logged {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Logged {
    pub(crate) fn new(level: Level) -> Self {
        Self {
            level,
            lines: Arc::default(),
        }
    }

    /// The events since the last call, each as `field: value; ` for every field.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.lines))
    }
}

impl Subscriber for Logged {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            line += &format!("{field}: {value:?}; ");
        });
        lock(&self.lines).push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
