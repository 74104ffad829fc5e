//! Encodes all frames that may be sent now, into one batch.
//!
//! Order: refusals; ends and credit that streams owe; openings; then messages, by urgency and in turns.

use std::time::Instant;

use super::frame::{HEADER_MAX, Header, Kind, SPLIT};
use super::line::{Cursor, Line, core_id};
use super::{CONNECTION_HEADER, Drpc, failure};
use crate::core::port::{SessionPort, StreamPort, tx_tag};
use crate::core::stream::owed;
use crate::core::{Core, Event, Key, May, Mux, Sent, Stream, Turn, failure as record};
use crate::drpc::{CancelForm, ErrorForm, FlowControl, is_metadata, put_varint, split};
use crate::error::{SessionError, codes};
use crate::queue::Payload;
use crate::wire::{Batch, Role};

/// Payloads from this size on are referenced, shorter ones copied into the batch.
const SHARE_MIN: usize = 4096;
/// Room for any packet that is not a message or an opening, in bytes.
const CONTROL_ROOM: usize = HEADER_MAX + 28 * 1024;
/// Data that are copied are cut to what the batch has room for, but not below this.
const COPY_MIN: usize = 4096;

fn put(batch: &mut Batch, header: &Header, data: &[u8]) {
    let len = header.len();
    batch.head().put_with(len, |dst| header.put(dst));
    batch.head().extend_from_slice(data);
}

/// A packet of one frame.
fn put_packet(batch: &mut Batch, line: &mut Line, kind: Kind, data: &[u8]) {
    let number = line.take_number();
    put(batch, &Header::new(kind, line.id, number, data.len()), data);
}

