//! Unary calls in one frame each way: their ends from either side, at every step of a shutdown, their credit and their limits.

use super::solo::{self, Solo, cancel, data, id, open, window};
use super::*;
use crate::bridge::SHORT_MAX;
use crate::config::Rate;
use crate::core::IDLE;
use crate::error::codes;
use crate::error::{Limit, Processed, SessionError, Side, StreamError};
use crate::handle::call::{Acceptor, Answer, Arrival, IncomingCall, PendingCall, Request};
use crate::wire::native::frame::{Frame, MAX_CALL_LEN, Scope, Settings, cost};
use std::borrow::Cow;
use std::convert::Infallible;

const MOST: usize = 16 * 1024 - 2;

pub(super) fn begin(
    session: &Session,
    message: Bytes,
    deadline: Option<Instant>,
) -> Option<PendingCall<'static>> {
    let opening = |block: &mut Vec<u8>| block.extend_from_slice(b"a/B");
    let mut request = Request::raw(session, &message);
    PendingCall::begin(
        &Cow::Owned(session.clone()),
        opening,
        &mut request,
        deadline,
    )
}

fn poll(call: &mut PendingCall<'static>) -> Option<Answer> {
    let cx = Context::from_waker(Waker::noop());
    match call.poll(&cx) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[track_caller]
fn failed(call: &mut PendingCall<'static>) -> StreamError {
    match poll(call) {
        Some(Answer::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(super) fn answered(call: &mut PendingCall<'static>) -> Bytes {
    match poll(call) {
        Some(Answer::Message(message, _)) => message,
        other => panic!("{other:?}"),
    }
}

pub(super) fn taken(acceptor: &mut Acceptor) -> Option<IncomingCall> {
    let cx = Context::from_waker(Waker::noop());
    match acceptor.poll(&cx) {
        Poll::Ready(Ok(Some(Arrival::Call(call)))) => Some(call),
        Poll::Ready(other) => panic!("{other:?}"),
        Poll::Pending => None,
    }
}

fn gone(call: &mut IncomingCall) -> Option<StreamError> {
    let cx = Context::from_waker(Waker::noop());
    match call.poll_gone(&cx) {
        Poll::Ready(error) => Some(error),
        Poll::Pending => None,
    }
}

/// Two sides, of which the accepting one takes calls.
pub(super) fn serving(config: &Config) -> (Pair, Acceptor) {
    let mut pair = Pair::established(config, config);
    let acceptor = Acceptor::new(pair.ends[A].session().clone());
    pair.drive();
    (pair, acceptor)
}

impl Pair {
    #[track_caller]
    pub(super) fn call(&mut self, message: impl Into<Bytes>) -> PendingCall<'static> {
        begin(self.ends[D].session(), message.into(), None).expect("the peer takes calls")
    }

    /// A call that a handler has.
    #[track_caller]
    fn running(&mut self, acceptor: &mut Acceptor) -> (PendingCall<'static>, IncomingCall) {
        let call = self.call("request");
        self.drive();
        let mut taken = taken(acceptor).expect("it has arrived");
        assert_eq!(taken.opening(), b"a/B");
        assert_eq!(taken.take_request(), "request");
        (call, taken)
    }
}

// ---- answers ------------------------------------------------------------------------------------

#[test]
fn a_call_is_one_frame_each_way_and_goes_to_a_side_that_has_said_that_it_takes_some() {
    let config = small_config();
    let mut pair = Pair::established(&config, &config);
    let client = pair.ends[D].session().clone();
    assert!(
        begin(&client, Bytes::new(), None).is_none(),
        "none is taken"
    );
    let mut acceptor = Acceptor::new(pair.ends[A].session().clone());
    pair.drive();
    let before = client.stats();
    for n in 0..100_u32 {
        let mut call = pair.call(n.to_string());
        assert!(poll(&mut call).is_none());
        pair.drive();
        let mut incoming = taken(&mut acceptor).expect("it has arrived");
        let request = incoming.take_request();
        incoming.reply(request);
        pair.drive();
        assert_eq!(answered(&mut call), n.to_string());
    }
    let stats = client.stats();
    assert_eq!(stats.calls - before.calls, 100);
    assert_eq!(stats.opened - before.opened, 100);
    assert_eq!(stats.finished - before.finished, 100);
    assert_eq!(stats.messages_received - before.messages_received, 100);
    assert_eq!(stats.streams, 0);
    // Some grants are sent together.
    assert!(
        stats.frames_received - before.frames_received < 200,
        "{stats:?}"
    );
    pair.is_clean();
    drop(acceptor);
    pair.drive();
    assert!(
        begin(&client, Bytes::new(), None).is_none(),
        "none is taken any more"
    );
    pair.is_clean();
}

/// Short payloads of one reception are copied together.
#[test]
fn calls_that_arrive_together_have_their_own_requests_and_answers() {
    let (mut pair, mut acceptor) = serving(&Config::default());
    let lens = [
        0, 64, 1, 300, 503, 504, 505, 506, 511, 512, 513, 64, 64, 2000, 64, 0, 0,
    ];
    let of = |n: usize, add: usize| Bytes::from(vec![n as u8; lens[n] + add]);
    let before = pair.ends[D].session().stats();
    for _ in 0..20 {
        let numbers = 0..lens.len();
        let mut calls: Vec<_> = numbers.clone().map(|n| pair.call(of(n, 0))).collect();
        pair.drive();
        for n in numbers.clone() {
            let mut incoming = taken(&mut acceptor).expect("it has arrived");
            assert_eq!(incoming.opening(), b"a/B");
            assert_eq!(incoming.take_request(), of(n, 0));
            incoming.reply(of(n, 3));
        }
        pair.drive();
        for (n, call) in calls.iter_mut().enumerate() {
            assert_eq!(answered(call), of(n, 3));
        }
    }
    let (stats, all) = (pair.ends[D].session().stats(), 20 * lens.len() as u64);
    assert_eq!(stats.opened - before.opened, all);
    assert_eq!(stats.finished - before.finished, all);
    assert_eq!(stats.messages_sent - before.messages_sent, all);
    assert_eq!(stats.messages_received - before.messages_received, all);
    assert_eq!(stats.streams, 0);
    pair.is_clean();
}

#[test]
fn requests_and_answers_have_up_to_a_frame_and_longer_answers_are_streams() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let client = pair.ends[D].session().clone();
    assert!(
        begin(&client, message(MOST - 2), None).is_none(),
        "too long"
    );
    let mut call = pair.call(message(MOST - 3));
    pair.drive();
    let mut incoming = taken(&mut acceptor).unwrap();
    assert_eq!(incoming.take_request(), message(MOST - 3));
    assert!(!incoming.fits(MOST + 1) && incoming.fits(MOST));
    incoming.reply(message(MOST));
    pair.drive();
    assert_eq!(answered(&mut call), message(MOST));

    let (mut call, mut incoming) = pair.running(&mut acceptor);
    let mut send = incoming.become_stream().unwrap();
    now(send.send_meta("headers")).unwrap();
    now(send.send(message(100_000))).unwrap();
    send.finish().unwrap();
    pair.drive();
    let Some(Answer::Stream(halves)) = poll(&mut call) else {
        panic!("a stream");
    };
    let (caller, mut recv) = *halves;
    let mut received = None;
    while received.is_none() {
        received = Polled::new(recv.recv()).now().map(Result::unwrap);
        pair.drive();
    }
    let received = received.flatten();
    assert_eq!(received, Some(message(100_000)));
    assert_eq!(recv.metas(), ["headers"]);
    pair.drive();
    assert_eq!(now(recv.recv()).unwrap(), None);
    drop((caller, recv, send, call, incoming));
    assert_eq!(client.stats().streams, 1);
    pair.is_clean();
}

#[test]
fn calls_that_go_on_as_streams_one_after_another_use_one_lane_on_each_side() {
    let (mut pair, mut acceptor) = serving(&small_config());
    for _ in 0..3 {
        let (mut call, mut incoming) = pair.running(&mut acceptor);
        let mut send = incoming.become_stream().unwrap();
        now(send.send("answer")).unwrap();
        send.finish().unwrap();
        drop((incoming, send));
        pair.drive();
        let Some(Answer::Stream(halves)) = poll(&mut call) else {
            panic!("a stream");
        };
        let (caller, mut recv) = *halves;
        assert_eq!(now(recv.recv()).unwrap().unwrap(), "answer");
        assert_eq!(now(recv.recv()).unwrap(), None);
        drop((caller, recv, call));
        pair.drive();
        let kept = [D, A].map(|side| pair.ends[side].session().link().spares());
        assert_eq!(kept, [1, 1]);
    }
}

#[test]
fn a_request_of_any_length_arrives_whole_in_a_cell_that_carried_others_and_is_given_back_whole() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let lengths = [
        0,
        1,
        SHORT_MAX - 1,
        SHORT_MAX,
        SHORT_MAX + 1,
        MOST - 3,
        0,
        SHORT_MAX,
        1,
    ];
    for (n, len) in lengths.into_iter().enumerate() {
        let message = Bytes::from(vec![n as u8; len]);
        let mut call = pair.call(message.clone());
        pair.drive();
        let mut incoming = taken(&mut acceptor).expect("it has arrived");
        let request = incoming.take_request();
        assert!(request == message, "{len} bytes");
        incoming.reply(request);
        pair.drive();
        assert!(answered(&mut call) == message, "{len} bytes");
    }
    // Encoded by a codec that does not know the length before.
    for len in [SHORT_MAX, SHORT_MAX + 1, 3] {
        let session = pair.ends[D].session().clone();
        let encoded = Request::encode(&session, |buffer, _| {
            buffer.resize(len, 7);
            Ok::<_, Infallible>(None)
        });
        let Ok(mut request) = encoded;
        let put = |block: &mut Vec<u8>| block.extend_from_slice(b"a/B");
        let begun = PendingCall::begin(&Cow::Owned(session), put, &mut request, None);
        let call = begun.expect("the peer takes calls");
        pair.drive();
        let mut incoming = taken(&mut acceptor).expect("it has arrived");
        assert!(incoming.take_request() == vec![7; len], "{len} bytes");
        drop((incoming, call));
        pair.drive();
    }
    // Not sent: a block that is too long, and a session that ends meanwhile.
    let session = pair.ends[D].session().clone();
    for len in lengths {
        let message = Bytes::from(vec![5; len]);
        let mut request = Request::raw(&session, &message);
        let long = |block: &mut Vec<u8>| block.resize(64 * 1024, 0);
        let owned = Cow::Owned(session.clone());
        assert!(PendingCall::begin(&owned, long, &mut request, None).is_none());
        assert!(request.take_message(&session) == message, "{len} bytes");
    }
    let mut request = Request::raw(&session, &Bytes::from_static(b"short"));
    session.close();
    pair.drive();
    let put = |block: &mut Vec<u8>| block.extend_from_slice(b"a/B");
    let owned = Cow::Owned(session.clone());
    assert!(PendingCall::begin(&owned, put, &mut request, None).is_none());
    assert_eq!(request.take_message(&session), "short");
}

#[test]
fn an_error_comes_with_its_words_and_a_dropped_call_is_a_cancel() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let (mut call, mut incoming) = pair.running(&mut acceptor);
    incoming.fail(7, "no such key", b"details");
    pair.drive();
    let StreamError::Failed(failure) = failed(&mut call) else {
        panic!("failed");
    };
    assert_eq!((failure.code, &failure.message[..]), (7, "no such key"));
    assert_eq!(&failure.details[..], b"details");

    let (mut call, incoming) = pair.running(&mut acceptor);
    drop(incoming);
    pair.drive();
    let cancelled = StreamError::Cancelled {
        by: Side::Peer,
        code: codes::CANCELLED,
    };
    assert_eq!(failed(&mut call).to_string(), cancelled.to_string());
    pair.is_clean();
}

