//! Opening streams: ids, grants, order, and streams that are never sent.

use super::solo::{Solo, cancel, id, open, window};
use super::*;
use crate::error::codes;
use crate::error::{OpenError, ProtocolError, SessionError, StreamError};
use crate::wire::native::frame::{Scope, Settings};

/// The reason for a session's end, if it was the peer's fault.
fn fault(end: &End) -> Option<ProtocolError> {
    let reason = end.session().state().end();
    match reason {
        Some(SessionError::Protocol(error)) => Some(error),
        _ => None,
    }
}

#[test]
fn a_message_sent_before_the_handshake_arrives_with_it() {
    let mut pair = Pair::new(&small_config(), &small_config());
    let mut stream = now(pair.ends[D].session().open("early")).unwrap();
    now(stream.send_slice(b"hello")).unwrap();
    stream.finish().unwrap();
    pair.drive();
    let mut accepted = now(pair.ends[A].session().accept()).unwrap().unwrap();
    assert_eq!(accepted.opening(), "early");
    assert_eq!(now(accepted.recv()).unwrap().unwrap(), "hello");
    assert_eq!(now(accepted.recv()).unwrap(), None);
    drop((stream, accepted));
    pair.is_clean();
}

/// A peer must accept 64 KiB; its own limit arrives with the handshake, which wakes the waiting senders.
#[test]
fn a_message_above_the_floor_waits_for_the_handshake_and_is_woken_by_it() {
    // How many of its requests the engine has read when the handshake completes.
    for heard in 0..3 {
        let mut solo = Solo::silent(Role::Dialer, &Config::default());
        let session = solo.end.session().clone();
        let mut stream = session.try_open("").unwrap();
        // The OPEN was sent.
        solo.said();
        let mut sending = Polled::new(stream.send(message(100_000)));
        sending.pending();
        for _ in 0..heard {
            solo.said();
            // The first request is answered with a wake, and made again.
            sending.pending();
        }
        let before = sending.wakes();
        solo.hello(Settings {
            max_message: 1 << 20,
            ..Settings::FLOORS
        });
        solo.said();
        assert!(sending.wakes() > before, "{heard} times heard");
        sending.ready().unwrap();
    }
}

#[test]
fn before_the_peers_settings_a_dialer_stays_within_the_floors() {
    let mut solo = Solo::silent(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let mut streams: Vec<_> = (0..16).map(|_| session.try_open("").unwrap()).collect();
    assert!(matches!(session.try_open(""), Err(OpenError::NoCredit)));
    for stream in &mut streams {
        while stream.try_send(message(10_000)).is_ok() {}
    }
    let said = solo.said();
    let sent: Vec<u64> = said
        .iter()
        .filter_map(|line| line.strip_prefix("DATA 1 "))
        .map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap() + 256)
        .collect();
    let cost = sent.iter().sum::<u64>();
    assert!((16_000..=32 * 1024).contains(&cost), "{cost}");
    assert_eq!(
        said.iter().filter(|line| line.starts_with("OPEN")).count(),
        16
    );
    assert!(solo.end.connection.core.mux.credit.left() < 16 * 1024 + 512);

    // The difference to the floors is for the streams that are open.
    let defaults = Settings {
        stream_window: 64 * 1024,
        session_window: 1 << 20,
        streams: 17,
        ..Settings::FLOORS
    };
    solo.hello(defaults);
    assert!(session.try_open("").is_ok());
    assert!(session.try_open("").is_err());
}

#[test]
fn opens_that_wait_are_granted_in_their_order() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let _streams: Vec<_> = (0..16).map(|_| session.try_open("").unwrap()).collect();
    let mut waiting: Vec<_> = (0..3).map(|_| Polled::new(session.open("w"))).collect();
    waiting.iter_mut().for_each(Polled::pending);
    solo.said();
    solo.hear(&window(Scope::Streams, 2));
    assert_eq!(waiting[0].wakes() + waiting[1].wakes(), 2);
    assert_eq!(waiting[2].wakes(), 0);
    assert_eq!(solo.said(), ["OPEN 33 1", "OPEN 35 1"]);
    waiting[2].pending();
    let mut waiting = waiting.into_iter();
    for expected in [33, 35] {
        let stream = waiting.next().unwrap().ready().unwrap();
        assert_eq!(stream.lane().id(), Some(expected));
    }
}

#[test]
fn a_stream_that_the_peer_ended_before_open_returned_is_opened_and_tells_why_it_ended() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let _streams: Vec<_> = (0..16).map(|_| session.try_open("").unwrap()).collect();
    let mut waiting = Polled::new(session.open(""));
    waiting.pending();
    solo.said();
    solo.hear(&window(Scope::Streams, 1));
    assert_eq!(solo.said(), ["OPEN 33 0"]);
    solo.hear(&cancel(33, 7, false));
    let mut stream = waiting.ready().unwrap();
    let error = now(stream.recv()).unwrap_err();
    assert!(
        matches!(error, StreamError::Cancelled { code: 7, .. }),
        "{error}"
    );
}

