//! The two processes: this one calls, and starts one that serves, which ends with its stdin.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::WARMUP_MIN;
use super::calling::Run;
use super::stack::Stack;
use crate::bench::peers::rpc::Job;
use crate::bench::scale::{during, print};
use ringmux_measure::failure::Failure;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::Workload;

/// Arguments of the process that serves.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    stack: Stack,
}

/// Serves until stdin ends. Its first line is its address.
pub(crate) fn serve(args: &Args) -> Result<(), Failure> {
    let runtime = runtime()?;
    print(&runtime.block_on(args.stack.listen())?)?;
    // An error is an end as well.
    let _ = io::stdin().lines().next();
    Ok(())
}

/// As `#[tokio::main]` makes it.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(during("cannot start a tokio runtime"))
}

/// Measures one slice against a server of its own.
pub(super) fn slice(
    stack: Stack,
    workload: Workload,
    warmup: Duration,
    measured: Duration,
) -> Result<Sample, Failure> {
    let mut server = Server::start(stack)?;
    let address = server.address()?;
    call(stack, workload, &address, warmup.max(WARMUP_MIN), measured)
}

/// Measures one slice against the server at this address.
pub(super) fn call(
    stack: Stack,
    workload: Workload,
    address: &str,
    warmup: Duration,
    measured: Duration,
) -> Result<Sample, Failure> {
    let job = Job::of(workload.shape());
    let run = Run {
        job: job.ok_or_else(|| Failure::new("no workload of calls"))?,
        warmup,
        measured,
    };
    let runtime = runtime()?;
    let sample = runtime.block_on(stack.call(address, run));
    // Connections are left to their end with the server's.
    runtime.shutdown_background();
    sample
}

struct Server(Child);

impl Server {
    fn start(stack: Stack) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(during("cannot find this program"))?;
        Command::new(program)
            .args(["untuned-serve", stack.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map(Self)
            .map_err(during("cannot start the server"))
    }

    fn address(&mut self) -> Result<String, Failure> {
        let stdout = self.0.stdout.take();
        let stdout = stdout.ok_or_else(|| Failure::new("the server has no stdout"))?;
        let mut line = String::new();
        match BufReader::new(stdout).read_line(&mut line) {
            Ok(0) => Err(Failure::new("the server has ended")),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(during("the server is gone")(error)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
