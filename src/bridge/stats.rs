//! The counters of a session: written by its engine alone, read by any thread.

use super::counter::Counter;
use super::tripped::{TrippedLimits, Trips};
use crate::error::Limit;

macro_rules! counters {
    (
        counted: $($(#[$doc:meta])* $name:ident),+;
        derived: $($(#[$derived_doc:meta])* $derived:ident),+;
    ) => {
        /// Counters written by the engine, read by any thread.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            /// `wakes_issued`, as of the session's last sleep.
            pub(super) wakes: Counter,
            trips: Trips,
        }

        /// A snapshot of a session's counters, all since its start unless stated otherwise.
        ///
        /// The fields are read one after the other while the session runs, so sums may be off
        /// by concurrent updates.
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
            /// The difference to `base`, an earlier snapshot, in which current numbers are 0.
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
    /// Unary calls in one frame each way, of those in `opened` and `accepted`: see [`rpc`](crate::rpc).
    calls,
    /// Streams that ended in order, in both directions: each side had sent all it wanted to, without an error or
    /// a cancel. Counted when the application has dropped them.
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
    /// Bytes received from the socket.
    bytes_received,
    /// Batches handed to the socket: one write each, unless the socket took less.
    batches,
    /// Number of turns that the engine gave the session.
    turns,
    /// Number of times that streams were taken off the ready list.
    activations,
    /// Requests to the session itself: a ping, a close, the drop of its last
    /// handle. Requests made before the engine reads the first one count once.
    requests,
    /// Streams ended by a cancel of either side.
    cancelled,
    /// Limits of this side that were tripped, whatever ended by them: the sum of [`tripped`](Self::tripped).
    limits_tripped,
    /// Number of times that a receive window was doubled: a stream's, or the session's.
    windows_grown,
    /// Number of PINGs sent to a silent peer.
    keepalives,
    /// 1 if the session ended because the peer gave no sign of life.
    keepalive_timeouts,
    /// 1 if the session ended because the socket took no bytes.
    write_timeouts,
    /// Bytes received that applications have not consumed, now; frame cost included. After the end of the session: bytes
    /// queued in streams that applications still hold.
    bytes_held;
    derived:
    /// Number of times that a handle found the session asleep and woke it. Of several handles that find the
    /// same sleep one wakes.
    ///
    /// A session is asleep when it waits for its socket or for handles, or is just about to. The cost of a
    /// wake depends on the host: with [`Driver::Uring`](crate::Driver::Uring) a system call only where the engine
    /// waits in the kernel, otherwise the cost of waking a task of its runtime.
    wakes_issued,
    /// Number of times that a handle had work for the session and need not wake it, because the session ran
    /// or was being woken already: `activations + requests - wakes_issued`.
    ///
    /// Messages that join others on a stream which the engine has not yet looked at do not count:
    /// their senders do not even check whether it sleeps. Counted when the engine takes the work.
    wakes_suppressed;
}

impl SessionStats {
    /// Every push on the ready list and every first request rings the bell once, and the engine counts both when it
    /// takes them: a producer whose ring wakes no engine counts nothing, and so writes to no shared cache line.
    pub(super) fn with_wakes(self, issued: u64) -> Self {
        Self {
            wakes_issued: issued,
            // A bell may be rung before the engine counts the work.
            wakes_suppressed: (self.activations + self.requests).saturating_sub(issued),
            ..self
        }
    }
}
