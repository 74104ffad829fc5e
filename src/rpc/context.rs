//! What a handler knows of its call, and what goes along with the calls that it makes.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bound::Bound;
use super::channel::Channel;
use super::code::Code;
use super::metadata::{Metadata, MetadataError};
use super::span::TraceParent;
use super::timer::Timer;
use crate::addr::{Addr, Wire};
use crate::error::NotCarried;
use crate::handle::Session;

/// A call as its handler sees it: deadline, cancellation, metadata, peer; and the parent of the calls that it makes.
///
/// Cheap to clone; clones are the same context. One that is made by [`new`](Self::new) belongs to no call: it bounds and
/// cancels all calls of which it is the parent.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use ringmux::rpc::{Code, Context};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cx = Context::new().with_timeout(Duration::from_secs(1));
/// let child = cx.with_timeout(Duration::from_secs(60));
/// assert_eq!(child.deadline(), cx.deadline()); // the smaller one
///
/// cx.cancel();
/// assert_eq!(child.cancelled().await, Code::CANCELLED);
/// # }
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    deadline: Option<Instant>,
    metadata: Metadata,
    /// `None` for one that belongs to no call.
    call: Option<(&'static str, Arc<Peer>)>,
    /// The one that this was made from, all the way up: it has the cancellation and the metadata of the answer.
    root: Option<Context>,
    cancel: Cancel,
    answer: OnceLock<Box<Answer>>,
    /// Of the span that serves the call.
    trace: OnceLock<TraceParent>,
    value: Option<Arc<Value>>,
}

/// Who calls.
pub(super) struct Peer {
    pub(super) session: Session,
    pub(super) bound: Arc<Bound>,
    /// Back to it, once it is asked for.
    channel: OnceLock<Channel>,
}

impl Peer {
    pub(super) fn new(session: Session, bound: Arc<Bound>) -> Self {
        Self {
            session,
            bound,
            channel: OnceLock::new(),
        }
    }
}

#[derive(Default)]
struct Cancel {
    /// 0: not cancelled.
    code: AtomicU32,
    /// The application waits for it.
    watched: AtomicBool,
    notify: Notify,
}

/// Metadata for the answer that was not sent yet.
#[derive(Default)]
struct Answer {
    entries: SegQueue<(Part, Metadata)>,
    headers_bytes: AtomicUsize,
    trailers_bytes: AtomicUsize,
}

/// Where in an answer metadata goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Headers,
    Trailers,
}

struct Value {
    value: Box<dyn Any + Send + Sync>,
    next: Option<Arc<Self>>,
}

impl Context {
    /// A context that belongs to no call: without a deadline, metadata or peer.
    #[must_use]
    pub fn new() -> Self {
        Self::of(None, Metadata::new(), None)
    }

    pub(super) fn of(
        deadline: Option<Instant>,
        metadata: Metadata,
        call: Option<(&'static str, Arc<Peer>)>,
    ) -> Self {
        Self(Arc::new(Inner {
            deadline,
            metadata,
            call,
            root: None,
            cancel: Cancel::default(),
            answer: OnceLock::new(),
            trace: OnceLock::new(),
            value: None,
        }))
    }

    /// Makes it the context of another call of the same peer, if no other owner is left; else the metadata comes back.
    pub(super) fn renew(
        &mut self,
        method: &'static str,
        deadline: Option<Instant>,
        metadata: Metadata,
    ) -> Result<(), Metadata> {
        let Some(inner) = Arc::get_mut(&mut self.0) else {
            return Err(metadata);
        };
        let Some(call) = &mut inner.call else {
            return Err(metadata);
        };
        call.0 = method;
        inner.deadline = deadline;
        inner.metadata = metadata;
        if *inner.cancel.code.get_mut() != 0 || *inner.cancel.watched.get_mut() {
            inner.cancel = Cancel::default();
        }
        if inner.answer.get().is_some() {
            inner.answer = OnceLock::new();
        }
        if inner.trace.get().is_some() {
            inner.trace = OnceLock::new();
        }
        Ok(())
    }

    /// When the call has to be over; `None`: no limit.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// How much time is left; `None`: no limit.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let now = Instant::now();
        self.0.deadline.map(|at| at.saturating_duration_since(now))
    }

