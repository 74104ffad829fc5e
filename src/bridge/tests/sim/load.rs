//! Two honest ends at full load over a good network, for limits that such ends must not meet.

use std::rc::Rc;
use std::sync::Arc;

use super::process::end_when_done;
use super::workload::{self, CallMix, Mix};
use super::world::{Owner, World};
use super::{Sabotage, honest_end};
use crate::bridge::tests::net::Weather;
use crate::bridge::tests::{A, D, Pair, Pool};
use crate::config::Config;

/// Each end opens this many streams, at once; one in this many streams ends rudely.
///
/// # Panics
/// If a promise is broken, or an end meets a limit.
pub(in crate::bridge::tests) fn run(seed: u64, config: &Config, streams: usize, rude: usize) {
    let weather = Weather {
        delay: 50,
        capacity: 1 << 20,
        piece: 0,
        stall: 0,
        rate: 0,
    };
    let mix = Mix {
        streams: [streams, streams],
        messages: 10,
        long: 8,
        rude,
        pause: 20_000,
        leave: None,
        hold: (0, 1),
        calls: CallMix::default(),
        drpc: false,
    };
    let pools = [Pool::new(1 << 30), Pool::new(1 << 30)];
    let mut world = World::new(seed, pools.to_vec(), Sabotage::None);
    // A look at the accounts costs the more the more streams there are.
    world.check_every = 10;
    let desk = Rc::clone(&world.desk);
    desk.budget.set(3_000_000);
    let mut pair: Pair = Pair::at(desk.now(), config, config, &pools, &weather, seed);
    let sessions = [D, A].map(|side| pair.ends[side].session.take().expect("the first"));
    let links = [D, A].map(|side| Arc::clone(sessions[side].link()));
    let index = desk.connect(Box::new(pair));
    for side in [D, A] {
        workload::start(&desk, &mix, index, side, &sessions[side]);
    }
    let end = end_when_done(Rc::clone(&desk), index, true);
    desk.spawn("end".to_owned(), Owner::Run, end);
    drop(sessions);
    (world.run()).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    for link in links {
        let end = link.end();
        assert!(end.is_none_or(honest_end), "seed {seed}: {end:?}");
        let stats = link.stats();
        assert_eq!(stats.limits_tripped, 0, "seed {seed}: {:?}", stats.tripped);
    }
}
