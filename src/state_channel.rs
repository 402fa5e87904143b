//! [`StateChannel<S, E>`]: a state and the channel of its changes, both behind one lock.

use std::{
    borrow::Borrow,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::{
    channel::{
        Channel,
        published::Published,
        snapshot::{Snapshots, State},
        subscription::Subscription,
    },
    error::{Error, ErrorKind},
    event::{EventId, encode},
    last_event_id::LastEventId,
};

/// Sends each client a state `S` as a snapshot, and then its changes as events `E`.
///
/// Each change is published and applied under one lock, so the id of a snapshot is exactly that of
/// the last event it contains. No change is lost or applied twice.
///
/// ```
/// use axum::{extract::State, response::IntoResponse};
/// use axum_sse::{StateChannel, LastEventId};
/// use std::collections::BTreeMap;
///
/// #[derive(serde::Serialize)]
/// struct Goal { team: String }
///
/// type Scores = BTreeMap<String, u32>;
///
/// async fn stream(State(scores): State<StateChannel<Scores, Goal>>, last: LastEventId) -> impl IntoResponse {
///     scores.subscribe(last)
/// }
///
/// let scores = StateChannel::new(Scores::new(), |scores, goal: &Goal| {
///     *scores.entry(goal.team.clone()).or_default() += 1;
/// });
/// scores.publish(&Goal { team: "blue".into() })?;
/// assert_eq!(scores.read(|scores| scores["blue"])?, 1);
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// A new client receives the state as JSON in an event named `snapshot` (or another
/// [name](crate::ChannelBuilder::snapshot_name)), and then the events after it. A client with a gap
/// receives the same after its `gap` event. A client that can resume receives only the events that
/// it missed.
///
/// The state is serialized under the lock, once for all clients that subscribe at the same time.
/// The snapshot is reused for later clients, followed by newer events: see [`Channel::snapshot`].
///
/// Your closures and `Serialize` implementations run under that lock, so they must not use the state
/// channel itself: that can deadlock.
///
/// Cheap to clone; all clones share one state and one channel.
pub struct StateChannel<S, E> {
    state: Arc<Mutex<At<S>>>,
    apply: Apply<S, E>,
    channel: Channel<E>,
}

type Apply<S, E> = Arc<dyn Fn(&mut S, &E) + Send + Sync>;

struct At<S> {
    state: S,
    /// The id of the last event that `state` contains.
    id: EventId,
    /// Whether an event is being applied, or applying one has panicked.
    broken: bool,
}

impl<S, E> StateChannel<S, E>
where
    S: Serialize + Send + 'static,
    E: Serialize,
{
    /// Creates a state channel on a new channel with default settings. `apply` applies an event to
    /// the state.
    ///
    /// `state` is serialized once as a check. If that fails, clients can never receive it; with the
    /// feature `tracing`, the failure is logged as an error. [`on`](StateChannel::on) returns it.
    #[must_use]
    pub fn new(state: S, apply: impl Fn(&mut S, &E) + Send + Sync + 'static) -> Self {
        let channel = Channel::new();
        if let Err(_error) = try_out(&state) {
            #[cfg(feature = "tracing")]
            tracing::error!(error = %_error, "the state cannot be sent to clients");
        }
        let (this, snapshots) = Self::over(channel, state, apply);
        // The channel is new, so this is its first snapshot.
        let set = this.channel.set_snapshots(snapshots);
        debug_assert!(set.is_ok());
        this.channel.give_to_state_channel();
        this
    }

    /// Creates a state channel on an existing channel: one of a hub, or one with other settings.
    ///
    /// `state` must include the events published to the channel so far. From now on, only the state
    /// channel can publish to it: other handles get [`ErrorKind::NotPublishable`], because the state
    /// would miss their events.
    ///
    /// ```
    /// use axum_sse::{StateChannel, Channel};
    ///
    /// let changes: Channel<u32> = Channel::builder().capacity(100).build();
    /// let sum = StateChannel::on(changes.clone(), 0, |sum, change: &u32| *sum += change)?;
    /// sum.publish(&7)?;
    /// assert_eq!(sum.channel().newest(), changes.newest());
    /// # Ok::<(), axum_sse::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Serialize`] if `state` cannot be serialized, [`ErrorKind::HasSnapshot`] if the
    /// channel already has a snapshot. The channel is then unchanged.
    pub fn on(
        channel: Channel<E>,
        state: S,
        apply: impl Fn(&mut S, &E) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        try_out(&state)?;
        let (this, snapshots) = Self::over(channel, state, apply);
        this.channel.set_snapshots(snapshots)?;
        this.channel.give_to_state_channel();
        Ok(this)
    }

    fn over(
        channel: Channel<E>,
        state: S,
        apply: impl Fn(&mut S, &E) + Send + Sync + 'static,
    ) -> (Self, Snapshots) {
        let id = channel.hub_newest();
        let state = Arc::new(Mutex::new(At {
            state,
            id,
            broken: false,
        }));
        // Owns the state but not the channel, which owns this closure: a cycle would leak.
        let of_state = state.clone();
        let snapshots = Snapshots::new(move || {
            let made = locked(&of_state).and_then(|at| State::of(at.id, &at.state));
            Box::pin(std::future::ready(made.map_err(Into::into)))
        });
        let apply = Arc::new(apply);
        let this = Self {
            state,
            apply,
            channel,
        };
        (this, snapshots)
    }

    /// Publishes a change and applies it to the state.
    ///
    /// # Errors
    ///
    /// Those of [`Channel::publish`], after which the state is unchanged. [`ErrorKind::Poisoned`] if
    /// `apply` has panicked before, which may have left the state half changed.
    pub fn publish(&self, event: &E) -> Result<Published, Error> {
        let mut at = locked(&self.state)?;
        self.change(&mut at, event)
    }

    /// Reads the state and decides on a change, both under one lock, so that no other change comes
    /// in between. If `decide` returns an error, nothing is published.
    ///
    /// ```
    /// use axum_sse::{StateChannel, BoxError};
    ///
    /// let seats = StateChannel::new(3u32, |free, taken: &u32| *free -= taken);
    /// let take = |wanted: u32| {
    ///     seats.update(|free| match wanted <= *free {
    ///         true => Ok(wanted),
    ///         false => Err(BoxError::from("sold out")),
    ///     })
    /// };
    /// assert!(take(2).is_ok());
    /// assert_eq!(take(2).unwrap_err().to_string(), "sold out");
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `decide`, or those of [`publish`](StateChannel::publish), converted to `X`.
    pub fn update<B, X>(&self, decide: impl FnOnce(&S) -> Result<B, X>) -> Result<Published, X>
    where
        B: Borrow<E>,
        X: From<Error>,
    {
        let mut at = locked(&self.state)?;
        let event = decide(&at.state)?;
        Ok(self.change(&mut at, event.borrow())?)
    }

    fn change(&self, at: &mut At<S>, event: &E) -> Result<Published, Error> {
        at.id = self.channel.append_value(event)?;
        at.broken = true;
        (self.apply)(&mut at.state, event);
        at.broken = false;
        Ok(Published::new(at.id))
    }

    /// Reads the state. `look` runs under the lock, so while it runs, the id of the state is
    /// `channel().newest()`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`] as in [`publish`](StateChannel::publish).
    pub fn read<R>(&self, look: impl FnOnce(&S) -> R) -> Result<R, Error> {
        Ok(look(&locked(&self.state)?.state))
    }

    /// A subscription for the client with the last id `last`: see [`Channel::subscribe`].
    #[must_use]
    pub fn subscribe(&self, last: impl Into<LastEventId>) -> Subscription {
        self.channel.subscribe(last)
    }

    /// The channel of the changes, for its statistics or to close it. Publishing to it directly is
    /// an error.
    #[must_use]
    pub fn channel(&self) -> &Channel<E> {
        &self.channel
    }
}

/// Checks that the state can be serialized. A map whose keys are not strings, for instance, cannot.
fn try_out<S: Serialize>(state: &S) -> Result<(), Error> {
    encode::json(&mut Vec::new(), state)
}

/// Locks the state. Fails only after a panic of `apply`: a panic of `look` or `Serialize` does not
/// change the state, so it is ignored.
fn locked<S>(state: &Mutex<At<S>>) -> Result<MutexGuard<'_, At<S>>, Error> {
    let at = state.lock().unwrap_or_else(PoisonError::into_inner);
    if at.broken {
        return Err(Error::new(
            ErrorKind::Poisoned,
            "the function that applies events to the state has panicked",
        ));
    }
    Ok(at)
}

impl<S, E> Clone for StateChannel<S, E> {
    fn clone(&self) -> Self {
        let Self {
            state,
            apply,
            channel,
        } = self;
        Self {
            state: state.clone(),
            apply: apply.clone(),
            channel: channel.clone(),
        }
    }
}

impl<S, E> fmt::Debug for StateChannel<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateChannel")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}
