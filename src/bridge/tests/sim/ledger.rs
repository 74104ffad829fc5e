//! The records of the applications of a run, and whether both sides' records agree.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use bytes::Bytes;

use crate::bridge::Drained;
use crate::bridge::tests::A;
use crate::bridge::tests::net::Rng;
use crate::error::codes;
use crate::error::{Failure, Processed, SendError, SessionError, Side, StreamError};

mod calls;

use calls::Call;
pub(super) use calls::{Did, words};

/// A stream, named by its connection, the side that opened it and a number: in front of the opening block.
pub(super) type Tag = u64;

pub(super) const fn tag(pair: usize, side: usize, n: usize) -> Tag {
    (pair as u64) << 40 | (side as u64) << 32 | (n as u64 + 1)
}

pub(super) const fn pair_of(tag: Tag) -> usize {
    (tag >> 40) as usize
}

/// The side that opened it.
pub(super) const fn opener(tag: Tag) -> usize {
    (tag >> 32 & 1) as usize
}

/// The messages that one side sent on a stream, and how far the other has received them.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Lengths of the messages that were accepted for sending.
    pub(super) sent: Vec<usize>,
    pub(super) metas: usize,
    pub(super) finished: bool,
    pub(super) failed: Option<u32>,
    /// Messages received, and bytes of the one under way.
    received: usize,
    partly: usize,
    /// The receiver has left before the end.
    left: bool,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) opened: bool,
    /// The opening block.
    pub(super) block: Bytes,
    pub(super) accepted: bool,
    /// By sending side.
    pub(super) flows: [Flow; 2],
    /// Codes of cancels, stops and drops of a half.
    pub(super) codes: HashSet<u32>,
    /// The opener was told that the peer's application never saw it.
    unprocessed: Option<String>,
    /// By side, whether it ended with its session there.
    orphaned: [bool; 2],
    /// Halves of each side that have ended: sending, receiving.
    ended: [[bool; 2]; 2],
}

/// The faults that a session may suffer besides the actions of its applications.
#[derive(Clone, Debug, Default)]
pub(super) struct Licence {
    /// A side has ended it in order.
    pub(super) end: bool,
    /// Its connection is cut, or a process dies.
    pub(super) fault: bool,
    /// Nothing arrives for some time.
    pub(super) freeze: bool,
    /// The final GOAWAY may be late, or not arrive at all.
    pub(super) mute: bool,
    /// Streams may meet a limit.
    pub(super) limits: bool,
    /// Over DRPC: a side could not write for its `write_timeout`, because the applications of the other side consumed nothing, and
    /// has ended the session (DRPC.md, Limits); the other side ends as `Disconnected`. One way to get there: an application sends all
    /// its messages before it reads an answer, and the WindowUpdate for them arrives behind answers.
    pub(super) unread: bool,
    /// A side may stop taking calls.
    pub(super) stops: bool,
    /// A shutdown has reported no loss.
    pub(super) lossless: bool,
    /// A shutdown has reported a loss.
    pub(super) lossy: bool,
    /// A side has called `close`.
    pub(super) closed: bool,
}

/// One session: for each side, the reason for its end as reported there.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) licence: Licence,
    ends: [Option<String>; 2],
    /// How many streams a shutdown of that side has reported as cancelled.
    cancelled: [Option<u64>; 2],
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The wire is DRPC, which tells less.
    pub(super) drpc: bool,
    pub(super) entries: HashMap<Tag, Entry>,
    pub(super) calls: HashMap<Tag, Call>,
    sessions: HashMap<usize, Record>,
    pub(super) delivered: u64,
    pub(super) ends: HashMap<&'static str, u64>,
    /// The first disagreement.
    pub(super) failure: Option<String>,
}

/// Longest message of a run.
pub(super) const LONGEST: usize = 400 * 1024;

fn noise() -> &'static Bytes {
    static NOISE: OnceLock<Bytes> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut rng = Rng::new(7);
        (0..(LONGEST + 65_536) / 8)
            .flat_map(|_| rng.next().to_le_bytes())
            .collect()
    })
}

/// The content of a message: a function of where it belongs.
pub(super) fn content(tag: Tag, side: usize, index: usize, len: usize) -> Bytes {
    let place = Rng::of(tag, (index * 2 + side) as u64).next() as usize % 65_536;
    noise().slice(place..place + len)
}

