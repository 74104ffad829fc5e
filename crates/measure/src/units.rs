//! Numbers as people read and write them: rates, byte rates, durations, and bars.

use std::time::Duration;

const BAR_PARTS: [&str; 8] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

/// `1.23 M/s`.
pub fn rate(per_s: f64) -> String {
    format!("{}/s", scaled(per_s, &["", "k", "M", "G"]))
}

/// `4.50 GB/s`, in powers of 1,000.
pub fn byte_rate(bytes_per_s: f64) -> String {
    scaled(bytes_per_s, &["B/s", "kB/s", "MB/s", "GB/s"])
}

/// `57.3 us`.
pub fn duration_ns(ns: u64) -> String {
    scaled(ns as f64, &["ns", "us", "ms", "s"])
}

/// Three significant digits and the unit that leaves one to three of them before the point.
fn scaled(value: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut units = units.iter();
    let mut unit = units.next().unwrap_or(&"");
    // 999.5 would be printed as 1000.
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        unit = next;
        value /= 1000.0;
    }
    let digits = match value {
        v if v == 0.0 || v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    if unit.is_empty() {
        format!("{value:.digits$}")
    } else {
        format!("{value:.digits$} {unit}")
    }
}

/// A bar of `part` in `whole`, at most `width` characters wide; anything above zero is visible.
pub fn bar(part: u64, whole: u64, width: u64) -> String {
    if whole == 0 || part == 0 {
        return String::new();
    }
    let eighths = u128::from(part.min(whole)) * u128::from(width) * 8 / u128::from(whole);
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).max(1);
    let mut bar = BAR_PARTS[7].repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push_str(BAR_PARTS[eighths % 8 - 1]);
    }
    bar
}

/// Reads `1s`, `200ms`, `50us` or a plain number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (unit, seconds) = match &text[digits.len()..] {
        "" | "s" => ("s", 1.0),
        "ms" => ("ms", 1e-3),
        "us" => ("us", 1e-6),
        other => {
            return Err(format!(
                "unknown unit `{other}`: use s, ms or us, as in 200ms"
            ));
        }
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("not a number of {unit}, as in 200ms"))?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| "must be zero or more, and less than an age".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_kept_across_units() {
        assert_eq!(rate(1_234_567.0), "1.23 M/s");
        assert_eq!(rate(999.4), "999/s");
        assert_eq!(rate(999.6), "1.00 k/s");
        assert_eq!(rate(0.0), "0/s");
        assert_eq!(byte_rate(4.5e9), "4.50 GB/s");
        assert_eq!(byte_rate(4.5e12), "4500 GB/s");
        assert_eq!(duration_ns(57_342), "57.3 us");
        assert_eq!(duration_ns(9_996), "10.0 us");
        assert_eq!(duration_ns(99_960), "100 us");
        assert_eq!(duration_ns(999_600), "1.00 ms");
    }

    #[test]
    fn bars_are_proportional_and_never_vanish() {
        assert_eq!(bar(10, 10, 4), "████");
        assert_eq!(bar(5, 10, 4), "██");
        assert_eq!(bar(1, 1_000_000, 4), "▏");
        assert_eq!(bar(0, 10, 4), "");
        assert_eq!(bar(3, 0, 4), "");
    }

    #[test]
    fn durations_are_read_with_and_without_units() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(parse_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "fast", "-1", "1h", "1e400", "nan", "ms"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
