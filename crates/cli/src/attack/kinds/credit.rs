//! A8: credit that cannot be counted, and credit that was never granted.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{DATA, END, STREAMS, WINDOW};

/// More of these than any window has credit for.
const TOO_MANY: usize = 300;

/// One violation for each connection, in turn.
pub(super) struct Overflow {
    which: u64,
    done: bool,
}

impl Overflow {
    pub(super) const fn new(n: u64) -> Self {
        Self {
            which: n % 4,
            done: false,
        }
    }
}

impl Attack for Overflow {
    fn step(&mut self, peer: &mut Peer) {
        if !peer.is_greeted() || std::mem::replace(&mut self.done, true) {
            return;
        }
        let Some(stream) = peer.open(0, b"credit") else {
            return;
        };
        match self.which {
            0 => peer.raw(WINDOW, 0, 0, &[0xFF; 4]),
            1 => peer.raw(WINDOW, STREAMS, 0, &[0xFF; 4]),
            2 => peer.raw(WINDOW, 0, stream, &[0xFF; 4]),
            _ => (0..TOO_MANY).for_each(|_| peer.raw(DATA, END, stream, &[b'x'; 4096])),
        }
    }
}
