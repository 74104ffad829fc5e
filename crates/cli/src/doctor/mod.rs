//! `ringmux doctor`: the driver that works here, the checks, and the setting to change.
//!
//! The report shows the library's own result of trying a ring, beside the system's policy; it decides nothing itself.

mod report;
mod system;

use ringmux::{ChosenBackend, Engine, EngineError};

use crate::output::print;
use report::Report;
use ringmux_measure::failure::Failure;
use system::System;

const EXAMPLES: &str = "\
Examples:
  ringmux doctor                   a table, and the remedy where io_uring is refused
  ringmux doctor --json            the same as one JSON object
  ringmux doctor >/dev/null && ringmux bench --driver uring

Exit codes:
  0  the driver uring works
  1  it does not: programs fall back to the driver tokio, and the reason is one line on stderr";

/// Arguments of `ringmux doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Tries io_uring as every program with this library does, and reports the result.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let engine =
        Engine::auto().map_err(|error| Failure::new("cannot start an engine").because(&error))?;
    let backend = engine.backend();
    let report = Report::new(System::read(), backend);
    let text = if args.json {
        report.json()
    } else {
        report.table()
    };
    print(text)?;
    failure(backend).map_or(Ok(()), Err)
}

/// A fallback as a failure, for the exit code.
fn failure(backend: &ChosenBackend) -> Option<Failure> {
    let failure = Failure::new("io_uring cannot be used");
    Some(match backend.refused()? {
        // The remedy is in the report.
        EngineError::Refused(refusal) => failure.because(refusal),
        other => failure.because(other),
    })
}