// ---- cancels ------------------------------------------------------------------------------------

#[test]
fn a_call_that_is_given_up_before_it_is_sent_sends_nothing_and_gives_its_permission_back() {
    let (mut pair, _acceptor) = serving(&small_config());
    let client = pair.ends[D].session().clone();
    let before = (
        client.stats().opened,
        pair.ends[D].connection.link.opens.granted(),
    );
    // Before the engine looks, and after.
    drop(pair.call("request"));
    let mut later = pair.call("request");
    let now = pair.now;
    pair.ends[D].connection.take_work(now);
    later.cancel(9);
    pair.drive();
    let after = (
        client.stats().opened,
        pair.ends[D].connection.link.opens.granted(),
    );
    assert_eq!(before, after);
    pair.is_clean();
}

#[test]
fn a_cancel_tells_the_handler_and_its_place_is_free_when_it_lets_go() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let (call, mut incoming) = pair.running(&mut acceptor);
    assert!(gone(&mut incoming).is_none());
    drop(call);
    pair.drive();
    let by_peer = matches!(
        gone(&mut incoming),
        Some(StreamError::Cancelled {
            by: Side::Peer,
            code: codes::CANCELLED
        })
    );
    assert!(by_peer);
    let server = &pair.ends[A].connection;
    assert_eq!(
        server.core.mux.base.calls.books().of_peer,
        1,
        "it still runs"
    );
    // Too late, and without effect.
    incoming.reply("answer".into());
    pair.is_clean();

    // Never taken.
    let call = pair.call("request");
    pair.drive();
    drop(call);
    pair.drive();
    let mut late = taken(&mut acceptor).expect("a handler finds out");
    assert!(gone(&mut late).is_some());
    drop(late);
    pair.is_clean();
}

