//! Seeded runs. `RINGMUX_SEED=n` replays one, `RINGMUX_SEEDS=n` runs so many.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::net::Cut;
use super::workload::{Mix, start};
use super::world::{Sabotage, World};
use super::*;

/// What a run did, to be sure that runs do something.
#[derive(Clone, Debug, Default)]
struct Summary {
    delivered: u64,
    streams: u64,
    ends: std::collections::HashMap<&'static str, u64>,
}

fn random_config(rng: &mut Rng) -> Config {
    let stream_window = rng.pick(&[32 * 1024, 32 * 1024 + 1, 40_001, 64 * 1024, 200_000]);
    let session_window = rng.pick(&[256 * 1024, 256 * 1024 + 7, 1 << 20]);
    config()
        .max_frame(rng.pick(&[16 * 1024, 16 * 1024, 20_001, 64 * 1024]))
        .max_message(rng.pick(&[64 * 1024, 300 * 1024, 1 << 20]))
        .stream_window(stream_window)
        .stream_window_max(stream_window * rng.range(1, 4) as u32)
        .session_window(session_window)
        .session_window_max(session_window * rng.range(1, 4) as u32)
        .max_streams(rng.range(16, 40) as u32)
        .send_buffer(rng.pick(&[4 * 1024, 5000, 64 * 1024, 256 * 1024]))
        .build()
        .expect("valid")
}

fn random_weather(rng: &mut Rng) -> Weather {
    Weather {
        delay: rng.pick(&[0, 50, 1000, 10_000]),
        capacity: rng.pick(&[3000, 64 * 1024, 1 << 20]),
        piece: rng.pick(&[0, 0, 300, 5000, 70_000]),
        stall: rng.pick(&[0, 0, 50]),
    }
}

fn random_mix(rng: &mut Rng) -> Mix {
    let side = rng.below(2);
    Mix {
        streams: {
            let most = rng.pick(&[3, 10, 30]);
            [rng.below(most + 1), rng.below(most + 1)]
        },
        messages: rng.pick(&[3, 10, 30]),
        long: rng.pick(&[3, 8, 40]),
        rude: rng.pick(&[1, 3, 1000]),
        pause: rng.pick(&[100, 20_000, 300_000]),
        close: rng.one_in(8).then(|| (side, rng.below(50_000))),
        leave: rng.one_in(6).then(|| (side, rng.below(10))),
        shutdown: (rng.one_in(4)).then(|| {
            (
                rng.below(2),
                rng.below(50_000),
                rng.pick(&[0, 20, 1000, 30_000]),
            )
        }),
    }
}

fn world(seed: u64, sabotage: Sabotage) -> World {
    let mut rng = Rng::of(seed, 0);
    let (dialer, acceptor) = (random_config(&mut rng), random_config(&mut rng));
    let small = rng.one_in(4);
    let pools = [(); 2].map(|()| {
        let size = if small {
            rng.range(0, 600_000) as u64
        } else {
            1 << 30
        };
        Pool::new(size)
    });
    let weather = random_weather(&mut rng);
    let mix = random_mix(&mut rng);
    let mut pair = Pair::with(&dialer, &acceptor, &pools, &weather, seed);
    let cut = rng.one_in(6);
    if cut {
        let at = rng.pick(&[0, 7, 100, 5000, 100_000, 1_000_000]);
        let how = rng.pick(&[Cut::Eof, Cut::Error]);
        pair.pipes[rng.below(2)].cut = Some((rng.below(at + 1) as u64, how));
    }
    let notes = format!("{weather:?} {mix:?} cut {cut} small {small}");
    let mut world = World::new(pair, seed, sabotage);
    world.notes = notes;
    world.desk.budget.set(match weather.piece {
        300 | 5000 => 200_000,
        _ => rng.pick(&[200_000, 1_000_000, 3_000_000]),
    });
    let ends = cut || mix.close.is_some() || mix.leave.is_some() || mix.shutdown.is_some();
    {
        let licence = &mut world.desk.ledger.borrow_mut().licence;
        licence.end = ends;
        // What nobody accepts stalls.
        licence.limits = small || mix.pause > 100_000 || mix.leave.is_some();
    }
    for side in [D, A] {
        let session = if ends {
            world.pair.ends[side].session.take()
        } else {
            world.pair.ends[side].session.clone()
        };
        start(&world.desk, &mix, side, session.expect("not yet taken"));
    }
    world
}

fn run(seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    let mut world = world(seed, sabotage);
    world
        .run()
        .map_err(|failure| format!("{}\n  {failure}", world.notes))?;
    if !world.desk.ledger.borrow().licence.end {
        // Everything that was said is done: the session is as it was at the start.
        let quiet = world.settle(Duration::from_secs(5), |pair| {
            let clean =
                |end: &End| end.connection.registry.is_empty() && end.unprocessed.is_empty();
            pair.ends.iter().all(clean)
        });
        if !quiet {
            return Err(format!("streams are left: {}", world.names()));
        }
        world.pair.ends.iter_mut().for_each(invariants::at_rest);
    }
    world.desk.ledger.borrow_mut().licence.end = true;
    world.dismiss();
    world
        .pair
        .ends
        .iter_mut()
        .for_each(|end| end.session = None);
    let over = world.settle(Duration::from_secs(30), |pair| {
        pair.ends.iter().all(|end| end.closed)
    });
    if !over {
        return Err("a session without handles and streams goes on".to_owned());
    }
    for end in &world.pair.ends {
        if end.pool.used() != 0 {
            return Err(format!("{} bytes are missing in a pool", end.pool.used()));
        }
        let reason = end.connection.link().end().cloned();
        if let Some(reason) = reason {
            world.desk.ledger.borrow_mut().session(&reason);
        }
    }
    let mut ledger = world.desk.ledger.borrow_mut();
    ledger.settle();
    match ledger.failure.take() {
        Some(failure) => Err(failure),
        None => Ok(Summary {
            delivered: ledger.delivered,
            streams: ledger.entries.len() as u64,
            ends: std::mem::take(&mut ledger.ends),
        }),
    }
}

/// A failed check is a panic or an `Err`; both are the outcome of a run.
fn outcome(seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, sabotage))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(text.unwrap_or_else(|| "panic".to_owned()))
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn two_honest_ends_keep_every_promise_whatever_the_network_does() {
    let seeds = match number("RINGMUX_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("RINGMUX_SEED_FROM").unwrap_or_default();
            from..from + number("RINGMUX_SEEDS").unwrap_or(300)
        }
    };
    let mut total = Summary::default();
    let mut failed = Vec::new();
    for seed in seeds {
        match outcome(seed, Sabotage::None) {
            Ok(summary) => {
                total.delivered += summary.delivered;
                total.streams += summary.streams;
                for (end, n) in summary.ends {
                    *total.ends.entry(end).or_default() += n;
                }
            }
            Err(failure) => {
                println!("RINGMUX_SEED={seed} fails: {failure}");
                failed.push(seed);
            }
        }
    }
    println!("{total:?}");
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
}

/// Of so many runs with one thing wrong, how many notice.
fn noticed(sabotage: Sabotage, runs: u64) -> u64 {
    (0..runs)
        .filter(|seed| outcome(*seed, sabotage).is_err())
        .count() as u64
}

#[test]
fn a_byte_of_credit_that_was_never_granted_is_noticed() {
    let runs = 30;
    // A run that ends before the damage is done has nothing to notice.
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
        let summary = || format!("{:?}", outcome(seed, Sabotage::None).map(|s| s.delivered));
        assert_eq!(summary(), summary());
    }
}
