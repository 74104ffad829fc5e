//! A5: opening and opaque blocks.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{FIN, META, OPEN};

/// As long as a block may be.
const BLOCK: [u8; 8 * 1024] = [b'm'; 8 * 1024];
/// Streams of the longest blocks before the one that is too many.
const BEFORE: u64 = 200;

/// Streams of nothing but the longest blocks. There are no continuations on this wire, so more than two blocks are a
/// violation, which comes last.
#[derive(Default)]
pub(super) struct Blocks {
    streams: u64,
}

impl Attack for Blocks {
    fn step(&mut self, peer: &mut Peer) {
        if self.streams > BEFORE {
            return;
        }
        let Some(stream) = peer.open(0, &BLOCK) else {
            return;
        };
        peer.raw(META, 0, stream, &BLOCK);
        peer.raw(META, FIN, stream, &BLOCK);
        peer.forget(stream);
        self.streams += 1;
        if self.streams > BEFORE {
            peer.announce(OPEN, 0, stream.wrapping_add(2), BLOCK.len() as u32 + 1);
        }
    }
}
