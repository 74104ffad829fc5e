//! A10: connections that never complete their handshake.

use std::time::{Duration, Instant};

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::PREFACE;

/// Pause between two bytes.
const BETWEEN: Duration = Duration::from_millis(200);

/// Every third connection sends nothing; the others send their preface a byte at a time, without its last byte.
pub(super) struct Slow {
    silent: bool,
    said: usize,
    next: Instant,
}

impl Slow {
    pub(super) fn new(n: u64) -> Self {
        Self {
            silent: n.is_multiple_of(3),
            said: 0,
            next: Instant::now(),
        }
    }
}

impl Attack for Slow {
    fn greets(&self) -> bool {
        false
    }

    fn step(&mut self, peer: &mut Peer) {
        if self.silent || self.said + 1 >= PREFACE.len() || Instant::now() < self.next {
            return;
        }
        peer.say(&PREFACE[self.said..=self.said]);
        self.said += 1;
        self.next = Instant::now() + BETWEEN;
    }
}
