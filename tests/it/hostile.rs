//! Peers that break the rules: each gets the name of the rule, and other sessions are unaffected.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use ringmux::{
    Config, ConnectError, Limit, Listener, SendError, Session, SessionError, StreamError, codes,
    wire::ProtocolError,
};
use tokio::net::TcpListener;

use crate::host::{Net, Soon, echo, pattern, round_trip};
use crate::raw::{
    ACK, CANCEL, DATA, END, ERROR, FIN, GOAWAY, META, OPEN, PING, PREFACE, Raw, STREAMS, Side,
    WINDOW, first_piece, frame, header, id, settings, with_raw, with_raw_settings,
};

protocol!(
    each_broken_rule_ends_its_session_by_name,
    each_broken_rule_of_the_handshake_is_named,
    a_server_of_garbage_is_a_handshake_error_with_the_rule,
    more_data_than_the_sessions_credit_is_refused,
    what_nobody_knows_is_ignored,
    frames_for_ended_streams_are_ignored,
    goaway_ends_what_it_does_not_cover_as_not_processed,
    streams_opened_and_cancelled_at_once_stay_within_the_grant,
    a_limit_is_named_to_the_peer_in_the_words_of_the_error,
);
on_each_driver!(
    who_speaks_another_protocol_is_hung_up_on,
    a_connection_cut_at_any_byte_ends_its_session_only,
    a_connection_cut_at_any_byte_of_the_servers_side_ends_its_session_only,
    a_violation_ends_every_stream_with_the_same_error,
    a_peer_that_reads_nothing_cannot_keep_a_session_from_closing,
    a_peer_that_reads_nothing_is_still_ended_for_a_violation,
);
on_sockets!(frames_may_come_byte_by_byte,);

/// A listener with a session that must stay undisturbed.
struct Neighbourhood {
    listener: Listener,
    neighbour: Session,
}

impl Neighbourhood {
    async fn new(net: &Net, config: &Config) -> Self {
        let listener = net.listen(config).await;
        let neighbour = net.connect(&listener, &Config::default()).await;
        echo(listener.accept().soon().await.unwrap());
        let this = Self {
            listener,
            neighbour,
        };
        this.is_undisturbed().await;
        this
    }

    async fn is_undisturbed(&self) {
        round_trip(&self.neighbour, pattern(500, 1)).await;
        assert!(self.neighbour.state().end().is_none());
    }
}

