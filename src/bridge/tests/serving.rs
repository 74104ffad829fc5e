//! The side that serves calls: answers that become streams as the session ends, and calls beside streams.

use super::*;
use crate::error::{SendError, SessionError, StreamError};
use crate::handle::SendStream;
use crate::handle::call::{Acceptor, Arrival, IncomingCall, PendingCall};
use std::borrow::Cow;

/// Two sides, of which the accepting one takes calls.
fn serving() -> (Pair, Acceptor) {
    let config = small_config();
    let mut pair = Pair::established(&config, &config);
    let acceptor = Acceptor::new(pair.ends[A].session().clone());
    pair.drive();
    (pair, acceptor)
}

fn begin(pair: &Pair) -> PendingCall<'static> {
    let opening = |block: &mut Vec<u8>| block.extend_from_slice(b"a/B");
    PendingCall::begin(
        &Cow::Owned(pair.ends[D].session().clone()),
        opening,
        &mut Bytes::new().into(),
        None,
    )
    .expect("the peer takes calls")
}

fn arrival(acceptor: &mut Acceptor) -> Arrival {
    match acceptor.poll(&Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(Some(arrival))) => arrival,
        other => panic!("{other:?}"),
    }
}

/// A call that a handler has.
fn running(pair: &mut Pair, acceptor: &mut Acceptor) -> (PendingCall<'static>, IncomingCall) {
    let call = begin(pair);
    pair.drive();
    match arrival(acceptor) {
        Arrival::Call(incoming) => (call, incoming),
        Arrival::Stream(..) => panic!("a stream"),
    }
}

#[track_caller]
fn has_stopped(send: &mut SendStream) {
    let end = Polled::new(send.stopped()).now();
    let expected = SendError::Stream(StreamError::Session(SessionError::EngineStopped));
    assert_eq!(
        end.map(|end| end.to_string()),
        Some(expected.to_string()),
        "the stream waits for ever"
    );
}

#[test]
fn an_answer_that_becomes_a_stream_ends_with_the_session_before_the_engine_has_seen_it() {
    let (mut pair, mut acceptor) = serving();
    let (_call, mut incoming) = running(&mut pair, &mut acceptor);
    let mut send = incoming.become_stream().expect("the call goes on");
    {
        let mut waits = Polled::new(send.stopped());
        waits.pending();
        pair.crash(A, Cut::Eof);
        assert!(waits.wakes() > 0, "it is woken");
    }
    has_stopped(&mut send);
}

/// The session ends between the look at it and the push on its list.
#[test]
fn an_answer_that_becomes_a_stream_ends_where_the_list_is_closed() {
    let (mut pair, mut acceptor) = serving();
    let (_call, mut incoming) = running(&mut pair, &mut acceptor);
    let link = pair.ends[A].session().link();
    link.calls.close(link, &SessionError::EngineStopped);
    assert!(link.end().is_none(), "not seen yet");
    let mut send = incoming.become_stream().expect("the call goes on");
    has_stopped(&mut send);
    pair.crash(A, Cut::Eof);
}

#[test]
fn calls_and_streams_of_one_session_are_taken_in_turn() {
    let (mut pair, mut acceptor) = serving();
    let calls: Vec<_> = (0..4).map(|_| begin(&pair)).collect();
    let client = pair.ends[D].session().clone();
    let streams: Vec<_> = (0..4).map(|_| now(client.open("")).unwrap()).collect();
    pair.drive();
    let taken: Vec<_> = (0..8).map(|_| arrival(&mut acceptor)).collect();
    for two in taken.chunks(2) {
        let of_calls = two.iter().filter(|one| matches!(one, Arrival::Call(_)));
        assert_eq!(of_calls.count(), 1, "{taken:?}");
    }
    drop((taken, calls, streams));
    pair.is_clean();
}
