//! `ringmux ping`: round-trip times to a running endpoint, and their distribution.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringmux::{Addr, Config, Engine, Error, PingError, Session, StreamError, Wire};
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until};

use crate::connect;
use crate::endpoint;
use crate::output::print;
use crate::tunnel::Signals;
use ringmux_measure::failure::Failure;
use ringmux_measure::units::{bar, duration_ns, parse_duration};

/// Round trips are kept with three significant digits up to this many nanoseconds.
const RTT_NS_MAX: u64 = 60_000_000_000;
const HISTOGRAM_LINES: u64 = 10;
const BAR_WIDTH: u64 = 40;
/// Minimum ratio of a range's end to its beginning: less would not show in three digits.
const RANGE_FACTOR_MIN: f64 = 1.01;

const EXAMPLES: &str = "\
Examples:
  ringmux ping tcp://127.0.0.1:7000                  until Ctrl-C, once a second
  ringmux ping -c 1000 -i 1ms tcp://host:7000        a thousand, quickly
  ringmux ping --retry -c 1 tcp://host:7000          waits until the server is there
  ringmux ping --wire drpc -c 10 tcp://host:7777     a server of DRPC
  ringmux ping -c 100 -i 0 --json unix:///run/r.sock   one JSON object a line, the last with the summary";

/// Arguments of `ringmux ping`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the endpoint listens: tcp://HOST:PORT, HOST:PORT or unix:///PATH.
    #[arg(value_name = "ADDR", value_parser = endpoint::remote)]
    addr: Addr,

    /// Stop after this many round trips; until Ctrl-C if not given.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Time from one ping to the next, as in 200ms; 0 sends the next as soon as the last is back.
    #[arg(short, long, default_value = "1s", value_parser = parse_duration)]
    interval: Duration,

    /// Retry until the endpoint is reachable; without it the first failure ends the program.
    #[arg(long)]
    retry: bool,

    /// What the endpoint speaks: native, drpc, drpc-cockroach or drpc-cockroach-before-mux. DRPC has no PING: a round trip is a call of
    /// a method that no server has, and its error.
    #[arg(long, value_name = "NAME", default_value_t)]
    wire: Wire,

    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// The method that is called where there is no PING.
const METHOD: &str = "/ringmux.Ping/Ping";
/// How long its answer may take, as nothing else notices a silent peer there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The time to the peer and back.
async fn round_trip(session: &Session) -> Result<Duration, Error> {
    match session.ping().await {
        Err(PingError::NotCarried(_)) => {}
        result => return Ok(result?),
    }
    let begun = Instant::now();
    let (send, mut recv) = session.open_with(METHOD, "", true).await?;
    send.set_deadline((begun + ANSWER_TIMEOUT).into_std());
    match recv.recv().await {
        // Any answer has come all the way.
        Ok(_) | Err(StreamError::Failed(_)) => Ok(begun.elapsed()),
        Err(error) => Err(error.into()),
    }
}

/// Pings until the count is reached, SIGTERM or Ctrl-C, or the end of the session.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start a runtime").because(&error))?;
    runtime.block_on(ping(args))
}

async fn ping(args: &Args) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let session = tokio::select! {
        session = connect(args) => session?,
        () = signals.next() => return Err(Failure::new("interrupted while connecting")),
    };
    let mut report = Report::new(args);
    report.begin(&session)?;
    let result = tokio::select! {
        result = round_trips(args, &session, &mut report) => result,
        () = signals.next() => Ok(()),
    };
    session.close();
    report.end()?;
    // The GOAWAY to the peer has left by then.
    tokio::select! {
        _ = session.closed() => {}
        () = signals.next() => {}
    }
    result
}

async fn connect(args: &Args) -> Result<Session, Failure> {
    let engine =
        Engine::auto().map_err(|error| Failure::new("cannot start an engine").because(&error))?;
    let config = Config::builder().wire(args.wire).build();
    let config =
        config.map_err(|error| Failure::new("cannot configure the session").because(&error))?;
    let whom = match args.wire {
        Wire::Native => "a ringmux server",
        _ => "a DRPC server",
    };
    if args.retry {
        return connect::connect_at_last(&engine, &args.addr, &config, whom).await;
    }
    connect::connect(&engine, &args.addr, &config, whom).await
}

async fn round_trips(
    args: &Args,
    session: &Session,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let mut next = Instant::now();
    for seq in 1..=args.count.unwrap_or(u64::MAX) {
        sleep_until(next).await;
        // After a slow round trip the following ones are not sent in a burst to catch up.
        next = Instant::now() + args.interval;
        let rtt = round_trip(session).await.map_err(|error| {
            Failure::new(format!("ping {seq} to {} was not answered", args.addr)).because(&error)
        })?;
        report.round_trip(seq, rtt)?;
    }
    Ok(())
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    RoundTrip {
        seq: u64,
        rtt_ns: u64,
    },
    Summary {
        count: u64,
        min_ns: u64,
        p50_ns: u64,
        p99_ns: u64,
        max_ns: u64,
    },
}

/// The measured times so far, and their output format.
struct Report<'a> {
    args: &'a Args,
    rtts: Histogram<u64>,
}

