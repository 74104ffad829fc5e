//! A4, A9 and A12: memory that is requested and not released.

use super::Attack;
use crate::attack::peer::{Peer, Reading};
use crate::attack::wire::END;

/// Messages on all granted streams, whose answers are not read.
pub(super) struct Stall {
    reading: Reading,
    /// Lengths of the messages, in turn.
    lengths: &'static [usize],
    streams: Vec<u32>,
    next: usize,
}

impl Stall {
    /// Each payload is just above the size that the server copies, and so pins as much of a buffer as possible.
    pub(super) fn shared_slices() -> Self {
        Self::new(Reading::NoCredit, &[4097, 20, 8200, 300, 16_000, 5000])
    }

    /// Every second connection grants no credit; the others do not read.
    pub(super) fn zero_window(n: u64) -> Self {
        let slow = !n.is_multiple_of(2);
        let reading = if slow {
            Reading::Slow
        } else {
            Reading::NoCredit
        };
        Self::new(reading, &[4096])
    }

    fn new(reading: Reading, lengths: &'static [usize]) -> Self {
        Self {
            reading,
            lengths,
            streams: Vec::new(),
            next: 0,
        }
    }
}

impl Attack for Stall {
    fn step(&mut self, peer: &mut Peer) {
        peer.reading = self.reading;
        self.streams.extend(peer.open(0, b"stall"));
        self.streams.retain(|stream| peer.is_open(*stream));
        let message = vec![b'x'; self.lengths[self.next % self.lengths.len()]];
        // The next stream in turn that has credit.
        for _ in 0..self.streams.len() {
            self.next = self.next.wrapping_add(1);
            let stream = self.streams[self.next % self.streams.len()];
            if peer.data(stream, END, &message) {
                return;
            }
        }
    }
}

/// The announced total of a message.
const TOTAL: u32 = 1 << 20;
const PIECE_BYTES: usize = 16 * 1024;

/// On each stream one message that is never completed: the application does not see it, and its pieces stay in memory.
#[derive(Default)]
pub(super) struct Unfinished {
    streams: Vec<u32>,
    next: usize,
}

impl Attack for Unfinished {
    fn step(&mut self, peer: &mut Peer) {
        if let Some(stream) = peer.open(0, b"never completed") {
            let first = [&TOTAL.to_le_bytes()[..], b"x"].concat();
            peer.data(stream, 0, &first);
            self.streams.push(stream);
            return;
        }
        self.streams.retain(|stream| peer.is_open(*stream));
        for _ in 0..self.streams.len() {
            self.next = self.next.wrapping_add(1);
            let stream = self.streams[self.next % self.streams.len()];
            if peer.data(stream, 0, &[b'x'; PIECE_BYTES]) {
                return;
            }
        }
    }
}
