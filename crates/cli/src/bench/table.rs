//! The rows as a table, for people.

use comfy_table::{CellAlignment, Table, presets};

use ringmux_measure::row::{Ratio, Row};
use ringmux_measure::units;
use ringmux_measure::workload::Workload;

const HEADER: [&str; 11] = [
    "workload",
    "driver",
    "rate",
    "bytes",
    "p50",
    "p99",
    "p99.9",
    "limit",
    "limit p50",
    "limit p99",
    "of limit",
];
/// Columns that hold text and not numbers.
const TEXT_COLUMNS: usize = 2;

/// The text under the table.
pub(super) const LEGEND: &str = "\
limit     the same bytes over plain sockets that wait in the same way, in turn with ringmux on the same
          two threads, without streams, credit or opening and closing; the best of write sizes from 16
          to 256 KiB; mixed has a socket and two threads for the round trips, and as much for bulk
of limit  rate / limit (higher is better), or p50 / limit p50 where it says p50 (lower is better)
one-cpu   client and server on one processor; one-cpu-engines: both engines on threads of their own on one
          processor; busy: on processors that other threads keep busy
bytes     payload; an echoed message counts once";

/// Lays out finished rows.
pub(super) fn render(rows: &[(Workload, Row)]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_header(HEADER);
    for column in table.column_iter_mut().skip(TEXT_COLUMNS) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut beside = String::new();
    for (workload, row) in rows {
        table.add_row(cells(*workload, row));
        beside.push_str(&beside_line(row).unwrap_or_default());
    }
    format!("{table}\n{beside}{LEGEND}")
}

fn cells(workload: Workload, row: &Row) -> [String; 11] {
    let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), units::duration_ns);
    let ratio = match row.ratio(workload) {
        Some(Ratio::Rate(ratio)) => format!("{ratio:.2}"),
        Some(Ratio::Time(ratio)) => format!("p50 x {ratio:.2}"),
        None => "-".to_owned(),
    };
    [
        row.workload.to_owned(),
        driver(row),
        units::rate(row.rate_per_s),
        units::byte_rate(row.bytes_per_s),
        time(row.p50_ns),
        time(row.p99_ns),
        time(row.p999_ns),
        units::rate(row.limit_rate_per_s),
        time(row.limit_p50_ns),
        time(row.limit_p99_ns),
        ratio,
    ]
}

/// The driver, its idle strategy unless it parks, and its place unless apart.
fn driver(row: &Row) -> String {
    let waits = (row.wait != "park").then_some(row.wait);
    let words = [Some(row.driver), waits, row.place];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The rate of the bulk stream beside the round trips.
fn beside_line(row: &Row) -> Option<String> {
    let (bulk, limit) = (row.bulk_bytes_per_s?, row.limit_bulk_bytes_per_s?);
    let (bulk, limit) = (units::byte_rate(bulk), units::byte_rate(limit));
    let (workload, driver) = (row.workload, row.driver);
    Some(format!(
        "{workload} ({driver}): beside the round trips {bulk} of bulk, limit {limit}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: Workload) -> (Workload, Row) {
        let row = Row {
            workload: workload.name(),
            driver: "tokio",
            wait: "park",
            rate_per_s: 1_230_000.0,
            bytes_per_s: 78.7e6,
            p50_ns: None,
            p99_ns: None,
            p999_ns: None,
            limit_rate_per_s: 2_460_000.0,
            limit_p50_ns: Some(57_300),
            limit_p99_ns: Some(91_000),
            bulk_bytes_per_s: (workload == Workload::Mixed).then_some(1e9),
            limit_bulk_bytes_per_s: (workload == Workload::Mixed).then_some(2e9),
            place: None,
            own_thread: None,
        };
        (workload, row)
    }

    #[test]
    fn a_row_shows_units_ratio_and_a_dash_for_what_there_is_not() {
        let (workload, row) = row(Workload::Oneway);
        let expected = [
            "oneway",
            "tokio",
            "1.23 M/s",
            "78.7 MB/s",
            "-",
            "-",
            "-",
            "2.46 M/s",
            "57.3 us",
            "91.0 us",
            "0.50",
        ];
        assert_eq!(cells(workload, &row), expected);
    }

    #[test]
    fn a_row_says_how_and_where_it_waited_if_not_asleep_on_a_processor_of_its_own() {
        let (_, mut row) = row(Workload::Pingpong);
        (row.wait, row.place) = ("adaptive", Some("one-cpu"));
        assert_eq!(driver(&row), "tokio adaptive one-cpu");
    }

    #[test]
    fn only_mixed_tells_about_bulk_beside_it() {
        let bulk = "mixed (tokio): beside the round trips 1.00 GB/s of bulk, limit 2.00 GB/s";
        assert!(render(&[row(Workload::Mixed)]).contains(bulk));
        assert!(!render(&[row(Workload::Oneway)]).contains("beside the"));
    }
}
