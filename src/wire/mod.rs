//! Wire types that occur in errors: the rule of the protocol that a peer broke.
//!
//! An application needs it only to tell one broken rule from another; any broken rule is a
//! [`SessionError::Protocol`](crate::SessionError::Protocol).

// Wires: bytes to steps of the core and back.
//
// A `Wire` decodes what was received and calls the core, and encodes what the core has to say into a `Batch`. It is
// called once for each reception and each batch, and is a type parameter of what drives it, so nothing is dispatched for a
// message. `native` is the one of ringmux; the tests have another, to show that the core knows of none.
//
// # A new wire
// is a directory here: a type that implements `Wire`, its errors, and `Terms` that say what it can do. What it cannot
// (credit, pings, farewells) the core goes without: it holds a peer back by not reading, takes any byte for a sign of life
// alone, and ends without a last word.

mod batch;
#[allow(dead_code, unused_imports)] // The codec is complete; the protocol does not use all of it.
pub(crate) mod native;

use std::fmt::Debug;
use std::time::Instant;

use bytes::BytesMut;

#[cfg(test)]
pub(crate) use batch::BATCH_COPY_BYTES;
pub(crate) use batch::{BATCH_BYTES, BATCH_PARTS, Batch, SHARED_BATCH_BYTES};
#[cfg(all(test, not(ringmux_loom)))]
pub(crate) mod tests;

pub use crate::error::ProtocolError;
pub(crate) use native::Native;
pub(crate) use native::frame::Role;
pub use native::frame::{FrameError, Kind as FrameKind, StreamId};

use crate::config::Config;
use crate::core::{Core, SessionPort, Terms};
use crate::error::SessionError;

/// Work of one [`Wire::receive`], in short frames, after which the rest of what has come waits a turn. Neighbours of the
/// session wait for so long: some 30 us, or half a millisecond where nothing is optimized. Frames of 256 bytes and more
/// are through with 256 KiB before that, so it leaves the batches of those who send much as they are.
pub(crate) const WORK_MAX: u64 = 1024;
/// Streams whose tasks are to be woken, after which the rest of what has come waits a turn: the
/// answers of the first leave while the others are at work.
pub(crate) const WAKES_MAX: usize = 32;

/// See the module.
pub(crate) trait Wire: Debug + Sized {
    /// What it can do.
    const TERMS: Terms;

    /// One side of a connection, which may hold so much for the peer.
    fn new(role: Role, config: &Config, session_window: u32) -> Self;

    /// Whether this side says nothing before the peer has.
    fn is_silent(role: Role) -> bool;

    /// What a receive buffer holds at least, in bytes.
    fn least_reception(config: &Config) -> usize;

    /// To be called once, before anything else. A wire without a handshake is established by it.
    fn begin<S: SessionPort>(&mut self, core: &mut Core<S>) {
        let _ = core;
    }

    /// Takes whole frames off the front of `buf`, up to [`WORK_MAX`]. What is left is the beginning of one or, if this
    /// returns true, there may be more: to be called again when the tasks that have something now had their turn. `backing`
    /// is the size of the buffer that payloads may be referenced in.
    ///
    /// # Errors
    /// The rule that the peer broke: the session ends by it.
    fn receive<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        backing: usize,
        now: Instant,
    ) -> Result<bool, SessionError>;

    /// Whether it has nothing to say of its own, beside what the core has.
    fn is_silent_now(&self) -> bool;

    /// Puts into an empty batch what streams may send now; the session has nothing else to say, but for a question that the
    /// core may have just now. Most batches are such.
    fn transmit_messages<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        self.transmit(core, batch, now);
    }

    /// Puts into an empty batch all that may be sent now.
    fn transmit<S: SessionPort>(&mut self, core: &mut Core<S>, batch: &mut Batch, now: Instant);

    /// A deadline of its own; [`on_deadline`](Self::on_deadline) is called when it has passed, or earlier.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_deadline<S: SessionPort>(&mut self, core: &mut Core<S>, now: Instant) {
        let _ = (core, now);
    }
}
