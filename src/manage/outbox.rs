//! An outbox: holds messages until there is a session, and reports the outcome of each.

pub(super) mod deliver;

use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::deliver::Delivering;
use super::errors::ManageError;
use super::manager::Manager;
use super::panics::catch;
use crate::config::ConfigError;
use crate::error::{OpenError, Processed, StreamError, into_io};
use crate::handle::wait::Waiter;
use crate::queue::WakerSet;
use crate::sync::{Arc, AtomicBool, Ordering, fence};

/// Sends each pushed message on a stream of its own, as soon as there is a session.
///
/// For messages that need no answer but must not be lost unnoticed: reports, notices, commands. Each is a stream of its own,
/// with an opening block and one message; it is done when the peer finishes its half, and messages that the peer sends
/// before are ignored. A message that has not reached the peer is sent again: on the next session, or after a pause of 10 ms
/// to 1 s if the peer was at a limit of its own ([`UNAVAILABLE`](crate::codes::UNAVAILABLE)). One that may have reached it is
/// not, since only the application knows whether it may arrive twice.
///
/// Messages are held while there is no session, up to [`max_messages`](OutboxBuilder::max_messages) and
/// [`max_bytes`](OutboxBuilder::max_bytes), for [`keep_for`](OutboxBuilder::keep_for) each. Sending begins in the order in
/// which they were pushed; with [`at_once`](OutboxBuilder::at_once) 1 each is done before the next begins.
///
/// Cheap to clone. When the last clone is dropped, held messages are still sent, if the outbox was started.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::manage::{Dial, Manager, Outbox, Outcome, PushError};
/// use ringmux::{Config, Engine};
///
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let dial = Dial::new(Engine::auto()?, listener.local_addr().clone(), Config::default());
/// let manager = Manager::builder(dial).build()?;
/// let outbox = Outbox::builder(manager.clone()).max_messages(1).build()?;
///
/// // Not started yet: the message waits, and there is no room for another.
/// let receipt = outbox.push("report", "all is well")?;
/// assert!(matches!(outbox.push("report", "still well"), Err(PushError::Full { .. })));
///
/// tokio::spawn(manager.start()?);
/// tokio::spawn(outbox.start()?);
/// let session = listener.accept().await?;
/// let (mut send, mut report) = session.accept().await?.expect("the session is open");
/// assert_eq!(report.recv().await?.unwrap(), "all is well");
/// send.finish()?;
/// assert!(matches!(receipt.await, Outcome::Finished));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Outbox(Arc<Handles>);

/// Shared by the handles; its drop ends the outbox once it is empty.
struct Handles {
    post: Arc<Post>,
    manager: Manager,
}

impl Drop for Handles {
    fn drop(&mut self) {
        if self.post.started.load(Ordering::Relaxed) {
            self.post.no_more();
        } else {
            // Without a task the held messages can never be sent, and they keep the outbox alive.
            self.post.close();
        }
    }
}

/// The outcome of a message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The peer's application has finished its half of the stream: it has handled the message.
    Finished,
    /// The peer's application answered with an error, or refused the stream.
    Refused(StreamError),
    /// The peer may or may not have seen it.
    MayHaveSeen(Doubt),
    /// The peer has not seen it, and will not.
    Dropped(Dropped),
}

/// Why it is unknown whether the peer has seen a message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Doubt {
    /// The stream ended without a result for the message.
    #[error(transparent)]
    Ended(StreamError),
    /// The peer did not finish with it in time.
    #[error("the peer did not finish with the message within {0:?}")]
    Late(Duration),
    /// The outbox's task ended while the message was under way.
    #[error("the outbox was stopped while the message was under way")]
    Stopped,
}

impl Doubt {
    /// Whether sending it again is safe: false, as it may run twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }

    /// Whether the peer can have seen the message.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::Maybe
    }

    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Ended(error) => error.io_kind(),
            Self::Late(_) => ErrorKind::TimedOut,
            Self::Stopped => ErrorKind::NotConnected,
        }
    }
}

/// Why a message was not sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// The manager was closed, or the outbox's task ended.
    #[error("the outbox is closed")]
    Closed,
    /// There was no session in time, or no peer that had room for it.
    #[error("the message could not be sent within {0:?}")]
    TooOld(Duration),
    /// It is larger than the peer accepts. The peer has seen the opening block.
    #[error("a message of {len} bytes exceeds the peer's limit of {limit}")]
    TooLong {
        /// The message's size, in bytes.
        len: usize,
        /// The peer's limit, in bytes.
        limit: usize,
    },
    /// The opening block is too long.
    #[error(transparent)]
    Opening(OpenError),
}

