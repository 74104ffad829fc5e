//! The output on stdout, a line at a time.

use std::fmt::Display;
use std::io::{self, Write};

use ringmux_measure::failure::Failure;

/// Prints a result. A closed stdout ends the command: see [`Failure::is_closed_pipe`].
pub(crate) fn print(line: impl Display) -> Result<(), Failure> {
    say(line).map_err(|error| Failure::new("cannot write to stdout").because(&error))
}

/// Prints the start message of a long-running command, which continues even if stdout is closed.
pub(crate) fn announce(line: impl Display) {
    if let Err(error) = say(line) {
        tracing::warn!(%error, "cannot write to stdout");
    }
}

fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