impl Drpc {
    pub(super) fn fill<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        if !core.begin_batch(now) {
            return;
        }
        self.takes_calls = core.life.admits();
        let mux = &mut core.mux;
        // Grants and windows that only a wire with credit sends.
        let _ = mux.session_window(None, now);
        let _ = mux.permits.take_grant(mux.base.config.max_streams());
        self.put_refusals(mux, batch);
        if self.put_owed(mux, batch, now) {
            return core.abort(SessionError::Closed);
        }
        self.settle_calls(mux);
        loop {
            let may = match self.put_openings(mux, batch) {
                true => May::SendAll,
                false => May::EndOnly,
            };
            self.put_messages(mux, batch, may);
            // A call may have ended by this batch, and others wait for it.
            if !self.settle_calls(mux) || may == May::EndOnly {
                break;
            }
        }
        self.prune(mux);
        core.end_messages(now);
    }

    fn put_refusals<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch) {
        while batch.room() >= CONTROL_ROOM
            && let Some(refused) = self.turned_away.pop_front()
        {
            let mut line = Line::new(refused.id, Cursor::new());
            put_error(batch, &mut line, self.error_form(), refused.code);
            mux.base.count_sent(1);
        }
        mux.base.wire_owes = !self.turned_away.is_empty();
    }

    /// Ends and credit that streams owe. True if the connection is to be closed, which cancels a call.
    fn put_owed<S: SessionPort>(
        &mut self,
        mux: &mut Mux<S>,
        batch: &mut Batch,
        now: Instant,
    ) -> bool {
        let form = self.error_form();
        while batch.room() >= CONTROL_ROOM
            && let Some(owed) = mux.base.next_owed()
        {
            let Some(line) = self.lines.get_mut(&owed.id) else {
                continue;
            };
            if owed.stop && is_given_up(mux, owed.key, self.role) {
                // There is no STOP, and the peer would go on with a call whose answer is of no interest.
                mux.cancel(owed.key, owed.code);
                continue;
            }
            if owed.cancel {
                if self.role == Role::Acceptor {
                    put_error(batch, line, form, owed.code);
                } else if self.profile.cancel == CancelForm::Hard {
                    return true;
                } else {
                    put_packet(batch, line, Kind::Cancel, &[]);
                }
                mux.base.count_sent(1);
            } else if owed.fin {
                put_packet(batch, line, Kind::CloseSend, &[]);
                mux.base.count_sent(1);
            }
            if owed.window {
                self.put_update(mux, batch, owed.id);
                let _ = (mux.flow).give_stream_back(&mut mux.base, owed.key, None, now);
            }
            mux.remove_if_done(owed.key);
        }
        false
    }

    /// Returns credit for the bytes of a stream that its application has consumed.
    fn put_update<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch, id: u32) {
        let returns = match self.profile.flow_control {
            FlowControl::Off => false,
            FlowControl::WhenSeen => self.peer_returns,
            FlowControl::On | FlowControl::Required => true,
        };
        let Some((_, stream)) = mux.base.streams.find_mut(id) else {
            return;
        };
        let Some(line) = self.lines.get_mut(&id).filter(|_| returns) else {
            return;
        };
        let bytes = line.credit.owed(stream.window.held(), self.step);
        // A peer that may not know the frame must not see it inside a message.
        let known = self.peer_returns;
        if bytes == 0 || stream.state.is_over() {
            return;
        }
        if !known && line.is_inside() {
            line.returns_later = true;
            return;
        }
        line.credit.return_now(bytes);
        let mut data = Vec::with_capacity(10);
        put_varint(&mut data, bytes);
        if known {
            // Outside the order of packets.
            put(
                batch,
                &Header::new(Kind::WindowUpdate, line.id, 0, data.len()),
                &data,
            );
        } else {
            put_packet(batch, line, Kind::WindowUpdate, &data);
        }
        mux.base.count_sent(1);
    }

    // ---- openings -----------------------------------------------------------------------------

    /// Encodes the openings of streams that may run now; false if the batch has no room for one.
    fn put_openings<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch) -> bool {
        while self.may_call() {
            let mut next = self.ids.newest() + 1;
            while mux.base.streams.find(core_id(next)).is_some() {
                // Of a stream that was opened four billion streams ago.
                next += 1;
            }
            let Some((key, block)) = mux.next_opening() else {
                break;
            };
            let (name, metadata) = split(block);
            if !is_metadata(metadata) {
                // Peers close the connection at it.
                mux.cancel(key, codes::PROTOCOL);
                continue;
            }
            let len = CONNECTION_HEADER.len() + 2 * HEADER_MAX + block.len();
            if batch.room() < len {
                mux.permits.hold(&mut mux.base);
                return false;
            }
            if std::mem::take(&mut self.header_due) {
                batch.head().extend_from_slice(&CONNECTION_HEADER);
            }
            let id = core_id(next);
            self.ids.add(next);
            let mut line = Line::new(next, Cursor::new());
            if !metadata.is_empty() {
                put_packet(batch, &mut line, Kind::InvokeMetadata, metadata);
            }
            put_packet(batch, &mut line, Kind::Invoke, name);
            line.counted = true;
            self.calls += 1;
            self.lines.insert(id, line);
            mux.opened(key, id, 0);
        }
        true
    }

    // ---- messages -----------------------------------------------------------------------------

    fn put_messages<S: SessionPort>(&mut self, mux: &mut Mux<S>, batch: &mut Batch, may: May) {
        let (window, limited) = (self.profile.window, self.peer_returns);
        let form = self.error_form();
        let dialler = self.role == Role::Dialer;
        let (mut given_up, mut returning) = (Vec::new(), Vec::new());
        while batch.room() > CONTROL_ROOM {
            let before = batch.len();
            let lines = &mut self.lines;
            let more = mux.take_turn(may, |id, stream, _| {
                let Some(line) = lines.get_mut(&id) else {
                    // Not reached: a stream has its line before its first turn.
                    return Sent::NOTHING;
                };
                let mut sender = Sender {
                    stream,
                    line,
                    form,
                    window,
                    limited,
                    frames: 0,
                    messages: 0,
                };
                let turn = sender.turn(batch);
                if dialler && sender.stream.state.is_given_up() {
                    given_up.push(id);
                }
                if sender.line.may_return_now() {
                    returning.push(id);
                }
                Sent {
                    turn,
                    frames: sender.frames,
                    messages: sender.messages,
                    bytes: batch.len() - before,
                }
            });
            if more != Some(true) {
                break;
            }
        }
        for id in given_up {
            if let Some(key) = mux.base.streams.find(id) {
                mux.cancel(key, codes::CANCELLED);
            }
        }
        for id in returning {
            if let Some((key, stream)) = mux.base.streams.find_mut(id) {
                mux.base.owing.owe(key, stream, owed::WINDOW);
            }
        }
        // The remaining keys are not popped for now.
        mux.schedule.prune(&mut mux.base.streams);
    }
}