/// The frames that break a rule, by the name of the rule. The library has opened the stream `theirs(0)`.
fn violations(side: Side) -> Vec<(&'static str, Vec<u8>)> {
    let own = side.own(0);
    let theirs = side.theirs(0);
    let open = frame(OPEN, 0, own, b"");
    let opened = |rest: Vec<u8>| [open.clone(), rest].concat();
    let full_frame = frame(DATA, END, own, &[7; 16 * 1024]);
    let error = |message_len: u16, rest: &[u8]| {
        let payload = [&1_u32.to_le_bytes()[..], &message_len.to_le_bytes(), rest].concat();
        opened(frame(ERROR, 0, own, &payload))
    };
    vec![
        // Invalid frames. For too long ones only the header is sent.
        (
            "frame-too-long",
            opened(header(DATA, END, own, 16 * 1024 + 1)),
        ),
        ("frame-too-long", opened(header(DATA, END, own, 0xFF_FFFF))),
        ("frame-too-long", header(OPEN, 0, own, 8 * 1024 + 1)),
        ("frame-too-long", opened(header(META, 0, own, 8 * 1024 + 1))),
        ("frame-too-long", header(12, 0, 0, 16 * 1024 + 1)),
        ("frame-too-long", opened(header(CANCEL, 0, own, 5))),
        ("frame-too-short", opened(header(CANCEL, 0, own, 3))),
        ("frame-too-short", header(PING, 0, 0, 7)),
        ("frame-too-short", header(GOAWAY, 0, 0, 7)),
        ("unknown-flags", opened(header(DATA, 0x4, own, 1))),
        ("unknown-flags", header(OPEN, 0x2, own, 0)),
        ("unknown-flags", opened(header(ERROR, 0x1, own, 6))),
        ("unknown-flags", opened(header(CANCEL, 0x2, own, 4))),
        ("unknown-flags", header(WINDOW, 0x2, 0, 4)),
        ("unknown-flags", header(PING, 0x2, 0, 8)),
        ("unknown-flags", header(GOAWAY, 0x2, 0, 8)),
        ("unknown-flags", header(7, 0x1, 0, 6)),
        ("stream-required", header(DATA, END, 0, 1)),
        ("stream-required", header(OPEN, 0, 0, 0)),
        ("stream-required", header(CANCEL, 0, 0, 4)),
        ("session-only", header(PING, 0, own, 8)),
        ("session-only", header(GOAWAY, 0, own, 8)),
        ("session-only", header(7, 0, own, 6)),
        ("empty-data", opened(frame(DATA, 0, own, b""))),
        ("streams-on-stream", opened(header(WINDOW, STREAMS, own, 4))),
        ("zero-credit", frame(WINDOW, 0, 0, &[0; 4])),
        ("zero-credit", frame(WINDOW, STREAMS, 0, &[0; 4])),
        ("zero-credit", frame(WINDOW, 0, theirs, &[0; 4])),
        ("error-message-too-long", error(1025, &[b'x'; 1025])),
        ("error-details-too-long", error(0, &[b'x'; 8 * 1024 + 1])),
        ("frame-truncated", error(10, b"short")),
        ("text-not-utf8", error(2, b"\xFF\xFF")),
        (
            "text-not-utf8",
            frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0\xFF"),
        ),
        ("total-missing", opened(frame(DATA, 0, own, b"abc"))),
        // Invalid in this state.
        ("settings-twice", settings(&[])),
        ("settings-length", header(7, 0, 0, 5)),
        ("wrong-parity", frame(OPEN, 0, theirs, b"")),
        ("wrong-parity", frame(OPEN, 0, side.theirs(1), b"")),
        (
            "id-not-increasing",
            [frame(OPEN, 0, side.own(1), b""), open.clone()].concat(),
        ),
        ("id-not-increasing", opened(open.clone())),
        ("never-opened", frame(DATA, END, own, b"x")),
        ("never-opened", frame(DATA, END, side.theirs(1), b"x")),
        ("never-opened", opened(frame(DATA, END, side.own(1), b"x"))),
        (
            "never-opened",
            frame(WINDOW, 0, side.theirs(9), &[1, 0, 0, 0]),
        ),
        ("never-opened", frame(CANCEL, 0, own, &[0; 4])),
        ("never-opened", frame(CANCEL, 1, side.theirs(1), &[0; 4])),
        ("never-opened", frame(ERROR, 0, own, &[0; 6])),
        ("never-opened", frame(META, 0, own, b"x")),
        (
            "too-many-streams",
            (0..257)
                .flat_map(|n| frame(OPEN, 0, side.own(n), b""))
                .collect(),
        ),
        (
            "after-end",
            opened([frame(DATA, FIN, own, b""), frame(DATA, END, own, b"x")].concat()),
        ),
        (
            "after-end",
            opened([frame(DATA, FIN, own, b""), frame(DATA, FIN, own, b"")].concat()),
        ),
        (
            "after-end",
            opened([frame(DATA, END | FIN, own, b"x"), frame(META, 0, own, b"x")].concat()),
        ),
        (
            "after-end",
            [frame(OPEN, FIN, own, b""), frame(DATA, END, own, b"x")].concat(),
        ),
        (
            "after-end",
            opened([frame(DATA, FIN, own, b""), frame(ERROR, 0, own, &[0; 6])].concat()),
        ),
        (
            "fin-inside-message",
            opened([first_piece(own, 10, b"1234"), frame(DATA, FIN, own, b"")].concat()),
        ),
        (
            "fin-inside-message",
            opened([first_piece(own, 10, b"1234"), frame(DATA, FIN, own, b"56")].concat()),
        ),
        ("stream-credit", opened(full_frame.repeat(4))),
        // Small frames cost their slot as well: the window is far from full in bytes.
        (
            "stream-credit",
            opened(frame(DATA, END, own, b"x").repeat(256)),
        ),
        ("credit-overflow", frame(WINDOW, 0, 0, &[0xFF; 4])),
        ("credit-overflow", frame(WINDOW, STREAMS, 0, &[0xFF; 4])),
        ("credit-overflow", frame(WINDOW, 0, theirs, &[0xFF; 4])),
        (
            "message-too-long",
            opened(first_piece(own, (4 << 20) + 1, b"x")),
        ),
        ("message-too-long", opened(first_piece(own, u32::MAX, b"x"))),
        ("pieces-mismatch", opened(first_piece(own, 3, b"1234"))),
        (
            "pieces-mismatch",
            opened(
                [
                    first_piece(own, 10, b"1234"),
                    frame(DATA, END, own, b"56789"),
                ]
                .concat(),
            ),
        ),
        (
            "pieces-mismatch",
            opened(
                [
                    first_piece(own, 10, b"1234"),
                    frame(DATA, 0, own, b"5678901"),
                ]
                .concat(),
            ),
        ),
        (
            "pieces-mismatch",
            opened([first_piece(own, 10, b"1234"), frame(DATA, END, own, b"")].concat()),
        ),
        (
            "meta-out-of-place",
            opened(frame(META, 0, own, b"x").repeat(3)),
        ),
        (
            "meta-out-of-place",
            opened([first_piece(own, 10, b"1234"), frame(META, 0, own, b"x")].concat()),
        ),
        ("unexpected-pong", frame(PING, ACK, 0, &[0xAA; 8])),
    ]
}

