//! Unary calls between two honest connections, by the same script.
//!
//! A caller's end agrees with what the handler did: an answer only if it answered, with its bytes; "not processed" only if no
//! handler had the call; a cancel only if a side gave it up.

use std::borrow::Cow;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::{CODE, LENGTHS, Run, content, named, now};
use crate::error::{Processed, SessionError, Side, StreamError, codes};
use crate::handle::Session;
use crate::handle::call::{Acceptor, Answer, Arrival, IncomingCall, PendingCall, Request};
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::Wire;

/// The numbers of calls, in contents, begin here.
const CALLS: usize = 1 << 20;
/// Lengths of requests and answers, the last one longer than a frame allows.
const SHORT: [usize; 8] = [0, 1, 100, 512, 513, 5000, 16_374, 16_390];
/// The least length of an opening block.
const NAME: usize = 8;

/// What a handler did.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Answer(usize),
    Fail,
    Drop,
    /// Lengths of the messages of the stream, and how it ends.
    Stream(Vec<usize>, Last),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Finish,
    Fail,
    Drop,
}

/// A call.
#[derive(Debug)]
pub(super) struct Unary {
    index: usize,
    /// The side that calls.
    side: usize,
    request: usize,
    deadline: Option<Instant>,
    pending: Option<PendingCall<'static>>,
    handler: Option<IncomingCall>,
    /// An answer that is a stream.
    stream: Option<Stream>,
    received: usize,
    taken: bool,
    did: Option<Did>,
    /// The caller has given it up, or its time was over.
    given_up: bool,
    /// The caller was told that no handler had it.
    unprocessed: bool,
}

/// The calls of a run.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) all: Vec<Unary>,
    acceptors: [Option<Acceptor>; 2],
    /// Sides that have stopped taking calls.
    stopped: [bool; 2],
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn begin(
    session: &Session,
    index: usize,
    request: usize,
    side: usize,
    deadline: Option<Instant>,
) -> Option<PendingCall<'static>> {
    let name = format!("{index:08}");
    let opening = |block: &mut Vec<u8>| block.extend_from_slice(name.as_bytes());
    let request = content(CALLS + index, side, 0, request);
    let mut asked = Request::raw(session, &request);
    let session = Cow::Owned(session.clone());
    let call = PendingCall::begin(&session, opening, &mut asked, deadline);
    if call.is_none() {
        assert!(
            asked.take_message(&session) == request,
            "a request that is not sent is given back"
        );
    }
    call
}

impl<W: Wire> Run<W> {
    /// An action of a caller, or of a side that takes calls.
    pub(super) fn call(&mut self, side: usize, how: u8, byte: u8) {
        match how {
            0..3 => {
                let Some(session) = &self.sides[side].session else {
                    return;
                };
                let index = self.unary.all.len();
                let time = std::time::Duration::from_millis(1 << (byte >> 4));
                let deadline = (how == 1).then(|| self.sides[side].now + time);
                let request = SHORT[usize::from(byte & 7)];
                if let Some(call) = begin(session, index, request, side, deadline) {
                    let mut unary = Unary::new(index, side, request, deadline, call);
                    if how == 2 {
                        unary.cancel();
                    }
                    self.unary.all.push(unary);
                }
            }
            3 => self.poll_call(side, byte),
            4 => self.on_call(byte, |unary| {
                if unary.side == side {
                    unary.cancel();
                }
            }),
            5 => {
                let session = self.sides[side].session.as_ref();
                if let (None, Some(session)) = (&self.unary.acceptors[side], session) {
                    self.unary.acceptors[side] = Some(Acceptor::new(session.clone()));
                }
            }
            _ => {
                self.unary.acceptors[side] = None;
                self.unary.stopped[side] = true;
            }
        }
    }

    /// An action of a handler.
    pub(super) fn handle(&mut self, side: usize, how: u8, byte: u8, more: u8) {
        if how == 0 {
            return self.take_arrivals(side);
        }
        let over = self.over;
        self.on_call(byte, |unary| {
            if unary.side == side {
                return;
            }
            if how == 1 {
                return unary.look_whether_gone(over);
            }
            let index = usize::from(more & 7);
            unary.end_handler(how, SHORT[index], more);
        });
    }

    /// Runs `work` on the call that the byte selects, if there is one.
    fn on_call(&mut self, which: u8, work: impl FnOnce(&mut Unary)) {
        let calls = &mut self.unary.all;
        if !calls.is_empty() {
            let index = usize::from(which) % calls.len();
            let unary = &mut calls[index];
            work(unary);
        }
    }

