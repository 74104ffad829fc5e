//! Shutting down: at every step of a call, against peers that do not help, and what is reported.

use std::cell::{Cell, RefCell};

use super::solo::{Solo, data, id, open};
use super::*;
use crate::bridge::Drained;
use crate::core::keepalive::Keepalive;
use crate::core::timers::{Timer, Timers};
use crate::error::codes;
use crate::error::{OpenError, SessionError, StreamError};
use crate::wire::native::frame::Frame;

const SECOND: Duration = Duration::from_secs(1);

/// `finished`, `refused`, `cancelled`, `forced`.
fn counts(report: Drained) -> [u64; 4] {
    [
        report.finished,
        report.refused,
        report.cancelled,
        report.forced,
    ]
}

fn report(session: &Session) -> [u64; 4] {
    counts(now(session.shutdown(Duration::ZERO)))
}

/// Begins a shutdown and does not wait for it.
fn begin(session: &Session, grace: Duration) {
    Polled::new(session.shutdown(grace)).pending();
}

/// How a call went, for whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// Not opened, or the peer never took it.
    NotRun,
}

async fn call(session: Session) -> Result<Outcome, StreamError> {
    let mut stream = match session.open("call").await {
        Ok(stream) => stream,
        Err(OpenError::Session(_)) => return Ok(Outcome::NotRun),
        Err(other) => panic!("{other}"),
    };
    let told = async {
        for _ in 0..3 {
            stream.send(message(9000)).await.map_err(|_| ())?;
        }
        stream.finish().map_err(|_| ())
    };
    // Why it ended is found where the answer is awaited.
    let _ = told.await;
    let mut answered = 0;
    loop {
        match stream.recv().await {
            Ok(Some(_)) => answered += 1,
            Ok(None) => break,
            Err(StreamError::NotProcessed(_)) => return Ok(Outcome::NotRun),
            Err(other) => return Err(other),
        }
    }
    assert_eq!(answered, 3, "an answer is whole");
    Ok(Outcome::Answered)
}

/// Serves calls until the session ends; counts those that it has begun.
async fn serve(session: Session, taken: &Cell<u32>) {
    while let Ok(Some(mut stream)) = session.accept().await {
        taken.set(taken.get() + 1);
        while let Ok(Some(message)) = stream.recv().await {
            if stream.send(message).await.is_err() {
                return;
            }
        }
        let _ = stream.finish();
    }
}