async fn each_broken_rule_ends_its_session_by_name(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    for side in [Side::Dials, Side::Accepts] {
        for (n, (rule, bytes)) in violations(side).into_iter().enumerate() {
            let label = format!("violation {n} ({rule}) of a peer that {side:?}");
            let (session, mut raw) = with_raw(&net, side, &place.listener).await;
            let _stream = session.open("").soon().await.unwrap();
            assert!(raw.until(OPEN).await.is_some(), "{label}");
            raw.say(&bytes).await;

            let (code, text) = raw.goaway().await;
            raw.finish().await;
            let end = session.closed().soon().await;
            let SessionError::Protocol(error) = end else {
                panic!("{label}: {end}");
            };
            assert_eq!(error.rule(), rule, "{label}: {error}");
            assert_eq!(code, codes::PROTOCOL, "{label}");
            assert_eq!(text, format!("{rule}: {error}"), "{label}");
            raw.hung_up().await;
        }
        place.is_undisturbed().await;
    }
}

async fn each_broken_rule_of_the_handshake_is_named(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    let cases = [
        ("settings-missing", frame(PING, 0, 0, &[0; 8])),
        ("settings-missing", frame(OPEN, 0, 1, b"")),
        ("settings-missing", frame(DATA, END, 1, b"x")),
        ("settings-missing", frame(11, 0, 0, b"")),
        ("settings-missing", frame(GOAWAY, 0, 0, &[0; 8])),
        ("setting-below-floor", settings(&[(1, 16 * 1024 - 1)])),
        ("setting-below-floor", settings(&[(2, 0)])),
        ("setting-below-floor", settings(&[(3, 32 * 1024 - 1)])),
        ("setting-below-floor", settings(&[(4, 1)])),
        ("setting-below-floor", settings(&[(5, 15)])),
        ("setting-above-ceiling", settings(&[(1, 64 * 1024 + 1)])),
        ("setting-below-floor", settings(&[(6, 0)])),
        ("setting-above-ceiling", settings(&[(6, 3)])),
        ("setting-twice", settings(&[(5, 16), (9, 1), (5, 16)])),
        ("frame-too-long", header(7, 0, 0, 2731 * 6)),
        ("settings-length", header(7, 0, 0, 7)),
        ("frame-too-long", header(11, 0, 0, 0xFF_FFFF)),
    ];
    for (rule, bytes) in cases {
        let mut raw = Raw::dial(&place.listener).await;
        raw.say(&[PREFACE, &bytes[..]].concat()).await;
        assert!(raw.preface().await, "{rule}");
        let (code, text) = raw.goaway().await;
        assert_eq!(code, codes::PROTOCOL);
        assert!(text.starts_with(&format!("{rule}: ")), "{rule}: {text}");
        raw.hung_up().await;

        let error = connect_to(&net, [PREFACE, &bytes[..]].concat()).await;
        assert_eq!(error.rule(), rule, "{error}");
    }
    place.is_undisturbed().await;
    // None of them became a session.
    let client = net.connect(&place.listener, &Config::default()).await;
    let server = place.listener.accept().soon().await.unwrap();
    assert_eq!(server.peer_addr(), client.local_addr());
}

