//! Seeded runs with all faults at once. `RINGMUX_SEED=n` replays one, `RINGMUX_SEEDS=n` runs `n` of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, join_all, select};

use super::faults::{Faults, Sabotage, Tally};
use super::workload::{self, End, Plan};
use super::world::{World, pause};
use crate::bridge::tests::net::Rng;
use crate::config::Wait;

fn faults(rng: &mut Rng) -> Faults {
    Faults {
        queue: rng.pick(&[1, 2, 8, 256]),
        completions: rng.pick(&[1, 3, 16, 4096]),
        buffers: rng.pick(&[1, 2, 4, 16]),
        places: rng.pick(&[0, 1, 1024]),
        hold: rng.pick(&[0, 2, 10]),
        interrupt: rng.pick(&[0, 4, 30]),
        disarm: rng.pick(&[0, 2, 20]),
        short: rng.pick(&[0, 1, 3, 10]),
        send: rng.pick(&[500, 5000, 100_000]),
        receive: rng.pick(&[500, 1000, 5000, 20_000, usize::MAX, usize::MAX]),
        stale: rng.pick(&[0, 2, 20]),
        waste: rng.pick(&[0, 2, 20]),
        direct: rng.pick(&[0, 1, 2, 10]),
        reset: 0,
        race: None,
        sabotage: Sabotage::None,
    }
}

/// Counts of a run, to prove that runs do work.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    delivered: u64,
    stopped: u64,
    tally: Tally,
}

fn run(seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    let mut rng = Rng::of(seed, 0);
    let mut faults = faults(&mut rng);
    let honest = sabotage != Sabotage::None || !rng.one_in(3);
    let resets = !honest && rng.one_in(2);
    if resets {
        faults.reset = rng.pick(&[50, 500]);
    }
    faults.sabotage = sabotage;
    // The host ends under its sessions.
    let stop = (!honest && rng.one_in(2)).then(|| rng.below(2000));
    let window = rng.pick(&[32 * 1024, 32 * 1024 + 1, 64 * 1024, 200_000]);
    let config = workload::config(window, rng.pick(&[4 * 1024, 64 * 1024, 256 * 1024]));
    let mut plan = |number: u64| Plan {
        number,
        streams: rng.below(6) as u64,
        messages: rng.pick(&[0, 1, 5, 15]),
        long: rng.pick(&[1, 4, 30]),
        end: match rng.below(4) {
            0 => End::Leave,
            1 if !honest => End::Early(rng.below(500)),
            _ => End::Close,
        },
    };
    // Several sessions at a time, and later ones in the slots that they free.
    let lanes: Vec<Vec<Plan>> = (0..3)
        .map(|lane| (0..lane).map(|n| plan(lane << 8 | n)).collect())
        .collect();
    let mut world = World::new(seed, faults);
    world.wait = rng.pick(&[Wait::Park, Wait::Adaptive]);
    world.desk.may_end.set(!honest);
    let desk = Rc::clone(&world.desk);
    let ran = world.run(|desk| async move {
        let sessions = join_all(lanes.into_iter().map(|plans| {
            let (desk, config) = (Rc::clone(&desk), config.clone());
            async move {
                for plan in plans {
                    workload::session(Rc::clone(&desk), config.clone(), plan).await?;
                    if plan.messages == 0 {
                        desk.silence().await;
                    }
                }
                Ok(())
            }
        }));
        let all = match stop {
            None => sessions.await,
            Some(after) => match select(sessions, pin!(pause(after))).await {
                Either::Left((all, _)) => all,
                Either::Right(_) => return Ok(1),
            },
        };
        all.into_iter().collect::<Result<(), String>>()?;
        desk.at_rest().await.map(|()| 0)
    });
    let stopped = ran.map_err(|failure| format!("{faults:?}\n  {failure}"))?;
    Ok(Summary {
        delivered: desk.delivered.get(),
        stopped,
        tally: desk.kernel.borrow().tally,
    })
}

/// A failed check is a panic or an `Err`; both are the outcome of a run.
fn outcome(seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, sabotage))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(text.unwrap_or_else(|| "panic".to_owned()))
    })
}

/// The seeds of a test: `count`, or those chosen by the environment.
pub(super) fn seeds(count: u64) -> std::ops::Range<u64> {
    match number("RINGMUX_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGMUX_SEEDS").unwrap_or(count),
    }
}

/// The seeds of a scenario that depends on them in small things only: the first ones, or the one chosen by the environment.
pub(super) fn few(count: u64) -> std::ops::Range<u64> {
    number("RINGMUX_SEED").map_or(0..count, |seed| seed..seed + 1)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_loop_keeps_every_promise_whatever_the_ring_does() {
    let seeds = seeds(300);
    let enough = seeds.end - seeds.start >= 300;
    let mut total = Summary::default();
    let mut failed = Vec::new();
    for seed in seeds {
        match outcome(seed, Sabotage::None) {
            Ok(summary) => {
                total.delivered += summary.delivered;
                total.stopped += summary.stopped;
                total.tally.add(summary.tally);
            }
            Err(failure) => {
                println!("RINGMUX_SEED={seed} fails: {failure}");
                failed.push(seed);
            }
        }
    }
    println!("{total:?}");
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    let least = total.tally.least().min(total.stopped);
    assert!(
        !enough || least >= 10,
        "runs that meet too little: {total:?}"
    );
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..50 {
        let summary = || format!("{:?}", outcome(seed, Sabotage::None));
        assert_eq!(summary(), summary());
    }
}

/// The number of runs with one sabotage that detect it.
fn noticed(sabotage: Sabotage, runs: u64) -> u64 {
    let wrong = |seed: &u64| outcome(*seed, sabotage).is_err();
    (0..runs).filter(wrong).count() as u64
}

#[test]
fn what_no_driver_survives_is_noticed() {
    // A run that ends before the sabotage has nothing to detect.
    for sabotage in [Sabotage::Flip, Sabotage::Lose] {
        let noticed = noticed(sabotage, 20);
        assert!(noticed >= 10, "{sabotage:?} was noticed {noticed} times");
    }
}
