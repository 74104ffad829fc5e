//! What moves the bytes: one future per session, generic over its [`Transport`].
//!
//! ```text
//!   turn:  take work ─ read ─ deadlines ─ build one batch ─ write ─ wake tasks ─┐
//!     ▲                                                                         │
//!     └── while something moved, at most TURNS_MAX; else sleep on the doorbell ◄┘
//! ```
//! The future owns the socket and the protocol state for as long as the session lives. It never
//! parses: bytes go to `proto` and come from it. One write is under way at a time; everything that
//! is queued meanwhile leaves in the next one.
//!
//! Two transports: [`tokio::TokioIo`] for any `AsyncRead + AsyncWrite`, and
//! [`tokio_uring::UringIo`] for sockets on a tokio-uring runtime.

pub(crate) mod clock;
mod direct;
mod timer;
pub(crate) mod tokio;
pub(crate) mod tokio_uring;
mod turn;
pub(crate) mod uring;

pub(crate) use turn::Turns;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use crate::proto::Batch;

/// A socket, as the turn loop uses it. Poll functions keep the waker of the last call.
pub(crate) trait Transport {
    /// Whether it never leaves the thread that it was made on. Only a type that is not `Send` may say so.
    const BOUND: bool = false;

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

    /// True when `deadline` has passed; else the task will be woken then.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool;

    /// Tells the peer that nothing more comes.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends what is under way; ready when the kernel holds no memory of ours any more.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
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