impl<'a> Report<'a> {
    fn new(args: &'a Args) -> Self {
        let rtts = Histogram::new_with_max(RTT_NS_MAX, 3).expect("a constant range that is valid");
        Self { args, rtts }
    }

    fn begin(&self, session: &Session) -> Result<(), Failure> {
        if self.args.json {
            return Ok(());
        }
        print(format_args!(
            "PING {} ({} driver)",
            self.args.addr,
            session.driver()
        ))
    }

    fn round_trip(&mut self, seq: u64, rtt: Duration) -> Result<(), Failure> {
        let rtt_ns = u64::try_from(rtt.as_nanos())
            .unwrap_or(RTT_NS_MAX)
            .clamp(1, RTT_NS_MAX);
        self.rtts
            .record(rtt_ns)
            .expect("in range by the line above");
        if self.args.json {
            return print_json(&Line::RoundTrip { seq, rtt_ns });
        }
        print(format_args!(
            "{} seq={seq} time={}",
            self.args.addr,
            duration_ns(rtt_ns)
        ))
    }

    fn end(&self) -> Result<(), Failure> {
        let rtts = &self.rtts;
        if rtts.is_empty() {
            return Ok(());
        }
        let (p50_ns, p99_ns) = (rtts.value_at_quantile(0.5), rtts.value_at_quantile(0.99));
        let (count, min_ns, max_ns) = (rtts.len(), rtts.min(), rtts.max());
        if self.args.json {
            return print_json(&Line::Summary {
                count,
                min_ns,
                p50_ns,
                p99_ns,
                max_ns,
            });
        }
        let [min, p50, p99, max] = [min_ns, p50_ns, p99_ns, max_ns].map(duration_ns);
        print(format_args!(
            "\n{count} round trips: min {min}, p50 {p50}, p99 {p99}, max {max}"
        ))?;
        histogram(rtts).into_iter().try_for_each(print)
    }
}

/// A bar for each range of times between the shortest and the longest, ranges growing by a constant
/// factor so that the few slow ones do not squeeze the many fast ones into one line.
fn histogram(rtts: &Histogram<u64>) -> Vec<String> {
    // One unit of the histogram's precision more, so that the last range holds the maximum.
    let (min, max) = (
        rtts.lowest_equivalent(rtts.min()),
        rtts.next_non_equivalent(rtts.max()),
    );
    let factor = (max as f64 / min as f64).powf(1.0 / HISTOGRAM_LINES as f64);
    let factor = factor.max(RANGE_FACTOR_MIN);
    let edge = |line: u64| match line {
        HISTOGRAM_LINES => max,
        line => max.min((min as f64 * factor.powf(line as f64)) as u64),
    };
    let mut ranges: Vec<(u64, u64, u64)> = (0..HISTOGRAM_LINES)
        .map(|line| (edge(line), edge(line + 1), 0))
        .collect();
    ranges.retain(|(from, to, _)| from < to);
    for value in rtts.iter_recorded() {
        let at = rtts.lowest_equivalent(value.value_iterated_to());
        let range = ranges.iter_mut().rfind(|(from, _, _)| *from <= at);
        range.expect("the first range begins at the minimum").2 += value.count_at_value();
    }
    let most = ranges.iter().map(|(_, _, count)| *count).max().unwrap_or(0);
    let line = |(from, to, count): &(u64, u64, u64)| {
        let (from, to) = (duration_ns(*from), duration_ns(*to));
        format!(
            "{from:>9} .. {to:>9} {count:>7} {}",
            bar(*count, most, BAR_WIDTH)
        )
    };
    ranges
        .iter()
        .map(line)
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn print_json(line: &Line) -> Result<(), Failure> {
    print(serde_json::to_string(line).expect("a line is plain data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rtts_ns: &[u64]) -> Vec<String> {
        let mut rtts = Histogram::new_with_max(RTT_NS_MAX, 3).unwrap();
        for ns in rtts_ns {
            rtts.record(*ns).unwrap();
        }
        histogram(&rtts)
    }

    fn counts(lines: &[String]) -> Vec<u64> {
        lines
            .iter()
            .map(|line| line.split_whitespace().nth(5).unwrap().parse().unwrap())
            .collect()
    }

    #[test]
    fn every_round_trip_is_in_one_range() {
        let rtts: Vec<u64> = (0..1000).map(|n| 50_000 + n * n).collect();
        let lines = lines(&rtts);
        assert_eq!(lines.len(), 10);
        assert_eq!(counts(&lines).iter().sum::<u64>(), 1000);
    }

    #[test]
    fn the_shortest_is_in_the_first_range_and_the_longest_in_the_last() {
        let counts = counts(&lines(&[40_000, 40_001, 90_000, 4_000_000]));
        assert_eq!((counts[0], counts[9]), (2, 1));
    }

    #[test]
    fn a_single_time_is_one_full_bar() {
        let lines = lines(&[57_000, 57_000]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(&"█".repeat(40)), "{lines:?}");
    }

    #[test]
    fn json_lines_have_the_documented_keys() {
        let line = serde_json::to_string(&Line::RoundTrip {
            seq: 1,
            rtt_ns: 57_000,
        })
        .unwrap();
        assert_eq!(line, r#"{"seq":1,"rtt_ns":57000}"#);
    }
}