    /// Takes all streams and calls that wait.
    pub(super) fn take_arrivals(&mut self, side: usize) {
        while let Some(acceptor) = &mut self.unary.acceptors[side] {
            match acceptor.poll(&cx()) {
                Poll::Ready(Ok(Some(Arrival::Call(call)))) => self.take_call(side, call),
                Poll::Ready(Ok(Some(Arrival::Stream(send, recv)))) => {
                    self.accepted(side, (send, recv));
                }
                Poll::Ready(Ok(None) | Err(_)) => {
                    self.unary.acceptors[side] = None;
                    assert!(self.over, "a session ends by a side");
                }
                Poll::Pending => return,
            }
        }
    }

    fn take_call(&mut self, side: usize, mut call: IncomingCall) {
        let index = named(call.opening());
        assert_eq!(call.opening().len(), NAME);
        let unary = &mut self.unary.all[index];
        let twice = std::mem::replace(&mut unary.taken, true);
        assert!(!twice && unary.side != side, "a call has one handler");
        assert!(!unary.unprocessed, "it was said that none has had it");
        let expected = content(CALLS + index, unary.side, 0, unary.request);
        assert!(
            call.take_request() == expected,
            "a request is as it was sent"
        );
        unary.handler = Some(call);
    }

    fn poll_call(&mut self, side: usize, which: u8) {
        let (over, stopped) = (self.over, self.unary.stopped[1 - side]);
        let at = self.sides[side].now;
        self.on_call(which, |unary| {
            if unary.side == side {
                unary.poll(at, stopped, over);
            }
        });
    }

    /// Polls all calls, and takes those that wait.
    pub(super) fn progress_of_calls(&mut self) {
        for side in [0, 1] {
            self.take_arrivals(side);
        }
        for unary in &mut self.unary.all {
            let (at, stopped) = (
                self.sides[unary.side].now,
                self.unary.stopped[1 - unary.side],
            );
            unary.poll(at, stopped, self.over);
        }
    }

    /// What handlers did has arrived.
    pub(super) fn calls_have_ended(&self) -> bool {
        self.unary.all.iter().all(|unary| {
            let answered = unary.did.is_some() || unary.given_up;
            !answered || (unary.pending.is_none() && unary.has_all())
        })
    }
}

impl Unary {
    const fn new(
        index: usize,
        side: usize,
        request: usize,
        deadline: Option<Instant>,
        pending: PendingCall<'static>,
    ) -> Self {
        Self {
            index,
            side,
            request,
            deadline,
            pending: Some(pending),
            handler: None,
            stream: None,
            received: 0,
            taken: false,
            did: None,
            given_up: false,
            unprocessed: false,
        }
    }

    fn answer(&self, n: usize, len: usize) -> Bytes {
        content(CALLS + self.index, 1 - self.side, n, len)
    }

    // ---- of the caller --------------------------------------------------------------------------

    fn cancel(&mut self) {
        if let Some(mut call) = self.pending.take() {
            self.given_up = true;
            call.cancel(CODE);
        }
        if self.stream.take().is_some() {
            self.given_up = true;
        }
    }

    fn poll(&mut self, at: Instant, stopped: bool, over: bool) {
        self.read(over);
        let Some(call) = &mut self.pending else {
            return;
        };
        let Poll::Ready(answer) = call.poll(&cx()) else {
            return;
        };
        self.pending = None;
        match answer {
            Answer::Message(answer, _) => match self.did {
                Some(Did::Answer(len)) => {
                    assert!(answer == self.answer(0, len), "an answer is as it was sent");
                }
                ref did => panic!("an answer, but {did:?}"),
            },
            Answer::Stream(halves) => {
                assert!(matches!(self.did, Some(Did::Stream(..))), "{:?}", self.did);
                self.stream = Some(*halves);
                self.read(over);
            }
            Answer::Failed(error) => self.failed(&error, at, stopped, over),
        }
    }

    fn failed(&mut self, error: &StreamError, at: Instant, stopped: bool, over: bool) {
        if error.was_processed() == Processed::No {
            assert!(!self.taken, "{error} of a call that a handler had");
            self.unprocessed = true;
        }
        let honest = match error {
            StreamError::Failed(failure) => {
                assert_eq!((failure.code, &failure.message[..]), (CODE, "no"));
                match &self.did {
                    Some(Did::Fail) => true,
                    Some(Did::Stream(sent, Last::Fail)) => sent.is_empty(),
                    _ => false,
                }
            }
            StreamError::Cancelled {
                by: Side::This,
                code: codes::DEADLINE,
            }
            | StreamError::NotSent {
                code: codes::DEADLINE,
            } => {
                self.given_up = true;
                self.deadline.is_some_and(|deadline| deadline <= at)
            }
            StreamError::Cancelled {
                by: Side::Peer,
                code: codes::CANCELLED,
            } => matches!(self.did, Some(Did::Drop | Did::Stream(_, Last::Drop))),
            StreamError::Cancelled {
                by: Side::Peer,
                code: codes::UNAVAILABLE,
            } => stopped || over,
            StreamError::Session(end) | StreamError::NotProcessed(end) => {
                over && !matches!(end, SessionError::Protocol(_))
            }
            _ => false,
        };
        assert!(honest, "{error} of {self:?}");
    }

