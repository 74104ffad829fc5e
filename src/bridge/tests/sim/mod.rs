//! Seeded runs of many sessions: clients and servers, each with one pool for all its sessions, over a network that
//! splits, delays, freezes and cuts, and on which a client may find itself with two connections. One seed is one run.
//!
//! ```text
//!   plan ──► process: clients dial, servers restart ──► workload: streams, calls ──► ledger: do both sides agree?
//!               └──────────────── world: tasks, drivers, the clock ──► invariants, promises: after each step
//! ```
//! Of every two runs one has unary calls. `RINGMUX_SEED=n cargo test --lib sim::replay` replays a run and prints its plan, and
//! `sim::drpc_replay` one over DRPC; `RINGMUX_SEEDS=n` runs this many, from `RINGMUX_SEED_FROM` on.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use plan::Plan;
use world::World;

use crate::codes;
use crate::error::SessionError;

mod ledger;
pub(super) mod load;
mod plan;
mod process;
mod promises;
mod wired;
mod workload;
mod world;

/// Ends that occur in at least one run of an ordinary test.
const ENDS: [&str; 29] = [
    "answered",
    "call: answered",
    "call: dropped",
    "call: failed",
    "call: given up",
    "call: given up at once",
    "call: late",
    "call: not begun",
    "call: not processed",
    "call: refused",
    "call: session",
    "call: stream",
    "cancelled",
    "clean",
    "duplicate",
    "failed",
    "limited",
    "not opened",
    "not processed",
    "session",
    "stopped",
    "session: closed",
    "session: crashed",
    "session: disconnected",
    "session: failed",
    "session: no handshake",
    "session: no sign of life",
    "session: stuck",
    "session: the peer closed",
];

/// Seeds of an ordinary test; CI runs three times as many, of the next ones, with fewer features.
const SEEDS: u64 = 500;
/// The same over DRPC.
const DRPC_SEEDS: u64 = 150;

/// Ends that occur in at least one of those.
const DRPC_ENDS: [&str; 15] = [
    "answered",
    "cancelled",
    "clean",
    "failed",
    "left",
    "not opened",
    "not processed",
    "session",
    "session: closed",
    "session: crashed",
    "session: disconnected",
    "session: failed",
    "session: stuck",
    "shut down, none lost",
    "shut down, some lost",
];

/// Runs that have found a bug, as long as plans are drawn unchanged: part of every ordinary test.
const KEPT: [(u64, &str); 9] = [
    (
        2184,
        "a side that is called, and whose handles are gone before it was spoken to, has no last word",
    ),
    (
        2271,
        "pieces of a message lay here after a stop, and the pool had been given them back",
    ),
    (
        2657,
        "what a cancelled stream had been given from the pool was given back while it lay here",
    ),
    (
        5521,
        "a shutdown that came just before another end said that it lost nothing",
    ),
    (
        5909,
        "a sender that asked for room while SETTINGS came was never woken",
    ),
    (
        7730,
        "a shutdown that followed a close took the socket's time twice",
    ),
    (
        9750,
        "a shutdown that came while a session was ending said that it lost nothing",
    ),
    (
        10378,
        "a message that waited for a slow consumer was taken for one that its peer had stopped sending",
    ),
    (
        2_020_158,
        "what a refused stream had been given from the pool was given back before the peer was told",
    ),
];

/// The same over DRPC.
const DRPC_KEPT: [(u64, &str); 5] = [
    (
        19_554,
        "the sender of a call whose answer was stopped was not told of an error behind the answer's end",
    ),
    (
        1894,
        "an ended session gives memory back that it has given back",
    ),
    (
        9254,
        "a paused session took memory behind its end, which nothing gives back",
    ),
    (
        2_027_481,
        "the write_timeout of a side whose peer's application reads nothing was taken for a fault",
    ),
    (
        2_047_423,
        "a simulated driver did not look for the end of a connection that it does not read",
    ),
];

/// How a run is damaged so that it must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    None,
    /// A byte on the wire changes.
    Flip,
    /// A side believes that it may send a byte more on the session than was granted.
    Credit,
}

/// Counts of events of runs, to be sure that there are some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Summary {
    sessions: u64,
    streams: u64,
    calls: u64,
    delivered: u64,
    steps: u64,
    ends: BTreeMap<&'static str, u64>,
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.streams += other.streams;
        self.calls += other.calls;
        self.delivered += other.delivered;
        self.steps += other.steps;
        for (end, n) in other.ends {
            *self.ends.entry(end).or_default() += n;
        }
    }
}

/// What the applications of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Streams,
    /// Unary calls besides.
    Calls,
    /// Streams over DRPC.
    Drpc,
}

impl Kind {
    /// Of a run: seeds that once found a bug keep the applications that did.
    fn of(seed: u64) -> Self {
        match seed.is_multiple_of(2) || KEPT.iter().any(|(kept, _)| *kept == seed) {
            true => Self::Streams,
            false => Self::Calls,
        }
    }
}

fn run(kind: Kind, seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    let plan = Rc::new(Plan::of(seed, kind));
    let processes = plan.clients.iter().chain(&plan.servers);
    let pools = processes.map(|process| process.pool.clone()).collect();
    // A failed world is not dropped: broken state may panic in drop, and end the process.
    let mut world = ManuallyDrop::new(World::new(seed, pools, sabotage));
    world.desk.budget.set(plan.budget());
    world.desk.ledger.borrow_mut().drpc = plan.drpc.is_some();
    process::start(&world.desk, &plan);
    let outcome = world.run();
    let mut ledger = world.desk.ledger.borrow_mut();
    ledger.settle();
    if let Some(failure) = outcome.err().or(ledger.failure.take()) {
        return Err(format!("{plan:?}\n  {failure}"));
    }
    let summary = Summary {
        sessions: world.desk.connections.get() as u64,
        streams: ledger.entries.len() as u64,
        calls: ledger.calls.len() as u64,
        delivered: ledger.delivered,
        steps: world.steps,
        ends: ledger.ends.iter().map(|(end, n)| (*end, *n)).collect(),
    };
    drop(ledger);
    drop(ManuallyDrop::into_inner(world));
    Ok(summary)
}