#[test]
fn a_stream_cancelled_before_it_left_says_nothing_and_gives_its_place_back() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    for _ in 0..100 {
        let mut stream = session.try_open("").unwrap();
        now(stream.send_slice(b"never")).unwrap();
        drop(stream);
        assert!(solo.said().is_empty());
    }
    assert_eq!(session.stats().streams, 0);
    let _kept = session.try_open("").unwrap();
    assert_eq!(solo.said(), ["OPEN 1 0"]);
}

#[test]
fn opens_given_up_while_the_peer_grants_nothing_leave_nothing_behind() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let _streams: Vec<_> = (0..16).map(|_| session.try_open("").unwrap()).collect();
    let mut patient = Polled::new(session.open("patient"));
    patient.pending();
    for _ in 0..10_000 {
        let mut waiting = Polled::new(session.open(""));
        waiting.pending();
        solo.said();
        drop(waiting);
        solo.said();
    }
    let queues = crate::core::mux::queue_lengths(&solo.end.connection.core.mux);
    assert!(queues.iter().all(|len| *len < 100), "{queues:?}");
    solo.hear(&window(Scope::Streams, 1));
    assert!(patient.ready().is_ok());
}

#[test]
fn streams_cancelled_while_the_session_has_no_credit_leave_nothing_behind() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    let mut bulk = session.try_open("").unwrap();
    while bulk.try_send(message(16_000)).is_ok() {}
    solo.said();
    solo.hear(&window(Scope::Stream(id(2)), 1 << 20));
    for _ in 0..20 {
        solo.said();
        while bulk.try_send(message(16_000)).is_ok() {}
    }
    assert!(solo.end.connection.core.mux.credit.left() < 1024);
    // The peer opens, is answered, and cancels before the answer can be sent.
    for n in 0..5000 {
        solo.hear(&open(2 * n + 1, b""));
        let mut stream = now(session.accept()).unwrap().unwrap();
        now(stream.send_slice(&[1; 1000])).unwrap();
        solo.said();
        solo.hear(&cancel(2 * n + 1, 7, false));
        drop(stream);
        solo.said();
    }
    let queues = crate::core::mux::queue_lengths(&solo.end.connection.core.mux);
    assert!(queues.iter().all(|len| *len < 100), "{queues:?}");
}

#[test]
fn ids_wrap_and_those_alive_are_passed_over() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (first, second) = pair.stream(D);
    assert_eq!(first.lane().id(), Some(1));
    pair.ends[D].connection.wire.next_id = id(u32::MAX - 2);
    pair.ends[A].connection.wire.last_peer_id = Some(id(u32::MAX - 4));
    let opened: Vec<_> = (0..4).map(|_| pair.stream(D)).collect();
    let ids: Vec<_> = opened
        .iter()
        .map(|(stream, _)| stream.lane().id().unwrap())
        .collect();
    assert_eq!(ids, [u32::MAX - 2, u32::MAX, 3, 5]);
    drop((first, second, opened));
    pair.is_clean();
}

#[test]
fn an_id_comes_back_while_only_the_application_holds_its_old_stream() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    solo.hear(&open(1, b"old"));
    let mut old = now(session.accept()).unwrap().unwrap();
    old.finish().unwrap();
    solo.hear(&solo::data(1, b"last", true, true));
    solo.said();
    solo.end.connection.wire.last_peer_id = Some(id(u32::MAX));
    solo.hear(&open(1, b"new"));
    let mut new = now(session.accept()).unwrap().unwrap();
    assert_eq!(new.opening(), "new");
    solo.hear(&solo::data(1, b"first", true, false));
    assert_eq!(now(old.recv()).unwrap().unwrap(), "last");
    assert_eq!(now(old.recv()).unwrap(), None);
    drop(old);
    solo.said();
    solo.hear(&solo::data(1, b"second", true, false));
    assert_eq!(now(new.recv()).unwrap().unwrap(), "first");
    assert_eq!(now(new.recv()).unwrap().unwrap(), "second");
}

#[test]
fn an_id_that_is_alive_cannot_be_opened_again() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    // Each step is less than half the circle, and the last one ends at the beginning.
    let step = (1_u32 << 31) - 2;
    let mut last = 1_u32;
    solo.hear(&open(last, b""));
    for _ in 0..2 {
        last = last.wrapping_add(step);
        solo.hear(&open(last, b""));
        assert_eq!(fault(&solo.end), None);
    }
    solo.hear(&open(1, b""));
    solo.said();
    assert_eq!(
        fault(&solo.end),
        Some(ProtocolError::WrongParity { id: id(1) })
    );
}