#[test]
fn a_cancel_that_crosses_the_answer_is_harmless_wherever_they_meet() {
    for steps in 0..6 {
        for as_stream in [false, true] {
            let (mut pair, mut acceptor) = serving(&small_config());
            let (mut call, mut incoming) = pair.running(&mut acceptor);
            let stream = match as_stream {
                true => incoming.become_stream(),
                false => None,
            };
            match stream {
                Some(mut send) => {
                    now(send.send(message(20_000))).unwrap();
                    send.finish().unwrap();
                }
                None => incoming.reply("answer".into()),
            }
            for step in 0..steps {
                pair.turn([A, D][step % 2]);
            }
            call.cancel(codes::CANCELLED);
            drop((call, incoming));
            pair.is_clean();
            assert!(pair.ends[D].session().state().is_open(), "{steps}");
            assert!(pair.ends[A].session().state().is_open(), "{steps}");
        }
    }
}

#[test]
fn a_deadline_cancels_a_call_on_time_and_not_before() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let second = Duration::from_secs(1);
    let at = pair.now + second;
    let client = pair.ends[D].session().clone();
    let mut long = begin(&client, Bytes::new(), Some(at + 10 * second)).unwrap();
    let mut call = begin(&client, Bytes::new(), Some(at)).unwrap();
    pair.elapse(second - Duration::from_millis(1));
    assert!(poll(&mut call).is_none());
    let mut incoming = [taken(&mut acceptor).unwrap(), taken(&mut acceptor).unwrap()];
    pair.elapse(Duration::from_millis(1));
    let late = StreamError::Cancelled {
        by: Side::This,
        code: codes::DEADLINE,
    };
    assert_eq!(failed(&mut call).to_string(), late.to_string());
    assert!(gone(&mut incoming[0]).is_none());
    assert!(matches!(
        gone(&mut incoming[1]),
        Some(StreamError::Cancelled {
            code: codes::DEADLINE,
            ..
        })
    ));
    pair.elapse(10 * second);
    assert_eq!(failed(&mut long).to_string(), late.to_string());
    drop(incoming);
    pair.is_clean();
}

