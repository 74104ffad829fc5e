//! The tables, and the frames and times of a life, without a connection.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(10);

const STATES: [State; 10] = [
    State::Silent,
    State::Hello,
    State::Open,
    State::Announce,
    State::AwaitPong,
    State::LastId,
    State::RunOut,
    State::Flush,
    State::Closing,
    State::Closed,
];

const EVENTS: [Event; 12] = [
    Event::Preface,
    Event::Settings,
    Event::SettingsDraining,
    Event::Drain,
    Event::Close,
    Event::Announced,
    Event::Pong,
    Event::LastIdSaid,
    Event::Emptied,
    Event::End,
    Event::Said,
    Event::Lost,
];

/// One row a state, one cell an event, in the order of `EVENTS`: `-` ignored, `!` impossible, else the state after it and
/// the action: `+` opens are refused, `++` and given up, `x` all is torn down.
#[rustfmt::skip]
const TABLE: [(&str, [&str; 12]); 10] = [
    ("Silent",    ["Hello", "!",    "!",      "Silent++",   "Closedx", "!",         "-",      "!",      "!",       "Closedx", "!",       "Closedx"]),
    ("Hello",     ["-",     "Open", "LastId", "Hello++",    "Closing", "!",         "-",      "!",      "!",       "Closing", "!",       "Closedx"]),
    ("Open",      ["!",     "!",    "!",      "Announce++", "Flush+",  "!",         "-",      "!",      "!",       "Closing", "!",       "Closedx"]),
    ("Announce",  ["!",     "!",    "!",      "-",          "Flush+",  "AwaitPong", "-",      "!",      "!",       "Closing", "!",       "Closedx"]),
    ("AwaitPong", ["!",     "!",    "!",      "-",          "Flush+",  "!",         "LastId", "!",      "!",       "Closing", "!",       "Closedx"]),
    ("LastId",    ["!",     "!",    "!",      "-",          "Flush+",  "!",         "-",      "RunOut", "!",       "Closing", "!",       "Closedx"]),
    ("RunOut",    ["!",     "!",    "!",      "-",          "Flush+",  "!",         "-",      "!",      "Closedx", "Closing", "!",       "Closedx"]),
    ("Flush",     ["!",     "!",    "!",      "-",          "-",       "!",         "-",      "!",      "Closing", "Closing", "!",       "Closedx"]),
    ("Closing",   ["-",     "-",    "-",      "-",          "-",       "-",         "-",      "-",      "-",       "-",       "Closedx", "Closedx"]),
    ("Closed",    ["-",     "-",    "-",      "-",          "-",       "-",         "-",      "-",      "-",       "-",       "-",       "-"]),
];

fn text(cell: Cell) -> String {
    match cell {
        Cell::Ignored => "-".to_owned(),
        Cell::Impossible(_) => "!".to_owned(),
        Cell::To(state, action) => {
            let mark = match action {
                Action::Ignore => "?",
                Action::Proceed => "",
                Action::RefuseOpens => "+",
                Action::GiveUpOpens => "++",
                Action::TearDown => "x",
            };
            format!("{state:?}{mark}")
        }
    }
}

/// A failing test prints the rows of the code.
#[test]
fn every_state_and_event_moves_as_the_table_says() {
    let events: Vec<_> = EVENTS.map(|event| format!("{event:?}")).into();
    println!("{:10} {}", "", events.join("  "));
    for state in STATES {
        let cells = EVENTS.map(|event| text(next(state, event)));
        println!("{:10} {}", format!("{state:?}"), cells.join("  "));
    }
    for (state, (row, cells)) in STATES.into_iter().zip(TABLE) {
        assert_eq!(format!("{state:?}"), row);
        for (event, cell) in EVENTS.into_iter().zip(cells) {
            assert_eq!(text(next(state, event)), cell, "{row} on {event:?}");
        }
    }
}

#[test]
fn no_event_leads_back_and_every_state_can_end() {
    for (index, state) in STATES.into_iter().enumerate() {
        assert_eq!(state as usize, index);
        for event in EVENTS {
            if let Cell::To(after, action) = next(state, event) {
                assert!(after >= state, "{state:?} on {event:?}");
                let tears_down = action == Action::TearDown;
                assert_eq!(tears_down, after == State::Closed, "{state:?} on {event:?}");
            }
        }
        let ends = next(state, Event::Lost) == Cell::To(State::Closed, Action::TearDown);
        assert_eq!(ends, state != State::Closed);
    }
}

