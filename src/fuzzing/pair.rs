//! Two honest connections; the input is their applications' actions and the network's fragmentation and delays.
//!
//! A step is a byte: the action (low four bits), the side (the next bit), and a parameter (the rest). Unary calls are in `calls`;
//! the accounts of both sides are checked after each step.

mod calls;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Input;
use super::side::{Memory, Side, config, now};
use calls::Calls;

use crate::config::Config;
use crate::error::codes;
use crate::error::{Limit, LimitExceeded, SessionError, StreamError};
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::{Native, Role, Wire};

pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// If less time than this passes in all, no timeout may expire.
const HURRIED: Duration = Duration::from_millis(900);
const LENGTHS: [usize; 8] = [0, 1, 255, 4096, 5000, 16_384, 20_000, 60_000];
const CODE: u32 = 7;
/// The code of a refusal on a wire without credit for streams.
const TURNED_AWAY: u32 = 14;
/// Of an Error for a message that found no memory.
const NO_MEMORY: u32 = 8;
/// A wire with more bytes than this in transit takes no more for now.
const WIRE_BYTES: usize = 512 * 1024;
const MOST_STEPS: usize = 4000;

/// Runs the input.
///
/// # Panics
/// When one of the connections breaks a promise.
pub fn pair(input: &[u8]) {
    play::<Native>(&config(PATIENCE), input);
}

/// The same over any wire.
pub(super) fn play<W: Wire>(config: &Config, input: &[u8]) {
    let mut input = Input(input);
    let mut run = Run::<W>::new(config);
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        let step = input.byte();
        run.step(step & 15, usize::from(step >> 4 & 1), step >> 5, &mut input);
        run.sides.iter_mut().for_each(Side::accounts_balance);
    }
    run.settle();
    run.everything_arrived();
    run.finish();
}

/// The messages sent by one side of a call, and those received by the other.
#[derive(Default)]
struct Flow {
    sent: Vec<usize>,
    finished: bool,
    received: usize,
    ended: bool,
}

struct Call {
    ends: [Option<Stream>; 2],
    /// By the side that sends.
    flows: [Flow; 2],
    /// One side cancelled, stopped, failed or dropped the call.
    disturbed: bool,
    /// The wire lets a side open more streams than its peer has places for.
    refusable: bool,
    /// The peer had no place, as calls that are over were not accepted or dropped yet.
    refused: bool,
}

struct Run<W> {
    sides: [Side<W>; 2],
    /// By the side that writes.
    wires: [Vec<u8>; 2],
    calls: Vec<Call>,
    /// Calls in one frame each way.
    unary: Calls,
    elapsed: Duration,
    /// A session may have ended.
    over: bool,
}

/// The content of a message: a function of its call, side and index.
fn content(call: usize, side: usize, index: usize, len: usize) -> Bytes {
    let first = call * 31 + side * 7 + index * 3;
    (0..len).map(|at| (first + at) as u8).collect()
}

/// An opening block that names a call: text, which every wire carries.
fn block(call: usize, len: usize) -> Vec<u8> {
    let mut block = format!("{call:08}").into_bytes();
    block.resize(8 + len, b'x');
    block
}

/// The call that a block names.
fn named(block: &[u8]) -> usize {
    let number = block
        .get(..8)
        .and_then(|text| std::str::from_utf8(text).ok());
    let number = number.and_then(|text| text.parse().ok());
    number.expect("the block arrives whole")
}

impl<W: Wire> Run<W> {
    fn new(config: &Config) -> Self {
        let at = Instant::now();
        Self {
            sides: [Role::Dialer, Role::Acceptor].map(|role| Side::new(role, config, at)),
            wires: [Vec::new(), Vec::new()],
            calls: Vec::new(),
            unary: Calls::default(),
            elapsed: Duration::ZERO,
            over: false,
        }
    }

    fn step(&mut self, what: u8, side: usize, how: u8, input: &mut Input<'_>) {
        match what {
            0 | 1 => {
                let n = usize::from(input.byte()) << (how * 2);
                self.carry(side, n + 1);
            }
            2 => self.carry(side, usize::MAX),
            3 => self.say(side),
            4 => self.open(side, how),
            5 => self.accept(side),
            6 | 7 => self.send(side, how, input.byte()),
            8 => self.receive(side, input.byte()),
            9 => self.with(side, input.byte(), |call, side, mut stream| {
                let flow = &mut call.flows[side];
                flow.finished |= stream.finish().is_ok();
                Some(stream)
            }),
            10 => self.disturb(side, how, input.byte()),
            11 => self.elapse(Duration::from_millis(1 << how)),
            12 if how == 7 => {
                self.over = true;
                self.elapse(Duration::from_secs(1 + u64::from(input.byte() & 31)));
            }
            12 => self.call(side, how, input.byte()),
            13 if how == 7 => self.leave(side, input.byte()),
            13 => self.handle(side, how, input.byte(), input.byte()),
            14 => drop(
                self.sides[side]
                    .session
                    .as_ref()
                    .and_then(|s| now(s.ping())),
            ),
            _ => self.settle(),
        }
    }

