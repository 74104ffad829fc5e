//! How much is received at a time.
//!
//! Where much comes, a call for each two frames costs more than the frames; and memory that is received into again and
//! again stays in the cache, unlike what applications are given references into. Where little comes, so much memory would
//! only lie there: a session has some as long as it waits. So it begins with room for two frames, has twice as much
//! whenever half of it was filled at once, and begins again when that has not happened for [`IDLE`]; the signs of life of an
//! idle peer are enough to see it.

use std::time::{Duration, Instant};

/// How long a session that receives little keeps what it had for more.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// See the module. Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvSize {
    least: usize,
    most: usize,
    now: usize,
    /// When half of it was filled at once.
    filled: Instant,
}

impl RecvSize {
    /// With room for `least` at any time, and for `most` where much comes.
    pub(crate) fn new(least: usize, most: usize, now: Instant) -> Self {
        Self {
            least,
            most: least.max(most),
            now: least,
            filled: now,
        }
    }

    pub(crate) const fn get(&self) -> usize {
        self.now
    }

    /// So much has come at once.
    #[inline]
    pub(crate) fn arrived(&mut self, bytes: usize, now: Instant) {
        if bytes * 2 >= self.now {
            self.now = (self.now * 2).min(self.most);
            self.filled = now;
        }
    }

    /// Goes back to the least if nothing has filled half of it for long; true if that is less than before.
    #[inline]
    pub(crate) fn shrink(&mut self, now: Instant) -> bool {
        let shrinks = self.now > self.least && now.duration_since(self.filled) >= IDLE;
        if shrinks {
            self.now = self.least;
        }
        shrinks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: usize = 32 * 1024;

    fn sizes(most: usize) -> (RecvSize, Instant) {
        let now = Instant::now();
        (RecvSize::new(LEAST, most, now), now)
    }

    #[test]
    fn it_doubles_while_half_of_it_is_filled_up_to_the_setting() {
        let (mut size, now) = sizes(100 * 1024);
        let least = size.get();
        size.arrived(least / 2 - 1, now);
        assert_eq!(size.get(), least, "less than half");
        size.arrived(least / 2, now);
        assert_eq!(size.get(), 2 * least);
        size.arrived(2 * least, now);
        assert_eq!(size.get(), 100 * 1024);
        size.arrived(100 * 1024, now);
        assert_eq!(size.get(), 100 * 1024);
    }

    #[test]
    fn it_goes_back_once_nothing_has_filled_half_of_it_for_long() {
        let (mut size, now) = sizes(256 * 1024);
        let least = size.get();
        size.arrived(least, now);
        size.arrived(1, now + IDLE);
        assert!(!size.shrink(now + IDLE / 2));
        assert!(size.shrink(now + IDLE));
        assert_eq!(size.get(), least);
        assert!(!size.shrink(now + 2 * IDLE), "it has the least");
    }

    #[test]
    fn there_is_always_room_for_two_frames() {
        let (size, _) = sizes(LEAST / 2);
        assert_eq!(size.get(), LEAST);
    }
}