/// Whether nothing is sent or wanted any more of a stream that this side opened, and that the peer has not ended.
fn is_given_up<S: SessionPort>(mux: &mut Mux<S>, key: Key, role: Role) -> bool {
    let stream = mux.base.streams.get_mut(key);
    role == Role::Dialer && stream.is_some_and(|stream| stream.state.is_given_up())
}

fn put_error(batch: &mut Batch, line: &mut Line, form: (ErrorForm, bool), code: u32) {
    let (code, text) = failure::of_code(code);
    let data = failure::encode(form, code, text, &[]);
    put_packet(batch, line, Kind::Error, &data);
}

/// One stream's turn at the batch.
struct Sender<'a, P> {
    stream: &'a mut Stream<P>,
    line: &'a mut Line,
    form: (ErrorForm, bool),
    /// The peer's window of the stream, in bytes.
    window: u32,
    /// Messages wait for credit.
    limited: bool,
    frames: u64,
    messages: u64,
}

impl<P: StreamPort> Sender<'_, P> {
    fn turn(&mut self, batch: &mut Batch) -> Turn {
        while self.stream.deficit > 0 {
            let Some(front) = self.stream.port.front() else {
                return Turn::Drained;
            };
            let turn = match front.tag {
                tx_tag::MESSAGE => self.message(batch),
                tx_tag::ERROR => self.error(batch),
                tx_tag::FIN => Some(self.fin(batch)),
                _ => {
                    // A block between messages, which handles refuse.
                    self.stream.port.pass();
                    None
                }
            };
            if let Some(turn) = turn {
                return turn;
            }
        }
        Turn::Over
    }

    /// Sends one frame of the message in front. `None`: continue.
    fn message(&mut self, batch: &mut Batch) -> Option<Turn> {
        let begin = self.stream.sent as usize;
        let message = self.stream.port.front()?.payload;
        let left = message.len() - begin;
        let shared = matches!(message, Payload::Shared(_)) && left >= SHARE_MIN;
        let room = batch.room().saturating_sub(HEADER_MAX);
        let body = match shared {
            true => left.min(SPLIT),
            false => left.min(SPLIT).min(room.max(COPY_MIN)),
        };
        if batch.room() < HEADER_MAX || (!shared && room < body) {
            return Some(Turn::BatchFull);
        }
        if self.limited && begin == 0 && !self.line.credit.may_begin(body, self.window) {
            return Some(Turn::OutOfCredit);
        }
        let end = body == left;
        let header = Header {
            done: end,
            ..Header::new(Kind::Message, self.line.id, self.line.number(), body)
        };
        match message {
            Payload::Shared(bytes) if shared => {
                put(batch, &header, &[]);
                batch.share(bytes.slice(begin..begin + body));
            }
            _ => put(batch, &header, &message.as_slice()[begin..begin + body]),
        }
        self.line.sent(end);
        self.line.credit.sent(body);
        self.stream.deficit -= (header.len() + body) as i32;
        self.frames += 1;
        if end {
            self.messages += 1;
            self.stream.sent = 0;
            self.stream.port.pass();
        } else {
            self.stream.sent += body as u32;
        }
        None
    }

    fn fin(&mut self, batch: &mut Batch) -> Turn {
        if batch.room() < HEADER_MAX {
            return Turn::BatchFull;
        }
        put_packet(batch, self.line, Kind::CloseSend, &[]);
        self.frames += 1;
        self.stream.port.pass();
        self.stream.state.on(Event::SentFin);
        Turn::Drained
    }

    fn error(&mut self, batch: &mut Batch) -> Option<Turn> {
        if batch.room() < CONTROL_ROOM {
            return Some(Turn::BatchFull);
        }
        let payload = self.stream.port.front()?.payload;
        let (code, text, details) = record::decode(payload.as_slice());
        let data = failure::encode(self.form, code, text, details);
        put_packet(batch, self.line, Kind::Error, &data);
        self.frames += 1;
        self.stream.port.pass();
        self.stream.state.on(Event::SentError);
        Some(Turn::Failed { code })
    }
}