/// The rule that `connect` names when the server answers with these bytes.
async fn connect_to(net: &Net, answer: Vec<u8>) -> ProtocolError {
    let accepting = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = accepting.local_addr().unwrap().to_string();
    let addr = format!("tcp://{addr}").parse().unwrap();
    let answering = async {
        let (socket, _) = accepting.accept().soon().await.unwrap();
        let mut raw = Raw { socket };
        assert!(raw.preface().await);
        raw.say(&answer).await;
        raw
    };
    let config = Config::default();
    let (mut raw, connected) = tokio::join!(answering, net.engine().connect(&addr, &config).soon());
    let error = connected.unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    let ConnectError::Handshake { error, .. } = error else {
        panic!("{error}");
    };
    let SessionError::Protocol(rule) = error else {
        panic!("{error}");
    };
    let (_, text) = raw.goaway().await;
    assert!(text.starts_with(rule.rule()), "{text}");
    rule
}

async fn who_speaks_another_protocol_is_hung_up_on(net: Net) {
    // Long enough for the neighbour, also on a busy machine.
    let config = Config::builder()
        .handshake_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let place = Neighbourhood::new(&net, &config).await;
    let noise = pattern(5000, 99);
    let cases: [&[u8]; 10] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"DRPC!!!1",
        b"\0",
        b"RINGMUS\x01",
        b"RINGMUX\0",
        // Too little: given up after the handshake timeout.
        b"RINGMU",
        b"R",
        &noise,
    ];
    for bytes in cases {
        let mut raw = Raw::dial(&place.listener).await;
        raw.say(bytes).await;
        assert!(!raw.preface().await, "no answer to {bytes:?}");
    }
    let mut raw = Raw::dial(&place.listener).await;
    raw.say(b"RINGM").await;
    raw.finish().await;
    assert!(!raw.preface().await);
    place.is_undisturbed().await;
}

async fn a_server_of_garbage_is_a_handshake_error_with_the_rule(net: Net) {
    for (answer, rule) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "bad-preface"),
        (b"RINGMUS\x01".to_vec(), "bad-preface"),
        (b"RINGMUX\0".to_vec(), "bad-version"),
        (b"SSH-2.0-x\r\n".to_vec(), "bad-preface"),
        (pattern(5000, 5).to_vec(), "bad-preface"),
    ] {
        let error = connect_to(&net, answer).await;
        assert_eq!(error.rule(), rule, "{error}");
    }
}

/// One valid frame of each kind.
fn conversation(side: Side) -> Vec<u8> {
    let (a, b, c) = (side.own(0), side.own(1), side.own(2));
    [
        PREFACE.to_vec(),
        settings(&[(1, 16 * 1024), (4, 1 << 20), (77, 5)]),
        frame(OPEN, 0, a, b"opening"),
        frame(META, 0, a, b"headers"),
        frame(DATA, END, a, b"a message"),
        first_piece(a, 10, b"12345"),
        frame(11, 3, 0, b"an extension"),
        frame(PING, 0, 0, b"opaque!!"),
        frame(DATA, END, a, b"67890"),
        frame(OPEN, FIN, b, b""),
        frame(WINDOW, 0, 0, &1000_u32.to_le_bytes()),
        frame(WINDOW, 0, a, &1000_u32.to_le_bytes()),
        frame(WINDOW, STREAMS, 0, &1_u32.to_le_bytes()),
        frame(CANCEL, 1, b, &5_u32.to_le_bytes()),
        frame(OPEN, 0, c, b""),
        frame(ERROR, 0, c, b"\x01\0\0\0\x04\0text and details"),
        frame(CANCEL, 0, a, &6_u32.to_le_bytes()),
    ]
    .concat()
}