    /// Receives all available messages of an answer that is a stream.
    fn read(&mut self, over: bool) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let Some(Did::Stream(sent, last)) = &self.did else {
            panic!("a stream of {self:?}");
        };
        while let Some(got) = now(stream.recv()) {
            let all = self.received == sent.len();
            match got {
                Ok(Some(message)) => {
                    let len = sent.get(self.received).copied();
                    let len = len.expect("a message that was sent");
                    assert!(message == self.answer(self.received, len));
                    self.received += 1;
                }
                Ok(None) => return assert!(all && *last == Last::Finish, "a clean end"),
                Err(StreamError::Failed(_)) if *last == Last::Fail => return assert!(all),
                Err(StreamError::Cancelled { .. }) if *last == Last::Drop => return,
                Err(error) => return assert!(over, "{error} of {self:?}"),
            }
        }
        self.stream = Some(stream);
    }

    /// A caller that waits has all that its handler has sent.
    fn has_all(&self) -> bool {
        match &self.did {
            Some(Did::Stream(sent, last)) => {
                self.given_up || *last == Last::Drop || self.received == sent.len()
            }
            _ => true,
        }
    }

    // ---- of the handler -------------------------------------------------------------------------

    fn look_whether_gone(&mut self, over: bool) {
        let Some(call) = &mut self.handler else {
            return;
        };
        if let Poll::Ready(error) = call.poll_gone(&cx()) {
            let cancelled = matches!(
                error,
                StreamError::Cancelled {
                    by: Side::Peer,
                    code: CODE | codes::DEADLINE
                }
            );
            let late = self.deadline.is_some();
            assert!(
                (cancelled && (self.given_up || late)) || over,
                "{error} of {self:?}"
            );
            // Nothing that it does now has an effect.
            self.handler = None;
            self.given_up = true;
        }
    }

    fn end_handler(&mut self, how: u8, len: usize, more: u8) {
        let Some(mut call) = self.handler.take() else {
            return;
        };
        match how {
            2 | 3 if call.fits(len) => {
                self.did = Some(Did::Answer(len));
                call.reply(self.answer(0, len));
            }
            4 => {
                self.did = Some(Did::Fail);
                call.fail(CODE, "no", b"");
            }
            5 => self.did = Some(Did::Drop),
            _ => self.answer_as_stream(&mut call, more),
        }
    }

    fn answer_as_stream(&mut self, call: &mut IncomingCall, more: u8) {
        let mut send = call.become_stream().expect("it has not ended");
        let mut sent = Vec::new();
        for n in 0..usize::from(more >> 6) {
            let len = LENGTHS[(usize::from(more) + n) % LENGTHS.len()];
            if send.try_send(self.answer(n, len)).is_ok() {
                sent.push(len);
            }
        }
        let last = match more >> 4 & 3 {
            0 => Last::Drop,
            1 if send.finish_with_error(CODE, "no").is_ok() => Last::Fail,
            _ if send.finish().is_ok() => Last::Finish,
            _ => Last::Drop,
        };
        self.did = Some(Did::Stream(sent, last));
    }
}

impl Calls {
    /// Nothing is under way: the handlers know of the callers that have gone.
    pub(super) fn have_told_handlers(&mut self, over: bool) {
        for unary in &mut self.all {
            if unary.given_up {
                unary.look_whether_gone(over);
                // The end of a session tells those that a cancel did not reach.
                assert!(over || unary.handler.is_none(), "not told: {unary:?}");
            }
        }
    }

    /// The callers' streams of answers, by side.
    pub(super) fn take_streams(&mut self, streams: &mut [Vec<Stream>; 2]) {
        for unary in &mut self.all {
            if let Some(call) = &mut unary.pending
                && let Poll::Ready(answer) = call.poll(&cx())
            {
                unary.pending = None;
                if let Answer::Stream(halves) = answer {
                    streams[unary.side].push(*halves);
                }
            }
            streams[unary.side].extend(unary.stream.take());
        }
    }

    /// The sessions are over: all are told.
    pub(super) fn finish(mut self) {
        self.acceptors = [None, None];
        for mut unary in self.all {
            if let Some(mut call) = unary.pending.take() {
                assert!(call.poll(&cx()).is_ready(), "a caller gets an end");
            }
            if let Some(mut call) = unary.handler.take() {
                assert!(call.poll_gone(&cx()).is_ready(), "a handler is told");
            }
        }
    }
}