/// A caller whose session has no credit left, and its calls: the last one waits for some.
fn without_credit() -> (Solo, Session, Vec<PendingCall<'static>>) {
    let mut solo = Solo::with(Role::Dialer, &Config::default(), Settings::FLOORS);
    solo.hear(&Frame::Calls { takes: true });
    solo.hear(&window(Scope::Streams, 100));
    let session = solo.end.session().clone();
    let mut held = Vec::new();
    loop {
        held.push(begin(&session, message(MOST - 3), None).unwrap());
        if solo.said().is_empty() {
            break;
        }
    }
    (solo, session, held)
}

#[test]
fn a_call_whose_time_ends_before_it_is_sent_was_not_processed_and_is_never_sent() {
    let (mut solo, session, held) = without_credit();
    // Behind a call that waits for credit.
    let second = Duration::from_secs(1);
    let mut call = begin(&session, "late".into(), Some(solo.now + second)).unwrap();
    assert!(solo.said().is_empty());
    solo.elapse(second);
    let error = failed(&mut call);
    assert_eq!(error.was_processed(), Processed::No, "{error}");
    let code = codes::DEADLINE;
    assert!(matches!(error, StreamError::NotSent { code: it } if it == code));
    solo.hear(&window(Scope::Session, 100_000));
    let said = solo.said().concat();
    assert_eq!(said.matches("CALL").count(), 1, "{said}");
    assert_eq!(session.stats().streams, held.len() as u64);
}

// ---- ends of the session ------------------------------------------------------------------------

#[test]
fn at_every_step_of_a_shutdown_a_call_is_answered_or_was_not_processed() {
    let mut outcomes = [0, 0];
    for (side, idle) in [(D, false), (A, false), (D, true), (A, true)] {
        for steps in 0..24 {
            let (mut pair, mut acceptor) = serving(&small_config());
            let session = pair.ends[side].session().clone();
            let mut call = pair.call("request");
            let server = pair.ends[A].session().clone();
            let mut begun = false;
            let mut shutdown = None;
            for step in 0..40 {
                if step == steps {
                    let mut polled =
                        Polled::new(async { session.shutdown(Duration::from_secs(5)).await });
                    polled.pending();
                    shutdown = Some(polled);
                }
                pair.turn([D, A][step % 2]);
                if !begun
                    && !idle
                    && server.state().end().is_none()
                    && let Some(mut incoming) = taken(&mut acceptor)
                {
                    begun = true;
                    incoming.reply("answer".into());
                }
            }
            drop(acceptor);
            pair.elapse(Duration::from_secs(6));
            match poll(&mut call) {
                Some(Answer::Message(..)) => {
                    assert!(begun);
                    outcomes[0] += 1;
                }
                Some(Answer::Failed(error)) => {
                    assert_eq!(
                        error.was_processed(),
                        Processed::No,
                        "{side} {steps}: {error}"
                    );
                    assert!(!begun, "{side} {steps}: it ran");
                    outcomes[1] += 1;
                }
                other => panic!("{side} {steps}: {other:?}"),
            }
            assert!(shutdown.and_then(Polled::now).is_some(), "{side} {steps}");
        }
    }
    println!("{outcomes:?} answered, and not processed");
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn a_call_above_the_last_id_was_not_processed_and_one_below_it_goes_on() {
    let mut solo = Solo::with(Role::Dialer, &Config::default(), Settings::FLOORS);
    solo.hear(&Frame::Calls { takes: true });
    let session = solo.end.session().clone();
    let mut calls: Vec<_> = (0..3)
        .map(|_| begin(&session, Bytes::new(), None).unwrap())
        .collect();
    assert_eq!(solo.said(), ["CALL 1 3", "CALL 3 3", "CALL 5 3"]);
    let mut unsent = begin(&session, Bytes::new(), None).unwrap();
    solo.end.connection.take_work(solo.now);
    solo.hear(&Frame::GoAway {
        last: Some(id(3)),
        code: codes::SHUTDOWN,
        debug: "",
        soon: false,
    });
    for call in [&mut calls[2], &mut unsent] {
        assert!(matches!(failed(call), StreamError::NotProcessed(_)));
    }
    solo.hear(&Frame::Reply {
        stream: id(1),
        answer: b"one",
    });
    assert_eq!(answered(&mut calls[0]), "one");
    solo.hear(&cancel(3, codes::UNAVAILABLE, false));
    assert!(matches!(
        failed(&mut calls[1]),
        StreamError::NotProcessed(_)
    ));
    assert!(begin(&session, Bytes::new(), None).is_none());
}

#[test]
fn a_lost_session_ends_calls_by_what_is_known_of_them_and_tells_handlers() {
    for cut in [Cut::Eof, Cut::Error] {
        let (mut pair, mut acceptor) = serving(&small_config());
        let (mut sent, mut incoming) = pair.running(&mut acceptor);
        let mut queued = pair.call("request");
        let now = pair.now;
        pair.ends[D].connection.take_work(now);
        let mut unseen = pair.call("request");
        pair.crash(D, cut);
        pair.drive_unchecked();
        assert!(matches!(failed(&mut sent), StreamError::Session(_)));
        for call in [&mut queued, &mut unseen] {
            assert!(matches!(failed(call), StreamError::NotProcessed(_)));
        }
        assert!(matches!(gone(&mut incoming), Some(StreamError::Session(_))));
        incoming.reply("too late".into());
        assert!(begin(pair.ends[D].session(), Bytes::new(), None).is_none());
    }
}

#[test]
fn an_orphaned_session_waits_for_its_calls_and_for_no_more() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let (mut call, mut incoming) = pair.running(&mut acceptor);
    drop(pair.ends[D].session.take());
    pair.drive();
    assert!(pair.ends[A].session().state().end().is_none());
    incoming.reply("answer".into());
    pair.drive();
    assert_eq!(answered(&mut call), "answer");
    let end = pair.ends[A].session().state().end();
    assert!(
        matches!(end, Some(SessionError::PeerClosed { .. })),
        "{end:?}"
    );
}