    /// A context that ends no later than `timeout` from now, and not later than this one. It is cancelled with this one; its time ends
    /// the calls of which it is the parent, and those made from it, and no other.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let at = Instant::now().checked_add(timeout);
        let deadline = match (at, self.0.deadline) {
            (Some(at), Some(own)) => Some(at.min(own)),
            (at, own) => at.or(own),
        };
        self.child(deadline, self.0.value.clone())
    }

    /// A context that has a value as well, such as who the caller is: for interceptors.
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Self {
        let value = Value {
            value: Box::new(value),
            next: self.0.value.clone(),
        };
        self.child(self.0.deadline, Some(Arc::new(value)))
    }

    fn child(&self, deadline: Option<Instant>, value: Option<Arc<Value>>) -> Self {
        Self(Arc::new(Inner {
            deadline,
            metadata: self.0.metadata.clone(),
            call: None,
            root: Some(self.root().clone()),
            cancel: Cancel::default(),
            answer: OnceLock::new(),
            trace: OnceLock::new(),
            value,
        }))
    }

    /// The latest value of this type that was added.
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let mut next = self.0.value.as_deref();
        while let Some(value) = next {
            if let Some(found) = value.value.downcast_ref() {
                return Some(found);
            }
            next = value.next.as_deref();
        }
        None
    }

    // ---- the call -----------------------------------------------------------------------------

    /// Metadata that came with the request.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The method that was called; empty for a context that belongs to no call.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.call().map_or("", |(method, _)| method)
    }

    /// Where the caller is, as the socket says.
    #[must_use]
    pub fn peer_addr(&self) -> Option<&Addr> {
        self.session().and_then(Session::peer_addr)
    }

    /// The session that the call came over. Who keeps the context keeps the session.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.call().map(|(_, peer)| &peer.session)
    }

    /// A channel back to the caller, which may be a server as well: one for all calls of a session. `None` for a context that belongs to
    /// no call.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        let (_, peer) = self.call()?;
        let channel = || Channel::new(peer.session.clone());
        Some(peer.channel.get_or_init(channel).clone())
    }

    /// Where the call is in a trace: in the span that serves it, with the feature `rpc-tracing` if that is enabled; else in its
    /// caller's, as the entry `traceparent` of its [metadata](Self::metadata) says. Calls of which this is the parent carry it on.
    #[must_use]
    pub fn trace_parent(&self) -> Option<TraceParent> {
        let own = self.root().0.trace.get().copied();
        own.or_else(|| TraceParent::of(&self.0.metadata))
    }

    pub(super) fn set_trace(&self, trace: TraceParent) {
        let _ = self.root().0.trace.set(trace);
    }

    fn call(&self) -> Option<&(&'static str, Arc<Peer>)> {
        self.root().0.call.as_ref()
    }

    fn root(&self) -> &Self {
        self.0.root.as_ref().unwrap_or(self)
    }

    // ---- the answer ---------------------------------------------------------------------------

    /// Adds metadata that goes before the answer's first message; what is added later is not sent.
    ///
    /// # Errors
    /// As [`Metadata::insert`], for all that is to go together; [`MetadataError::NotCarried`] over DRPC.
    pub fn add_header(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        self.add(Part::Headers, key, value.as_ref())
    }

    /// Adds metadata that goes after the answer's last message; it is not sent if the call fails: see
    /// [`Status::with_metadata`](super::Status::with_metadata).
    ///
    /// # Errors
    /// As [`Metadata::insert`], for all that is to go together; [`MetadataError::NotCarried`] over DRPC.
    pub fn add_trailer(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        self.add(Part::Trailers, key, value.as_ref())
    }

    fn add(&self, part: Part, key: &str, value: &[u8]) -> Result<(), MetadataError> {
        let mut entry = Metadata::new();
        entry.insert(key, value)?;
        let session = self.session();
        if session.is_some_and(|session| session.wire() != Wire::Native) {
            return Err(MetadataError::NotCarried(NotCarried::AnswerMetadata));
        }
        let answer = self.root().0.answer.get_or_init(Box::default);
        let bytes = match part {
            Part::Headers => &answer.headers_bytes,
            Part::Trailers => &answer.trailers_bytes,
        };
        let cost = entry.encoded_len();
        // ORDERING: a sum, which publishes nothing.
        let len = bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let limit = Metadata::MAX_BYTES;
        if len > limit {
            bytes.fetch_sub(cost, Ordering::Relaxed);
            return Err(MetadataError::TooLong { len, limit });
        }
        answer.entries.push((part, entry));
        Ok(())
    }

    /// Whether metadata goes with the answer.
    pub(super) fn has_answer(&self) -> bool {
        self.root().0.answer.get().is_some()
    }

    /// Takes the entries that were added for this part of the answer.
    pub(super) fn take_answer(&self, wanted: Part) -> Option<Bytes> {
        let answer = self.root().0.answer.get()?;
        let mut taken = Metadata::new();
        for _ in 0..answer.entries.len() {
            let Some((part, entry)) = answer.entries.pop() else {
                break;
            };
            if part == wanted {
                // Its size was checked when it was added.
                let _ = taken.extend(&entry);
            } else {
                answer.entries.push((part, entry));
            }
        }
        (!taken.is_empty()).then(|| Bytes::copy_from_slice(taken.as_bytes()))
    }

    // ---- cancellation -------------------------------------------------------------------------

    /// Waits until the call is given up, and tells why: [`Code::CANCELLED`],
    /// [`Code::DEADLINE_EXCEEDED`], or [`Code::UNAVAILABLE`] if the session ended.
    ///
    /// A handler that never waits for it is dropped at that moment. One that does goes on instead, for
    /// [`CLEANUP_MAX`](super::CLEANUP_MAX) at most, to clean up; its return value is not sent.
    ///
    /// A context with [a time of its own](Self::with_timeout) is given up when that is over, too; that needs tokio's clock, without which
    /// the cancel is waited for alone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn cancelled(&self) -> Code {
        self.root().0.cancel.watched.store(true, Ordering::Relaxed);
        let mut waiting = pin!(self.wait_cancelled());
        let mut timer = Timer::new(self.own_deadline());
        poll_fn(|task| {
            if let Poll::Ready(code) = waiting.as_mut().poll(task) {
                return Poll::Ready(code);
            }
            match timer.poll(task).map(|()| timer.reason()) {
                Poll::Ready(code @ Code::DEADLINE_EXCEEDED) => Poll::Ready(code),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Why the call was given up; `None` while it goes on, and this context has time.
    #[must_use]
    pub fn cancellation(&self) -> Option<Code> {
        let is_over = || self.own_deadline().is_some_and(|at| at <= Instant::now());
        self.cancelled_with()
            .or_else(|| is_over().then_some(Code::DEADLINE_EXCEEDED))
    }

    /// The deadline that the library keeps for no call.
    fn own_deadline(&self) -> Option<Instant> {
        let of_root = self.root().0.deadline;
        self.0.deadline.filter(|own| of_root != Some(*own))
    }

    /// Why it was cancelled.
    pub(super) fn cancelled_with(&self) -> Option<Code> {
        // ORDERING: pairs with `cancel_with`; everything before the cancel is seen.
        match self.root().0.cancel.code.load(Ordering::Acquire) {
            0 => None,
            code => Some(Code::new(code)),
        }
    }

    /// Cancels the calls of which this context, or one that was made from it or it was made from, is the parent.
    pub fn cancel(&self) {
        self.cancel_with(Code::CANCELLED);
    }

    pub(super) async fn wait_cancelled(&self) -> Code {
        let cancel = &self.root().0.cancel;
        let mut notified = std::pin::pin!(cancel.notify.notified());
        loop {
            notified.as_mut().enable();
            if let Some(code) = self.cancelled_with() {
                return code;
            }
            notified.as_mut().await;
            notified.set(cancel.notify.notified());
        }
    }

    pub(super) fn cancel_with(&self, code: Code) {
        let cancel = &self.root().0.cancel;
        let (success, failure) = (Ordering::Release, Ordering::Relaxed);
        // ORDERING: pairs with `cancelled_with`. The first reason stays.
        let _ = cancel
            .code
            .compare_exchange(0, code.number(), success, failure);
        cancel.notify.notify_waiters();
    }

    /// Whether the application waits for the end of the call.
    pub(super) fn is_watched(&self) -> bool {
        self.root().0.cancel.watched.load(Ordering::Relaxed)
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("method", &self.method())
            .field("deadline", &self.0.deadline)
            .field("metadata", &self.0.metadata)
            .field("cancellation", &self.cancellation())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_context_with_a_time_of_its_own_is_given_up_when_that_is_over() {
        let cx = Context::new();
        let (long, short) = (cx.with_timeout(60 * SECOND), cx.with_timeout(SECOND));
        let below = short.with_timeout(60 * SECOND).with_value("below");
        let begun = Instant::now();
        let given_up = tokio::time::timeout(30 * SECOND, short.cancelled());
        assert_eq!(given_up.await, Ok(Code::DEADLINE_EXCEEDED));
        assert_eq!(begun.elapsed().as_secs(), 1);
        for late in [&short, &below] {
            assert_eq!(late.cancellation(), Some(Code::DEADLINE_EXCEEDED));
            assert_eq!(late.cancelled().await, Code::DEADLINE_EXCEEDED);
        }
        // The others go on.
        for other in [&long, &cx] {
            assert_eq!(other.cancellation(), None);
        }
        let waiting = tokio::spawn(async move { long.cancelled().await });
        tokio::task::yield_now().await;
        cx.cancel();
        assert_eq!(waiting.await.unwrap(), Code::CANCELLED);
        // The first reason stays.
        assert_eq!(cx.cancellation(), Some(Code::CANCELLED));
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[test]
    fn without_a_clock_the_cancel_is_waited_for_alone() {
        let cx = Context::new();
        let child = cx.with_timeout(60 * SECOND);
        let mut waiting = std::pin::pin!(child.cancelled());
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut task).is_pending());
        cx.cancel();
        assert!(waiting.as_mut().poll(&mut task).is_ready());
    }
}
