//! A6 and A7: frames that cost no credit.

use super::Attack;
use crate::attack::peer::{Peer, Reading};
use crate::attack::wire::{EXTENSION, PING, SETTINGS, WINDOW};

/// PINGs before the SETTINGS that break the rule.
const PINGS: u64 = 1000;

/// Sends PINGs without reading answers, for ever; every second connection repeats its SETTINGS after some.
pub(super) struct Pings {
    most: u64,
    sent: u64,
}

impl Pings {
    pub(super) const fn new(n: u64) -> Self {
        let most = if n.is_multiple_of(2) { PINGS } else { u64::MAX };
        Self { most, sent: 0 }
    }
}

impl Attack for Pings {
    fn step(&mut self, peer: &mut Peer) {
        peer.reading = Reading::Nothing;
        if self.sent == self.most {
            peer.raw(SETTINGS, 0, 0, b"");
        }
        if self.sent >= self.most {
            // Read the server's GOAWAY.
            peer.reading = Reading::NoCredit;
        } else {
            peer.raw(PING, 0, 0, &self.sent.to_le_bytes());
        }
        self.sent += 1;
    }
}

/// Grants the session single bytes, for ever; every second connection sends one grant of 0.
pub(super) struct Windows {
    flood: bool,
    done: bool,
}

impl Windows {
    pub(super) const fn new(n: u64) -> Self {
        Self {
            flood: n.is_multiple_of(2),
            done: false,
        }
    }
}

impl Attack for Windows {
    fn step(&mut self, peer: &mut Peer) {
        if self.flood {
            peer.raw(WINDOW, 0, 0, &1_u32.to_le_bytes());
        } else if !std::mem::replace(&mut self.done, true) {
            peer.raw(WINDOW, 0, 0, &[0; 4]);
        }
    }
}

/// Sends frames of an unknown kind, for ever: every second connection of the shortest length, the others of the longest.
pub(super) struct Unknown {
    payload: &'static [u8],
}

impl Unknown {
    pub(super) const fn new(n: u64) -> Self {
        let payload: &[u8] = if n.is_multiple_of(2) {
            &[]
        } else {
            &[b'?'; 4096]
        };
        Self { payload }
    }
}

impl Attack for Unknown {
    fn step(&mut self, peer: &mut Peer) {
        peer.raw(EXTENSION, 0, 0, self.payload);
    }
}