// ---- credit and limits ----------------------------------------------------------------------------

#[test]
fn calls_wait_for_credit_and_all_of_it_comes_back() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let mut answers = 0;
    for _ in 0..5 {
        // 256 KiB of requests, as large as the window.
        let mut calls: Vec<_> = (0..16).map(|_| pair.call(message(MOST - 3))).collect();
        pair.drive();
        let mut running = Vec::new();
        for _ in 0..10 {
            while let Some(mut call) = taken(&mut acceptor) {
                assert_eq!(call.take_request().len(), MOST - 3);
                running.push(call);
            }
            pair.elapse(Duration::from_millis(5));
        }
        assert_eq!(
            running.len(),
            16,
            "the credit of those taken comes back although they run"
        );
        for mut call in running {
            call.reply(message(MOST));
        }
        pair.drive();
        for call in &mut calls {
            assert_eq!(answered(call).len(), MOST);
            answers += 1;
        }
        pair.is_clean();
    }
    assert_eq!(answers, 80);
}

#[test]
fn answers_to_calls_that_were_given_up_give_the_sessions_credit_back_at_half_of_it() {
    let config = small_config();
    let mut solo = Solo::with(Role::Dialer, &config, Settings::FLOORS);
    solo.hear(&Frame::Calls { takes: true });
    solo.hear(&window(Scope::Streams, 100));
    let session = solo.end.session().clone();
    let calls: Vec<_> = (0..16)
        .map(|_| begin(&session, Bytes::new(), None).unwrap())
        .collect();
    assert_eq!(solo.said().concat().matches("CALL").count(), 16);
    drop(calls);
    solo.said();
    let answer = message(MOST);
    let half = config.session_window() as usize / 2;
    for n in 1..=16 {
        let late = Frame::Reply {
            stream: id(2 * n - 1),
            answer: &answer,
        };
        solo.hear(&late);
        let said = solo.said().concat();
        let received = n as usize * (answer.len() + 256);
        assert_eq!(
            said.contains("WINDOW"),
            received >= half,
            "{n} answers: {said:?}"
        );
        if received >= half {
            return;
        }
    }
    panic!("nothing was returned");
}

#[test]
fn calls_beyond_the_grant_take_a_streams_way() {
    let (mut pair, mut acceptor) = serving(&small_config());
    let client = pair.ends[D].session().clone();
    let calls: Vec<_> = (0..16).map(|_| pair.call("request")).collect();
    assert!(begin(&client, Bytes::new(), None).is_none());
    pair.drive();
    while let Some(mut call) = taken(&mut acceptor) {
        call.reply(Bytes::new());
    }
    pair.drive();
    drop(calls);
    assert!(begin(&client, Bytes::new(), None).is_some());
    pair.is_clean();
}

/// A server of calls, and a peer that writes frames by hand.
pub(super) fn hostile(config: crate::ConfigBuilder) -> (Solo, Acceptor) {
    let config = config.max_streams(16).build().expect("valid");
    let mut solo = Solo::new(Role::Acceptor, &config);
    let acceptor = Acceptor::new(solo.end.session().clone());
    assert_eq!(solo.said(), ["CALLS true"]);
    (solo, acceptor)
}

pub(super) fn call(stream: u32) -> Frame<'static> {
    Frame::Call {
        stream: id(stream),
        payload: b"a/Brequest",
        opening: 3,
    }
}

