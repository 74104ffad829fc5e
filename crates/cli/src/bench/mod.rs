//! `ringmux bench`: measures this library on this machine, next to plain sockets.
//!
//! A measurement is cut into slices; slices of the limit and of ringmux take turns, so that a
//! machine that becomes slower or faster meanwhile does so for both. Each slice has its own two
//! threads, its own connection and its own warm-up.

mod place;
mod table;

use std::time::Duration;

use clap::ValueEnum;
use ringmux::Engine;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Host, Wait};
use ringmux_measure::machine::{Cpus, Steal};
use ringmux_measure::pair::Pair;
use ringmux_measure::progress::Progress;
use ringmux_measure::row::Row;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::Workload;
use ringmux_measure::{limit, machine, mux};

use crate::log;
use crate::output::print;
use place::{Crowd, Place};

/// Slices of each measurement: one for each write size that the limit tries.
const SLICES: usize = limit::WRITE_SIZES.len();
/// Share of a slice that is run before it and not measured.
const WARMUP: f64 = 0.2;
/// Minimum warm-up, for streams to open and to fill their queues.
const WARMUP_MIN: Duration = Duration::from_millis(50);
/// A hypervisor that takes more than this percentage away makes the figures doubtful.
const STEAL_PERCENT_MAX: f64 = 1.0;

const EXAMPLES: &str = "\
Examples:
  ringmux bench                                      everything, about a minute and a half
  ringmux bench --workload pingpong,conc64           two workloads
  ringmux bench --driver uring,tokio                 two drivers
  ringmux bench --wait spin,park                     polling, and asleep between messages
  ringmux bench --place busy --wait park,adaptive    while other threads want the cpus
  ringmux bench --workload oneway --seconds 10       longer, for steadier figures
  ringmux bench --json > result.jsonl                one JSON object a line";

/// Arguments of `ringmux bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Workloads to measure; all if not given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    workload: Vec<Workload>,

    /// Drivers of the sessions; if not given, uring where it works, else tokio.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    driver: Vec<Driver>,

    /// Idle strategy of both sides, park if not given; only `uring` has others than park.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    wait: Vec<Wait>,

    /// Placement of both sides, apart if not given. Without any of these four options, lone round trips are measured in each place,
    /// parked and adaptive.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    place: Vec<Place>,

    /// Gives each side's engine a thread of its own, beside the application's on the same cpu.
    #[arg(long)]
    own_thread: bool,

    /// Measured time of each workload; its limit takes as long again.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    seconds: f64,

    /// Print one JSON object a line, as soon as it is known, instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures the requested workloads.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let bench = Bench::new(args);
    if bench.cases.is_empty() {
        return Err(Failure::new("nothing to measure").advise(
            "only the driver uring can do other than park: use --driver uring, or --wait park",
        ));
    }
    let header = machine::describe(&bench.pair.cpus);
    if args.json {
        log::line(&header);
    } else {
        bench
            .progress
            .suspend(|| print(format_args!("{header}\n")))?;
    }
    if !bench.pair.cpus.are_two() {
        log::line("warning: client and server share one cpu: expect much lower figures");
    }
    let steal = Steal::start();
    let mut rows = Vec::new();
    let result = bench.measure_all(|workload, row| {
        if args.json {
            let line = serde_json::to_string(&row).expect("a row is plain data");
            print(line)?;
        }
        rows.push((workload, row));
        Ok(())
    });
    bench.progress.clear();
    // Show the rows measured before a failure.
    if !args.json && !rows.is_empty() {
        print(table::render(&rows))?;
    }
    if let Some(percent) = steal
        .percent()
        .filter(|percent| *percent > STEAL_PERCENT_MAX)
    {
        log::line(format_args!(
            "warning: the hypervisor took {percent:.1} % of the cpus away: figures are doubtful"
        ));
    }
    result
}

/// One row to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    workload: Workload,
    place: Place,
    host: Host,
}

impl Case {
    /// Whether slices of the two take turns.
    fn takes_turns_with(&self, other: &Self) -> bool {
        self.workload == other.workload && self.place == other.place
    }
}

/// The workloads, and how to measure them.
struct Bench {
    cases: Vec<Case>,
    pair: Pair,
    progress: Progress,
}

impl Bench {
    fn new(args: &Args) -> Self {
        let cpus = Cpus::choose();
        let cases = cases(args, &cpus);
        let measured = Duration::from_secs_f64(args.seconds / SLICES as f64);
        let pair = Pair {
            warmup: measured.mul_f64(WARMUP).max(WARMUP_MIN),
            measured,
            cpus,
        };
        let progress = Progress::new(cases.len() * SLICES * 2, pair.warmup + pair.measured);
        Self {
            cases,
            pair,
            progress,
        }
    }

    fn measure_all(
        &self,
        mut done: impl FnMut(Workload, Row) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for group in self.cases.chunk_by(Case::takes_turns_with) {
            for (case, row) in group.iter().zip(self.measure(group)?) {
                self.progress.suspend(|| done(case.workload, row))?;
            }
        }
        Ok(())
    }

    /// Slices of the limit and of ringmux, of all cases in turn, which have workload and place in common.
    fn measure(&self, cases: &[Case]) -> Result<Vec<Row>, Failure> {
        let mut slices = vec![(Vec::new(), Vec::new()); cases.len()];
        let crowd = Crowd::at(cases[0].place, self.pair.cpus)?;
        for slice in 0..SLICES {
            for (case, (limits, samples)) in cases.iter().zip(&mut slices) {
                let (limit, sample) = self.slice(case, slice)?;
                limits.push(limit);
                samples.push(sample);
            }
        }
        drop(crowd);
        let row = |(case, (limits, samples)): (&Case, &(Vec<_>, Vec<_>))| {
            let limit = limit::combine(case.workload, limits).expect("there is a slice");
            let sample = Sample::total(samples).expect("there is a slice");
            let place = (case.place != Place::Apart).then_some(case.place.name());
            Row {
                place,
                ..Row::new(case.workload, case.host, &sample, &limit)
            }
        };
        Ok(cases.iter().zip(&slices).map(row).collect())
    }

