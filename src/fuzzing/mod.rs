//! The bodies of the fuzz targets: in the library, so that the same bodies replay the seeds as ordinary
//! tests on a stable compiler. Built for tests and with `--cfg fuzzing` (set by `cargo fuzz`) only.
//!
//! * [`codec`]: bytes to frames and back.
//! * [`peer`]: one connection against a peer whose bytes are the input.
//! * [`pair`]: two connections; the input is their applications' actions and the network's fragmentation.
//! * [`drpc`], [`drpc_pair`]: the same two over DRPC, in each of its variants.
//! * `calls` (feature `rpc`): the bytes that calls add to a stream, and back.
//! * [`canary`]: [`codec`] with an injected fault, so that an ineffective harness is detected.
//!
//! A body returns, or panics: there is no result to interpret. Each runs on the caller's thread, opens no socket, reads
//! the clock once, and is a function of its input.

#[cfg(feature = "rpc")]
mod calls;
mod canary;
mod codec;
mod drpc;
mod pair;
mod peer;
mod side;
#[cfg(test)]
mod tests;

#[cfg(feature = "rpc")]
pub use calls::calls;
pub use canary::canary;
pub use codec::codec;
pub use drpc::{drpc, drpc_pair};
pub use pair::pair;
pub use peer::peer;

/// The remaining bytes of an input, followed by zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// At most `n` bytes.
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
