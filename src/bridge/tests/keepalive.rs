//! Signs of life, and stuck sockets.

use super::solo::{Solo, id, open};
use super::*;
use crate::core::keepalive::Keepalive;
use crate::core::timers::{Timer, Timers};
use crate::error::codes;
use crate::error::{SessionError, StreamError};
use crate::wire::native::frame::{Frame, Settings};

/// Idle 15 s, less up to a tenth; answer within 10 s.
const IDLE_LEAST: Duration = Duration::from_millis(13_500);
const IDLE_MOST: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(10);
const MILLISECOND: Duration = Duration::from_millis(1);

fn pong(solo: &Solo) -> Frame<'static> {
    let in_flight = solo.end.connection.core.ping.in_flight();
    let opaque = in_flight.expect("a PING is under way").0;
    Frame::Ping { opaque, ack: true }
}

#[test]
fn a_silent_peer_is_asked_and_its_answer_is_life() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    for asked in 1..20 {
        solo.elapse(IDLE_LEAST - MILLISECOND);
        assert!(solo.said().is_empty(), "too early");
        solo.elapse(IDLE_MOST - IDLE_LEAST + MILLISECOND);
        assert_eq!(solo.said(), ["PING"]);
        let answer = pong(&solo);
        solo.hear(&answer);
        assert_eq!(session.stats().keepalives, asked);
    }
    assert!(session.state().end().is_none());
}

#[test]
fn the_first_use_after_a_silence_asks_at_once_and_no_other_does() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut stream = session.try_open("").unwrap();
    solo.said();
    // A third of the idle time, which is up to a tenth shorter.
    solo.elapse(IDLE_LEAST / 3 - MILLISECOND);
    now(stream.send("soon")).unwrap();
    assert_eq!(solo.said(), ["DATA 1 4 END"], "it was heard a moment ago");
    solo.elapse((IDLE_MOST - IDLE_LEAST) / 3 + MILLISECOND);
    now(stream.send("late")).unwrap();
    assert_eq!(solo.said(), ["PING", "DATA 1 4 END"]);
    now(stream.send("then")).unwrap();
    assert_eq!(solo.said(), ["DATA 1 4 END"], "it was asked already");
    let answer = pong(&solo);
    solo.hear(&answer);
    now(stream.send("then")).unwrap();
    assert_eq!(solo.said(), ["DATA 1 4 END"]);
    assert_eq!(session.stats().keepalives, 1);
}

#[test]
fn a_peer_that_died_in_a_silence_is_known_a_timeout_after_it_is_needed() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut stream = session.try_open("").unwrap();
    solo.said();
    solo.elapse(Duration::from_secs(6));
    now(stream.send("is anybody there")).unwrap();
    solo.said();
    solo.elapse(ANSWER - MILLISECOND);
    assert!(session.state().end().is_none());
    solo.elapse(MILLISECOND);
    // A driver writes in the turn in which a deadline has passed.
    solo.said();
    let end = session.state().end().unwrap();
    assert!(
        matches!(end, SessionError::KeepaliveTimeout(ANSWER)),
        "{end}"
    );
}

#[test]
fn a_peer_that_gives_no_sign_of_life_ends_the_session_and_every_stream() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    solo.elapse(IDLE_MOST);
    assert_eq!(solo.said(), ["PING"]);
    let given_up = solo.end.connection.next_deadline().unwrap() - solo.now;
    assert!(given_up <= ANSWER, "known 25 s after the last sign of life");
    solo.elapse(given_up - MILLISECOND);
    assert!(session.state().end().is_none() && solo.said().is_empty());
    solo.elapse(MILLISECOND);
    let farewell = format!("GOAWAY 1 {:#x}", codes::KEEPALIVE);
    assert_eq!(solo.said(), [farewell]);
    let end = session.state().end().unwrap();
    assert!(matches!(end, SessionError::KeepaliveTimeout(ANSWER)) && end.is_retryable());
    let error = now(stream.recv()).unwrap_err();
    assert!(matches!(
        error,
        StreamError::Session(SessionError::KeepaliveTimeout(_))
    ));
    assert_eq!(session.stats().keepalive_timeouts, 1);
}