impl Dropped {
    /// Whether the same message may be sent later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::TooOld(_) => true,
            Self::Opening(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the peer can have seen the message: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::NotConnected,
            Self::TooOld(_) => ErrorKind::TimedOut,
            Self::Opening(error) => error.io_kind(),
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// Why a message was not taken; contains the message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The limit of held messages or bytes is reached.
    #[error("the outbox is full: it holds {messages} messages of {bytes} bytes")]
    Full {
        /// The message.
        message: Bytes,
        /// Messages held.
        messages: u64,
        /// Bytes held.
        bytes: u64,
    },
    /// The manager was closed, or the outbox's task ended.
    #[error("the outbox is closed")]
    Closed {
        /// The message.
        message: Bytes,
    },
}

impl PushError {
    /// Whether the same message may be taken later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the peer can have seen the message: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    pub(crate) const fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } => ErrorKind::WouldBlock,
            Self::Closed { .. } => ErrorKind::NotConnected,
        }
    }
}

into_io!(Doubt, Dropped, PushError);

/// The future outcome of a message: await it, or drop it without effect on the message.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Outcome>);

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = Pin::new(&mut self.0).poll(cx);
        // Unreachable: a dropped letter sends its outcome.
        outcome.map(|outcome| outcome.unwrap_or(Outcome::MayHaveSeen(Doubt::Stopped)))
    }
}

impl Outbox {
    /// A builder that starts from the defaults.
    pub fn builder(manager: Manager) -> OutboxBuilder {
        OutboxBuilder {
            manager,
            limits: Limits::default(),
        }
    }

    /// The outbox's task: spawn it on a tokio runtime with time enabled. Can be taken once.
    ///
    /// It completes when the manager has been closed, or all handles are dropped and no message is left.
    /// Dropping it ends every message that is held or under way.
    ///
    /// # Errors
    /// [`ManageError::AlreadyStarted`].
    pub fn start(&self) -> Result<Delivering, ManageError> {
        if self.0.post.started.swap(true, Ordering::Relaxed) {
            return Err(ManageError::AlreadyStarted);
        }
        Ok(Delivering::new(
            Arc::clone(&self.0.post),
            self.0.manager.clone(),
        ))
    }

    /// Takes a message, to be sent on a stream of its own as soon as there is a session; never waits.
    ///
    /// # Errors
    /// [`PushError`], with the message.
    pub fn push(
        &self,
        opening: impl Into<Bytes>,
        message: impl Into<Bytes>,
    ) -> Result<Receipt, PushError> {
        let (opening, message) = (opening.into(), message.into());
        let post = &self.0.post;
        if post.is_closed() || self.0.manager.is_shutting_down() {
            return Err(PushError::Closed { message });
        }
        let Some(room) = Room::take(post, (opening.len() + message.len()) as u64) else {
            return Err(PushError::Full {
                message,
                messages: post.counts.held.get(),
                bytes: post.counts.held_bytes.get(),
            });
        };
        let (told, receipt) = oneshot::channel();
        post.put(Letter {
            opening,
            message,
            since: Instant::now(),
            under_way: false,
            open: Some((told, room)),
        });
        Ok(Receipt(receipt))
    }

    /// The outbox's counters.
    #[must_use]
    pub fn stats(&self) -> OutboxStats {
        self.0.post.counts.snapshot()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbox").field(&self.stats()).finish()
    }
}

// ---- limits ---------------------------------------------------------------------------------

#[derive(Clone, Debug)]
pub(super) struct Limits {
    max_messages: u32,
    max_bytes: u32,
    pub(super) at_once: u32,
    pub(super) keep_for: Duration,
    pub(super) finish_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_messages: 1024,
            max_bytes: 4 * 1024 * 1024,
            at_once: 16,
            keep_for: Duration::from_secs(60),
            finish_timeout: Duration::from_secs(30),
        }
    }
}

/// Builds an [`Outbox`]; [`build`](Self::build) checks the settings.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct OutboxBuilder {
    manager: Manager,
    limits: Limits,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty),+ $(,)?) => {
        $($(#[$doc])* pub const fn $name(mut self, value: $type) -> Self {
            self.limits.$name = value;
            self
        })+
    };
}

impl OutboxBuilder {
    limits! {
        /// Messages held or under way. Default 1024, at most 1 048 576.
        max_messages: u32,
        /// Their bytes, with the opening blocks. Default 4 MiB, at most 1 GiB.
        max_bytes: u32,
        /// Messages under way at once. Default 16, at most 1024.
        at_once: u32,
        /// How long a message is held for a session, before it is dropped. Default 60 s.
        keep_for: Duration,
        /// How long the peer may take to finish with a message, before the stream is cancelled. Default 30 s.
        finish_timeout: Duration,
    }

