//! Ends: of a direction, of a stream, of a session.

use super::solo::{Solo, cancel, data, id, open, window};
use super::*;
use crate::error::codes;
use crate::error::{SendError, SessionError, StreamError};
use crate::wire::native::frame::{Frame, Scope, Settings};

#[test]
fn a_stop_is_answered_by_a_bare_fin_also_inside_a_message() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let mut stream = solo.end.session().try_open("").unwrap();
    now(stream.send(message(60_000))).unwrap();
    let said = solo.said();
    assert_eq!(said[1], "DATA 1 16384");
    assert!(said.iter().all(|line| !line.contains("END")));
    solo.hear(&cancel(1, 77, true));
    assert_eq!(solo.said(), ["DATA 1 0 FIN"]);
    let error = now(stream.send(message(1))).unwrap_err();
    assert!(matches!(error, SendError::Stopped { code: 77 }));
    // The other direction goes on.
    solo.hear(&data(1, b"still", true, false));
    assert_eq!(now(stream.recv()).unwrap().unwrap(), "still");
}

/// It would have a gap before it.
#[test]
fn what_arrives_between_a_stop_and_the_engine_that_hears_of_it_is_not_delivered() {
    for bytes in [false, true] {
        let mut pair = Pair::established(&small_config(), &small_config());
        let (mut sender, mut receiver) = pair.stream(D);
        now(sender.send(message(255))).unwrap();
        pair.drive();
        now(sender.send(message(300))).unwrap();
        pair.turn(D);
        receiver.stop(7);
        // As if another thread's engine had read before it looked at its handles.
        assert!(pair.read(A));
        let mut memory = [0; 100];
        let mut buf = tokio::io::ReadBuf::new(&mut memory);
        if bytes {
            let read = Pin::new(&mut receiver.1);
            let mut context = Context::from_waker(Waker::noop());
            assert!(tokio::io::AsyncRead::poll_read(read, &mut context, &mut buf).is_pending());
        } else {
            assert_eq!(receiver.try_recv(), None);
            Polled::new(receiver.recv()).pending();
        }
        pair.drive();
        let error = now(receiver.recv()).unwrap_err();
        assert!(
            matches!(error, StreamError::Cancelled { code: 7, .. }),
            "{error}"
        );
        drop((sender, receiver));
        pair.is_clean();
    }
}

/// What goes out with the first words may arrive though no answer comes back.
#[test]
fn a_handshake_without_an_answer_leaves_in_doubt_what_was_sent_with_it_and_nothing_else() {
    let mut pair = Pair::new(&small_config(), &small_config());
    let session = pair.ends[D].session().clone();
    // More than the floor of streams: the last one has to wait for the answer.
    let mut sent: Vec<_> = (0..16)
        .map(|_| session.try_open("early").unwrap())
        .collect();
    let mut waiting = Polled::new(session.open("late"));
    waiting.pending();
    let _ = sent[0].try_send(message(10));
    pair.turn(D);
    pair.turn(A);
    pair.turn(A);
    let taken = now(pair.ends[A].session().accept());
    assert_eq!(
        taken.unwrap().unwrap().opening(),
        "early",
        "the peer has it"
    );
    // The answer does not come through.
    let deadline = pair.now + Duration::from_secs(10);
    pair.ends[D].connection.on_deadline(deadline);
    pair.ends[D].connection.deliver_wakes();
    let error = now(sent[0].recv()).unwrap_err();
    assert!(matches!(
        error,
        StreamError::Session(SessionError::HandshakeTimeout(_))
    ));
    assert_eq!(error.was_processed(), crate::Processed::Maybe);
    assert!(waiting.ready().is_err());
}

#[test]
fn a_receiver_that_stops_inside_a_message_gets_its_credit_and_memory_back() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, receiver) = pair.stream(D);
    now(sender.send(message(1 << 20))).unwrap();
    // Built and on its way, with credit beyond the window granted for the rest.
    for _ in 0..2 {
        pair.turn(D);
        pair.turn(A);
        pair.turn(A);
    }
    assert!(pair.ends[A].pool.used() > 0, "memory was given");
    let (answer, receiver) = receiver.split();
    drop(receiver);
    pair.drive();
    assert_eq!(pair.ends[A].pool.used(), 0);
    let error = now(sender.send(message(1))).unwrap_err();
    assert!(matches!(error, SendError::Stopped { .. }));
    drop((answer, sender));
    pair.is_clean();
}

