//! [`StreamEnd`]: what ends one stream early, and when.
//!
//! The stream's body (`layer/body.rs`) polls it before every chunk, and ends the stream. A client
//! that does not read stops those polls, so its connection polls the same object while a write is
//! blocked. On HTTP/1.1 one task drives both.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    event::retry,
    lifetime::{
        access::{Access, Revocations, earliest},
        shutdown::{Shutdown, Waiting},
    },
    sync::{AtomicBool, Mutex, Ordering, lock},
};

/// How long a stream that has to end may continue until the end of an event, and how long its
/// last bytes may take to be written.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// What may end a stream early, before the stream has begun.
///
/// Nothing is registered and no clock runs yet, so a response that is dropped without a poll
/// leaves no trace.
pub(crate) struct EndConditions {
    pub(crate) shutdown: Option<Shutdown>,
    /// Counted from the stream's first poll.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) access: Option<Access>,
}

impl EndConditions {
    pub(crate) fn is_empty(&self) -> bool {
        self.shutdown.is_none() && self.lifetime.is_none() && self.access.is_none()
    }

    /// The stream begins. `None` if nothing ends it early after all.
    pub(crate) fn begin(self) -> Option<StreamEnd> {
        let (expires, revocations) = self.access.map(Access::into_ends).unwrap_or_default();
        let lifetime = self.lifetime.and_then(|time| {
            // The last quarter is random, so that streams that began together end apart.
            let time = time.mul_f64(1.0 - retry::share() / 4.0);
            Instant::now().checked_add(time)
        });
        let is_revocable = !revocations.is_empty();
        let end = StreamEnd::new(
            self.shutdown.as_ref(),
            earliest(expires, lifetime),
            revocations,
            retry::share(),
        )?;
        Some(StreamEnd {
            expires,
            is_revocable,
            ..end
        })
    }
}

/// What ends one running stream.
pub(crate) struct StreamEnd {
    /// Empty while it is polled: polling runs foreign code (wakers and revocation futures), which
    /// must not run under a lock.
    state: Mutex<Option<Box<State>>>,
    /// Set if a shutdown is all that can end the stream: the common case, with a cheap check.
    only_shutdown: Option<Shutdown>,
    /// When the access ends. A lifetime is not part of this.
    expires: Option<Instant>,
    is_revocable: bool,
    /// The waker that will be woken may not be the body's, so [`Self::is_quiet`] must not let the
    /// body skip a poll. Set by `poll_overdue`, which usually runs for the connection, and if two
    /// tasks poll at once.
    is_waker_uncertain: AtomicBool,
}

struct State {
    /// With this stream's share of the drain time: it ends after that part of it.
    shutdown: Option<(Waiting, f64)>,
    deadline: Option<Instant>,
    revocations: Revocations,
    timer: Option<Pin<Box<Sleep>>>,
    due: Option<Due>,
}

/// The stream has to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    at: Instant,
    /// A shutdown is in progress: every client needs a different reconnection time, so that they
    /// do not all return at once.
    pub(crate) retry: bool,
}

impl StreamEnd {
    /// `None` if nothing ends the stream early. A stream that begins during a shutdown ends at
    /// once instead of after its share of the drain time.
    pub(crate) fn new(
        shutdown: Option<&Shutdown>,
        deadline: Option<Instant>,
        revocations: Revocations,
        share: f64,
    ) -> Option<Self> {
        if shutdown.is_none() && deadline.is_none() && revocations.is_empty() {
            return None;
        }
        let is_only = deadline.is_none() && revocations.is_empty();
        let only_shutdown = shutdown.filter(|_| is_only).cloned();
        let shutdown = shutdown.map(|shutdown| {
            let share = if shutdown.has_begun() { 0.0 } else { share };
            (shutdown.wait_as_stream(), share)
        });
        let state = State {
            shutdown,
            deadline,
            revocations,
            timer: None,
            due: None,
        };
        Some(Self {
            state: Mutex::new(Some(Box::new(state))),
            only_shutdown,
            expires: None,
            is_revocable: false,
            is_waker_uncertain: AtomicBool::new(false),
        })
    }

    /// Whether nothing is due and the body that polled last will still be woken. Costs two loads,
    /// since it is called for every chunk of every stream. `false` means "poll to find out".
    pub(crate) fn is_quiet(&self) -> bool {
        self.only_shutdown
            .as_ref()
            .is_some_and(|shutdown| !shutdown.has_begun())
            && !self.is_waker_uncertain.load(Ordering::Relaxed)
    }

    /// For the body: ready once the stream has to end.
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Due> {
        self.is_waker_uncertain.store(false, Ordering::Relaxed);
        self.poll_state(cx, State::poll_due)
    }

    /// For the connection, and for a body inside an event that does not end: ready once [`GRACE`]
    /// has passed since the stream had to end.
    pub(crate) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<Due> {
        self.is_waker_uncertain.store(true, Ordering::Relaxed);
        self.poll_state(cx, |state, cx| {
            let due = ready!(state.poll_due(cx));
            ready!(state.poll_timer(due.at + GRACE, cx));
            Poll::Ready(due)
        })
    }

    /// Whether the client's access has ended since the last poll. Costs two loads for a stream
    /// without an [`Access`].
    pub(crate) fn is_access_over(&self, cx: &mut Context<'_>) -> bool {
        let revoked = |state: &mut State, cx: &mut Context<'_>| state.revocations.poll(cx);
        (self.is_revocable && self.poll_state(cx, revoked).is_ready())
            || self.expires.is_some_and(|at| at <= Instant::now())
    }

    fn poll_state<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut State, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Some(mut state) = lock(&self.state).take() else {
            // Another task is polling right now. Poll again, since its waker may be registered.
            self.is_waker_uncertain.store(true, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let result = poll(&mut state, cx);
        *lock(&self.state) = Some(state);
        result
    }
}

impl State {
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if let Some(due) = self.due {
            return Poll::Ready(due);
        }
        let mut retry = false;
        if let Some((waiting, share)) = &mut self.shutdown
            && waiting.poll(cx).is_ready()
        {
            self.deadline = earliest(self.deadline, waiting.shutdown().moment(*share));
            retry = true;
        }
        let at = if self.revocations.poll(cx).is_ready() {
            Instant::now()
        } else {
            let Some(deadline) = self.deadline else {
                return Poll::Pending;
            };
            ready!(self.poll_timer(deadline, cx));
            deadline
        };
        let due = Due { at, retry };
        self.due = Some(due);
        Poll::Ready(due)
    }

    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}
