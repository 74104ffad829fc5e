//! One connection against a peer whose bytes are the input, with an application driven by the input.
//!
//! ```text
//!   flags │ n │ script (n bytes) │ wire ...
//! ```
//! A byte of the script feeds some bytes of the wire and makes one move; the rest of the wire is fed at once.

use std::borrow::Cow;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Input;
use super::side::{Side, config, now};
use crate::error::codes;
use crate::handle::Session;
use crate::handle::call::{Acceptor, Answer, Arrival, IncomingCall, PendingCall, Request};
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::native::frame::Frame;
use crate::wire::native::frame::{
    HEADER_LEN, Header, MAX_FRAME_CEILING, Role, Settings, check, preface,
};
use crate::wire::{Native, Wire};

const ACCEPTOR: u8 = 1 << 0;
/// Flag: preface and SETTINGS of the peer are prepended to the wire.
const GREETED: u8 = 1 << 1;
/// Flag: the application takes calls.
const SERVES: u8 = 1 << 2;
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that one step feeds, by the low bits of its byte.
pub(super) const PIECES: [usize; 8] = [0, 1, 7, 8, 40, 300, 9000, usize::MAX];
const LENGTHS: [usize; 4] = [0, 300, 5000, 60_000];

/// Feeds the input.
///
/// # Panics
/// When the connection breaks a promise.
pub fn peer(input: &[u8]) {
    let mut input = Input(input);
    let flags = input.byte();
    let role = if flags & ACCEPTOR == 0 {
        Role::Dialer
    } else {
        Role::Acceptor
    };
    let mut run: Run = Run::new(Side::new(role, &config(PATIENCE), Instant::now()));
    if flags & SERVES != 0 {
        run.acceptor = run.side.session.clone().map(Acceptor::new);
    }
    if flags & GREETED != 0 {
        let mut hello = preface::encode(preface::VERSION).to_vec();
        Settings::FLOORS.put(&mut hello);
        run.side.hear(&hello);
    }
    let steps = usize::from(input.byte());
    let mut script = Input(input.take(steps));
    while !script.is_empty() {
        let step = script.byte();
        run.side.hear(input.take(PIECES[usize::from(step & 7)]));
        run.act(step >> 3);
    }
    run.side.hear(input.take(usize::MAX));
    run.act(0);
    // After any input, a silent peer must be given up.
    run.side.elapse(4 * PATIENCE, &mut run.written);
    assert!(run.side.is_closed(), "it ends by its ceiling");
    run.look_at_what_was_written();
    run.acceptor = None;
    let memory = run.side.finish(run.streams);
    for mut call in run.handlers {
        assert!(call.poll_gone(&cx()).is_ready(), "a handler is told");
    }
    for mut call in run.callers {
        assert!(call.poll(&cx()).is_ready(), "a caller gets an end");
    }
    memory.is_back();
}

pub(super) struct Run<W = Native> {
    pub(super) side: Side<W>,
    acceptor: Option<Acceptor>,
    pub(super) streams: Vec<Stream>,
    handlers: Vec<IncomingCall>,
    callers: Vec<PendingCall<'static>>,
    pub(super) written: Vec<u8>,
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn begin(session: &Session) -> Option<PendingCall<'static>> {
    let opening = |block: &mut Vec<u8>| block.extend_from_slice(b"fuzz");
    PendingCall::begin(
        &Cow::Owned(session.clone()),
        opening,
        &mut Request::raw(session, &Bytes::from_static(b"request")),
        None,
    )
}

impl<W: Wire> Run<W> {
    pub(super) const fn new(side: Side<W>) -> Self {
        Self {
            side,
            acceptor: None,
            streams: Vec::new(),
            handlers: Vec::new(),
            callers: Vec::new(),
            written: Vec::new(),
        }
    }

