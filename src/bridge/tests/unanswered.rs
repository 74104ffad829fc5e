//! A lost peer over a wire without PINGs: what its system leaves unanswered.

use super::*;
use crate::core::keepalive::PeerSystem::{self, Answers, Silent, Unknown};
use crate::drpc::Profile;
use crate::error::SessionError;
use crate::wire::Drpc;

/// `write_timeout`, and looks at the socket in it.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2500);
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A client whose socket takes everything.
struct Caller {
    now: Instant,
    end: End<Drpc>,
    session: Session,
    stream: Stream,
    /// Bytes that the socket has taken.
    taken: u64,
    looks: u32,
}

impl Caller {
    /// With an open stream.
    fn new() -> Self {
        let config = Config::builder().drpc(Profile::COCKROACH);
        let now = Instant::now();
        let config = config.build().unwrap();
        let mut end = End::new(Role::Dialer, &config, &Pool::new(1 << 30), now);
        let session = end.session().clone();
        end.connection.take_work(now);
        let stream = session.try_open("/call").unwrap();
        Self {
            now,
            end,
            session,
            stream,
            taken: 0,
            looks: 0,
        }
    }

    /// Sends a few bytes; the socket takes them.
    fn send(&mut self) {
        now(self.stream.send("call")).unwrap();
        let connection = &mut self.end.connection;
        connection.take_work(self.now);
        while connection.transmit(&mut self.end.batch, self.now) {
            let bytes = self.end.batch.len();
            self.end.batch.clear();
            self.taken += bytes as u64;
            connection.written(bytes, false, self.now);
        }
        connection.deliver_wakes();
    }

    fn hear(&mut self) {
        // A message of one byte on stream 1.
        let mut bytes = BytesMut::from(&b"\x05\x01\x01\x01x"[..]);
        while self.end.connection.receive(&mut bytes, self.now) {}
        self.end.connection.deliver_wakes();
    }

    /// Lets time pass. Of the bytes that the socket has taken, this many have left it.
    fn elapse(&mut self, time: Duration, left: u64, system: impl Fn(Instant) -> PeerSystem) {
        let until = self.now + time;
        let connection = &mut self.end.connection;
        while let Some(at) = connection.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            if connection.looks_at_socket(self.now) {
                self.looks += 1;
                connection.see_socket(Some(self.taken - left), self.now);
                connection.see_peer_system(system(self.now), self.now);
            }
            connection.on_deadline(self.now);
        }
        self.now = until;
    }

    fn is_over(&self) -> bool {
        self.session.state().end().is_some()
    }
}

#[test]
fn small_calls_to_a_system_that_answers_nothing_end_the_session_a_look_after_the_limit() {
    let mut caller = Caller::new();
    caller.send();
    let left = caller.taken;
    caller.elapse(60 * SECOND, left, |_| Answers);
    let vanished = caller.now;
    let mut calls = 0;
    while !caller.is_over() {
        caller.send();
        calls += 1;
        caller.elapse(2 * SECOND, left, |now| Silent(now - vanished));
        assert!(calls < 30, "for a minute nothing was noticed");
    }
    let end = caller.session.state().end().unwrap();
    assert!(matches!(end, SessionError::WriteTimeout(LIMIT)), "{end}");
    assert_eq!(caller.session.stats().write_timeouts, 1);
    let took = caller.now - vanished;
    assert!(
        took >= LIMIT && took <= LIMIT + LOOK + 2 * SECOND,
        "{took:?}"
    );
}

#[test]
fn one_lost_message_is_enough_and_the_limit_is_exact() {
    let mut caller = Caller::new();
    let sent = caller.now;
    caller.send();
    caller.elapse(LOOK + LIMIT - MILLISECOND, 0, |now| Silent(now - sent));
    assert!(!caller.is_over());
    caller.elapse(MILLISECOND, 0, |now| Silent(now - sent));
    assert!(caller.is_over());
}

#[test]
fn a_peer_that_takes_nothing_and_answers_is_no_dead_one() {
    let mut caller = Caller::new();
    caller.send();
    caller.elapse(3600 * SECOND, 0, |_| Answers);
    assert!(!caller.is_over());
    // A probe is under way at one look, and answered at the next.
    for _ in 0..100 {
        caller.elapse(LOOK, 0, |_| Silent(100 * SECOND));
        caller.elapse(LOOK, 0, |_| Answers);
    }
    assert!(!caller.is_over());
    caller.elapse(LIMIT + LOOK, 0, |_| Silent(100 * SECOND));
    assert!(caller.is_over(), "then it vanishes");
}

