//! The process's receive memory, shared by all sessions.
//!
//! Sessions take from it when they start, when their window grows, and when a message is larger
//! than its stream's window. Taking never waits: a refused session continues with the memory that it
//! has. (The number itself is behind `port::Memory`.)
//!
//! Each session has a ceiling: the level up to which *it* may fill the pool. If untrusted sessions may fill half of it,
//! the other half is left to trusted ones.
//!
//! A window that was promised to the peer is taken for as long as its session lives, used or not. So initial windows may fill a quarter of the pool,
//! and windows that grow with use a half: the rest is for messages, however many sessions are idle. Only a window full of
//! unconsumed bytes may grow beyond that: the session's other streams are blocked. On a wire without credit there is no promise:
//! a session takes memory as it fills, and gives it back as it empties (`flow::hold`).
//!
//! A session gets memory for a message only if at least as many bytes stay free as it has for messages already. So it has half of the
//! pool and half a message at most, and a session that comes later still finds memory (the dynamic thresholds of switches with
//! shared buffers). A session without any gets all that fits, and a message that was given memory gets the rest that it lacks.
//!
//! Bytes queued in a stream that is over, and that an application holds without reading, are charged too, also beyond the
//! pool's size: they exist, and later requests have to wait. The charge outlives the session (`StreamPort::keep_charge`;
//! of unary calls `CallPort::keep_charge` and `SessionPort::keep_answers`).

use super::port::Memory;

/// Why a window grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// It limits throughput.
    Fast,
    /// It is filled by bytes that other streams do not consume.
    Full,
}

/// One session's part of the pool. All of it is returned when the session ends.
#[derive(Debug)]
pub(crate) struct Share<M> {
    pool: M,
    /// The level up to which this session may fill the pool.
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

    /// The limit to which the session's window may grow: half of an equal share.
    pub(crate) fn window_max(&self) -> u64 {
        self.most() / (2 * self.pool.sessions().max(1))
    }

    /// Takes `bytes` for the initial window; false if that would leave less than three quarters.
    pub(crate) fn take_to_begin(&mut self, bytes: u64) -> bool {
        self.take_for_window(bytes, self.most() / 4 * 3)
    }

    /// Takes `bytes` for a window that grows; false if that would leave less than half, or, for a full window, if fewer are
    /// free.
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
        let taken = self.take(bytes, leave);
        if taken {
            self.window += bytes;
        }
        taken
    }

    /// Returns bytes that were taken for a window that has grown.
    pub(crate) fn give_window(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.window, "{bytes} of {}", self.window);
        let bytes = bytes.min(self.window);
        self.window -= bytes;
        self.pool.give(bytes);
    }

    /// Takes `bytes` for a message; false if fewer are free, or too few would be left to others. A message that was `given`
    /// memory gets more also then.
    pub(crate) fn take_for_message(&mut self, bytes: u64, given: bool) -> bool {
        let leave = if given { 0 } else { self.messages };
        let taken = self.take(bytes, leave);
        if taken {
            self.messages += bytes;
        }
        taken
    }

    /// Never behind the end: nothing would return it.
    fn take(&self, bytes: u64, leave: u64) -> bool {
        !self.ended && self.pool.take(bytes, leave, self.ceiling)
    }

    /// Returns bytes that were taken for messages.
    pub(crate) fn give(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.messages, "{bytes} of {}", self.messages);
        let bytes = bytes.min(self.messages);
        self.messages -= bytes;
        self.pool.give(bytes);
    }

    /// Returns bytes that were taken for messages, `given`, except those still queued for an application that may never read
    /// them. These exist, so they are charged whatever the pool has left.
    pub(crate) fn keep(&mut self, given: u64, queued: u64) {
        self.messages += queued;
        if queued > given {
            self.pool.charge(queued - given);
            self.messages -= given;
        } else {
            self.messages -= queued;
            self.give(given - queued);
        }
    }

    /// Returns everything, once.
    pub(crate) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.pool
            .give(std::mem::take(&mut self.window) + std::mem::take(&mut self.messages));
        self.pool.end_session();
    }

    /// Bytes taken for its window, and for messages.
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
    fn a_request_that_does_not_fit_is_refused_whole() {
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
        // Later sessions have less, until the first ones return some.
        shares[0].give(600);
        while shares[4].take_for_message(1, false) {}
        assert!(shares[4].taken()[1] > 300, "{:?}", shares[4]);
    }

    #[test]
    fn a_session_that_has_ended_gets_nothing_more() {
        let pool = Pool::new(100);
        let mut share = Share::new(pool.clone(), u64::MAX);
        assert!(share.take_to_begin(10) && share.take_for_message(10, false));
        share.end();
        assert!(!share.take_to_begin(10) && !share.take_to_grow(10, Growth::Full));
        assert!(!share.take_for_message(10, false) && !share.take_for_message(10, true));
        assert_eq!((pool.used(), share.taken()), (0, [0, 0]));
    }

    #[test]
    fn a_session_without_memory_for_messages_gets_all_that_fits() {
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
