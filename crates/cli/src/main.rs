//! The program `ringmux`: reports the drivers that work on this machine, measures the library on it, probes a
//! running endpoint, attacks one of yours, and carries TCP and Unix connections over one session.
//!
//! Each command is a module with its own arguments and a `run`; this file only chooses one and turns
//! its result into an exit code. Results go to stdout, everything else to stderr.

mod attack;
mod bench;
mod connect;
mod doctor;
mod endpoint;
mod forward;
mod log;
mod output;
mod ping;
mod serve;
mod tunnel;
mod waiting;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the reason is one line on stderr
  2  wrong usage";

/// Many message streams over one connection: measure it, probe it, carry TCP over it.
#[derive(Debug, Parser)]
#[command(name = "ringmux", version, about, after_help = EXIT_CODES)]
struct Cli {
    /// Log level for stderr: error, warn, info, debug, trace, or a filter such as `ringmux=debug`;
    /// if not given, info for serve and forward, error for doctor and attack, else warn.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", value_parser = log::check_filter)]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures throughput and latency on this machine, next to plain sockets.
    Bench(bench::Args),
    /// Checks whether io_uring works here, and names the setting to change.
    Doctor(doctor::Args),
    /// Measures round trips to a running ringmux endpoint.
    Ping(ping::Args),
    /// Attacks a server of your own, and measures the effect on its other clients.
    Attack(attack::Args),
    /// Lets clients of `ringmux forward` reach targets from here.
    Serve(serve::Args),
    /// Carries local connections to targets behind `ringmux serve`.
    Forward(forward::Args),
}

impl Command {
    /// Long-running commands log their start and lost sessions. The doctor's findings are its report.
    const fn default_log(&self) -> &'static str {
        match self {
            // Under attack the server is expected to end sessions.
            Self::Doctor(_) | Self::Attack(_) => "error",
            // They report lost sessions themselves, as the reason of their failure.
            Self::Bench(_) | Self::Ping(_) => "warn,ringmux::session=error",
            Self::Forward(_) | Self::Serve(_) => "info,ringmux::session=error",
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Dropped last, after all output.
    let _flushed = log::start(cli.log.as_deref().unwrap_or(cli.command.default_log()));
    let result = match cli.command {
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ping(args) => ping::run(&args),
        Command::Attack(args) => attack::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Forward(args) => forward::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of stdout has closed it, as in `ringmux bench | head -3`.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            log::line(format_args!("error: {failure}"));
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

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let examples = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                examples.contains("Examples:"),
                "{} has none",
                command.get_name()
            );
        }
    }

    #[test]
    fn a_log_filter_that_does_not_parse_is_refused() {
        assert!(log::check_filter("ringmux=debug,warn").is_ok());
        assert!(log::check_filter("ringmux=loud").is_err());
        let error = log::check_filter("ringmux=debug,wran").unwrap_err();
        assert!(error.contains("\"wran\" is no level"), "{error}");
        assert!(log::check_filter("my_crate=info,[session]=debug,ringmux::session").is_ok());
    }
}