#[test]
fn any_byte_is_life_also_part_of_a_frame() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    // A header whose payload arrives a byte at a time.
    let mut bytes = BytesMut::from(&[8, 0, 0, 0xb0, 0, 0, 0, 0][..]);
    for _ in 0..7 {
        solo.end.connection.receive(&mut bytes, solo.now);
        bytes.extend_from_slice(&[0]);
        // Each arrives after the PING, and its answer never does.
        solo.elapse(IDLE_MOST + ANSWER - Duration::from_secs(2));
        solo.said();
        assert!(session.state().end().is_none());
    }
    solo.elapse(Duration::from_secs(2));
    solo.said();
    assert!(session.state().end().is_some());
}

#[test]
fn a_peer_that_talks_is_not_asked() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    for _ in 0..100 {
        solo.elapse(Duration::from_secs(5));
        solo.hear(&Frame::Extension(11));
        assert!(solo.said().is_empty());
    }
    assert_eq!(solo.end.session().stats().keepalives, 0);
}

#[test]
fn without_keepalive_an_idle_session_has_no_deadline() {
    let config = config().keepalive_idle(None).build().unwrap();
    let mut solo = Solo::new(Role::Dialer, &config);
    solo.elapse(Duration::from_secs(3600));
    assert!(solo.said().is_empty());
    assert_eq!(solo.end.connection.next_deadline(), None);
}

#[test]
fn an_idle_pair_wakes_a_few_times_a_minute_only() {
    let mut pair = Pair::established(&Config::default(), &Config::default());
    pair.elapse(Duration::from_secs(60));
    let turns = |pair: &Pair| pair.ends.each_ref().map(|end| end.session().stats().turns);
    let before = turns(&pair);
    pair.elapse(Duration::from_secs(600));
    let after = turns(&pair);
    for (before, after) in before.into_iter().zip(after) {
        // 10 minutes hold 44 idle times at most; the harness takes a few turns at each event.
        assert!(after - before < 44 * 16, "{} turns", after - before);
    }
    let asked: u64 = (pair.ends.iter())
        .map(|end| end.session().stats().keepalives)
        .sum();
    assert!((40..=98).contains(&asked), "{asked}");
    assert!(
        pair.ends
            .iter()
            .all(|end| end.session().state().end().is_none())
    );
    pair.is_clean();
}

#[test]
fn under_load_the_timer_is_set_seldom() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut a, mut b) = pair.stream(D);
    let mut deadlines = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        now(a.send_slice(b"hello")).unwrap();
        pair.elapse(MILLISECOND);
        assert!(b.try_recv().is_some());
        deadlines.extend(pair.ends[D].connection.next_deadline());
    }
    assert!(
        deadlines.len() <= 5,
        "{} deadlines in 10 s",
        deadlines.len()
    );
}

#[test]
fn a_socket_that_takes_nothing_ends_the_session_and_tells_every_stream() {
    let weather = Weather {
        capacity: 3000,
        ..Weather::FAIR
    };
    let pools = [Pool::new(1 << 30), Pool::new(1 << 30)];
    let config = Config::default();
    let mut pair = Pair::with(&config, &config, &pools, &weather, 0);
    pair.drive();
    let (mut a, b) = pair.stream(D);
    let session = pair.ends[D].session().clone();
    let mut idle = session.try_open("").unwrap();
    pair.drive();
    // The peer's machine stops: from now on only this side's driver runs.
    now(a.send(message(30_000))).unwrap();
    pair.run(D);
    assert!(pair.ends[D].writing);
    let mut waiting = Polled::new(idle.recv());
    waiting.pending();
    pair.now += ANSWER - MILLISECOND;
    pair.run(D);
    assert!(session.state().end().is_none());
    pair.now += MILLISECOND;
    pair.run(D);
    assert!(matches!(
        session.state().end(),
        Some(SessionError::WriteTimeout(ANSWER))
    ));
    assert_eq!(session.stats().write_timeouts, 1);
    for error in [now(a.recv()).unwrap_err(), waiting.ready().unwrap_err()] {
        let timed_out = matches!(error, StreamError::Session(SessionError::WriteTimeout(_)));
        assert!(timed_out && !error.is_retryable(), "{error}");
    }
    drop(b);
}

#[test]
fn a_peer_that_stands_still_for_five_seconds_loses_nothing() {
    let weather = Weather {
        capacity: 3000,
        ..Weather::FAIR
    };
    let pools = [Pool::new(1 << 30), Pool::new(1 << 30)];
    let config = Config::default();
    let mut pair = Pair::with(&config, &config, &pools, &weather, 0);
    pair.drive();
    let (mut a, mut b) = pair.stream(D);
    for n in 0..20 {
        now(a.send(message(30_000 + n))).unwrap();
        for _ in 0..5 {
            pair.run(D);
            pair.now += Duration::from_secs(1);
        }
        pair.drive();
        assert_eq!(now(b.recv()).unwrap().unwrap().len(), 30_000 + n);
    }
    drop((a, b));
    pair.is_clean();
}

