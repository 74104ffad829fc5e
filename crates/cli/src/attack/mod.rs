//! `ringmux attack`: plays attacks against a server, and measures the effect on a neighbour.
//!
//! * `wire`, `peer`: a connection that speaks the wire without the library, so that it can break its rules.
//! * `kinds`: the attacks. `campaign`: one of them at work, on its thread, at its pace.
//! * `neighbour`: a session of the library beside it, whose round trips are measured in slices, the attack paused and
//!   playing in turn. `report`: the rows.

mod campaign;
mod kinds;
mod neighbour;
mod peer;
mod report;
mod wire;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget};
use ringmux::rpc::{Method, Raw};
use ringmux::{Addr, Wire};
use tokio::runtime::Builder;

use crate::output::print;
use campaign::{Campaign, Outcome};
use kinds::Kind;
use neighbour::{Neighbour, RoundTrip, Slice};
use report::Row;
use ringmux_measure::failure::Failure;
use ringmux_measure::units::parse_duration;

/// Slices of each kind: paused, playing, paused, playing, ...
const SLICES: u32 = 5;

/// As `src/rpc/WIRE.md` has it.
const METHOD_LEN_MAX: usize = 255;

const EXAMPLES: &str = "\
Examples:
  ringmux attack tcp://127.0.0.1:7000                 everything, 2 s each
  ringmux attack --attack rapid-reset,ping-flood --seconds 10s tcp://127.0.0.1:7000
  ringmux attack --rate 0 --max-ratio 100 127.0.0.1:7000   as fast as the server takes it
  ringmux attack --wire drpc-cockroach 127.0.0.1:7000     the attacks over DRPC
  ringmux attack --neighbour call --json unix:///run/r.sock   for a server with Config::edge
  ringmux attack --method bank.v1.Bank/Balance --neighbour unary 127.0.0.1:7000   for a server of calls

Attack only your own server: another may go down, and attacking it is a crime in most places.
The attacker, its neighbour and often the server share processors: at --rate 0 the neighbour's times are those of
a busy machine as much as of the server. SAFETY.md describes each attack and the promise against it.

Exit code 0: after each attack the server served its neighbour and a newcomer, and the p99 and the average of the
neighbour's round trips were below --max-ratio times their values before, or below --max-wait. Else 1.";

/// Arguments of `ringmux attack`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where your own server listens: tcp://HOST:PORT, HOST:PORT or unix:///PATH.
    #[arg(value_name = "ADDR", value_parser = crate::endpoint::remote)]
    addr: Addr,

    /// The attacks to play; all if not given.
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    attack: Vec<Kind>,

    /// Length of each slice of attack, and of each pause; as in 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = slice_time)]
    seconds: Duration,

    /// Frames a second of all connections of an attack, where a connection counts as ten; 0 is unlimited.
    /// If not given, 10000, 5000 or 3000, fewer for more expensive frames.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,

    /// The neighbour's kind of round trip.
    #[arg(long, value_enum, value_name = "HOW", default_value = "ping")]
    neighbour: RoundTrip,

    /// The unary method, SERVICE/METHOD, that the attacks call-* call. If not given, one that no server has, so that each of these calls
    /// is refused. Its requests are 64 bytes that mean nothing.
    #[arg(long, value_name = "NAME", default_value = "attack.Attack/Call", value_parser = method)]
    method: &'static str,

    /// How far the p99 and the average of the neighbour's round trips may move: during / before.
    #[arg(long, value_name = "X", default_value = "2", value_parser = ratio)]
    max_ratio: f64,

    /// Times below this pass regardless of the ratio, since twice a tiny time is still tiny.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_duration)]
    max_wait: Duration,

    /// What the server speaks: native, drpc, drpc-cockroach or drpc-cockroach-before-mux. Over DRPC the attacks are those of row D, and the
    /// neighbour calls.
    #[arg(long, value_name = "NAME", default_value_t)]
    wire: Wire,

    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

fn slice_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let least = Duration::from_millis(100);
    if time < least {
        return Err("at least 100ms, for a meaningful p99".to_owned());
    }
    Ok(time)
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio.is_finite() && ratio >= 1.0 => Ok(ratio),
        _ => Err("a number from 1 up".to_owned()),
    }
}

/// The name of a method lives as long as the program, which has one.
fn method(text: &str) -> Result<&'static str, String> {
    if !text.contains('/') || text.len() > METHOD_LEN_MAX {
        return Err(format!(
            "a service and a method, as in bank.v1.Bank/Balance, of at most {METHOD_LEN_MAX} bytes"
        ));
    }
    Ok(text.to_owned().leak())
}

/// Plays the attacks one after the other.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if chosen(args).is_empty() {
        let advice =
            "attacks whose names begin with drpc are for --wire drpc, the others for native";
        return Err(Failure::new("no attack to play").advise(advice));
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start a runtime").because(&error))?;
    let progress = progress(chosen(args).len());
    let mut rows = Vec::new();
    let result = runtime.block_on(async {
        tokio::select! {
            result = attack(args, &progress, &mut rows) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
        }
    });
    progress.finish_and_clear();
    // Show the rows measured before a failure.
    if !args.json && !rows.is_empty() {
        print(report::render(&rows))?;
    }
    result?;
    verdict(&rows, args)
}

