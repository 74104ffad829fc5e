//! An orphaned session: no `Session` handle is left.
//!
//! ```text
//!   the last `Session` goes ─► none can open or accept ─┬─► the last stream ends ────────────────────────► close
//!                                                       └─► no stream is held, and nothing moves for long ─► close
//! ```
//! When no stream is held either, the rest is up to the peer: to grant credit for queued messages, and to end its own
//! directions. It may take its time as long as there is progress. A peer that does neither, and answers every PING, would
//! keep the socket for ever.

use std::time::Instant;

use super::mux::Mux;
use super::port::SessionPort;
use super::timers::Timer;

/// Numbers that change while a peer or an application makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    established: bool,
    /// Streams and calls.
    streams: usize,
    /// Those of them that the application has not dropped, nor answered.
    held: usize,
    /// Bytes of messages sent in all, frame cost included.
    sent: u64,
    /// Bytes that were seen to leave the socket.
    left: u64,
}

impl Progress {
    fn of<S: SessionPort>(mux: &mut Mux<S>, established: bool, left: u64) -> Self {
        let streams = mux.base.streams.iter_mut();
        Self {
            held: streams.filter(|(_, stream)| !stream.dropped).count()
                + mux.base.calls.count_held(),
            established,
            streams: mux.base.streams.len() + mux.base.calls.len(),
            sent: mux.credit.used(),
            left,
        }
    }
}

/// Whether a session is orphaned, and its progress at the last check.
#[derive(Debug, Default)]
pub(crate) struct Orphan(Option<Progress>);

impl Orphan {
    #[inline]
    pub(crate) const fn is_orphaned(&self) -> bool {
        self.0.is_some()
    }

    /// The last `Session` has gone; or the check found progress. `left`: bytes that were seen to leave
    /// the socket.
    pub(crate) fn look<S: SessionPort>(
        &mut self,
        mux: &mut Mux<S>,
        established: bool,
        left: u64,
        now: Instant,
    ) {
        self.0 = Some(Progress::of(mux, established, left));
        let at = now + mux.base.config.drain_timeout();
        mux.base.timers.set(Timer::Orphan, at);
    }

    /// Whether no progress was made since the last check, and no stream is held: then the session is to be closed.
    pub(crate) fn is_stuck<S: SessionPort>(
        &mut self,
        mux: &mut Mux<S>,
        established: bool,
        left: u64,
        now: Instant,
    ) -> bool {
        let progress = Progress::of(mux, established, left);
        let moved = self.0.is_some_and(|seen| seen != progress);
        let stuck = !moved && progress.held == 0;
        if !stuck {
            self.look(mux, established, left, now);
        }
        stuck
    }

    /// Without a handle and without a stream the session can never be used again.
    ///
    /// To be called when no stream is on its way here: streams opened before the last handle was dropped
    /// were registered by the turn that saw the drop.
    #[inline]
    pub(crate) fn is_unused<S: SessionPort>(&self, mux: &Mux<S>) -> bool {
        self.is_orphaned() && mux.base.streams.is_empty() && mux.base.calls.is_empty()
    }
}
