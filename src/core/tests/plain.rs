//! Streams as plain queues, and an application made of a few numbers.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Pool;
use crate::core::port::{
    CallPort, Count, RecvEnd, SendEnd, SessionPort, StreamPort, rx_tag, tx_tag,
};
use crate::core::{SEND_FLOOR, failure};
use crate::error::{Limit, SessionError, StreamError};
use crate::queue::{Payload, Record};

/// A stream; its application uses the fields and the inherent methods.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    tx: VecDeque<(u16, Vec<u8>)>,
    passed: usize,
    released: u64,
    rx: VecDeque<(u16, bool, Vec<u8>)>,
    published: usize,
    consumed: u64,
    pub(crate) send_end: OnceCell<SendEnd>,
    pub(crate) recv_end: OnceCell<RecvEnd>,
    pub(crate) opening: Bytes,
    granted: Cell<bool>,
    failing: Cell<bool>,
    /// How often each task was woken.
    pub(crate) sender_wakes: usize,
    pub(crate) receiver_wakes: usize,
}

const fn weight(len: usize) -> u64 {
    len as u64 + Plain::CHARGE as u64
}

impl Plain {
    pub(crate) fn opened_with(block: &[u8]) -> Self {
        Self {
            opening: Bytes::copy_from_slice(block),
            ..Self::default()
        }
    }

    /// Methods of the application; the caller notifies the core.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.tx.push_back((tx_tag::MESSAGE, message.to_vec()));
    }

    pub(crate) fn finish(&mut self) {
        self.tx.push_back((tx_tag::FIN, Vec::new()));
    }

    pub(crate) fn fail(&mut self, code: u32, text: &str) {
        self.failing.set(true);
        let record = failure::encode(code, text, b"");
        self.tx.push_back((tx_tag::ERROR, record.to_vec()));
    }

    /// A whole message, if there is one. The caller notifies the core.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let queued = self.rx.iter().take(self.published);
        let pieces = 1 + queued
            .clone()
            .position(|(tag, ..)| tag & rx_tag::END != 0)?;
        self.published -= pieces;
        let mut message = Vec::new();
        for (_, free, bytes) in self.rx.drain(..pieces) {
            self.consumed += if free { 0 } else { weight(bytes.len()) };
            message.extend(bytes);
        }
        Some(message)
    }

    pub(crate) fn has_finished(&self) -> bool {
        matches!(self.recv_end.get(), Some(RecvEnd::Finished))
    }
}

impl StreamPort for Plain {
    const CHARGE: u32 = 256;

    fn front(&mut self) -> Option<Record<'_>> {
        let (tag, bytes) = self.tx.get(self.passed)?;
        Some(Record {
            tag: *tag,
            free: false,
            payload: Payload::Slice(bytes),
        })
    }

    fn pass_while(&mut self, mut wanted: impl FnMut(Record<'_>) -> bool) -> Option<u16> {
        loop {
            let record = self.front()?;
            let tag = record.tag;
            if !wanted(record) {
                return Some(tag);
            }
            self.passed += 1;
        }
    }

    fn pass(&mut self) -> bool {
        let passes = self.passed < self.tx.len();
        self.passed += usize::from(passes);
        passes
    }

    fn release(&mut self) -> u64 {
        let weight = self.passed_weight();
        self.tx.drain(..self.passed);
        self.passed = 0;
        self.released += weight;
        weight
    }

    fn released(&self) -> u64 {
        self.released
    }

    fn passed_weight(&self) -> u64 {
        let passed = self.tx.iter().take(self.passed);
        passed.map(|(_, bytes)| weight(bytes.len())).sum()
    }

    fn is_drained(&mut self) -> bool {
        self.passed == self.tx.len()
    }

    fn push_slice(&mut self, tag: u16, free: bool, payload: &[u8]) {
        self.rx.push_back((tag, free, payload.to_vec()));
    }

    fn push_bytes(&mut self, tag: u16, free: bool, payload: Bytes) {
        self.rx.push_back((tag, free, payload.to_vec()));
    }

    fn publish(&mut self) {
        self.published = self.rx.len();
    }

    fn retract(&mut self) -> u64 {
        let back = self.rx.drain(self.published..);
        back.map(|(_, free, bytes)| if free { 0 } else { weight(bytes.len()) })
            .sum()
    }

    fn consumed(&self) -> u64 {
        self.consumed
    }

    fn unconsumed(&mut self) -> u64 {
        let queued = self.rx.iter().filter(|(_, free, _)| !free);
        queued.map(|(.., bytes)| weight(bytes.len())).sum()
    }

    fn buffer_bytes(&mut self) -> u64 {
        0
    }

    fn go_small(&mut self) -> bool {
        false
    }

    fn shrink_if_idle(&mut self) -> bool {
        false
    }

    fn end_send(&self, end: SendEnd) {
        let _ = self.send_end.set(end);
    }

    fn end_recv(&self, end: RecvEnd) {
        let _ = self.recv_end.set(end);
    }

    fn is_send_ended(&self) -> bool {
        self.send_end.get().is_some()
    }

    fn ended_in_order(&self) -> bool {
        self.has_finished() && !self.is_send_ended() && !self.failing.get()
    }

    fn keep_charge(&self, _bytes: u64) {}

    fn grant(&self) -> bool {
        self.granted.set(true);
        true
    }

    fn wake_sender(&mut self) {
        self.sender_wakes += 1;
    }

    fn wake_receiver(&mut self) {
        self.receiver_wakes += 1;
    }

    fn opening(&self) -> &Bytes {
        &self.opening
    }

    fn urgency(&self) -> u8 {
        3
    }

    fn takes_chunks(&self) -> bool {
        false
    }

    fn is_accepted(&self) -> bool {
        true
    }

    fn is_failing(&self) -> bool {
        self.failing.get()
    }

    fn is_granted(&self) -> bool {
        self.granted.get()
    }

    fn set_key(&self, _key: u64) {}

    fn set_id(&self, _id: u32) {}

    fn set_credit_mark(&self, _bytes: u32) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn take_receipt(&self) -> bool {
        false
    }

    fn answer_receipt(&self) -> bool {
        false
    }

    fn send_limit(&self) -> u32 {
        SEND_FLOOR
    }

    fn lend(&self, _seen: u32, _by: u32) -> bool {
        true
    }

    fn lower_send_limit(&self, _to: u32) -> u32 {
        0
    }
}

