//! What is small goes round the ring: a batch that the socket takes at once.
//!
//! Through a ring it would be an operation to submit, a completion to take and another look at the session; a plain call
//! does the same work in the kernel and is over when it returns. What the socket does not take goes through the ring.

use std::io::{self, ErrorKind::Interrupted, ErrorKind::WouldBlock};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use libc::{MSG_DONTWAIT, MSG_NOSIGNAL};
use socket2::SockRef;

use crate::proto::Batch;

/// Batches and receptions of up to so many bytes go round the ring.
pub(super) const DIRECT_BYTES: usize = 16 * 1024;

/// What a short batch has left, if that is one piece.
pub(super) fn piece(batch: &Batch) -> Option<&[u8]> {
    if batch.len() > DIRECT_BYTES {
        return None;
    }
    match batch.remaining(2)[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// Sends what the socket takes without waiting; `None` if that is nothing. No other send may be under way.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<io::Result<usize>> {
    let flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    at_once(SockRef::from(&socket).send_with_flags(bytes, flags))
}

/// Receives what has arrived; `None` if that is nothing. Of the memory, what is told was written.
pub(super) fn recv(
    socket: BorrowedFd<'_>,
    memory: &mut [MaybeUninit<u8>],
) -> Option<io::Result<usize>> {
    at_once(SockRef::from(&socket).recv_with_flags(memory, MSG_DONTWAIT))
}

/// `None` if it would have to wait, or was interrupted: whoever asked does so again.
fn at_once(result: io::Result<usize>) -> Option<io::Result<usize>> {
    match result {
        Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => None,
        result => Some(result),
    }
}
