//! What a session has done, as numbers: written by its engine alone, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tripped::{TrippedLimits, Trips};
use crate::error::Limit;

macro_rules! counters {
    (
        counted: $($(#[$doc:meta])* $name:ident),+;
        derived: $($(#[$derived_doc:meta])* $derived:ident),+;
    ) => {
        /// Counts kept by the engine, read by anybody.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            /// `wakes_issued`, as of the session's last sleep.
            pub(super) wakes: Counter,
            trips: Trips,
        }

        /// A snapshot of a session's counters, all since its start unless said otherwise.
        ///
        /// The fields are read one after the other while the session goes on, so sums may be off
        /// by what happened in between.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SessionStats {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$derived_doc])* pub $derived: u64,)+
            /// How often each limit of this side was tripped.
            pub tripped: TrippedLimits,
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> SessionStats {
                let tripped = self.trips.snapshot();
                SessionStats { $($name: self.$name.get(),)+ $($derived: 0,)+ tripped }
                    .with_wakes(self.wakes.get())
            }

            /// A limit was tripped.
            pub(crate) fn trip(&self, limit: Limit) {
                self.limits_tripped.add(1);
                self.trips.count(limit);
            }
        }

        impl SessionStats {
            /// What came on top of `base`, which was taken before. Numbers of what is there now are 0 in it.
            pub(super) const fn since(&self, base: &Self) -> Self {
                Self {
                    $($name: self.$name.saturating_sub(base.$name),)+
                    $($derived: self.$derived.saturating_sub(base.$derived),)+
                    tripped: self.tripped.since(&base.tripped),
                }
            }

            pub(super) const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                $(self.$derived += other.$derived;)+
                self.tripped.add(&other.tripped);
            }
        }
    };
}

counters! {
    counted:
    /// Streams that exist now, in any state.
    streams,
    /// Streams opened by this side.
    opened,
    /// Streams opened by the peer.
    accepted,
    /// Streams that ended in order, in both directions: each side had sent all it wanted to, and neither an error nor
    /// a cancel came of it. Counted when the application has dropped them.
    finished,
    /// Messages sent.
    messages_sent,
    /// Messages received.
    messages_received,
    /// Frames sent.
    frames_sent,
    /// Frames received.
    frames_received,
    /// Bytes handed to the socket.
    bytes_sent,
    /// Bytes that came from the socket.
    bytes_received,
    /// Batches handed to the socket: one write each, unless the socket took less.
    batches,
    /// Times that the engine looked at the session.
    turns,
    /// Times that streams were taken off the ready list.
    activations,
    /// Times that something was asked of the session itself: a ping, a close, the drop of its last
    /// handle. What is asked before the engine looks counts once.
    requests,
    /// Streams ended by a cancel of either side.
    cancelled,
    /// Limits of this side that were tripped, whatever they ended: the sum of [`tripped`](Self::tripped).
    limits_tripped,
    /// Times that a receive window was doubled: a stream's, or the session's.
    windows_grown,
    /// Times that a silent peer was asked for a sign of life.
    keepalives,
    /// 1 if the session ended because the peer gave none.
    keepalive_timeouts,
    /// 1 if the session ended because the socket took nothing.
    write_timeouts,
    /// Bytes received that applications have not consumed, now; frame cost included. Of a session that has ended: what
    /// lies in its streams that applications still hold.
    bytes_held;
    derived:
    /// Times that a handle found the session asleep and woke it. Of several handles that find the
    /// same sleep one wakes.
    ///
    /// Asleep is a session that waits for its socket or for handles, or is just about to. What a
    /// wake costs is up to the host: with [`Driver::Uring`](crate::Driver::Uring) a system call only where the engine
    /// waits in the kernel, otherwise what its runtime does to wake a task.
    wakes_issued,
    /// Times that a handle had something for the session and woke nobody, because the session ran
    /// or was being woken already: `activations + requests - wakes_issued`.
    ///
    /// Messages that join others on a stream which the engine has not yet looked at do not count:
    /// they do not even look whether it sleeps. Counted when the engine takes what it was rung for.
    wakes_suppressed;
}

impl SessionStats {
    /// Every push on the ready list and every first request rings the bell once, and the engine counts both when it
    /// takes them: a producer whose ring wakes nobody counts nothing, and so writes to no line that others read.
    pub(super) fn with_wakes(self, issued: u64) -> Self {
        Self {
            wakes_issued: issued,
            // A bell may be rung before the engine counts what it was rung for.
            wakes_suppressed: (self.activations + self.requests).saturating_sub(issued),
            ..self
        }
    }
}

/// A number that one thread writes at a time and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds without a read-modify-write: the engine is the only writer.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Adds where several threads may write.
    pub(super) fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn take_shared(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
