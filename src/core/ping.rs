//! Round trips: one question of this side is under way, unless the answer takes so long that another one is asked.
//!
//! A question is a number; how it looks on the wire, and what the peer's look like, is the wire's.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    wanted: bool,
    /// Also while one is under way.
    again: bool,
    /// The latest.
    in_flight: Option<(u64, Instant)>,
    /// How many were asked.
    sent: u64,
    /// The number of the latest that was answered. Of several the peer may answer the last alone.
    answered: u64,
    /// The shortest round trip.
    rtt: Option<Duration>,
}

impl Ping {
    #[inline]
    pub(crate) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// The one that is under way, as a native PING, and since when.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> Option<([u8; 8], Instant)> {
        (self.in_flight).map(|(number, since)| (number.to_le_bytes(), since))
    }

    /// The shortest round trip so far.
    #[inline]
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    #[cfg(test)]
    pub(crate) const fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
    }

    /// The number of the next one.
    pub(crate) const fn next_number(&self) -> u64 {
        self.sent + 1
    }

    /// Asks, unless one is under way, whose answer will do; false then.
    pub(crate) const fn ask(&mut self) -> bool {
        let asks = self.in_flight.is_none();
        self.wanted |= asks;
        asks
    }

    /// Asks as soon as none is under way.
    pub(crate) const fn ask_next(&mut self) {
        self.wanted = true;
    }

    /// Asks, also if one is under way.
    pub(crate) const fn ask_again(&mut self) {
        (self.wanted, self.again) = (true, true);
    }

    /// The question that goes out now, if there is one.
    pub(crate) const fn take(&mut self, now: Instant) -> Option<u64> {
        if !self.wanted || (self.in_flight.is_some() && !self.again) {
            return None;
        }
        (self.wanted, self.again) = (false, false);
        self.sent += 1;
        self.in_flight = Some((self.sent, now));
        Some(self.sent)
    }

    /// Whether this number was asked and neither it nor a later one was answered.
    pub(crate) const fn is_expected(&self, number: u64) -> bool {
        number > self.answered && number <= self.sent
    }

    /// An answer that is expected. How long it took, if it is that of the latest: it serves all who ask.
    pub(crate) fn answer(&mut self, number: u64, now: Instant) -> Option<Duration> {
        self.answered = number;
        let (_, sent) = self.in_flight.take_if(|(ours, _)| *ours == number)?;
        let rtt = now.duration_since(sent);
        self.rtt = Some(self.rtt.map_or(rtt, |least| least.min(rtt)));
        Some(rtt)
    }
}