/// The queries that are true in each state, and the timers that run in it.
#[rustfmt::skip]
const MEANS: [(&str, &str, &[Timer]); 10] = [
    ("Silent",    "",                         &[Timer::Handshake, Timer::HelloGrace]),
    ("Hello",     "send",                     &[Timer::Handshake, Timer::HelloGrace]),
    ("Open",      "send established admits",  &[Timer::FirstCall, Timer::Age, Timer::Keepalive, Timer::Orphan]),
    ("Announce",  "send established admits",  &[Timer::Ceiling, Timer::Keepalive, Timer::Orphan]),
    ("AwaitPong", "send established admits",  &[Timer::Ceiling, Timer::Pong, Timer::Keepalive, Timer::Orphan]),
    ("LastId",    "send established",         &[Timer::Ceiling, Timer::Keepalive, Timer::Orphan]),
    ("RunOut",    "send established",         &[Timer::Ceiling, Timer::Keepalive, Timer::Orphan]),
    ("Flush",     "send established",         &[Timer::Ceiling, Timer::Keepalive]),
    ("Closing",   "send ending",              &[Timer::FinalGoaway]),
    ("Closed",    "ending",                   &[]),
];

#[test]
fn each_state_allows_what_it_should_and_runs_its_timers() {
    for (state, (row, allowed, timers)) in STATES.into_iter().zip(MEANS) {
        let life = Life {
            state,
            ..opened().0
        };
        let facts = [
            (life.may_send(), "send"),
            (life.is_established(), "established"),
            (life.admits(), "admits"),
            (life.is_ending(), "ending"),
        ];
        let facts: Vec<_> = facts.iter().filter(|(is, _)| *is).map(|it| it.1).collect();
        assert_eq!(facts.join(" "), allowed, "{row}");
        let everywhere = [
            Timer::Recheck,
            Timer::Advances,
            Timer::Shrink,
            Timer::Spares,
            Timer::Deadlines,
            Timer::Calls,
        ];
        for timer in Timer::ALL {
            let common = everywhere.contains(&timer) && state != State::Closed;
            let runs = life.timers().contains(timer);
            assert_eq!(
                runs,
                common || timers.contains(&timer),
                "{timer:?} in {row}"
            );
        }
    }
}

/// An open session.
fn opened() -> (Life, Timers, Instant) {
    let now = Instant::now();
    let mut life = Life::new(true, LINGER);
    assert_eq!(life.preface(), Action::Proceed);
    assert_eq!(life.settings(), Action::Proceed);
    (life, Timers::new(now), now)
}

fn peer_closed(code: u32) -> SessionError {
    SessionError::PeerClosed {
        code,
        reason: "".into(),
    }
}

/// The code of the peer's GOAWAY.
fn code(error: &SessionError) -> Option<u32> {
    match error {
        SessionError::PeerClosed { code, .. } => Some(*code),
        _ => None,
    }
}

#[test]
fn a_dialler_may_speak_first_and_an_acceptor_may_not() {
    for (is_silent, may) in [(false, true), (true, false)] {
        let mut life = Life::new(is_silent, LINGER);
        assert_eq!(life.may_send(), may);
        let now = Instant::now();
        let action = life.end(SessionError::Closed, now, &mut Timers::new(now));
        assert_eq!(life.is_closing(), may, "the other has no final GOAWAY");
        assert_eq!(action == Action::TearDown, !may);
    }
}

#[test]
fn only_the_ping_behind_the_announcement_proves_that_the_peer_has_read_it() {
    let (mut life, mut timers, now) = opened();
    assert_eq!(
        life.drain(30 * SECOND, now, &mut timers),
        Action::GiveUpOpens
    );
    assert_eq!(life.pong(7), Action::Ignore);
    assert_eq!(life.goaway_owed(), Some(Goaway::Soon));
    assert_eq!(life.announced(8, now, &mut timers), Action::Proceed);
    assert_eq!(timers.next(life.timers()), Some(now + PONG_WAIT));
    assert_eq!((life.goaway_owed(), life.pong(7)), (None, Action::Ignore));
    assert_eq!(life.pong(8), Action::Proceed);
    assert_eq!(life.goaway_owed(), Some(Goaway::LastId));
    assert_eq!(life.last_id_said(), Action::Proceed);
    assert_eq!(timers.next(life.timers()), Some(now + 30 * SECOND));
    assert_eq!(life.emptied(now, &mut timers), Action::TearDown);
    assert!(matches!(
        life.reason.end_reason(),
        Some(SessionError::Closed)
    ));
}

#[test]
fn a_drain_that_is_asked_for_again_only_becomes_shorter() {
    let (mut life, mut timers, now) = opened();
    for (grace, ceiling) in [(30, 30), (60, 30), (10, 10)] {
        let _ = life.drain(grace * SECOND, now, &mut timers);
        assert_eq!(timers.get(Timer::Ceiling), Some(now + ceiling * SECOND));
    }
    // `close` ends no later than that, whatever its linger is.
    let _ = life.close(now + 5 * SECOND, &mut timers);
    assert_eq!(timers.next(life.timers()), Some(now + 10 * SECOND));
    let closed = life.linger_until(now + 9 * SECOND);
    assert_eq!(closed, now + 10 * SECOND + SOCKET_CLOSED);
}

