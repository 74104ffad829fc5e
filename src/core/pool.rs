//! The process's receive memory, shared by all sessions.
//!
//! Sessions take from it when they start, when their window grows, and when a message is larger
//! than its stream's window. Taking never waits: a session that gets nothing goes on with what it
//! has. (The number itself is behind `port::Memory`.)
//!
//! Each session brings its own ceiling: how full the pool may be when *it* takes. Sessions of strangers that may fill half of
//! it leave the other half to those of friends.
//!
//! A window is taken for as long as its session lives, whether anything comes or not. So what sessions begin with may fill a
//! quarter, and what they grow to because they are in use a half: the rest is for messages, whatever number of sessions
//! lies idle. Only a window that is full of what is not consumed grows out of that as well: its other streams cannot go on.
//!
//! For messages a session gets more only if that leaves as much free as it has already: so none has more than half, and half
//! a message, and whoever comes next finds something (the dynamic thresholds of switches that share their buffers). One that
//! has nothing gets whatever fits, and a message that was given memory gets what it still lacks.
//!
//! What lies in a stream that is over, for an application that holds it and does not look, is charged too, also beyond what the
//! pool has: it is there, and what comes next has to wait for it. It outlives the session (`StreamPort::keep_charge`).

use super::port::Memory;

/// Why a window grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// It limits throughput.
    Fast,
    /// What others do not consume fills it.
    Full,
}

/// What one session has of the pool. All of it goes back when the session ends.
#[derive(Debug)]
pub(crate) struct Share<M> {
    pool: M,
    /// How full the pool may be when this session takes.
    ceiling: u64,
    /// For its window, beyond the floor.
    window: u64,
    /// For messages that are larger than their streams' windows, or that filled the session's.
    messages: u64,
    ended: bool,
}

impl<M: Memory> Share<M> {
    pub(crate) fn new(pool: M, ceiling: u64) -> Self {
        pool.begin_session();
        Self {
            pool,
            ceiling,
            window: 0,
            messages: 0,
            ended: false,
        }
    }

    /// Up to where the session's window may grow: half of an equal share.
    pub(crate) fn window_max(&self) -> u64 {
        self.most() / (2 * self.pool.sessions().max(1))
    }

    /// Takes `bytes` for the window that the session begins with; false if that would leave less than three quarters.
    pub(crate) fn take_to_begin(&mut self, bytes: u64) -> bool {
        self.take_for_window(bytes, self.most() / 4 * 3)
    }

    /// Takes `bytes` for a window that grows; false if that would leave less than half, or, where the window is full, if
    /// there are not so many.
    pub(crate) fn take_to_grow(&mut self, bytes: u64, why: Growth) -> bool {
        let leave = match why {
            Growth::Fast => self.most() / 2,
            Growth::Full => 0,
        };
        self.take_for_window(bytes, leave)
    }

    fn most(&self) -> u64 {
        self.pool.size().min(self.ceiling)
    }

    fn take_for_window(&mut self, bytes: u64, leave: u64) -> bool {
        let taken = self.pool.take(bytes, leave, self.ceiling);
        if taken {
            self.window += bytes;
        }
        taken
    }

    /// Takes `bytes` for a message; false if there are not so many, or too few would be left to others. One that was
    /// `given` some gets more also then.
    pub(crate) fn take_for_message(&mut self, bytes: u64, given: bool) -> bool {
        let leave = if given { 0 } else { self.messages };
        let taken = self.pool.take(bytes, leave, self.ceiling);
        if taken {
            self.messages += bytes;
        }
        taken
    }

    /// Gives back what was taken for messages.
    pub(crate) fn give(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.messages, "{bytes} of {}", self.messages);
        let bytes = bytes.min(self.messages);
        self.messages -= bytes;
        self.pool.give(bytes);
    }

    /// Takes back what was taken for messages, `given`, but for what lies here for an application that may never look at it.
    /// That memory is there, so it is charged whatever the pool has left.
    pub(crate) fn keep(&mut self, given: u64, lies: u64) {
        self.messages += lies;
        if lies > given {
            self.pool.charge(lies - given);
            self.messages -= given;
        } else {
            self.messages -= lies;
            self.give(given - lies);
        }
    }

    /// Gives everything back, once.
    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.pool
            .give(std::mem::take(&mut self.window) + std::mem::take(&mut self.messages));
        self.pool.end_session();
    }

    /// For its window, and for messages.
    #[cfg(test)]
    pub(crate) const fn taken(&self) -> [u64; 2] {
        [self.window, self.messages]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::Pool;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let pool = Pool::new(100);
        assert!(pool.take(60, 0, 1000));
        assert!(!pool.take(41, 0, 1000));
        assert!(pool.take(40, 0, 1000));
        pool.give(100);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_lower_ceiling_leaves_the_rest_to_others() {
        let pool = Pool::new(u64::MAX);
        assert!(pool.take(50, 0, 50));
        assert!(!pool.take(1, 0, 50));
        assert!(pool.take(50, 0, 100));
        assert!(!pool.take(1, 0, 100));
        pool.give(100);
    }

    #[test]
    fn windows_leave_half_to_messages_unless_they_are_full_and_a_quarter_to_those_that_grow() {
        let pool = Pool::new(1000);
        let mut share = Share::new(pool.clone(), u64::MAX);
        assert!(share.take_to_begin(250) && !share.take_to_begin(1));
        assert!(share.take_to_grow(250, Growth::Fast) && !share.take_to_grow(1, Growth::Fast));
        assert!(share.take_to_grow(100, Growth::Full));
        assert!(share.take_for_message(400, false) && !share.take_for_message(1, true));
        assert!(!share.take_to_grow(1, Growth::Full));
        share.end();
    }

    #[test]
    fn windows_may_grow_less_the_more_sessions_there_are() {
        let pool = Pool::new(1000);
        let share = Share::new(pool.clone(), u64::MAX);
        assert_eq!(share.window_max(), 500);
        let lower = Share::new(pool.clone(), 600);
        assert_eq!((share.window_max(), lower.window_max()), (250, 150));
    }

    #[test]
    fn sessions_that_take_all_they_can_leave_half_of_what_they_found() {
        let pool = Pool::new(1200);
        let mut shares = Vec::new();
        for sessions in 1..=5 {
            let mut share = Share::new(pool.clone(), u64::MAX);
            while share.take_for_message(1, false) {}
            shares.push(share);
            let free = 1200 - pool.used();
            assert_eq!(free, 1200 >> sessions);
        }
        // Those that come later have less, until the first give some back.
        shares[0].give(600);
        while shares[4].take_for_message(1, false) {}
        assert!(shares[4].taken()[1] > 300, "{:?}", shares[4]);
    }

    #[test]
    fn a_session_that_has_no_memory_for_messages_gets_what_fits() {
        let pool = Pool::new(100);
        let mut share = Share::new(pool.clone(), u64::MAX);
        assert!(share.take_to_begin(10) && share.take_for_message(90, false));
        share.give(90);
        assert!(!share.take_for_message(91, false) && share.take_for_message(30, false));
        assert!(!share.take_for_message(31, false) && share.take_for_message(30, false));
        assert!(!share.take_for_message(1, false) && share.take_for_message(30, true));
        share.end();
        share.end();
        assert_eq!((pool.used(), pool.sessions()), (0, 0));
    }
}