fn ended_by_cut(end: &SessionError) -> bool {
    matches!(end, SessionError::Disconnected | SessionError::Io(_))
}

async fn a_connection_cut_at_any_byte_ends_its_session_only(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    let conversation = conversation(Side::Dials);
    let handshake = PREFACE.len() + settings(&[(0, 0); 3]).len();
    for cut in 0..=conversation.len() {
        let mut raw = Raw::dial(&place.listener).await;
        raw.say(&conversation[..cut]).await;
        raw.finish().await;
        if cut >= handshake {
            let session = place.listener.accept().soon().await.unwrap();
            let end = session.closed().soon().await;
            assert!(ended_by_cut(&end), "cut at {cut}: {end}");
            assert_eq!(session.stats().streams, 0);
            // Complete messages are delivered, then the end.
            while let Ok(Some((_send, mut recv))) = session.accept().soon().await {
                loop {
                    match recv.recv().soon().await {
                        Ok(Some(message)) => {
                            assert!(message == "a message" || message == "1234567890");
                        }
                        Ok(None) | Err(StreamError::Failed(_)) => break,
                        Err(StreamError::Cancelled { code: 6, .. }) => break,
                        Err(StreamError::Session(end)) if ended_by_cut(&end) => break,
                        Err(error) => panic!("cut at {cut}: {error}"),
                    }
                }
            }
        }
        raw.hung_up().await;
        if cut % 32 == 0 {
            place.is_undisturbed().await;
        }
    }
    place.is_undisturbed().await;
}

async fn a_connection_cut_at_any_byte_of_the_servers_side_ends_its_session_only(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    let accepting = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = format!("tcp://{}", accepting.local_addr().unwrap())
        .parse()
        .unwrap();
    let conversation = conversation(Side::Accepts);
    let handshake = PREFACE.len() + settings(&[(0, 0); 3]).len();
    for cut in 0..=conversation.len() {
        let answering = async {
            let (socket, _) = accepting.accept().soon().await.unwrap();
            let mut raw = Raw { socket };
            raw.say(&conversation[..cut]).await;
            raw.finish().await;
            raw
        };
        let config = Config::default();
        let connecting = net.engine().connect(&addr, &config).soon();
        let (mut raw, connected) = tokio::join!(answering, connecting);
        match connected {
            Ok(session) => {
                assert!(cut >= handshake);
                let end = session.closed().soon().await;
                assert!(ended_by_cut(&end), "cut at {cut}: {end}");
            }
            // The cut may have ended the handshake.
            Err(ConnectError::Handshake { error, .. }) => {
                assert!(ended_by_cut(&error), "cut at {cut}: {error}");
            }
            Err(error) => panic!("cut at {cut}: {error}"),
        }
        raw.hung_up().await;
    }
    place.is_undisturbed().await;
}

async fn more_data_than_the_sessions_credit_is_refused(net: Net) {
    let fixed = Config::builder()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .unwrap();
    let place = Neighbourhood::new(&net, &fixed).await;
    for side in [Side::Dials, Side::Accepts] {
        let (session, mut raw) =
            with_raw_settings(&net, side, &place.listener, &fixed, &settings(&[])).await;
        // Within each stream's window, but not within the session's.
        for n in 0..8 {
            raw.say(&frame(OPEN, 0, side.own(n), b"")).await;
            raw.say(&frame(DATA, END, side.own(n), &[0; 16 * 1024]).repeat(3))
                .await;
        }
        let end = session.closed().soon().await;
        let SessionError::Protocol(error) = end else {
            panic!("{end}");
        };
        assert_eq!(error.rule(), "session-credit", "{error}");
        assert!(raw.goaway().await.1.starts_with("session-credit: "));
        place.is_undisturbed().await;
    }
}

