//! `soak`: full load for a long time, with streams killed at random and short-lived sessions. It fails if a message
//! is lost or invented, if an interval has no messages, or if memory or descriptors are not flat after the first minute.

mod load;
mod verdict;

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use ringmux::{Addr, Config, Engine};
use serde::Serialize;

use self::load::{Counts, Load};
use self::verdict::judge;
use super::footprint::Footprint;
use super::{during, introduce, print, print_json};
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Host, Wait};
use ringmux_measure::units;

const EXAMPLES: &str = "\
Examples:
  ringmux-perf soak --minutes 10
  ringmux-perf soak --minutes 600 --driver tokio --json > soak.jsonl";

/// Not judged: one-time allocations happen within it.
const WARMUP: Duration = Duration::from_secs(60);
/// How often the line of progress changes.
const PROGRESS: Duration = Duration::from_secs(1);

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Duration.
    #[arg(long, value_name = "MINUTES", default_value = "10", value_parser = minutes)]
    minutes: f64,

    /// The driver of the sessions.
    #[arg(long, value_enum, value_name = "NAME", default_value = "uring")]
    driver: Driver,

    /// Streams at once.
    #[arg(long, value_name = "N", default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    streams: u32,

    /// Seconds between two lines.
    #[arg(long, value_name = "SECONDS", default_value = "10",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,

    /// The seed of the random choices; a new one each time if not given.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A sample at the end of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Sample {
    at_s: f64,
    #[serde(flatten)]
    held: Footprint,
    messages_per_s: f64,
    streams_per_s: f64,
    killed: u64,
    sessions: u64,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.01..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("must be a number from 0.01 to 100000".to_owned()),
    }
}

/// Runs the load, samples, judges.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    introduce(args.json)?;
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let samples = soak(args, seed, |sample| {
        if args.json {
            print_json(sample)
        } else {
            print(&line(sample))
        }
    })?;
    let total = Duration::from_secs_f64(args.minutes * 60.0);
    judge(&samples, WARMUP.min(total / 2))?;
    if args.json {
        return Ok(());
    }
    print("memory and descriptors stayed flat, no message was lost")
}

fn soak(
    args: &Args,
    seed: u64,
    mut show: impl FnMut(&Sample) -> Result<(), Failure>,
) -> Result<Vec<Sample>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(during("cannot make a runtime"))?;
    let host = Host::nearest(args.driver, Wait::Park);
    let engine = || {
        host.builder()
            .thread()
            .map_err(during("cannot start the engine"))
    };
    let (dialling, listening) = (engine()?, engine()?);
    runtime.block_on(async {
        let load = start(&dialling, &listening, args.streams, seed).await?;
        let samples = watch(args, &load, &mut show).await;
        // A failure of the load is the cause of any bad sample.
        load.end().await?;
        samples
    })
}

async fn start(
    dialling: &Engine,
    listening: &Engine,
    streams: u32,
    seed: u64,
) -> Result<Load, Failure> {
    let config = Config::builder()
        .max_streams(streams.max(16) * 4)
        .build()
        .map_err(during("cannot configure the session"))?;
    let anywhere = Addr::Tcp("127.0.0.1:0".to_owned());
    let listener = listening.listen(&anywhere, &config).await;
    let listener = listener.map_err(during("cannot listen"))?;
    Load::start(dialling.clone(), config, listener, streams, seed).await
}

async fn watch(
    args: &Args,
    load: &Load,
    show: &mut impl FnMut(&Sample) -> Result<(), Failure>,
) -> Result<Vec<Sample>, Failure> {
    let total = Duration::from_secs_f64(args.minutes * 60.0);
    let every = Duration::from_secs(args.every).min(total / 4);
    let bar = progress_bar();
    let (began, mut samples) = (Instant::now(), Vec::new());
    let (mut last, mut last_at) = (Counts::default(), began);
    while began.elapsed() < total && !load.has_failed() {
        let next = last_at + every;
        while Instant::now() < next && !load.has_failed() {
            let rest = next.saturating_duration_since(Instant::now());
            tokio::time::sleep(rest.min(PROGRESS)).await;
            bar.set_message(format!(
                "{:.0} of {:.0} s, {} messages, {} streams killed",
                began.elapsed().as_secs_f64(),
                total.as_secs_f64(),
                load.counts().messages,
                load.counts().killed,
            ));
            bar.tick();
        }
        let (now, counts) = (Instant::now(), load.counts());
        let seconds = (now - last_at).as_secs_f64();
        let sample = Sample {
            at_s: (now - began).as_secs_f64(),
            held: Footprint::now()?,
            messages_per_s: (counts.messages - last.messages) as f64 / seconds,
            streams_per_s: (counts.streams - last.streams) as f64 / seconds,
            killed: counts.killed,
            sessions: counts.sessions,
        };
        bar.suspend(|| show(&sample))?;
        samples.push(sample);
        (last, last_at) = (counts, now);
    }
    bar.finish_and_clear();
    Ok(samples)
}

fn progress_bar() -> ProgressBar {
    let target = if stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    ProgressBar::with_draw_target(None, target)
}

fn line(sample: &Sample) -> String {
    format!(
        "{:>7.0} s  rss {:>7.1} MiB  descriptors {:>4}  {:>10}  {:>7.0} streams/s  killed {}  sessions {}",
        sample.at_s,
        sample.held.rss_bytes as f64 / f64::from(1 << 20),
        sample.held.descriptors,
        units::rate(sample.messages_per_s),
        sample.streams_per_s,
        sample.killed,
        sample.sessions,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_short_one_loses_nothing_over_every_driver() {
        for driver in Driver::value_variants() {
            let args = Args {
                minutes: 0.02,
                driver: *driver,
                streams: 8,
                every: 1,
                seed: None,
                json: true,
            };
            for seed in [1, 2] {
                let samples = soak(&args, seed, |_| Ok(())).unwrap();
                let last = samples.last().unwrap();
                assert!(last.killed > 0 && last.sessions > 0, "{samples:?}");
            }
        }
    }
}