#[test]
fn messages_that_wait_for_credit_are_no_reason_to_give_a_connection_up() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut a, b) = pair.stream(D);
    while a.try_send(message(10_000)).is_ok() {}
    pair.elapse(Duration::from_secs(300));
    assert!(
        pair.ends
            .iter()
            .all(|end| end.session().state().end().is_none())
    );
    drop((a, b));
    pair.is_clean();
}

#[test]
fn a_side_that_was_stopped_itself_looks_before_it_judges() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    solo.elapse(IDLE_MOST);
    assert_eq!(solo.said(), ["PING"]);
    // Stopped for a minute: the answer has arrived, but the deadline is handled first.
    solo.now += Duration::from_secs(60);
    solo.end.connection.on_deadline(solo.now);
    assert!(session.state().end().is_none());
    let answer = pong(&solo);
    solo.hear(&answer);
    solo.elapse(ANSWER);
    assert!(session.state().end().is_none());
    // Repeated lateness is not forgiven.
    solo.elapse(IDLE_MOST);
    solo.said();
    for _ in 0..2 {
        solo.now += Duration::from_secs(60);
        solo.end.connection.on_deadline(solo.now);
    }
    solo.said();
    assert!(matches!(
        session.state().end(),
        Some(SessionError::KeepaliveTimeout(_))
    ));
}

#[test]
fn sessions_that_began_together_do_not_ask_together() {
    let config = Config::default();
    let at = Instant::now();
    let mut times: Vec<Duration> = (0..100)
        .map(|seed| {
            let mut timers = Timers::new(at);
            let _ = Keepalive::new(&config, seed, true, at, &mut timers);
            timers.get(Timer::Keepalive).expect("keepalive is on") - at
        })
        .collect();
    times.sort_unstable();
    assert!(times[0] >= IDLE_LEAST && times[99] <= IDLE_MOST);
    assert!(times[99] - times[0] > Duration::from_secs(1));
}

/// Lets time pass; at each look the socket holds `queued` bytes.
fn elapse_seeing(solo: &mut Solo, time: Duration, mut queued: impl FnMut(Duration) -> u64) {
    let (start, until) = (solo.now, solo.now + time);
    let connection = &mut solo.end.connection;
    while let Some(at) = connection.next_deadline().filter(|at| *at <= until) {
        solo.now = solo.now.max(at);
        if connection.looks_at_socket(solo.now) {
            connection.see_socket(Some(queued(solo.now - start)), solo.now);
        }
        connection.on_deadline(solo.now);
    }
    solo.now = until;
}

/// A connection whose socket has taken this many bytes more than have left it.
fn solo_that_sends(bytes: usize) -> (Solo, Session, Stream) {
    let ours = Settings {
        session_window: 1 << 24,
        stream_window: 1 << 24,
        max_message: 1 << 24,
        ..Settings::FLOORS
    };
    let mut solo = Solo::with(Role::Dialer, &Config::default(), ours);
    let session = solo.end.session().clone();
    let mut stream = session.try_open("").unwrap();
    let mut sent = 0;
    while sent < bytes {
        now(stream.send(message(32 * 1024))).unwrap();
        sent += solo.said_bytes().len();
    }
    (solo, session, stream)
}

#[test]
fn a_slow_connection_is_kept_while_bytes_pass_in_either_direction() {
    let weather = Weather {
        rate: 2000,
        capacity: 128 * 1024,
        ..Weather::FAIR
    };
    let config = Config::default();
    for to in [A, D] {
        let pools = [Pool::new(1 << 30), Pool::new(1 << 30)];
        let mut pair = Pair::with(&config, &config, &pools, &weather, 0);
        pair.elapse(Duration::from_secs(1));
        let stream = now(pair.ends[D].session().open("")).unwrap();
        pair.elapse(Duration::from_secs(1));
        let accepted = now(pair.ends[A].session().accept()).unwrap().unwrap();
        let (mut from, mut other) = if to == A {
            (stream, accepted)
        } else {
            (accepted, stream)
        };
        let large = message(300 * 1024);
        now(from.send(large.clone())).unwrap();
        // It is used meanwhile, also after a silence.
        for _ in 0..20 {
            pair.elapse(Duration::from_secs(9));
            let _ = from.try_send(message(10));
            assert_eq!(
                pair.ends
                    .each_ref()
                    .map(|end| end.session().state().end().is_some()),
                [false; 2]
            );
        }
        assert_eq!(now(other.recv()).unwrap().unwrap(), large);
    }
}

