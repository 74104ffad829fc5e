//! One stream's turn at the batch: encodes its messages, as far as credit, room and its share allow.

use super::frame::{
    FRAME_COST, HEADER_LEN, MAX_ERROR_DETAILS, MAX_ERROR_MESSAGE, StreamId, TOTAL_LEN, cost,
    data_header, encode_total, put_error, put_meta,
};
use crate::core::port::tx_tag;
use crate::core::{Event, SessionCredit, Stream, StreamPort, Turn, failure};
use crate::queue::Payload;
use crate::wire::Batch;

/// Payloads from this size on are referenced, shorter ones copied into the batch.
const SHARE_MIN: usize = 4096;
/// A piece that does not complete a message is at least this long, unless credit comes in smaller grants.
const MIN_PIECE: usize = 512;
/// Index of the flags in a DATA header, to add FIN to a frame that is already in the batch.
const FLAGS_BYTE: usize = 3;
const FIN_FLAG: u8 = 0x1;

/// Largest payload of a frame with this credit; `None` if not even an empty one.
const fn payload(credit: u64) -> Option<u64> {
    credit.checked_sub(FRAME_COST)
}

/// Divides the next frame of a message with `left` bytes to send: the bytes of its total in front, if it is the
/// first of several pieces, and the bytes of its content. `credits`: the stream's and the session's.
#[inline]
fn cut(
    left: usize,
    begins: bool,
    max_frame: usize,
    credits: [u64; 2],
) -> Result<(usize, usize), Turn> {
    let [stream, session] = credits.map(payload);
    let most_stream = stream.ok_or(Turn::OutOfCredit)?;
    let most_session = session.ok_or(Turn::SessionOutOfCredit)?;
    let most = usize::try_from(most_stream.min(most_session)).unwrap_or(usize::MAX);
    let whole = begins && left <= max_frame && left <= most;
    let prefix = if begins && !whole { TOTAL_LEN } else { 0 };
    let body = (left + prefix)
        .min(max_frame)
        .min(most)
        .saturating_sub(prefix);
    if whole || body >= left.min(MIN_PIECE) {
        Ok((prefix, body))
    } else if most_stream <= most_session {
        Err(Turn::OutOfCredit)
    } else {
        Err(Turn::SessionOutOfCredit)
    }
}

/// One stream's turn at the batch.
pub(super) struct Sender<'a, P> {
    pub(super) stream: &'a mut Stream<P>,
    pub(super) id: StreamId,
    /// The session's credit.
    pub(super) credit: &'a mut SessionCredit,
    pub(super) max_frame: usize,
    pub(super) frames: u64,
    pub(super) messages: u64,
}

