//! The results of the attacks: a table for people, one JSON object a line for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::campaign::Outcome;
use super::kinds::Kind;
use super::neighbour::{self, Slice};
use ringmux_measure::units::{duration_ns, rate};

const HEADER: [&str; 9] = [
    "row",
    "attack",
    "frames",
    "ended",
    "p99 before",
    "p99 during",
    "ratio",
    "slowdown",
    "the server said",
];

/// The text under the table.
pub(super) const LEGEND: &str = "\
frames     frames sent by the attacker, while it was not paused
ended      how often the server ended a connection of the attacker
p99        round trips of a session beside it: medians over slices, attack paused and playing in turn
ratio      of the p99 of a slice of playing to that of the paused one before it: the median
slowdown   of the average round trip, to that before the attack was first played";

/// One attack; as JSON, one object.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) row: String,
    pub(super) attack: String,
    /// How long it was played.
    pub(super) seconds: f64,
    /// Frames a second at most; 0 if unlimited.
    pub(super) rate: u32,
    pub(super) connections: u64,
    pub(super) refused: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// Connections that the server has ended.
    pub(super) ended: u64,
    /// Of them, counts by the rule or limit named.
    pub(super) answers: BTreeMap<String, u64>,
    /// The last GOAWAY in full.
    pub(super) last_answer: Option<String>,
    /// Streams that the server has ended.
    pub(super) resets: u64,
    /// Round trips of the neighbour, before and during.
    pub(super) round_trips: [u64; 2],
    pub(super) p50_before_ns: u64,
    pub(super) p50_during_ns: u64,
    pub(super) p99_before_ns: u64,
    pub(super) p99_during_ns: u64,
    pub(super) average_during_ns: u64,
    /// p99 of a slice during / p99 of the one before it: the median, as other load of the machine is in both.
    pub(super) ratio: f64,
    /// Average round trip during / in the first slice, before there was any attack.
    pub(super) slowdown: f64,
    /// Why the neighbour or a newcomer was no longer served; `None`: both were.
    pub(super) failure: Option<String>,
    /// False if it was not played.
    pub(super) applicable: bool,
    /// The reason.
    #[serde(skip)]
    why_not: &'static str,
}

impl Row {
    /// Of an attack on calls, where there are none, or none of its kind.
    pub(super) fn not_applicable(kind: Kind, why_not: &'static str) -> Self {
        let row = Self::new(kind, (0.0, 0), Outcome::default(), [&[], &[]], None);
        Self {
            applicable: false,
            why_not,
            ..row
        }
    }

    pub(super) fn new(
        kind: Kind,
        (seconds, rate): (f64, u32),
        outcome: Outcome,
        [before, during]: [&[Slice]; 2],
        failure: Option<String>,
    ) -> Self {
        let [p99_before_ns, p99_during_ns] =
            [before, during].map(|slices| neighbour::median_ns(slices, 0.99));
        Self {
            row: kind.row(),
            attack: kind.name(),
            seconds,
            rate,
            connections: outcome.connections,
            refused: outcome.refused,
            frames: outcome.frames,
            bytes: outcome.bytes,
            ended: outcome.ended(),
            answers: outcome.answers,
            last_answer: outcome.last_answer,
            resets: outcome.resets,
            round_trips: [before, during].map(neighbour::count),
            p50_before_ns: neighbour::median_ns(before, 0.5),
            p50_during_ns: neighbour::median_ns(during, 0.5),
            p99_before_ns,
            p99_during_ns,
            average_during_ns: neighbour::mean_ns(during) as u64,
            ratio: neighbour::median_ratio(before, during, 0.99),
            slowdown: neighbour::slowdown(before, during),
            failure,
            applicable: true,
            why_not: "",
        }
    }

    /// Whether the server survived, and the neighbour's times stayed below `max_ratio` of the times before, or below `max_wait`.
    /// On a quiet machine a round trip is so short that one burst of ordinary work in front of it doubles it.
    pub(super) fn passed(&self, max_ratio: f64, max_wait: Duration) -> bool {
        let noticed =
            |ratio: f64, ns: u64| ratio >= max_ratio && Duration::from_nanos(ns) >= max_wait;
        self.failure.is_none()
            && !noticed(self.ratio, self.p99_during_ns)
            && !noticed(self.slowdown, self.average_during_ns)
    }

