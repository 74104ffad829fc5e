//! Limits: each is tripped at its number and reported to both sides and in the counters; honest peers trip none.

use tokio::io::AsyncReadExt;

use super::sim::{first_seed, load};
use super::solo::{Solo, cancel, data, id, open, window};
use super::*;
use crate::bridge::{process_totals, request};
use crate::codes;
use crate::config::{ConfigBuilder, Rate};
use crate::error::{Limit, LimitExceeded, SessionError};
use crate::wire::native::frame::{Frame, HEADER_LEN, Header, Scope, Settings, preface};

const SECOND: Duration = Duration::from_secs(1);

fn acceptor(config: ConfigBuilder) -> Solo {
    Solo::new(Role::Acceptor, &config.build().unwrap())
}

/// The nth stream of a peer that dials, from 0.
fn nth(n: u32) -> u32 {
    2 * n + 1
}

/// A stream that is opened and cancelled at once.
fn reset(solo: &mut Solo, n: u32) {
    solo.hear(&open(nth(n), b""));
    solo.hear(&cancel(nth(n), 0, false));
}

/// The application accepts the next stream, and drops it.
fn serve(solo: &mut Solo) {
    while let Some(stream) = Polled::new(solo.end.session().accept()).now() {
        drop(stream.expect("the session lives"));
    }
    solo.said();
}

fn ping(n: u64) -> Frame<'static> {
    Frame::Ping {
        opaque: n.to_le_bytes(),
        ack: false,
    }
}

/// Code and text of the GOAWAY among the bytes.
fn goaway(bytes: &[u8]) -> Option<(u32, String)> {
    let hello = preface::encode(preface::VERSION);
    let mut bytes = bytes.strip_prefix(&hello[..]).unwrap_or(bytes);
    while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
        let header = Header::decode(*head);
        let len = HEADER_LEN + header.length as usize;
        let frame = Frame::parse(header, &bytes[HEADER_LEN..len]).expect("valid");
        if let Frame::GoAway { code, debug, .. } = frame {
            return Some((code, debug.to_owned()));
        }
        bytes = &bytes[len..];
    }
    None
}

#[track_caller]
fn goes_on(solo: &Solo) {
    let connection = &solo.end.connection;
    assert!(
        connection.core.life.is_established(),
        "{:?}",
        connection.core.life
    );
    assert_eq!(solo.end.session().stats().limits_tripped, 0);
}

/// It has ended by this limit at this number, with the same report to both sides and in the session's and the process's counters.
#[track_caller]
fn ends_by(solo: &mut Solo, limit: Limit, value: u64) {
    let bytes = solo.said_bytes();
    let end = solo.end.session().state().end();
    let Some(SessionError::LimitExceeded(error)) = end else {
        panic!("{end:?}");
    };
    assert_eq!(error, LimitExceeded { limit, value });
    let text = error.to_string();
    assert_eq!(goaway(&bytes), Some((codes::LIMIT_EXCEEDED, text.clone())));
    assert_eq!(solo.end.session().stats().tripped.get(limit), 1);
    assert!(process_totals().sessions.tripped.get(limit) > 0);

    let mut peer = Solo::new(Role::Dialer, &Config::default());
    peer.hear(&Frame::GoAway {
        last: None,
        code: codes::LIMIT_EXCEEDED,
        debug: &text,
        soon: false,
    });
    peer.end.connection.eof();
    let seen = peer.end.session().state().end().unwrap().to_string();
    assert!(
        seen.contains("exceeded one of its limits") && seen.contains(&text),
        "{seen}"
    );
}

// ---- each at its number ---------------------------------------------------------------------

#[test]
fn a_stream_beyond_those_that_may_wait_for_the_application_is_refused_and_no_other() {
    let mut solo = acceptor(config().max_unaccepted(Some(4)));
    let session = solo.end.session().clone();
    for n in 0..4 {
        solo.hear(&open(nth(n), b""));
    }
    goes_on(&solo);
    solo.hear(&open(nth(4), b""));
    let refused = format!("CANCEL {} {:#x}", nth(4), codes::UNAVAILABLE);
    assert!(solo.said().contains(&refused));
    let stats = session.stats();
    assert_eq!((stats.streams, stats.limits_tripped), (4, 1));
    assert_eq!(stats.tripped.get(Limit::Unaccepted), 1);
    invariants::books_of_one_side_balance(&mut solo.end);
    // One is accepted, so there is room.
    let taken = now(session.accept()).unwrap().unwrap();
    solo.hear(&open(nth(5), b""));
    assert_eq!(session.stats().tripped.get(Limit::Unaccepted), 1);
    assert!(session.state().end().is_none());
    drop(taken);
}

