//! Calls of the peer: from their arrival to the answer that a handler gives, or to a cancel.

use std::time::Instant;

use super::{Answer, At};
use crate::core::flow::recheck_soon;
use crate::core::mux::Mux;
use crate::core::port::{CallPort, Count, RecvEnd, SendEnd, SessionPort, StreamPort};
use crate::core::session::Core;
use crate::core::state::Event;
use crate::core::stream::Opening;
use crate::core::streams::Key;
use crate::core::violation::Violation;
use crate::error::{Limit, Side, StreamError, codes};

impl<S: SessionPort> Core<S> {
    /// The peer calls: `payload` is the opening block, of `opening` bytes, and the request, and has this cost.
    pub(crate) fn call_by_peer(
        &mut self,
        id: u32,
        payload: &[u8],
        opening: usize,
        cost: u64,
    ) -> Result<(), Violation> {
        self.mux.flow.receive(cost)?;
        let app = &self.mux.base.app;
        app.add(Count::Accepted, 1);
        app.add(Count::MessagesReceived, 1);
        app.add(Count::Calls, 1);
        let admits = self.life.admits() && !self.orphan.is_orphaned() && app.takes_calls();
        self.life.count_streams(1);
        if admits && self.mux.insert_call(id, payload, opening, cost) {
            return Ok(());
        }
        if !admits {
            self.mux.refuse(id, cost);
        }
        self.count_refused();
        Ok(())
    }

    /// Whether this side takes calls has changed.
    pub(crate) fn on_calls_taken(&mut self) {
        self.mux.base.calls.announce = true;
        if !self.mux.base.app.takes_calls() {
            self.refuse_unaccepted_calls();
        }
    }

    /// Refuses the peer's calls that no handler has taken.
    pub(crate) fn refuse_unaccepted_calls(&mut self) {
        while let Some(key) = self.mux.base.app.take_unaccepted_call() {
            if let Some(slot) = key
                && self.mux.refuse_call(slot as u32)
            {
                self.count_refused();
            }
        }
    }
}

impl<S: SessionPort> Mux<S> {
    /// True if it was queued for the application, else it is refused.
    fn insert_call(&mut self, id: u32, payload: &[u8], opening: usize, cost: u64) -> bool {
        let (port, offer) = self.base.app.incoming_call(payload, opening);
        let slot = self.base.calls.insert(id, At::Running, port, cost as u32);
        if !self.base.app.offer_call(offer) {
            self.base.calls.remove(slot);
            self.base.app.trip(Limit::Unaccepted);
            self.refuse(id, cost);
            return false;
        }
        self.base.calls.offered = true;
        self.base.count_streams();
        true
    }

    /// The peer has cancelled a call that runs: its handler is told, and keeps the permission until it lets go.
    pub(super) fn give_up_call(&mut self, slot: u32, error: StreamError) {
        let calls = &mut self.base.calls;
        let Some(entry) = calls.entries.get_mut(slot as usize) else {
            return;
        };
        entry.at = At::Over;
        let mut taken = true;
        if let Some(port) = &mut entry.port {
            taken = port.is_taken();
            port.end(error);
            calls.wakes_here.push(slot);
        }
        if !taken {
            entry.early = true;
            calls.early_resets += 1;
        }
        let (early, charge) = (calls.early_resets, calls.take_charge(slot));
        self.base.app.add(Count::Cancelled, 1);
        self.flow.return_to_session(&self.base, charge.into());
        self.limits.charge_reset(self.base.turn);
        let most = self.base.config.max_unaccepted_resets();
        if most.is_some_and(|most| early > most) {
            self.limits.trip(Limit::UnacceptedResets, early.into());
        }
    }

    /// A handler has let go of its call; its port has the answer.
    pub(crate) fn answer_call(&mut self, slot: u32, answer: Answer) {
        let charge = self.base.calls.take_charge(slot);
        if charge > 0 {
            self.flow.return_to_session(&self.base, charge.into());
        }
        let calls = &mut self.base.calls;
        let Some(entry) = calls.entries.get_mut(slot as usize) else {
            return;
        };
        if entry.at != At::Running {
            // The caller does not wait any more.
            return self.let_call_go(slot);
        }
        entry.at = At::Answering;
        match answer {
            Answer::Reply => calls.replies.push_back(slot),
            Answer::Failure => calls.failures.push_back(slot),
            Answer::Cancel(code) => {
                calls.cancels.push_back((entry.id, code));
                self.base.app.add(Count::Cancelled, 1);
                self.limits.charge_reset(self.base.turn);
                self.let_call_go(slot);
            }
        }
    }

