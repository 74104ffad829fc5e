//! What the applications of a run said and saw, and whether the two agree.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use bytes::Bytes;

use super::net::Rng;
use crate::error::{SendError, SessionError, StreamError};
use crate::frame::codes;

/// A stream, named by the side that opened it and a number: it is at the front of the opening block.
pub(super) type Tag = u64;

/// What one side sent on a stream, and how far the other has received it.
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
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) opened: bool,
    pub(super) accepted: bool,
    /// By sending side.
    pub(super) flows: [Flow; 2],
    /// Codes with which somebody cancelled, stopped or dropped a half.
    pub(super) codes: HashSet<u32>,
    /// A side was told that the peer never saw it.
    unprocessed: bool,
    /// A limit ended it.
    limited: bool,
}

/// What may happen in a run besides what its applications do.
#[derive(Debug, Default)]
pub(super) struct Licence {
    /// A session may end before its applications are done.
    pub(super) end: bool,
    /// Streams may meet a limit.
    pub(super) limits: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) entries: HashMap<Tag, Entry>,
    pub(super) licence: Licence,
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

/// The opening block of a stream.
pub(super) fn block(tag: Tag, len: usize) -> Bytes {
    let mut block = tag.to_le_bytes().to_vec();
    block.extend_from_slice(&content(tag, 0, usize::MAX / 4, len - 8));
    block.into()
}

/// What a receiver finds at the end of a stream.
#[derive(Debug)]
pub(super) enum Seen {
    Clean,
    Error(StreamError),
    /// It stopped, or left, by itself.
    Left,
}

impl Ledger {
    pub(super) fn entry(&mut self, tag: Tag) -> &mut Entry {
        self.entries.entry(tag).or_default()
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn count(&mut self, end: &'static str) {
        *self.ends.entry(end).or_default() += 1;
    }

    pub(super) fn accepted(&mut self, tag: Tag, opening: &[u8]) {
        if opening != block(tag, opening.len()) {
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

    /// Bytes of messages arrived, wherever they were cut.
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

    /// What `side` sent has come to its end at the receiver.
    pub(super) fn received(&mut self, tag: Tag, side: usize, metas: usize, seen: &Seen) {
        let flow = &self.entry(tag).flows[side];
        let all = flow.received == flow.sent.len() && flow.partly == 0;
        match seen {
            Seen::Left => self.count("left"),
            Seen::Clean => {
                if !flow.finished || !all || flow.metas != metas {
                    let flow = format!("{flow:?}, {metas} metas");
                    self.fail(format!("{tag:#x} from {side} ended cleanly: {flow}"));
                }
                self.count("clean");
            }
            Seen::Error(StreamError::Failed(failure)) => {
                if flow.failed != Some(failure.code)
                    || failure.message != failure.code.to_string()
                    || !all
                {
                    let flow = format!("{flow:?}");
                    self.fail(format!("{tag:#x} from {side}: {failure:?} but {flow}"));
                }
                self.count("failed");
            }
            Seen::Error(error) => self.ended(tag, error),
        }
    }

    /// A send was refused on a stream of `side`.
    pub(super) fn refused(&mut self, tag: Tag, side: usize, error: &SendError) {
        match error {
            SendError::Stopped { code } => {
                if !self.entry(tag).codes.contains(code) {
                    self.fail(format!("{tag:#x} was stopped with {code:#x} by nobody"));
                }
                self.count("stopped");
            }
            SendError::Stream(StreamError::Failed(failure)) => {
                if self.entry(tag).flows[1 - side].failed != Some(failure.code) {
                    self.fail(format!("{tag:#x} was failed by nobody"));
                }
            }
            SendError::Stream(error) => self.ended(tag, error),
            other => self.fail(format!("{tag:#x}: {other}")),
        }
    }

    fn ended(&mut self, tag: Tag, error: &StreamError) {
        match error {
            StreamError::Cancelled { code } => {
                let limited = *code == codes::LIMIT_EXCEEDED && self.licence.limits;
                let refused = *code == codes::REFUSED && self.licence.end;
                if !limited && !refused && !self.entry(tag).codes.contains(code) {
                    self.fail(format!("{tag:#x} was cancelled with {code:#x} by nobody"));
                }
                self.count("cancelled");
            }
            StreamError::LimitExceeded { .. } => {
                self.entry(tag).limited = true;
                if !self.licence.limits {
                    self.fail(format!("{tag:#x}: {error}"));
                }
                self.count("limited");
            }
            StreamError::NotProcessed(end) => {
                self.entry(tag).unprocessed = true;
                self.session(end);
                self.count("not processed");
            }
            StreamError::Session(end) => {
                self.session(end);
                self.count("session");
            }
            other => self.fail(format!("{tag:#x}: {other}")),
        }
    }

    /// A session ended, as somebody was told.
    pub(super) fn session(&mut self, end: &SessionError) {
        let honest = match end {
            SessionError::Closed | SessionError::Disconnected | SessionError::Io(_) => true,
            SessionError::PeerClosed { code, .. } => {
                [codes::NO_ERROR, codes::SHUTDOWN].contains(code)
            }
            _ => false,
        };
        if !honest || !self.licence.end {
            self.fail(format!("a session ended: {end}"));
        }
    }

    /// After everything has ended.
    pub(super) fn settle(&mut self) {
        let broken = self
            .entries
            .iter()
            .find(|(_, entry)| entry.unprocessed && entry.accepted)
            .map(|(tag, _)| format!("{tag:#x} was processed after all"));
        if let Some(broken) = broken {
            self.fail(broken);
        }
    }
}
