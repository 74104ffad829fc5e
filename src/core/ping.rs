//! Round trips: at most one PING of this side is under way, unless the answer takes so long that another one is sent.
//!
//! A PING here is a number; its encoding, and the peer's PINGs, are the wire's.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    wanted: bool,
    /// Send another one, also while one is under way.
    again: bool,
    /// The latest PING, and when it was sent.
    in_flight: Option<(u64, Instant)>,
    /// Number of PINGs sent.
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

    /// The PING under way, as a native PING, and when it was sent.
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

    /// The number of the next PING.
    pub(crate) const fn next_number(&self) -> u64 {
        self.sent + 1
    }

    /// Requests a PING unless one is under way, whose answer serves; false then.
    pub(crate) const fn ask(&mut self) -> bool {
        let asks = self.in_flight.is_none();
        self.wanted |= asks;
        asks
    }

    /// Requests a PING as soon as none is under way.
    pub(crate) const fn ask_next(&mut self) {
        self.wanted = true;
    }

    /// Requests a PING, also if one is under way.
    pub(crate) const fn ask_again(&mut self) {
        (self.wanted, self.again) = (true, true);
    }

    /// The PING to send now, if there is one.
    pub(crate) const fn take(&mut self, now: Instant) -> Option<u64> {
        if !self.wanted || (self.in_flight.is_some() && !self.again) {
            return None;
        }
        (self.wanted, self.again) = (false, false);
        self.sent += 1;
        self.in_flight = Some((self.sent, now));
        Some(self.sent)
    }

    /// Whether this number was sent and neither it nor a later one was answered.
    pub(crate) const fn is_expected(&self, number: u64) -> bool {
        number > self.answered && number <= self.sent
    }

    /// An expected answer. Returns the round trip if it answers the latest PING: it serves all callers.
    pub(crate) fn answer(&mut self, number: u64, now: Instant) -> Option<Duration> {
        self.answered = number;
        let (_, sent) = self.in_flight.take_if(|(ours, _)| *ours == number)?;
        let rtt = now.duration_since(sent);
        self.rtt = Some(self.rtt.map_or(rtt, |least| least.min(rtt)));
        Some(rtt)
    }
}
