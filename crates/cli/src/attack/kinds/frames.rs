//! A3: frames with tiny payloads.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{DATA, END};

const STREAMS: usize = 8;
/// Small messages before the frame that breaks the rule.
const BEFORE: u64 = 2000;

/// Messages of no and of one byte on a few streams, up to all credit; finally a frame that is empty and
/// ends nothing.
#[derive(Default)]
pub(super) struct Tiny {
    streams: Vec<u32>,
    sent: u64,
}

impl Attack for Tiny {
    fn step(&mut self, peer: &mut Peer) {
        self.streams.retain(|stream| peer.is_open(*stream));
        if self.streams.len() < STREAMS {
            self.streams.extend(peer.open(0, b"tiny"));
            return;
        }
        let stream = self.streams[self.sent as usize % STREAMS];
        if self.sent == BEFORE {
            peer.raw(DATA, 0, stream, b"");
        } else if self.sent < BEFORE {
            let message = if self.sent.is_multiple_of(2) {
                &b""[..]
            } else {
                b"x"
            };
            self.sent += u64::from(peer.data(stream, END, message));
            return;
        }
        self.sent = BEFORE + 1;
    }
}