#[test]
fn an_id_of_the_wrong_parity_or_behind_the_last_one_ends_the_session() {
    for (frames, fault_of) in [
        (vec![2], ProtocolError::WrongParity { id: id(2) }),
        (
            vec![5, 3],
            ProtocolError::IdNotIncreasing {
                id: id(3),
                last: id(5),
            },
        ),
        (
            vec![5, 5],
            ProtocolError::IdNotIncreasing {
                id: id(5),
                last: id(5),
            },
        ),
    ] {
        let mut solo = Solo::new(Role::Acceptor, &Config::default());
        for number in frames {
            solo.hear(&open(number, b""));
        }
        assert!(solo.said().last().unwrap().starts_with("GOAWAY"));
        assert_eq!(fault(&solo.end), Some(fault_of));
    }
}

#[test]
fn more_streams_than_were_granted_end_the_session() {
    let config = small_config();
    let mut solo = Solo::new(Role::Acceptor, &config);
    for n in 0..16 {
        solo.hear(&open(2 * n + 1, b""));
    }
    assert_eq!(fault(&solo.end), None);
    solo.hear(&open(33, b""));
    solo.said();
    let expected = ProtocolError::TooManyStreams {
        id: id(33),
        limit: 16,
    };
    assert_eq!(fault(&solo.end), Some(expected));
}

#[test]
fn a_peer_that_grants_more_streams_than_can_be_counted_is_refused() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    solo.hear(&window(Scope::Streams, u32::MAX - 16));
    assert_eq!(fault(&solo.end), None);
    assert!(solo.end.session().try_open("").is_ok());
    solo.hear(&window(Scope::Streams, u32::MAX));
    solo.said();
    let expected = ProtocolError::CreditOverflow {
        stream: 0,
        credit: u32::MAX,
    };
    assert_eq!(fault(&solo.end), Some(expected));
}

#[test]
fn openings_that_fill_the_sessions_window_are_returned_once_accepted() {
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let mut pair = Pair::established(&config, &config);
    let session = pair.ends[D].session().clone();
    let mut opened: Vec<_> = (0..40)
        .map(|_| session.try_open(message(8192)).unwrap())
        .collect();
    now(opened[0].send_slice(&[7; 4000])).unwrap();
    pair.drive();
    let mut accepted = Vec::new();
    while let Some(stream) = Polled::new(pair.ends[A].session().accept()).now() {
        accepted.push(stream.unwrap().unwrap());
    }
    assert!(accepted.len() < 40, "the window is full");
    pair.elapse(Duration::from_millis(100));
    while let Some(stream) = Polled::new(pair.ends[A].session().accept()).now() {
        accepted.push(stream.unwrap().unwrap());
    }
    assert_eq!(accepted.len(), 40);
    assert_eq!(now(accepted[0].recv()).unwrap().unwrap(), &[7; 4000][..]);
    drop((opened, accepted, session));
    pair.is_clean();
}

#[test]
fn unaccepted_openings_do_not_stop_the_streams_that_are_served() {
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let mut pair = Pair::established(&config, &config);
    let (mut served, mut server) = pair.stream(D);
    let session = pair.ends[D].session().clone();
    let opened: Vec<_> = (0..40)
        .map(|_| session.try_open(message(8192)).unwrap())
        .collect();
    pair.drive();
    for _ in 0..5 {
        now(served.send_slice(&[7; 4000])).unwrap();
    }
    pair.elapse(Duration::from_secs(5));
    for _ in 0..5 {
        assert_eq!(now(server.recv()).unwrap().unwrap().len(), 4000);
    }
    drop((opened, served, server, session));
    while let Some(stream) = Polled::new(pair.ends[A].session().accept()).now() {
        drop(stream.unwrap());
    }
    pair.is_clean();
}

#[test]
fn a_session_without_handles_refuses_the_peers_streams() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (kept, other) = pair.stream(A);
    pair.ends[A].session = None;
    let mut refused = now(pair.ends[D].session().open("")).unwrap();
    pair.drive();
    let error = now(refused.recv()).unwrap_err();
    assert!(matches!(error, StreamError::Cancelled { code, .. } if code == codes::UNAVAILABLE));
    assert!(error.is_retryable());
    drop((kept, other, refused));
    pair.drive();
    assert!(pair.ends.iter().all(|end| end.closed));
}

