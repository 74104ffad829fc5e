//! When each message of an open loop is due.

use std::time::{Duration, Instant};

/// Messages at a fixed rate, dealt to the streams in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) struct Schedule {
    /// Messages a second, over all streams.
    pub(in crate::bench) rate: f64,
    /// Streams that take turns.
    pub(in crate::bench) streams: usize,
    /// Messages due earlier than this after the start are not part of the result.
    pub(in crate::bench) warmup: Duration,
}

impl Schedule {
    /// How many messages are due this long after the start.
    pub(in crate::bench) fn due(&self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.rate) as u64 + 1
    }

    /// When a stream's message is due: `nth` is 0 for the first of that stream.
    pub(in crate::bench) fn at(&self, stream: usize, nth: u64) -> Duration {
        let message = nth * self.streams as u64 + stream as u64;
        Duration::from_secs_f64(message as f64 / self.rate)
    }

    /// The latency of an echo received now, counted from when its message was due and not from when
    /// it was sent: waiting for a slow stack is part of its latency. None if it was due in the
    /// warm-up.
    pub(in crate::bench) fn latency(
        &self,
        start: Instant,
        stream: usize,
        nth: u64,
    ) -> Option<Duration> {
        let due = self.at(stream, nth);
        (due >= self.warmup).then(|| start.elapsed().saturating_sub(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        rate: 1000.0,
        streams: 4,
        warmup: Duration::from_millis(100),
    };

    #[test]
    fn messages_are_due_one_interval_apart_and_streams_take_turns() {
        assert_eq!(SCHEDULE.at(0, 0), Duration::ZERO);
        assert_eq!(SCHEDULE.at(1, 0), Duration::from_millis(1));
        assert_eq!(SCHEDULE.at(0, 1), Duration::from_millis(4));
        assert_eq!(SCHEDULE.at(3, 2), Duration::from_millis(11));
    }

    #[test]
    fn as_many_are_due_as_began_by_then() {
        assert_eq!(SCHEDULE.due(Duration::ZERO), 1);
        assert_eq!(SCHEDULE.due(Duration::from_micros(999)), 1);
        assert_eq!(SCHEDULE.due(Duration::from_micros(2500)), 3);
        assert_eq!(SCHEDULE.due(Duration::from_secs(2)), 2001);
    }

    #[test]
    fn what_was_due_is_never_due_in_the_future() {
        for rate in [3.0, 999.7, 123_456.7] {
            let schedule = Schedule { rate, ..SCHEDULE };
            for us in (0..50_000).step_by(7) {
                let elapsed = Duration::from_micros(us);
                let last = schedule.due(elapsed) - 1;
                let at = schedule.at((last % 4) as usize, last / 4);
                assert!(at <= elapsed + Duration::from_nanos(1), "{rate} {us}");
            }
        }
    }

    #[test]
    fn latency_counts_from_when_a_message_was_due() {
        let start = Instant::now() - Duration::from_secs(1);
        let latency = SCHEDULE.latency(start, 0, 125).expect("after the warm-up");
        assert!(latency >= Duration::from_millis(500), "{latency:?}");
        assert_eq!(SCHEDULE.latency(start, 0, 24), None);
    }
}
