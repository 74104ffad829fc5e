//! Finished rows as charts: bars of rates, and curves of latency distributions.

use std::fs;
use std::path::Path;

use super::svg::{Anchor, Svg};
use crate::bench::compare::Comparison;
use crate::bench::open_loop::Run;
use ringmux_measure::failure::Failure;
use ringmux_measure::sample::Sample;
use ringmux_measure::units;

/// The limit first, then the candidates in their order; after the last colour the first again.
const COLOURS: [&str; 9] = [
    "#999999", "#d62728", "#ff9896", "#8c1a1b", "#1f77b4", "#2ca02c", "#9467bd", "#e6a700",
    "#17becf",
];
const LIMIT: &str = "limit";

/// A panel of the grid, and the margin within it.
const PANEL: (f64, f64) = (520.0, 300.0);
const COLUMNS: usize = 2;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;

/// Curves end at this many nines: 4 is p99.99.
const NINES: f64 = 4.0;
const NINES_STEP: f64 = 0.1;
const TICKS: [(f64, &str); 6] = [
    (0.0, "min"),
    (0.301, "p50"),
    (1.0, "p90"),
    (2.0, "p99"),
    (3.0, "p99.9"),
    (4.0, "p99.99"),
];

/// The data of one panel.
struct Panel<'a> {
    title: String,
    series: Vec<Series<'a>>,
}

struct Series<'a> {
    label: String,
    colour: &'static str,
    sample: &'a Sample,
}

impl<'a> Series<'a> {
    fn new(index: usize, label: String, sample: &'a Sample) -> Self {
        let colour = COLOURS[index % COLOURS.len()];
        Self {
            label,
            colour,
            sample,
        }
    }
}

/// Writes `throughput.svg` and `latency.svg`.
pub(in crate::bench) fn compare(dir: &Path, comparisons: &[Comparison]) -> Result<(), Failure> {
    let panels: Vec<_> = comparisons.iter().map(panel).collect();
    write(dir, "throughput.svg", &grid(&panels, bars))?;
    let timed: Vec<_> = panels
        .into_iter()
        .filter(|panel| {
            panel
                .series
                .iter()
                .any(|series| series.sample.latencies.is_some())
        })
        .collect();
    write(dir, "latency.svg", &grid(&timed, curves))
}

fn panel(comparison: &Comparison) -> Panel<'_> {
    let limit = Series::new(0, LIMIT.to_owned(), &comparison.limit);
    let entries = comparison.entries.iter().enumerate();
    let others = entries.filter_map(|(index, entry)| {
        let sample = entry.sample.as_ref()?;
        Some(Series::new(index + 1, entry.subject.label(), sample))
    });
    Panel {
        title: comparison.workload.name().to_owned(),
        series: std::iter::once(limit).chain(others).collect(),
    }
}

/// Writes `open-loop.svg`, with a panel for each load.
pub(in crate::bench) fn open_loop(dir: &Path, loads: &[u32], runs: &[Run]) -> Result<(), Failure> {
    let panel = |load: &u32| {
        let runs = runs.iter().filter(|run| run.load_percent == *load);
        let series = runs.enumerate().map(|(index, run)| {
            let rate = units::rate(run.offered_per_s);
            let label = format!("{} {rate}", run.subject.label());
            Series::new(index + 1, label, &run.sample)
        });
        Panel {
            title: format!("{load} % of saturation"),
            series: series.collect(),
        }
    };
    let panels: Vec<_> = loads.iter().map(panel).collect();
    write(dir, "open-loop.svg", &grid(&panels, curves))
}

/// Reports the chart's path on stderr.
fn write(dir: &Path, name: &str, svg: &Svg) -> Result<(), Failure> {
    let path = dir.join(name);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, svg.to_string()))
        .map_err(|error| {
            Failure::new(format!("cannot write {}", path.display())).because(&error)
        })?;
    eprintln!("chart: {}", path.display());
    Ok(())
}

/// Panels side by side and below each other.
fn grid(panels: &[Panel<'_>], draw: fn(&mut Svg, (f64, f64), &Panel<'_>)) -> Svg {
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let mut svg = Svg::new(PANEL.0 * COLUMNS as f64, PANEL.1 * rows as f64);
    for (index, panel) in panels.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let corner = (column as f64 * PANEL.0, row as f64 * PANEL.1);
        svg.title((corner.0 + 12.0, corner.1 + 20.0), &panel.title);
        draw(&mut svg, corner, panel);
    }
    svg
}