/// Two sides that call each other, one step at a time: a turn of a driver, or a poll of a task.
struct Calls<'a> {
    pair: Pair,
    outcomes: [Option<Result<Outcome, StreamError>>; 2],
    calls: [Polled<'a, Result<Outcome, StreamError>>; 2],
    serving: [Polled<'a, ()>; 2],
    served: [bool; 2],
}

impl<'a> Calls<'a> {
    fn new(piece: usize, taken: &'a [Cell<u32>; 2]) -> Self {
        let weather = Weather {
            piece,
            ..Weather::FAIR
        };
        let pools = [Pool::new(1 << 30), Pool::new(1 << 30)];
        let config = small_config();
        let mut pair = Pair::with(&config, &config, &pools, &weather, 0);
        pair.drive();
        let session = |side: usize| pair.ends[side].session().clone();
        Self {
            outcomes: [None, None],
            calls: [D, A].map(|side| Polled::new(call(session(side)))),
            serving: [D, A].map(|side| Polled::new(serve(session(side), &taken[side]))),
            served: [false, false],
            pair,
        }
    }

    fn step(&mut self, step: usize) {
        let side = step % 2;
        match step % 6 / 2 {
            0 => drop(self.pair.turn(side)),
            1 if self.outcomes[side].is_none() => {
                if let Poll::Ready(outcome) = self.calls[side].poll() {
                    self.outcomes[side] = Some(outcome);
                }
            }
            2 if !self.served[side] => self.served[side] = self.serving[side].poll().is_ready(),
            _ => {}
        }
        if step.is_multiple_of(7) {
            invariants::check(&mut self.pair);
        }
    }
}

/// Shuts `sides` down before the given step; true if the calls were over by then.
fn shut_down_at(at: usize, sides: &[usize], piece: usize) -> bool {
    let taken = [Cell::new(0), Cell::new(0)];
    let mut run = Calls::new(piece, &taken);
    let mut over = false;
    for step in 0..at + 30_000 {
        if step == at {
            over = run.outcomes.iter().all(Option::is_some);
            for side in sides {
                begin(run.pair.ends[*side].session(), 30 * SECOND);
            }
        }
        run.step(step);
        if run.pair.ends.iter().all(|end| end.closed) && run.outcomes.iter().all(Option::is_some) {
            break;
        }
    }
    let context = format!("{sides:?} before step {at}, pieces of {piece}");
    assert!(run.pair.ends.iter().all(|end| end.closed), "{context}");
    for side in [D, A] {
        let outcome = run.outcomes[side].take().expect("it has ended");
        let taken = taken[1 - side].get();
        match outcome {
            Ok(Outcome::Answered) => assert_eq!(taken, 1, "{context}"),
            Ok(Outcome::NotRun) => assert_eq!(taken, 0, "{context}"),
            Err(error) => panic!("{context}: {error}"),
        }
    }
    for side in sides {
        let [_, _, cancelled, forced] = report(run.pair.ends[*side].session());
        assert_eq!((cancelled, forced), (0, 0), "{context}");
    }
    over
}

#[test]
fn before_any_step_of_a_call_a_shutdown_leaves_no_doubt_about_it() {
    for piece in [0, 3000] {
        for sides in [&[A][..], &[D], &[D, A]] {
            let mut at = 0;
            while !shut_down_at(at, sides, piece) {
                at += 1;
                assert!(at < 20_000);
            }
            assert!(at > 20, "{at} steps are no call");
        }
    }
}

#[test]
fn the_last_id_is_said_when_the_peer_has_answered_and_not_before() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    // A PING of before proves nothing.
    let _ = Polled::new(session.ping()).poll();
    assert_eq!(solo.said(), ["PING"]);
    let before = solo.end.connection.core.ping.in_flight().unwrap().0;
    begin(&session, 30 * SECOND);
    assert_eq!(solo.said(), ["GOAWAY 0 0xffffff06"]);
    solo.hear(&Frame::Ping {
        opaque: before,
        ack: true,
    });
    assert_eq!(solo.said(), ["PING"]);
    // Opened before the peer heard.
    solo.hear(&open(1, b""));
    let mut taken = now(session.accept()).unwrap().unwrap();
    solo.hear(&open(3, b""));
    let opaque = solo.end.connection.core.ping.in_flight().unwrap().0;
    solo.hear(&Frame::Ping { opaque, ack: true });
    assert_eq!(
        solo.said(),
        ["GOAWAY 3 0xffffff06", "CANCEL 3 0xffffff09"],
        "one was taken, one was not"
    );
    // Opened though the peer knows better.
    solo.hear(&open(5, b""));
    assert_eq!(solo.said(), ["CANCEL 5 0xffffff09"]);
    solo.hear(&data(1, b"question", true, true));
    assert_eq!(now(taken.recv()).unwrap().unwrap(), "question");
    now(taken.send_slice(b"answer")).unwrap();
    taken.finish().unwrap();
    assert_eq!(solo.said(), ["DATA 1 6 END FIN"]);
    assert_eq!(solo.end.connection.status(), Status::Closed);
    solo.end.connection.released();
    assert_eq!(report(&session), [1, 2, 0, 0]);
}

#[test]
fn a_peer_that_does_not_answer_hears_the_last_id_after_five_seconds() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let _endless = now(session.accept()).unwrap().unwrap();
    begin(&session, 30 * SECOND);
    assert_eq!(solo.said(), ["GOAWAY 0 0xffffff06", "PING"]);
    solo.elapse(5 * SECOND - Duration::from_millis(1));
    assert!(solo.said().is_empty());
    solo.elapse(Duration::from_millis(1));
    assert_eq!(solo.said(), ["GOAWAY 1 0xffffff06"]);
}

#[test]
fn at_the_ceiling_it_ends_whatever_is_left() {
    let config = config().close_linger(60 * SECOND).build().unwrap();
    let mut solo = Solo::new(Role::Acceptor, &config);
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut endless = now(session.accept()).unwrap().unwrap();
    begin(&session, 3 * SECOND);
    assert!(session.state().reason().is_some());
    solo.said();
    // Asking for more time is asked too late; asking for less is not.
    begin(&session, 60 * SECOND);
    begin(&session, 2 * SECOND);
    solo.said();
    solo.elapse(2 * SECOND - Duration::from_millis(1));
    assert!(session.state().end().is_none());
    solo.elapse(Duration::from_millis(1));
    assert_eq!(solo.said(), ["GOAWAY 1 0xffffff06"]);
    let error = now(endless.recv()).unwrap_err();
    assert!(matches!(error, StreamError::Session(SessionError::Closed)));
    let closed_by = solo.end.connection.linger_until(solo.now);
    assert!(closed_by - solo.now < SECOND, "whatever close_linger is");
    solo.end.connection.released();
    assert_eq!(report(&session), [0, 0, 1, 1]);
}

