//! When a sender learns that what it has queued was written.

use super::solo::Solo;
use super::*;
use crate::wire::native::frame::Settings;
use crate::{SendError, SessionError, StreamError};

/// The peer grants streams, and nothing for what is sent on them but the least.
fn solo() -> Solo {
    let settings = Settings {
        streams: 1000,
        ..Settings::FLOORS
    };
    Solo::with(Role::Dialer, &Config::default(), settings)
}

fn open(solo: &mut Solo) -> Stream {
    let stream = solo.end.session().try_open("").unwrap();
    solo.said();
    stream
}

/// A turn that builds a batch, of which the socket takes nothing yet. False if there is nothing to send.
fn build(solo: &mut Solo) -> bool {
    let (end, now) = (&mut solo.end, solo.now);
    end.connection.take_work(now);
    let built = end.connection.transmit(&mut end.batch, now);
    end.connection.deliver_wakes();
    built
}

/// The socket has taken the batch.
fn wrote(solo: &mut Solo) {
    let taken = solo.end.batch.len();
    solo.end.batch.clear();
    solo.end.connection.written(taken, false, solo.now);
}

#[test]
fn what_was_queued_is_written_when_the_batch_that_has_it_was_taken() {
    let mut solo = solo();
    let mut stream = open(&mut solo);
    stream.try_send(message(100)).unwrap();
    let mut written = Polled::new(stream.written());
    written.pending();
    assert!(build(&mut solo));
    written.pending();
    // A turn while the socket takes nothing.
    solo.end.connection.take_work(solo.now);
    solo.end.connection.deliver_wakes();
    written.pending();
    assert_eq!(written.wakes(), 0);
    wrote(&mut solo);
    assert!(!build(&mut solo), "nothing is left to send");
    assert_eq!(written.wakes(), 1);
    written.ready().unwrap();
    // Nothing was queued since, so the engine is not asked again.
    now(stream.written()).unwrap();
    assert!(!solo.end.connection.link().has_work());
}

#[test]
fn a_sender_that_gave_up_and_queued_more_is_told_of_all_of_it() {
    let mut solo = solo();
    let mut stream = open(&mut solo);
    stream.try_send(message(100)).unwrap();
    Polled::new(stream.written()).pending();
    assert!(build(&mut solo));
    stream.try_send(message(100)).unwrap();
    let mut written = Polled::new(stream.written());
    written.pending();
    wrote(&mut solo);
    assert!(build(&mut solo), "the second one");
    written.pending();
    wrote(&mut solo);
    assert!(!build(&mut solo));
    written.ready().unwrap();
}

#[test]
fn the_end_of_a_stream_is_waited_for_as_a_message_is() {
    let mut solo = solo();
    for fails in [false, true] {
        let mut stream = open(&mut solo);
        stream.try_send(message(1)).unwrap();
        assert!(build(&mut solo));
        wrote(&mut solo);
        Polled::new(stream.written()).pending();
        assert!(!build(&mut solo));
        now(stream.written()).unwrap();
        match fails {
            true => stream.finish_with_error(7, "").unwrap(),
            false => stream.finish().unwrap(),
        }
        let mut written = Polled::new(stream.written());
        written.pending();
        assert!(build(&mut solo));
        written.pending();
        wrote(&mut solo);
        assert!(!build(&mut solo));
        written.ready().unwrap();
    }
}

#[test]
fn what_the_peer_takes_no_credit_for_is_waited_for_until_the_session_ends() {
    let mut solo = solo();
    let mut stream = open(&mut solo);
    let mut batches = 0;
    while stream.try_send(message(4000)).is_ok() {}
    let mut written = Polled::new(stream.written());
    written.pending();
    while build(&mut solo) {
        wrote(&mut solo);
        batches += 1;
    }
    assert!(batches > 0);
    written.pending();
    solo.end.connection.core.abort(SessionError::Disconnected);
    let end = written.ready();
    let session = SendError::Stream(StreamError::Session(SessionError::Disconnected));
    assert_eq!(format!("{end:?}"), format!("{:?}", Err::<(), _>(session)));
}

#[test]
fn what_was_discarded_is_not_called_written() {
    let mut solo = solo();
    let mut stream = open(&mut solo);
    stream.try_send(message(100)).unwrap();
    stream.cancel(7);
    let mut written = Polled::new(stream.written());
    written.pending();
    while build(&mut solo) {
        wrote(&mut solo);
    }
    let end = written.ready();
    assert!(matches!(end, Err(SendError::Stream(_))), "{end:?}");
}

#[test]
fn streams_that_are_gone_are_not_answered() {
    let mut solo = solo();
    for _ in 0..100 {
        let mut stream = open(&mut solo);
        stream.try_send(message(100)).unwrap();
        Polled::new(stream.written()).pending();
        drop(stream);
        while build(&mut solo) {
            wrote(&mut solo);
        }
    }
    assert!(solo.end.connection.core.mux.receipts.is_empty());
}
