//! The result of a measurement, and the sum of several.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies are kept with three significant digits up to this many nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Round-trip times.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// Without a round trip.
    pub fn new() -> Self {
        Self(Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("a constant range that is valid"))
    }

    /// Without a round trip, for one of very many threads or tasks: two significant digits, which take little memory.
    pub fn coarse() -> Self {
        Self(Histogram::new_with_max(LATENCY_NS_MAX, 2).expect("a constant range that is valid"))
    }

    /// Counts one round trip.
    #[inline]
    pub fn record(&mut self, time: Duration) {
        self.record_n(time, 1);
    }

    /// Records `n` messages that took the same time; a time above the range counts as its end.
    #[inline]
    pub fn record_n(&mut self, time: Duration, n: u64) {
        let ns = u64::try_from(time.as_nanos())
            .unwrap_or(LATENCY_NS_MAX)
            .min(LATENCY_NS_MAX);
        self.0.record_n(ns, n).expect("in range by the line above");
    }

    /// Counts those of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same range");
    }

    /// The time, in nanoseconds, that this share of the round trips did not exceed; none if there
    /// were no round trips.
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share))
    }
}

/// The counts of one window of time, or of several of the same kind.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Messages, or round trips, or calls.
    pub count: u64,
    /// Bytes of the bulk stream beside the counted messages; 0 if there is none.
    pub side_bytes: u64,
    /// How long the window was.
    pub elapsed: Duration,
    /// Round-trip times, for workloads that have them.
    pub latencies: Option<Latencies>,
}

impl Sample {
    /// Messages a second.
    pub fn rate_per_s(&self) -> f64 {
        per_second(self.count, self.elapsed)
    }

    /// Bytes a second of the bulk beside the round trips.
    pub fn side_bytes_per_s(&self) -> f64 {
        per_second(self.side_bytes, self.elapsed)
    }

    /// The time, in nanoseconds, that this share of the round trips took at most.
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        self.latencies
            .as_ref()
            .and_then(|latencies| latencies.quantile_ns(share))
    }

    /// All slices as one window: sums over sums.
    pub fn total(slices: &[Self]) -> Option<Self> {
        let (first, rest) = slices.split_first()?;
        let mut total = first.clone();
        for slice in rest {
            total.count += slice.count;
            total.side_bytes += slice.side_bytes;
            total.elapsed += slice.elapsed;
            if let (Some(all), Some(more)) = (&mut total.latencies, &slice.latencies) {
                all.add(more);
            }
        }
        Some(total)
    }

    /// The slice with the highest rate.
    pub fn best(slices: &[Self]) -> Option<Self> {
        slices
            .iter()
            .max_by(|a, b| a.rate_per_s().total_cmp(&b.rate_per_s()))
            .cloned()
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        0.0
    } else {
        count as f64 / elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: u64, millis: u64, times_us: &[u64]) -> Sample {
        let mut latencies = Latencies::new();
        for us in times_us {
            latencies.record(Duration::from_micros(*us));
        }
        let elapsed = Duration::from_millis(millis);
        Sample {
            count,
            side_bytes: count * 10,
            elapsed,
            latencies: Some(latencies),
        }
    }

    #[test]
    fn a_total_is_sums_over_sums() {
        let total = Sample::total(&[sample(100, 100, &[1, 1, 1]), sample(100, 300, &[9])]).unwrap();
        assert_eq!(total.rate_per_s(), 500.0);
        assert_eq!(total.side_bytes_per_s(), 5000.0);
        assert_eq!(total.quantile_ns(0.5).map(|ns| ns / 1000), Some(1));
        assert_eq!(total.quantile_ns(0.999).map(|ns| ns / 1000), Some(9));
    }

    #[test]
    fn the_best_is_by_rate_and_not_by_count() {
        let best = Sample::best(&[sample(100, 1000, &[]), sample(90, 100, &[])]).unwrap();
        assert_eq!(best.count, 90);
    }

    #[test]
    fn nothing_measured_is_no_time_and_no_rate() {
        assert_eq!(sample(0, 0, &[]).rate_per_s(), 0.0);
        assert_eq!(sample(5, 10, &[]).quantile_ns(0.5), None);
        assert!(Sample::total(&[]).is_none());
    }

    #[test]
    fn coarse_times_are_added_to_fine_ones() {
        let (mut all, mut coarse) = (Latencies::new(), Latencies::coarse());
        coarse.record(Duration::from_secs(3600));
        coarse.record_n(Duration::from_micros(100), 2);
        all.add(&coarse);
        let ns = all.quantile_ns(0.5).unwrap();
        assert!(ns.abs_diff(100_000) < 1000, "{ns}");
    }

    #[test]
    fn a_time_beyond_the_range_counts_as_its_end() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(3600));
        let ns = latencies.quantile_ns(0.5).unwrap();
        assert!(ns.abs_diff(LATENCY_NS_MAX) < LATENCY_NS_MAX / 500, "{ns}");
    }
}
