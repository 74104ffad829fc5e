//! One socket of a ring: its operations under way, and the memory that the kernel uses for them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::BytesMut;

use super::buffers::BUFFER_BYTES;
use super::outgoing::Outgoing;
use super::ring::{Completion, File, Kind, Ring, Token};
use crate::driver::make_exact_room;
use crate::wire::Batch;

/// The receive under way.
#[derive(Debug)]
pub(super) enum Recv {
    Idle,
    /// Into the ring's buffers.
    Multi {
        cancelling: bool,
    },
    /// Into the spare capacity of this buffer.
    Once(BytesMut),
    /// By plain calls, with the count of consecutive empty ones. The kernel uses no memory.
    Direct {
        memory: BytesMut,
        vain: u32,
    },
    Done(BytesMut, io::Result<usize>),
}

/// The send under way.
#[derive(Debug)]
pub(super) enum Send {
    Idle,
    UnderWay(Batch),
    Done(Batch, io::Result<usize>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) socket: OwnedFd,
    pub(super) file: File,
    pub(super) recv: Recv,
    /// When a plain call found the bytes in `Done`.
    pub(super) found_at: Option<Instant>,
    /// Filled buffers of the ring, in the order of the stream.
    pub(super) arrived: VecDeque<(u16, u32)>,
    /// Bytes before those in `arrived`, moved out of the ring's buffers because the session does not take them now.
    pub(super) kept: BytesMut,
    /// The last receive into the ring's buffers found none free.
    pub(super) found_none: bool,
    /// Bytes have arrived in the ring's buffers since the last send.
    pub(super) arrived_since_send: bool,
    /// The result that ended receiving, after the bytes in `arrived`: 0 or an error number.
    pub(super) ended: Option<i32>,
    pub(super) send: Send,
    pub(super) outgoing: Outgoing,
    /// Operations whose last completion is outstanding.
    pub(super) under_way: u32,
    /// The slot is on the ready list.
    pub(super) ready: bool,
    /// When it becomes ready at the latest; `None` also once that time has come.
    pub(super) deadline: Option<Instant>,
    /// The socket is shut down: bytes that still arrive are discarded.
    pub(super) closing: bool,
    /// No session uses it any more.
    pub(super) abandoned: bool,
}

impl Slot {
    pub(super) fn new(generation: u32, socket: OwnedFd, file: File) -> Self {
        Self {
            generation,
            socket,
            file,
            recv: Recv::Idle,
            found_at: None,
            arrived: VecDeque::new(),
            kept: BytesMut::new(),
            found_none: false,
            arrived_since_send: false,
            ended: None,
            send: Send::Idle,
            outgoing: Outgoing::default(),
            under_way: 0,
            ready: false,
            deadline: None,
            closing: false,
            abandoned: false,
        }
    }

    pub(super) const fn token(&self, key: u32, kind: Kind) -> Token {
        Token {
            generation: self.generation,
            slot: key,
            kind,
        }
    }

    /// An operation has completed.
    pub(super) fn on(&mut self, kind: Kind, completion: &Completion) {
        let result = completion.result;
        match kind {
            Kind::RecvMulti if !completion.more => {
                self.recv = Recv::Idle;
                self.found_none = result == -libc::ENOBUFS;
                // Out of buffers or cancelled: the session's next poll starts a new receive.
                let goes_on = result > 0
                    || matches!(
                        -result,
                        libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN
                    );
                if !goes_on {
                    self.ended = Some(result);
                }
            }
            Kind::Recv => match std::mem::replace(&mut self.recv, Recv::Idle) {
                Recv::Once(memory) => self.recv = Recv::Done(memory, outcome(result)),
                other => self.recv = other,
            },
            Kind::Send => match std::mem::replace(&mut self.send, Send::Idle) {
                Send::UnderWay(batch) => self.send = Send::Done(batch, outcome(result)),
                other => self.send = other,
            },
            Kind::RecvMulti | Kind::Cancel | Kind::Bell => {}
        }
    }

