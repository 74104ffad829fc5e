//! The records of unary calls: the end that a caller sees agrees with what the handler did, and there is one.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Ledger, Tag, block, content, opener, pair_of};
use crate::error::{Processed, Side, StreamError, codes};

/// A cancel takes less time to its handler, unless the network is slow.
const TOLD: Duration = Duration::from_secs(3);

/// What a handler did with its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bridge::tests::sim) enum Did {
    /// Answered it, with this many bytes.
    Answer(usize),
    /// Failed it with this code.
    Fail(u32),
    Drop,
    Stream,
}

#[derive(Debug, Default)]
pub(in crate::bridge::tests::sim) struct Call {
    begun: bool,
    /// Length of the request.
    request: usize,
    deadline: Option<Instant>,
    /// The caller has given it up, or its time is over, with this code.
    given_up: Option<u32>,
    /// When that was.
    since: Option<Instant>,
    /// That was before the engine could see it.
    void: bool,
    /// The caller has its end.
    ended: bool,
    taken: bool,
    did: Option<Did>,
    /// The handler was told that its caller has gone.
    gone: bool,
    /// The caller was told that no handler had it.
    unprocessed: Option<String>,
}

/// The error of a handler.
pub(in crate::bridge::tests::sim) fn words(code: u32) -> (String, Bytes) {
    let details = content(code.into(), 0, 0, code as usize % 100);
    (format!("failure {code}"), details)
}

impl Ledger {
    fn call(&mut self, tag: Tag) -> &mut Call {
        self.calls.entry(tag).or_default()
    }

    pub(in crate::bridge::tests::sim) fn call_begun(
        &mut self,
        tag: Tag,
        request: usize,
        deadline: Option<Instant>,
    ) {
        *self.call(tag) = Call {
            begun: true,
            request,
            deadline,
            ..Call::default()
        };
        if deadline.is_some() {
            self.entry(tag)
                .codes
                .extend([codes::DEADLINE, codes::CANCELLED]);
        }
    }

    /// The caller gives it up; `at_once`: its engine has not had a turn since it was begun.
    pub(in crate::bridge::tests::sim) fn call_given_up(
        &mut self,
        tag: Tag,
        code: u32,
        at_once: bool,
        now: Instant,
    ) {
        self.end_of_call(tag);
        let call = self.call(tag);
        (call.given_up, call.void, call.since) = (Some(code), at_once, Some(now));
        // If it has become a stream, that one ends with the code, or was over already.
        self.entry(tag).codes.extend([code, codes::CANCELLED]);
        self.count(if at_once {
            "call: given up at once"
        } else {
            "call: given up"
        });
    }

    fn end_of_call(&mut self, tag: Tag) {
        let call = self.call(tag);
        let twice = std::mem::replace(&mut call.ended, true);
        if twice || !call.begun {
            self.fail(format!("call {tag:#x} ended twice, or never began"));
        }
    }

    /// A handler has it.
    pub(in crate::bridge::tests::sim) fn call_taken(
        &mut self,
        pair: usize,
        side: usize,
        tag: Tag,
        opening: &[u8],
        request: &[u8],
    ) {
        if pair_of(tag) != pair || opener(tag) == side {
            return self.fail(format!("call {tag:#x} is at {pair}/{side}"));
        }
        let call = self.call(tag);
        let twice = std::mem::replace(&mut call.taken, true);
        if twice || !call.begun || call.void {
            let call = format!("{call:?}");
            return self.fail(format!("call {tag:#x} was taken: {call}"));
        }
        let whole = request == content(tag, opener(tag), 0, call.request);
        if !whole || opening != block(tag, opening.len()) {
            self.fail(format!("request {tag:#x} is damaged"));
        }
    }

    /// What its handler does now.
    pub(in crate::bridge::tests::sim) fn call_done(&mut self, tag: Tag, did: Did, now: Instant) {
        let licence = self.licence(pair_of(tag)).clone();
        let call = self.call(tag);
        let since = call.since.map(|since| now - since);
        let twice = call.did.replace(did).is_some();
        let slow = licence.mute || licence.fault || licence.freeze;
        if twice || (since > Some(TOLD) && !slow) {
            let call = format!("{call:?}, given up {since:?} ago");
            self.fail(format!("a handler of {tag:#x} has not gone: {call}"));
        }
        if did == Did::Stream {
            let entry = self.entry(tag);
            (entry.opened, entry.accepted) = (true, true);
            // The caller has said all.
            entry.flows[opener(tag)].finished = true;
        }
    }

    /// The handler, on `side`, is told why there is no caller any more.
    pub(in crate::bridge::tests::sim) fn call_gone(
        &mut self,
        tag: Tag,
        side: usize,
        error: &StreamError,
        now: Instant,
    ) {
        let call = self.call(tag);
        call.gone = true;
        match error {
            StreamError::Cancelled {
                by: Side::Peer,
                code,
            } => {
                let late = *code == codes::DEADLINE && call.deadline.is_some_and(|at| at <= now);
                if call.given_up != Some(*code) && !late {
                    self.fail(format!("the caller of {tag:#x} has not gone: {code:#x}"));
                }
            }
            StreamError::Session(end) => {
                self.entry(tag).orphaned[side] = true;
                self.session(pair_of(tag), side, end);
            }
            other => self.fail(format!("the handler of {tag:#x} was told: {other}")),
        }
    }

