//! The driver's interface to a ring. The kernel's ring is [`KernelRing`](super::kernel::KernelRing); tests
//! drive the same code over a scripted one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use bytes::BytesMut;

use crate::driver::direct;

/// The identity of an operation: `generation: u32 | slot: u24 | kind: u8` in the ring's `user_data`.
///
/// Slots are reused; the generation identifies late completions of the slot's previous socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) generation: u32,
    pub(super) slot: u32,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    RecvMulti,
    Recv,
    Send,
    Cancel,
    Bell,
}

/// Slots that fit into a token.
pub(super) const SLOTS_MAX: usize = 1 << 24;

impl Token {
    pub(super) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | (self.slot as u64) << 8 | self.kind as u64
    }

    /// `None` if the bits are no token.
    pub(super) const fn from_bits(bits: u64) -> Option<Self> {
        let kind = match bits as u8 {
            0 => Kind::RecvMulti,
            1 => Kind::Recv,
            2 => Kind::Send,
            3 => Kind::Cancel,
            4 => Kind::Bell,
            _ => return None,
        };
        Some(Self {
            generation: (bits >> 32) as u32,
            slot: (bits as u32) >> 8,
            kind,
        })
    }
}

/// How operations name a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// Its place in the ring's table of registered files, which saves the kernel a lookup.
    Fixed(u32),
    Raw(RawFd),
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Receive into the ring's buffers until cancelled.
    RecvMulti { file: File },
    /// Receive once.
    Recv {
        file: File,
        start: *mut u8,
        len: u32,
    },
    /// Send all of it.
    Send {
        file: File,
        start: *const u8,
        len: u32,
    },
    /// Send all that the header names.
    SendMsg {
        file: File,
        msg: *const libc::msghdr,
    },
    /// Complete whenever the descriptor becomes readable, until cancelled.
    Poll { fd: RawFd },
    /// End the operation with this token.
    Cancel { target: Token },
}

/// The completion of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) token: Option<Token>,
    /// Bytes, or a negative error number.
    pub(super) result: i32,
    /// The operation continues; more completions follow.
    pub(super) more: bool,
    /// The ring's buffer that holds the received bytes.
    pub(super) buffer: Option<u16>,
}

/// How long `enter` may wait in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enter {
    /// Submits, runs pending completions, returns.
    Now,
    /// Waits for a completion.
    Wait,
    /// Waits for a completion, at most this long.
    WaitFor(Duration),
}

/// A submission queue, a completion queue, and buffers to receive into.
pub(super) trait Ring {
    /// Queues an operation; false if there is no room until completions have been taken.
    ///
    /// # Safety
    /// The memory that the operation points to stays in place, and has no other user, until
    /// the completion with this token that has no `more`; if none ever comes, for ever.
    unsafe fn push(&mut self, token: Token, op: Op) -> bool;

    /// Submits the queued operations.
    ///
    /// # Errors
    /// The ring is broken; queued operations may or may not be under way.
    fn enter(&mut self, how: Enter) -> io::Result<()>;

    /// Operations are queued, or the kernel has completions to run.
    fn wants_enter(&self) -> bool;

    fn pop(&mut self) -> Option<Completion>;

    /// Sends by a plain call; `None` if the socket takes nothing. No send on it may be under way.
    fn send_now(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<io::Result<usize>> {
        direct::send(socket, bytes)
    }

    /// Receives by a plain call; `None` if nothing has arrived. No other receive may be under way.
    fn recv_now(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut [MaybeUninit<u8>],
    ) -> Option<io::Result<usize>> {
        direct::recv(socket, memory)
    }

    /// Appends the first `len` bytes of a buffer to `into`, and gives it back to the ring.
    fn take_buffer(&mut self, buffer: u16, len: usize, into: &mut BytesMut);

    /// Gives a socket a fixed place; `Raw` if there is none left.
    fn install(&mut self, place: u32, fd: RawFd) -> File;

    /// The socket is about to be closed; no operation on it is under way.
    fn remove(&mut self, file: File);

    /// No operation is under way and none will be: the buffers may be freed with the ring.
    fn settled(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was(generation: u32, slot in 0..SLOTS_MAX as u32, kind in 0_u8..5) {
            let bits = u64::from(generation) << 32 | u64::from(slot) << 8 | u64::from(kind);
            let token = Token::from_bits(bits).unwrap();
            prop_assert_eq!(token.to_bits(), bits);
            prop_assert_eq!((token.generation, token.slot), (generation, slot));
        }
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_one() {
        assert_eq!(Token::from_bits(0xFF), None);
    }
}
