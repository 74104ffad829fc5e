//! What is small goes round the ring: a batch that the socket takes at once.
//!
//! Through a ring it would be an operation to submit, a completion to take and another look at the session; a plain call
//! does the same work in the kernel and is over when it returns. What the socket does not take goes through the ring.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::wire::Batch;

/// Batches and receptions of up to so many bytes go round the ring.
pub(super) const DIRECT_BYTES: usize = 16 * 1024;

/// What a batch of one piece has left, if that is short.
pub(super) fn piece(batch: &Batch) -> Option<&[u8]> {
    batch
        .one_piece()
        .filter(|bytes| bytes.len() <= DIRECT_BYTES)
}

/// Sends what the socket takes without waiting; `None` if that is nothing. No other send may be under way.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<io::Result<usize>> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    at_once(rustix::net::send(socket, bytes, flags))
}

/// Receives what has arrived; `None` if that is nothing. Of the memory, what is told was written.
pub(super) fn recv(
    socket: BorrowedFd<'_>,
    memory: &mut [MaybeUninit<u8>],
) -> Option<io::Result<usize>> {
    let received = rustix::net::recv(socket, memory, RecvFlags::DONTWAIT);
    at_once(received.map(|((filled, _), _)| filled.len()))
}

/// `None` if it would have to wait, or was interrupted: whoever asked does so again.
fn at_once(result: Result<usize, Errno>) -> Option<io::Result<usize>> {
    match result {
        Err(Errno::AGAIN | Errno::INTR) => None,
        result => Some(result.map_err(io::Error::from)),
    }
}
