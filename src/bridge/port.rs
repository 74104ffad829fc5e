//! Lanes and the session's link, as the core sees them.

use std::sync::Arc as StdArc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::counter::Counter;
use super::pool::Pool;
use super::session::calls::{Back, CallSide, CallStore, EngineCall};
use super::session::lane::{Lane, OpenState, SpareLane};
use super::session::sides::{Activated, BorrowedRxRing, EngineSide, HandleSide, TxRing};
use super::session::{SPARES_MAX, SessionLink, request};
use crate::core::port::{Count, Memory, RecvEnd, SendEnd, SessionPort, StreamPort};
use crate::error::{Limit, SessionError, StreamError};
use crate::queue::{Reader, Record, RingOwner, Writer};
use crate::sync::Arc;

/// The engine's side of a lane.
#[derive(Debug)]
pub(crate) struct LanePort {
    pub(crate) tx: Reader<TxRing>,
}

impl LanePort {
    pub(super) fn new(side: EngineSide) -> Self {
        let tx = side.into_reader();
        Self { tx }
    }

    #[inline(always)]
    pub(crate) fn rx(&mut self) -> Writer<BorrowedRxRing<'_>> {
        self.tx.back()
    }

    #[inline]
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.tx.owner().0
    }

    /// The lane for another stream, if the handles have let go of it too.
    #[inline]
    fn into_spare(self) -> Option<SpareLane> {
        let TxRing(lane) = self.tx.into_owner();
        SpareLane::new(lane)
    }
}

impl StreamPort for LanePort {
    const CHARGE: u32 = TxRing::CHARGE;

    #[inline]
    fn front(&mut self) -> Option<Record<'_>> {
        self.tx.peek()
    }

    #[inline(always)]
    fn pass_while(&mut self, wanted: impl FnMut(Record<'_>) -> bool) -> Option<u16> {
        self.tx.advance_while(wanted)
    }

    #[inline]
    fn pass(&mut self) -> bool {
        self.tx.advance()
    }

    #[inline]
    fn release(&mut self) -> u64 {
        self.tx.commit()
    }

    #[inline]
    fn released(&self) -> u64 {
        self.tx.released()
    }

    #[inline]
    fn passed_weight(&self) -> u64 {
        self.tx.passed_weight()
    }

    #[inline]
    fn is_drained(&mut self) -> bool {
        self.tx.is_empty()
    }

    #[inline(always)]
    fn push_slice(&mut self, tag: u16, free: bool, payload: &[u8]) {
        self.rx().push_slice(tag, free, payload);
    }

    #[inline]
    fn push_bytes(&mut self, tag: u16, free: bool, payload: Bytes) {
        self.rx().push_bytes(tag, free, payload);
    }

    #[inline]
    fn publish(&mut self) {
        self.rx().publish();
    }

    fn retract(&mut self) -> u64 {
        self.rx().retract()
    }

    #[inline]
    fn consumed(&self) -> u64 {
        self.lane().consumed()
    }

    fn unconsumed(&mut self) -> u64 {
        self.rx().refresh()
    }

    #[inline]
    fn buffer_bytes(&mut self) -> u64 {
        self.rx().segment_bytes()
    }

    fn go_small(&mut self) -> bool {
        self.rx().go_small()
    }

    fn shrink_if_idle(&mut self) -> bool {
        self.rx().shrink_if_idle()
    }

    fn end_send(&self, end: SendEnd) {
        self.lane().end_send(end);
    }

    fn end_recv(&self, end: RecvEnd) {
        self.lane().end_recv(end);
    }

    fn is_send_ended(&self) -> bool {
        self.lane().send_end().is_some()
    }

    fn ended_in_order(&self) -> bool {
        self.lane().ended_in_order()
    }

    fn keep_charge(&self, bytes: u64) {
        self.lane().charge(bytes);
    }

    fn grant(&self) -> bool {
        self.lane().permit.grant_waiting()
    }

    #[inline]
    fn wake_sender(&mut self) {
        self.tx.wake_sender();
    }

    #[inline]
    fn wake_receiver(&mut self) {
        self.rx().wake_receiver();
    }

    fn opening(&self) -> &Bytes {
        self.lane().particulars.opening()
    }

    fn urgency(&self) -> u8 {
        self.lane().asked.urgency()
    }

    fn takes_chunks(&self) -> bool {
        self.lane().asked.takes_chunks()
    }

    fn is_accepted(&self) -> bool {
        self.lane().asked.is_accepted()
    }

    fn is_failing(&self) -> bool {
        self.lane().asked.is_failing()
    }

    fn is_granted(&self) -> bool {
        self.lane().open_state() == OpenState::Granted
    }

    fn set_key(&self, key: u64) {
        self.lane().key.set_key(key);
    }

    fn set_id(&self, id: u32) {
        self.lane().set_id(id);
    }

    fn set_credit_mark(&self, bytes: u32) {
        self.lane().set_credit_mark(bytes);
    }

    fn deadline(&self) -> Option<Instant> {
        self.lane()
            .particulars
            .deadline(self.lane().session().begun)
    }

    fn take_receipt(&self) -> bool {
        self.lane().receipt.take()
    }

    fn answer_receipt(&self) -> bool {
        self.lane().receipt.answer()
    }

    #[inline]
    fn send_limit(&self) -> u32 {
        self.lane().send_limit()
    }

    fn lend(&self, seen: u32, by: u32) -> bool {
        self.lane().lend(seen, by)
    }

    fn lower_send_limit(&self, to: u32) -> u32 {
        self.lane().lower_send_limit(to)
    }
}