    fn say(&mut self, side: usize) {
        if self.wires[side].len() < WIRE_BYTES {
            self.sides[side].say(&mut self.wires[side]);
        }
    }

    fn carry(&mut self, side: usize, n: usize) {
        let n = n.min(self.wires[side].len());
        let bytes: Vec<u8> = self.wires[side].drain(..n).collect();
        if !bytes.is_empty() {
            self.sides[1 - side].hear(&bytes);
        }
    }

    fn open(&mut self, side: usize, how: u8) {
        let Some(session) = &self.sides[side].session else {
            return;
        };
        let block = block(self.calls.len(), usize::from(how) * 1000);
        if let Ok(stream) = session.try_open(block) {
            let mut ends = [None, None];
            ends[side] = Some(stream);
            self.calls.push(Call {
                ends,
                flows: Default::default(),
                disturbed: false,
                refusable: !W::TERMS.credit,
                refused: false,
            });
        }
    }

    fn accept(&mut self, side: usize) {
        let Some(session) = &self.sides[side].session else {
            return;
        };
        if let Some(Ok(Some(stream))) = now(session.accept()) {
            self.accepted(side, stream);
        }
    }

    fn accepted(&mut self, side: usize, stream: Stream) {
        let call = &mut self.calls[named(stream.opening())];
        let twice = call.ends[side].replace(stream).is_some();
        assert!(
            !twice && !call.refused,
            "a stream is accepted once or refused"
        );
    }

    /// Runs `work` on one side's end of the call that the byte selects, if it exists.
    fn with(
        &mut self,
        side: usize,
        which: u8,
        act: impl FnOnce(&mut Call, usize, Stream) -> Option<Stream>,
    ) {
        if self.calls.is_empty() {
            return;
        }
        let index = usize::from(which) % self.calls.len();
        let call = &mut self.calls[index];
        if let Some(stream) = call.ends[side].take() {
            call.ends[side] = act(call, side, stream);
        }
    }

    fn send(&mut self, side: usize, how: u8, which: u8) {
        if self.calls.is_empty() {
            return;
        }
        let index = usize::from(which) % self.calls.len();
        self.with(side, which, |call, side, mut stream| {
            let (len, flow) = (LENGTHS[usize::from(how)], &mut call.flows[side]);
            let message = content(index, side, flow.sent.len(), len);
            if stream.try_send(message).is_ok() {
                flow.sent.push(len);
            }
            Some(stream)
        });
    }

    fn receive(&mut self, side: usize, which: u8) {
        if self.calls.is_empty() {
            return;
        }
        let index = usize::from(which) % self.calls.len();
        let over = self.over;
        self.with(side, which, |call, side, mut stream| {
            call.receive_all(index, side, &mut stream, over);
            Some(stream)
        });
    }

    fn disturb(&mut self, side: usize, how: u8, which: u8) {
        self.with(side, which, |call, _, mut stream| {
            call.disturbed = true;
            match how & 3 {
                0 => return None,
                1 => stream.cancel(CODE),
                2 => stream.stop(CODE),
                _ => drop(stream.finish_with_error(CODE, "no")),
            }
            Some(stream)
        });
    }

    fn leave(&mut self, side: usize, how: u8) {
        self.over = true;
        let Some(session) = self.sides[side].session.take() else {
            return;
        };
        match how & 3 {
            0 => session.close(),
            1 => drop(now(session.shutdown(Duration::from_secs(1)))),
            2 => drop(now(session.shutdown(Duration::ZERO))),
            _ => return,
        }
        self.sides[side].session = Some(session);
    }

    fn elapse(&mut self, time: Duration) {
        self.elapsed += time;
        self.over |= self.elapsed > HURRIED;
        for (side, wire) in self.sides.iter_mut().zip(&mut self.wires) {
            side.elapse(time, wire);
        }
    }

