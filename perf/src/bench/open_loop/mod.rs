//! `open-loop`: latency at fixed rates, of 64 streams of 64-byte echoes.
//!
//! A closed loop sends less when it is answered late, and so hides how late; here messages are due on
//! a schedule that no answer changes, and their time counts from when they were due. The rates are
//! shares of each candidate's rate in a closed loop just before, so at each share all are equally
//! busy, each at a rate of its own.

mod schedule;

use serde::Serialize;

use super::report::{charts, table};
use super::run::{Options, Output};
use super::subject::Subject;
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::Pair;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::{Shape, Workload};
pub(super) use schedule::Schedule;

/// The workload that measures saturation.
const WORKLOAD: Workload = Workload::Conc64;
/// Percent of saturation.
const LOADS: [u32; 4] = [25, 50, 75, 90];

const EXAMPLES: &str = "\
Examples:
  ringmux-perf open-loop                            all candidates at 25, 50, 75 and 90 % of saturation
  ringmux-perf open-loop --peer h2 --seconds 20     one peer, for steadier tails
  ringmux-perf open-loop --json > result.jsonl      one JSON object a line";

/// Arguments of `open-loop`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
}

/// One candidate at one rate.
pub(super) struct Run {
    pub(super) subject: Subject,
    pub(super) load_percent: u32,
    /// Messages a second that were due.
    pub(super) offered_per_s: f64,
    pub(super) sample: Sample,
}

/// The same as JSON.
#[derive(Serialize)]
struct Line {
    peer: &'static str,
    workload: &'static str,
    driver: &'static str,
    wait: &'static str,
    load_percent: u32,
    offered_per_s: f64,
    rate_per_s: f64,
    p50_ns: Option<u64>,
    p90_ns: Option<u64>,
    p99_ns: Option<u64>,
    p999_ns: Option<u64>,
    p9999_ns: Option<u64>,
    max_ns: Option<u64>,
}

impl From<&Run> for Line {
    fn from(run: &Run) -> Self {
        let quantile = |share| run.sample.quantile_ns(share);
        Self {
            peer: run.subject.name(),
            workload: WORKLOAD.name(),
            driver: run.subject.driver().name(),
            wait: run.subject.host().wait.name(),
            load_percent: run.load_percent,
            offered_per_s: run.offered_per_s,
            rate_per_s: run.sample.rate_per_s(),
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            p9999_ns: quantile(0.9999),
            max_ns: quantile(1.0),
        }
    }
}

/// Measures the requested candidates.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let options = &args.options;
    let mut subjects = options.subjects();
    subjects.retain(|subject| subject.can(WORKLOAD));
    let slices = (LOADS.len() + 1) * subjects.len() * options.rounds();
    let output = Output::start(options, slices)?;
    let mut runs = Vec::new();
    let result = measure(&subjects, options, &output, &mut runs);
    output.finish(|| table::open_loop(&runs))?;
    result?;
    charts::open_loop(&options.svg_dir, &LOADS, &runs)
}

fn measure(
    subjects: &[Subject],
    options: &Options,
    output: &Output,
    runs: &mut Vec<Run>,
) -> Result<(), Failure> {
    let saturation = in_turn(subjects, options, |_, subject, pair| {
        output.step(format!("saturation: {}", subject.label()));
        subject.measure(WORKLOAD, pair)
    })?;
    for load_percent in LOADS {
        let share = f64::from(load_percent) / 100.0;
        let offered: Vec<_> = saturation.iter().map(|s| s.rate_per_s() * share).collect();
        let samples = in_turn(subjects, options, |index, subject, pair| {
            output.step(format!("{load_percent} %: {}", subject.label()));
            subject.open_loop(schedule(offered[index], pair), pair)
        })?;
        for ((subject, offered_per_s), sample) in subjects.iter().zip(&offered).zip(samples) {
            let run = Run {
                subject: *subject,
                load_percent,
                offered_per_s: *offered_per_s,
                sample,
            };
            output.row(&Line::from(&run))?;
            runs.push(run);
        }
    }
    Ok(())
}

fn schedule(rate: f64, pair: &Pair) -> Schedule {
    let Shape::Echo { streams } = WORKLOAD.shape() else {
        unreachable!("the workload of this module echoes")
    };
    Schedule {
        rate,
        streams,
        warmup: pair.warmup,
    }
}

/// Lets all candidates take turns, and adds up the slices of each.
fn in_turn(
    subjects: &[Subject],
    options: &Options,
    slice: impl Fn(usize, Subject, &Pair) -> Result<Sample, Failure>,
) -> Result<Vec<Sample>, Failure> {
    let pair = options.pair();
    let mut slices = vec![Vec::new(); subjects.len()];
    for _ in 0..options.rounds() {
        for (index, subject) in subjects.iter().enumerate() {
            let sample = slice(index, *subject, &pair).map_err(|failure| {
                let label = subject.label();
                Failure::new(format!("cannot measure {label} in an open loop")).because(&failure)
            });
            slices[index].push(sample?);
        }
    }
    let total = |slices: &Vec<_>| Sample::total(slices).expect("there is at least one round");
    Ok(slices.iter().map(total).collect())
}