#[test]
fn streams_that_were_reset_before_they_were_accepted_are_limited_by_how_many_wait() {
    let mut solo = acceptor(config().max_unaccepted_resets(Some(3)));
    for n in 0..3 {
        reset(&mut solo, n);
    }
    goes_on(&solo);
    reset(&mut solo, 3);
    ends_by(&mut solo, Limit::UnacceptedResets, 4);
}

#[test]
fn streams_that_were_reset_and_accepted_do_not_count() {
    let mut solo = acceptor(config().max_unaccepted_resets(Some(3)));
    for n in 0..999 {
        reset(&mut solo, n);
        if n % 3 == 2 {
            serve(&mut solo);
        }
    }
    goes_on(&solo);
    // Even if the stream that was reset first is accepted late.
    let session = solo.end.session().clone();
    solo.hear(&open(nth(1000), b""));
    solo.hear(&open(nth(1001), b""));
    solo.hear(&cancel(nth(1001), 0, false));
    solo.hear(&cancel(nth(1000), 0, false));
    drop(now(session.accept()).unwrap().unwrap());
    reset(&mut solo, 1002);
    reset(&mut solo, 1003);
    goes_on(&solo);
    reset(&mut solo, 1004);
    ends_by(&mut solo, Limit::UnacceptedResets, 4);
}

/// A message in pieces of one byte, until its stream is ended.
fn crumble(solo: &mut Solo, n: u32) {
    solo.hear(&open(nth(n), b""));
    let mut stream = now(solo.end.session().accept()).unwrap().unwrap();
    solo.hear(&data(nth(n), &[0, 0, 2, 0, 1], false, false));
    while Polled::new(stream.recv()).now().is_none() {
        solo.hear(&data(nth(n), &[0], false, false));
        if solo.end.connection.core.life.is_established() {
            solo.said();
        }
    }
}

#[test]
fn a_peer_that_makes_streams_end_by_their_limits_may_do_so_a_few_times() {
    let mut solo = acceptor(config().max_faulty_streams(2));
    crumble(&mut solo, 0);
    crumble(&mut solo, 1);
    assert!(solo.end.session().state().end().is_none());
    crumble(&mut solo, 2);
    let pieces = |solo: &Solo| solo.end.session().stats().tripped.get(Limit::MessagePieces);
    assert_eq!(pieces(&solo), 3);
    ends_by(&mut solo, Limit::FaultyStreams, 3);
}

#[test]
fn resets_count_whoever_makes_them() {
    let mut solo = acceptor(
        config()
            .reset_rate(Some(Rate::new(6, 2)))
            .max_unaccepted(Some(1)),
    );
    let session = solo.end.session().clone();
    // By the peer, before and after it was accepted; with an ERROR.
    reset(&mut solo, 0);
    serve(&mut solo);
    solo.hear(&open(nth(1), b""));
    let stream = now(session.accept()).unwrap().unwrap();
    solo.hear(&cancel(nth(1), 0, false));
    drop(stream);
    solo.hear(&open(nth(2), b""));
    solo.hear(&Frame::Error {
        stream: id(nth(2)),
        code: 1,
        message: "",
        details: b"",
    });
    serve(&mut solo);
    // By the application; by a refusal.
    solo.hear(&open(nth(3), b""));
    now(session.accept()).unwrap().unwrap().cancel(7);
    solo.said();
    solo.hear(&open(nth(4), b""));
    solo.hear(&open(nth(5), b""));
    serve(&mut solo);
    assert!(session.state().end().is_none());
    // These were six resets, those of dropped handles among them: two tokens come back each second.
    solo.elapse(SECOND / 2);
    reset(&mut solo, 6);
    assert!(session.state().end().is_none());
    reset(&mut solo, 7);
    ends_by(&mut solo, Limit::ResetRate, 8);
}

#[test]
fn streams_that_come_to_their_end_and_those_of_this_side_are_no_resets() {
    let mut solo = acceptor(config().reset_rate(Some(Rate::new(1, 1))));
    let session = solo.end.session().clone();
    for n in 0..100 {
        solo.hear(&open(nth(n), b""));
        let mut stream = now(session.accept()).unwrap().unwrap();
        stream.finish().unwrap();
        solo.said();
        solo.hear(&data(nth(n), b"", false, true));
        // Too late to count.
        solo.hear(&cancel(nth(n), 0, false));
        drop(stream);
        solo.said();
    }
    for _ in 0..10 {
        session.try_open("").unwrap().cancel(0);
        solo.said();
    }
    goes_on(&solo);
}

