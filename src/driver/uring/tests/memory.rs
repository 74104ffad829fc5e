//! The memory and the sockets behind operations, used as by the kernel: only when an operation makes progress, which may be
//! long after its owner was dropped. Use of freed memory is detected, because the allocator of the tests fills it with
//! [`FREED`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use super::super::ring::Op;

/// Fill of freed memory.
const FREED: u8 = 0xDD;
/// Fill of receive memory until bytes arrive.
const PATTERN: u8 = 0xA5;
/// Fill of a ring buffer that was given back.
pub(super) const POISON: u8 = 0xDB;

struct Poisoning;

#[global_allocator]
static ALLOCATOR: Poisoning = Poisoning;

// SAFETY: the system's allocator, every call goes to it unchanged.
unsafe impl GlobalAlloc for Poisoning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up the memory, so it has no other user.
        unsafe { start.write_bytes(FREED, layout.size()) };
        // SAFETY: as for this function.
        unsafe { System.dealloc(start, layout) };
    }
}

/// The bytes that a send names, in order; nothing for other operations.
///
/// # Safety
/// As for [`Ring::push`](super::super::ring::Ring::push), before the last completion.
pub(super) unsafe fn gather(op: &Op) -> Vec<u8> {
    match *op {
        Op::Send { start, len, .. } => {
            // SAFETY: the operation's memory, which is in place.
            unsafe { std::slice::from_raw_parts(start, len as usize) }.to_vec()
        }
        Op::SendMsg { msg, .. } => {
            // SAFETY: the operation's memory, which is in place.
            let msg = unsafe { &*msg };
            // SAFETY: the header names so many initialised pieces.
            let parts = unsafe { std::slice::from_raw_parts(msg.msg_iov, msg.msg_iovlen) };
            let mut bytes = Vec::new();
            for part in parts {
                let start = part.iov_base.cast::<u8>().cast_const();
                // SAFETY: the operation's memory, which is in place.
                bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, part.iov_len) });
            }
            bytes
        }
        Op::RecvMulti { .. } | Op::Recv { .. } | Op::Poll { .. } | Op::Cancel { .. } => Vec::new(),
    }
}

/// Copies the bytes to be sent; fills memory to be received into.
///
/// # Safety
/// As for [`gather`].
pub(super) unsafe fn seal(op: &Op) -> Vec<u8> {
    if let Op::Recv { start, len, .. } = *op {
        // SAFETY: the operation's memory, to be written to from now on.
        unsafe { start.write_bytes(PATTERN, len as usize) };
    }
    // SAFETY: as for this function.
    unsafe { gather(op) }
}

/// The memory of a receive, which [`seal`] has initialised.
///
/// # Safety
/// As for [`gather`].
pub(super) unsafe fn memory<'a>(start: *mut u8, len: u32) -> &'a mut [u8] {
    // SAFETY: the operation's memory.
    unsafe { std::slice::from_raw_parts_mut(start, len as usize) }
}

/// The memory of an operation is unchanged since it was sealed.
///
/// # Safety
/// As for [`gather`].
pub(super) unsafe fn is_intact(op: &Op, sealed: &[u8]) -> bool {
    if let Op::Recv { start, len, .. } = *op {
        static UNTOUCHED: [u8; 4096] = [PATTERN; 4096];
        // SAFETY: as for this function.
        let memory = unsafe { memory(start, len) };
        return memory.chunks(4096).all(|c| *c == UNTOUCHED[..c.len()]);
    }
    // SAFETY: as for this function.
    unsafe { gather(op) == sealed }
}

fn outcome(n: isize) -> i32 {
    if n >= 0 {
        return n as i32;
    }
    let error = std::io::Error::last_os_error().raw_os_error();
    -error.unwrap_or(libc::EIO)
}

/// A descriptor of its own for an open socket.
pub(super) fn hold(fd: RawFd) -> OwnedFd {
    // SAFETY: the driver has just installed it, so it is open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().expect("descriptors are left")
}

/// Bytes, or the end, can be received.
pub(super) fn is_readable(fd: RawFd) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: one byte, on the stack.
    outcome(unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) }) != -libc::EAGAIN
}

/// Bytes received or a negative error number.
pub(super) fn receive(fd: RawFd, into: &mut [u8]) -> i32 {
    // SAFETY: the slice's memory.
    outcome(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

/// Bytes sent or a negative error number.
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> i32 {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the slice's memory.
    outcome(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Neither side can send any more.
pub(super) fn shut(fd: RawFd) {
    // SAFETY: no memory.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// True once after each time that an eventfd was written to.
pub(super) fn take_bell(fd: RawFd) -> bool {
    let mut count = 0_u64;
    // SAFETY: eight bytes, on the stack.
    outcome(unsafe { libc::read(fd, (&raw mut count).cast(), size_of::<u64>()) }) > 0
}
