//! Shared by both commands: the candidates, the durations, and the output.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::peers::Peer;
use super::subject::Subject;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Wait};
use ringmux_measure::limit;
use ringmux_measure::machine::{self, Cpus, Steal};
use ringmux_measure::pair::Pair;
use ringmux_measure::progress::Progress;

/// Share of a slice that is run before it and not measured.
const WARMUP: f64 = 0.2;
/// Minimum warm-up, for streams to open and to fill their queues.
pub(super) const WARMUP_MIN: Duration = Duration::from_millis(50);
/// A hypervisor that takes more than this percentage away makes the figures doubtful.
const STEAL_PERCENT_MAX: f64 = 1.0;

/// The candidates, the duration, and the output.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peers to compare with; all if not given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    peer: Vec<Peer>,

    /// Drivers of ringmux's sessions; all if not given. The peers are compared with
    /// the first one.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    driver: Vec<Driver>,

    /// Idle strategy: `spin` lets the peers' runtimes poll as well as ringmux over `uring` and the plain sockets. Candidates that
    /// do not support it (ringmux over another driver; with `adaptive` all others) park.
    #[arg(long, value_enum, value_name = "NAME", default_value = "park")]
    wait: Wait,

    /// Gives each side's engine a thread of its own, beside the application's on the same cpu.
    #[arg(long)]
    own_thread: bool,

    /// Measured time of each row.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    seconds: f64,

    /// Turns of each candidate; each row's time is divided among them. With fewer than five, the
    /// limit tries fewer write sizes.
    #[arg(long, value_name = "N", default_value_t = limit::WRITE_SIZES.len() as u32,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Print one JSON object a line, as soon as it is known, instead of a table.
    #[arg(long)]
    pub(super) json: bool,

    /// Directory of the charts.
    #[arg(long, value_name = "DIR", default_value = "target/perf")]
    pub(super) svg_dir: PathBuf,
}

impl Options {
    pub(super) const fn wait(&self) -> Wait {
        self.wait
    }

    pub(super) fn subjects(&self) -> Vec<Subject> {
        Subject::list(
            or_all(&self.driver),
            self.wait,
            self.own_thread,
            or_all(&self.peer),
        )
    }

    pub(super) fn peers(&self) -> &[Peer] {
        or_all(&self.peer)
    }

    pub(super) fn rounds(&self) -> usize {
        self.rounds as usize
    }

    /// The harness of one slice.
    pub(super) fn pair(&self) -> Pair {
        let measured = Duration::from_secs_f64(self.seconds / f64::from(self.rounds));
        Pair {
            warmup: measured.mul_f64(WARMUP).max(WARMUP_MIN),
            measured,
            cpus: Cpus::choose(),
        }
    }
}

/// The chosen values, or all if none was chosen.
pub(super) fn or_all<T: ValueEnum>(chosen: &[T]) -> &[T] {
    if chosen.is_empty() {
        T::value_variants()
    } else {
        chosen
    }
}

/// The output of results while measuring.
pub(super) struct Output {
    progress: Progress,
    steal: Steal,
    json: bool,
}

impl Output {
    /// Prints the machine's description.
    pub(super) fn start(options: &Options, slices: usize) -> Result<Self, Failure> {
        Self::start_with(options, options.pair(), slices)
    }

    /// The same where nothing is pinned.
    pub(super) fn start_untuned(options: &Options, slices: usize) -> Result<Self, Failure> {
        let cpus = Cpus::unpinned();
        Self::start_with(
            options,
            Pair {
                cpus,
                ..options.pair()
            },
            slices,
        )
    }

    fn start_with(options: &Options, pair: Pair, slices: usize) -> Result<Self, Failure> {
        let header = machine::describe(&pair.cpus);
        if options.json {
            eprintln!("{header}");
        } else {
            writeln!(io::stdout(), "{header}\n").map_err(unwritable)?;
        }
        if !Cpus::choose().are_two() {
            eprintln!("warning: client and server share one cpu: expect much lower figures");
        }
        Ok(Self {
            progress: Progress::new(slices, pair.warmup + pair.measured),
            steal: Steal::start(),
            json: options.json,
        })
    }

    /// Shows the next measurement.
    pub(super) fn step(&self, what: String) {
        self.progress.step(what);
    }

    /// Prints a finished row, if rows are wanted one by one.
    pub(super) fn row(&self, row: &impl serde::Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(row).expect("a row is plain data");
        let print = || writeln!(io::stdout(), "{line}");
        self.progress.suspend(print).map_err(unwritable)
    }

    /// Prints the table, if rows were not wanted one by one, and warnings about its reliability.
    pub(super) fn finish(&self, table: impl FnOnce() -> String) -> Result<(), Failure> {
        self.progress.clear();
        if !self.json {
            writeln!(io::stdout(), "{}", table()).map_err(unwritable)?;
        }
        let stolen = self.steal.percent();
        if let Some(percent) = stolen.filter(|percent| *percent > STEAL_PERCENT_MAX) {
            eprintln!(
                "warning: the hypervisor took {percent:.1} % of the cpus away: figures are doubtful"
            );
        }
        Ok(())
    }
}

fn unwritable(error: io::Error) -> Failure {
    Failure::new("cannot write to stdout").because(&error)
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 0.05 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use ringmux_measure::host::Host;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("perf").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.options)
    }

    #[test]
    fn without_arguments_everybody_is_measured() {
        let subjects = parse("").unwrap().subjects();
        let all = Driver::value_variants().len() + Peer::value_variants().len();
        assert_eq!(subjects.len(), all);
    }

    #[test]
    fn ringmux_comes_first_in_the_order_of_its_drivers() {
        let options = parse("--peer h2 --driver tokio,tokio-uring").unwrap();
        let expected = [
            Subject::Ringmux(Host::nearest(Driver::Tokio, Wait::Park)),
            Subject::Ringmux(Host::nearest(Driver::TokioUring, Wait::Park)),
            Subject::Peer(Peer::H2, Wait::Park),
        ];
        assert_eq!(options.subjects(), expected);
    }

    #[test]
    fn rounds_divide_the_measured_time() {
        let pair = parse("--seconds 6 --rounds 3").unwrap().pair();
        let slice = (Duration::from_secs(2), Duration::from_millis(400));
        assert_eq!((pair.measured, pair.warmup), slice);
        let pair = parse("--seconds 0.1").unwrap().pair();
        assert_eq!(pair.warmup, WARMUP_MIN);
    }

    #[test]
    fn unknown_names_and_absurd_numbers_are_refused() {
        for wrong in [
            "--peer nonesuch",
            "--driver epoll",
            "--seconds 0",
            "--seconds nan",
            "--rounds 0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
