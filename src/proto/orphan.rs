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

use super::connection::Connection;
use super::timers::Timer;

/// What moves while a peer does its part, or an application lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    established: bool,
    streams: usize,
    /// Of them, not dropped by the application.
    held: usize,
    /// Bytes of messages sent in all, frame cost included.
    sent: u64,
    /// Bytes of what the socket holds that were seen to leave it.
    left: u64,
}

impl Connection {
    /// The last `Session` has gone.
    pub(super) fn on_orphaned(&mut self, now: Instant) {
        self.look_again(now);
        self.refuse_all_unaccepted();
    }

    /// Without a handle and without a stream nobody can ever use the session again.
    ///
    /// To be called when no stream is on its way here: what was opened before the last handle went
    /// was registered by the [`take_work`](Self::take_work) that saw it go.
    pub(super) fn close_if_unused(&mut self, now: Instant) {
        if self.orphaned.is_some() && self.registry.is_empty() {
            self.close(now);
        }
    }

    pub(super) fn check_orphaned(&mut self, now: Instant) {
        let progress = self.progress();
        let moved = self.orphaned.as_ref().is_some_and(|seen| *seen != progress);
        if moved || progress.held > 0 {
            self.look_again(now);
        } else {
            self.close(now);
        }
    }

    fn look_again(&mut self, now: Instant) {
        self.orphaned = Some(self.progress());
        (self.timers).set(Timer::Orphan, now + self.config.drain_timeout());
    }

    fn progress(&mut self) -> Progress {
        let streams = self.registry.iter_mut();
        Progress {
            held: streams.filter(|(_, stream)| !stream.dropped).count(),
            established: self.life.is_established(),
            streams: self.registry.len(),
            sent: self.credit_given - self.credit.left(),
            left: self.keepalive.seen_to_leave(),
        }
    }
}