/// Glitches of all kinds: WINDOWs without a cause, and late frames.
#[test]
fn control_frames_beyond_what_was_caused_are_glitches() {
    let error = Frame::Error {
        stream: id(1),
        code: 1,
        message: "",
        details: b"",
    };
    let floods = [
        ("window", window(Scope::Session, 1)),
        ("late window", window(Scope::Stream(id(1)), 1)),
        ("late cancel", cancel(1, 0, false)),
        ("late stop", cancel(1, 0, true)),
        ("late error", error),
        ("late fin", data(1, b"", false, true)),
        ("fin again", data(5, b"", false, true)),
        ("stop again", cancel(3, 0, true)),
        ("unknown", Frame::Extension(11)),
    ];
    for (name, flood) in floods {
        let mut solo = acceptor(config().glitch_rate(Rate::new(5, 1)));
        let session = solo.end.session().clone();
        reset(&mut solo, 0);
        serve(&mut solo);
        solo.hear(&open(3, b""));
        let _held = now(session.accept()).unwrap().unwrap();
        solo.hear(&open(5, b""));
        let mut given_up = now(session.accept()).unwrap().unwrap();
        given_up.cancel(0);
        if name == "stop again" {
            solo.hear(&cancel(3, 0, true));
        }
        solo.said();
        let caused = 4 * session.stats().frames_sent;
        for _ in 0..caused + 5 {
            solo.hear(&flood);
        }
        assert!(session.state().end().is_none(), "{name}");
        goes_on(&solo);
        solo.hear(&flood);
        ends_by(&mut solo, Limit::GlitchRate, 6);
    }
}

/// A later version may send extension frames with each message, before it knows that this version ignores them.
#[test]
fn frames_of_unknown_kinds_may_come_with_messages_and_not_by_themselves() {
    let mut solo = acceptor(config().glitch_rate(Rate::new(5, 1)));
    let session = solo.end.session().clone();
    solo.hear(&open(1, b""));
    let mut stream = now(session.accept()).unwrap().unwrap();
    for n in 0..100 {
        for kind in 11..15 {
            solo.hear(&Frame::Extension(kind));
        }
        solo.hear(&data(1, b"message", true, false));
        assert!(now(stream.recv()).unwrap().is_some(), "{n}");
    }
    // Those of the last message, and the glitches.
    for _ in 0..4 + 5 {
        solo.hear(&Frame::Extension(15));
    }
    goes_on(&solo);
    solo.hear(&Frame::Extension(15));
    ends_by(&mut solo, Limit::GlitchRate, 6);
}

#[test]
fn a_goaway_needs_to_be_said_three_times_at_most() {
    let mut solo = acceptor(config().glitch_rate(Rate::new(5, 1)));
    let goaway = Frame::GoAway {
        last: None,
        code: codes::SHUTDOWN,
        debug: "",
        soon: true,
    };
    for _ in 0..3 + 5 {
        solo.hear(&goaway);
    }
    goes_on(&solo);
    solo.hear(&goaway);
    ends_by(&mut solo, Limit::GlitchRate, 6);
}

#[test]
fn pings_are_limited_where_they_are() {
    let mut solo = acceptor(config().ping_rate(Some(Rate::new(3, 1))));
    for n in 0..3 {
        solo.hear(&ping(n));
    }
    solo.elapse(SECOND);
    solo.hear(&ping(3));
    goes_on(&solo);
    solo.hear(&ping(4));
    ends_by(&mut solo, Limit::PingRate, 5);
}

