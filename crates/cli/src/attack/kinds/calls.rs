//! C1 to C7: calls of `rpc` in streams. To a server of streams they are streams with an opening block that means nothing to it.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::{CANCEL, END, FIN};

/// The parts of an opening block, as `src/rpc/WIRE.md` has them.
mod opening {
    pub(super) const VERSION: u8 = 1;
    pub(super) const RAW: u8 = 0;
    pub(super) const REQUEST_STREAM: u8 = 0x01;
    pub(super) const RESPONSE_STREAM: u8 = 0x02;
    pub(super) const TIMEOUT: u8 = 0x04;
    pub(super) const METADATA_FOLLOWS: u8 = 0x08;
    pub(super) const GRPC: u8 = 0x10;
    pub(super) const UNKNOWN: u8 = 0x20;
    /// As long as a block may be.
    pub(super) const MAX: usize = 8 * 1024;
}

pub(super) const REQUEST: [u8; 64] = [b'x'; 64];
/// The shortest entry of metadata: the key `a` without a value.
const ENTRY: &[u8] = &[1, 0, 0, b'a'];
/// The first byte of the block that carries the metadata of a request.
const OF_REQUEST: u8 = 1;
/// Announced bytes of a request that is never completed.
const TOTAL: u32 = 32 * 1024;

/// An opening block of a call with these flags and, behind the method, these bytes.
pub(super) fn block(flags: u8, method: &[u8], rest: &[u8]) -> Vec<u8> {
    let head = [opening::VERSION, flags, opening::RAW, method.len() as u8];
    let timeout: &[u8] = if flags & opening::TIMEOUT == 0 {
        &[]
    } else {
        &[0; 8]
    };
    [&head, timeout, method, rest].concat()
}

/// Makes a call with its request, if the server has a place for it and credit.
fn call(peer: &mut Peer, block: &[u8]) -> Option<u32> {
    let stream = peer.open(0, block)?;
    if !peer.data(stream, END | FIN, &REQUEST) {
        peer.raw(CANCEL, 0, stream, &[0; 4]);
    }
    peer.forget(stream);
    Some(stream)
}

/// Calls before those that the server has no place for.
const WITHIN: u64 = 200;

/// C1: calls for ever; every second connection makes them without regard to its places after some.
pub(super) struct Flood {
    block: Vec<u8>,
    within: u64,
    made: u64,
}

impl Flood {
    pub(super) fn new(n: u64, method: &str) -> Self {
        Self {
            block: block(0, method.as_bytes(), &[]),
            within: if n.is_multiple_of(2) {
                WITHIN
            } else {
                u64::MAX
            },
            made: 0,
        }
    }
}

impl Attack for Flood {
    fn step(&mut self, peer: &mut Peer) {
        if self.made < self.within {
            self.made += u64::from(call(peer, &self.block).is_some());
        } else {
            let stream = peer.open_beyond(0, &self.block);
            peer.data(stream, END | FIN, &REQUEST);
            peer.forget(stream);
        }
    }
}

/// C2: openings that cannot be read, or that ask for what there is not, in turn.
pub(super) struct Malformed {
    blocks: Vec<Vec<u8>>,
    next: usize,
}

impl Malformed {
    pub(super) fn new(method: &str) -> Self {
        let method = method.as_bytes();
        let with = |flags| block(flags, method, &[]);
        let changed = |at: usize, byte| {
            let mut block = with(0);
            block[at] = byte;
            block
        };
        let whole = with(0);
        let blocks = vec![
            Vec::new(),
            vec![opening::VERSION],
            changed(0, opening::VERSION + 1),
            with(opening::UNKNOWN),
            with(opening::GRPC),
            with(opening::REQUEST_STREAM | opening::RESPONSE_STREAM),
            // A codec that nothing has.
            changed(2, 99),
            whole[..whole.len() - 1].to_vec(),
            with(opening::TIMEOUT)[..6].to_vec(),
            block(0, b"", &[]),
            block(0, &[0xFF; 255], &[]),
            // A key and a value that are cut off, and a key that is none.
            block(0, method, &[200, 0, 0, b'a']),
            block(0, method, &[1, 0xFF, 0xFF, b'a']),
            block(0, method, &[1, 0, 0, b'A']),
            // Metadata that does not follow.
            with(opening::METADATA_FOLLOWS),
        ];
        Self { blocks, next: 0 }
    }
}

impl Attack for Malformed {
    fn step(&mut self, peer: &mut Peer) {
        if call(peer, &self.blocks[self.next % self.blocks.len()]).is_some() {
            self.next += 1;
        }
    }
}