/// The opening block of a stream: text, which begins with the tag.
pub(super) fn block(tag: Tag, len: usize) -> Bytes {
    let number = (pair_of(tag) as u64) << 25 | (opener(tag) as u64) << 24 | (tag & 0xff_ffff);
    let digit = |at: u32| 0x30 + (number >> (6 * at) & 0x3f) as u8;
    let noise = content(tag, 0, usize::MAX / 4, len - 8);
    let letters = noise.iter().map(|byte| 0x40 | byte & 0x3f);
    (0..8).map(digit).chain(letters).collect()
}

/// The tag in an opening block; 0, which is no tag, if there is none.
pub(super) fn named(block: &[u8]) -> Tag {
    let digits = block.iter().take(8).rev();
    let number = digits.fold(0_u64, |number, digit| {
        number << 6 | u64::from(digit.wrapping_sub(0x30) & 0x3f)
    });
    let pair = (number >> 25) << 40;
    pair | (number >> 24 & 1) << 32 | (number & 0xff_ffff)
}

/// The end of a stream as its receiver sees it.
#[derive(Debug)]
pub(super) enum Seen {
    Clean,
    Error(StreamError),
    /// The receiver stopped, or left, by itself.
    Left,
}

impl Ledger {
    pub(super) fn entry(&mut self, tag: Tag) -> &mut Entry {
        self.entries.entry(tag).or_default()
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    pub(super) fn licence(&mut self, pair: usize) -> &mut Licence {
        &mut self.sessions.entry(pair).or_default().licence
    }

    pub(super) fn count(&mut self, end: &'static str) {
        *self.ends.entry(end).or_default() += 1;
    }

    pub(super) fn accepted(&mut self, pair: usize, tag: Tag, opening: &[u8]) {
        if pair_of(tag) != pair {
            return self.fail(format!("stream {tag:#x} is on connection {pair}"));
        }
        if opening != self.entry(tag).block {
            return self.fail(format!("opening block of {tag:#x} is damaged"));
        }
        let entry = self.entry(tag);
        let twice = std::mem::replace(&mut entry.accepted, true);
        if twice || !entry.opened {
            self.fail(format!(
                "stream {tag:#x} was accepted twice or never opened"
            ));
        }
    }

    /// A whole message arrived from `side`.
    pub(super) fn message(&mut self, tag: Tag, side: usize, message: &[u8]) {
        let flow = &mut self.entry(tag).flows[side];
        let index = flow.received;
        let Some(len) = flow.sent.get(index).copied() else {
            return self.fail(format!("message {index} of {tag:#x} was never sent"));
        };
        flow.received += 1;
        self.delivered += 1;
        if message != content(tag, side, index, len) {
            self.fail(format!(
                "message {index} of {tag:#x} from {side}: {} bytes for {len}",
                message.len()
            ));
        }
    }

    /// Bytes of messages arrived, cut anywhere.
    pub(super) fn bytes(&mut self, tag: Tag, side: usize, mut bytes: &[u8]) {
        loop {
            let flow = &mut self.entry(tag).flows[side];
            let (index, from) = (flow.received, flow.partly);
            let Some(len) = flow.sent.get(index).copied() else {
                if !bytes.is_empty() {
                    self.fail(format!("{} bytes of {tag:#x} were never sent", bytes.len()));
                }
                return;
            };
            let n = bytes.len().min(len - from);
            if bytes[..n] != content(tag, side, index, len)[from..from + n] {
                return self.fail(format!("bytes of message {index} of {tag:#x} differ"));
            }
            bytes = &bytes[n..];
            flow.partly += n;
            if flow.partly < len {
                return;
            }
            flow.partly = 0;
            flow.received += 1;
            self.delivered += 1;
        }
    }

    /// The direction of `side` has ended at the receiver.
    pub(super) fn received(&mut self, tag: Tag, side: usize, metas: usize, seen: &Seen) {
        self.half_ended(tag, 1 - side, 1);
        let flow = &self.entry(tag).flows[side];
        let all = flow.received == flow.sent.len() && flow.partly == 0;
        match seen {
            Seen::Left => {
                self.entry(tag).flows[side].left = true;
                self.count("left");
            }
            Seen::Clean => {
                if !flow.finished || !all || flow.metas != metas {
                    let flow = format!("{flow:?}, {metas} metas");
                    self.fail(format!("{tag:#x} from {side} ended cleanly: {flow}"));
                }
                self.count("clean");
            }
            Seen::Error(StreamError::Failed(failure)) => {
                if let Some(error) = self.cancel_in(1 - side, failure) {
                    return self.ended(tag, 1 - side, &error);
                }
                let flow = &self.entry(tag).flows[side];
                if flow.failed != Some(failure.code)
                    || failure.message != failure.code.to_string()
                    || !all
                {
                    let flow = format!("{flow:?}");
                    self.fail(format!("{tag:#x} from {side}: {failure:?} but {flow}"));
                }
                self.count("failed");
            }
            Seen::Error(error) => self.ended(tag, 1 - side, error),
        }
    }

    /// One half of a side's end of a stream has ended, which happens once.
    pub(super) fn half_ended(&mut self, tag: Tag, side: usize, half: usize) {
        let twice = std::mem::replace(&mut self.entry(tag).ended[side][half], true);
        if twice {
            self.fail(format!("half {half} of {tag:#x} at {side} ended twice"));
        }
    }

    /// A complete answer implies a complete question.
    pub(super) fn answered(&mut self, tag: Tag) {
        let flow = &self.entry(tag).flows[opener(tag)];
        let whole = flow.received == flow.sent.len() && flow.finished;
        if !whole && !flow.left {
            self.fail(format!("{tag:#x} was answered before it was asked"));
        }
        self.count("answered");
    }

    /// A send was refused on a stream of `side`.
    pub(super) fn refused(&mut self, tag: Tag, side: usize, error: &SendError) {
        match error {
            SendError::Stopped { code } => {
                if !self.entry(tag).codes.contains(code) {
                    self.fail(format!(
                        "{tag:#x} was stopped with {code:#x} without a cause"
                    ));
                }
                self.count("stopped");
            }
            SendError::Stream(StreamError::Failed(failure)) => {
                if let Some(error) = self.cancel_in(side, failure) {
                    return self.ended(tag, side, &error);
                }
                if self.entry(tag).flows[1 - side].failed != Some(failure.code) {
                    self.fail(format!("{tag:#x} failed without a cause"));
                }
            }
            SendError::Stream(error) => self.ended(tag, side, error),
            other => self.fail(format!("{tag:#x}: {other}")),
        }
    }

    /// The cancel that an Error of DRPC stands for, at the dialling side.
    fn cancel_in(&self, side: usize, failure: &Failure) -> Option<StreamError> {
        if !self.drpc || side == A {
            return None;
        }
        let code = match (failure.code, &failure.message[..]) {
            (1, "the call was cancelled by the server") => codes::CANCELLED,
            (8, "the call exceeds a limit of the server") => codes::LIMIT_EXCEEDED,
            (14, "the call was turned away by the server")
            | (14, "the server is shutting down and takes no more calls") => codes::UNAVAILABLE,
            (code, "the call was cancelled by the server") => code,
            _ => return None,
        };
        let by = Side::Peer;
        Some(StreamError::Cancelled { by, code })
    }

    fn ended(&mut self, tag: Tag, side: usize, error: &StreamError) {
        let pair = pair_of(tag);
        let licence = self.licence(pair).clone();
        // A send that reports that it was not processed is safe to repeat, so the peer must not have seen it.
        if error.was_processed() == Processed::No && side == opener(tag) {
            self.entry(tag).unprocessed = Some(error.to_string());
        }
        match error {
            StreamError::Cancelled { code, .. } => {
                let limited = *code == codes::LIMIT_EXCEEDED && licence.limits;
                // Over DRPC, calls beyond what the server takes are refused too.
                let refused = *code == codes::UNAVAILABLE && (licence.end || self.drpc);
                // A Cancel of DRPC has no code, and an Error behind a CloseSend counts as one.
                let any = self.drpc && *code == codes::CANCELLED;
                let stopped = side == A && !self.entry(tag).codes.is_empty();
                let known =
                    self.entry(tag).codes.contains(code) || (any && (stopped || licence.limits));
                if !limited && !refused && !known {
                    let call = self.calls.get(&tag).map(|call| format!(": {call:?}"));
                    let call = call.unwrap_or_default();
                    self.fail(format!(
                        "{tag:#x} was cancelled with {code:#x} at {side} without a cause{call}"
                    ));
                }
                self.count("cancelled");
            }
            StreamError::LimitExceeded { .. } => {
                if !licence.limits {
                    self.fail(format!("{tag:#x}: {error}"));
                }
                self.count("limited");
            }
            StreamError::NotProcessed(end) => {
                self.may_end(pair, end);
                self.count("not processed");
            }
            StreamError::Session(end) => {
                self.entry(tag).orphaned[side] = true;
                self.session(pair, side, end);
                self.count("session");
            }
            other => self.fail(format!("{tag:#x}: {other}")),
        }
    }

    /// The peer will not see this stream: it was never opened.
    pub(super) fn not_opened(&mut self, tag: Tag, end: &SessionError) {
        self.entry(tag).unprocessed = Some(end.to_string());
        self.may_end(pair_of(tag), end);
        self.count("not opened");
    }

    /// The report of a side's shutdown.
    pub(super) fn shut_down(&mut self, pair: usize, side: usize, report: Drained) {
        let lost = report.cancelled + report.forced > 0;
        self.count(if lost {
            "shut down, some lost"
        } else {
            "shut down, none lost"
        });
        let record = self.sessions.entry(pair).or_default();
        record.licence.lossless = true;
        record.licence.lossy |= lost;
        record.cancelled[side] = Some(report.cancelled);
    }

    /// A session ended, with the reason reported on this side: all reports agree.
    pub(super) fn session(&mut self, pair: usize, side: usize, end: &SessionError) {
        self.may_end(pair, end);
        let end = end.to_string();
        let known = &mut self.sessions.entry(pair).or_default().ends[side];
        if *known.get_or_insert_with(|| end.clone()) != end {
            let what = format!("session {pair}/{side} ended twice: {known:?}, then {end}");
            self.fail(what);
        }
    }

    /// One side of a session is over, for this reason.
    pub(super) fn over(&mut self, pair: usize, side: usize, end: &SessionError) {
        self.session(pair, side, end);
        self.count(match end {
            SessionError::Closed => "session: closed",
            SessionError::PeerClosed { .. } => "session: the peer closed",
            SessionError::Disconnected => "session: disconnected",
            SessionError::Io(_) => "session: failed",
            SessionError::EngineStopped => "session: crashed",
            SessionError::HandshakeTimeout(_) => "session: no handshake",
            SessionError::KeepaliveTimeout(_) => "session: no sign of life",
            SessionError::WriteTimeout(_) => "session: stuck",
            _ => "session: other",
        });
    }

    /// Whether there was a cause for this end.
    fn may_end(&mut self, pair: usize, end: &SessionError) {
        let drpc = self.drpc;
        let licence = self.licence(pair);
        let honest = match end {
            SessionError::Closed => licence.end,
            // There is no GOAWAY in DRPC.
            SessionError::Disconnected if drpc && licence.end => true,
            SessionError::Disconnected => {
                licence.mute || licence.fault || licence.freeze || licence.unread
            }
            SessionError::Io(_) => licence.end || licence.fault,
            SessionError::EngineStopped => licence.fault,
            SessionError::PeerClosed { code, .. } => match *code {
                codes::NO_ERROR | codes::SHUTDOWN => licence.end,
                codes::KEEPALIVE => licence.freeze,
                _ => false,
            },
            SessionError::WriteTimeout(_) => licence.freeze || licence.unread,
            SessionError::KeepaliveTimeout(_) | SessionError::HandshakeTimeout(_) => licence.freeze,
            _ => false,
        };
        if !honest {
            self.fail(format!("session {pair} ended without reason: {end}"));
        }
    }

    /// After everything has ended.
    pub(super) fn settle(&mut self) {
        let mut broken = Vec::new();
        for (tag, entry) in &self.entries {
            if let Some(error) = entry.unprocessed.as_ref().filter(|_| entry.accepted) {
                broken.push(format!("{tag:#x} was processed after all: {error}"));
            }
            let licence = &self.sessions[&pair_of(*tag)].licence;
            let excused = licence.lossy || licence.closed || licence.fault || licence.freeze;
            // Over DRPC a side that shuts down cannot know of calls that are under way to it.
            let excused = excused || self.drpc || self.was_given_up(*tag);
            if entry.orphaned != [false; 2] && licence.lossless && !excused {
                broken.push(format!("{tag:#x} was lost in a shutdown that lost nothing"));
            }
        }
        for (pair, record) in &self.sessions {
            for side in [0, 1] {
                let Some(said) = record.cancelled[side] else {
                    continue;
                };
                let orphans = self.entries.iter().filter(|(tag, entry)| {
                    pair_of(**tag) == *pair && entry.orphaned[side] && !self.was_given_up(**tag)
                });
                let orphans = orphans.count() as u64;
                let licence = &record.licence;
                if orphans > said && !licence.closed {
                    broken.push(format!(
                        "{pair}/{side} cancelled {orphans} streams and said {said}"
                    ));
                }
            }
        }
        self.settle_calls(&mut broken);
        broken.sort();
        broken.into_iter().for_each(|what| self.fail(what));
    }
}