    /// Delivers all bytes until no connection makes progress.
    fn settle(&mut self) {
        for round in 0.. {
            let mut moved = false;
            for side in [0, 1] {
                moved |= self.sides[side].say(&mut self.wires[side]);
                moved |= !self.wires[side].is_empty();
                self.carry(side, usize::MAX);
            }
            if !moved {
                break;
            }
            assert!(round < 100_000, "an end");
        }
        let [one, other] = &mut self.sides;
        one.agrees_with(other);
        other.agrees_with(one);
        self.unary.have_told_handlers(self.over);
        for side in &self.sides {
            let end = side.end();
            let honest = match &end {
                None => true,
                Some(SessionError::Protocol(_)) => false,
                Some(SessionError::PeerClosed { code, .. }) => *code != codes::PROTOCOL,
                Some(_) => self.over,
            };
            assert!(honest, "{end:?} between two honest ends");
        }
    }

    /// With applications that accept and read, all messages of undisturbed calls must arrive.
    fn everything_arrived(&mut self) {
        for _ in 0..200 {
            for side in [0, 1] {
                while self.sides[side].session.is_some() {
                    let before = self.missing();
                    self.accept(side);
                    if self.missing() == before {
                        break;
                    }
                }
                for (index, call) in self.calls.iter_mut().enumerate() {
                    if let Some(mut stream) = call.ends[side].take() {
                        call.receive_all(index, side, &mut stream, self.over);
                        call.ends[side] = Some(stream);
                    }
                }
            }
            self.progress_of_calls();
            self.settle();
            if self.over || (self.is_complete() && self.calls_have_ended()) {
                break;
            }
            // Messages that wait for memory are retried by a timer.
            for (side, wire) in self.sides.iter_mut().zip(&mut self.wires) {
                side.elapse(Duration::from_millis(5), wire);
            }
        }
        if self.over {
            return;
        }
        assert!(self.calls_have_ended(), "{:?}", self.unary);
        for (index, call) in self
            .calls
            .iter()
            .enumerate()
            .filter(|(_, call)| !call.disturbed)
        {
            for side in [0, 1] {
                let flow = &call.flows[side];
                assert_eq!(flow.received, flow.sent.len(), "call {index} from {side}");
                assert_eq!(flow.ended, flow.finished, "call {index} from {side}");
            }
        }
    }

    fn is_complete(&self) -> bool {
        let undisturbed = self.calls.iter().filter(|call| !call.disturbed);
        let mut flows = undisturbed.flat_map(|call| &call.flows);
        flows.all(|flow| flow.received == flow.sent.len() && flow.ended == flow.finished)
    }

    /// Ends of calls not yet accepted.
    fn missing(&self) -> usize {
        let ends = self.calls.iter().flat_map(|call| &call.ends);
        ends.filter(|end| end.is_none()).count()
    }

    fn finish(mut self) {
        let mut streams = [Vec::new(), Vec::new()];
        self.unary.take_streams(&mut streams);
        for call in self.calls {
            for (side, end) in call.ends.into_iter().enumerate() {
                streams[side].extend(end);
            }
        }
        let sides = self.sides.into_iter().zip(streams);
        let memory: Vec<_> = sides.map(|(side, streams)| side.finish(streams)).collect();
        self.unary.finish();
        memory.iter().for_each(Memory::is_back);
    }
}

impl Call {
    /// Receives all available messages of `side` and checks them.
    fn receive_all(&mut self, index: usize, side: usize, stream: &mut Stream, over: bool) {
        let flow = &mut self.flows[1 - side];
        while let Some(got) = now(stream.recv()) {
            match got {
                Ok(Some(message)) => {
                    let len = flow.sent.get(flow.received).copied();
                    let len = len.expect("a message that was sent");
                    let expected = content(index, 1 - side, flow.received, len);
                    assert!(message == expected, "a message is as it was sent");
                    flow.received += 1;
                }
                Ok(None) => {
                    let whole = flow.finished && flow.received == flow.sent.len();
                    assert!(whole || self.disturbed, "a clean end is the end");
                    flow.ended = true;
                    return;
                }
                Err(StreamError::Failed(_) | StreamError::Cancelled { .. }) if self.disturbed => {
                    return;
                }
                // Without credit a message that is not complete may find no memory.
                Err(StreamError::LimitExceeded(LimitExceeded {
                    limit: Limit::MessageMemory,
                    ..
                })) if self.refusable => {
                    self.disturbed = true;
                    return;
                }
                Err(StreamError::Failed(failure))
                    if self.refusable && failure.code == NO_MEMORY =>
                {
                    self.disturbed = true;
                    return;
                }
                Err(StreamError::Failed(failure))
                    if self.refusable && failure.code == TURNED_AWAY =>
                {
                    let accepted = self.ends[1 - side].is_some();
                    assert!(!accepted, "{failure:?} of a call that was accepted");
                    (self.disturbed, self.refused) = (true, true);
                    return;
                }
                Err(error) => {
                    assert!(over, "{error} though neither side disturbed the call");
                    return;
                }
            }
        }
    }
}