impl<P: StreamPort> Sender<'_, P> {
    #[inline(never)]
    pub(super) fn turn(&mut self, batch: &mut Batch) -> Turn {
        while self.stream.deficit > 0 {
            if let Some(turn) = self.short_messages(batch) {
                return turn;
            }
            if let Some(turn) = self.front(batch) {
                return turn;
            }
        }
        Turn::Over
    }

    /// Sends the messages in front that are short and can be sent whole, each in a frame of its own, and the FIN behind
    /// them: the path of almost all messages, without the checks that only others need. `None`: continue with the front.
    #[inline]
    fn short_messages(&mut self, batch: &mut Batch) -> Option<Turn> {
        let stream = &mut *self.stream;
        if stream.sent > 0 {
            return None;
        }
        let longest = SHARE_MIN.min(self.max_frame);
        let most = stream.credit.left().min(self.credit.left());
        let share = stream.deficit.max(0) as u64;
        let (mut frames, mut cost_sum) = (0, 0);
        let (mut last, mut fin) = (0, false);
        let next = stream.port.pass_while(|record| {
            debug_assert!(!fin, "a FIN is the last record");
            if record.tag != tx_tag::MESSAGE {
                fin = record.tag == tx_tag::FIN && frames > 0;
                return fin;
            }
            let payload = record.payload.as_slice();
            let (len, cost) = (payload.len(), cost(payload.len() as u32));
            let fits = cost_sum + cost <= most && HEADER_LEN + len <= batch.room();
            if cost_sum >= share || len > longest || !fits {
                return false;
            }
            let header = data_header(len as u32, true, false, self.id);
            last = batch.head().len();
            batch.head().put_frame(header, payload);
            cost_sum += cost;
            frames += 1;
            true
        });
        stream.deficit -= cost_sum as i32;
        stream.credit.debit(cost_sum);
        self.credit.debit(cost_sum);
        self.frames += frames;
        self.messages += frames;
        if fin {
            if let Some(flags) = batch.head().byte_mut(last + FLAGS_BYTE) {
                *flags |= FIN_FLAG;
            }
            stream.state.on(Event::SentFin);
        }
        (fin || next.is_none()).then_some(Turn::Drained)
    }

    /// Sends of the record in front what can be sent in one frame. `None`: continue.
    #[inline(never)]
    fn front(&mut self, batch: &mut Batch) -> Option<Turn> {
        let Some(record) = self.stream.port.front() else {
            return Some(Turn::Drained);
        };
        match record.tag {
            tx_tag::MESSAGE => self.message(batch),
            tx_tag::META => self.meta(batch),
            tx_tag::ERROR => self.error(batch),
            _ => self.fin(batch),
        }
    }

    /// Sends one frame of the message in front. `None`: continue.
    fn message(&mut self, batch: &mut Batch) -> Option<Turn> {
        let Stream {
            port,
            credit,
            sent,
            deficit,
            ..
        } = &mut *self.stream;
        let message = port.front()?.payload;
        let (len, begin) = (message.len(), *sent as usize);
        let left = len - begin;
        let credits = [credit.left(), self.credit.left()];
        let (prefix, body) = match cut(left, begin == 0, self.max_frame, credits) {
            Ok(cut) => cut,
            Err(turn) => return Some(turn),
        };
        let end = body == left;
        let share = match message {
            Payload::Shared(bytes) if body >= SHARE_MIN => Some(bytes.slice(begin..begin + body)),
            _ => None,
        };
        let copied = HEADER_LEN + prefix + if share.is_some() { 0 } else { body };
        if batch.room() < copied {
            return Some(Turn::BatchFull);
        }
        let at = batch.head().len();
        let head = batch.head();
        head.extend_from_slice(&data_header((prefix + body) as u32, end, false, self.id));
        if prefix > 0 {
            head.extend_from_slice(&encode_total(len as u32));
        }
        match share {
            None => {
                head.extend_from_slice(&message.as_slice()[begin..begin + body]);
            }
            Some(bytes) => {
                batch.share(bytes);
            }
        }
        let cost = cost((prefix + body) as u32);
        credit.debit(cost);
        self.credit.debit(cost);
        *deficit -= cost as i32;
        self.frames += 1;
        if end {
            *sent = 0;
            port.pass();
            self.messages += 1;
            if port.front().is_some_and(|next| next.tag == tx_tag::FIN) {
                if let Some(flags) = batch.head().byte_mut(at + FLAGS_BYTE) {
                    *flags |= FIN_FLAG;
                }
                port.pass();
                self.stream.state.on(Event::SentFin);
                return Some(Turn::Drained);
            }
        } else {
            *sent += body as u32;
        }
        None
    }

    fn fin(&mut self, batch: &mut Batch) -> Option<Turn> {
        batch
            .head()
            .extend_from_slice(&data_header(0, false, true, self.id));
        self.frames += 1;
        self.stream.port.pass();
        self.stream.state.on(Event::SentFin);
        Some(Turn::Drained)
    }

    fn meta(&mut self, batch: &mut Batch) -> Option<Turn> {
        let block = self.stream.port.front()?.payload;
        let block = block.as_slice();
        if payload(self.credit.left()).is_none_or(|most| (block.len() as u64) > most) {
            return Some(Turn::SessionOutOfCredit);
        }
        if batch.room() < HEADER_LEN + block.len() {
            return Some(Turn::BatchFull);
        }
        let id = self.id;
        let most = HEADER_LEN + block.len();
        batch
            .head()
            .put_with(most, |dst| put_meta(dst, id, block, false));
        let cost = cost(block.len() as u32);
        self.credit.debit(cost);
        self.stream.deficit -= cost as i32;
        self.frames += 1;
        self.stream.port.pass();
        None
    }

    fn error(&mut self, batch: &mut Batch) -> Option<Turn> {
        let most = HEADER_LEN + 6 + (MAX_ERROR_MESSAGE + MAX_ERROR_DETAILS) as usize;
        if batch.room() < most {
            return Some(Turn::BatchFull);
        }
        let record = self.stream.port.front()?.payload;
        let (code, message, details) = failure::decode(record.as_slice());
        let id = self.id;
        batch
            .head()
            .put_with(most, |dst| put_error(dst, id, code, message, details));
        self.frames += 1;
        self.stream.port.pass();
        self.stream.state.on(Event::SentError);
        Some(Turn::Failed { code })
    }
}
