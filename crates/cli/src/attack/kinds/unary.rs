//! C8 to C15: unary calls in frames, CALL and REPLY, once the server has said that it takes them.

use super::Attack;
use super::calls::{REQUEST, block};
use crate::attack::peer::{Peer, Reading};
use crate::attack::wire::{CALL, CALL_MAX, CANCEL, NONE, REPLY};

/// What a request begins with that a server of the tests never answers. To others it means as little as any request here.
const HOLD: &[u8] = b"hold";
/// The id of a stream that the server would open.
const OF_SERVER: u32 = 2;

/// The payload of a CALL.
fn payload(method: &str, request: &[u8]) -> Vec<u8> {
    let block = block(0, method.as_bytes(), &[]);
    [&(block.len() as u16).to_le_bytes()[..], &block, request].concat()
}

/// The same, as long as it may be.
fn largest(method: &str, request: &[u8]) -> Vec<u8> {
    let mut payload = payload(method, request);
    payload.resize(CALL_MAX, b'x');
    payload
}

fn cancel(peer: &mut Peer, call: u32) {
    peer.raw(CANCEL, 0, call, &[0; 4]);
    peer.forget(call);
}

/// C8: calls for ever, whose long answers get no credit, or are not even read on every second connection.
pub(super) struct Unread {
    payload: Vec<u8>,
    reading: Reading,
}

impl Unread {
    pub(super) fn new(n: u64, method: &str) -> Self {
        Self {
            payload: largest(method, &[]),
            reading: match n.is_multiple_of(2) {
                true => Reading::NoCredit,
                false => Reading::Nothing,
            },
        }
    }
}

impl Attack for Unread {
    fn step(&mut self, peer: &mut Peer) {
        if peer.may_call() {
            peer.reading = self.reading;
            peer.call(&self.payload);
        }
    }
}

/// C9: calls that are cancelled as soon as they are made.
pub(super) struct Reset {
    payload: Vec<u8>,
}

impl Reset {
    pub(super) fn new(method: &str) -> Self {
        let payload = payload(method, &REQUEST);
        Self { payload }
    }
}

impl Attack for Reset {
    fn step(&mut self, peer: &mut Peer) {
        if peer.may_call()
            && let Some(call) = peer.call(&self.payload)
        {
            cancel(peer, call);
        }
    }
}

/// C10: calls that are never answered, on all places; on all connections but the first one more than there are.
pub(super) struct Held {
    payload: Vec<u8>,
    beyond: bool,
    made: u64,
}

impl Held {
    pub(super) fn new(n: u64, method: &str) -> Self {
        Self {
            payload: payload(method, HOLD),
            beyond: n > 0,
            made: 0,
        }
    }
}

impl Attack for Held {
    fn step(&mut self, peer: &mut Peer) {
        if !peer.may_call() {
            return;
        }
        if peer.call(&self.payload).is_some() {
            self.made += 1;
        } else if self.beyond && self.made > 0 {
            peer.call_beyond(&self.payload);
        }
    }
}

/// C11: calls as long as they may be that are never answered: as many as there are places, then one cancelled for each made.
pub(super) struct Largest {
    payload: Vec<u8>,
    calls: Vec<u32>,
    next: usize,
}

impl Largest {
    pub(super) fn new(method: &str) -> Self {
        Self {
            payload: largest(method, HOLD),
            calls: Vec::new(),
            next: 0,
        }
    }
}

impl Attack for Largest {
    fn step(&mut self, peer: &mut Peer) {
        if !peer.may_call() {
            return;
        }
        if let Some(call) = peer.call(&self.payload) {
            self.calls.push(call);
            return;
        }
        // The first ones and the last ones in turn.
        self.next = self.next.wrapping_add(1);
        let at = if self.next.is_multiple_of(2) {
            0
        } else {
            self.calls.len().saturating_sub(1)
        };
        if at < self.calls.len() {
            cancel(peer, self.calls.swap_remove(at));
        }
    }
}

/// Rules of calls, each broken on a connection of its own.
pub(super) const BROKEN: usize = 6;
/// The payload of calls without regard to credit and places: 256 of them are more than `session_window` at first, which is 1 MiB.
const LONG: usize = 4096;

