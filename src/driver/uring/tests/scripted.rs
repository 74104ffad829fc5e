//! One fault at a time, and the promise of the loop under it.

use std::rc::Rc;

use super::faults::{Faults, Happened, Race};
use super::random::seeds;
use super::workload::{self, End, Plan};
use super::world::World;
use crate::config::Wait;

/// Small and long messages on three streams.
const PLAN: Plan = Plan {
    number: 1,
    streams: 3,
    messages: 6,
    long: 3,
    end: End::Close,
};

/// Two sessions after each other, so that the second has the slots of the first, each with `plan`,
/// on a ring with these faults. Every seed must meet `what`.
#[track_caller]
fn survives(faults: Faults, plan: Plan, what: Happened) {
    survives_while(Wait::Park, faults, plan, what);
}

/// The same on a host with this wait strategy.
#[track_caller]
fn survives_while(wait: Wait, faults: Faults, plan: Plan, what: Happened) {
    for seed in seeds(20) {
        let mut world = World::new(seed, faults);
        world.wait = wait;
        let desk = Rc::clone(&world.desk);
        let ran = world.run(|desk| async move {
            for number in 1..=2 {
                let plan = Plan { number, ..plan };
                let config = workload::config(64 * 1024, 64 * 1024);
                workload::session(Rc::clone(&desk), config, plan).await?;
                desk.no_sockets().await;
            }
            desk.at_rest().await
        });
        if let Err(failure) = ran {
            panic!("RINGMUX_SEED={seed} fails: {failure}");
        }
        let expected = 2 * 2 * plan.streams * plan.messages;
        assert_eq!(desk.delivered.get(), expected, "RINGMUX_SEED={seed}");
        let met = desk.kernel.borrow().tally.of(what);
        assert!(met > 0, "RINGMUX_SEED={seed} never meets {what:?}");
    }
}

#[test]
fn a_short_send_goes_on_where_it_ended() {
    let faults = Faults {
        short: 1,
        send: 3000,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Short);
}

#[test]
fn a_send_round_the_ring_that_is_short_goes_on_there_or_through_it() {
    let faults = Faults {
        direct: 2,
        short: 2,
        send: 3000,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::SentNow);
}

#[test]
fn little_that_arrives_at_a_time_is_received_round_the_ring_while_the_host_spins() {
    let faults = Faults {
        receive: 500,
        hold: 3,
        ..Faults::NONE
    };
    survives_while(Wait::Adaptive, faults, PLAN, Happened::ReceivedNow);
}

#[test]
fn a_stale_completion_is_not_acted_upon() {
    let faults = Faults {
        stale: 1,
        hold: 3,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Stale);
}

#[test]
fn a_buffer_that_comes_with_nothing_is_given_back() {
    let faults = Faults {
        stale: 1,
        waste: 2,
        buffers: 4,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Wasted);
}

#[test]
fn receiving_goes_on_where_no_buffer_is_free() {
    for buffers in [0, 1] {
        let faults = Faults {
            buffers,
            receive: 2000,
            ..Faults::NONE
        };
        survives(faults, PLAN, Happened::NoBuffers);
    }
}

#[test]
fn receiving_that_ends_without_an_error_is_started_again() {
    let faults = Faults {
        disarm: 1,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Disarmed);
}

#[test]
fn an_interrupted_operation_is_repeated() {
    let faults = Faults {
        interrupt: 3,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Interrupted);
}

#[test]
fn an_operation_without_room_in_the_queue_is_pushed_later() {
    let faults = Faults {
        queue: 1,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Refused);
}

#[test]
fn completions_that_did_not_fit_are_fetched() {
    let faults = Faults {
        completions: 1,
        ..Faults::NONE
    };
    survives(faults, PLAN, Happened::Overflowed);
}

#[test]
fn what_arrives_while_receiving_is_cancelled_is_not_lost() {
    // Long messages only: the change to single receive operations begins with a cancel.
    let plan = Plan { long: 1, ..PLAN };
    for race in [Race::Before, Race::After, Race::Already, Race::Data] {
        let faults = Faults {
            race: Some(race),
            hold: 2,
            waste: 3,
            ..Faults::NONE
        };
        survives(faults, plan, Happened::Cancel);
    }
}

#[test]
fn a_parked_loop_is_woken_as_often_as_the_bell_rings() {
    for disarm in [0, 1] {
        let faults = Faults {
            disarm,
            ..Faults::NONE
        };
        let world = World::new(0, faults);
        let kernel = Rc::clone(&world.desk.kernel);
        let ran = world.run(|desk| async move {
            for _ in 0..5 {
                desk.silence().await;
            }
            Ok(())
        });
        assert_eq!(ran, Ok(()));
        assert_eq!(kernel.borrow().tally.of(Happened::Bell), 5);
    }
}