    fn said(&self) -> String {
        if !self.applicable {
            return format!("not applicable: {}", self.why_not);
        }
        let counted = |(name, count): (&String, &u64)| format!("{name} x {count}");
        let mut said: Vec<String> = self.answers.iter().map(counted).collect();
        if self.resets > 0 {
            said.push(format!("{} streams reset", self.resets));
        }
        if said.is_empty() {
            "-".to_owned()
        } else {
            said.join(", ")
        }
    }
}

/// Lays out finished rows.
pub(super) fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_header(HEADER);
    for column in table.column_iter_mut().skip(2).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(cells(row));
    }
    format!("{table}\n{LEGEND}")
}

fn cells(row: &Row) -> [String; 9] {
    let measured = row.round_trips.iter().all(|&count| count > 0);
    let if_measured = |text: String| if measured { text } else { "-".to_owned() };
    [
        row.row.clone(),
        row.attack.clone(),
        rate(row.frames as f64 / row.seconds.max(f64::MIN_POSITIVE)),
        row.ended.to_string(),
        if_measured(duration_ns(row.p99_before_ns)),
        if_measured(duration_ns(row.p99_during_ns)),
        if_measured(format!("{:.2}", row.ratio)),
        if_measured(format!("{:.2}", row.slowdown)),
        row.failure.clone().unwrap_or_else(|| row.said()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(failure: Option<String>) -> Row {
        let outcome = Outcome {
            connections: 3,
            frames: 4000,
            answers: BTreeMap::from([("limit glitch-rate".to_owned(), 2)]),
            resets: 5,
            ..Outcome::default()
        };
        Row::new(
            Kind::WindowFlood,
            (2.0, 10_000),
            outcome,
            [&[], &[]],
            failure,
        )
    }

    #[test]
    fn a_row_says_what_the_server_said_and_how_often() {
        let shown = cells(&row(None));
        assert_eq!(&shown[..2], ["A7", "window-flood"]);
        assert_eq!(shown[2], "2.00 k/s");
        assert_eq!(shown[3], "2");
        assert_eq!(shown[4..8], ["-"; 4], "there was no round trip");
        assert_eq!(shown[8], "limit glitch-rate x 2, 5 streams reset");
    }

    #[test]
    fn times_that_are_short_in_any_case_pass_whatever_they_were_before() {
        let of = |ratio, p99_ms: u64, slowdown, average_ms: u64| Row {
            ratio,
            p99_during_ns: p99_ms * 1_000_000,
            slowdown,
            average_during_ns: average_ms * 1_000_000,
            ..row(None)
        };
        let passed = |row: Row| row.passed(2.0, Duration::from_millis(10));
        assert!(passed(of(9.0, 9, 9.0, 9)));
        assert!(passed(of(1.9, 1000, 1.9, 1000)), "it was as long before");
        assert!(!passed(of(2.0, 10, 1.0, 1)));
        assert!(!passed(of(1.0, 1, 2.0, 10)));
    }

    #[test]
    fn an_attack_that_was_not_played_says_so_and_is_passed() {
        let row = Row::not_applicable(Kind::CallLate, "it answers no calls");
        let shown = cells(&row);
        assert_eq!(&shown[..3], ["C7", "call-late", "0/s"]);
        assert_eq!(shown[8], "not applicable: it answers no calls");
        assert!(row.passed(2.0, Duration::ZERO));
    }

    #[test]
    fn a_server_that_did_not_live_has_not_passed_whatever_the_ratio() {
        let passed = |row: Row| row.passed(2.0, Duration::ZERO);
        assert!(passed(row(None)));
        assert!(!passed(row(Some("gone".to_owned()))));
        assert_eq!(cells(&row(Some("gone".to_owned())))[8], "gone");
    }
}