/// The peer wants no messages any more; the ERROR behind them says more than that.
#[test]
fn a_stop_that_crosses_a_failure_takes_the_messages_and_leaves_the_failure() {
    for dropped_first in [true, false] {
        let mut pair = Pair::established(&small_config(), &small_config());
        let (stopping, mut failing) = pair.stream(D);
        let (mut sender, mut receiver) = stopping.split();
        for _ in 0..2 {
            while sender.try_send(message(10_000)).is_ok() {}
            while failing.try_send(message(10_000)).is_ok() {}
            pair.drive();
        }
        let mut waiting = Polled::new(sender.send(message(10_000)));
        waiting.pending();
        let (mut fails, stops) = failing.split();
        // Behind messages that wait for credit.
        fails.finish_with_error(9, "no").unwrap();
        let mut left = Some(stops).filter(|_| !dropped_first);
        pair.drive();
        receiver.stop(7);
        pair.drive();
        drop(left.take());
        pair.drive();
        let error = waiting.ready().unwrap_err();
        assert!(
            matches!(&error, SendError::Stream(StreamError::Failed(why)) if why.code == 9),
            "{error}"
        );
        let stopped = now(fails.stopped());
        assert!(
            matches!(stopped, SendError::Stopped { code: 7 }),
            "{stopped}"
        );
        drop((fails, receiver, sender));
        pair.is_clean();
    }
}

#[test]
fn a_receiver_whose_stream_was_failed_is_told_so_also_if_the_peer_has_stopped() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (peer, mut failing) = pair.stream(D);
    let (mut sender, mut receiver) = peer.split();
    while failing.try_send(message(10_000)).is_ok() {}
    pair.drive();
    while failing.try_send(message(10_000)).is_ok() {}
    failing.finish_with_error(9, "no").unwrap();
    receiver.stop(7);
    pair.drive();
    let error = now(failing.recv()).unwrap_err();
    assert!(
        matches!(error, StreamError::Cancelled { code: 9, .. }),
        "{error}"
    );
    let error = now(sender.send("go on")).unwrap_err();
    assert!(
        matches!(&error, SendError::Stream(StreamError::Failed(why)) if why.code == 9),
        "{error}"
    );
    drop((failing, sender, receiver));
    pair.is_clean();
}

/// No ERROR may follow the FIN that answered the STOP; a STOP of its own tells the peer the code.
#[test]
fn a_failure_that_is_queued_just_after_a_stop_came_ends_the_other_direction_all_the_same() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (peer, failing) = pair.stream(D);
    let (mut sender, mut receiver) = peer.split();
    let (mut fails, mut waits) = failing.split();
    let mut waiting = Polled::new(waits.recv());
    waiting.pending();
    receiver.stop(7);
    pair.drive();
    // It has looked before the STOP came.
    fails.fail(9, "no", &[]);
    pair.drive();
    let error = waiting.ready().unwrap_err();
    assert!(
        matches!(error, StreamError::Cancelled { code: 9, .. }),
        "{error}"
    );
    let error = now(sender.send("go on")).unwrap_err();
    assert!(matches!(error, SendError::Stopped { code: 9 }), "{error}");
    drop((fails, waits, sender, receiver));
    pair.is_clean();
}

#[test]
fn ends_cost_no_credit_and_pass_streams_that_wait_for_it() {
    let settings = Settings {
        stream_window: 1 << 20,
        streams: 1000,
        ..Settings::FLOORS
    };
    let mut solo = Solo::with(Role::Dialer, &Config::default(), settings);
    let session = solo.end.session().clone();
    let [mut bulk, mut finished, mut failed, mut late] =
        [(); 4].map(|()| session.try_open("").unwrap());
    solo.said();
    for _ in 0..40 {
        let _ = bulk.try_send(message(10_000));
        solo.said();
    }
    finished.finish().unwrap();
    failed.finish_with_error(1, "no").unwrap();
    assert_eq!(solo.said(), ["DATA 3 0 FIN", "ERROR 5 1"]);
    // Also where an OPEN waits before all; its own stream's FIN comes behind it.
    let mut waits = session.try_open("").unwrap();
    waits.finish().unwrap();
    assert!(solo.said().is_empty());
    late.finish().unwrap();
    assert_eq!(solo.said(), ["DATA 7 0 FIN"]);
}

