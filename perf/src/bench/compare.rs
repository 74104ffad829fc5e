//! `compare`: every workload in a closed loop over ringmux, its peers and plain sockets.
//!
//! Each row's time is cut into slices, and all candidates take turns, so that a machine that becomes
//! slower or faster meanwhile does so for all. Each slice has its own two threads, its own
//! connection and its own warm-up.

use serde::Serialize;

use super::report::{charts, table};
use super::run::{Options, Output, or_all};
use super::subject::Subject;
use super::untuned;
use ringmux_measure::failure::Failure;
use ringmux_measure::limit;
use ringmux_measure::pair::Pair;
use ringmux_measure::row::Row;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::Workload;

const EXAMPLES: &str = "\
Examples:
  ringmux-perf compare                                  everything, about six minutes
  ringmux-perf compare --workload conc64 --peer h2      one workload, one peer
  ringmux-perf compare --seconds 0.5                    quick, for a first look
  ringmux-perf compare --json > result.jsonl            one JSON object a line
  ringmux-perf compare --wait spin --workload call1,call64,call1k,callproto64,feed64 --peer tarpc,tonic,bare
                                                        calls, where all poll
  ringmux-perf compare --untuned                        calls, as they are without any tuning";

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Workloads to measure; all if not given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub(super) workload: Vec<Workload>,

    /// Measures calls as a user has them who tunes nothing: client and server are processes, each on a multi-thread tokio runtime,
    /// every stack has its defaults, and nothing is pinned. Only the workloads of calls, and the peers that have them.
    #[arg(long, conflicts_with_all = ["driver", "wait", "own_thread"])]
    untuned: bool,

    #[command(flatten)]
    pub(super) options: Options,
}

/// One workload over all candidates.
pub(super) struct Comparison {
    pub(super) workload: Workload,
    pub(super) limit: Sample,
    pub(super) entries: Vec<Entry>,
}

/// One workload over one candidate; no sample if it cannot do it.
pub(super) struct Entry {
    pub(super) subject: Subject,
    pub(super) sample: Option<Sample>,
}

/// A row as JSON: the candidate, and then the keys of `ringmux bench --json`.
#[derive(Serialize)]
struct Line {
    peer: &'static str,
    #[serde(flatten)]
    row: Row,
}

impl Comparison {
    /// The row of one candidate; none if it cannot do the workload.
    pub(super) fn row(&self, entry: &Entry) -> Option<Row> {
        let sample = entry.sample.as_ref()?;
        let host = entry.subject.host();
        Some(Row::new(self.workload, host, sample, &self.limit))
    }
}

/// Measures the requested workloads.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.untuned {
        return untuned::run(args);
    }
    let (workloads, subjects) = (or_all(&args.workload), args.options.subjects());
    let slices = workloads.len() * (subjects.len() + 1) * args.options.rounds();
    let output = Output::start(&args.options, slices)?;
    let mut comparisons = Vec::new();
    let result = workloads.iter().try_for_each(|workload| {
        let comparison = compare(*workload, &subjects, &args.options, &output)?;
        for entry in &comparison.entries {
            if let Some(row) = comparison.row(entry) {
                let peer = entry.subject.name();
                output.row(&Line { peer, row })?;
            }
        }
        comparisons.push(comparison);
        Ok(())
    });
    // Show the rows measured before a failure.
    output.finish(|| table::compare(&comparisons))?;
    result?;
    charts::compare(&args.options.svg_dir, &comparisons)
}

fn compare(
    workload: Workload,
    subjects: &[Subject],
    options: &Options,
    output: &Output,
) -> Result<Comparison, Failure> {
    let pair = options.pair();
    let mut limits = Vec::new();
    let mut slices = vec![Vec::new(); subjects.len()];
    for round in 0..options.rounds() {
        output.step(format!("{}: plain sockets", workload.name()));
        let limit = limit::measure(workload, round, options.wait(), &pair);
        limits.push(limit.map_err(|failure| in_workload(workload, "plain sockets", &failure))?);
        for (subject, slices) in subjects.iter().zip(&mut slices) {
            output.step(format!("{}: {}", workload.name(), subject.label()));
            slices.extend(slice(workload, *subject, &pair)?);
        }
    }
    let entries = subjects.iter().zip(&slices).map(|(subject, slices)| Entry {
        subject: *subject,
        sample: Sample::total(slices),
    });
    Ok(Comparison {
        workload,
        limit: limit::combine(workload, &limits).expect("there is at least one round"),
        entries: entries.collect(),
    })
}

fn slice(workload: Workload, subject: Subject, pair: &Pair) -> Result<Option<Sample>, Failure> {
    if !subject.can(workload) {
        return Ok(None);
    }
    let sample = subject.measure(workload, pair);
    sample
        .map(Some)
        .map_err(|failure| in_workload(workload, &subject.label(), &failure))
}

fn in_workload(workload: Workload, over: &str, failure: &Failure) -> Failure {
    let workload = workload.name();
    Failure::new(format!("cannot measure {workload} over {over}")).because(failure)
}