#[track_caller]
fn broken_rule(solo: &mut Solo) -> &'static str {
    solo.said();
    match solo.end.session().state().end() {
        Some(SessionError::Protocol(error)) => error.rule(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_rule_of_calls_that_a_peer_breaks_has_a_name() {
    let rule = |frames: &[Frame<'_>]| {
        let (mut solo, acceptor) = hostile(config());
        frames.iter().for_each(|frame| solo.hear(frame));
        let rule = broken_rule(&mut solo);
        drop(acceptor);
        rule
    };
    let many: Vec<_> = (0..17).map(|n| call(1 + 2 * n)).collect();
    assert_eq!(rule(&many), "too-many-streams");
    assert_eq!(rule(&[call(2)]), "wrong-parity");
    assert_eq!(rule(&[call(3), call(1)]), "id-not-increasing");
    assert_eq!(rule(&[call(1), open(1, b"")]), "id-not-increasing");
    let reply = |stream| Frame::Reply {
        stream: id(stream),
        answer: b"",
    };
    assert_eq!(rule(&[call(1), reply(1)]), "after-end");
    assert_eq!(rule(&[open(1, b""), reply(1)]), "after-end");
    assert_eq!(rule(&[reply(2)]), "never-opened");
    let block = [7; MOST];
    let large = |stream| Frame::Call {
        stream: id(stream),
        payload: &block,
        opening: 0,
    };
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024);
    let (mut solo, _acceptor) = hostile(config);
    (0..16).for_each(|n| solo.hear(&large(1 + 2 * n)));
    assert_eq!(broken_rule(&mut solo), "session-credit");

    let mut solo = Solo::new(Role::Acceptor, &Config::default());
    solo.hear(&call(1));
    assert_eq!(broken_rule(&mut solo), "call-not-taken");
}

#[test]
fn calls_reset_as_fast_as_they_are_made_end_the_session_and_free_no_handler() {
    let (mut solo, mut acceptor) = hostile(config().reset_rate(Some(Rate::new(5, 1))));
    let mut running = Vec::new();
    for n in 0..6 {
        solo.hear(&call(1 + 2 * n));
        running.push(taken(&mut acceptor).unwrap());
        solo.hear(&cancel(1 + 2 * n, 0, false));
    }
    let of_peer = solo.end.connection.core.mux.base.calls.books().of_peer;
    solo.said();
    let end = solo.end.session().state().end();
    let limit =
        matches!(&end, Some(SessionError::LimitExceeded(error)) if error.limit == Limit::ResetRate);
    assert!(limit, "{end:?} with {of_peer}");
    assert!(running.iter_mut().all(|call| gone(call).is_some()));
}

/// Answers of which the peer lets out all but one, for lack of credit; the number of the next call.
pub(super) fn stuck_answer(solo: &mut Solo, acceptor: &mut Acceptor) -> u32 {
    for n in 0.. {
        solo.hear(&call(1 + 2 * n));
        taken(acceptor).unwrap().reply(message(MOST));
        if !solo.said().iter().any(|frame| frame.starts_with("REPLY")) {
            return n + 1;
        }
    }
    unreachable!("credit ends")
}

#[test]
fn answers_cancelled_behind_one_that_has_no_credit_leave_nothing_behind() {
    let (mut solo, mut acceptor) = hostile(config());
    let first = stuck_answer(&mut solo, &mut acceptor);
    for n in first..first + 1000 {
        solo.hear(&call(1 + 2 * n));
        taken(&mut acceptor).unwrap().reply("answer".into());
        solo.said();
        solo.hear(&cancel(1 + 2 * n, 0, false));
        solo.said();
        let slots = solo.end.connection.core.mux.base.calls.slots();
        assert!(slots < 32, "{slots} after {n}");
        assert_eq!(solo.end.session().stats().streams, 1);
    }
    assert!(solo.end.session().state().is_open());
    solo.hear(&window(Scope::Session, 100_000));
    let said = solo.said().concat();
    assert_eq!(said.matches("REPLY").count(), 1, "{said}");
    let calls = &solo.end.connection.core.mux.base.calls;
    assert_eq!((calls.slots(), calls.books().of_peer), (0, 0));
}

/// How many CALLs and REPLYs there are among these frames.
fn calls_and_replies(said: &[String]) -> (usize, usize) {
    let count = |kind| said.iter().filter(|frame| frame.starts_with(kind)).count();
    (count("CALL "), count("REPLY "))
}

#[test]
fn calls_and_answers_have_the_same_part_of_credit_that_is_scarce() {
    const CALLS: usize = 8;
    let (mut solo, mut acceptor) = hostile(config());
    solo.hear(&Frame::Calls { takes: true });
    let next = stuck_answer(&mut solo, &mut acceptor);
    let session = solo.end.session().clone();
    let calls: Vec<_> = (0..CALLS)
        .map(|_| begin(&session, message(MOST - 3), None).unwrap())
        .collect();
    let mut said = Vec::new();
    for n in (next..).take(2 * CALLS) {
        // There is always an answer that waits.
        solo.hear(&call(1 + 2 * n));
        taken(&mut acceptor).unwrap().reply(message(MOST));
        assert_eq!(calls_and_replies(&solo.said()), (0, 0));
        solo.hear(&window(Scope::Session, cost(MAX_CALL_LEN) as u32));
        said.extend(solo.said());
    }
    assert_eq!(calls_and_replies(&said), (CALLS, CALLS), "{said:?}");
    drop(calls);
}

/// One batch.
fn batch(solo: &mut Solo) -> Vec<String> {
    let connection = &mut solo.end.connection;
    connection.take_work(solo.now);
    if !connection.transmit(&mut solo.end.batch, solo.now) {
        return Vec::new();
    }
    let bytes = solo.end.batch.remaining().concat();
    solo.end.batch.clear();
    connection.written(bytes.len(), false, solo.now);
    connection.deliver_wakes();
    solo::frames(&bytes)
}

#[test]
fn neither_calls_nor_answers_wait_behind_an_endless_row_of_the_others() {
    /// Of the endless kind, before each batch: more than fit into it.
    const ROW: usize = 8;
    let plenty = Settings {
        session_window: u32::MAX,
        stream_window: u32::MAX,
        streams: 1000,
        ..Settings::FLOORS
    };
    let config = config().max_streams(100).build().expect("valid");
    for (calls_wait, busy) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut solo = Solo::with(Role::Acceptor, &config, plenty);
        let mut acceptor = Acceptor::new(solo.end.session().clone());
        solo.hear(&Frame::Calls { takes: true });
        solo.said();
        let session = solo.end.session().clone();
        let mut stream = session.try_open("").unwrap();
        let mut asked = Vec::new();
        let mut answered = 0;
        let mut add = |solo: &mut Solo, a_call: bool| {
            if a_call {
                asked.push(begin(&session, message(MOST - 3), None).unwrap());
            } else {
                solo.hear(&call(1 + 2 * answered));
                taken(&mut acceptor).unwrap().reply(message(MOST));
                answered += 1;
            }
        };
        let mut batches = Vec::new();
        for n in 0..6 {
            while busy && stream.try_send(message(60_000)).is_ok() {}
            (0..ROW).for_each(|_| add(&mut solo, !calls_wait));
            if n == 2 {
                add(&mut solo, calls_wait);
            }
            batches.push(calls_and_replies(&batch(&mut solo)));
        }
        println!("calls wait: {calls_wait}, messages too: {busy}: {batches:?}");
        let found = batches
            .iter()
            .position(|(calls, replies)| match calls_wait {
                true => *calls > 0,
                false => *replies > 0,
            });
        assert!(matches!(found, Some(2 | 3)), "{found:?}");
    }
}