#[test]
fn a_drain_hastens_a_final_goaway_that_waits() {
    let (mut life, mut timers, now) = opened();
    let _ = life.end(SessionError::Closed, now, &mut timers);
    assert_eq!(timers.next(life.timers()), Some(now + LINGER));
    let _ = life.drain(2 * SECOND, now, &mut timers);
    assert_eq!(
        timers.next(life.timers()),
        Some(now + 2 * SECOND + FINAL_GOAWAY)
    );
    assert_eq!(
        life.linger_until(now + LINGER),
        now + 2 * SECOND + SOCKET_CLOSED
    );
}

#[test]
fn at_a_ceiling_the_final_goaway_and_the_socket_have_little_time_left() {
    let (mut life, mut timers, now) = opened();
    let _ = life.drain(2 * SECOND, now, &mut timers);
    let then = now + 2 * SECOND;
    let _ = life.end(SessionError::Closed, then, &mut timers);
    assert_eq!(timers.next(life.timers()), Some(then + FINAL_GOAWAY));
    assert_eq!(life.linger_until(then), then + SOCKET_CLOSED);
}

#[test]
fn a_drain_during_the_handshake_gives_it_a_second_and_then_accepts_nothing() {
    let now = Instant::now();
    let mut timers = Timers::new(now);
    let mut life = Life::new(false, LINGER);
    let _ = life.drain(30 * SECOND, now, &mut timers);
    assert_eq!(timers.next(life.timers()), Some(now + HELLO_WAIT));
    assert_eq!(life.settings(), Action::Proceed);
    assert_eq!(
        (life.admits(), life.goaway_owed()),
        (false, Some(Goaway::LastId))
    );
    assert_eq!(timers.next(life.timers()), Some(now + 30 * SECOND));
}

#[test]
fn the_first_reason_to_end_stays_and_is_stronger_than_the_peers_goaway() {
    let (mut life, mut timers, now) = opened();
    assert!(life.refusal().is_none());
    life.reason.peer_goaway(peer_closed(1), true);
    assert_eq!(life.refusal().as_ref().and_then(code), Some(1));
    let lost = life.reason_at_eof(true);
    assert!(matches!(lost, SessionError::Disconnected), "it was to come");
    life.reason.peer_goaway(peer_closed(2), false);
    life.reason.peer_goaway(peer_closed(3), true);
    assert_eq!(life.refusal().as_ref().and_then(code), Some(2));
    assert_eq!(code(&life.reason_at_eof(true)), Some(2));
    let lost = SessionError::KeepaliveTimeout(SECOND);
    let _ = life.end(lost, now, &mut timers);
    life.reason.peer_goaway(peer_closed(4), false);
    assert_eq!(life.final_goaway().0, codes::KEEPALIVE);
    assert_eq!(
        life.end(SessionError::Closed, now, &mut timers),
        Action::Ignore
    );
    assert_eq!(life.abort(SessionError::EngineStopped), Action::TearDown);
    let reason = life.reason.end_reason();
    assert!(matches!(reason, Some(SessionError::KeepaliveTimeout(_))));
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_shutdown_is_an_end_in_order_if_nothing_is_lost() {
    let (mut life, mut timers, now) = opened();
    let _ = life.drain(30 * SECOND, now, &mut timers);
    assert!(matches!(life.reason_at_eof(false), SessionError::Closed));
    assert!(matches!(
        life.reason_at_eof(true),
        SessionError::Disconnected
    ));
    let _ = life.close(now, &mut timers);
    assert!(matches!(life.reason_at_eof(true), SessionError::Closed));
}

/// In the order of the stages' events: written, shut down, gone, overdue, freed, abandoned.
#[rustfmt::skip]
const SOCKET: [(SocketStage, [&str; 6]); 5] = [
    (SocketStage::Serving,      ["ShuttingDown", "-",         "-",         "Releasing", "-",        "Released"]),
    (SocketStage::ShuttingDown, ["-",            "Lingering", "Releasing", "Releasing", "-",        "Released"]),
    (SocketStage::Lingering,    ["-",            "-",         "Releasing", "Releasing", "-",        "Released"]),
    (SocketStage::Releasing,    ["-",            "-",         "-",         "-",         "Released", "Released"]),
    (SocketStage::Released,     ["-",            "-",         "-",         "-",         "-",        "-"]),
];

#[test]
fn every_stage_of_the_socket_moves_as_the_table_says() {
    let events = [
        SocketEvent::Written,
        SocketEvent::ShutDown,
        SocketEvent::Gone,
        SocketEvent::Overdue,
        SocketEvent::Freed,
        SocketEvent::Abandoned,
    ];
    for (stage, cells) in SOCKET {
        for (event, cell) in events.into_iter().zip(cells) {
            let after = stage.on(event);
            let got = match after == stage {
                true => "-".to_owned(),
                false => format!("{after:?}"),
            };
            assert_eq!(got, cell, "{stage:?} on {event:?}");
        }
    }
}
