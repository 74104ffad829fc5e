//! Finished rows as tables.

use comfy_table::{CellAlignment, Table, presets};

use crate::bench::compare::{Comparison, Entry};
use crate::bench::open_loop::Run;
use crate::bench::subject::Subject;
use ringmux_measure::host::Wait;
use ringmux_measure::row::Ratio;
use ringmux_measure::sample::Sample;
use ringmux_measure::units;
use ringmux_measure::workload::Workload;

const COMPARE: [&str; 11] = [
    "workload", "peer", "driver", "rate", "bytes", "p50", "p99", "p99.9", "of limit", "ringmux",
    "beside",
];
/// Columns that hold text and not numbers.
const TEXT_COLUMNS: usize = 3;

const COMPARE_LEGEND: &str = "\
rate      messages, round trips or calls; an echoed message counts once
of limit  rate / limit (higher is better), or p50 / limit p50 where it says p50 (lower is better);
          limit is the same bytes over plain blocking sockets, in turn with the others, without
          streams, credit or opening and closing; of the write sizes tried the best
ringmux   how many times faster ringmux is over the first driver listed, by rate, or by p50 where
          the limit is compared by it; below 1 it is slower
beside    bulk that ran beside the round trips of mixed
quinn encrypts, the others do not. In rows with spin no candidate sleeps: peers run beside a task that
yields for ever. In other rows all candidates sleep in the kernel while idle. The
limit polls if spinning was asked for. Compare rows that wait alike";

const OPEN_LOOP: [&str; 11] = [
    "load", "peer", "driver", "offered", "achieved", "p50", "p90", "p99", "p99.9", "p99.99", "max",
];

const OPEN_LOOP_LEGEND: &str = "\
load      percent of the same candidate's rate in a closed loop just before
offered   messages a second that were due; achieved: echoes received within the window
p50 ...   from when a message was due, not from when it was sent. The client's thread never sleeps,
          for all candidates; the server's sleeps when idle, except with spin";

/// A cell without a measurement.
const NONE: &str = "-";

/// The result of `compare`.
pub(in crate::bench) fn compare(comparisons: &[Comparison]) -> String {
    let mut table = start(&COMPARE, TEXT_COLUMNS);
    for comparison in comparisons {
        table.add_row(limit_cells(comparison));
        for entry in &comparison.entries {
            table.add_row(cells(comparison, entry));
        }
    }
    format!("{table}\n{COMPARE_LEGEND}")
}

/// The result of `open-loop`.
pub(in crate::bench) fn open_loop(runs: &[Run]) -> String {
    let mut table = start(&OPEN_LOOP, TEXT_COLUMNS);
    for run in runs {
        let names = [
            format!("{} %", run.load_percent),
            run.subject.name().to_owned(),
            host(run.subject),
            units::rate(run.offered_per_s),
            units::rate(run.sample.rate_per_s()),
        ];
        let shares = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
        let times = shares.map(|share| time(&run.sample, share));
        table.add_row(names.into_iter().chain(times));
    }
    format!("{table}\n{OPEN_LOOP_LEGEND}")
}

/// An empty table with numbers to the right.
pub(in crate::bench) fn start(header: &[&str], text_columns: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_header(header);
    for column in table.column_iter_mut().skip(text_columns) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn limit_cells(comparison: &Comparison) -> Vec<String> {
    let workload = comparison.workload;
    let mut cells = [workload.name(), "limit", NONE].map(str::to_owned).to_vec();
    cells.extend(measured_cells(workload, &comparison.limit));
    cells.extend([NONE, NONE].map(str::to_owned));
    cells.push(beside(workload, &comparison.limit));
    cells
}

fn cells(comparison: &Comparison, entry: &Entry) -> Vec<String> {
    let workload = comparison.workload;
    let mut cells = vec![
        workload.name().to_owned(),
        entry.subject.name().to_owned(),
        host(entry.subject),
    ];
    let Some(sample) = &entry.sample else {
        cells.resize(COMPARE.len(), NONE.to_owned());
        return cells;
    };
    let of_limit = match comparison.row(entry).and_then(|row| row.ratio(workload)) {
        Some(Ratio::Rate(ratio)) => format!("{ratio:.2}"),
        Some(Ratio::Time(ratio)) => format!("p50 x {ratio:.2}"),
        None => NONE.to_owned(),
    };
    let ahead = ahead(comparison, sample).map_or_else(|| NONE.to_owned(), |x| format!("x {x:.2}"));
    cells.extend(measured_cells(workload, sample));
    cells.extend([of_limit, ahead, beside(workload, sample)]);
    cells
}

/// The driver, and its idle strategy if chosen.
fn host(subject: Subject) -> String {
    let host = subject.host();
    let mut name = host.driver.name().to_owned();
    if host.wait != Wait::Park {
        name.extend([" ", host.wait.name()]);
    }
    if host.own_thread {
        name.push_str(" thread");
    }
    name
}

fn measured_cells(workload: Workload, sample: &Sample) -> [String; 5] {
    let rate = sample.rate_per_s();
    [
        units::rate(rate),
        units::byte_rate(rate * workload.message_len() as f64),
        time(sample, 0.5),
        time(sample, 0.99),
        time(sample, 0.999),
    ]
}

fn time(sample: &Sample, share: f64) -> String {
    let ns = sample.quantile_ns(share);
    ns.map_or_else(|| NONE.to_owned(), units::duration_ns)
}

fn beside(workload: Workload, sample: &Sample) -> String {
    if workload == Workload::Mixed {
        units::byte_rate(sample.side_bytes_per_s())
    } else {
        String::new()
    }
}

/// The factor by which the first ringmux of the comparison is faster than this.
fn ahead(comparison: &Comparison, other: &Sample) -> Option<f64> {
    let is_ringmux = |entry: &&Entry| matches!(entry.subject, Subject::Ringmux(_));
    let ringmux = comparison
        .entries
        .iter()
        .find(is_ringmux)?
        .sample
        .as_ref()?;
    let ratio = if comparison.workload.is_about_latency() {
        other.quantile_ns(0.5)? as f64 / ringmux.quantile_ns(0.5)? as f64
    } else {
        ringmux.rate_per_s() / other.rate_per_s()
    };
    ratio.is_finite().then_some(ratio)
}
