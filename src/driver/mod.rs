//! Moves bytes between sockets and the protocol: one future per session, generic over its [`Transport`].
//!
//! ```text
//!   turn:  read ─ take work ─ deadlines ─ build one batch ─ write ─ wake tasks ─┐
//!     ▲                                                                         │
//!     └── while something moved, at most TURNS_MAX; else sleep on the doorbell ◄┘
//! ```
//! A session processes at most `WORK_MAX` frames or `BYTES_MAX` bytes in a row, short enough for its neighbours. Then it
//! has itself polled again after everything else on its thread: other tasks, and also sockets and timers, which a runtime
//! polls once in many task polls.
//!
//! Where the tasks of the application run on the same thread, between two polls ([`Beside`]), a turn that has read something ends
//! there and wakes them; the next turn begins by taking their replies.
//!
//! The future owns the socket and the protocol state until the session ends. It never parses: it passes bytes to and from
//! a `bridge::Protocol`. One write is under way at a time; everything queued meanwhile leaves in the next one.
//!
//! Three transports: `tokio::TokioIo` for any `AsyncRead + AsyncWrite`, `tokio_uring::UringIo` for sockets on a tokio-uring
//! runtime, and `uring::socket::UringSocket` on a ring of our own. A new one implements `Transport`; `connect::home` starts its
//! sessions, and [`Driver`](crate::Driver) names it.

mod any;
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

pub(crate) use any::AnyTurns;
pub(crate) use turn::{Beside, Turns};

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use crate::bridge::PeerSystem;
use crate::wire::Batch;
use queued::HungUp;

/// A socket for the turn loop. Poll functions keep the waker of the last call.
pub(crate) trait Transport {
    /// True if it never leaves the thread that made it; only for types that are not `Send`.
    const BOUND: bool = false;

    /// Approximate arrival time of the bytes to be received next, if known; each time is returned once.
    fn arrived_at(&mut self) -> Option<Instant> {
        None
    }

    /// Appends received bytes to `buf`, which may grow by about `capacity`; 0 is the end.
    ///
    /// While it is pending the transport may keep `buf`'s memory.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>>;

    /// The session takes no bytes until the next [`poll_recv`](Self::poll_recv): releases memory of received bytes that
    /// other sessions share. Called in each turn meanwhile.
    fn pause_recv(&mut self);

    /// Writes the rest of the batch in one call; returns how many bytes the socket took, once no buffer before the socket
    /// holds them back.
    ///
    /// While it is pending the transport may keep the batch.
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>>;

    /// Bytes taken by [`poll_send`](Self::poll_send) that have not reached the peer's system, if known. A system call: made
    /// when a timer is about to end a session, and a few times before.
    fn queued(&mut self) -> Option<u64> {
        None
    }

    /// What the peer's system does, if known. A system call, see [`queued`](Self::queued); only for wires without PINGs.
    fn peer_system(&mut self) -> PeerSystem {
        PeerSystem::Unknown
    }

    /// Whether the connection has ended in both directions, or failed, although it is not read. A few system calls, as above.
    fn hung_up(&mut self) -> HungUp {
        HungUp::No
    }

    /// True when `deadline` has passed; else the task will be woken then.
    ///
    /// # Errors
    /// No timer can be set here.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> io::Result<bool>;

    /// Has the task polled again after its thread has run its other tasks and polled its sockets and timers.
    fn poll_later(&mut self, cx: &mut Context<'_>) {
        later(cx);
    }

    /// Ends this side's direction: the peer reads the end of the stream.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the operations under way; ready when the kernel no longer uses our memory.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Has a task of a tokio runtime polled again after the runtime has run the others and polled sockets and timers: a task
/// that only wakes itself is polled up to [`event_interval`](::tokio::runtime::Builder::event_interval) times before that.
/// Outside of a runtime it is woken at once.
fn later(cx: &mut Context<'_>) {
    let mut yielding = pin!(::tokio::task::yield_now());
    // The first poll stores the waker in the runtime, which keeps it even if this future is dropped.
    let _ = yielding.as_mut().poll(cx);
}

/// Makes room for the next reception: at least half of `capacity`. A newly allocated buffer has `capacity` in all, if at most
/// half of that is occupied.
fn make_room(buf: &mut BytesMut, capacity: usize) {
    if buf.capacity() - buf.len() >= capacity / 2 {
        return;
    }
    make_exact_room(buf, capacity - buf.len().min(capacity / 2));
}

/// Makes room for this many bytes, and for no more if the buffer has to grow.
fn make_exact_room(buf: &mut BytesMut, room: usize) {
    if buf.capacity() - buf.len() >= room || buf.try_reclaim(room) {
        return;
    }
    // `reserve` would also keep room for the consumed part, and double.
    let mut fresh = BytesMut::with_capacity(buf.len() + room);
    fresh.extend_from_slice(buf);
    *buf = fresh;
}

/// Buffers leaked because their operation had not completed.
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