    /// Nothing of a call of the peer is left to do.
    fn let_call_go(&mut self, slot: u32) {
        if let Some(port) = self.base.calls.remove(slot).and_then(|entry| entry.port) {
            self.base.app.recycle_call(port);
        }
        self.permits.grant_owed += 1;
        self.base.count_streams();
    }

    /// The answer that is in a queue is not sent.
    pub(super) fn void_answer(&mut self, slot: u32) {
        if let Some(port) = self.base.calls.void(slot) {
            self.base.app.recycle_call(port);
            self.permits.grant_owed += 1;
        }
    }

    /// The answer to be sent next, and the id of its call.
    pub(crate) fn next_reply(&mut self) -> Option<(u32, &[u8])> {
        let slot = self.base.calls.front(|calls| &mut calls.replies)?;
        let entry = self.base.calls.entries.get(slot as usize)?;
        Some((entry.id, entry.port.as_ref()?.message()))
    }

    /// The next answer was put into the batch, at this cost.
    pub(crate) fn reply_sent(&mut self, cost: u64) {
        if let Some(slot) = self.base.calls.replies.pop_front() {
            self.credit.debit(cost);
            self.base.app.add(Count::MessagesSent, 1);
            self.base.app.add(Count::Finished, 1);
            self.base.count_sent(1);
            self.let_call_go(slot);
        }
    }

    /// The error to be sent next, encoded, and the id of its call.
    pub(crate) fn next_failure(&mut self) -> Option<(u32, &[u8])> {
        let slot = self.base.calls.front(|calls| &mut calls.failures)?;
        let entry = self.base.calls.entries.get(slot as usize)?;
        Some((entry.id, entry.port.as_ref()?.message()))
    }

    /// The next error was put into the batch.
    pub(crate) fn failure_sent(&mut self) {
        if let Some(slot) = self.base.calls.failures.pop_front() {
            self.base.count_sent(1);
            self.let_call_go(slot);
        }
    }

    /// Id and code of a call to be cancelled at the peer.
    pub(crate) fn next_call_cancel(&mut self) -> Option<(u32, u32)> {
        self.base.calls.cancels.pop_front()
    }

    /// A handler goes on with its call as a stream, whose receiving direction has finished. `None` if the call is over: the
    /// stream has its end then.
    pub(crate) fn call_becomes_stream(
        &mut self,
        slot: u32,
        mut port: S::Stream,
        now: Instant,
    ) -> Option<Key> {
        let charge = self.base.calls.take_charge(slot);
        self.flow.return_to_session(&self.base, charge.into());
        let entry = self.base.calls.entries.get(slot as usize)?;
        if entry.at != At::Running {
            let error = StreamError::Cancelled {
                by: Side::Peer,
                code: codes::CANCELLED,
            };
            self.budget.take_back(&port);
            port.end_send(SendEnd::Error(error.clone()));
            port.end_recv(RecvEnd::Error(error));
            port.wake_sender();
            self.let_call_go(slot);
            return None;
        }
        let entry = self.base.calls.remove(slot)?;
        if let Some(call) = entry.port {
            self.base.app.recycle_call(call);
        }
        port.set_id(entry.id);
        port.end_recv(RecvEnd::Finished);
        let mut stream = self.new_stream(port, Opening::Received, now);
        stream.id = entry.id;
        stream.state.on(Event::RecvFin);
        let key = self.base.streams.insert(stream);
        Some(key)
    }

    /// Refuses a call that no handler has taken. True if it was alive.
    fn refuse_call(&mut self, slot: u32) -> bool {
        let Some(entry) = self.base.calls.entries.get(slot as usize) else {
            return false;
        };
        let (id, alive) = (entry.id, entry.at == At::Running);
        if !alive {
            self.let_call_go(slot);
            return false;
        }
        let charge = self.base.calls.take_charge(slot);
        if let Some(port) = self.base.calls.remove(slot).and_then(|entry| entry.port) {
            self.base.app.recycle_call(port);
        }
        self.refuse(id, charge.into());
        self.base.count_streams();
        true
    }

    /// The session's window is scarce: returns the credit of requests that handlers have taken.
    pub(crate) fn release_taken_calls(&mut self, now: Instant) {
        if self.base.calls.charged == 0 {
            return;
        }
        let mut returned = 0;
        for (_, entry) in &mut self.base.calls.entries {
            let taken = entry.port.as_ref().is_none_or(CallPort::is_taken);
            if entry.charge > 0 && taken {
                returned += u64::from(std::mem::take(&mut entry.charge));
                self.base.calls.charged -= 1;
            }
        }
        self.flow.return_to_session(&self.base, returned);
        if self.base.calls.charged > 0 {
            // Handlers do not report that they take calls.
            recheck_soon(&mut self.base, now);
        }
    }
}