/// The attacks over the wire of the server: those that were named, or all.
fn chosen(args: &Args) -> Vec<Kind> {
    let all = match &args.attack[..] {
        [] => Kind::value_variants(),
        chosen => chosen,
    };
    let drpc = args.wire.drpc().is_some();
    let fits = |kind: &Kind| kind.is_drpc() == drpc;
    all.iter().copied().filter(fits).collect()
}

async fn attack(args: &Args, progress: &ProgressBar, rows: &mut Vec<Row>) -> Result<(), Failure> {
    for kind in chosen(args) {
        progress.set_message(format!("{} {}", kind.row(), kind.name()));
        let row = play(args, kind).await?;
        if args.json {
            let line = serde_json::to_string(&row).expect("a row is plain data");
            progress.suspend(|| print(line))?;
        }
        progress.inc(1);
        let gone = row.failure.is_some();
        rows.push(row);
        // The server is gone: no attack can follow.
        if gone {
            break;
        }
    }
    Ok(())
}

/// One attack, beside a neighbour.
async fn play(args: &Args, kind: Kind) -> Result<Row, Failure> {
    let how = match args.wire {
        Wire::Native => args.neighbour,
        _ => RoundTrip::Call,
    };
    let method = Method::unary::<Raw>(args.method);
    let neighbour = Neighbour::connect(&args.addr, how, args.wire, method).await?;
    if kind.is_for_calls() && !neighbour.is_for_calls().await {
        neighbour.close();
        return Ok(Row::not_applicable(kind, "it answers no calls"));
    }
    let rate = args.rate.unwrap_or(kind.pace());
    let campaign = Campaign::start(kind, args.addr.clone(), rate, args.method.to_owned())
        .map_err(|error| Failure::new("cannot start a thread").because(&error))?;
    let (mut before, mut during) = (Vec::new(), Vec::new());
    let slices = measure(&neighbour, &campaign, args.seconds / SLICES);
    let measured = slices.await.map(|slices| {
        (before, during) = slices;
    });
    let failed = match measured {
        // While the attack's connections still exist.
        Ok(()) => neighbour.newcomer().await.err(),
        Err(failure) => Some(failure),
    };
    neighbour.close();
    let outcome = campaign
        .end()
        .ok_or_else(|| Failure::new(format!("the attack {} has panicked", kind.name())))?;
    not_refused(&outcome, &args.addr)?;
    if kind.is_in_frames() && !outcome.takes_calls && failed.is_none() {
        return Ok(Row::not_applicable(kind, "it takes no calls in frames"));
    }
    let played = (args.seconds.as_secs_f64(), rate);
    let failure = failed.map(|failure| failure.to_string());
    Ok(Row::new(kind, played, outcome, [&before, &during], failure))
}

async fn measure(
    neighbour: &Neighbour,
    campaign: &Campaign,
    slice: Duration,
) -> Result<(Vec<Slice>, Vec<Slice>), Failure> {
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        campaign.pause();
        before.push(neighbour.measure(slice).await?);
        campaign.play();
        during.push(neighbour.measure(slice).await?);
    }
    Ok((before, during))
}

/// An attack that never took place does not count as withstood.
fn not_refused(outcome: &Outcome, addr: &Addr) -> Result<(), Failure> {
    match &outcome.last_refusal {
        Some(error) if outcome.connections == 0 => {
            Err(Failure::new(format!("the attacker cannot connect to {addr}")).because(error))
        }
        _ => Ok(()),
    }
}

fn verdict(rows: &[Row], args: &Args) -> Result<(), Failure> {
    let max_ratio = args.max_ratio;
    let failed: Vec<String> = rows
        .iter()
        .filter(|row| !row.passed(max_ratio, args.max_wait))
        .map(|row| match &row.failure {
            Some(failure) => format!("{} ({failure})", row.attack),
            None => format!(
                "{} (p99 x {:.2}, average x {:.2}, of {max_ratio})",
                row.attack, row.ratio, row.slowdown
            ),
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "not withstood: {}",
        failed.join(", ")
    )))
}

fn progress(attacks: usize) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(4)
    } else {
        ProgressDrawTarget::hidden()
    };
    ProgressBar::with_draw_target(Some(attacks as u64), target).with_style(
        indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
            .expect("a constant template that is valid"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_a_service() {
        assert_eq!(method("a.v1.A/B"), Ok("a.v1.A/B"));
        assert!(method("Balance").is_err());
        assert!(method(&"a/".repeat(128)).is_err());
    }

    #[test]
    fn times_and_ratios_that_mean_nothing_are_refused() {
        assert_eq!(slice_time("1"), Ok(Duration::from_secs(1)));
        assert!(slice_time("10ms").is_err());
        assert_eq!(ratio("2.5"), Ok(2.5));
        for wrong in ["0.5", "nan", "inf", "two"] {
            assert!(ratio(wrong).is_err(), "{wrong}");
        }
    }
}
