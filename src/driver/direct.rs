//! Plain system calls beside the ring, for short batches that the socket takes at once.
//!
//! Through the ring a send is a submission, a completion and another poll of the session; a plain call does the same work in
//! the kernel and is complete when it returns. Bytes that the socket does not take go through the ring.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::wire::Batch;

/// Batches and receptions up to this length use plain calls, in bytes.
pub(super) const DIRECT_BYTES: usize = 16 * 1024;

/// The unsent bytes of a batch of one piece, if at most [`DIRECT_BYTES`].
pub(super) fn piece(batch: &Batch) -> Option<&[u8]> {
    batch
        .one_piece()
        .filter(|bytes| bytes.len() <= DIRECT_BYTES)
}

/// Sends as much as the socket takes without waiting; `None` if it takes nothing. No other send may be under way.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<io::Result<usize>> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    at_once(rustix::net::send(socket, bytes, flags))
}

/// Receives without waiting; `None` if nothing has arrived. `Ok(n)`: the first `n` bytes of the memory were written.
pub(super) fn recv(
    socket: BorrowedFd<'_>,
    memory: &mut [MaybeUninit<u8>],
) -> Option<io::Result<usize>> {
    let received = rustix::net::recv(socket, memory, RecvFlags::DONTWAIT);
    at_once(received.map(|((filled, _), _)| filled.len()))
}

/// `None` if it would have to wait, or was interrupted: the caller repeats the call later.
fn at_once(result: Result<usize, Errno>) -> Option<io::Result<usize>> {
    match result {
        Err(Errno::AGAIN | Errno::INTR) => None,
        result => Some(result.map_err(io::Error::from)),
    }
}
