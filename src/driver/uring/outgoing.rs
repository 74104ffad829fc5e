//! Memory that the kernel reads for a vectored send besides the bytes: `msghdr` and `iovec`s.

use std::mem::MaybeUninit;

use super::ring::{File, Op};
use crate::wire::{BATCH_PARTS, Batch};

/// Memory for one send in pieces; made when the first one is sent.
#[derive(Default)]
pub(super) struct Outgoing(Option<Box<Pieces>>);

struct Pieces {
    msg: libc::msghdr,
    parts: [MaybeUninit<libc::iovec>; BATCH_PARTS],
}

impl Outgoing {
    /// The operation that sends the rest of the batch.
    ///
    /// It points into the batch and into `self`: both stay until the send has completed.
    pub(super) fn prepare(&mut self, file: File, batch: &Batch) -> Op {
        let remaining = batch.remaining();
        if let [only] = remaining[..] {
            return Op::Send {
                file,
                start: only.as_ptr(),
                len: only.len() as u32,
            };
        }
        let pieces = self.0.get_or_insert_with(Pieces::new);
        for (part, bytes) in pieces.parts.iter_mut().zip(&remaining) {
            part.write(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        pieces.msg.msg_iov = pieces.parts.as_mut_ptr().cast();
        pieces.msg.msg_iovlen = remaining.len().min(BATCH_PARTS);
        Op::SendMsg {
            file,
            msg: &raw const pieces.msg,
        }
    }
}

impl Pieces {
    fn new() -> Box<Self> {
        Box::new(Self {
            // SAFETY: a header of zeros names no address, no pieces and no control data.
            msg: unsafe { std::mem::zeroed() },
            parts: [const { MaybeUninit::uninit() }; BATCH_PARTS],
        })
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Outgoing").field(&self.0.is_some()).finish()
    }
}