#[test]
fn at_the_ceiling_a_socket_that_takes_nothing_is_not_waited_for() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    begin(&session, 2 * SECOND);
    solo.end.connection.take_work(solo.now);
    // The driver has a batch that does not get away, so it builds nothing.
    solo.elapse(2 * SECOND);
    assert!(session.state().end().is_none());
    solo.elapse(Duration::from_millis(500));
    assert!(matches!(session.state().end(), Some(SessionError::Closed)));
    let closed_by = solo.end.connection.linger_until(solo.now);
    assert!(closed_by - solo.now < Duration::from_millis(500));
    assert_eq!(solo.end.connection.next_deadline(), None);
    solo.end.connection.released();
    assert_eq!(report(&session), [0, 0, 0, 1]);
}

#[test]
fn a_close_that_the_peer_does_not_follow_ends_soon_after_its_linger() {
    let linger = 2 * SECOND;
    let config = Config::builder().close_linger(linger).build().unwrap();
    let mut solo = Solo::new(Role::Acceptor, &config);
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    while stream.try_send(message(10_000)).is_ok() {}
    session.close();
    solo.end.connection.take_work(solo.now);
    // The driver has a batch that does not get away, so it builds nothing.
    solo.elapse(linger - Duration::from_millis(1));
    assert!(session.state().end().is_none());
    solo.elapse(Duration::from_millis(301));
    assert!(matches!(session.state().end(), Some(SessionError::Closed)));
    let closed_by = solo.end.connection.linger_until(solo.now);
    assert_eq!(closed_by - solo.now, Duration::from_millis(300));
    // However often it is asked.
    let closed_by_then = solo.end.connection.linger_until(solo.now + SECOND);
    assert_eq!(closed_by_then, closed_by);
}

#[test]
fn a_handshake_under_way_gets_a_second_and_then_hears_that_nothing_ran() {
    for role in [Role::Dialer, Role::Acceptor] {
        let mut solo = Solo::silent(role, &Config::default());
        let session = solo.end.session().clone();
        begin(&session, 30 * SECOND);
        solo.said();
        solo.elapse(SECOND - Duration::from_millis(1));
        assert!(session.state().end().is_none());
        solo.elapse(SECOND);
        solo.said();
        assert!(matches!(session.state().end(), Some(SessionError::Closed)));
        solo.end.connection.released();
        assert_eq!(report(&session), [0, 0, 0, 1]);
    }
    // In time: whatever comes behind the handshake is turned away.
    let mut pair = Pair::new(&small_config(), &small_config());
    let (client, server) = (
        pair.ends[D].session().clone(),
        pair.ends[A].session().clone(),
    );
    let mut early = client.try_open("early").unwrap();
    begin(&server, 30 * SECOND);
    pair.drive();
    let error = now(early.recv()).unwrap_err();
    assert!(matches!(error, StreamError::NotProcessed(_)), "{error}");
    assert!(now(server.accept()).unwrap().is_none());
    assert!(pair.ends.iter().all(|end| end.closed));
    assert_eq!(report(&server), [0, 1, 0, 0]);
}

#[test]
fn opens_that_wait_are_told_that_they_did_not_run_on_both_sides() {
    for shutting in [D, A] {
        let mut pair = Pair::established(&small_config(), &small_config());
        let session = pair.ends[D].session().clone();
        let open: Vec<_> = (0..16).map(|_| session.try_open("").unwrap()).collect();
        pair.drive();
        let taken: Vec<_> = (0..16)
            .map(|_| now(pair.ends[A].session().accept()).unwrap().unwrap())
            .collect();
        let mut waiting = Polled::new(session.open("one more"));
        waiting.pending();
        pair.drive();
        begin(pair.ends[shutting].session(), 5 * SECOND);
        let other = pair.ends[1 - shutting].session().clone();
        let mut draining = Polled::new(other.draining());
        draining.pending();
        pair.drive();
        assert_eq!(draining.wakes(), 1, "both sides know");
        let error = waiting.ready().unwrap_err();
        assert!(matches!(error, OpenError::Session(_)), "{error}");
        drop(open);
        drop(taken);
        pair.drive();
        assert!(pair.ends.iter().all(|end| end.closed));
        let refused = u64::from(shutting == D);
        let session = pair.ends[shutting].session();
        assert_eq!(report(session), [16, refused, 0, 0]);
    }
}

#[test]
fn a_session_shuts_down_at_its_age_give_or_take_a_tenth() {
    let age = 60 * SECOND;
    let config = config().max_age(Some(age)).build().unwrap();
    let mut ages = Vec::new();
    for seed in 0..50 {
        let at = Instant::now();
        let mut timers = Timers::new(at);
        let _ = Keepalive::new(&config, seed, true, at, &mut timers);
        ages.push(timers.get(Timer::Age).unwrap() - at);
    }
    ages.sort_unstable();
    assert!(ages[0] >= age * 9 / 10 && ages[49] <= age * 11 / 10);
    assert!(ages[49] - ages[0] > age / 10, "they differ: {ages:?}");

    let mut pair = Pair::established(&config, &Config::default());
    let (mut a, mut b) = pair.stream(A);
    pair.elapse(age * 9 / 10 - SECOND);
    assert!(pair.ends[A].session().state().reason().is_none());
    pair.elapse(age * 2 / 10 + SECOND);
    assert!(pair.ends[A].session().state().reason().is_some());
    // What ran goes on.
    now(a.send_slice(b"still")).unwrap();
    pair.drive();
    assert_eq!(now(b.recv()).unwrap().unwrap(), "still");
    a.finish().unwrap();
    b.finish().unwrap();
    pair.drive();
    assert!(pair.ends.iter().all(|end| end.closed));
}

