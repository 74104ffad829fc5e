//! The deadlines of a session: one array, one name each.
//!
//! A timer that is set runs only in the states of the session that [`Life::timers`](super::life::Life::timers) lists for it;
//! in the others it keeps its time. Setting one is a store and a bit, and none is set per message: frequent events store
//! a time, and one timer checks it when it has expired (`keepalive`).

use std::time::Instant;

/// The action at a deadline. Those that expire together are handled in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Timer {
    /// The peer has not completed the handshake: the session ends.
    Handshake,
    /// A graceful shutdown was requested during the handshake, whose time limit is shortened to this: the session ends.
    HelloGrace,
    /// The peer has not made its first call, where only a call tells that it is one: the session ends.
    FirstCall,
    /// The streams of a graceful shutdown, or the flush of a `close`, take too long: the session ends.
    Ceiling,
    /// The PING behind GOAWAY|SOON was not answered: the last id is sent all the same.
    Pong,
    /// The socket has not taken the final GOAWAY: it is given up.
    FinalGoaway,
    /// The session has reached its maximum age: it drains.
    Age,
    /// Check again the streams that wait for memory or hold it.
    Recheck,
    /// Check the progress of messages that were given memory.
    Advances,
    /// Check the peer's signs of life and the socket's progress.
    Keepalive,
    /// Free the memory of rings that have grown and are idle.
    Shrink,
    /// Free the lanes that are kept for future streams, if none was kept lately.
    Spares,
    /// Check for progress in a session without handles.
    Orphan,
    /// A stream's deadline has passed: the stream is cancelled.
    Deadlines,
    /// A call's deadline may have passed: the calls are checked.
    Calls,
}

/// How many timers there are.
const COUNT: usize = 15;

impl Timer {
    pub(crate) const ALL: [Self; COUNT] = [
        Self::Handshake,
        Self::HelloGrace,
        Self::FirstCall,
        Self::Ceiling,
        Self::Pong,
        Self::FinalGoaway,
        Self::Age,
        Self::Recheck,
        Self::Advances,
        Self::Keepalive,
        Self::Shrink,
        Self::Spares,
        Self::Orphan,
        Self::Deadlines,
        Self::Calls,
    ];

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// A set of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerSet(u16);

impl TimerSet {
    pub(crate) const NONE: Self = Self(0);
    /// The set of no state of a session.
    const OTHER: Self = Self(u16::MAX);

    pub(crate) const fn with(self, timer: Timer) -> Self {
        Self(self.0 | timer.bit())
    }