    fn slice(&self, case: &Case, slice: usize) -> Result<(Sample, Sample), Failure> {
        let Case { workload, host, .. } = *case;
        let (name, driver) = (workload.name(), host.driver.name());
        let pair = Pair {
            cpus: case.place.cpus(self.pair.cpus),
            ..self.pair
        };
        self.progress.step(format!("{name}: plain sockets"));
        let limit = limit::measure(workload, slice, host.wait, &pair)
            .map_err(in_workload(name, "plain sockets"))?;
        self.progress.step(format!("{name}: {driver}"));
        let sample =
            mux::measure(workload.shape(), host, &pair).map_err(in_workload(name, driver))?;
        Ok((limit, sample))
    }
}

/// The requested cases; by default all workloads parked, and lone round trips in places where spinning costs
/// other threads.
fn cases(args: &Args, cpus: &Cpus) -> Vec<Case> {
    let drivers = match &args.driver[..] {
        [] => vec![best_driver()],
        chosen => chosen.to_vec(),
    };
    let workloads = or(&args.workload, Workload::value_variants());
    let waits = or(&args.wait, &[Wait::Park]);
    let places = or(&args.place, &[Place::Apart]);
    let mut cases = Vec::new();
    let mut add = |workload: &Workload, place: &Place, waits: &[Wait]| {
        cases.extend(hosts(&drivers, waits).map(|host| {
            let own_thread = args.own_thread;
            Case {
                workload: *workload,
                place: *place,
                host: place.host(Host { own_thread, ..host }, cpus),
            }
        }));
    };
    for workload in workloads {
        for place in places {
            add(workload, place, waits);
        }
    }
    if args.workload.is_empty()
        && args.driver.is_empty()
        && args.wait.is_empty()
        && args.place.is_empty()
    {
        for place in &Place::SHARED {
            add(&Workload::Pingpong, place, &[Wait::Park, Wait::Adaptive]);
        }
    }
    cases
}

fn or<'a, T>(chosen: &'a [T], otherwise: &'a [T]) -> &'a [T] {
    if chosen.is_empty() { otherwise } else { chosen }
}

/// The driver that the library chooses here; it logs the reason if that is not uring.
fn best_driver() -> Driver {
    match Engine::auto().map(|engine| engine.driver()) {
        Ok(ringmux::Driver::Uring) => Driver::Uring,
        _ => Driver::Tokio,
    }
}

/// Every driver with every way to wait that it has.
fn hosts(drivers: &[Driver], waits: &[Wait]) -> impl Iterator<Item = Host> {
    let pairs = |driver| waits.iter().map(move |wait| (driver, *wait));
    drivers
        .iter()
        .flat_map(move |driver| pairs(*driver))
        .map(|(driver, wait)| Host::inline(driver, wait))
        .filter(|host| host.can_exist())
}

fn in_workload(workload: &'static str, over: &'static str) -> impl Fn(Failure) -> Failure {
    move |failure| Failure::new(format!("cannot measure {workload} over {over}")).because(&failure)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 0.05 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn without_arguments_everything_is_measured_over_uring_parked_and_what_sharing_costs() {
        let cases = Bench::new(&parse("").unwrap()).cases;
        let (apart, shared) = cases.split_at(Workload::value_variants().len());
        let parked = Host::inline(Driver::Uring, Wait::Park);
        let is_plain = |case: &Case| case.place == Place::Apart && case.host == parked;
        assert!(apart.iter().all(is_plain));
        let shared = shared.iter().map(|case| (case.place, case.host.wait));
        let expected = Place::SHARED
            .iter()
            .flat_map(|place| [(*place, Wait::Park), (*place, Wait::Adaptive)]);
        assert!(shared.eq(expected));
    }

    #[test]
    fn ways_to_wait_take_turns_in_one_place() {
        let line = "--workload pingpong --place busy,one-cpu --wait park,adaptive --driver uring";
        let cases = Bench::new(&parse(line).unwrap()).cases;
        let groups = cases.chunk_by(Case::takes_turns_with);
        assert_eq!(groups.map(<[Case]>::len).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn lists_may_be_joined_by_commas_or_repeated() {
        let args =
            parse("--workload pingpong,bulk --workload mixed --driver tokio,tokio-uring").unwrap();
        assert_eq!(
            args.workload,
            [Workload::Pingpong, Workload::Bulk, Workload::Mixed]
        );
        assert_eq!(Bench::new(&args).cases.len(), 6);
    }

    #[test]
    fn slices_and_their_warm_ups_divide_the_measured_time() {
        let pair = Bench::new(&parse("--seconds 5").unwrap()).pair;
        assert_eq!(
            (pair.measured, pair.warmup),
            (Duration::from_secs(1), Duration::from_millis(200))
        );
    }

    #[test]
    fn short_slices_are_warmed_up_as_well() {
        let pair = Bench::new(&parse("--seconds 0.1").unwrap()).pair;
        assert_eq!(
            (pair.measured, pair.warmup),
            (Duration::from_millis(20), WARMUP_MIN)
        );
    }

    #[test]
    fn unknown_names_and_absurd_times_are_refused() {
        for wrong in [
            "--workload nonesuch",
            "--driver epoll",
            "--seconds 0",
            "--seconds nan",
            "--seconds 1e9",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
