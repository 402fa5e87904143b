//! [`StateChannel<S, E>`]: a state and the channel of its changes, changed under one lock.

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

/// A state `S` that clients see whole when they arrive, and then event by event (`E`).
///
/// A change is published and applied under one lock, so a snapshot always stands exactly at the
/// id of the last event that it contains: nothing between the two is lost, and nothing is
/// applied twice.
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
/// async fn scores(State(board): State<StateChannel<Scores, Goal>>, last: LastEventId) -> impl IntoResponse {
///     board.subscribe(last)
/// }
///
/// let board = StateChannel::new(Scores::new(), |scores, goal: &Goal| {
///     *scores.entry(goal.team.clone()).or_default() += 1;
/// });
/// board.publish(&Goal { team: "blue".into() })?;
/// assert_eq!(board.read(|scores| scores["blue"])?, 1);
/// # Ok::<(), axum_sse::Error>(())
/// ```
///
/// A new client gets an event named `snapshot` (see
/// [`snapshot_name`](crate::ChannelBuilder::snapshot_name)) with the state as JSON, and then the events
/// behind it; so does a client with a gap, behind its gap event. A client that can resume gets
/// the events it missed, and no snapshot.
///
/// The state is serialised under the board's lock, once for all who ask at the same time; what
/// comes out also serves later clients, with the events that follow it (see
/// [`Channel::snapshot`](crate::Channel::snapshot)). The functions that are given to a board, and the `Serialize`s of its types, run under that lock:
/// they must not use the board itself.
///
/// Cheap to clone; all clones are one board.
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
    /// An event is being applied; or it was, and that has panicked.
    broken: bool,
}

impl<S, E> StateChannel<S, E>
where
    S: Serialize + Send + 'static,
    E: Serialize,
{
    /// A board with a channel of its own.
    ///
    /// `state` is serialised once, to see whether it can be. If not, no client will ever get it:
    /// with the feature `tracing` that is logged as an error. [`on`](StateChannel::on) returns the
    /// error.
    #[must_use]
    pub fn new(state: S, apply: impl Fn(&mut S, &E) + Send + Sync + 'static) -> Self {
        let channel = Channel::new();
        if let Err(_error) = try_out(&state) {
            #[cfg(feature = "tracing")]
            tracing::error!(error = %_error, "no client can get the state of this board");
        }
        let (board, snapshots) = Self::over(channel, state, apply);
        // The channel is new, so this is its first snapshot.
        let set = board.channel.set_snapshots(snapshots);
        debug_assert!(set.is_ok());
        board.channel.give_to_state_channel();
        board
    }

    /// A board over a given channel: one of a hub, or one with other settings. `state` contains
    /// what was published to it before. From here on only the board publishes to the channel:
    /// its other handles get an error ([`ErrorKind::NotPublishable`]), since the state would
    /// never have their events.
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
    /// [`ErrorKind::Serialize`] if `state` cannot be serialised, [`ErrorKind::HasSnapshot`] if
    /// the channel has a snapshot already; then the channel stays as it was.
    pub fn on(
        channel: Channel<E>,
        state: S,
        apply: impl Fn(&mut S, &E) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        try_out(&state)?;
        let (board, snapshots) = Self::over(channel, state, apply);
        board.channel.set_snapshots(snapshots)?;
        board.channel.give_to_state_channel();
        Ok(board)
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
        // Holds the state, and not the channel, which holds this.
        let of_state = state.clone();
        let snapshots = Snapshots::new(move || {
            let made = locked(&of_state).and_then(|at| State::of(at.id, &at.state));
            Box::pin(std::future::ready(made.map_err(Into::into)))
        });
        let apply = Arc::new(apply);
        let board = Self {
            state,
            apply,
            channel,
        };
        (board, snapshots)
    }

    /// Publishes a change and applies it to the state.
    ///
    /// # Errors
    ///
    /// Those of [`Channel::publish`], and then the state is as it was.
    /// [`ErrorKind::Poisoned`] if the function that applies events has panicked before: nobody
    /// knows what the state is then.
    pub fn publish(&self, event: &E) -> Result<Published, Error> {
        let mut at = locked(&self.state)?;
        self.change(&mut at, event)
    }

    /// Looks at the state and decides on a change, under one lock: nobody else changes it in
    /// between. With an `Err` nothing happens.
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
    /// That of `decide`, or those of [`publish`](StateChannel::publish), as an `X`.
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

    /// Looks at the state. `look` runs under the board's lock, so the state stands at
    /// `board.channel().newest()` for as long as it runs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`] as for [`publish`](StateChannel::publish).
    pub fn read<R>(&self, look: impl FnOnce(&S) -> R) -> Result<R, Error> {
        Ok(look(&locked(&self.state)?.state))
    }

    /// A subscription for the client that brings `last`; see [`Channel::subscribe`].
    #[must_use]
    pub fn subscribe(&self, last: impl Into<LastEventId>) -> Subscription {
        self.channel.subscribe(last)
    }

    /// The channel of the changes: for its figures, or to close it. Publishing to it past the
    /// board is an error.
    #[must_use]
    pub fn channel(&self) -> &Channel<E> {
        &self.channel
    }
}

/// Serialises the state as its snapshots do. Maps whose keys are no strings, for instance, compile
/// and cannot be sent.
fn try_out<S: Serialize>(state: &S) -> Result<(), Error> {
    encode::json(&mut Vec::new(), state)
}

/// A panic of a `look` or a `Serialize` leaves the state as it was; only one in the middle of a
/// change does not.
fn locked<S>(state: &Mutex<At<S>>) -> Result<MutexGuard<'_, At<S>>, Error> {
    let at = state.lock().unwrap_or_else(PoisonError::into_inner);
    if at.broken {
        return Err(Error::new(
            ErrorKind::Poisoned,
            "the function that applies events to this board has panicked",
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
