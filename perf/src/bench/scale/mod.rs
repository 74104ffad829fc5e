//! How ringmux alone scales and lasts: producers, streams, idle streams, and hours of load.

mod footprint;
pub(crate) mod idle;
pub(crate) mod producers;
pub(crate) mod soak;
pub(crate) mod streams;

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use super::run::{WARMUP_MIN, seconds};
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Host, Wait};
use ringmux_measure::machine::{self, Cpus};
use ringmux_measure::pair::Pair;

/// Share of a slice that is run before it and not measured.
const WARMUP: f64 = 0.2;

/// The driver, the duration, and the output format.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The driver of the session.
    #[arg(long, value_enum, value_name = "NAME", default_value = "uring")]
    driver: Driver,

    /// Idle strategy of `uring`; the other two park.
    #[arg(long, value_enum, value_name = "NAME", default_value = "park")]
    wait: Wait,

    /// Measured time of each row.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    seconds: f64,

    /// Turns of each row; its time is divided among them.
    #[arg(long, value_name = "N", default_value = "5",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn host(&self) -> Host {
        Host::nearest(self.driver, self.wait)
    }

    /// The harness of one slice.
    fn pair(&self) -> Pair {
        let measured = Duration::from_secs_f64(self.seconds / f64::from(self.rounds));
        Pair {
            warmup: measured.mul_f64(WARMUP).max(WARMUP_MIN),
            measured,
            cpus: Cpus::choose(),
        }
    }
}

/// Prints the machine's description: on stderr if the results are JSON.
fn introduce(json: bool) -> Result<(), Failure> {
    let header = machine::describe(&Cpus::choose());
    if json {
        eprintln!("{header}");
        return Ok(());
    }
    print(&format!("{header}\n"))
}

pub(in crate::bench) fn print(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(during("cannot write to stdout"))
}

fn print_json(row: &impl serde::Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(row).expect("a row is plain data"))
}

pub(in crate::bench) fn during<E: Error + 'static>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(what).because(&error)
}

/// The median of a row's slices, as other load on the machine spoils single slices.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
