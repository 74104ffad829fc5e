//! `ringmux attack`, in a process of its own.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringmux::Addr;
use serde_json::Value;

use crate::server::{METHOD, Serves};

/// The program's JSON result. Some fields are only printed.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) struct Result {
    pub(crate) connections: u64,
    pub(crate) frames: u64,
    pub(crate) ended: u64,
    /// How often, by the rule or the limit.
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) resets: u64,
    pub(crate) round_trips: Vec<u64>,
    pub(crate) p99_ns: [u64; 2],
    pub(crate) ratio: f64,
    pub(crate) slowdown: f64,
    pub(crate) last_answer: Option<String>,
    pub(crate) failure: Option<String>,
}

/// Frames a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The attack's default.
    Usual,
    /// Unlimited.
    Full,
}

/// Plays an attack for `time`, and pauses it for as long again.
pub(crate) fn play(server: (&Addr, Serves), name: &str, pace: Pace, time: Duration) -> Result {
    play_over("native", server, name, pace, time)
}

/// Whether each of these attacks, separated by commas, was played.
pub(crate) fn applicable(server: (&Addr, Serves), names: &str) -> Vec<bool> {
    let mut program = program(
        "native",
        server,
        names,
        Pace::Usual,
        Duration::from_millis(100),
    );
    let output = program.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let row = |line| serde_json::from_str::<Value>(line).expect("an object a line");
    text.lines()
        .map(|line| row(line)["applicable"] == true)
        .collect()
}

/// An attack that goes on until it is dropped: again and again, with short pauses, which close no connection.
pub(crate) struct Endless(Child);

impl Endless {
    const TIME: Duration = Duration::from_secs(1);
    const AGAIN: usize = 500;

    pub(crate) fn start(server: (&Addr, Serves), name: &str) -> Self {
        let names = vec![name; Self::AGAIN].join(",");
        let mut program = program("native", server, &names, Pace::Usual, Self::TIME);
        program.stdout(Stdio::null()).stderr(Stdio::null());
        Self(program.spawn().expect("the program starts"))
    }
}

impl Endless {
    /// It stands still with its connections open, and does not learn that its server shuts down, at which it would end.
    pub(crate) fn stand_still(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.0), Signal::STOP).expect("it runs");
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        // It may have ended with the server.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(
    wire: &str,
    (addr, serves): (&Addr, Serves),
    name: &str,
    pace: Pace,
    time: Duration,
) -> Command {
    let name = name.replace('_', "-");
    let rate: &[&str] = match pace {
        Pace::Usual => &[],
        Pace::Full => &["--rate", "0"],
    };
    let neighbour = match serves {
        Serves::Streams => "call",
        Serves::Calls => "unary",
    };
    let seconds = format!("{}ms", time.as_millis());
    let mut program = Command::new(env!("CARGO_BIN_EXE_ringmux"));
    program
        .args(["attack", "--json", "--neighbour", neighbour, "--wire", wire])
        .args(["--method", METHOD.name()])
        .args(["--attack", &name, "--seconds", &seconds])
        .args(rate)
        .arg(addr.to_string())
        .env_remove("RUST_LOG");
    program
}

/// The same over a wire.
pub(crate) fn play_over(
    wire: &str,
    (addr, serves): (&Addr, Serves),
    name: &str,
    pace: Pace,
    time: Duration,
) -> Result {
    let mut program = program(wire, (addr, serves), name, pace, time);
    let output = program.output().expect("the program starts");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let row: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
    let number = |key: &str| {
        row[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key}: {text}"))
    };
    let string = |key: &str| row[key].as_str().map(str::to_owned);
    assert_eq!(row["applicable"], true, "{text}");
    let answers = row["answers"].as_object().expect("counts");
    let round_trips = row["round_trips"].as_array().expect("two numbers");
    Result {
        connections: number("connections"),
        frames: number("frames"),
        ended: number("ended"),
        answers: answers
            .iter()
            .map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0)))
            .collect(),
        resets: number("resets"),
        round_trips: round_trips.iter().filter_map(Value::as_u64).collect(),
        p99_ns: [number("p99_before_ns"), number("p99_during_ns")],
        ratio: row["ratio"].as_f64().expect("a ratio"),
        slowdown: row["slowdown"].as_f64().expect("a ratio"),
        last_answer: string("last_answer"),
        failure: string("failure"),
    }
}
