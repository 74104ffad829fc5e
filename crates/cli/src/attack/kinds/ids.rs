//! A11: stream ids.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{CANCEL, END, FIN};

/// Less than a quarter of all ids: ids grow in serial-number order, so nine of these are once around.
const LEAP: u32 = 0x1C71_C71C;

/// Streams with a message each, a leap apart, and a cancel that comes too late for the one before.
#[derive(Default)]
pub(super) struct Leaps {
    last: Option<u32>,
}

impl Attack for Leaps {
    fn step(&mut self, peer: &mut Peer) {
        let id = self.last.map_or(1, |last| last.wrapping_add(LEAP) | 1);
        if !peer.open_as(id, 0, b"leap") {
            return;
        }
        peer.data(id, END | FIN, b"across the ids");
        peer.forget(id);
        if let Some(before) = self.last.replace(id) {
            peer.raw(CANCEL, 0, before, &[0; 4]);
        }
    }
}