    /// The caller has the answer.
    pub(in crate::bridge::tests::sim) fn call_answered(
        &mut self,
        tag: Tag,
        answer: &[u8],
        now: Instant,
    ) {
        self.call_over(tag, now);
        let call = self.call(tag);
        let right = match call.did {
            Some(Did::Answer(len)) => answer == content(tag, 1 - opener(tag), 0, len),
            _ => false,
        };
        if !right || call.gone {
            let call = format!("{} bytes, but {call:?}", answer.len());
            self.fail(format!("call {tag:#x} was answered: {call}"));
        }
        self.count("call: answered");
    }

    /// The caller has a stream.
    pub(in crate::bridge::tests::sim) fn call_streams(&mut self, tag: Tag, now: Instant) {
        self.call_over(tag, now);
        let call = self.call(tag);
        if call.did != Some(Did::Stream) || call.gone {
            let call = format!("{call:?}");
            self.fail(format!("call {tag:#x} became a stream: {call}"));
        }
        self.count("call: stream");
    }

    /// The caller sees an error.
    pub(in crate::bridge::tests::sim) fn call_failed(
        &mut self,
        tag: Tag,
        error: &StreamError,
        now: Instant,
    ) {
        let (pair, side) = (pair_of(tag), opener(tag));
        self.call_over(tag, now);
        if error.was_processed() == Processed::No {
            self.call(tag).unprocessed = Some(error.to_string());
        }
        let stream = self.call(tag).did == Some(Did::Stream);
        match error {
            StreamError::Failed(failure) => {
                let (text, details) = words(failure.code);
                let own = failure.message == text && failure.details[..] == details[..];
                let answered = self.call(tag).did == Some(Did::Fail(failure.code)) && own;
                // A stream without messages may fail before there is one.
                let flow = &self.entry(tag).flows[1 - side];
                let streamed = stream && flow.failed == Some(failure.code);
                if !answered && !streamed {
                    self.fail(format!("call {tag:#x} failed: {failure:?}"));
                }
                self.count("call: failed");
            }
            StreamError::Cancelled { by, code } => self.call_cancelled(tag, *by, *code, now),
            StreamError::NotSent { code } => self.call_cancelled(tag, Side::This, *code, now),
            StreamError::NotProcessed(end) => {
                self.may_end(pair, end);
                self.count("call: not processed");
            }
            StreamError::Session(end) => {
                self.entry(tag).orphaned[side] = true;
                self.session(pair, side, end);
                self.count("call: session");
            }
            other => self.fail(format!("call {tag:#x}: {other}")),
        }
    }

    fn call_cancelled(&mut self, tag: Tag, by: Side, code: u32, now: Instant) {
        let licence = self.licence(pair_of(tag)).clone();
        let call = self.call(tag);
        let late = by == Side::This && code == codes::DEADLINE;
        let (what, honest) = match (by, code) {
            _ if late => {
                (call.given_up, call.since) = (Some(code), Some(now));
                ("call: late", call.deadline.is_some_and(|at| at <= now))
            }
            (Side::Peer, codes::UNAVAILABLE) => {
                let may = licence.end || licence.stops || licence.limits;
                ("call: refused", may && !call.taken)
            }
            (Side::Peer, _) if call.did == Some(Did::Stream) => {
                let known = self.entry(tag).codes.contains(&code);
                ("call: stream cancelled", known)
            }
            (Side::Peer, codes::CANCELLED) => {
                let dropped = call.did == Some(Did::Drop) && !call.gone;
                ("call: dropped", dropped)
            }
            _ => ("call: cancelled", false),
        };
        if !honest {
            let call = format!("{:?}", self.call(tag));
            self.fail(format!("{tag:#x}: {what} by {by:?}, {code:#x}: {call}"));
        }
        self.count(what);
    }

    /// The caller has an end, which no call has behind its deadline.
    fn call_over(&mut self, tag: Tag, now: Instant) {
        self.end_of_call(tag);
        if let Some(at) = self.call(tag).deadline.filter(|at| *at < now) {
            self.fail(format!("call {tag:#x} ended {:?} late", now - at));
        }
    }

    /// Whether it is a call whose end at its handler is of no interest to its caller.
    pub(super) fn was_given_up(&self, tag: Tag) -> bool {
        let call = self.calls.get(&tag);
        call.is_some_and(|call| call.given_up.is_some())
    }

    pub(super) fn settle_calls(&self, broken: &mut Vec<String>) {
        for (tag, call) in &self.calls {
            if call.begun && !call.ended {
                broken.push(format!("call {tag:#x} has no end: {call:?}"));
            }
            if let Some(error) = call.unprocessed.as_ref().filter(|_| call.taken) {
                broken.push(format!("call {tag:#x} was processed after all: {error}"));
            }
        }
    }
}