    pub(super) fn act(&mut self, step: u8) {
        let (action, how) = (step & 7, step >> 3);
        match action {
            0 => {}
            1 => self.accept(),
            2 => self.receive(),
            3 => {
                let len = LENGTHS[usize::from(how)];
                for stream in &mut self.streams {
                    let _ = stream.try_send(vec![how; len].into());
                }
            }
            4 => {
                let session = self.side.session.as_ref();
                let opened = session.and_then(|session| session.try_open(vec![how; 40]).ok());
                self.streams.extend(opened);
                self.callers
                    .extend(self.side.session.as_ref().and_then(begin));
            }
            5 => self.end_one(how),
            6 => {
                let time = [1, 10, 500, 1500][usize::from(how)];
                let time = Duration::from_millis(time);
                self.side.elapse(time, &mut self.written);
            }
            _ => self.leave(how),
        }
        while self.side.say(&mut self.written) {}
    }

    fn accept(&mut self) {
        while let Some(acceptor) = &mut self.acceptor {
            match acceptor.poll(&cx()) {
                Poll::Ready(Ok(Some(Arrival::Call(call)))) => self.handlers.push(call),
                Poll::Ready(Ok(Some(Arrival::Stream(send, recv)))) => {
                    self.streams.push((send, recv));
                }
                Poll::Ready(Ok(None) | Err(_)) => self.acceptor = None,
                Poll::Pending => return,
            }
        }
        let Some(session) = &self.side.session else {
            return;
        };
        while let Some(Ok(Some(stream))) = now(session.accept()) {
            self.streams.push(stream);
        }
    }

    fn receive(&mut self) {
        let mut streams = Vec::new();
        self.callers.retain_mut(|call| match call.poll(&cx()) {
            Poll::Ready(Answer::Stream(halves)) => {
                streams.push(*halves);
                false
            }
            polled => polled.is_pending(),
        });
        self.streams.extend(streams);
        for stream in &mut self.streams {
            // After an end repeated calls must return the same.
            for _ in 0..8 {
                let _ = now(stream.recv());
            }
        }
    }

    fn end_one(&mut self, how: u8) {
        if let Some(mut call) = self.handlers.pop() {
            let request = call.take_request();
            match how {
                0 => drop(call),
                1 => call.reply(request),
                2 => call.fail(7, "no", b""),
                _ => drop(call.become_stream()),
            }
            return;
        }
        if how == 0 {
            drop(self.callers.pop());
        }
        let Some(mut stream) = self.streams.pop() else {
            return;
        };
        let kept = match how {
            0 => None,
            1 => stream.finish().ok(),
            2 => stream.finish_with_error(7, "no").ok(),
            _ => {
                stream.stop(7);
                Some(())
            }
        };
        if kept.is_some() {
            self.streams.insert(0, stream);
        }
    }

    fn leave(&mut self, how: u8) {
        let Some(session) = self.side.session.take() else {
            return;
        };
        match how {
            0 => drop(now(session.ping())),
            1 => session.close(),
            2 => drop(now(session.shutdown(PATIENCE))),
            _ => {
                self.acceptor = None;
                return;
            }
        }
        self.side.session = Some(session);
    }
}

impl Run {
    /// The connection's output must be complete, valid frames.
    fn look_at_what_was_written(&self) {
        let mut bytes = &self.written[..];
        if let Some(rest) = bytes.strip_prefix(&preface::encode(preface::VERSION)) {
            bytes = rest;
        }
        let mut farewell = false;
        while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            assert!(!farewell, "no frame follows the GOAWAY");
            let header = Header::decode(*head);
            check(header, MAX_FRAME_CEILING).expect("a header as it should be");
            let end = HEADER_LEN + header.length as usize;
            let frame = Frame::parse(header, &bytes[HEADER_LEN..end]).expect("a frame");
            farewell =
                matches!(frame, Frame::GoAway { soon: false, code, .. } if code != codes::SHUTDOWN);
            bytes = &bytes[end..];
        }
        assert!(bytes.is_empty(), "whole frames");
    }
}