/// A failed check is a panic or an `Err`; both are the outcome of a run.
fn outcome(kind: Kind, seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| run(kind, seed, sabotage))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(text.unwrap_or_else(|| "panic".to_owned()))
    })
}

/// The ends of a session whose two sides have both finished.
const fn honest_end(end: &SessionError) -> bool {
    matches!(
        end,
        SessionError::Closed
            | SessionError::PeerClosed {
                code: codes::NO_ERROR,
                ..
            }
    )
}

/// The first seed of a test.
pub(super) fn first_seed() -> u64 {
    number("RINGMUX_SEED_FROM").unwrap_or_default()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs them on all processors: the sum of their counts, and the seeds that failed.
fn run_all(kind: impl Fn(u64) -> Kind + Sync, seeds: &[u64]) -> (Summary, Vec<u64>) {
    let next = AtomicUsize::new(0);
    let worker = || {
        let (mut total, mut failed) = (Summary::default(), Vec::new());
        loop {
            let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return (total, failed);
            };
            match outcome(kind(seed), seed, Sabotage::None) {
                Ok(summary) => total.add(summary),
                Err(_) => failed.push(seed),
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let (mut total, mut failed) = (Summary::default(), Vec::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let (summary, seeds) = worker.join().expect("a worker catches its panics");
            total.add(summary);
            failed.extend(seeds);
        }
    });
    failed.sort_unstable();
    (total, failed)
}

/// This many seeds from the first one, and those that once found a bug.
fn with_kept(runs: u64, kept: &[(u64, &str)]) -> Vec<u64> {
    let from = first_seed();
    let kept = kept.iter().map(|(seed, _)| *seed);
    (from..from + runs).chain(kept).collect()
}

/// The command that runs a seed again, and the bug that it once found.
fn replayed(test: &str, seed: u64, kept: &[(u64, &str)]) -> String {
    let once = kept.iter().find(|(kept, _)| *kept == seed);
    let once = once.map_or("", |(_, what)| *what);
    format!("RINGMUX_SEED={seed} cargo test --lib {test}  {once}")
}

#[test]
fn honest_processes_keep_every_promise_whatever_the_network_does() {
    let runs = number("RINGMUX_SEEDS").unwrap_or(SEEDS);
    let seeds = with_kept(runs, &KEPT);
    let replay = |seed| replayed("sim::replay", seed, &KEPT);
    let ends = if runs >= SEEDS { &ENDS[..] } else { &[] };
    all_succeed(Kind::of, &seeds, replay, ends);
}

/// Runs them all; each of these ends must occur.
fn all_succeed(
    kind: impl Fn(u64) -> Kind + Sync,
    seeds: &[u64],
    replay: impl Fn(u64) -> String,
    ends: &[&str],
) {
    let (total, failed) = run_all(kind, seeds);
    println!("{total:?}");
    for seed in &failed {
        println!("{}", replay(*seed));
    }
    assert!(
        failed.is_empty(),
        "{} seeds fail, the first is {}",
        failed.len(),
        failed[0]
    );
    for end in ends {
        assert!(total.ends.contains_key(end), "nothing ended as {end}");
    }
}

/// One run: that of `RINGMUX_SEED`.
#[test]
fn replay() {
    let seed = number("RINGMUX_SEED").unwrap_or_default();
    match outcome(Kind::of(seed), seed, Sabotage::None) {
        Ok(summary) => println!("{summary:?}"),
        Err(failure) => panic!("RINGMUX_SEED={seed} fails: {failure}"),
    }
}

#[test]
fn honest_processes_keep_the_promises_of_drpc_whatever_the_network_does() {
    let runs = number("RINGMUX_SEEDS").unwrap_or(DRPC_SEEDS);
    let seeds = with_kept(runs, &DRPC_KEPT);
    let replay = |seed| replayed("sim::drpc_replay", seed, &DRPC_KEPT);
    let ends = if runs >= DRPC_SEEDS {
        &DRPC_ENDS[..]
    } else {
        &[]
    };
    all_succeed(|_| Kind::Drpc, &seeds, replay, ends);
}

/// One run over DRPC: that of `RINGMUX_SEED`.
#[test]
fn drpc_replay() {
    let seed = number("RINGMUX_SEED").unwrap_or_default();
    match outcome(Kind::Drpc, seed, Sabotage::None) {
        Ok(summary) => println!("{summary:?}"),
        Err(failure) => panic!("RINGMUX_SEED={seed} fails: {failure}"),
    }
}

/// Of this many runs with one fault, the number that fail.
fn noticed(sabotage: Sabotage, runs: u64) -> u64 {
    (0..runs)
        .filter(|seed| outcome(Kind::of(*seed), *seed, sabotage).is_err())
        .count() as u64
}

#[test]
fn a_byte_of_credit_that_was_never_granted_is_noticed() {
    let runs = 30;
    // A run that ends before the damage is done cannot fail.
    assert!(noticed(Sabotage::Credit, runs) * 4 > runs * 3);
}

#[test]
fn a_byte_that_the_network_changes_is_noticed() {
    let runs = 30;
    assert!(noticed(Sabotage::Flip, runs) * 4 > runs * 3);
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..5 {
        for kind in [Kind::of(seed), Kind::Drpc] {
            let run = || outcome(kind, seed, Sabotage::None);
            assert_eq!(run(), run());
        }
    }
}
