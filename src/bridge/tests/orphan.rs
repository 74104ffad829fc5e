//! Sessions without a handle, and peers that are alive and do not do their part.

use super::calls::{call, hostile, stuck_answer, taken};
use super::solo::{Solo, data, open, window};
use super::*;
use crate::wire::native::frame::{Frame, Scope, StreamId};

const SECOND: Duration = Duration::from_secs(1);

/// This many seconds with a peer that answers PINGs: the frames of the connection, and their seconds.
fn pass(solo: &mut Solo, seconds: u32) -> Vec<(u32, String)> {
    let mut said = Vec::new();
    for second in 0..seconds {
        solo.elapse(SECOND);
        said.extend(solo.said().into_iter().map(|frame| (second, frame)));
        if let Some((opaque, _)) = solo.end.connection.core.ping.in_flight() {
            solo.hear(&Frame::Ping { opaque, ack: true });
        }
    }
    said
}

/// The second of its final GOAWAY.
fn goes(said: &[(u32, String)]) -> Option<u32> {
    let mut last_words = said.iter().filter(|(_, frame)| frame.starts_with("GOAWAY"));
    last_words.next().map(|(second, _)| *second)
}

#[test]
fn a_peer_that_never_ends_a_stream_which_nobody_holds_does_not_keep_the_session() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    solo.hear(&open(1, b""));
    let (mut send, recv) = now(solo.end.session().accept()).unwrap().unwrap().split();
    send.finish().unwrap();
    drop((send, recv));
    solo.end.session = None;
    assert_eq!(solo.said(), ["STOP 1 0xffffff03", "DATA 1 0 FIN"]);
    // The data that it still sends does not count.
    let mut before = pass(&mut solo, 15);
    solo.hear(&data(1, b"what?", true, false));
    before.extend(pass(&mut solo, 14));
    assert_eq!(goes(&before), None, "{before:?}");
    let then = pass(&mut solo, 3);
    assert!(goes(&then).is_some(), "{then:?}");
    let end = solo.end.connection.link().end();
    assert!(matches!(end, Some(crate::SessionError::Closed)), "{end:?}");
}

/// A connection with more to send than its peer takes, and without handles.
fn abandoned_with(messages: usize) -> Solo {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let stream = Polled::new(solo.end.session().open("")).now();
    let (mut send, mut recv) = stream.unwrap().unwrap().split();
    for _ in 0..messages {
        send.try_send(message(10_000)).unwrap();
    }
    send.finish().unwrap();
    recv.stop(0);
    drop((send, recv));
    solo.end.session = None;
    solo.said();
    solo
}

#[test]
fn a_peer_that_never_takes_what_is_queued_does_not_keep_the_session() {
    let mut solo = abandoned_with(20);
    // The bytes taken at first were progress.
    let before = pass(&mut solo, 59);
    assert_eq!(goes(&before), None, "{before:?}");
    let then = pass(&mut solo, 4);
    assert!(goes(&then).is_some(), "{then:?}");
}

#[test]
fn a_peer_that_never_takes_an_answer_does_not_keep_the_session() {
    let (mut solo, mut acceptor) = hostile(config());
    stuck_answer(&mut solo, &mut acceptor);
    drop(acceptor);
    solo.end.session = None;
    let before = pass(&mut solo, 29);
    assert_eq!(goes(&before), None, "{before:?}");
    let then = pass(&mut solo, 34);
    assert!(goes(&then).is_some(), "{then:?}");
}

#[test]
fn a_call_that_is_held_keeps_the_session_however_long_nothing_moves() {
    let (mut solo, mut acceptor) = hostile(config());
    solo.hear(&call(1));
    let mut incoming = taken(&mut acceptor).unwrap();
    drop(acceptor);
    solo.end.session = None;
    assert_eq!(goes(&pass(&mut solo, 500)), None);
    incoming.reply("late".into());
    let said = solo.said();
    assert!(said[0].starts_with("REPLY 1"), "{said:?}");
}

#[test]
fn a_slow_peer_gets_everything_that_was_queued() {
    let mut solo = abandoned_with(20);
    let mut said = Vec::new();
    let mut raises = 0;
    while !said
        .iter()
        .any(|(_, frame): &(_, String)| frame.ends_with("FIN"))
    {
        raises += 1;
        assert!(raises < 20, "{said:?}");
        for scope in [Scope::Session, Scope::Stream(StreamId::new(1).unwrap())] {
            solo.hear(&window(scope, 10_100));
        }
        said.extend(pass(&mut solo, 29));
        assert_eq!(goes(&said), None, "{said:?}");
    }
    assert!(raises > 10, "it took more than it was given");
    solo.hear(&data(1, b"", true, true));
    assert!(goes(&pass(&mut solo, 1)).is_some());
}

#[test]
fn a_stream_that_is_held_keeps_the_session_however_long_nothing_moves() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    solo.hear(&open(1, b""));
    let mut stream = now(solo.end.session().accept()).unwrap().unwrap();
    solo.end.session = None;
    assert_eq!(goes(&pass(&mut solo, 500)), None);
    solo.hear(&data(1, b"late", true, false));
    assert_eq!(now(stream.recv()).unwrap().as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_peer_has_the_whole_time_from_when_the_last_stream_is_dropped() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    solo.hear(&open(1, b""));
    let mut stream = now(solo.end.session().accept()).unwrap().unwrap();
    solo.end.session = None;
    while stream.try_send(message(10_000)).is_ok() {}
    // There is no progress any more, and then the last handle is dropped.
    assert_eq!(goes(&pass(&mut solo, 89)), None);
    stream.finish().unwrap();
    drop(stream);
    let before = pass(&mut solo, 30);
    assert_eq!(goes(&before), None, "{before:?}");
    let then = pass(&mut solo, 33);
    assert!(goes(&then).is_some(), "{then:?}");
}
