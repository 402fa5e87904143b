//! [`Access`]: how long one client may read, as decided by its handler.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use axum_core::response::{IntoResponseParts, ResponseParts};
use tokio::time::Instant;

use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// How long a client may read: until its token expires, or until its access is revoked.
///
/// A handler returns it together with the stream. When the access ends, the stream ends after a
/// whole event. The client reconnects, and the handler authorizes it again:
///
/// ```
/// use axum::{extract::State, response::IntoResponse};
/// use axum_sse::{Access, Channel, LastEventId};
/// # struct User { token_expires: std::time::SystemTime, logged_out: tokio::sync::oneshot::Receiver<()> }
/// # impl axum::extract::FromRequestParts<Channel<String>> for User {
/// #     type Rejection = ();
/// #     async fn from_request_parts(
/// #         _: &mut axum::http::request::Parts, _: &Channel<String>,
/// #     ) -> Result<Self, ()> { Err(()) }
/// # }
///
/// async fn stream(
///     user: User,
///     State(news): State<Channel<String>>,
///     last: LastEventId,
/// ) -> impl IntoResponse {
///     let logged_out = async { drop(user.logged_out.await) };
///     let access = Access::new().expires_at(user.token_expires).revoked_by(logged_out);
///     (access, news.subscribe(last))
/// }
/// # let _: axum::Router<Channel<String>> =
/// #     axum::Router::new().route("/", axum::routing::get(stream));
/// ```
///
/// **[`SseLayer`](crate::SseLayer) enforces it**: without the layer around the route, the stream
/// continues. (With the feature `tracing`, a warning is logged.)
///
/// Bytes that are already buffered when the access ends may still arrive: on HTTP/1.1 up to about
/// 400 KiB in the server, and what the kernel holds for the connection. Events published
/// afterwards never arrive, because the layer checks the access again after the stream has
/// produced a chunk, and drops that chunk. Only an event that has been sent in part may be
/// completed, for at most a second.
/// For clients that do not read, see
#[cfg_attr(feature = "listener", doc = "[`listener`](crate::listener).")]
#[cfg_attr(not(feature = "listener"), doc = "the feature `listener`.")]
#[derive(Default)]
#[must_use = "return it from the handler, together with the stream"]
pub struct Access {
    deadline: Option<Instant>,
    revoked: Vec<Revoked>,
}

type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An [`Access`] in the extensions of a response, on its way from the handler to the layer.
///
/// Extensions have to be `Clone`, and an access is not, since only one stream can wait for its
/// revocation.
#[derive(Clone)]
pub(crate) struct Carried(Arc<Shared>);

struct Shared {
    access: Mutex<Option<Access>>,
    enforced: AtomicBool,
}

impl Access {
    /// Access without an end; the other methods add one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends at `time`, or at once if `time` has passed. The remaining time is measured now; later
    /// changes of the system's clock have no effect.
    ///
    /// If several ends are set, the earliest counts.
    pub fn expires_at(self, time: SystemTime) -> Self {
        let left = time.duration_since(SystemTime::now());
        self.expires_in(left.unwrap_or(Duration::ZERO))
    }

    /// Ends when `time` has passed from now.
    ///
    /// ```
    /// use axum_sse::Access;
    /// use std::time::Duration;
    ///
    /// let access = Access::new().expires_in(Duration::from_secs(15 * 60));
    /// # let _ = access;
    /// ```
    pub fn expires_in(mut self, time: Duration) -> Self {
        // A time that the clock cannot represent never comes.
        let deadline = Instant::now().checked_add(time);
        self.deadline = earliest(self.deadline, deadline);
        self
    }

    /// Ends as soon as `future` completes. The future is polled together with the stream, in its
    /// task.
    pub fn revoked_by<F>(mut self, future: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.revoked.push(Box::pin(future));
        self
    }

    /// Ends when either of the two ends.
    fn and(mut self, other: Self) -> Self {
        self.deadline = earliest(self.deadline, other.deadline);
        self.revoked.extend(other.revoked);
        self
    }

    pub(crate) fn into_ends(self) -> (Option<Instant>, Revocations) {
        (self.deadline, Revocations(self.revoked))
    }
}

impl Carried {
    /// Takes what the handler returned; the caller has to enforce it.
    pub(crate) fn take(self) -> Option<Access> {
        self.0.enforced.store(true, Ordering::Relaxed);
        lock(&self.0.access).take()
    }
}

/// The earlier of two times; `None` means never.
pub(crate) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The futures that revoke the access to one stream.
#[derive(Default)]
pub(crate) struct Revocations(Vec<Revoked>);

impl Revocations {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ready once any of them has completed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self
            .0
            .iter_mut()
            .any(|future| future.as_mut().poll(cx).is_ready())
        {
            self.0.clear();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl IntoResponseParts for Access {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        // A handler and a middleware may each have set a limit.
        let earlier = parts.extensions_mut().remove::<Carried>();
        let access = match earlier.and_then(Carried::take) {
            Some(earlier) => earlier.and(self),
            None => self,
        };
        parts.extensions_mut().insert(Carried(Arc::new(Shared {
            access: Mutex::new(Some(access)),
            enforced: AtomicBool::new(false),
        })));
        Ok(parts)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        if !self.enforced.load(Ordering::Relaxed) {
            tracing::warn!("an `Access` had no effect: there is no `SseLayer` around its route");
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("deadline", &self.deadline)
            .field("revocable", &!self.revoked.is_empty())
            .finish_non_exhaustive()
    }
}