#[test]
fn a_handshake_makes_place_and_a_session_does_not() {
    let config = Config::builder().max_half_open(7).build().unwrap();
    let mut solo = Solo::new(Role::Acceptor, &config);
    solo.end.connection.link().request(request::EVICT);
    solo.said();
    goes_on(&solo);

    let mut silent = Solo::silent(Role::Acceptor, &config);
    silent.end.connection.link().request(request::EVICT);
    assert_eq!(silent.said_bytes(), b"", "the wire of the peer is unknown");
    let end = silent.end.session().state().end();
    let limit = Limit::HalfOpen;
    let expected = LimitExceeded { limit, value: 7 };
    assert!(
        matches!(end, Some(SessionError::LimitExceeded(error)) if error == expected),
        "{end:?}"
    );
    assert_eq!(silent.end.session().stats().tripped.get(limit), 1);

    let mut half = Solo::silent(Role::Acceptor, &config);
    let mut hello = BytesMut::from(&preface::encode(preface::VERSION)[..]);
    half.end.connection.receive(&mut hello, half.now);
    half.end.connection.link().request(request::EVICT);
    ends_by(&mut half, limit, 7);
}

#[test]
fn what_lies_behind_the_frame_that_trips_a_limit_changes_nothing() {
    let mut solo = acceptor(config().ping_rate(Some(Rate::new(1, 1))));
    let mut bytes = crate::wire::native::frame::tests::bytes_of(&ping(0));
    for frame in [
        &ping(1),
        &open(1, b""),
        &ping(2),
        &data(1, b"x", true, false),
    ] {
        bytes.extend_from_slice(&crate::wire::native::frame::tests::bytes_of(frame));
    }
    solo.end.connection.receive(&mut bytes, solo.now);
    assert_eq!(solo.end.session().stats().accepted, 0);
    ends_by(&mut solo, Limit::PingRate, 2);
}

// ---- no state of ours grows with the peer's frames ------------------------------------------

#[test]
fn a_hundred_thousand_streams_opened_and_cancelled_keep_to_their_places() {
    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    let session = solo.end.session().clone();
    let places = Config::default().max_streams();
    let (mut n, mut most) = (0, 0);
    while n < 100_000 {
        // As many as were granted: one more would be a violation.
        for _ in 0..solo.end.connection.core.mux.permits.peer_streams {
            reset(&mut solo, n);
            n += 1;
        }
        let stats = session.stats();
        most = most.max(stats.streams);
        assert!(stats.streams <= u64::from(places));
        let queues = crate::core::mux::queue_lengths(&solo.end.connection.core.mux);
        let bound = 2 * places as usize + 16;
        assert!(queues.iter().all(|len| *len <= bound), "{queues:?}");
        serve(&mut solo);
    }
    assert_eq!(most, u64::from(places), "the attack used what it could");
    goes_on(&solo);
    assert_eq!(session.stats().cancelled, u64::from(n));
    invariants::at_rest(&mut solo.end);
    let floor = Settings::FLOORS.session_window;
    assert_eq!(
        solo.end.pool.used(),
        u64::from(Config::default().session_window() - floor)
    );
}

#[test]
fn a_place_comes_back_when_the_application_has_let_go_and_not_with_the_reset() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    for n in 0..16 {
        reset(&mut solo, n);
    }
    let handlers: Vec<Stream> = (0..16)
        .map(|_| now(session.accept()).unwrap().unwrap())
        .collect();
    assert!(
        !solo
            .said()
            .iter()
            .any(|line| line.starts_with("WINDOW streams"))
    );
    assert_eq!(session.stats().streams, 16);
    drop(handlers);
    assert!(solo.said().contains(&"WINDOW streams 16".to_owned()));
    assert_eq!(session.stats().streams, 0);
}

#[test]
fn a_peer_that_asks_and_does_not_read_makes_nothing_grow() {
    let mut solo = Solo::new(Role::Acceptor, &small_config());
    let session = solo.end.session().clone();
    for n in 0..16 {
        solo.hear(&open(nth(n), b""));
    }
    let mut streams: Vec<Stream> = (0..16)
        .map(|_| now(session.accept()).unwrap().unwrap())
        .collect();
    solo.said();
    for n in 0..100_000_u32 {
        solo.hear(&ping(n.into()));
        solo.hear(&cancel(nth(n % 16), 0, true));
        if n < 16 {
            solo.hear(&data(nth(n), &[0; 8_000], true, false));
            drop(now(streams[n as usize].recv()));
        }
        if session.state().end().is_some() || !solo.end.connection.core.life.is_established() {
            // The same STOP again and again.
            break;
        }
        let queues = crate::core::mux::queue_lengths(&solo.end.connection.core.mux);
        assert!(queues.iter().all(|len| *len <= 2 * 16 + 16), "{queues:?}");
        assert!(solo.end.connection.core.mux.permits.refusals.len() <= 16);
    }
    let said = solo.said_bytes();
    assert!(said.len() < 2048, "{} bytes were owed", said.len());
}

