//! An orphaned session: no `Session` handle is left.
//!
//! ```text
//!   the last `Session` goes ─► none can open or accept ─┬─► the last stream ends ────────────────────────► close
//!                                                       └─► no stream is held, and nothing moves for long ─► close
//! ```
//! When no stream is held either, what is left is the peer's to do: to give credit for what is queued, and to end its own
//! directions. It may take its time as long as something moves. One that does neither, and answers every PING, would keep
//! the socket for ever.

use std::time::Instant;

use super::mux::Mux;
use super::port::SessionPort;
use super::timers::Timer;

/// What moves while a peer does its part, or an application lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    established: bool,
    streams: usize,
    /// Of them, not dropped by the application.
    held: usize,
    /// Bytes of messages sent in all, frame cost included.
    sent: u64,
    /// Bytes of what the socket holds that were seen to leave it.
    left: u64,
}

impl Progress {
    fn of<S: SessionPort>(mux: &mut Mux<S>, established: bool, left: u64) -> Self {
        let streams = mux.base.streams.iter_mut();
        Self {
            held: streams.filter(|(_, stream)| !stream.dropped).count(),
            established,
            streams: mux.base.streams.len(),
            sent: mux.credit.used(),
            left,
        }
    }
}

/// Whether a session is orphaned, and what had moved when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Orphan(Option<Progress>);

impl Orphan {
    #[inline]
    pub(crate) const fn is_orphaned(&self) -> bool {
        self.0.is_some()
    }

    /// The last `Session` has gone; or it is looked at again, and something has moved. `left`: bytes that were seen to leave
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

    /// Looks whether anything has moved since the last time, or is held. If not, the session is to be closed.
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

    /// Without a handle and without a stream nobody can ever use the session again.
    ///
    /// To be asked when no stream is on its way here: what was opened before the last handle went
    /// was registered by the turn that saw it go.
    #[inline]
    pub(crate) fn is_unused<S: SessionPort>(&self, mux: &Mux<S>) -> bool {
        self.is_orphaned() && mux.base.streams.is_empty()
    }
}
