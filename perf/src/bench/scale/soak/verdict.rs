//! Whether a process's memory and descriptors have stayed flat.

use std::time::Duration;

use super::Sample;
use ringmux_measure::failure::Failure;

/// Memory may go this far beyond its peak in the warm-up: an allocator's pages move a little with the load.
const RSS_SHARE: f64 = 0.1;
const RSS_SLACK_BYTES: u64 = 8 << 20;
/// Sockets of short-lived sessions, whose number varies between samples.
const DESCRIPTORS_SLACK: u64 = 8;

/// # Errors
/// The value that grew, an interval without messages, or a lack of samples.
pub(super) fn judge(samples: &[Sample], warmup: Duration) -> Result<(), Failure> {
    if let Some(stuck) = samples.iter().find(|sample| sample.messages_per_s <= 0.0) {
        return Err(Failure::new(format!(
            "no message moved in the interval that ended at {:.0} s",
            stuck.at_s
        )));
    }
    let in_warmup = |sample: &&Sample| sample.at_s <= warmup.as_secs_f64() + 0.5;
    let peak = |of: fn(&Sample) -> u64| samples.iter().filter(in_warmup).map(of).max();
    let (Some(rss), Some(descriptors)) = (
        peak(|sample| sample.held.rss_bytes),
        peak(|sample| sample.held.descriptors),
    ) else {
        return Err(Failure::new("too short: nothing was seen in the warm-up"));
    };
    let rss_max = rss + (rss as f64 * RSS_SHARE) as u64 + RSS_SLACK_BYTES;
    for sample in samples.iter().filter(|sample| !in_warmup(sample)) {
        let held = sample.held;
        if held.rss_bytes > rss_max {
            return Err(grew("memory", rss, held.rss_bytes, sample.at_s));
        }
        if held.descriptors > descriptors + DESCRIPTORS_SLACK {
            return Err(grew(
                "descriptors",
                descriptors,
                held.descriptors,
                sample.at_s,
            ));
        }
    }
    Ok(())
}

fn grew(what: &str, from: u64, to: u64, at_s: f64) -> Failure {
    Failure::new(format!(
        "{what} did not stay flat: at most {from} in the warm-up, {to} after {at_s:.0} s"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Footprint;
    use super::*;

    const MIB: u64 = 1 << 20;

    /// One sample each ten seconds.
    fn samples(held: &[(u64, u64)]) -> Vec<Sample> {
        let sample = |(n, (rss_bytes, descriptors)): (usize, &(u64, u64))| Sample {
            at_s: 10.0 * (n + 1) as f64,
            held: Footprint {
                rss_bytes: *rss_bytes,
                allocated_bytes: None,
                descriptors: *descriptors,
            },
            messages_per_s: 1.0,
            streams_per_s: 1.0,
            killed: 0,
            sessions: 0,
        };
        held.iter().enumerate().map(sample).collect()
    }

    fn verdict(held: &[(u64, u64)]) -> Result<(), String> {
        judge(&samples(held), Duration::from_secs(20)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_is_flat_after_the_warm_up_is_fine() {
        verdict(&[
            (10 * MIB, 9),
            (90 * MIB, 20),
            (95 * MIB, 22),
            (80 * MIB, 10),
        ])
        .unwrap();
    }

    #[test]
    fn memory_that_grows_fails() {
        let error = verdict(&[(90 * MIB, 9), (100 * MIB, 9), (119 * MIB, 9)]).unwrap_err();
        assert!(
            error.contains("memory") && error.contains("30 s"),
            "{error}"
        );
    }

    #[test]
    fn descriptors_that_grow_fail() {
        let error = verdict(&[(MIB, 9), (MIB, 10), (MIB, 12), (MIB, 19)]).unwrap_err();
        assert!(
            error.contains("descriptors") && error.contains("40 s"),
            "{error}"
        );
    }

    #[test]
    fn an_interval_without_messages_fails() {
        let mut stuck = samples(&[(MIB, 9), (MIB, 9), (MIB, 9)]);
        stuck[1].messages_per_s = 0.0;
        assert!(judge(&stuck, Duration::from_secs(20)).is_err());
    }

    #[test]
    fn nothing_seen_is_no_success() {
        assert!(verdict(&[]).is_err());
    }
}