    pub(crate) const fn contains(self, timer: Timer) -> bool {
        self.0 & timer.bit() != 0
    }
}

/// When each timer expires, if it is set.
#[derive(Debug)]
pub(crate) struct Timers {
    set: u16,
    /// Any time, for those that are not set.
    at: [Instant; COUNT],
    /// The answer of [`next`](Self::next), and the timers that it was for: asked at the end of each turn, and seldom another.
    next: Option<Instant>,
    next_of: TimerSet,
}

const _: () = assert!(
    COUNT < u16::BITS as usize,
    "`TimerSet::OTHER` has a bit of its own"
);

impl Timers {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            set: 0,
            at: [now; COUNT],
            next: None,
            next_of: TimerSet::OTHER,
        }
    }

    #[inline]
    pub(crate) const fn set(&mut self, timer: Timer, at: Instant) {
        self.set |= timer.bit();
        self.at[timer as usize] = at;
        self.next_of = TimerSet::OTHER;
    }

    /// Sets it, unless it expires earlier anyway.
    #[inline]
    pub(crate) fn set_by(&mut self, timer: Timer, at: Instant) {
        if !self.is_set(timer) || self.at[timer as usize] > at {
            self.set(timer, at);
        }
    }

    pub(crate) const fn stop(&mut self, timer: Timer) {
        self.set &= !timer.bit();
        self.next_of = TimerSet::OTHER;
    }

    #[inline]
    pub(crate) const fn is_set(&self, timer: Timer) -> bool {
        self.set & timer.bit() != 0
    }

    #[inline]
    pub(crate) const fn get(&self, timer: Timer) -> Option<Instant> {
        if self.is_set(timer) {
            Some(self.at[timer as usize])
        } else {
            None
        }
    }

    /// When the first of `running` expires.
    #[inline]
    pub(crate) fn next(&mut self, running: TimerSet) -> Option<Instant> {
        if self.next_of != running {
            self.next_of = running;
            self.next = self.find_next(running);
        }
        self.next
    }

    /// The same, computed anew.
    #[cold]
    pub(crate) fn find_next(&self, running: TimerSet) -> Option<Instant> {
        let mut left = self.set & running.0;
        let mut next: Option<Instant> = None;
        while left != 0 {
            let at = self.at[left.trailing_zeros() as usize];
            next = Some(next.map_or(at, |next| next.min(at)));
            left &= left - 1;
        }
        next
    }

    /// If it has expired: stops it, and returns the time it was set for.
    pub(crate) fn take_expired(&mut self, timer: Timer, now: Instant) -> Option<Instant> {
        let at = self.get(timer).filter(|at| *at <= now)?;
        self.stop(timer);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn every() -> TimerSet {
        Timer::ALL.into_iter().fold(TimerSet::NONE, TimerSet::with)
    }

    #[test]
    fn all_timers_are_listed_once_in_their_order() {
        for (index, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, index, "{timer:?}");
        }
    }

    #[test]
    fn the_next_deadline_is_the_earliest_of_those_that_are_set_and_run() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        assert_eq!(timers.next(every()), None);
        for (seconds, timer) in (1..).zip(Timer::ALL.into_iter().rev()) {
            timers.set(timer, now + seconds * SECOND);
        }
        for (seconds, timer) in (1..).zip(Timer::ALL.into_iter().rev()) {
            let at = now + seconds * SECOND;
            assert_eq!(timers.next(every()), Some(at));
            assert_eq!(timers.next(TimerSet::NONE.with(timer)), Some(at));
            timers.stop(timer);
            assert_eq!(timers.next(TimerSet::NONE.with(timer)), None);
        }
        assert_eq!(timers.next(every()), None);
    }

    #[test]
    fn the_next_deadline_follows_every_change_of_the_timers() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        let running = TimerSet::NONE.with(Timer::Pong).with(Timer::Age);
        let mut check = |change: fn(&mut Timers, Instant), seconds: Option<u32>| {
            change(&mut timers, now);
            for _ in 0..2 {
                let next = seconds.map(|seconds| now + seconds * SECOND);
                assert_eq!(timers.next(running), next);
                assert_eq!(timers.find_next(running), next);
            }
        };
        check(|_, _| {}, None);
        check(
            |timers, now| timers.set(Timer::Age, now + 5 * SECOND),
            Some(5),
        );
        check(
            |timers, now| timers.set_by(Timer::Pong, now + 3 * SECOND),
            Some(3),
        );
        check(
            |timers, now| timers.set_by(Timer::Pong, now + 4 * SECOND),
            Some(3),
        );
        check(
            |timers, now| timers.set(Timer::Pong, now + 7 * SECOND),
            Some(5),
        );
        check(|timers, _| timers.stop(Timer::Age), Some(7));
        let late = |timers: &mut Timers, now| {
            timers.take_expired(Timer::Pong, now + 9 * SECOND);
        };
        check(late, None);
    }

    #[test]
    fn a_timer_expires_once_at_its_time_and_not_before() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.set(Timer::Pong, now + SECOND);
        let before = now + SECOND - Duration::from_nanos(1);
        assert_eq!(timers.take_expired(Timer::Pong, before), None);
        assert_eq!(timers.take_expired(Timer::Ceiling, now + 9 * SECOND), None);
        let late = timers.take_expired(Timer::Pong, now + 9 * SECOND);
        assert_eq!(late, Some(now + SECOND), "for when it was set");
        assert!(!timers.is_set(Timer::Pong));
        assert_eq!(timers.take_expired(Timer::Pong, now + 9 * SECOND), None);
    }

    #[test]
    fn a_timer_that_is_set_by_a_time_is_only_ever_moved_forward() {
        let now = Instant::now();
        let mut timers = Timers::new(now + 9 * SECOND);
        for (by, expected) in [(5, 5), (7, 5), (3, 3)] {
            timers.set_by(Timer::Ceiling, now + by * SECOND);
            assert_eq!(timers.get(Timer::Ceiling), Some(now + expected * SECOND));
        }
        timers.set(Timer::Ceiling, now + 8 * SECOND);
        assert_eq!(timers.get(Timer::Ceiling), Some(now + 8 * SECOND));
    }
}