#[test]
fn permissions_of_calls_count_among_those_that_the_peer_may_grant() {
    let mut solo = Solo::with(Role::Dialer, &Config::default(), Settings::FLOORS);
    solo.hear(&Frame::Calls { takes: true });
    let session = solo.end.session().clone();
    let mut call = begin(&session, Bytes::new(), None).unwrap();
    solo.hear(&window(Scope::Streams, u32::MAX - 16));
    call.cancel(codes::CANCELLED);
    assert!(solo.said().is_empty());
    let granted = |solo: &Solo| solo.end.connection.link.opens.granted();
    assert_eq!(granted(&solo), u32::MAX, "given back");
    let _call = begin(&session, Bytes::new(), None).unwrap();
    solo.hear(&window(Scope::Streams, 1));
    assert_eq!(granted(&solo), u32::MAX - 1);
    assert_eq!(broken_rule(&mut solo), "credit-overflow");
}

#[test]
fn answers_cancelled_before_they_are_sent_are_resets() {
    let (mut solo, mut acceptor) = hostile(config().reset_rate(Some(Rate::new(5, 1))));
    let first = stuck_answer(&mut solo, &mut acceptor);
    for n in first..first + 6 {
        assert!(solo.end.session().state().is_open(), "{n}");
        solo.hear(&call(1 + 2 * n));
        taken(&mut acceptor).unwrap().reply("answer".into());
        solo.said();
        solo.hear(&cancel(1 + 2 * n, 0, false));
        solo.said();
    }
    let end = solo.end.session().state().end();
    assert!(
        matches!(&end, Some(SessionError::LimitExceeded(error)) if error.limit == Limit::ResetRate),
        "{end:?}"
    );
}

#[test]
fn calls_given_up_behind_one_that_has_no_credit_leave_nothing_behind() {
    let (mut solo, session, held) = without_credit();
    for n in 0..1000 {
        let call = begin(&session, Bytes::new(), None).unwrap();
        assert!(solo.said().is_empty());
        drop(call);
        assert!(solo.said().is_empty());
        let slots = solo.end.connection.core.mux.base.calls.slots();
        assert!(slots < 2 * held.len() + 32, "{slots} after {n}");
        assert_eq!(session.stats().streams, held.len() as u64);
    }
    solo.hear(&window(Scope::Session, 100_000));
    let said = solo.said().concat();
    assert_eq!(said.matches("CALL").count(), 1, "{said}");
    let slots = solo.end.connection.core.mux.base.calls.slots();
    assert_eq!(slots, held.len());
}

#[test]
fn calls_that_wait_for_a_handler_are_bounded_and_so_are_those_reset_meanwhile() {
    let (mut solo, mut acceptor) = hostile(config().max_unaccepted(Some(4)));
    for n in 0..5 {
        solo.hear(&call(1 + 2 * n));
    }
    assert!(
        solo.said()
            .contains(&format!("CANCEL 9 {:#x}", codes::UNAVAILABLE))
    );
    assert_eq!(solo.end.session().stats().tripped.get(Limit::Unaccepted), 1);
    assert_eq!(std::iter::from_fn(|| taken(&mut acceptor)).count(), 4);

    let (mut solo, acceptor) = hostile(config().max_unaccepted_resets(Some(3)));
    for n in 0..4 {
        assert!(solo.end.session().state().is_open(), "{n}");
        solo.hear(&call(1 + 2 * n));
        solo.hear(&cancel(1 + 2 * n, 0, false));
    }
    solo.said();
    let end = solo.end.session().state().end();
    assert!(
        matches!(&end, Some(SessionError::LimitExceeded(error)) if error.limit == Limit::UnacceptedResets),
        "{end:?}"
    );
    drop(acceptor);
}

#[test]
fn calls_that_were_reset_and_taken_do_not_count_while_their_handlers_clean_up() {
    let (mut solo, mut acceptor) = hostile(config().max_unaccepted_resets(Some(3)));
    let mut handlers = Vec::new();
    let reset = |solo: &mut Solo, n: u32| {
        solo.hear(&call(1 + 2 * n));
        solo.hear(&cancel(1 + 2 * n, 0, false));
        solo.said();
        solo.end.session().state().is_open()
    };
    for n in 0..10 {
        assert!(reset(&mut solo, n), "{n}");
        handlers.push(taken(&mut acceptor).unwrap());
    }
    for n in 10..13 {
        assert!(reset(&mut solo, n), "{n}");
    }
    assert!(!reset(&mut solo, 13));
    let end = solo.end.session().state().end();
    assert!(
        matches!(&end, Some(SessionError::LimitExceeded(error)) if error.limit == Limit::UnacceptedResets),
        "{end:?}"
    );
}