#[test]
fn a_shutdown_without_streams_takes_a_round_trip_and_is_over() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let session = pair.ends[A].session().clone();
    let reports = RefCell::new(Vec::new());
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            Polled::new(async {
                let report = session.shutdown(SECOND).await;
                reports.borrow_mut().push(counts(report));
            })
        })
        .collect();
    waiting.iter_mut().for_each(Polled::pending);
    pair.drive();
    waiting.into_iter().for_each(Polled::ready);
    assert_eq!(*reports.borrow(), [[0; 4]; 3]);
    let end = pair.ends[D].session().state().end().unwrap();
    let SessionError::PeerClosed { code, .. } = end else {
        panic!("{end}");
    };
    assert_eq!(code, codes::SHUTDOWN);
    assert!(pair.ends.iter().all(|end| end.closed));
}

#[test]
fn a_refusal_of_a_peer_that_shuts_down_means_not_processed() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let mut stream = solo.end.session().try_open("").unwrap();
    solo.said();
    solo.hear(&Frame::GoAway {
        last: None,
        code: codes::SHUTDOWN,
        debug: "",
        soon: true,
    });
    Polled::new(stream.recv()).pending();
    solo.hear(&Frame::Cancel {
        stream: id(1),
        code: codes::UNAVAILABLE,
        stop: false,
    });
    let error = now(stream.recv()).unwrap_err();
    assert!(matches!(
        &error,
        StreamError::NotProcessed(SessionError::PeerClosed { code, .. }) if *code == codes::SHUTDOWN
    ));
    assert!(error.is_retryable());
}

/// The engine has not heard of it, or has no use for it any more.
#[test]
fn a_shutdown_that_comes_too_late_for_an_end_tells_what_that_has_cancelled() {
    for ending in [false, true] {
        let mut pair = Pair::established(&small_config(), &small_config());
        let streams = [pair.stream(D), pair.stream(A)];
        let session = pair.ends[D].session().clone();
        let connection = &mut pair.ends[D].connection;
        if ending {
            let end = SessionError::KeepaliveTimeout(SECOND);
            connection.core.end(end);
        }
        let mut shutdown = Polled::new(session.shutdown(SECOND));
        shutdown.pending();
        if ending {
            connection.take_work(pair.now);
        }
        connection.eof();
        connection.released();
        assert_eq!(counts(shutdown.ready()), [0, 0, 2, 0], "ending: {ending}");
        // A second one finds it at its end.
        assert_eq!(report(&session), [0, 0, 2, 0]);
        drop(streams);
    }
}

/// Whatever else it waits for by then.
#[test]
fn a_shutdown_hastens_an_end_that_has_begun() {
    for before in ["close", "shutdown and close", "a lost peer"] {
        let config = config().close_linger(60 * SECOND).build().unwrap();
        let mut solo = Solo::new(Role::Acceptor, &config);
        let session = solo.end.session().clone();
        solo.hear(&open(1, b""));
        let mut stream = now(session.accept()).unwrap().unwrap();
        // More than the peer has given credit for, so that closing waits.
        now(stream.send(message(60_000))).unwrap();
        solo.said();
        match before {
            "close" => session.close(),
            "a lost peer" => {
                let end = SessionError::KeepaliveTimeout(SECOND);
                solo.end.connection.core.end(end);
            }
            _ => {
                begin(&session, 60 * SECOND);
                solo.end.connection.take_work(solo.now);
                session.close();
            }
        }
        solo.end.connection.take_work(solo.now);
        begin(&session, 2 * SECOND);
        solo.end.connection.take_work(solo.now);
        // The socket takes nothing, so nothing is built.
        solo.elapse(2 * SECOND - Duration::from_millis(1));
        assert!(session.state().end().is_none(), "{before}");
        solo.elapse(Duration::from_millis(400));
        assert!(session.state().end().is_some(), "{before}");
        let closed_by = solo.end.connection.linger_until(solo.now);
        assert!(
            closed_by - solo.now < Duration::from_millis(300),
            "{before}"
        );
        solo.end.connection.released();
        assert_eq!(report(&session)[2], 1, "{before}");
    }
}