    /// The result of a receive into the session's own memory. `None`: none is complete, or it must be restarted.
    #[inline]
    pub(super) fn take_done(&mut self, buf: &mut BytesMut) -> Option<io::Result<usize>> {
        if !matches!(self.recv, Recv::Done(..)) {
            return None;
        }
        let Recv::Done(memory, result) = std::mem::replace(&mut self.recv, Recv::Idle) else {
            return None;
        };
        *buf = memory;
        if let Ok(n) = result {
            // SAFETY: `n` bytes were written behind `len`, into the spare capacity that the operation or the
            // call was given; the memory was not touched since.
            unsafe { buf.set_len(buf.len() + n) };
        }
        settled(result)
    }

    /// Whether there are bytes that the session has not taken, or an operation that may have received some.
    pub(super) fn may_have_received(&self) -> bool {
        let receiving = match &self.recv {
            Recv::Idle | Recv::Direct { .. } => false,
            Recv::Multi { .. } | Recv::Once(_) => true,
            Recv::Done(_, result) => matches!(result, Ok(1..)),
        };
        receiving || !self.arrived.is_empty() || !self.kept.is_empty()
    }

    /// Appends bytes that have arrived to `buf`, which grows to `capacity`, or by those of one buffer.
    #[inline]
    pub(super) fn take_arrived(
        &mut self,
        ring: &mut impl Ring,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> usize {
        self.arrived_since_send = true;
        let (most, mut bytes) = (capacity.saturating_sub(buf.len()), 0);
        let fits = |&(_, len): &(u16, u32)| {
            let first = bytes == 0;
            bytes += len as usize;
            first || bytes <= most
        };
        let count = self.arrived.iter().copied().take_while(fits).count();
        let bytes = self
            .arrived
            .iter()
            .take(count)
            .map(|(_, len)| *len as usize);
        let bytes = bytes.sum();
        make_exact_room(buf, bytes);
        for (buffer, len) in self.arrived.drain(..count) {
            ring.take_buffer(buffer, len as usize, buf);
        }
        bytes
    }

    /// Gives the ring's buffers back, and keeps their bytes.
    pub(super) fn keep_arrived(&mut self, ring: &mut impl Ring) {
        let bytes: usize = self.arrived.iter().map(|(_, len)| *len as usize).sum();
        if bytes > 0 {
            make_exact_room(&mut self.kept, bytes);
            for (buffer, len) in self.arrived.drain(..) {
                ring.take_buffer(buffer, len as usize, &mut self.kept);
            }
        }
    }

    /// Gives the ring's buffers back, and discards all received bytes.
    pub(super) fn discard_arrived(&mut self, ring: &mut impl Ring) {
        self.kept = BytesMut::new();
        for (buffer, _) in self.arrived.drain(..) {
            ring.take_buffer(buffer, 0, &mut BytesMut::new());
        }
    }

    /// Appends kept bytes to `buf`, which grows to `capacity`, and by as much as a buffer of the ring holds in any case.
    #[cold]
    pub(super) fn take_kept(&mut self, buf: &mut BytesMut, capacity: usize) -> usize {
        let most = capacity.saturating_sub(buf.len()).max(BUFFER_BYTES);
        let bytes = self.kept.len().min(most);
        make_exact_room(buf, bytes);
        buf.extend_from_slice(&self.kept.split_to(bytes));
        if self.kept.is_empty() {
            self.kept = BytesMut::new();
        }
        bytes
    }

    /// The batch of a completed send, and its result. `None`: none is complete, or it must be restarted.
    #[inline]
    pub(super) fn take_sent(&mut self, batch: &mut Batch) -> Option<io::Result<usize>> {
        if !matches!(self.send, Send::Done(..)) {
            return None;
        }
        let Send::Done(memory, result) = std::mem::replace(&mut self.send, Send::Idle) else {
            return None;
        };
        *batch = memory;
        settled(result)
    }
}

/// Converts a completion's result: bytes, or a negative error number.
pub(super) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// `None` if it was interrupted or cancelled before it transferred anything: one that has transferred some bytes succeeds.
fn settled(result: io::Result<usize>) -> Option<io::Result<usize>> {
    let again = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED)
        )
    };
    match result {
        Err(error) if again(&error) => None,
        result => Some(result),
    }
}