/// The system probes a window that stays closed once in two minutes at last.
#[test]
fn of_a_peer_that_takes_nothing_a_lost_probe_is_no_sign_and_two_that_are_further_apart_than_the_limit_are()
 {
    let mut caller = Caller::new();
    caller.send();
    for _ in 0..10 {
        caller.elapse(120 * SECOND, 0, |_| Silent(Duration::ZERO));
        caller.elapse(LOOK, 0, |_| Answers);
        // A network that is away for less than the limit, and a next probe that is further away.
        caller.elapse(LIMIT, 0, |_| Silent(Duration::ZERO));
        caller.elapse(2 * LIMIT, 0, |_| Silent(LIMIT - SECOND));
        caller.elapse(LOOK, 0, |_| Answers);
    }
    assert!(!caller.is_over());
    caller.elapse(120 * SECOND, 0, |_| Silent(Duration::ZERO));
    let lost = caller.now;
    while !caller.is_over() {
        caller.elapse(SECOND, 0, |_| Silent(60 * SECOND));
        assert!(caller.now - lost <= LIMIT + LOOK, "it is not noticed");
    }
}

#[test]
fn a_silence_before_anything_was_sent_does_not_count() {
    let mut caller = Caller::new();
    caller.elapse(3600 * SECOND, 0, |_| Answers);
    caller.send();
    caller.elapse(LOOK + LIMIT - MILLISECOND, 0, |_| Silent(3600 * SECOND));
    assert!(!caller.is_over());
}

#[test]
fn bytes_that_leave_and_bytes_that_arrive_are_signs_of_life() {
    let mut caller = Caller::new();
    for n in 0..60 {
        caller.send();
        caller.elapse(2 * SECOND, n, |_| Silent(100 * SECOND));
    }
    assert!(!caller.is_over(), "bytes leave");
    let left = caller.taken - 1;
    for _ in 0..60 {
        caller.hear();
        caller.elapse(2 * SECOND, left, |_| Silent(100 * SECOND));
    }
    assert!(!caller.is_over(), "bytes arrive");
}

#[test]
fn a_socket_is_looked_at_until_it_is_empty_or_tells_nothing() {
    for (queued, system) in [(0, Answers), (0, Silent(LIMIT)), (1, Unknown)] {
        let mut caller = Caller::new();
        caller.send();
        let left = caller.taken - queued;
        caller.elapse(3600 * SECOND, left, |_| system);
        assert!(!caller.is_over(), "{system:?}");
        assert_eq!(caller.looks, 1, "{system:?}");
        assert_eq!(caller.end.connection.next_deadline(), None, "{system:?}");
    }
}

#[test]
fn a_side_that_was_stopped_itself_looks_again_before_it_judges() {
    let mut caller = Caller::new();
    for _ in 0..5 {
        let left = caller.taken;
        caller.send();
        caller.elapse(LOOK + SECOND, left, |_| Silent(SECOND));
        // Stopped for a minute: the answers have not been seen.
        caller.now += 60 * SECOND;
        caller.elapse(Duration::ZERO, left, |_| Silent(60 * SECOND));
        assert!(!caller.is_over());
        caller.elapse(LOOK, caller.taken, |_| Answers);
    }
    assert!(!caller.is_over());
    caller.send();
    caller.elapse(LOOK + SECOND, 0, |_| Silent(SECOND));
    for _ in 0..2 {
        caller.now += 60 * SECOND;
        caller.elapse(Duration::ZERO, 0, |_| Silent(60 * SECOND));
    }
    assert!(caller.is_over(), "lateness is forgiven once");
}

#[test]
fn bytes_of_a_peer_that_has_closed_wait_for_the_drain_timeout_of_a_side_that_runs() {
    const TIME: Duration = Duration::from_secs(30);
    let mut caller = Caller::new();
    caller.send();
    let left = caller.taken;
    caller.end.connection.peer_has_closed(caller.now);
    for _ in 0..3 {
        caller.elapse(TIME - SECOND, left, |_| Answers);
        caller.hear();
    }
    // Stopped for a minute: its application had no time to read.
    caller.now += 60 * SECOND;
    caller.elapse(TIME - MILLISECOND, left, |_| Answers);
    assert!(!caller.is_over());
    caller.elapse(MILLISECOND, left, |_| Answers);
    let end = caller.session.state().end().unwrap();
    assert!(matches!(end, SessionError::Disconnected), "{end}");
}
