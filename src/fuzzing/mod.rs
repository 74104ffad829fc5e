//! What the fuzz targets do with their bytes: in the library, so that the same bodies replay the seeds as ordinary
//! tests on a stable compiler. Built for tests and with `--cfg fuzzing` (which `cargo fuzz` sets) alone.
//!
//! * [`codec`]: bytes to frames and back.
//! * [`peer`]: one connection against a peer that says whatever the input says.
//! * [`pair`]: two connections; the input is what their applications do and how the network splits.
//! * `calls` (feature `rpc`): bytes to what calls add to a stream, and back.
//! * [`canary`]: [`codec`] with a fault put in, so that a harness that looks at nothing is known for it.
//!
//! A body returns, or panics: there is nothing to interpret. Each runs on the caller's thread, opens no socket, reads
//! no clock but once, and is a function of its input.

#[cfg(feature = "rpc")]
mod calls;
mod canary;
mod codec;
mod pair;
mod peer;
mod side;
#[cfg(test)]
mod tests;

#[cfg(feature = "rpc")]
pub use calls::calls;
pub use canary::canary;
pub use codec::codec;
pub use pair::pair;
pub use peer::peer;

/// The bytes that are left of an input; zeros when none are.
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
