//! A row of the result: ringmux and the limit, side by side.

use serde::Serialize;

use super::host::Host;
use super::sample::Sample;
use super::workload::{Shape, Workload};

/// One workload over one driver; as JSON, one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: &'static str,
    /// Name of the driver.
    pub driver: &'static str,
    /// Name of the idle strategy.
    pub wait: &'static str,
    /// Messages, round trips or calls a second.
    pub rate_per_s: f64,
    /// Payload bytes a second, counted once even where echoed.
    pub bytes_per_s: f64,
    /// Half of the round trips took at most this many nanoseconds.
    pub p50_ns: Option<u64>,
    /// 99 % of the round trips took at most this many nanoseconds.
    pub p99_ns: Option<u64>,
    /// 99.9 % of the round trips took at most this many nanoseconds.
    pub p999_ns: Option<u64>,
    /// Messages a second of the limit.
    pub limit_rate_per_s: f64,
    /// `p50_ns` of the limit.
    pub limit_p50_ns: Option<u64>,
    /// For the table.
    #[serde(skip)]
    pub limit_p99_ns: Option<u64>,
    /// The bulk stream beside the round trips of `mixed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulk_bytes_per_s: Option<f64>,
    /// `bulk_bytes_per_s` of the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bulk_bytes_per_s: Option<f64>,
    /// Present only if the measured threads have no processors of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<&'static str>,
    /// Present only if the engine has a thread of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_thread: Option<bool>,
}

/// ringmux in proportion to the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ratio {
    /// Median times; above 1 is slower than the limit.
    Time(f64),
    /// Rates; below 1 is slower than the limit.
    Rate(f64),
}

impl Row {
    /// From the totals of all slices.
    pub fn new(workload: Workload, host: Host, sample: &Sample, limit: &Sample) -> Self {
        let side = matches!(workload.shape(), Shape::Mixed);
        Self {
            workload: workload.name(),
            driver: host.driver.name(),
            wait: host.wait.name(),
            rate_per_s: sample.rate_per_s(),
            bytes_per_s: sample.rate_per_s() * workload.message_len() as f64,
            p50_ns: sample.quantile_ns(0.5),
            p99_ns: sample.quantile_ns(0.99),
            p999_ns: sample.quantile_ns(0.999),
            limit_rate_per_s: limit.rate_per_s(),
            limit_p50_ns: limit.quantile_ns(0.5),
            limit_p99_ns: limit.quantile_ns(0.99),
            bulk_bytes_per_s: side.then(|| sample.side_bytes_per_s()),
            limit_bulk_bytes_per_s: side.then(|| limit.side_bytes_per_s()),
            place: None,
            own_thread: host.own_thread.then_some(true),
        }
    }

    /// None if one of the two has nothing to compare.
    pub fn ratio(&self, workload: Workload) -> Option<Ratio> {
        if workload.is_about_latency() {
            let (time, limit) = (self.p50_ns?, self.limit_p50_ns?);
            (limit > 0).then(|| Ratio::Time(time as f64 / limit as f64))
        } else {
            (self.limit_rate_per_s > 0.0)
                .then(|| Ratio::Rate(self.rate_per_s / self.limit_rate_per_s))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample::Latencies;
    use super::*;
    use crate::host::{Driver, Wait};

    const TOKIO: Host = Host::inline(Driver::Tokio, Wait::Park);

    fn sample(count: u64, us: Option<u64>) -> Sample {
        let latencies = us.map(|us| {
            let mut latencies = Latencies::new();
            latencies.record(Duration::from_micros(us));
            latencies
        });
        Sample {
            count,
            side_bytes: 1_000,
            elapsed: Duration::from_secs(2),
            latencies,
        }
    }

    #[test]
    fn json_has_the_documented_keys_in_their_order_and_nulls() {
        let row = Row::new(Workload::Bulk, TOKIO, &sample(10, None), &sample(40, None));
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"workload":"bulk","driver":"tokio","wait":"park","rate_per_s":5.0,"#.to_owned()
                + r#""bytes_per_s":327680.0,"p50_ns":null,"p99_ns":null,"p999_ns":null,"#
                + r#""limit_rate_per_s":20.0,"limit_p50_ns":null}"#
        );
    }

    #[test]
    fn throughput_is_compared_by_rate() {
        let row = Row::new(Workload::Bulk, TOKIO, &sample(10, None), &sample(40, None));
        assert_eq!(row.ratio(Workload::Bulk), Some(Ratio::Rate(0.25)));
    }

    #[test]
    fn lone_round_trips_are_compared_by_their_median() {
        let (mux, limit) = (sample(10, Some(60)), sample(40, Some(50)));
        let row = Row::new(Workload::Mixed, TOKIO, &mux, &limit);
        let Some(Ratio::Time(ratio)) = row.ratio(Workload::Mixed) else {
            panic!("no ratio")
        };
        assert!((ratio - 1.2).abs() < 0.01, "{ratio}");
        assert_eq!(row.bulk_bytes_per_s, Some(500.0));
    }

    #[test]
    fn nothing_to_compare_with_is_no_ratio() {
        let row = Row::new(
            Workload::Pingpong,
            TOKIO,
            &sample(1, Some(1)),
            &sample(0, None),
        );
        assert_eq!(row.ratio(Workload::Pingpong), None);
        let row = Row::new(Workload::Bulk, TOKIO, &sample(1, None), &sample(0, None));
        assert_eq!(row.ratio(Workload::Bulk), None);
    }
}
