//! `compare --untuned`: the workloads of calls as a user has them who tunes nothing. Client and server are processes of their own,
//! each on a multi-thread runtime of tokio with its defaults and on no processor in particular; every task is
//! made by `tokio::spawn`, and every stack keeps its defaults.

mod calling;
mod process;
mod stack;

pub(crate) use process::{Args as ServeArgs, serve};

use std::time::Duration;

use serde::Serialize;

use super::compare::Args;
use super::report::table;
use super::run::{Output, or_all};
use ringmux_measure::failure::Failure;
use ringmux_measure::sample::Sample;
use ringmux_measure::units;
use ringmux_measure::workload::Workload;
use stack::Stack;

const HEADER: [&str; 7] = [
    "workload", "stack", "rate", "p50", "p99", "p99.9", "ringmux",
];
/// Columns that hold text and not numbers.
const TEXT_COLUMNS: usize = 2;

const LEGEND: &str = "\
rate      calls, or messages of feed64, a second
p50 ...   of calls in a closed loop
ringmux   how many times faster ringmux is in the same round, the median of the rounds: by rate, or by p50 for call1
Client and server are processes of their own, each on a multi-thread tokio runtime; nothing is pinned, and every stack has
its defaults. bare is a hundred lines that batch writes, without limits, deadlines, cancellation or status";

/// One workload over one stack: a sample a round.
struct Entry {
    stack: Stack,
    slices: Vec<Sample>,
}

/// A row as JSON.
#[derive(Debug, Serialize)]
struct Row {
    workload: &'static str,
    stack: &'static str,
    rate_per_s: f64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    p999_ns: Option<u64>,
    /// How many times faster ringmux is: the median over the rounds.
    ringmux: Option<f64>,
}

/// Measures the requested workloads, of those that are calls.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let workloads = or_all(&args.workload).iter().copied();
    let workloads: Vec<_> = workloads
        .filter(|workload| workload.shape().is_of_calls())
        .collect();
    if workloads.is_empty() {
        return Err(Failure::new("nothing to measure").advise(
            "untuned there are only the workloads of calls: call1, call64, call1k, callproto64, feed64",
        ));
    }
    let stacks = Stack::list(args.options.peers());
    let rounds = args.options.rounds();
    let output = Output::start_untuned(&args.options, workloads.len() * stacks.len() * rounds)?;
    let mut rows = Vec::new();
    let result = workloads.iter().try_for_each(|workload| {
        for row in measure(*workload, &stacks, args, &output)? {
            output.row(&row)?;
            rows.push(row);
        }
        Ok(())
    });
    // Show the rows measured before a failure.
    output.finish(|| render(&rows))?;
    result
}

/// All stacks take turns.
fn measure(
    workload: Workload,
    stacks: &[Stack],
    args: &Args,
    output: &Output,
) -> Result<Vec<Row>, Failure> {
    let times = args.options.pair();
    let able = stacks.iter().filter(|stack| stack.can(workload));
    let mut entries: Vec<_> = able
        .map(|stack| Entry {
            stack: *stack,
            slices: Vec::new(),
        })
        .collect();
    for _ in 0..args.options.rounds() {
        for Entry { stack, slices } in &mut entries {
            let name = stack.name();
            output.step(format!("{}: {name}", workload.name()));
            let sample = process::slice(*stack, workload, times.warmup, times.measured);
            slices.push(sample.map_err(|failure| {
                let workload = workload.name();
                Failure::new(format!("cannot measure {workload} over {name}")).because(&failure)
            })?);
        }
    }
    let ours = entries.iter().find(|entry| entry.stack == Stack::Ringmux);
    let rows = entries.iter().filter_map(|entry| {
        let total = Sample::total(&entry.slices)?;
        Some(Row {
            workload: workload.name(),
            stack: entry.stack.name(),
            rate_per_s: total.rate_per_s(),
            p50_ns: total.quantile_ns(0.5),
            p99_ns: total.quantile_ns(0.99),
            p999_ns: total.quantile_ns(0.999),
            ringmux: ours.and_then(|ours| ahead(workload, &ours.slices, &entry.slices)),
        })
    });
    Ok(rows.collect())
}

/// The median, over the rounds, of how many times faster the first is.
fn ahead(workload: Workload, first: &[Sample], other: &[Sample]) -> Option<f64> {
    let by_time = workload.is_about_latency();
    let ratio = |(first, other): (&Sample, &Sample)| match by_time {
        true => Some(other.quantile_ns(0.5)? as f64 / first.quantile_ns(0.5)? as f64),
        false => Some(first.rate_per_s() / other.rate_per_s()),
    };
    let mut ratios: Vec<f64> = first
        .iter()
        .zip(other)
        .filter_map(ratio)
        .filter(|ratio| ratio.is_finite())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len().saturating_sub(1) / 2).copied()
}

fn render(rows: &[Row]) -> String {
    let mut table = table::start(&HEADER, TEXT_COLUMNS);
    let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), units::duration_ns);
    for row in rows {
        let ahead = row
            .ringmux
            .map_or_else(|| "-".to_owned(), |x| format!("x {x:.2}"));
        table.add_row([
            row.workload.to_owned(),
            row.stack.to_owned(),
            units::rate(row.rate_per_s),
            time(row.p50_ns),
            time(row.p99_ns),
            time(row.p999_ns),
            ahead,
        ]);
    }
    format!("{table}\n{LEGEND}")
}

/// The shortest slice that is worth a process.
pub(super) const WARMUP_MIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(count: u64) -> Sample {
        Sample {
            count,
            side_bytes: 0,
            elapsed: Duration::from_secs(1),
            latencies: None,
        }
    }

    #[test]
    fn a_round_that_the_machine_spoiled_does_not_move_the_median() {
        let ringmux = [1000, 100, 1000].map(sample);
        let other = [200, 100, 200].map(sample);
        assert_eq!(ahead(Workload::Call64, &ringmux, &other), Some(5.0));
        assert_eq!(
            ahead(Workload::Call1, &ringmux, &other),
            None,
            "without times"
        );
        assert_eq!(ahead(Workload::Call64, &ringmux, &[0].map(sample)), None);
    }

    /// In this process: what differs for a process of its own is only where it runs.
    #[test]
    fn every_stack_carries_every_workload_that_it_can() {
        let (warmup, measured) = (Duration::from_millis(20), Duration::from_millis(50));
        for stack in Stack::list(or_all(&[])) {
            for workload in or_all(&[]).iter().filter(|workload| stack.can(**workload)) {
                let served = process::runtime().unwrap();
                let address = served.block_on(stack.listen()).unwrap();
                let sample = process::call(stack, *workload, &address, warmup, measured);
                let what = format!("{} over {}", workload.name(), stack.name());
                // Check only for an orderly end: a busy machine may finish no call in time.
                if let Err(failure) = sample {
                    panic!("{what}: {failure}");
                }
                served.shutdown_background();
            }
        }
    }
}
