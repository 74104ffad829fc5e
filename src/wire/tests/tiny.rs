//! A tiny wire, as unlike the native one as possible: it shows that core, bridge and drivers depend on neither.
//!
//! ```text
//!   kind: u8 │ stream: u32 LE │ length: u32 LE │ payload
//! ```
//! * No handshake, no credit, no PING, no GOAWAY. A receiver that is full stops reading.
//! * The dialling side opens streams, one at a time; the next one opens when the previous one is over in both directions.
//! * An opening block has two frames. A message has pieces without a total.

use std::time::Instant;

use bytes::{Buf, BytesMut};

use crate::config::Config;
use crate::core::port::tx_tag;
use crate::core::{
    Core, Event, Floors, Incoming, Key, May, Mux, Piece, Sent, SessionCredit, SessionPort, Stream,
    StreamPort, Terms, Turn, failure,
};
use crate::error::{Failure, ProtocolError, SessionError};
use crate::wire::{Batch, Role, WAKES_MAX, WORK_MAX, Wire};

/// Bytes of a header.
pub(crate) const HEADER: usize = 9;
/// The longest piece of a message, in bytes: short, so that most messages have several.
pub(crate) const PIECE: usize = 1000;

/// Kinds of frames.
pub(crate) mod kind {
    /// The first half of an opening block.
    pub(crate) const OPEN: u8 = 0;
    /// The second half: the stream is open.
    pub(crate) const OPENED: u8 = 1;
    /// A piece of a message, with more to follow.
    pub(crate) const PART: u8 = 2;
    /// A piece that completes its message.
    pub(crate) const END: u8 = 3;
    pub(crate) const FIN: u8 = 4;
    /// A code.
    pub(crate) const CANCEL: u8 = 5;
    /// A code, and a text.
    pub(crate) const ERROR: u8 = 6;
}

/// One side.
#[derive(Debug)]
pub(crate) struct Tiny {
    role: Role,
    /// The last stream that was opened, by the side that opens streams.
    last: u32,
    /// The first half of an opening block.
    opening: Option<Vec<u8>>,
}

/// A rule that was broken.
const fn broken(rule: &'static str) -> SessionError {
    SessionError::Protocol(ProtocolError::Foreign { rule })
}

/// A received frame.
struct Frame<'a> {
    kind: u8,
    id: u32,
    payload: &'a [u8],
}

fn put(batch: &mut Batch, kind: u8, id: u32, payload: &[u8]) {
    let mut header = [0; HEADER];
    header[0] = kind;
    header[1..5].copy_from_slice(&id.to_le_bytes());
    header[5..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    batch.head().put_frame(header, payload);
}

impl Tiny {
    /// Acts on a frame.
    fn on_frame<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<(), SessionError> {
        let charge = u64::from(S::Stream::CHARGE);
        let cost = charge + frame.payload.len() as u64;
        match frame.kind {
            kind::OPEN | kind::OPENED if self.role == Role::Dialer => {
                return Err(broken("the accepting side opens no streams"));
            }
            kind::OPEN => {
                self.opening = Some(frame.payload.to_vec());
                return Ok(());
            }
            kind::OPENED => {
                let first = self.opening.take().ok_or(broken("half an opening"))?;
                let block = [&first[..], frame.payload].concat();
                self.last = frame.id;
                let permit = core.mux.permits.take(core.mux.base.config.max_streams());
                permit.map_err(|_| broken("too many streams"))?;
                let opened = core.open_by_peer(frame.id, &block, false, charge, now);
                return opened.map_err(|_| broken("no window"));
            }
            _ => {}
        }
        // A late frame for a stream that is gone is no fault.
        let Some(key) = core.mux.base.streams.find(frame.id) else {
            return Ok(());
        };
        match frame.kind {
            kind::PART | kind::END => {
                let piece = Piece {
                    payload: Incoming::Slice(frame.payload),
                    skip: 0,
                    end: frame.kind == kind::END,
                    total: None,
                };
                (core.mux.flow.receive(cost)).map_err(|_| broken("the session is full"))?;
                let received = core.mux.receive_piece(key, piece, cost, now);
                received.map_err(|_| broken("a piece out of place"))
            }
            kind::FIN => {
                let finished = core.mux.finish_receiving(key);
                finished.map_err(|_| broken("an end out of place"))
            }
            kind::CANCEL | kind::ERROR => on_end(core, key, frame),
            _ => Err(broken("a kind that is not known")),
        }
    }

    /// The stream that is open, if it is not over.
    fn is_busy<S: SessionPort>(&self, mux: &mut Mux<S>) -> bool {
        let streams = &mut mux.base.streams;
        let key = streams.find(self.last);
        let stream = key.and_then(|key| streams.get_mut(key));
        stream.is_some_and(|stream| !stream.state.is_over())
    }

    fn put_opening<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch) {
        if self.role == Role::Acceptor || self.is_busy(mux) {
            return;
        }
        let id = self.last + 1;
        let Some((key, block)) = mux.next_opening() else {
            return;
        };
        let (first, second) = block.split_at(block.len() / 2);
        put(batch, kind::OPEN, id, first);
        put(batch, kind::OPENED, id, second);
        self.last = id;
        mux.opened(key, id, 0);
        // For the stream after it.
        mux.permits.on_granted(&mut mux.base, 1);
    }

    /// Discards the credit frames that the core owes for a wire with credit.
    fn drop_credit<S: SessionPort>(mux: &mut Mux<S>, now: Instant) {
        let _ = mux.session_window(None, now);
        let _ = mux.permits.take_grant(mux.base.config.max_streams());
        while mux.permits.next_refusal().is_some() {}
    }
}