#[test]
fn sessions_that_may_fill_half_of_the_pool_leave_the_rest_to_others() {
    let pool = Pool::new(u64::MAX);
    let start = Instant::now();
    let edge = Config::edge()
        .session_window(1 << 20)
        .receive_pool(4 << 20)
        .build()
        .unwrap();
    let mesh = Config::builder().receive_pool(8 << 20).build().unwrap();
    let end = |config| End::new(Role::Acceptor, config, &pool, start);
    let floor = u64::from(Settings::FLOORS.session_window);
    let window = |end: &End| end.connection.core.mux.flow.window.target();
    let strangers: Vec<End> = (0..8).map(|_| end(&edge)).collect();
    // A quarter of the pool.
    assert_eq!(pool.used(), (1 << 20) - floor);
    assert_eq!(
        (window(&strangers[0]), window(&strangers[7])),
        (1 << 20, floor)
    );
    let friends: Vec<End> = (0..4).map(|_| end(&mesh)).collect();
    assert_eq!(pool.used(), 2 * ((1 << 20) - floor));
    assert_eq!((window(&friends[0]), window(&friends[3])), (1 << 20, floor));
    drop((strangers, friends));
    assert_eq!(pool.used(), 0);
}

// ---- honest peers ---------------------------------------------------------------------------

/// With `max_unaccepted_resets` at 20, as in h2, the first of these sessions would end: although an application that pauses
/// has done nothing wrong, nor has a peer that cancels its calls meanwhile.
#[test]
fn honest_peers_at_full_load_trip_no_default_limit() {
    for seed in (first_seed()..).take(4) {
        load::run(seed, &Config::default(), 300, 1);
    }
}

#[test]
fn honest_peers_of_the_edge_that_take_turns_trip_none_of_its_limits() {
    let edge = Config::edge().build().unwrap();
    for seed in 0..8 {
        load::run(seed, &edge, 60, 10);
    }
}

#[test]
fn a_client_that_hedges_trips_no_default_limit() {
    let config = Config::default();
    let mut pair = Pair::established(&config, &config);
    let client = pair.ends[D].session().clone();
    let server = pair.ends[A].session().clone();
    // Ten thousand calls a second, each sent and cancelled; the application accepts a hundred at a time.
    for _ in 0..100 {
        let mut calls: Vec<_> = (0..100)
            .map(|_| client.try_open("a call").expect("granted"))
            .collect();
        pair.drive();
        for call in &mut calls {
            call.cancel(0);
            pair.drive();
        }
        while let Some(call) = Polled::new(server.accept()).now() {
            drop(call.unwrap());
        }
        pair.elapse(Duration::from_millis(10));
    }
    assert_eq!(server.stats().cancelled, 10_000);
    for session in [&client, &server] {
        assert!(
            session.state().end().is_none(),
            "{:?}",
            session.state().end()
        );
        assert_eq!(session.stats().limits_tripped, 0);
    }
}

#[test]
fn the_schedule_and_the_list_of_grown_rings_do_not_grow_with_streams_that_have_gone() {
    let settings = Settings {
        stream_window: 1 << 20,
        streams: 1000,
        ..Settings::FLOORS
    };
    let config = config().max_streams(16).build().unwrap();
    let mut solo = Solo::with(Role::Acceptor, &config, settings);
    let session = solo.end.session().clone();
    // The session's credit is used up, and an OPEN waits for more.
    let mut bulk = session.try_open("").unwrap();
    solo.said();
    for _ in 0..40 {
        let _ = bulk.try_send(message(10_000));
        solo.said();
    }
    bulk.cancel(1);
    drop(bulk);
    let _blocked = session.try_open(message(8192)).unwrap();
    for n in 0..2000 {
        let id = 2 * n + 1;
        solo.hear(&open(id, b""));
        let mut served = now(session.accept()).unwrap().unwrap();
        let _ = served.try_send(message(10));
        for _ in 0..2 {
            solo.hear(&data(id, &[0; 3000], true, false));
        }
        now(served.1.read_exact(&mut [0; 6000])).unwrap();
        solo.said();
        solo.hear(&cancel(id, 0, false));
        drop(served);
        solo.said();
    }
    let queues = crate::core::mux::queue_lengths(&solo.end.connection.core.mux);
    assert!(queues.iter().all(|len| *len <= 64), "{queues:?}");
    assert!(solo.end.connection.core.mux.grown.len() <= 64);
}