#[test]
fn a_ping_that_has_not_left_is_not_waited_for_and_one_that_has_is() {
    let (mut solo, session, mut stream) = solo_that_sends(128 * 1024);
    let queued = |at: Duration| 128 * 1024 - 1000 * at.as_secs().min(128);
    // The PING is sent after 15 s at the latest, behind the bytes queued in the socket; 1 kB leaves each second.
    elapse_seeing(&mut solo, Duration::from_secs(100), queued);
    assert!(session.state().end().is_none() && session.stats().keepalives == 1);
    solo.said();
    // Bytes queued behind it make no difference.
    now(stream.send(message(10_000))).unwrap();
    solo.said();
    elapse_seeing(&mut solo, Duration::from_secs(24), |_| 5000);
    assert!(
        session.state().end().is_some(),
        "it has left, and the peer says nothing"
    );
}

#[test]
fn what_dies_in_a_transfer_is_known_a_timeout_and_a_look_later() {
    let (mut solo, session, _stream) = solo_that_sends(128 * 1024);
    let dies = Duration::from_secs(40);
    let queued = |at: Duration| 128 * 1024 - 1000 * at.min(dies).as_secs();
    elapse_seeing(&mut solo, dies, queued);
    assert!(session.state().end().is_none());
    elapse_seeing(&mut solo, ANSWER + ANSWER / 4, |_| 128 * 1024 - 40_000);
    let end = session.state().end().expect("the bytes stand still");
    assert!(
        matches!(end, SessionError::KeepaliveTimeout(ANSWER)),
        "{end}"
    );
}

#[test]
fn a_peer_that_is_asked_over_an_empty_socket_has_the_timeout_and_no_more() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    elapse_seeing(&mut solo, IDLE_MOST, |_| 0);
    assert_eq!(solo.said(), ["PING"]);
    // Its system has received the PING at once.
    elapse_seeing(&mut solo, ANSWER, |_| 0);
    assert!(session.state().end().is_some());
}

#[test]
fn a_full_socket_is_stuck_when_nothing_leaves_it_and_nothing_comes() {
    for (moves, hears) in [(true, false), (false, true), (false, false)] {
        let (mut solo, session, mut stream) = solo_that_sends(128 * 1024);
        now(stream.send(message(32 * 1024))).unwrap();
        solo.end.connection.take_work(solo.now);
        assert!(solo.end.connection.transmit(&mut solo.end.batch, solo.now));
        for second in 0..60 {
            if hears && second % 5 == 0 {
                solo.hear(&Frame::Extension(11));
            }
            let left = if moves { 500 * second } else { 0 };
            elapse_seeing(&mut solo, Duration::from_secs(1), |_| 128 * 1024 - left);
        }
        assert_eq!(session.stats().write_timeouts, u64::from(!moves && !hears));
        assert_eq!(session.state().end().is_some(), !moves && !hears);
    }
}

#[test]
fn who_receives_a_frame_slowly_says_so_every_half_timeout() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    solo.said();
    let mut bytes =
        BytesMut::from(&crate::wire::native::frame::data_header(16_000, true, false, id(1))[..]);
    let mut pings = Vec::new();
    for second in 0..60 {
        bytes.extend_from_slice(&[0; 100]);
        solo.end.connection.receive(&mut bytes, solo.now);
        solo.elapse(Duration::from_secs(1));
        if !solo.said().is_empty() {
            pings.push(second);
        }
    }
    assert!((9..=12).contains(&pings.len()), "{pings:?}");
    // The peer answers the first, and then the last, of the PINGs received.
    bytes.clear();
    bytes.extend_from_slice(&vec![0; 16_000 - 6000]);
    solo.end.connection.receive(&mut bytes, solo.now);
    for number in [2, 2 + pings.len() as u64 - 1] {
        let opaque = number.to_le_bytes();
        solo.hear(&Frame::Ping { opaque, ack: true });
    }
    assert!(session.state().end().is_none());
    let opaque = 2_u64.to_le_bytes();
    solo.hear(&Frame::Ping { opaque, ack: true });
    assert!(matches!(
        session.state().end(),
        None | Some(SessionError::Protocol(_))
    ));
    solo.said();
    assert!(
        session.state().end().is_some(),
        "a second answer to one PING"
    );
}