fn on_end<S: SessionPort>(
    core: &mut Core<S>,
    key: Key,
    frame: &Frame<'_>,
) -> Result<(), SessionError> {
    let (code, text) = (frame.payload.split_first_chunk()).ok_or(broken("no code"))?;
    let code = u32::from_le_bytes(*code);
    if frame.kind == kind::CANCEL {
        core.cancel_by_peer(key, code);
        return Ok(());
    }
    let failure = Failure {
        code,
        message: String::from_utf8_lossy(text).into_owned(),
        details: bytes::Bytes::new(),
    };
    let failed = core.mux.failed_by_peer(key, failure);
    failed.map_err(|_| broken("an error out of place"))
}

/// One frame of a stream.
fn send_one<P: StreamPort>(stream: &mut Stream<P>, id: u32, batch: &mut Batch) -> Option<Turn> {
    let Some(record) = stream.port.front() else {
        return Some(Turn::Drained);
    };
    if batch.room() < HEADER + PIECE {
        return Some(Turn::BatchFull);
    }
    let bytes = record.payload.as_slice();
    match record.tag {
        tx_tag::MESSAGE => {
            let rest = &bytes[stream.sent as usize..];
            let (piece, ends) = match rest.get(..PIECE) {
                Some(piece) if piece.len() < rest.len() => (piece, false),
                _ => (rest, true),
            };
            let kind = if ends { kind::END } else { kind::PART };
            put(batch, kind, id, piece);
            stream.deficit -= piece.len() as i32 + HEADER as i32;
            if ends {
                stream.sent = 0;
                stream.port.pass();
            } else {
                stream.sent += PIECE as u32;
            }
            None
        }
        tx_tag::ERROR => {
            let (code, text, _) = failure::decode(bytes);
            let payload = [&code.to_le_bytes()[..], text.as_bytes()].concat();
            put(batch, kind::ERROR, id, &payload);
            stream.port.pass();
            stream.state.on(Event::SentError);
            Some(Turn::Failed { code })
        }
        tx_tag::FIN => {
            put(batch, kind::FIN, id, &[]);
            stream.port.pass();
            stream.state.on(Event::SentFin);
            Some(Turn::Drained)
        }
        _ => {
            // A block between messages: this wire has none.
            stream.port.pass();
            None
        }
    }
}

impl Wire for Tiny {
    const TERMS: Terms = Terms {
        credit: false,
        ping: false,
        goaway: false,
        both_open: false,
        max_call: 0,
        floors: Floors {
            max_message: 0,
            stream_window: 0,
            session_window: 64 * 1024,
            streams: 1,
        },
        max_opening: 100,
        max_block: 0,
        max_details: 0,
    };

    fn new(role: Role, _config: &Config, _session_window: u32) -> Self {
        Self {
            role,
            last: 0,
            opening: None,
        }
    }

    fn is_silent(_role: Role) -> bool {
        false
    }

    fn least_reception(_config: &Config) -> usize {
        2 * (HEADER + PIECE)
    }

    /// Without a handshake the session is established at once.
    fn begin<S: SessionPort>(&mut self, core: &mut Core<S>) {
        let max_message = core.mux.base.config.max_message();
        core.established(max_message, 0);
    }

    fn receive<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        _backing: usize,
        now: Instant,
    ) -> Result<bool, SessionError> {
        let (mut frames, mut more) = (0, false);
        while let Some((header, rest)) = buf.split_first_chunk::<HEADER>() {
            more = core.mux.base.wakes.len() >= WAKES_MAX || frames >= WORK_MAX;
            let [kind, i0, i1, i2, i3, l0, l1, l2, l3] = *header;
            let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            if len > PIECE {
                return Err(broken("a frame too long"));
            }
            let Some(payload) = rest.get(..len).filter(|_| !more) else {
                break;
            };
            let frame = Frame {
                kind,
                id: u32::from_le_bytes([i0, i1, i2, i3]),
                payload,
            };
            self.on_frame(core, &frame, now)?;
            buf.advance(HEADER + len);
            frames += 1;
        }
        core.mux.base.count_received(frames, frames);
        Ok(more)
    }

    fn is_silent_now(&self) -> bool {
        // Each call checks whether its stream is over.
        self.last == 0
    }

    fn transmit<S: SessionPort>(&mut self, core: &mut Core<S>, batch: &mut Batch, now: Instant) {
        if !core.begin_batch(now) {
            return;
        }
        let mux = &mut core.mux;
        Self::drop_credit(mux, now);
        while let Some(owed) = mux.base.next_owed() {
            if owed.cancel {
                put(batch, kind::CANCEL, owed.id, &owed.code.to_le_bytes());
            }
            if owed.window {
                let _ = (mux.flow).give_stream_back(&mut mux.base, owed.key, None, now);
            }
            mux.remove_if_done(owed.key);
        }
        self.put_opening(mux, batch);
        let mut turn = |id, stream: &mut Stream<S::Stream>, _: &mut SessionCredit| {
            let before = batch.len();
            let turn = loop {
                if stream.deficit <= 0 {
                    break Turn::Over;
                }
                if let Some(turn) = send_one(stream, id, batch) {
                    break turn;
                }
            };
            Sent {
                turn,
                bytes: batch.len() - before,
                ..Sent::NOTHING
            }
        };
        while mux.take_turn(May::SendAll, &mut turn) == Some(true) {}
        core.end_messages(now);
    }
}
