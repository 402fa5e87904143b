//! [`StreamEnd`]: what ends one stream early, and when.
//!
//! Asked by the stream's body with each poll and, if the client does not read, so that the body
//! is not polled, by its connection. Both live in one task on HTTP/1.1.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    lifetime::{
        access::{Revocations, earliest},
        shutdown::{Shutdown, Waiting},
    },
    sync::{AtomicBool, Mutex, Ordering, lock},
};

/// How long after its end a stream may go on to reach a whole event, and how long its last bytes
/// may take.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// One stream's ends. Made with its first poll.
///
/// The state is out of its place while it is asked, since that runs code of others (wakers, and
/// what withdraws an access), which never happens under a lock.
pub(crate) struct StreamEnd {
    state: Mutex<Option<Box<State>>>,
    /// If nothing but a shutdown ends the stream, that is soon asked.
    only: Option<Shutdown>,
    /// The connection was the last to ask, and the one who will be woken.
    taken_over: AtomicBool,
}

struct State {
    /// With the share of the time to drain after which this stream ends.
    shutdown: Option<(Waiting, f64)>,
    deadline: Option<Instant>,
    revocations: Revocations,
    alarm: Option<Pin<Box<Sleep>>>,
    due: Option<Due>,
}

/// The end of a stream has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    at: Instant,
    /// The client should be told when to come back, so that not all come at once.
    pub(crate) retry: bool,
}

impl StreamEnd {
    /// `None` if nothing ends the stream early. A stream that starts after the shutdown began
    /// does not wait for its share of the time to drain.
    pub(crate) fn new(
        shutdown: Option<&Shutdown>,
        deadline: Option<Instant>,
        revocations: Revocations,
        share: f64,
    ) -> Option<Self> {
        if shutdown.is_none() && deadline.is_none() && revocations.is_empty() {
            return None;
        }
        let only = shutdown.filter(|_| deadline.is_none() && revocations.is_empty());
        let only = only.cloned();
        let shutdown = shutdown.map(|shutdown| {
            let share = if shutdown.has_begun() { 0.0 } else { share };
            (shutdown.wait_as_stream(), share)
        });
        let state = State {
            shutdown,
            deadline,
            revocations,
            alarm: None,
            due: None,
        };
        Some(Self {
            state: Mutex::new(Some(Box::new(state))),
            only,
            taken_over: AtomicBool::new(false),
        })
    }

    /// Whether it is certain, at the price of two loads, that nothing is due, and that whoever
    /// asked before will be woken. It is asked for every chunk of every stream.
    pub(crate) fn is_quiet(&self) -> bool {
        self.only
            .as_ref()
            .is_some_and(|shutdown| !shutdown.has_begun())
            && !self.taken_over.load(Ordering::Relaxed)
    }

    /// Ready once the stream has to end.
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Due> {
        self.taken_over.store(false, Ordering::Relaxed);
        self.with(cx, |state, cx| state.poll_due(cx))
    }

    /// Ready once it has had to for the time of grace.
    pub(crate) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<Due> {
        self.taken_over.store(true, Ordering::Relaxed);
        self.with(cx, |state, cx| {
            let due = ready!(state.poll_due(cx));
            ready!(state.poll_alarm(due.at + GRACE, cx));
            Poll::Ready(due)
        })
    }

    /// Whether the access has been withdrawn since the last poll.
    pub(crate) fn is_revoked(&self, cx: &mut Context<'_>) -> bool {
        self.with(cx, |state, cx| state.revocations.poll(cx))
            .is_ready()
    }

    fn with<T>(
        &self,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut State, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Some(mut state) = lock(&self.state).take() else {
            // Somebody else is asking at this very moment.
            self.taken_over.store(true, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let answer = ask(&mut state, cx);
        *lock(&self.state) = Some(state);
        answer
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
            ready!(self.poll_alarm(deadline, cx));
            deadline
        };
        let due = Due { at, retry };
        self.due = Some(due);
        Poll::Ready(due)
    }

    fn poll_alarm(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if alarm.deadline() != at {
            alarm.as_mut().reset(at);
        }
        alarm.as_mut().poll(cx)
    }
}
