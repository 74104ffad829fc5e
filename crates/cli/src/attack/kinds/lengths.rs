//! A13: invalid lengths.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{DATA, END, OPEN};

/// One length for each connection, in turn; the announced payload is never sent.
pub(super) struct Oversized {
    which: u64,
    done: bool,
}

impl Oversized {
    pub(super) const fn new(n: u64) -> Self {
        Self {
            which: n % 5,
            done: false,
        }
    }
}

impl Attack for Oversized {
    fn step(&mut self, peer: &mut Peer) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let Some(stream) = peer.open(0, b"lengths") else {
            return;
        };
        match self.which {
            0 => peer.announce(DATA, END, stream, 0xFF_FFFF),
            1 => peer.announce(DATA, END, stream, 64 * 1024 + 1),
            2 => peer.announce(OPEN, 0, stream.wrapping_add(2), 8 * 1024 + 1),
            3 => peer.raw(DATA, 0, stream, &[0xFF; 5]),
            // An unknown extension is skipped, not stored, but has a maximum length as well.
            _ => peer.announce(12, 0, 0, 0xFF_FFFF),
        }
    }
}
