//! Wire types that occur in errors: the rule of the protocol that a peer broke.
//!
//! An application needs it only to tell one broken rule from another; any broken rule is a
//! [`SessionError::Protocol`].

// For developers: this module has the trait `Wire` and the wires, which translate bytes into steps of the core and back. (The `//!`
// above is for users.)
//
// A `Wire` decodes received bytes and calls the core, and encodes the core's frames into a `Batch`. It is
// called once for each reception and each batch, and is a type parameter of its callers, so no message is
// dispatched dynamically. `native` is ringmux's wire, `drpc` that of DRPC; the tests have a third one.
//
// # A new wire
// is a directory here: a type that implements `Wire`, its errors, and `Terms` with its capabilities. Where one is missing
// (credit, PING, GOAWAY) the core does without: it holds a peer back by not reading, takes only received bytes for signs of life,
// and ends without a final GOAWAY.

mod batch;
pub(crate) mod drpc;
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
pub(crate) use drpc::Drpc;
pub(crate) use native::Native;
pub(crate) use native::frame::Role;
pub use native::frame::{FrameError, Kind as FrameKind, StreamId};

use crate::config::Config;
use crate::core::{Core, SessionPort, Terms};
use crate::error::SessionError;

/// Work of one [`Wire::receive`], in short frames, after which the remaining bytes wait a turn. Other sessions of the
/// thread wait that long: some 30 us, or half a millisecond in unoptimized builds. Frames of 256 bytes and more reach
/// 256 KiB before that, so bulk senders get batches of the same size as without it.
pub(crate) const WORK_MAX: u64 = 1024;
/// Streams with tasks to wake, after which the remaining bytes wait a turn: the answers of the first are sent
/// while the others are at work.
pub(crate) const WAKES_MAX: usize = 32;

/// See the module.
pub(crate) trait Wire: Debug + Sized {
    /// The capabilities of the wire.
    const TERMS: Terms;

    /// One side of a connection, with the initial size of its session window in bytes.
    fn new(role: Role, config: &Config, session_window: u32) -> Self;

    /// Whether this side sends nothing before the peer has.
    fn is_silent(role: Role) -> bool;

    /// The least size of a receive buffer, in bytes.
    fn least_reception(config: &Config) -> usize;

    /// To be called once, before anything else. A wire without a handshake is established by it.
    fn begin<S: SessionPort>(&mut self, core: &mut Core<S>) {
        let _ = core;
    }

    /// Parses whole frames at the front of `buf`, up to [`WORK_MAX`]. The rest is the beginning of a frame or, if this
    /// returns true, may contain more frames: to be called again after the woken tasks had their turn. `backing`
    /// is the size of the buffer that payloads may reference.
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

    /// Whether the wire has no frames of its own to send, besides those of the core.
    fn is_silent_now(&self) -> bool;

    /// Fills an empty batch with messages that streams may send now; the session has nothing else to send, except for a PING that
    /// the core may just have requested. Most batches are of this kind.
    fn transmit_messages<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        self.transmit(core, batch, now);
    }

    /// Fills an empty batch with all frames that may be sent now.
    fn transmit<S: SessionPort>(&mut self, core: &mut Core<S>, batch: &mut Batch, now: Instant);

    /// The application's requests of this turn were taken, perhaps while a batch is being written that the peer does not read.
    #[inline]
    fn requests_taken<S: SessionPort>(&mut self, core: &mut Core<S>) {
        let _ = core;
    }

    /// A deadline of the wire; [`on_deadline`](Self::on_deadline) is called when it has passed, or earlier.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_deadline<S: SessionPort>(&mut self, core: &mut Core<S>, now: Instant) {
        let _ = (core, now);
    }
}