/// The engine's side of a session's link.
#[derive(Debug)]
pub(crate) struct LinkPort {
    pub(super) link: Arc<SessionLink>,
    /// Requests of handles that were taken and not yet handled.
    asked: u32,
    /// Lanes that the engine has made, for streams of the peer that have gone.
    spares: Vec<SpareLane>,
    pub(super) calls: CallStore,
}

impl LinkPort {
    pub(super) fn new(link: Arc<SessionLink>) -> Self {
        Self {
            link,
            asked: 0,
            spares: Vec::new(),
            calls: CallStore::default(),
        }
    }

    /// Takes the requests made since the last call.
    #[inline]
    pub(super) fn take_requests(&mut self) -> u32 {
        std::mem::take(&mut self.asked) | self.link.take_requests()
    }

    /// Lanes kept for streams of the peer, for tests.
    #[cfg(test)]
    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    #[inline(always)]
    fn counter(&self, count: Count) -> &Counter {
        let (counters, drain) = (&self.link.counters, &self.link.drain);
        match count {
            Count::Calls => &counters.calls,
            Count::Streams => &counters.streams,
            Count::Opened => &counters.opened,
            Count::Accepted => &counters.accepted,
            Count::Finished => &counters.finished,
            Count::MessagesSent => &counters.messages_sent,
            Count::MessagesReceived => &counters.messages_received,
            Count::FramesSent => &counters.frames_sent,
            Count::FramesReceived => &counters.frames_received,
            Count::BytesSent => &counters.bytes_sent,
            Count::BytesReceived => &counters.bytes_received,
            Count::Batches => &counters.batches,
            Count::Turns => &counters.turns,
            Count::Activations => &counters.activations,
            Count::Cancelled => &counters.cancelled,
            Count::WindowsGrown => &counters.windows_grown,
            Count::Keepalives => &counters.keepalives,
            Count::KeepaliveTimeouts => &counters.keepalive_timeouts,
            Count::WriteTimeouts => &counters.write_timeouts,
            Count::BytesHeld => &counters.bytes_held,
            Count::ShutdownFinished => &drain.finished,
            Count::ShutdownRefused => &drain.refused,
            Count::ShutdownCancelled => &drain.cancelled,
            Count::ShutdownForced => &drain.forced,
        }
    }
}

impl SessionPort for LinkPort {
    type Stream = LanePort;
    type Call = EngineCall;
    type CallOffer = CallSide;
    type Memory = StdArc<Pool>;
    type Offer = HandleSide;

    fn incoming(
        &mut self,
        block: &[u8],
        id: u32,
        credit_mark: u32,
        now: Instant,
    ) -> (LanePort, HandleSide) {
        let spare = self.spares.pop();
        let (handles, side) = Lane::pair_of_peer(spare, &self.link, (block, now), credit_mark);
        handles.lane().set_id(id);
        (LanePort::new(side), handles)
    }

    fn offer(&mut self, offer: HandleSide) -> bool {
        self.link.unaccepted.push(offer).is_ok()
    }

    fn take_unaccepted(&mut self) -> Option<Option<u64>> {
        let stream = self.link.unaccepted.pop()?;
        Some(stream.lane().key.key())
    }

    fn incoming_call(
        &mut self,
        payload: Bytes,
        opening: usize,
        received: Instant,
    ) -> (EngineCall, CallSide) {
        self.calls.incoming(&self.link, payload, opening, received)
    }

    fn offer_call(&mut self, offer: CallSide) -> bool {
        self.link.calls.offer(offer)
    }

    fn take_unaccepted_call(&mut self) -> Option<Option<u64>> {
        let offer = self.link.calls.pop()?;
        Some(offer.key())
    }

    fn takes_calls(&self) -> bool {
        self.link.calls.takes()
    }

    fn peer_takes_calls(&self, takes: bool) {
        self.link.calls.set_peer_takes(takes);
    }

