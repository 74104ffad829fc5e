//! `load`: one workload over one candidate and nothing else, for a profiler.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::peers::Peer;
use super::run::{self, WARMUP_MIN};
use super::subject::Subject;
use crate::allocations;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Wait};
use ringmux_measure::machine::Cpus;
use ringmux_measure::pair::Pair;
use ringmux_measure::workload::Workload;

const EXAMPLES: &str = "\
Examples:
  ringmux-perf load --workload conc64
  ringmux-perf load --workload conc64 --driver tokio
  ringmux-perf load --workload conc64 --peer h2
  perf record -g ringmux-perf load --workload oneway";

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The workload.
    #[arg(long, value_enum, value_name = "NAME")]
    workload: Workload,

    /// The peer; ringmux if not given.
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "driver")]
    peer: Option<Peer>,

    /// The driver of ringmux's session.
    #[arg(long, value_enum, value_name = "NAME", default_value = "uring")]
    driver: Driver,

    /// Idle strategy of ringmux over `uring`, or of the peer, which parks or polls.
    #[arg(long, value_enum, value_name = "NAME", default_value = "park")]
    wait: Wait,

    /// Duration.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = run::seconds)]
    seconds: f64,
}

/// The messages carried. Other counts of the process include its short warm-up.
#[derive(Serialize)]
struct Line {
    peer: &'static str,
    workload: &'static str,
    driver: &'static str,
    wait: &'static str,
    messages: u64,
    rate_per_s: f64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocations: Option<u64>,
}

/// Runs it, and prints one JSON object.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let subject = match args.peer {
        Some(peer) => Subject::peer(peer, args.wait),
        None => Subject::ringmux(args.driver, args.wait),
    };
    let pair = Pair {
        warmup: WARMUP_MIN,
        measured: Duration::from_secs_f64(args.seconds),
        cpus: Cpus::choose(),
    };
    let before = allocations::count();
    let sample = subject.measure(args.workload, &pair)?;
    let after = allocations::count();
    let line = Line {
        peer: subject.name(),
        workload: args.workload.name(),
        driver: subject.driver().name(),
        wait: subject.host().wait.name(),
        messages: sample.count,
        rate_per_s: sample.rate_per_s(),
        p50_ns: sample.quantile_ns(0.5),
        p99_ns: sample.quantile_ns(0.99),
        allocations: after.zip(before).map(|(after, before)| after - before),
    };
    let line = serde_json::to_string(&line).expect("a line is plain data");
    writeln!(io::stdout(), "{line}")
        .map_err(|error| Failure::new("cannot write to stdout").because(&error))
}