#[test]
fn a_first_message_arrives_with_its_stream_and_asks_the_engine_once() {
    for finish in [true, false] {
        let mut pair = Pair::established(&small_config(), &small_config());
        let session = pair.ends[D].session().clone();
        let before = session.stats().activations;
        let mut stream = now(session.open_with("block", "first", finish)).unwrap();
        pair.drive();
        assert_eq!(session.stats().activations - before, 1);
        let mut accepted = now(pair.ends[A].session().accept()).unwrap().unwrap();
        assert_eq!(accepted.opening(), "block");
        assert_eq!(now(accepted.recv()).unwrap().unwrap(), "first");
        if finish {
            assert!(stream.finish().is_err(), "it has finished");
        } else {
            now(stream.send("second")).unwrap();
            stream.finish().unwrap();
            pair.drive();
            assert_eq!(now(accepted.recv()).unwrap().unwrap(), "second");
        }
        assert_eq!(now(accepted.recv()).unwrap(), None);
        accepted.finish().unwrap();
        drop((stream, accepted));
        pair.is_clean();
    }
}

#[test]
fn a_first_message_follows_the_grant_of_its_stream_and_is_given_up_with_it() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let _streams: Vec<_> = (0..16).map(|_| session.try_open("").unwrap()).collect();
    solo.said();
    let mut given_up = Polled::new(session.open_with("", "never", true));
    let mut waiting = Polled::new(session.open_with("w", "first", true));
    given_up.pending();
    waiting.pending();
    assert!(solo.said().is_empty());
    drop(given_up);
    solo.hear(&window(Scope::Streams, 1));
    let said = solo.said();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0], "OPEN 33 1");
    assert!(said[1].starts_with("DATA 33 5"), "{said:?}");
    let stream = waiting.ready().unwrap();
    assert_eq!(stream.lane().id(), Some(33));
    assert_eq!(session.stats().opened, 17);
}

#[test]
fn a_first_message_is_judged_by_what_the_peer_accepts_as_soon_as_that_is_known() {
    for accepts in [1 << 20, Settings::FLOORS.max_message] {
        let mut solo = Solo::silent(Role::Dialer, &Config::default());
        let session = solo.end.session().clone();
        let mut opening = Polled::new(session.open_with("", message(100_000), true));
        opening.pending();
        solo.said();
        opening.pending();
        solo.hello(Settings {
            max_message: accepts,
            session_window: 1 << 20,
            stream_window: 1 << 20,
            ..Settings::FLOORS
        });
        let too_long = |error: &OpenError| matches!(error, OpenError::MessageTooLong { len: 100_000, limit } if *limit == accepts as usize);
        let opened = opening.ready();
        if accepts >= 100_000 {
            let mut stream = opened.unwrap();
            assert!(stream.finish().is_err(), "it has finished");
            let sent = solo
                .said()
                .iter()
                .filter(|line| line.starts_with("DATA"))
                .count();
            assert!(sent >= 7, "{sent} frames");
        } else {
            let error = opened.unwrap_err();
            assert!(too_long(&error), "{error}");
            assert_eq!(solo.said(), [format!("CANCEL 1 {:#x}", codes::CANCELLED)]);
            let before = session.stats().opened;
            let error = now(session.open_with("", message(100_000), true)).unwrap_err();
            assert!(too_long(&error), "{error}");
            solo.said();
            assert_eq!(session.stats().opened, before);
        }
    }
}

#[test]
fn openings_that_were_given_up_are_counted_until_the_engine_has_seen_them() {
    const PENDING: u32 = 10;
    let is_full = |error: &OpenError| matches!(error, OpenError::TooManyPending { limit: PENDING });
    let config = config().max_streams(16).max_pending_opens(PENDING);
    let config = config.build().unwrap();
    let mut pair = Pair::established(&config, &config);
    let client = pair.ends[D].session().clone();
    let streams: Vec<_> = (0..16).map(|_| pair.stream(D)).collect();
    for open in [
        |client: &Session| client.open("waits"),
        |client: &Session| client.open_with("waits", "message", true),
    ] {
        for round in 0..3 {
            for _ in 0..PENDING {
                let mut waiting = Polled::new(open(&client));
                waiting.pending();
            }
            let refused = now(open(&client)).unwrap_err();
            assert!(is_full(&refused), "{round}: {refused}");
            pair.drive();
        }
    }
    // One that waits, and one that is granted, are counted once.
    let waiting = Polled::new(client.open("waits"));
    pair.drive();
    drop((waiting, streams));
    pair.drive();
    for _ in 0..100 {
        drop(now(client.open("")).unwrap());
        pair.drive();
    }
    let held: Vec<_> = (0..16).map(|_| pair.stream(D)).collect();
    let waiting: Vec<_> = (0..PENDING).map(|_| Polled::new(client.open(""))).collect();
    assert!(is_full(&now(client.open("")).unwrap_err()));
    drop((held, waiting));
}