    fn keep(&mut self, bytes: &[u8]) -> Bytes {
        self.calls.pieces.keep(bytes)
    }

    fn keep_together(&mut self, bytes: &[u8]) -> Bytes {
        self.calls.pieces.keep_together(bytes)
    }

    fn answer_call(&mut self, call: &mut EngineCall, answer: Bytes, received: Instant) {
        self.link.calls.answer(call, answer, received);
    }

    fn keep_answers(&self) {
        self.link.calls.charge_answers(&self.link);
    }

    fn stream_of_call(&mut self, call: &mut EngineCall, id: u32) -> LanePort {
        let (handles, side) = Lane::pair(&self.link, Bytes::new(), self.link.credit_mark);
        let lane = handles.lane();
        lane.grant();
        lane.set_id(id);
        let _first = call.give(Back::Stream(handles));
        LanePort::new(side)
    }

    fn recycle_call(&mut self, call: EngineCall) {
        self.calls.recycle(call);
    }

    fn wake_call_acceptor(&self) {
        self.link.calls.wake_acceptor();
    }

    fn recycle(&mut self, stream: LanePort) {
        let of_engine = stream.lane().of_engine;
        let Some(spare) = stream.into_spare() else {
            return;
        };
        if !of_engine {
            self.link.keep_spare(spare);
        } else if self.spares.len() < SPARES_MAX {
            self.spares.push(spare);
        }
    }

    fn drop_spares(&mut self) {
        self.spares = Vec::new();
        self.link.drop_spares();
        self.link.calls.drop_spares();
        self.calls = CallStore::default();
    }

    fn open_credit(&self) -> u32 {
        self.link.opens.granted()
    }

    fn take_open_credit(&self) -> bool {
        self.link.opens.take()
    }

    fn add_open_credit(&self, streams: u32) {
        self.link.opens.add(streams);
    }

    fn refuse_opens(&self, reason: SessionError) {
        self.link.refuse_opens(reason);
    }

    fn establish(&self, peer_max_message: u32) {
        self.link.establish(peer_max_message);
    }

    fn set_hungry(&self, hungry: bool) {
        self.link.set_hungry(hungry);
    }

    fn record_pong(&mut self, rtt_ns: u64) {
        // This answer serves all callers so far: a caller that asks for another PING later has read the count before.
        self.asked |= self.link.take_requests();
        self.asked &= !request::PING;
        self.link.pings.record(rtt_ns);
    }

    fn wake_acceptors(&self) {
        self.link.unaccepted.waiters.wake_one();
        self.link.calls.wake_acceptor();
    }

    fn wake_state(&self) {
        self.link.state_waiters.wake_all();
    }

    fn wake_pings(&self) {
        self.link.pings.waiters.wake_all();
    }

    fn close(&mut self, reason: &SessionError) {
        for lane in self.link.close(reason.clone()) {
            if let (Activated::New(side), _) = lane.activated() {
                side.refuse(&StreamError::NotProcessed(reason.clone()));
            }
        }
        self.link.calls.close(&self.link, reason);
        // They hold references to the session, and no stream goes any more.
        self.spares = Vec::new();
    }

    fn closed(&self) {
        self.link.drop_spares();
        self.link.calls.drop_spares();
        self.link.drop_unaccepted_if_orphaned();
        self.link.wake_all();
    }

    fn is_shutdown_asked(&self) -> bool {
        self.link.drain.is_asked()
    }

    fn shutdown_grace(&self) -> Duration {
        self.link.drain.grace()
    }

    fn take_send_budget(&self) -> u64 {
        self.link.send_budget.take_all()
    }

    fn give_send_budget(&self, bytes: u64) {
        self.link.send_budget.give(bytes);
    }

    #[inline(always)]
    fn add(&self, count: Count, n: u64) {
        self.counter(count).add(n);
    }

    #[inline(always)]
    fn set(&self, count: Count, n: u64) {
        self.counter(count).set(n);
    }

    #[inline(always)]
    fn get(&self, count: Count) -> u64 {
        self.counter(count).get()
    }

    fn trip(&self, limit: Limit) {
        self.link.counters.trip(limit);
    }
}

impl Memory for StdArc<Pool> {
    fn size(&self) -> u64 {
        Pool::size(self)
    }

    fn sessions(&self) -> u64 {
        Pool::sessions(self)
    }

    fn begin_session(&self) {
        Pool::begin_session(self);
    }

    fn end_session(&self) {
        Pool::end_session(self);
    }

    fn take(&self, bytes: u64, leave: u64, ceiling: u64) -> bool {
        Pool::take(self, bytes, leave, ceiling)
    }

    fn give(&self, bytes: u64) {
        Pool::give(self, bytes);
    }

    fn charge(&self, bytes: u64) {
        Pool::charge(self, bytes);
    }
}
