//! `ringmux-perf`: ringmux beside other multiplexers, on this machine, in one run.
//!
//! `compare` measures throughput and closed-loop latency of all workloads; `open-loop` measures
//! latency at fixed rates; `load` only runs a workload, for a profiler. `producers`, `streams` and `idle` measure how
//! ringmux alone scales, `soak` whether it lasts. Results go to stdout, charts to files, everything else to stderr.

mod allocations;
mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use bench::scale::{idle, producers, soak, streams};
use bench::{compare, load, open_loop, untuned};

#[cfg(not(feature = "count-allocations"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: allocations::Counting<mimalloc::MiMalloc> =
    allocations::Counting(mimalloc::MiMalloc);

/// ringmux beside yamux, h2, tonic, tarpc, quinn and plain sockets, in one run.
#[derive(Debug, Parser)]
#[command(name = "ringmux-perf")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every workload over ringmux, the peers and plain sockets, in turn.
    Compare(compare::Args),
    /// Measures latency at fixed rates over ringmux and the peers.
    OpenLoop(open_loop::Args),
    /// The server of `compare --untuned`.
    #[command(hide = true)]
    UntunedServe(untuned::ServeArgs),
    /// Runs one workload over one of them, for a profiler.
    Load(load::Args),
    /// Measures the throughput of 1, 2, 4 threads sending into one session.
    Producers(producers::Args),
    /// Measures the cost of a message beside 1 to many thousand streams.
    Streams(streams::Args),
    /// Measures the cost of an idle stream on each side.
    Idle(idle::Args),
    /// The other side of `idle`.
    #[command(hide = true)]
    IdlePeer(idle::Args),
    /// Runs full load for a long time, kills streams at random, and fails if anything grows.
    Soak(soak::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::OpenLoop(args) => open_loop::run(&args),
        Command::UntunedServe(args) => untuned::serve(&args),
        Command::Load(args) => load::run(&args),
        Command::Producers(args) => producers::run(&args),
        Command::Streams(args) => streams::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::IdlePeer(args) => idle::serve(&args),
        Command::Soak(args) => soak::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of stdout has closed it, as in `compare | head -3`.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
