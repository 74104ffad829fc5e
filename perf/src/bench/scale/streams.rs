//! `streams`: the cost of an echoed message beside 1 to many thousand streams doing the same.

use serde::Serialize;

use super::footprint::cpu_time;
use super::{Options, introduce, median, print, print_json};
use crate::bench::report::table;
use ringmux::Wire;
use ringmux_measure::failure::Failure;
use ringmux_measure::mux;
use ringmux_measure::progress::Progress;
use ringmux_measure::units;
use ringmux_measure::workload::Shape;

/// Arguments of `streams`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Streams that are open at once, each with one 64-byte message in flight.
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,64,1024,16384",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    streams: Vec<u32>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Serialize)]
struct Row {
    streams: u32,
    driver: &'static str,
    wait: &'static str,
    rate_per_s: f64,
    /// Time per message, over all streams together.
    ns_per_message: f64,
    /// Processor time of both ends.
    cpu_ns_per_message: f64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    /// Ratio to the cheapest row.
    cpu_by_cheapest: f64,
}

#[derive(Debug, Default)]
struct Slices {
    rate_per_s: Vec<f64>,
    cpu_ns: Vec<f64>,
    p50_ns: Vec<f64>,
    p99_ns: Vec<f64>,
}

/// Measures all, slice by slice in turn.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (options, pair) = (&args.options, args.options.pair());
    introduce(options.json)?;
    let progress = Progress::new(
        args.streams.len() * options.rounds as usize,
        pair.warmup + pair.measured,
    );
    let mut all: Vec<Slices> = args.streams.iter().map(|_| Slices::default()).collect();
    for _ in 0..options.rounds {
        for (streams, slices) in args.streams.iter().zip(&mut all) {
            progress.step(format!("{streams} streams"));
            let shape = Shape::Echo {
                streams: *streams as usize,
            };
            let before = cpu_time();
            let sample = mux::measure(shape, options.host(), Wire::Native, &pair)?;
            let used = cpu_time() - before;
            // The slice's warm-up uses the processor as well, and opens the streams.
            let messages = sample.rate_per_s() * (pair.warmup + sample.elapsed).as_secs_f64();
            slices.rate_per_s.push(sample.rate_per_s());
            slices
                .cpu_ns
                .push(used.as_secs_f64() * 1e9 / messages.max(1.0));
            slices
                .p50_ns
                .extend(sample.quantile_ns(0.5).map(|ns| ns as f64));
            slices
                .p99_ns
                .extend(sample.quantile_ns(0.99).map(|ns| ns as f64));
        }
    }
    progress.clear();
    report(args, &all)
}

fn report(args: &Args, all: &[Slices]) -> Result<(), Failure> {
    let host = args.options.host();
    let cheapest = all
        .iter()
        .map(|slices| median(slices.cpu_ns.iter().copied()))
        .fold(f64::INFINITY, f64::min);
    let rows = args.streams.iter().zip(all).map(|(streams, slices)| {
        let rate_per_s = median(slices.rate_per_s.iter().copied());
        let cpu_ns = median(slices.cpu_ns.iter().copied());
        let time =
            |times: &[f64]| (!times.is_empty()).then(|| median(times.iter().copied()) as u64);
        Row {
            streams: *streams,
            driver: host.driver.name(),
            wait: host.wait.name(),
            rate_per_s,
            ns_per_message: 1e9 / rate_per_s,
            cpu_ns_per_message: cpu_ns,
            p50_ns: time(&slices.p50_ns),
            p99_ns: time(&slices.p99_ns),
            cpu_by_cheapest: cpu_ns / cheapest,
        }
    });
    let mut table = table::start(
        &[
            "streams",
            "rate",
            "ns a message",
            "cpu ns a message",
            "by cheapest",
            "p50",
            "p99",
        ],
        0,
    );
    for row in rows {
        if args.options.json {
            print_json(&row)?;
            continue;
        }
        let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), units::duration_ns);
        table.add_row([
            row.streams.to_string(),
            units::rate(row.rate_per_s),
            format!("{:.0}", row.ns_per_message),
            format!("{:.0}", row.cpu_ns_per_message),
            format!("{:.2}", row.cpu_by_cheapest),
            time(row.p50_ns),
            time(row.p99_ns),
        ]);
    }
    if args.options.json {
        return Ok(());
    }
    print(&table.to_string())
}