#[test]
fn cancels_that_cross_each_other_are_no_violation() {
    let mut pair = Pair::established(&small_config(), &small_config());
    for _ in 0..40 {
        let (mut a, mut b) = pair.stream(D);
        now(a.send(message(20_000))).unwrap();
        now(b.send(message(20_000))).unwrap();
        a.cancel(1);
        b.cancel(2);
        pair.drive();
        assert!(matches!(
            now(a.recv()),
            Err(StreamError::Cancelled { code: 1, .. })
        ));
        assert!(matches!(
            now(b.recv()),
            Err(StreamError::Cancelled { code: 2, .. })
        ));
    }
    pair.is_clean();
}

#[test]
fn whoever_fails_a_stream_is_told_that_its_other_half_has_ended_too() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut a, mut b) = pair.stream(D);
    let (mut failing, mut half) = {
        now(a.send_slice(b"before")).unwrap();
        a.split()
    };
    let mut waiting = Polled::new(half.recv());
    waiting.pending();
    failing.finish_with_error(9, "no").unwrap();
    pair.drive();
    assert_eq!(waiting.wakes(), 1);
    let end = waiting.ready();
    assert!(
        matches!(end, Err(StreamError::Cancelled { code: 9, .. })),
        "{end:?}"
    );
    assert_eq!(now(b.recv()).unwrap().unwrap(), "before");
    assert!(matches!(now(b.recv()), Err(StreamError::Failed(f)) if f.code == 9));
    drop((failing, half, b));
    pair.is_clean();
}

#[test]
fn streams_above_the_last_id_of_a_goaway_were_not_processed_and_those_below_go_on() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut streams: Vec<_> = (0..3).map(|_| session.try_open("").unwrap()).collect();
    solo.said();
    solo.hear(&Frame::GoAway {
        last: Some(id(3)),
        code: codes::SHUTDOWN,
        debug: "",
        soon: false,
    });
    assert!(session.try_open("").is_err());
    let error = now(streams[2].recv()).unwrap_err();
    assert!(matches!(error, StreamError::NotProcessed(_)) && error.is_retryable());
    for stream in &mut streams[..2] {
        Polled::new(stream.recv()).pending();
    }
    solo.hear(&data(3, b"answer", true, true));
    assert_eq!(now(streams[1].recv()).unwrap().unwrap(), "answer");
    assert_eq!(now(streams[1].recv()).unwrap(), None);
    solo.end.connection.eof();
    assert!(matches!(
        now(streams[0].recv()),
        Err(StreamError::Session(SessionError::PeerClosed { code, .. })) if code == codes::SHUTDOWN
    ));
}

#[test]
fn close_sends_what_was_queued_before_it_and_then_says_goaway() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut stream = session.try_open("").unwrap();
    now(stream.send_slice(b"last words")).unwrap();
    stream.finish().unwrap();
    session.close();
    assert_eq!(
        solo.said(),
        ["OPEN 1 0", "DATA 1 10 END FIN", "GOAWAY 0 0xffffff00"]
    );
    assert_eq!(solo.end.connection.status(), Status::Closed);
}

#[test]
fn close_waits_for_the_credit_that_queued_messages_need() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut stream = session.try_open("").unwrap();
    for _ in 0..3 {
        now(stream.send_slice(&[1; 16_000])).unwrap();
    }
    stream.finish().unwrap();
    solo.said();
    session.close();
    assert!(solo.said().is_empty(), "the third message has no credit");
    assert_eq!(solo.end.connection.status(), Status::Open);
    solo.hear(&window(Scope::Stream(id(1)), 64 * 1024));
    let said = solo.said();
    assert!(said[0].ends_with("END FIN"), "{said:?}");
    assert!(said[1].starts_with("GOAWAY"), "{said:?}");
}

#[test]
fn a_drain_that_the_peer_does_not_let_end_is_ended_by_the_linger() {
    let config = config()
        .close_linger(Duration::from_secs(2))
        .build()
        .unwrap();
    let mut solo = Solo::new(Role::Dialer, &config);
    let session = solo.end.session().clone();
    let mut stream = session.try_open("").unwrap();
    for _ in 0..3 {
        now(stream.send_slice(&[1; 16_000])).unwrap();
    }
    solo.said();
    session.close();
    solo.said();
    solo.elapse(Duration::from_millis(1999));
    assert!(solo.said().is_empty());
    solo.elapse(Duration::from_millis(1));
    assert_eq!(solo.said(), ["GOAWAY 0 0xffffff00"]);
    let end = now(stream.recv());
    assert!(matches!(
        end,
        Err(StreamError::Session(SessionError::Closed))
    ));
}

