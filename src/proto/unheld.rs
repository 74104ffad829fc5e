//! A session that nobody holds any more.
//!
//! ```text
//!   the last `Session` goes ─► nobody opens or accepts ─┬─► the last stream ends ───────────────────────► drained
//!                                                       └─► no stream is held, and nothing moves for long ─► drained
//! ```
//! When no stream is held either, what is left is the peer's to do: to give credit for what is queued, and to end its own
//! directions. It may take its time as long as something moves. One that does neither, and answers every PING, would keep
//! the socket for ever.

use std::time::Instant;

use super::connection::{Connection, Phase};

/// Since the last [`Session`](crate::Session) went.
#[derive(Debug)]
pub(super) struct Unheld {
    /// When to look whether something has moved, while the session is open.
    look_at: Instant,
    seen: Progress,
}

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
    drained: u64,
}

impl Connection {
    /// The last `Session` has gone.
    pub(super) fn on_unheld(&mut self, now: Instant) {
        self.look_again(now);
        self.refuse_all_unaccepted();
    }

    /// Without a handle and without a stream nobody can ever use the session again.
    ///
    /// To be called when no stream is on its way here: what was opened before the last handle went
    /// was registered by the [`take_work`](Self::take_work) that saw it go.
    pub(super) fn drain_if_unused(&mut self, now: Instant) {
        if self.unheld.is_some() && self.registry.is_empty() {
            self.drain(now);
        }
    }

    pub(super) fn unheld_deadline(&self) -> Option<Instant> {
        // The other phases have a deadline of their own.
        let open = matches!(self.phase, Phase::Open | Phase::Leaving);
        self.unheld.as_ref().filter(|_| open).map(|it| it.look_at)
    }

    pub(super) fn check_unheld(&mut self, now: Instant) {
        if self.unheld_deadline().is_none_or(|at| now < at) {
            return;
        }
        let progress = self.progress();
        let moved = self.unheld.as_ref().is_some_and(|it| it.seen != progress);
        if moved || progress.held > 0 {
            self.look_again(now);
        } else {
            self.drain(now);
        }
    }

    fn look_again(&mut self, now: Instant) {
        self.unheld = Some(Unheld {
            look_at: now + self.config.drain_timeout(),
            seen: self.progress(),
        });
    }

    fn progress(&mut self) -> Progress {
        let streams = self.registry.iter_mut();
        Progress {
            held: streams.filter(|(_, stream)| !stream.dropped).count(),
            established: self.is_established(),
            streams: self.registry.len(),
            sent: self.credit_given - self.credit.left(),
            drained: self.alive.drained(),
        }
    }
}
