//! Received calls and answers: those that follow each other are taken in runs, in which their short payloads are copied together.

use std::ops::Range;

use bytes::Bytes;

use super::Native;
use super::error::of_stream;
use super::frame::{CALL_PREFIX_LEN, Frame, HEADER_LEN, Header, StreamId, check, cost};
use super::receive::{RARE_WORK, Run};
use crate::core::mux::caller;
use crate::core::session_calls;
use crate::core::{Core, SessionPort};
use crate::error::ProtocolError;
use crate::wire::WAKES_MAX;

/// Payloads of calls, and answers, up to this many bytes are copied together with those behind them,
const SHORT_MAX: usize = 512;
/// of this many bytes in all: each keeps all of them.
const TOGETHER_MAX: usize = 2048;

/// Calls and answers that are processed together.
#[derive(Clone, Copy, Debug, Default)]
struct RunOfCalls {
    run: Run,
    calls: u64,
    answers: u64,
}

impl Native {
    /// Takes the calls and answers in front that are whole, one behind the other: up to `most` as work, and until enough tasks
    /// are to be woken. What they have in common is done once.
    #[inline(never)] // As `short_messages`.
    pub(super) fn take_calls<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        bytes: &[u8],
        most: u64,
    ) -> Result<Run, ProtocolError> {
        let mut run = RunOfCalls::default();
        let max_frame = core.mux.base.config.max_frame();
        let taken = self.take_run_of_calls(core, bytes, max_frame, most, &mut run);
        run.run.work = run.run.frames * RARE_WORK;
        if run.calls + run.answers > 0 {
            session_calls::calls_received(core, run.calls, run.answers);
        } else if run.run.frames > 0 {
            // Answers that are too late: their credit goes back as well.
            core.mux.flow.return_if_worth_it();
        }
        taken.map(|()| run.run)
    }

    #[inline]
    fn take_run_of_calls<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        bytes: &[u8],
        max_frame: u32,
        most: u64,
        of: &mut RunOfCalls,
    ) -> Result<(), ProtocolError> {
        let mut kept = Kept::default();
        while let Some((header, rest)) = next_of_call(bytes, of.run.bytes)
            && of.run.frames * RARE_WORK < most
            && !core.life.is_in_hello()
            && !core.life.is_ending()
        {
            let kind = check(header, max_frame)?;
            let Some(payload) = rest.get(..header.length as usize) else {
                break;
            };
            let begin = of.run.bytes + HEADER_LEN;
            let end = begin + payload.len();
            (of.run.frames, of.run.bytes) = (of.run.frames + 1, end);
            match Frame::read(kind, header, payload)? {
                Frame::Call {
                    stream, opening, ..
                } => {
                    of.calls += 1;
                    let app = &mut core.mux.base.app;
                    let payload = kept.get(app, bytes, begin + CALL_PREFIX_LEN..end);
                    self.on_call(core, stream, payload, opening)?;
                }
                Frame::Reply { stream, .. } => {
                    let answer = kept.get(&mut core.mux.base.app, bytes, begin..end);
                    of.answers += u64::from(self.on_reply(core, stream, answer)?);
                }
                _ => {}
            }
            core.end_if_tripped();
            if core.mux.base.calls.waking() >= WAKES_MAX {
                break;
            }
        }
        Ok(())
    }

    fn on_call<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        id: StreamId,
        payload: Bytes,
        opening: usize,
    ) -> Result<(), ProtocolError> {
        if !core.mux.base.has_announced_calls() {
            return Err(ProtocolError::CallNotTaken { id });
        }
        self.take_id(core, id)?;
        let cost = cost((payload.len() + CALL_PREFIX_LEN) as u32);
        let called = session_calls::call_by_peer(core, id.get(), payload, opening, cost);
        called.map_err(|violation| of_stream(id, violation))
    }

    /// True if there is such a call.
    fn on_reply<S: SessionPort>(
        &self,
        core: &mut Core<S>,
        id: StreamId,
        answer: Bytes,
    ) -> Result<bool, ProtocolError> {
        let cost = cost(answer.len() as u32);
        let replied = caller::reply_by_peer(&mut core.mux, id.get(), answer, cost);
        match replied.map_err(|violation| of_stream(id, violation))? {
            false if core.mux.base.streams.find(id.get()).is_some() => {
                Err(ProtocolError::AfterEnd { id })
            }
            false => self.late(core, id).map(|()| false),
            true => Ok(true),
        }
    }
}

/// The header of a call or an answer at this place, and the bytes behind it.
#[inline]
fn next_of_call(bytes: &[u8], at: usize) -> Option<(Header, &[u8])> {
    let (head, rest) = bytes.get(at..)?.split_first_chunk::<HEADER_LEN>()?;
    let header = Header::decode(*head);
    header.is_of_call().then_some((header, rest))
}

/// Payloads of calls and answers, copied from the received bytes: those of short frames that follow each other at once.
#[derive(Default)]
struct Kept {
    bytes: Bytes,
    /// Where in the received bytes they are.
    range: Range<usize>,
}

impl Kept {
    /// The payload at this place, behind its header.
    #[inline]
    fn get<S: SessionPort>(
        &mut self,
        app: &mut S,
        received: &[u8],
        payload: Range<usize>,
    ) -> Bytes {
        if payload.end > self.range.end {
            let behind = match payload.len() <= SHORT_MAX && payload.end < received.len() {
                true => short_calls(&received[payload.end..]),
                false => 0,
            };
            if behind == 0 {
                return app.keep(&received[payload]);
            }
            let end = payload.end + behind;
            self.range = payload.start..end;
            self.bytes = app.keep_together(&received[self.range.clone()]);
        }
        let from = payload.start - self.range.start;
        self.bytes.slice(from..from + payload.len())
    }
}

/// Bytes of the calls and answers in front that are whole and short.
fn short_calls(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some((header, rest)) = next_of_call(bytes, at) {
        let len = header.length as usize;
        let short = len <= SHORT_MAX && at + HEADER_LEN + len <= TOGETHER_MAX;
        if !short || len > rest.len() {
            break;
        }
        at += HEADER_LEN + len;
    }
    at
}
