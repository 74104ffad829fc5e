//! A5: opening and opaque blocks.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{FIN, OPEN};

/// As long as a block may be.
const BLOCK: [u8; 8 * 1024] = [b'm'; 8 * 1024];
/// Streams of the longest blocks before the one that is too many.
const BEFORE: u64 = 200;

/// Streams with only the longest blocks. There are no continuations on this wire, so more than two blocks are a
/// violation, which comes last.
#[derive(Default)]
pub(super) struct Blocks {
    streams: u64,
    /// The stream under way, and its opaque blocks sent so far, of two.
    current: Option<(u32, u8)>,
}

impl Attack for Blocks {
    fn step(&mut self, peer: &mut Peer) {
        match self.current {
            _ if self.streams > BEFORE => {}
            None => {
                self.current = peer.open(0, &BLOCK).map(|stream| (stream, 0));
            }
            Some((stream, 0)) => {
                if peer.meta(stream, 0, &BLOCK) {
                    self.current = Some((stream, 1));
                }
            }
            Some((stream, _)) => {
                if peer.meta(stream, FIN, &BLOCK) {
                    peer.forget(stream);
                    self.current = None;
                    self.streams += 1;
                }
                if self.streams > BEFORE {
                    let next = stream.wrapping_add(2);
                    peer.announce(OPEN, 0, next, BLOCK.len() as u32 + 1);
                }
            }
        }
    }
}