/// Rates as bars, the longest as wide as the panel.
fn bars(svg: &mut Svg, (left, top): (f64, f64), panel: &Panel<'_>) {
    let rates = panel.series.iter().map(|series| series.sample.rate_per_s());
    let longest = rates.fold(f64::MIN_POSITIVE, f64::max);
    let (zero, width) = (left + RIGHT, PANEL.0 - RIGHT - 80.0);
    let pitch = ((PANEL.1 - TOP - 16.0) / panel.series.len() as f64).min(28.0);
    for (index, series) in panel.series.iter().enumerate() {
        let y = top + TOP + pitch * index as f64;
        let rate = series.sample.rate_per_s();
        let len = width * rate / longest;
        svg.text((zero - 6.0, y + pitch * 0.6), Anchor::End, &series.label);
        svg.rect((zero, y), (len, pitch * 0.75), series.colour);
        svg.text(
            (zero + len + 6.0, y + pitch * 0.6),
            Anchor::Start,
            &units::rate(rate),
        );
    }
}

/// Latency against the share of messages that were at least as fast, both logarithmic.
fn curves(svg: &mut Svg, (left, top): (f64, f64), panel: &Panel<'_>) {
    let all: Vec<_> = panel
        .series
        .iter()
        .map(|series| (series, points(series.sample)))
        .collect();
    let ns = || {
        all.iter()
            .flat_map(|(_, points)| points.iter().map(|(_, ns)| *ns))
    };
    let lowest = ns().fold(f64::INFINITY, f64::min).log10().floor();
    let highest = ns().fold(0.0, f64::max).log10().ceil();
    if !lowest.is_finite() || !highest.is_finite() {
        return;
    }
    let (width, height) = (PANEL.0 - LEFT - RIGHT, PANEL.1 - TOP - BOTTOM);
    let x = |nines: f64| left + LEFT + width * nines / NINES;
    let decades = (highest - lowest).max(1.0);
    let y = |ns: f64| top + TOP + height * (1.0 - (ns.log10() - lowest) / decades);
    for (nines, name) in TICKS {
        svg.grid((x(nines), top + TOP), (x(nines), top + TOP + height));
        svg.text((x(nines), top + TOP + height + 16.0), Anchor::Middle, name);
    }
    for decade in 0..=decades as i32 {
        let ns = 10f64.powf(lowest + f64::from(decade));
        svg.grid((x(0.0), y(ns)), (x(NINES), y(ns)));
        svg.text(
            (x(0.0) - 6.0, y(ns) + 4.0),
            Anchor::End,
            &units::duration_ns(ns as u64),
        );
    }
    for (index, (series, points)) in all.iter().enumerate() {
        let points: Vec<_> = points
            .iter()
            .map(|(nines, ns)| (x(*nines), y(*ns)))
            .collect();
        svg.curve(&points, series.colour);
        let legend = (x(NINES) + 12.0, top + TOP + 10.0 + 18.0 * index as f64);
        svg.rect((legend.0, legend.1 - 8.0), (10.0, 10.0), series.colour);
        svg.text(
            (legend.0 + 15.0, legend.1 + 1.0),
            Anchor::Start,
            &series.label,
        );
    }
}

/// Nines and nanoseconds, as far as the number of messages allows.
fn points(sample: &Sample) -> Vec<(f64, f64)> {
    let steps = (NINES / NINES_STEP) as u32;
    let nines = (0..=steps).map(|step| f64::from(step) * NINES_STEP);
    nines
        .take_while(|nines| sample.count as f64 >= 10f64.powf(*nines))
        .filter_map(|nines| {
            let ns = sample.quantile_ns(1.0 - 10f64.powf(-nines))?;
            Some((nines, ns.max(1) as f64))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ringmux_measure::sample::Latencies;

    fn sample(times: &[u64]) -> Sample {
        let mut latencies = Latencies::new();
        for us in times {
            latencies.record(Duration::from_micros(*us));
        }
        Sample {
            count: times.len() as u64,
            side_bytes: 0,
            elapsed: Duration::from_secs(1),
            latencies: Some(latencies),
        }
    }

    #[test]
    fn a_curve_rises_and_ends_where_no_message_could_tell() {
        let times: Vec<_> = (1..=100).collect();
        let points = points(&sample(&times));
        assert!(points.is_sorted_by(|a, b| a.1 <= b.1));
        assert!((points.last().unwrap().0 - 2.0).abs() < 1e-9);
    }

    #[test]
    fn panels_are_drawn_with_and_without_messages() {
        let (some, none) = (sample(&[5, 50, 500]), sample(&[]));
        let series = vec![
            Series::new(0, "some".to_owned(), &some),
            Series::new(1, "none".to_owned(), &none),
        ];
        let panels = [Panel {
            title: "both".to_owned(),
            series,
        }];
        for draw in [bars, curves] {
            let text = grid(&panels, draw).to_string();
            assert!(text.contains(">some<") && text.contains(">none<"));
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