    /// Checks the settings. Messages can be pushed; they are held until the outbox is [started](Outbox::start).
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is out of range, and the range.
    pub fn build(self) -> Result<Outbox, ConfigError> {
        let limits = self.limits;
        let ranges = [
            ("max_messages", limits.max_messages, 1, 1 << 20),
            ("max_bytes", limits.max_bytes, 1, 1 << 30),
            ("at_once", limits.at_once, 1, 1024),
        ];
        for (setting, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange {
                    setting,
                    value: value.into(),
                    min: min.into(),
                    max: max.into(),
                });
            }
        }
        let waits = [
            ("keep_for", limits.keep_for),
            ("finish_timeout", limits.finish_timeout),
        ];
        for (setting, value) in waits {
            if value.is_zero() || value > Duration::from_secs(3600) {
                return Err(ConfigError::WaitOutOfRange { setting, value });
            }
        }
        Ok(Outbox(Arc::new(Handles {
            post: Arc::new(Post {
                queue: ArrayQueue::new(limits.max_messages as usize),
                limits,
                counts: Counts::default(),
                arrivals: WakerSet::new(),
                started: AtomicBool::new(false),
                no_more: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
            manager: self.manager,
        })))
    }
}

// ---- between handles and the task -----------------------------------------------------------

/// The queue of messages, shared by the handles and the task.
pub(super) struct Post {
    queue: ArrayQueue<Letter>,
    pub(super) limits: Limits,
    pub(super) counts: Counts,
    /// Idle senders.
    arrivals: WakerSet,
    started: AtomicBool,
    /// The last handle was dropped.
    no_more: AtomicBool,
    /// Closed: no message is sent any more.
    closed: AtomicBool,
}

impl Post {
    /// The next message; `None` after the last one.
    pub(super) async fn next(&self) -> Option<Letter> {
        let next = || {
            // Read before the queue: messages pushed before the end are then in the queue.
            let ended = self.no_more.load(Ordering::Acquire) || self.is_closed();
            match self.queue.pop() {
                Some(letter) => Some(Some(letter)),
                None => ended.then_some(None),
            }
        };
        Waiter::new(&self.arrivals).until(next).await
    }

    fn put(&self, letter: Letter) {
        // The queue has room: a `Room` includes a slot of the queue.
        drop(self.queue.push(letter));
        // ORDERING: SeqCst pairs with `close`: the later one sees the earlier and empties the queue.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            self.empty();
        }
        self.arrivals.wake_all();
    }

    fn no_more(&self) {
        // ORDERING: pairs with `next`; publishes the pushed messages.
        self.no_more.store(true, Ordering::Release);
        self.arrivals.wake_all();
    }

    /// Drops held messages, and refuses further ones.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // ORDERING: SeqCst pairs with `put`.
        fence(Ordering::SeqCst);
        self.empty();
        self.arrivals.wake_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn empty(&self) {
        // The drop of a message may panic, if its memory is the application's.
        while catch(|| self.queue.pop().is_some()).unwrap_or(true) {}
    }
}

/// A message whose outcome is reported exactly once, also if it is dropped.
pub(super) struct Letter {
    pub(super) opening: Bytes,
    pub(super) message: Bytes,
    pub(super) since: Instant,
    /// The peer may have seen it.
    pub(super) under_way: bool,
    /// `None` once the outcome was reported.
    open: Option<(oneshot::Sender<Outcome>, Room)>,
}

impl Letter {
    pub(super) fn end(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        let Some((told, room)) = self.open.take() else {
            return;
        };
        let counts = &room.post.counts;
        match &outcome {
            Outcome::Finished => counts.finished.add(),
            Outcome::Refused(_) => counts.refused.add(),
            Outcome::MayHaveSeen(_) => counts.in_doubt.add(),
            Outcome::Dropped(_) => counts.dropped.add(),
        }
        // Release the room first, so that a caller woken by the outcome can push again.
        drop(room);
        // Fails if the receipt was dropped.
        let _ = told.send(outcome);
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        self.tell(if self.under_way {
            Outcome::MayHaveSeen(Doubt::Stopped)
        } else {
            Outcome::Dropped(Dropped::Closed)
        });
    }
}

/// Room for one message.
struct Room {
    post: Arc<Post>,
    bytes: u64,
}

impl Room {
    fn take(post: &Arc<Post>, bytes: u64) -> Option<Self> {
        let (counts, limits) = (&post.counts, &post.limits);
        if !counts.held.add_within(1, limits.max_messages.into()) {
            return None;
        }
        if !counts.held_bytes.add_within(bytes, limits.max_bytes.into()) {
            counts.held.take(1);
            return None;
        }
        Some(Self {
            post: Arc::clone(post),
            bytes,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.post.counts.held.take(1);
        self.post.counts.held_bytes.take(self.bytes);
    }
}

super::metrics::counted! {
    /// A snapshot of an outbox's counters, all since it was built unless said otherwise.
    pub struct OutboxStats from Counts {
        /// Messages held or under way, now.
        held,
        /// Their bytes, now.
        held_bytes,
        /// Messages that the peer finished with.
        finished,
        /// Messages that the peer refused.
        refused,
        /// Messages that the peer may have seen.
        in_doubt,
        /// Messages that the peer has not seen.
        dropped,
        /// Times that a message was sent again, since the peer had not seen it.
        sent_again,
    }
}