/// C3: calls that are cancelled as soon as they are made.
pub(super) struct Reset {
    block: Vec<u8>,
}

impl Reset {
    pub(super) fn new(method: &str) -> Self {
        let block = block(0, method.as_bytes(), &[]);
        Self { block }
    }
}

impl Attack for Reset {
    fn step(&mut self, peer: &mut Peer) {
        if let Some(stream) = call(peer, &self.block) {
            peer.raw(CANCEL, 0, stream, &[0; 4]);
        }
    }
}

/// C4: calls on all places whose request comes a byte at a time, and never ends.
pub(super) struct Unfinished {
    block: Vec<u8>,
    streams: Vec<u32>,
    next: usize,
}

impl Unfinished {
    pub(super) fn new(method: &str) -> Self {
        Self {
            block: block(0, method.as_bytes(), &[]),
            streams: Vec::new(),
            next: 0,
        }
    }
}

impl Attack for Unfinished {
    fn step(&mut self, peer: &mut Peer) {
        if let Some(stream) = peer.open(0, &self.block) {
            let first = [&TOTAL.to_le_bytes()[..], b"x"].concat();
            peer.data(stream, 0, &first);
            self.streams.push(stream);
            return;
        }
        self.streams.retain(|stream| peer.is_open(*stream));
        self.next = self.next.wrapping_add(1);
        if !self.streams.is_empty() {
            let stream = self.streams[self.next % self.streams.len()];
            peer.data(stream, 0, b"x");
        }
    }
}

/// C5: calls with as much metadata as a call may have, in entries as short as they can be: in the opening block, or in a block
/// behind it and another that is to be passed over.
pub(super) struct Metadata {
    whole: Vec<u8>,
    announced: Vec<u8>,
    follows: Vec<u8>,
    passed_over: Vec<u8>,
    next: u64,
}

impl Metadata {
    pub(super) fn new(method: &str) -> Self {
        let method = method.as_bytes();
        let entries = |bytes: usize| ENTRY.repeat(bytes / ENTRY.len());
        let with_first = |first: u8| [&[first][..], &entries(opening::MAX - 1)].concat();
        let head = block(0, method, &[]).len();
        Self {
            whole: block(0, method, &entries(opening::MAX - head)),
            announced: block(opening::METADATA_FOLLOWS, method, &[]),
            follows: with_first(OF_REQUEST),
            passed_over: with_first(0xFF),
            next: 0,
        }
    }
}

impl Attack for Metadata {
    fn step(&mut self, peer: &mut Peer) {
        if self.next.is_multiple_of(2) {
            self.next += u64::from(call(peer, &self.whole).is_some());
            return;
        }
        let Some(stream) = peer.open(0, &self.announced) else {
            return;
        };
        self.next += 1;
        // Each may lack credit: the call is then one without its metadata or request.
        peer.meta(stream, 0, &self.passed_over);
        peer.meta(stream, 0, &self.follows);
        if !peer.data(stream, END | FIN, &REQUEST) {
            peer.raw(CANCEL, 0, stream, &[0; 4]);
        }
        peer.forget(stream);
    }
}

/// C6: calls of methods that there are not, with names as long as they may be.
pub(super) struct Unknown {
    next: u64,
}

impl Unknown {
    pub(super) const fn new() -> Self {
        Self { next: 0 }
    }
}

impl Attack for Unknown {
    fn step(&mut self, peer: &mut Peer) {
        let name = format!("attack.{:/>248}", self.next);
        self.next += u64::from(call(peer, &block(0, name.as_bytes(), &[])).is_some());
    }
}

/// C7: calls whose time is over when they begin.
pub(super) struct Late {
    block: Vec<u8>,
}

impl Late {
    pub(super) fn new(method: &str) -> Self {
        let block = block(opening::TIMEOUT, method.as_bytes(), &[]);
        Self { block }
    }
}

impl Attack for Late {
    fn step(&mut self, peer: &mut Peer) {
        call(peer, &self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `src/rpc/WIRE.md`.
    #[test]
    fn an_opening_block_is_as_the_wire_has_it() {
        assert_eq!(block(0, b"a/B", &[]), b"\x01\0\0\x03a/B");
        let late = block(opening::TIMEOUT, b"a/B", &[]);
        assert_eq!(late, b"\x01\x04\0\x03\0\0\0\0\0\0\0\0a/B");
    }

    #[test]
    fn metadata_is_as_long_as_it_may_be_and_no_longer() {
        let attack = Metadata::new("attack.Attack/Call");
        for block in [attack.whole, attack.follows, attack.passed_over] {
            let len = block.len();
            assert!((opening::MAX - 4..=opening::MAX).contains(&len), "{len}");
        }
    }
}