#[test]
fn calls_that_no_handler_takes_do_not_keep_the_window_from_the_streams() {
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024);
    let (mut solo, mut acceptor) = hostile(config);
    let block = [7; MOST];
    for n in 0..15 {
        solo.hear(&Frame::Call {
            stream: id(1 + 2 * n),
            payload: &block,
            opening: 0,
        });
    }
    let running = taken(&mut acceptor).unwrap();
    solo.elapse(Duration::from_millis(900));
    assert!(!solo.said().concat().contains("CANCEL"), "it is too early");
    solo.elapse(Duration::from_millis(1100));
    let said = solo.said();
    let refused = |n| said.contains(&format!("CANCEL {n} {:#x}", codes::UNAVAILABLE));
    assert!(!refused(1) && refused(3), "{said:?}");
    let all = said.iter().filter(|it| it.starts_with("CANCEL")).count();
    let credit = said.iter().any(|it| it.starts_with("WINDOW"));
    assert!(all < 4 && credit, "{said:?}");
    let waiting = std::iter::from_fn(|| taken(&mut acceptor)).count();
    assert_eq!(waiting, 14 - all, "the others wait");
    let stats = solo.end.session().stats();
    assert_eq!(stats.tripped.get(Limit::StalledStream), all as u64);
    drop(running);
}

#[test]
fn a_call_that_waits_does_not_keep_stalled_streams_from_being_ended() {
    let config = config()
        .session_window(256 * 1024)
        .session_window_max(256 * 1024);
    let (mut solo, acceptor) = hostile(config);
    solo.hear(&call(1));
    let block = [7; 15_000];
    for n in 1..8 {
        solo.hear(&open(1 + 2 * n, b""));
        solo.hear(&data(1 + 2 * n, &block, true, false));
        solo.hear(&data(1 + 2 * n, &block, true, false));
    }
    solo.elapse(Duration::from_secs(3));
    let said = solo.said();
    let ended = said.contains(&format!("CANCEL 3 {:#x}", codes::LIMIT_EXCEEDED));
    let refused = said.contains(&format!("CANCEL 1 {:#x}", codes::UNAVAILABLE));
    assert!(ended && !refused, "{said:?}");
    drop(acceptor);
}

#[test]
fn calls_that_no_handler_can_take_any_more_are_refused_and_safe_to_try_again() {
    let (mut solo, acceptor) = hostile(config());
    solo.hear(&call(1));
    drop(acceptor);
    let said = solo.said();
    assert!(said.contains(&"CALLS false".to_owned()), "{said:?}");
    assert!(
        said.contains(&format!("CANCEL 1 {:#x}", codes::UNAVAILABLE)),
        "{said:?}"
    );
    // One that was under way.
    solo.hear(&call(3));
    assert_eq!(solo.said(), [format!("CANCEL 3 {:#x}", codes::UNAVAILABLE)]);
    let again = Acceptor::new(solo.end.session().clone());
    assert_eq!(solo.said(), ["CALLS true"]);
    let second = Acceptor::new(solo.end.session().clone());
    drop(second);
    assert!(solo.said().is_empty(), "the second one takes streams alone");
    drop(again);
}

#[test]
fn frames_for_a_call_that_make_no_sense_for_it_harm_no_other() {
    let (mut solo, mut acceptor) = hostile(config());
    solo.hear(&call(1));
    let mut incoming = taken(&mut acceptor).unwrap();
    solo.hear(&window(Scope::Stream(id(1)), 1000));
    // The caller has said all: a message behind its request.
    solo.hear(&data(1, b"more", true, false));
    solo.hear(&cancel(1, 5, true));
    assert!(matches!(
        gone(&mut incoming),
        Some(StreamError::Cancelled {
            by: Side::Peer,
            code: 5
        })
    ));
    assert!(solo.end.session().state().is_open());
    drop(incoming);
    solo.said();
    assert_eq!(solo.end.connection.core.mux.flow.window.held(), 0);
}

#[test]
fn cells_of_calls_are_kept_while_there_are_calls_and_freed_when_there_are_none() {
    let config = config().max_streams(200).build().unwrap();
    let (mut pair, mut acceptor) = serving(&config);
    let kept = |pair: &Pair| {
        let of_callers = pair.ends[D].session().link().calls.spares();
        let of_handlers = pair.ends[A].connection.core.mux.base.app.calls.spares();
        [of_callers, of_handlers]
    };
    let calls = |pair: &mut Pair, acceptor: &mut Acceptor, count: usize| {
        let mut calls: Vec<_> = (0..count).map(|_| pair.call("request")).collect();
        pair.drive();
        while let Some(mut call) = taken(acceptor) {
            call.reply("answer".into());
        }
        pair.drive();
        calls.iter_mut().for_each(|call| drop(answered(call)));
    };
    assert_eq!(kept(&pair), [0, 0]);
    calls(&mut pair, &mut acceptor, 100);
    assert_eq!(kept(&pair), [100, 100]);
    pair.elapse(IDLE - Duration::from_secs(1));
    calls(&mut pair, &mut acceptor, 1);
    pair.elapse(IDLE - Duration::from_secs(1));
    assert_eq!(kept(&pair), [100, 100], "they were in use");
    pair.elapse(IDLE + Duration::from_secs(2));
    assert_eq!(kept(&pair), [0, 0]);
    calls(&mut pair, &mut acceptor, 1);
    assert_eq!(kept(&pair), [1, 1]);
}
