//! Over a wire without credit a side whose application consumes nothing does not read: the credit and the end of the connection are
//! behind those bytes.
//!
//! A caller sends before it reads, to a server that answers before it has read all. So the caller waits for credit that is
//! behind the answers, and nothing is wrong with either session until the server's `write_timeout`.

use super::*;
use crate::drpc::{FlowControl, Profile};
use crate::error::{SendError, SessionError, StreamError};
use crate::wire::Drpc;

/// `write_timeout`, looks at the socket in it, and `drain_timeout`.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2500);
const DRAIN: Duration = Duration::from_secs(30);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The peer's window of a stream, and what a session may hold, in bytes.
const WINDOW: usize = 20_000;
const HELD: usize = 256 * 1024;
/// Bytes under way.
const PIPE: usize = 64 * 1024;
const ANSWER: usize = 16 * 1024;

impl Pair<Drpc> {
    /// Both drivers, until neither makes progress without time passing.
    fn settle(&mut self) {
        while let Some(side) = [D, A].into_iter().find(|side| self.has_cause(*side)) {
            self.run(side);
            let ends = &mut self.ends;
            ends.iter_mut()
                .for_each(invariants::books_of_one_side_balance);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        while let Some(at) = self.next_event().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn end(&self, side: usize) -> Option<SessionError> {
        self.ends[side].session().link().end().cloned()
    }
}

/// The caller's end of the call, the server's, and how many answers that one has queued: until the caller holds all that it may,
/// and the network too. The caller has used up its credit, and the server has returned some behind the answers.
fn crossed() -> (Pair<Drpc>, Stream, Stream, usize) {
    let config = |flow| {
        let profile = Profile::COCKROACH.window(WINDOW as u32);
        let config = config()
            .drpc(profile.flow_control(flow))
            .session_window(HELD as u32)
            .session_window_max(2 * HELD as u32)
            .send_buffer(4096);
        config.build().expect("valid")
    };
    let ends = [config(FlowControl::WhenSeen), config(FlowControl::On)];
    // Nothing beyond the floor.
    let pools = [Pool::new(0), Pool::new(0)];
    let weather = Weather {
        capacity: PIPE,
        ..Weather::FAIR
    };
    let mut pair = Pair::at(Instant::now(), &ends[D], &ends[A], &pools, &weather, 0);
    pair.settle();
    let mut call = now(pair.ends[D].session().open("/call")).expect("a call");
    // The server returns credit for it, so the caller knows that there is some.
    now(call.send(message(WINDOW))).unwrap();
    pair.settle();
    let mut served = now(pair.ends[A].session().accept()).unwrap().unwrap();
    assert_eq!(now(served.recv()).unwrap().unwrap().len(), WINDOW);
    pair.settle();
    // The first of these uses it up, and the second waits for it in the queue.
    for _ in 0..2 {
        now(call.send(message(WINDOW))).unwrap();
        pair.settle();
    }
    let mut answers = 0;
    while served.try_send(message(ANSWER)).is_ok() {
        answers += 1;
        pair.settle();
    }
    assert!(pair.ends[D].full.is_some() && pair.ends[A].writing);
    assert_eq!(now(served.recv()).unwrap().unwrap().len(), WINDOW);
    pair.settle();
    (pair, call, served, answers)
}

/// A sender without room: the first request of a stream's sender is answered by a wake, as room may have been made before. The
/// number of its wakes.
fn wait<T>(pair: &mut Pair<Drpc>, sending: &mut Polled<'_, T>) -> usize {
    for _ in 0..2 {
        sending.pending();
        pair.settle();
    }
    sending.wakes()
}

#[test]
fn a_sender_whose_credit_is_behind_unread_answers_goes_on_as_soon_as_they_are_read() {
    let (mut pair, call, mut served, answers) = crossed();
    let (mut sender, mut receiver) = call;
    let mut sending = Polled::new(sender.send(message(WINDOW)));
    let wakes = wait(&mut pair, &mut sending);
    pair.pass(LIMIT - MILLISECOND);
    assert_eq!(sending.wakes(), wakes);
    for _ in 0..answers {
        let answer = now(receiver.recv()).unwrap().unwrap();
        assert_eq!(answer.len(), ANSWER);
        pair.settle();
    }
    assert!(sending.wakes() > wakes);
    assert!(sending.ready().is_ok());
    pair.settle();
    for _ in 0..2 {
        assert_eq!(now(served.recv()).unwrap().unwrap().len(), WINDOW);
        pair.settle();
    }
    assert_eq!([pair.end(D), pair.end(A)].iter().flatten().count(), 0);
}

#[test]
fn answers_that_are_not_read_end_the_server_by_name_and_its_caller_though_that_does_not_read() {
    let (mut pair, call, mut served, _) = crossed();
    let (mut sender, mut receiver) = call;
    let mut sending = Polled::new(sender.send(message(WINDOW)));
    let wakes = wait(&mut pair, &mut sending);
    assert!(!pair.ends[D].holds_back_for(LIMIT, pair.now));
    pair.pass(LIMIT - MILLISECOND);
    assert!(pair.end(A).is_none());
    pair.pass(MILLISECOND);
    let end = pair.end(A).expect("it is over");
    assert!(matches!(end, SessionError::WriteTimeout(LIMIT)), "{end}");
    assert!(pair.ends[D].holds_back_for(LIMIT, pair.now));
    assert!(now(served.recv()).is_err());
    // The caller's application is told after the time that it has to make room.
    pair.pass(DRAIN);
    assert!(pair.end(D).is_none() && sending.wakes() == wakes);
    pair.pass(LOOK + Duration::from_secs(1));
    let end = pair.end(D).expect("it is over");
    assert!(matches!(end, SessionError::Disconnected), "{end}");
    let sent = sending.ready();
    assert!(
        matches!(
            &sent,
            Err(SendError::Stream(StreamError::Session(
                SessionError::Disconnected
            )))
        ),
        "{sent:?}"
    );
    // What had arrived is delivered.
    let mut unread = 0;
    while let Some(answer) = now(receiver.recv()).transpose() {
        match answer {
            Ok(answer) => unread += answer.len(),
            Err(_) => break,
        }
    }
    assert!(unread >= HELD - 2 * ANSWER, "{unread}");
    drop((sender, receiver, served));
    pair.settle();
    assert!(
        pair.ends
            .iter()
            .all(|end| end.closed && end.pool.used() == 0)
    );
}

#[test]
fn a_caller_that_reads_after_the_server_has_gone_gets_all_that_had_left_it() {
    let (mut pair, mut call, _served, _) = crossed();
    pair.pass(LIMIT + 2 * LOOK);
    assert!(pair.end(A).is_some() && pair.end(D).is_none());
    let mut read = 0;
    let end = loop {
        match now(call.recv()) {
            Ok(answer) => read += answer.expect("no clean end").len(),
            Err(end) => break end,
        }
        pair.settle();
    };
    let all = HELD + PIPE - 2 * ANSWER;
    assert!(read >= all, "{read} of {all}");
    let lost = matches!(end, StreamError::Session(SessionError::Disconnected));
    assert!(lost, "{end}");
}

#[test]
fn a_server_that_is_killed_is_noticed_at_the_next_look_by_a_caller_that_does_not_read() {
    let (mut pair, _call, _served, _) = crossed();
    pair.crash(A, Cut::Error);
    pair.pass(LOOK);
    let end = pair.end(D).expect("it is over");
    assert!(matches!(end, SessionError::Io(_)), "{end}");
}
