//! Calls that one task has answered, added up before they are counted: counters that threads share are touched once for a batch of
//! calls, not for each.

use std::time::Duration;

use super::metrics::{Row, ServerRows, bucket, nanos};

/// Different times that it has room for.
const TIMES: usize = 4;

/// Answered calls of one method that are in no row yet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    row: usize,
    calls: u64,
    sum_ns: u64,
    /// A bucket of the row each, and how many are in it; 0 from the first unused one on.
    times: [(usize, u64); TIMES],
}

impl Tally {
    /// Adds a call of the method with this number.
    pub(super) fn add(&mut self, rows: &ServerRows, row: usize, took: Duration) {
        let nanos = nanos(took);
        let index = bucket(nanos);
        if self.row != row || !self.has_room(index) {
            self.flush(rows);
            self.row = row;
        }
        for (of, count) in &mut self.times {
            if *count == 0 || *of == index {
                *of = index;
                *count += 1;
                break;
            }
        }
        self.calls += 1;
        self.sum_ns = self.sum_ns.wrapping_add(nanos);
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
        let all = std::mem::take(self);
        let row: &Row = rows.row(all.row);
        let times = all.times.iter().filter(|(_, count)| *count > 0);
        row.add(all.calls, all.sum_ns, times.copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_every_call_once_whatever_its_method_and_time() {
        let rows = ServerRows::new(["a/A", "a/B"].into_iter());
        let mut tally = Tally::default();
        let took = |n: u64| Duration::from_micros(1 << (n % 11));
        for n in 0..1000 {
            tally.add(&rows, 1 + (n / 7 % 2) as usize, took(n));
            if n % 50 == 0 {
                tally.flush(&rows);
                assert_eq!(rows.started(), n + 1);
            }
        }
        tally.flush(&rows);
        tally.flush(&rows);
        let metrics = rows.snapshot();
        let ended: Vec<_> = metrics
            .iter()
            .map(|row| (row.ended(), row.in_flight()))
            .collect();
        assert_eq!(ended, [(503, 0), (497, 0)]);
        let sum: Duration = metrics.iter().map(|row| row.latency.sum()).sum();
        assert_eq!(sum, (0..1000).map(took).sum());
    }
}