async fn a_violation_ends_every_stream_with_the_same_error(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    for side in [Side::Dials, Side::Accepts] {
        let (session, mut raw) = with_raw(&net, side, &place.listener).await;
        let (_opened_send, mut opened_recv) = session.open("").soon().await.unwrap();
        assert!(raw.until(OPEN).await.is_some());
        raw.say(&frame(OPEN, 0, side.own(0), b"")).await;
        raw.say(&frame(DATA, END, side.own(0), b"whole")).await;
        let (mut accepted_send, mut accepted_recv) =
            session.accept().soon().await.unwrap().unwrap();
        let waiting = tokio::spawn(async move { opened_recv.recv().soon().await });
        let stray = side.own(9);
        raw.say(&frame(DATA, END, stray, b"")).await;
        let expected = ProtocolError::NeverOpened { id: id(stray) };
        let is_expected = |error: &StreamError| matches!(error, StreamError::Session(SessionError::Protocol(e)) if *e == expected);
        let error = waiting.soon().await.unwrap().unwrap_err();
        assert!(is_expected(&error), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(accepted_recv.recv().soon().await.unwrap().unwrap(), "whole");
        let error = accepted_recv.recv().soon().await.unwrap_err();
        assert!(is_expected(&error), "{error}");
        let error = accepted_send.send("x").soon().await.unwrap_err();
        assert!(
            matches!(&error, SendError::Stream(e) if is_expected(e)),
            "{error}"
        );
        let end = session.accept().soon().await.unwrap_err();
        assert!(
            matches!(end, SessionError::Protocol(e) if e == expected),
            "{end}"
        );
        assert!(!end.is_retryable());
    }
    place.is_undisturbed().await;
}

async fn what_nobody_knows_is_ignored(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    for side in [Side::Dials, Side::Accepts] {
        // More than the known ones, and some twice.
        let entries: Vec<_> = (7..107).map(|id| (id, 0)).collect();
        let strange = settings(&[&entries[..], &[(7, 1), (u16::MAX, 1), (u16::MAX, 1)]].concat());
        let config = Config::default();
        let (session, mut raw) =
            with_raw_settings(&net, side, &place.listener, &config, &strange).await;
        let own = side.own(0);
        raw.say(&frame(OPEN, 0, own, b"")).await;
        for kind in 11..16 {
            for (flags, stream) in [(0, 0), (0xF, 0), (5, own), (0, 12_345)] {
                raw.say(&frame(kind, flags, stream, &pattern(100, 1))).await;
            }
        }
        raw.say(&frame(15, 0, 0, &pattern(16 * 1024, 1))).await;
        raw.say(&frame(DATA, END, own, b"and on it goes")).await;
        let (mut send, mut recv) = session.accept().soon().await.unwrap().unwrap();
        assert_eq!(recv.recv().soon().await.unwrap().unwrap(), "and on it goes");
        send.send("answered").soon().await.unwrap();
        assert_eq!(raw.until(DATA).await.unwrap().payload, b"answered");
        assert!(session.state().end().is_none());
    }
}

async fn frames_for_ended_streams_are_ignored(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    for side in [Side::Dials, Side::Accepts] {
        let (session, mut raw) = with_raw(&net, side, &place.listener).await;
        let (mut ours_send, ours_recv) = session.open("").soon().await.unwrap();
        let opened = raw.until(OPEN).await.unwrap();
        assert_eq!(opened.stream, side.theirs(0));
        ours_send.cancel(3);
        assert_eq!(
            raw.until(CANCEL).await.unwrap().payload,
            3_u32.to_le_bytes()
        );
        drop((ours_send, ours_recv));
        // Each of these may cross the cancel.
        let stream = side.theirs(0);
        raw.say(&frame(META, 0, stream, b"x")).await;
        raw.say(&frame(DATA, END, stream, &[1; 16 * 1024]).repeat(3))
            .await;
        raw.say(&first_piece(stream, 1000, b"x")).await;
        raw.say(&frame(WINDOW, 0, stream, &5_u32.to_le_bytes()))
            .await;
        raw.say(&frame(CANCEL, 1, stream, &[0; 4])).await;
        raw.say(&frame(ERROR, 0, stream, &[0; 6])).await;
        raw.say(&frame(CANCEL, 0, stream, &[0; 4])).await;
        raw.say(&frame(PING, 0, 0, b"are you?")).await;
        loop {
            let pong = raw.until(PING).await.expect("the session goes on");
            if pong.payload == b"are you?" {
                break;
            }
        }
        assert!(session.state().end().is_none());
        assert_eq!(session.stats().bytes_held, 0, "their credit came back");
    }
}

async fn frames_may_come_byte_by_byte(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    let mut raw = Raw::dial(&place.listener).await;
    for byte in conversation(Side::Dials) {
        raw.say(&[byte]).await;
    }
    let session = place.listener.accept().soon().await.unwrap();
    for _ in 0..3 {
        session.accept().soon().await.unwrap().unwrap();
    }
    assert!(session.state().end().is_none());
    assert!(raw.preface().await);
    let pong = loop {
        let got = raw.until(PING).await.unwrap();
        if got.payload == b"opaque!!" {
            break got;
        }
    };
    assert_eq!(pong.stream, 0);
}

/// A session that has filled the socket of a peer that reads nothing; the library continues to send.
async fn unread(net: &Net, place: &Neighbourhood, side: Side) -> (Session, Raw) {
    let generous = settings(&[(2, 64 << 20), (3, 1 << 30), (4, 1 << 30)]);
    let config = Config::builder()
        .close_linger(Duration::from_millis(300))
        .build()
        .unwrap();
    let (session, raw) = with_raw_settings(net, side, &place.listener, &config, &generous).await;
    let (mut send, _recv) = session.open("").soon().await.unwrap();
    let message = Bytes::from(vec![1; 1 << 20]);
    // Until no byte moves while its neighbour is served: the machine may keep an engine waiting, and none moves then either.
    let mut queued = 0;
    loop {
        let sending = tokio::time::timeout(Duration::from_millis(300), send.send(message.clone()));
        if let Ok(sent) = sending.await {
            sent.unwrap();
            queued += message.len();
            assert!(queued < 64 << 20, "more than any socket holds");
            continue;
        }
        let sent = session.stats().bytes_sent;
        place.is_undisturbed().await;
        if session.stats().bytes_sent == sent {
            break;
        }
    }
    tokio::spawn(async move {
        // Held open for as long as the session lives.
        while send.send(message.clone()).await.is_ok() {}
    });
    (session, raw)
}

async fn a_peer_that_reads_nothing_cannot_keep_a_session_from_closing(net: Net) {
    let brief = Config::builder()
        .close_linger(Duration::from_millis(300))
        .build()
        .unwrap();
    let place = Neighbourhood::new(&net, &brief).await;
    for side in [Side::Dials, Side::Accepts] {
        let (session, mut raw) = unread(&net, &place, side).await;
        session.close();
        let end = session.closed().soon().await;
        assert!(matches!(end, SessionError::Closed), "{end}");
        place.is_undisturbed().await;
        // The connection is closed as well, though the GOAWAY cannot be sent.
        raw.hung_up().await;
    }
}

async fn a_peer_that_reads_nothing_is_still_ended_for_a_violation(net: Net) {
    let brief = Config::builder()
        .close_linger(Duration::from_millis(300))
        .build()
        .unwrap();
    let place = Neighbourhood::new(&net, &brief).await;
    for side in [Side::Dials, Side::Accepts] {
        let (session, mut raw) = unread(&net, &place, side).await;
        raw.say(&settings(&[])).await;
        let end = session.closed().soon().await;
        let named = matches!(end, SessionError::Protocol(ProtocolError::SettingsTwice));
        assert!(named, "{end}");
        place.is_undisturbed().await;
        raw.hung_up().await;
    }
}

async fn goaway_ends_what_it_does_not_cover_as_not_processed(net: Net) {
    let place = Neighbourhood::new(&net, &Config::default()).await;
    for side in [Side::Dials, Side::Accepts] {
        let (session, mut raw) = with_raw(&net, side, &place.listener).await;
        let (_covered_send, mut covered_recv) = session.open("").soon().await.unwrap();
        let (_lost_send, mut lost_recv) = session.open("").soon().await.unwrap();
        for _ in 0..2 {
            assert!(raw.until(OPEN).await.is_some());
        }
        let payload = [
            &side.theirs(0).to_le_bytes()[..],
            &codes::SHUTDOWN.to_le_bytes(),
            b"so long",
        ]
        .concat();
        raw.say(&frame(GOAWAY, 0, 0, &payload)).await;
        let error = lost_recv.recv().soon().await.unwrap_err();
        let StreamError::NotProcessed(SessionError::PeerClosed { code, reason }) = &error else {
            panic!("{error}");
        };
        assert_eq!((*code, &**reason), (codes::SHUTDOWN, "so long"));
        assert!(error.is_retryable());
        assert!(session.open("").soon().await.is_err());
        // The other stream continues to its end.
        raw.say(&frame(DATA, END | FIN, side.theirs(0), b"answer"))
            .await;
        assert_eq!(covered_recv.recv().soon().await.unwrap().unwrap(), "answer");
        assert_eq!(covered_recv.recv().soon().await.unwrap(), None);
        raw.finish().await;
        let end = session.closed().soon().await;
        assert!(
            matches!(
                end,
                SessionError::PeerClosed {
                    code: codes::SHUTDOWN,
                    ..
                }
            ),
            "{end}"
        );
    }
}

/// An attacker that opens and cancels gets its places back only when the application has let go of the streams.
async fn streams_opened_and_cancelled_at_once_stay_within_the_grant(net: Net) {
    let few = Config::builder().max_streams(16).build().unwrap();
    let place = Neighbourhood::new(&net, &few).await;
    let side = Side::Dials;
    let (session, mut raw) = with_raw(&net, side, &place.listener).await;
    let pair = |n| {
        let stream = side.own(n);
        [
            frame(OPEN, 0, stream, b""),
            frame(CANCEL, 0, stream, &[0; 4]),
        ]
        .concat()
    };
    for n in 0..16 {
        raw.say(&pair(n)).await;
    }
    raw.say(&frame(PING, 0, 0, b"all read")).await;
    loop {
        let got = raw.frame().await.expect("the session goes on");
        assert!(
            got.kind != WINDOW || got.stream != 0,
            "nothing is granted yet: {got:?}"
        );
        if got.kind == PING && got.payload == b"all read" {
            break;
        }
    }
    assert_eq!(session.stats().streams, 16);
    for _ in 0..16 {
        let (_send, mut recv) = session.accept().soon().await.unwrap().unwrap();
        let error = recv.recv().soon().await.unwrap_err();
        assert!(
            matches!(error, StreamError::Cancelled { code: 0, .. }),
            "{error}"
        );
    }
    assert!(
        raw.until(WINDOW).await.is_some(),
        "now they are granted again"
    );
    for n in 16..33 {
        raw.say(&pair(n)).await;
    }
    // One more than the places that can have been freed.
    let end = session.closed().soon().await;
    let SessionError::Protocol(error) = end else {
        panic!("{end}");
    };
    assert_eq!(error.rule(), "too-many-streams");
    place.is_undisturbed().await;
}

async fn a_limit_is_named_to_the_peer_in_the_words_of_the_error(net: Net) {
    let edge = Config::edge().build().unwrap();
    let place = Neighbourhood::new(&net, &edge).await;
    let (session, mut raw) = with_raw(&net, Side::Dials, &place.listener).await;
    let pings = frame(PING, 0, 0, b"and more").repeat(100);
    raw.say(&pings).await;
    let (code, text) = raw.goaway().await;
    assert_eq!(code, codes::LIMIT_EXCEEDED);
    let SessionError::LimitExceeded(error) = session.closed().soon().await else {
        panic!("{:?}", session.state().end());
    };
    assert_eq!(error.limit, Limit::PingRate);
    assert_eq!(text, error.to_string());
    // The burst, plus tokens of the seconds during which the machine may have stalled.
    assert!((11..100).contains(&error.value), "{error}");
    let stats = session.stats();
    assert_eq!(
        (stats.limits_tripped, stats.tripped.get(Limit::PingRate)),
        (1, 1)
    );
    assert!(
        ringmux::process_stats()
            .totals
            .sessions
            .tripped
            .get(Limit::PingRate)
            >= 1
    );
    place.is_undisturbed().await;
}
