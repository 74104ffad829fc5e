//! What moves the bytes: one future per session, generic over its [`Transport`].
//!
//! ```text
//!   turn:  read ─ take work ─ deadlines ─ build one batch ─ write ─ wake tasks ─┐
//!     ▲                                                                         │
//!     └── while something moved, at most TURNS_MAX; else sleep on the doorbell ◄┘
//! ```
//! However much comes, a session does so much of it at a time (`WORK_MAX` frames, `BYTES_MAX`), about as much as its
//! neighbours do not notice. Then it has itself polled again after everything else that its thread has to look at:
//! sockets and timers too, which a runtime looks at once in many polls.
//!
//! Where the tasks of the application run on the same thread, between two polls, a turn that has read something ends there
//! and wakes them; the next begins with taking what they have answered.
//!
//! The future owns the socket and the protocol state for as long as the session lives. It never
//! parses: bytes go to `proto` and come from it. One write is under way at a time; everything that
//! is queued meanwhile leaves in the next one.
//!
//! Two transports: [`tokio::TokioIo`] for any `AsyncRead + AsyncWrite`, and
//! [`tokio_uring::UringIo`] for sockets on a tokio-uring runtime.

pub(crate) mod clock;
mod direct;
pub(crate) mod queued;
pub(crate) mod runtime;
mod timer;
pub(crate) mod tokio;
#[cfg(feature = "tokio-uring")]
pub(crate) mod tokio_uring;
mod turn;
pub(crate) mod uring;

pub(crate) use turn::Turns;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use crate::proto::Batch;

/// A socket, as the turn loop uses it. Poll functions keep the waker of the last call.
pub(crate) trait Transport {
    /// Whether it never leaves the thread that it was made on. Only a type that is not `Send` may say so.
    const BOUND: bool = false;

    /// About when what is there to be received has come, where that is known and was not told yet.
    fn arrived_at(&mut self) -> Option<Instant> {
        None
    }

    /// Appends what has arrived to `buf`, which may grow by about `capacity`; 0 is the end.
    ///
    /// While it is pending the transport may keep `buf`'s memory.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>>;

    /// Writes what the batch has left, in one call; returns how much the socket took, when nothing in front of the socket
    /// holds it back any more.
    ///
    /// While it is pending the transport may keep the batch.
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>>;

    /// Bytes that were taken by [`poll_send`](Self::poll_send) and have not reached the peer's system, as far as that is
    /// known. A system call: asked for when a timer is about to end a session, and a few times before.
    fn queued(&mut self) -> Option<u64> {
        None
    }

    /// True when `deadline` has passed; else the task will be woken then.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool;

    /// Has the task polled again when its thread has run its other tasks, and looked at its sockets and timers.
    fn poll_later(&mut self, cx: &mut Context<'_>) {
        later(cx);
    }

    /// Tells the peer that nothing more comes.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends what is under way; ready when the kernel holds no memory of ours any more.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Has a task of a tokio runtime polled again when the runtime has run the others, and has looked at sockets and timers:
/// one that only wakes itself is polled up to [`event_interval`](::tokio::runtime::Builder::event_interval) times before.
/// Outside of a runtime it is woken at once.
fn later(cx: &mut Context<'_>) {
    let mut yielding = pin!(::tokio::task::yield_now());
    // The first poll leaves the waker with the runtime, which keeps it whatever becomes of the future.
    let _ = yielding.as_mut().poll(cx);
}

/// Room for what is received next: half of `capacity` at least, which is what the buffer has in all if it is made anew and no
/// more than half of that is in it.
fn make_room(buf: &mut BytesMut, capacity: usize) {
    if buf.capacity() - buf.len() >= capacity / 2 {
        return;
    }
    let room = capacity - buf.len().min(capacity / 2);
    if buf.try_reclaim(room) {
        return;
    }
    // `reserve` would keep place for what is consumed, and double.
    let mut fresh = BytesMut::with_capacity(buf.len() + room);
    fresh.extend_from_slice(buf);
    *buf = fresh;
}

/// Buffers that were given up because their operation had not completed.
static LEAKED: AtomicU64 = AtomicU64::new(0);

/// How many buffers this process has leaked because a runtime ended under its sessions.
pub(crate) fn leaked_buffers() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

fn count_leaked() {
    LEAKED.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn a_buffer_that_is_made_anew_is_no_larger_than_was_asked_for() {
        let mut buf = BytesMut::with_capacity(1000);
        buf.extend_from_slice(&[7; 1000]);
        buf.advance(990);
        make_room(&mut buf, 4000);
        assert_eq!((&buf[..], buf.capacity()), (&[7; 10][..], 4000));
    }

    #[test]
    fn memory_whose_contents_are_consumed_is_used_again() {
        let mut buf = BytesMut::with_capacity(1000);
        let memory = buf.as_ptr();
        buf.extend_from_slice(&[7; 1000]);
        buf.advance(990);
        make_room(&mut buf, 1000);
        assert_eq!((buf.as_ptr(), buf.capacity()), (memory, 1000));
        buf.extend_from_slice(&[8; 490]);
        make_room(&mut buf, 1000);
        assert_eq!((buf.len(), buf.capacity()), (500, 1000), "half is enough");
    }
}
