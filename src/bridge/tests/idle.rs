//! The memory of a burst is returned.

use super::*;
use crate::bridge::SPARES_MAX;
use crate::core::IDLE;

/// The size of the one ring to a receiver on this side, in bytes.
fn ring_bytes(pair: &mut Pair, side: usize) -> u64 {
    let mut streams = pair.ends[side].connection.core.mux.base.streams.iter_mut();
    let (_, stream) = streams.next().unwrap();
    stream.port.rx().segment_bytes()
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

/// A call and its answer, after which both sides have dropped the stream.
fn call(pair: &mut Pair, opening: &'static str, len: usize) {
    let session = pair.ends[D].session().clone();
    let mut stream = now(session.open(opening)).unwrap();
    assert_eq!(stream.id(), None);
    now(stream.send(message(len))).unwrap();
    stream.finish().unwrap();
    pair.drive();
    let mut accepted = now(pair.ends[A].session().accept()).unwrap().unwrap();
    assert_eq!(accepted.opening(), opening);
    let request = now(accepted.recv()).unwrap().unwrap();
    assert_eq!(request, message(len));
    now(accepted.send(request)).unwrap();
    accepted.finish().unwrap();
    assert_eq!(now(accepted.recv()).unwrap(), None);
    drop(accepted);
    pair.drive();
    assert_eq!(now(stream.recv()).unwrap().unwrap(), message(len));
    assert_eq!(now(stream.recv()).unwrap(), None);
    drop(stream);
    pair.drive();
}

/// Lanes that the dialler keeps for its streams, and the acceptor for those of its peer.
fn spares(pair: &Pair) -> [usize; 2] {
    let of_dialler = pair.ends[D].session().link().spares();
    let of_acceptor = pair.ends[A].connection.core.mux.base.app.spares();
    [of_dialler, of_acceptor]
}

#[test]
fn calls_one_after_another_use_one_lane_on_each_side_whatever_went_over_it() {
    let mut pair = Pair::established(&small_config(), &small_config());
    assert_eq!(spares(&pair), [0, 0]);
    for (opening, len) in [("", 64), ("block", 5000), ("", 0), ("", 64), ("other", 1)] {
        call(&mut pair, opening, len);
        assert_eq!(spares(&pair), [1, 1], "after {opening:?}, {len} bytes");
    }
    // One cancelled in the middle of both directions leaves nothing behind for the next one.
    let (mut sender, receiver) = pair.stream(D);
    assert_eq!(spares(&pair), [0, 0]);
    sender.set_urgency(7);
    now(sender.send_slice(b"never received")).unwrap();
    sender.cancel(7);
    drop((sender, receiver));
    pair.drive();
    assert_eq!(spares(&pair), [1, 1]);
    call(&mut pair, "", 64);
    assert_eq!(spares(&pair), [1, 1]);
}

#[test]
fn a_session_keeps_so_many_lanes_for_streams_to_come_and_none_when_it_is_idle_or_has_ended() {
    let config = config().max_streams(200).build().unwrap();
    let mut pair = Pair::established(&config, &config);
    let streams: Vec<_> = (0..100).map(|_| pair.stream(D)).collect();
    assert_eq!(spares(&pair), [0, 0]);
    drop(streams);
    pair.drive();
    assert_eq!(spares(&pair), [SPARES_MAX; 2]);
    pair.elapse(IDLE - Duration::from_secs(1));
    call(&mut pair, "", 64);
    pair.elapse(IDLE - Duration::from_secs(1));
    assert_eq!(spares(&pair), [SPARES_MAX; 2], "it was in use");
    pair.elapse(IDLE + Duration::from_secs(2));
    assert_eq!(spares(&pair), [0, 0]);

    call(&mut pair, "", 64);
    assert_eq!(spares(&pair), [1, 1]);
    pair.ends[D].session().close();
    pair.drive();
    assert_eq!(spares(&pair), [0, 0]);
}