#[test]
fn a_last_word_that_the_socket_does_not_take_is_given_up() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(2, b""));
    // The socket takes nothing, so the driver builds nothing.
    assert_eq!(session.state().end().map(|_| ()), None);
    solo.elapse(Duration::from_secs(2));
    assert!(matches!(
        session.state().end(),
        Some(SessionError::Protocol(_))
    ));
    assert_eq!(solo.end.connection.status(), Status::Closed);
}

#[test]
fn a_session_without_handles_closes_when_its_last_stream_has_gone() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (a, b) = pair.stream(D);
    pair.ends[D].session = None;
    pair.drive();
    assert!(pair.ends[D].session.is_none() && !pair.ends[D].closed);
    // It goes by its CANCEL, which leaves after its handles have gone.
    drop(a);
    pair.drive();
    assert!(pair.ends[D].closed);
    drop(b);
}

#[test]
fn a_stream_opened_just_before_the_last_handle_went_is_served() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let session = pair.ends[D].session.take().unwrap();
    let mut stream = now(session.open("")).unwrap();
    now(stream.send_slice(b"hello")).unwrap();
    drop(session);
    pair.drive();
    let mut accepted = now(pair.ends[A].session().accept()).unwrap().unwrap();
    assert_eq!(now(accepted.recv()).unwrap().unwrap(), "hello");
    drop(stream);
    pair.drive();
    assert!(pair.ends.iter().all(|end| end.closed));
}

#[test]
fn callers_of_ping_share_the_one_under_way() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut first = Polled::new(session.ping());
    let mut second = Polled::new(session.ping());
    first.pending();
    second.pending();
    assert_eq!(solo.said(), ["PING"]);
    assert!(solo.said().is_empty());
    let opaque = solo.end.connection.core.ping.in_flight().unwrap().0;
    solo.elapse(Duration::from_millis(3));
    solo.hear(&Frame::Ping { opaque, ack: true });
    assert_eq!((first.wakes(), second.wakes()), (1, 1));
    assert_eq!(first.ready().unwrap(), Duration::from_millis(3));
    assert_eq!(second.ready().unwrap(), Duration::from_millis(3));
}

#[test]
fn a_caller_of_ping_who_was_served_while_it_asked_asks_for_no_other() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut first = Polled::new(session.ping());
    first.pending();
    assert_eq!(solo.said(), ["PING"]);
    let mut late = Polled::new(session.ping());
    late.pending();
    session.close();
    let opaque = solo.end.connection.core.ping.in_flight().unwrap().0;
    let mut pong = crate::wire::native::frame::tests::bytes_of(&Frame::Ping { opaque, ack: true });
    solo.end.connection.receive(&mut pong, solo.now);
    assert!(first.ready().is_ok() && late.ready().is_ok());
    // What else was asked for is not lost.
    assert_eq!(solo.said(), ["GOAWAY 0 0xffffff00"]);
}

#[test]
fn what_is_asked_of_a_session_that_has_ended_keeps_no_driver_awake() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let stream = session.try_open("").unwrap();
    solo.said();
    solo.end.connection.eof();
    let _ = Polled::new(session.ping()).poll();
    session.close();
    drop(stream);
    solo.end.connection.take_work(solo.now);
    assert!(!solo.end.connection.link().has_work());
    assert_eq!(solo.end.connection.next_deadline(), None);
}

#[test]
fn frames_after_the_end_of_a_stream_are_discarded_and_their_credit_returned() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    drop(now(session.accept()).unwrap().unwrap());
    assert_eq!(solo.said(), ["CANCEL 1 0xffffff03"]);
    let chunk = [0; 16_000];
    for _ in 0..100 {
        solo.hear(&data(1, &chunk, true, false));
        solo.said();
    }
    solo.hear(&window(Scope::Stream(id(1)), 1));
    solo.hear(&cancel(1, 0, true));
    assert!(session.state().end().is_none());
    invariants::at_rest(&mut solo.end);
}

#[test]
fn data_after_fin_ends_the_session() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let _stream = now(session.accept()).unwrap().unwrap();
    solo.hear(&data(1, b"", false, true));
    solo.hear(&data(1, b"more", true, false));
    solo.said();
    let end = session.state().end().unwrap();
    let said = crate::error::Chain(&end).to_string();
    assert!(said.contains("after its end"), "{said}");
}