/// An application.
#[derive(Debug)]
pub(crate) struct App {
    open_credit: Cell<u32>,
    /// Streams of the peer that were offered.
    pub(crate) offered: usize,
    pub(crate) end: Option<SessionError>,
    counts: [Cell<u64>; Count::ShutdownForced as usize + 1],
}

impl App {
    pub(crate) fn new(open_credit: u32) -> Self {
        Self {
            open_credit: Cell::new(open_credit),
            offered: 0,
            end: None,
            counts: Default::default(),
        }
    }
}

/// A call, of which this application makes and takes none.
#[derive(Debug)]
pub(crate) struct NoCall;

impl CallPort for NoCall {
    fn opening(&self) -> &[u8] {
        &[]
    }

    fn message(&self) -> &[u8] {
        &[]
    }

    fn forget_message(&mut self) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn is_taken(&self) -> bool {
        false
    }

    fn set_key(&self, _key: Option<u64>) {}

    fn keep_charge(&self, _bytes: u64) {}

    fn end(&mut self, _error: StreamError) {}

    fn wake(&mut self) {}
}

impl SessionPort for App {
    type Stream = Plain;
    type Call = NoCall;
    type CallOffer = ();
    type Memory = Pool;
    type Offer = ();

    fn incoming(&mut self, block: &[u8], _id: u32, _mark: u32, _now: Instant) -> (Plain, ()) {
        (Plain::opened_with(block), ())
    }

    fn offer(&mut self, (): ()) -> bool {
        self.offered += 1;
        true
    }

    fn take_unaccepted(&mut self) -> Option<Option<u64>> {
        None
    }

    fn incoming_call(
        &mut self,
        _payload: Bytes,
        _opening: usize,
        _received: Instant,
    ) -> (NoCall, ()) {
        (NoCall, ())
    }

    fn offer_call(&mut self, (): ()) -> bool {
        false
    }

    fn take_unaccepted_call(&mut self) -> Option<Option<u64>> {
        None
    }

    fn takes_calls(&self) -> bool {
        false
    }

    fn peer_takes_calls(&self, _takes: bool) {}

    fn keep(&mut self, bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    fn answer_call(&mut self, _call: &mut NoCall, _answer: Bytes, _received: Instant) {}

    fn keep_answers(&self) {}

    fn keep_together(&mut self, bytes: &[u8]) -> Bytes {
        self.keep(bytes)
    }

    fn stream_of_call(&mut self, _call: &mut NoCall, _id: u32) -> Plain {
        Plain::default()
    }

    fn recycle_call(&mut self, _call: NoCall) {}

    fn wake_call_acceptor(&self) {}

    fn recycle(&mut self, _stream: Plain) {}

    fn drop_spares(&mut self) {}

    fn open_credit(&self) -> u32 {
        self.open_credit.get()
    }

    fn take_open_credit(&self) -> bool {
        let left = self.open_credit.get().checked_sub(1);
        self.open_credit.set(left.unwrap_or(0));
        left.is_some()
    }

    fn add_open_credit(&self, streams: u32) {
        self.open_credit.set(self.open_credit.get() + streams);
    }

    fn refuse_opens(&self, _reason: SessionError) {}

    fn establish(&self, _peer_max_message: u32) {}

    fn set_hungry(&self, _hungry: bool) {}

    fn record_pong(&mut self, _rtt_ns: u64) {}

    fn wake_acceptors(&self) {}

    fn wake_state(&self) {}

    fn wake_pings(&self) {}

    fn close(&mut self, reason: &SessionError) {
        self.end = Some(reason.clone());
    }

    fn closed(&self) {}

    fn is_shutdown_asked(&self) -> bool {
        false
    }

    fn shutdown_grace(&self) -> Duration {
        Duration::ZERO
    }

    fn take_send_budget(&self) -> u64 {
        0
    }

    fn give_send_budget(&self, _bytes: u64) {}

    fn add(&self, count: Count, n: u64) {
        let cell = &self.counts[count as usize];
        cell.set(cell.get() + n);
    }

    fn set(&self, count: Count, n: u64) {
        self.counts[count as usize].set(n);
    }

    fn get(&self, count: Count) -> u64 {
        self.counts[count as usize].get()
    }

    fn trip(&self, _limit: Limit) {}
}
