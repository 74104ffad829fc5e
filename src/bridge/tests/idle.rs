//! Memory that a burst took is given back.

use super::*;
use crate::core::IDLE;

/// The size of the one ring to a receiver on this side, in bytes.
fn ring_bytes(pair: &mut Pair, side: usize) -> u64 {
    let mut streams = pair.ends[side].connection.core.mux.base.streams.iter_mut();
    let (_, stream) = streams.next().unwrap();
    stream.port.rx.segment_bytes()
}

fn burst(pair: &mut Pair, sender: &mut Stream, receiver: &mut Stream) {
    const MESSAGES: usize = 400;
    for _ in 0..MESSAGES {
        now(sender.send(message(100))).unwrap();
    }
    let mut received = 0;
    while received < MESSAGES {
        pair.drive();
        received += std::iter::from_fn(|| receiver.try_recv()).count();
    }
    pair.drive();
}

#[test]
fn the_ring_of_a_burst_shrinks_when_its_stream_has_been_idle_and_the_receiver_is_woken_for_it() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    burst(&mut pair, &mut sender, &mut receiver);
    let grown = ring_bytes(&mut pair, A);
    assert!(grown >= 16 * 1024, "{grown}");

    let mut waiting = Polled::new(receiver.recv());
    waiting.pending();
    pair.elapse(IDLE - Duration::from_secs(1));
    assert_eq!((waiting.wakes(), ring_bytes(&mut pair, A)), (0, grown));
    pair.elapse(Duration::from_secs(2));
    assert_eq!(waiting.wakes(), 1);
    waiting.pending();
    assert!(ring_bytes(&mut pair, A) < 1024);

    now(sender.send(message(7))).unwrap();
    pair.drive();
    assert_eq!(waiting.ready().unwrap().unwrap(), message(7));
}

#[test]
fn a_ring_that_still_holds_something_is_looked_at_again_later() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    burst(&mut pair, &mut sender, &mut receiver);
    now(sender.send(message(7))).unwrap();
    pair.elapse(3 * IDLE);
    let grown = ring_bytes(&mut pair, A);
    assert!(grown >= 16 * 1024, "{grown}");
    assert_eq!(receiver.try_recv().unwrap(), message(7));
    pair.elapse(2 * IDLE);
    assert!(ring_bytes(&mut pair, A) < 1024);
}

#[test]
fn a_stream_that_ends_while_its_ring_is_listed_leaves_nothing_behind() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    burst(&mut pair, &mut sender, &mut receiver);
    drop((sender, receiver));
    pair.elapse(2 * IDLE);
    pair.is_clean();
    assert!(pair.ends[A].connection.core.mux.grown.len() == 0);
}
