//! Calls that one task has answered, added up before they are counted: counters that threads share are touched once for a batch of
//! calls, not for each.

use std::time::Duration;

use tokio::time::Instant;

use super::metrics::{Row, ServerRows, bucket, nanos};

/// Different times that it has room for.
const TIMES: usize = 4;

/// Answered calls of one method that are in no row yet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    row: usize,
    /// Calls that have ended since the clock was last looked at, and when all of them had begun.
    ended: u64,
    since: Option<Instant>,
    calls: u64,
    sum_ns: u64,
    /// A bucket of the row each, and how many are in it; 0 from the first unused one on.
    times: [(usize, u64); TIMES],
}

impl Tally {
    /// A call of the method with this number has ended, which had begun at `since`. Its time runs until the next
    /// [`settle`](Self::settle): calls that arrived together, and are ready at once, need one look at the clock.
    #[inline]
    pub(super) fn ended(&mut self, rows: &ServerRows, row: usize, since: Instant) {
        if self.ended > 0 && (self.row != row || self.since != Some(since)) {
            self.settle(rows, None);
        }
        if self.row != row {
            self.flush(rows);
            self.row = row;
        }
        self.since = Some(since);
        self.ended += 1;
    }

    /// The calls that have ended since the last time have done so by now.
    #[inline]
    pub(super) fn settle(&mut self, rows: &ServerRows, now: Option<Instant>) {
        if let Some(since) = self.since.filter(|_| self.ended > 0) {
            let now = now.unwrap_or_else(Instant::now);
            self.add(rows, now.saturating_duration_since(since));
        }
    }

    /// Adds the calls that have ended, which took as long.
    fn add(&mut self, rows: &ServerRows, took: Duration) {
        let nanos = nanos(took);
        let index = bucket(nanos);
        if !self.has_room(index) {
            self.flush(rows);
        }
        let ended = std::mem::take(&mut self.ended);
        for (of, count) in &mut self.times {
            if *count == 0 || *of == index {
                *of = index;
                *count += ended;
                break;
            }
        }
        self.calls += ended;
        self.sum_ns = self.sum_ns.wrapping_add(nanos.wrapping_mul(ended));
    }

    /// Whether there is nothing to be counted.
    pub(super) const fn is_empty(&self) -> bool {
        self.calls == 0 && self.ended == 0
    }

    fn has_room(&self, index: usize) -> bool {
        let mut times = self.times.iter();
        times.any(|(of, count)| *count == 0 || *of == index)
    }

    /// Counts them all.
    pub(super) fn flush(&mut self, rows: &ServerRows) {
        if self.calls == 0 {
            return;
        }
        let row: &Row = rows.row(self.row);
        let times = self.times.iter().filter(|(_, count)| *count > 0);
        row.add(self.calls, self.sum_ns, times.copied());
        (self.calls, self.sum_ns) = (0, 0);
        self.times = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_every_call_once_whatever_its_method_and_time() {
        let rows = ServerRows::new(["a/A", "a/B"].into_iter());
        let mut tally = Tally::default();
        let now = Instant::now();
        let took = |n: u64| Duration::from_micros(1 << (n % 11));
        for n in 0..1000 {
            tally.ended(&rows, 1 + (n / 7 % 2) as usize, now);
            tally.settle(&rows, Some(now + took(n)));
            if n % 50 == 0 {
                tally.flush(&rows);
                assert_eq!(rows.started(), n + 1);
            }
        }
        tally.flush(&rows);
        tally.flush(&rows);
        assert!(tally.is_empty());
        let metrics = rows.snapshot();
        let ended: Vec<_> = metrics
            .iter()
            .map(|row| (row.ended(), row.in_flight()))
            .collect();
        assert_eq!(ended, [(503, 0), (497, 0)]);
        let sum: Duration = metrics.iter().map(|row| row.latency.sum()).sum();
        assert_eq!(sum, (0..1000).map(took).sum());
    }

    #[test]
    fn calls_that_arrived_together_are_counted_with_one_look_at_the_clock() {
        let rows = ServerRows::new(["a/A", "a/B"].into_iter());
        let mut tally = Tally::default();
        let (before, now) = (Instant::now(), Instant::now());
        for _ in 0..3 {
            tally.ended(&rows, 1, now);
        }
        let took = Duration::from_millis(2);
        tally.settle(&rows, Some(now + took));
        tally.settle(&rows, Some(now + took * 9));
        // One of an earlier reception, then of another method: each looks itself.
        tally.ended(&rows, 1, before);
        tally.ended(&rows, 1, now);
        tally.ended(&rows, 2, now);
        tally.settle(&rows, None);
        tally.flush(&rows);
        let metrics = rows.snapshot();
        assert_eq!((metrics[0].ended(), metrics[1].ended()), (5, 1));
        let sum = metrics[0].latency.sum();
        assert!(sum >= took * 3 && sum < took * 9, "{sum:?}");
    }
}
