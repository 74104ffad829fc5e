//! `ringmux doctor`: which driver works here, what was looked at, and what to change.
//!
//! What stands in the report is what the library found when it tried a ring, beside what the system
//! shows of its policy; nothing is decided here.

mod report;
mod system;

use ringmux::{ChosenBackend, Engine, EngineError};

use crate::output::print;
use report::Report;
use ringmux_measure::failure::Failure;
use system::System;

const EXAMPLES: &str = "\
Examples:
  ringmux doctor                   a table, and what to change where io_uring is refused
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

/// Tries io_uring as every program with this library does, and tells what came of it.
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

/// What a fallback is for whoever asks by the exit code.
fn failure(backend: &ChosenBackend) -> Option<Failure> {
    let failure = Failure::new("io_uring cannot be used");
    Some(match backend.refused()? {
        EngineError::Refused(refusal) => failure.because(refusal).advise(refusal.remedy()),
        other => failure.because(other),
    })
}
