//! [`Snapshots`]: makes the snapshots of a channel, and shares them between clients.
//!
//! A snapshot is made and encoded once. Clients that need one while it is being made wait for it.
//! Later clients get it too, as long as the log retains the events after it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::{runtime::Handle, sync::watch, time::timeout};

use crate::{
    channel::state::ChannelHandle,
    error::{BoxError, Error},
    event::{
        EventId,
        encode::{self, Ids},
    },
    sync::{Arc, Mutex, lock},
};

/// A state as `data` lines, and the id up to which it contains every event.
#[derive(Debug)]
pub(crate) struct State {
    id: EventId,
    data: Vec<u8>,
}

impl State {
    pub(crate) fn of<S: Serialize + ?Sized>(id: EventId, state: &S) -> Result<Self, Error> {
        let mut data = Vec::new();
        encode::json(&mut data, state)?;
        Ok(Self { id, data })
    }
}

/// A state as an encoded event.
#[derive(Debug)]
pub(crate) struct SharedSnapshot {
    pub(crate) id: EventId,
    event: Bytes,
    without_id: OnceLock<Bytes>,
}

impl SharedSnapshot {
    fn new(handle: &ChannelHandle, state: &State) -> Result<Self, BoxError> {
        let State { id, data } = state;
        let settings = &handle.shared.settings;
        let clock = &handle.shared.clock;
        clock
            .check(*id)
            .map_err(|_| format!("its id {id} is not an id of this channel's hub"))?;
        let mut event = Vec::with_capacity(data.len() + 256);
        if let Some(name) = handle.snapshot_name(settings) {
            encode::name(&mut event, name.as_str());
        }
        encode::id(&mut event, |out| clock.write(*id, out));
        if settings.snapshot_channel {
            // Clients join lines of data with line feeds, which are white space in JSON.
            let channel = serde_json::to_string(handle.name())?;
            encode::text(&mut event, &format!("{{\"channel\":{channel},\"state\":"));
            event.extend_from_slice(data);
            encode::text(&mut event, "}");
        } else {
            event.extend_from_slice(data);
        }
        encode::end(&mut event);
        Ok(Self {
            id: *id,
            event: event.into(),
            without_id: OnceLock::new(),
        })
    }

    /// The event with its id.
    pub(crate) fn event(&self) -> Bytes {
        self.event.clone()
    }

    /// The event for a connection over several channels, which later gets one id for all of them.
    pub(crate) fn without_id(&self) -> Bytes {
        let make = || {
            let mut out = Vec::new();
            encode::events(&mut out, &self.event, Ids::Remove);
            out.into()
        };
        self.without_id.get_or_init(make).clone()
    }
}

pub(crate) type Making = Pin<Box<dyn Future<Output = Result<State, BoxError>> + Send>>;

type Made = Option<Arc<SharedSnapshot>>;

/// `None` while the snapshot is being made.
type Receiver = watch::Receiver<Option<Made>>;

/// The answer to a request for a snapshot.
pub(crate) enum Asked {
    Ready(Arc<SharedSnapshot>),
    Pending(Pending),
}

/// A snapshot that is being made. Resolves to `None` if it fails.
pub(crate) struct Pending(Pin<Box<dyn Future<Output = Made> + Send>>);

impl Future for Pending {
    type Output = Made;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Made> {
        self.0.as_mut().poll(cx)
    }
}

#[derive(Clone)]
pub(crate) struct Snapshots(Arc<Inner>);

struct Inner {
    make: Box<dyn Fn() -> Making + Send + Sync>,
    last: Mutex<Option<Receiver>>,
}

impl Snapshots {
    pub(crate) fn new(make: impl Fn() -> Making + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            make: Box::new(make),
            last: Mutex::new(None),
        }))
    }

    /// Returns the last snapshot if it is recent, or the one that is being made, or starts a new
    /// one.
    ///
    /// Snapshots are made in a separate task, so that a client that disconnects does not cancel the
    /// snapshot of other clients. Without a runtime, the snapshot fails.
    ///
    /// The snapshot must contain `not_before`, an id that is already drawn.
    pub(crate) fn get(&self, handle: &ChannelHandle, not_before: Option<EventId>) -> Asked {
        loop {
            let last = lock(&self.0.last).clone();
            let mut outdated = None;
            if let Some(receiver) = last {
                let made = receiver.borrow().clone();
                match made {
                    // Otherwise, the sender was dropped with its runtime.
                    None if receiver.has_changed().is_ok() => return pending(receiver),
                    Some(Some(made))
                        if Some(made.id) >= not_before
                            && handle.lock().is_recent(made.id, made.event.len()) =>
                    {
                        return Asked::Ready(made);
                    }
                    _ => outdated = Some(receiver),
                }
            }
            let (sender, receiver) = watch::channel(None);
            let mut last = lock(&self.0.last);
            let is_first = match (&*last, &outdated) {
                (Some(now), Some(seen)) => now.same_channel(seen),
                (now, _) => now.is_none(),
            };
            // Another thread has just started a new one.
            if !is_first {
                continue;
            }
            let before = last.replace(receiver.clone());
            drop(last);
            // After the lock: this can free a large state.
            drop((before, outdated));
            self.spawn(handle.clone(), sender);
            return pending(receiver);
        }
    }

    fn spawn(&self, handle: ChannelHandle, sender: watch::Sender<Option<Made>>) {
        let snapshots = self.clone();
        let mut unfinished = Unfinished {
            handle,
            error: Some("its task panicked, or there is no runtime".into()),
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let limit = unfinished.handle.shared.settings.snapshot_timeout;
            let made = match timeout(limit, (snapshots.0.make)()).await {
                Ok(state) => {
                    state.and_then(|state| SharedSnapshot::new(&unfinished.handle, &state))
                }
                Err(_) => Err(format!("it took longer than {limit:?}").into()),
            };
            let (made, error) = match made {
                Ok(snapshot) => (Some(Arc::new(snapshot)), None),
                Err(error) => (None, Some(error)),
            };
            unfinished.error = error;
            // Counts a failure before the waiting streams end.
            drop(unfinished);
            sender.send_replace(Some(made));
        });
    }
}

fn pending(mut receiver: Receiver) -> Asked {
    Asked::Pending(Pending(Box::pin(async move {
        // An error means that the task panicked, or that its runtime was dropped.
        let made = receiver.wait_for(Option::is_some).await.ok()?;
        made.clone().flatten()
    })))
}

/// Reports a failed snapshot, even if its task panics.
struct Unfinished {
    handle: ChannelHandle,
    error: Option<BoxError>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(_error) = self.error.take() {
            self.handle.counters.snapshot_failed();
            self.handle.shared.counters.snapshot_failed();
            #[cfg(feature = "tracing")]
            tracing::error!(
                channel = self.handle.name(),
                error = %_error,
                "a snapshot failed"
            );
        }
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}