/// C12: each connection breaks another rule.
pub(super) struct Broken {
    rule: u64,
    payload: Vec<u8>,
    long: Vec<u8>,
    broken: bool,
}

impl Broken {
    pub(super) fn new(n: u64, method: &str) -> Self {
        Self {
            rule: n % BROKEN as u64,
            payload: payload(method, HOLD),
            long: {
                let mut payload = payload(method, HOLD);
                payload.resize(LONG, b'x');
                payload
            },
            broken: false,
        }
    }
}

impl Attack for Broken {
    fn step(&mut self, peer: &mut Peer) {
        // The last rule is to wait until the server takes calls.
        if self.broken || !(peer.may_call() || self.rule == 5) {
            return;
        }
        self.broken = true;
        match self.rule {
            0 => {
                if let Some(call) = peer.call(&self.payload) {
                    peer.raw(CALL, 0, call, &self.payload);
                }
            }
            1 => peer.raw(CALL, 0, OF_SERVER, &self.payload),
            // Beyond the credit or the places, whichever is less.
            2 => {
                peer.call_beyond(&self.long);
                self.broken = false;
            }
            // Its opening block is longer than itself.
            3 => peer.raw(CALL, 0, u32::MAX, &[0xFF, 0]),
            4 => peer.announce(CALL, 0, u32::MAX, CALL_MAX as u32 + 1),
            _ => peer.raw(CALL, 0, 1, &self.payload),
        }
    }
}

/// C13: half a call, as long as one may be, and nothing behind it.
pub(super) struct Half {
    payload: Vec<u8>,
    said: bool,
}

impl Half {
    pub(super) fn new(method: &str) -> Self {
        Self {
            payload: largest(method, &[]),
            said: false,
        }
    }
}

impl Attack for Half {
    fn step(&mut self, peer: &mut Peer) {
        if peer.may_call() && !self.said {
            self.said = true;
            peer.announce(CALL, 0, 1, self.payload.len() as u32);
            peer.say(&self.payload[..self.payload.len() / 2]);
            peer.reading = Reading::Nothing;
        }
    }
}

/// C14: calls of methods that there are not; every second connection does not read that it is told so.
pub(super) struct Unknown {
    next: u64,
    reads: bool,
}

impl Unknown {
    pub(super) const fn new(n: u64) -> Self {
        Self {
            next: 0,
            reads: n.is_multiple_of(2),
        }
    }
}

impl Attack for Unknown {
    fn step(&mut self, peer: &mut Peer) {
        if !peer.may_call() {
            return;
        }
        if !self.reads {
            peer.reading = Reading::Nothing;
        }
        let name = format!("attack.{:/>248}", self.next);
        self.next += u64::from(peer.call(&payload(&name, &REQUEST)).is_some());
    }
}

/// Wrong answers, each on a connection of its own.
pub(super) const REPLIES: usize = 2;
/// Announcements before a wrong answer: fewer than any server takes for a flood.
const ANNOUNCED: u64 = 500;

/// C15: says by turns that it takes calls and that it takes none, then answers a call that the server did not make.
pub(super) struct Replies {
    payload: Vec<u8>,
    own: bool,
    announced: u64,
}

impl Replies {
    pub(super) fn new(n: u64, method: &str) -> Self {
        Self {
            payload: payload(method, HOLD),
            own: n.is_multiple_of(2),
            announced: 0,
        }
    }
}

impl Attack for Replies {
    fn step(&mut self, peer: &mut Peer) {
        if !peer.may_call() {
            return;
        }
        if self.announced < ANNOUNCED {
            self.announced += 1;
            let flags = if self.announced.is_multiple_of(2) {
                0
            } else {
                NONE
            };
            peer.raw(CALL, flags, 0, &[]);
        } else if !self.own {
            peer.raw(REPLY, 0, OF_SERVER, &REQUEST);
        } else if let Some(call) = peer.call(&self.payload) {
            peer.raw(REPLY, 0, call, &REQUEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `src/rpc/WIRE.md`.
    #[test]
    fn a_call_is_as_the_wire_has_it() {
        assert_eq!(payload("a/B", b"hi"), b"\x07\0\x01\0\0\x03a/Bhi");
        let largest = largest("a/B", HOLD);
        assert_eq!((largest.len(), &largest[9..13]), (CALL_MAX, HOLD));
    }
}
