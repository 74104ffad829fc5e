//! Unary calls: one request and one answer, each in one frame, with the ids, the permissions and the credit of streams.
//!
//! A second, small kind of entry beside the streams. [`Calls`] has the entries and what they owe; the steps that also concern
//! credit, permissions or limits are methods of [`Mux`] and [`Core`] here.
//!
//! # States
//! ```text
//!   of this side   Queued ─CALL sent─► Sent ─REPLY, ERROR, CANCEL──────────► gone
//!                    └─cancel─► Void     └─cancel, deadline: owes CANCEL────► gone
//!   of the peer    Running ─answer─► Answering ─REPLY or ERROR sent──────────► gone
//!                    │                 └─CANCEL─► Void
//!                    ├─dropped: owes CANCEL──────────────────────────────────► gone
//!                    └─CANCEL─► Over ─the handler lets go────────────────────► gone
//! ```
//! * `Void`: gone, except for its place in a queue.
//! * A call of the peer gives its permission back when its handler has let go of it, as a stream does: cancels free no handler.
//! * The id of a call may go on as a stream: a server whose answer is longer than a frame, or has metadata, opens the direction
//!   back on the same id ([`Mux::call_becomes_stream`]), and the caller makes a stream of its call when the first such frame
//!   arrives ([`Mux::stream_of_call`]).
//!
//! # Memory
//! The bytes of a request are held on the session's window until a handler takes the call (`CallPort::is_taken`, looked at when it
//! is answered, and while the window is scarce). Those of an answer are returned as they arrive: they belong to the caller's
//! future, which holds one frame at most.

use std::collections::VecDeque;
use std::sync::Arc as StdArc;
use std::time::Instant;

use slab::Slab;

use super::base::Base;
use super::call_ids::CallIds;
use super::flow::recheck_soon;
use super::mux::Mux;
use super::port::{CallPort, Count, RecvEnd, SendEnd, SessionPort, StreamPort};
use super::session::Core;
use super::state::Event;
use super::stream::Opening;
use super::streams::Key;
use super::timers::Timer;
use super::violation::Violation;
use crate::error::{Failure, Limit, SessionError, Side, StreamError, codes};

/// The state of a call, see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Queued,
    Sent,
    Running,
    Answering,
    Over,
    Void,
}

#[derive(Debug)]
struct Entry<C> {
    /// 0 until it has one.
    id: u32,
    at: At,
    /// `None` once it is `Void`.
    port: Option<C>,
    /// Session credit that a request holds until it is taken.
    charge: u32,
    /// Reset by the peer before it was taken.
    early: bool,
}

/// What a handler did with its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The message of the port is the answer.
    Reply,
    /// The message of the port is an encoded error, see `failure`.
    Failure,
    /// It was dropped, or cancelled, with this code.
    Cancel(u32),
}

/// The calls of a session, and the frames that they owe.
#[derive(Debug)]
pub(crate) struct Calls<C> {
    entries: Slab<Entry<C>>,
    /// The entry of each id.
    by_id: CallIds,
    /// Calls to be sent.
    queue: VecDeque<u32>,
    /// Answers to be sent, which cost credit, and errors, which cost none.
    replies: VecDeque<u32>,
    failures: VecDeque<u32>,
    /// Ids and codes of calls to be cancelled at the peer.
    cancels: VecDeque<(u32, u32)>,
    /// Answered calls whose tasks are to be woken.
    wakes: Vec<C>,
    /// The same of calls that are still here.
    wakes_here: Vec<u32>,
    /// Calls were offered to the application.
    pub(crate) offered: bool,
    /// The peer is to be told whether this side takes calls.
    pub(crate) announce: bool,
    /// This side has said that it takes calls.
    announced: bool,
    /// Requests that hold credit.
    charged: u32,
    /// Calls that the peer has reset before they were taken.
    early_resets: u32,
}

impl<C> Default for Calls<C> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            by_id: CallIds::default(),
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            failures: VecDeque::new(),
            cancels: VecDeque::new(),
            wakes: Vec::new(),
            wakes_here: Vec::new(),
            offered: false,
            announce: false,
            announced: false,
            charged: 0,
            early_resets: 0,
        }
    }
}

impl<C: CallPort> Calls<C> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an id is that of a call.
    #[inline]
    pub(crate) fn has(&self, id: u32) -> bool {
        self.by_id.get(id).is_some()
    }

    /// Calls that are not over on the wire.
    pub(crate) fn count_alive(&self) -> u64 {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| !matches!(entry.at, At::Over | At::Void))
            .count() as u64
    }

    /// Whether all are over on the wire, and owe nothing.
    pub(crate) fn are_over(&self) -> bool {
        self.cancels.is_empty() && self.count_alive() == 0
    }

    /// Whether frames of calls may have to be sent.
    #[inline]
    pub(crate) fn has_frames(&self) -> bool {
        !(self.queue.is_empty()
            && self.replies.is_empty()
            && self.failures.is_empty()
            && self.cancels.is_empty())
    }

    /// Number of calls with tasks to wake.
    #[inline]
    pub(crate) fn waking(&self) -> usize {
        self.wakes.len() + self.wakes_here.len()
    }

    /// Wakes the tasks noted since the last call; the cells of calls that have gone may be used again.
    pub(crate) fn deliver_wakes<S: SessionPort<Call = C>>(&mut self, app: &mut S) {
        for slot in self.wakes_here.drain(..) {
            if let Some(entry) = self.entries.get_mut(slot as usize)
                && let Some(port) = &mut entry.port
            {
                port.wake();
            }
        }
        for mut port in self.wakes.drain(..) {
            port.wake();
            app.recycle_call(port);
        }
    }

    fn insert(&mut self, id: u32, at: At, port: C, charge: u32) -> u32 {
        let entry = self.entries.vacant_entry();
        let slot = entry.key() as u32;
        port.set_key(Some(slot.into()));
        if id != 0 {
            self.by_id.insert(id, slot);
        }
        self.charged += u32::from(charge > 0);
        entry.insert(Entry {
            id,
            at,
            port: Some(port),
            charge,
            early: false,
        });
        slot
    }

    fn find(&mut self, id: u32) -> Option<(u32, &mut Entry<C>)> {
        let slot = self.by_id.get(id)?;
        Some((slot, self.entries.get_mut(slot as usize)?))
    }

    /// Removes an entry that is in no queue.
    fn remove(&mut self, slot: u32) -> Option<Entry<C>> {
        let entry = self.entries.try_remove(slot as usize)?;
        if entry.id != 0 {
            self.by_id.remove(entry.id);
        }
        if let Some(port) = &entry.port {
            port.set_key(None);
        }
        self.charged -= u32::from(entry.charge > 0);
        self.early_resets -= u32::from(entry.early);
        Some(entry)
    }

    /// Leaves an entry to its queue; returns its port.
    fn void(&mut self, slot: u32) -> Option<C> {
        let entry = self.entries.get_mut(slot as usize)?;
        entry.at = At::Void;
        let port = entry.port.take()?;
        port.set_key(None);
        if entry.id != 0 {
            self.by_id.remove(entry.id);
            entry.id = 0;
        }
        Some(port)
    }

    /// Takes the credit that a request holds.
    fn take_charge(&mut self, slot: u32) -> u32 {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return 0;
        };
        let charge = std::mem::take(&mut entry.charge);
        self.charged -= u32::from(charge > 0);
        charge
    }

    /// The first entry of a queue that is not void; void ones are dropped.
    fn front(&mut self, queue: impl Fn(&mut Self) -> &mut VecDeque<u32>) -> Option<u32> {
        loop {
            let slot = *queue(self).front()?;
            let entry = self.entries.get(slot as usize);
            if entry.is_some_and(|entry| entry.at != At::Void) {
                return Some(slot);
            }
            queue(self).pop_front();
            self.remove(slot);
        }
    }

    pub(crate) fn port_mut(&mut self, slot: u32) -> Option<&mut C> {
        self.entries.get_mut(slot as usize)?.port.as_mut()
    }

    fn port(&self, slot: u32) -> Option<&C> {
        self.entries.get(slot as usize)?.port.as_ref()
    }
}

/// Sums over the calls of a session, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Books {
    /// Session credit that requests hold, in bytes.
    pub(crate) charged: u64,
    /// Permissions that the peer's calls have.
    pub(crate) of_peer: u64,
    /// Permissions that calls of this side have which were not sent.
    pub(crate) queued: u64,
}

#[cfg(test)]
impl<C> Calls<C> {
    pub(crate) fn books(&self) -> Books {
        let count = |states: &[At]| {
            let entries = self.entries.iter();
            entries.filter(|(_, it)| states.contains(&it.at)).count() as u64
        };
        let charges = self.entries.iter().map(|(_, it)| u64::from(it.charge));
        let charged = self.entries.iter().filter(|(_, it)| it.charge > 0).count();
        assert_eq!(self.charged as usize, charged);
        Books {
            charged: charges.sum(),
            of_peer: count(&[At::Running, At::Answering, At::Over]),
            queued: count(&[At::Queued]),
        }
    }
}

// ---- calls of this side ---------------------------------------------------------------------------

impl<S: SessionPort> Core<S> {
    /// A handle, which has taken a permission, asks for a call.
    pub(crate) fn start_call(&mut self, mut port: S::Call) {
        let base = &mut self.mux.base;
        if let Some(reason) = self.life.refusal() {
            base.app.add_open_credit(1);
            port.end(StreamError::NotProcessed(reason));
            base.calls.wakes.push(port);
            return;
        }
        let deadline = port.deadline();
        let slot = base.calls.insert(0, At::Queued, port, 0);
        base.calls.queue.push_back(slot);
        if let Some(at) = deadline {
            base.timers.set_by(Timer::Calls, at);
        }
        base.count_streams();
    }

    /// The peer has cancelled a call.
    pub(crate) fn call_cancelled_by_peer(&mut self, id: u32, code: u32) {
        let error = self.cancelled_as(code);
        self.mux.end_call_by_peer(id, error);
    }

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
    /// The call to be sent next: its opening block and its request.
    pub(crate) fn next_call(&mut self) -> Option<(&[u8], &[u8])> {
        let slot = self.base.calls.front(|calls| &mut calls.queue)?;
        let port = self.base.calls.port(slot)?;
        Some((port.opening(), port.message()))
    }

    /// The next call was put into the batch, with this id and cost.
    pub(crate) fn call_sent(&mut self, id: u32, cost: u64) {
        let calls = &mut self.base.calls;
        let Some(slot) = calls.queue.pop_front() else {
            return;
        };
        if let Some(entry) = calls.entries.get_mut(slot as usize) {
            entry.id = id;
            entry.at = At::Sent;
            if let Some(port) = &mut entry.port {
                port.forget_message();
            }
        }
        calls.by_id.insert(id, slot);
        self.credit.debit(cost);
        let app = &self.base.app;
        app.add(Count::Opened, 1);
        app.add(Count::MessagesSent, 1);
        app.add(Count::Calls, 1);
        self.base.count_sent(1);
    }

    /// The peer has answered a call, which costs `cost`. False if there is no such call.
    pub(crate) fn reply_by_peer(
        &mut self,
        id: u32,
        answer: &[u8],
        cost: u64,
    ) -> Result<bool, Violation> {
        self.flow.receive(cost)?;
        self.flow.return_to_session(&self.base, cost);
        let base = &mut self.base;
        let Some((slot, entry)) = base.calls.find(id) else {
            return Ok(false);
        };
        if entry.at != At::Sent {
            // Only the side that was called may answer.
            return Err(Violation::AfterEnd);
        }
        if let Some(Entry {
            port: Some(mut port),
            ..
        }) = base.calls.remove(slot)
        {
            port.answer(base.app.keep(answer));
            base.calls.wakes.push(port);
        }
        base.app.add(Count::MessagesReceived, 1);
        base.app.add(Count::Finished, 1);
        base.count_streams();
        Ok(true)
    }

    /// The peer has failed a call.
    pub(crate) fn fail_call_by_peer(&mut self, id: u32, failure: Failure) {
        self.end_call_by_peer(id, StreamError::Failed(StdArc::new(failure)));
    }

    fn end_call_by_peer(&mut self, id: u32, error: StreamError) {
        let Some((slot, entry)) = self.base.calls.find(id) else {
            return;
        };
        match entry.at {
            At::Sent => {
                if matches!(error, StreamError::Cancelled { .. }) {
                    self.base.app.add(Count::Cancelled, 1);
                }
                self.end_call(slot, error);
            }
            At::Running => self.give_up_call(slot, error),
            At::Answering => {
                self.base.app.add(Count::Cancelled, 1);
                self.void_answer(slot);
            }
            At::Queued | At::Over | At::Void => self.limits.charge_control(&self.base),
        }
    }

    /// The caller has given up.
    pub(crate) fn cancel_call(&mut self, slot: u32, code: u32) {
        let error = StreamError::Cancelled {
            by: Side::This,
            code,
        };
        let Some(entry) = self.base.calls.entries.get(slot as usize) else {
            return;
        };
        let id = entry.id;
        match entry.at {
            At::Sent => {
                self.base.calls.cancels.push_back((id, code));
                self.base.app.add(Count::Cancelled, 1);
                self.end_call(slot, error);
            }
            At::Queued => {
                // The peer never hears of it.
                self.base.app.add(Count::Cancelled, 1);
                self.end_queued_call(slot, error);
            }
            At::Running | At::Answering | At::Over | At::Void => {}
        }
    }

    /// A call was given up before it was begun.
    pub(crate) fn give_permission_back(&mut self) {
        self.permits.on_granted(&mut self.base, 1);
    }

    /// Ends a call that was sent.
    fn end_call(&mut self, slot: u32, error: StreamError) {
        let calls = &mut self.base.calls;
        if let Some(mut port) = calls.remove(slot).and_then(|entry| entry.port) {
            port.end(error);
            calls.wakes.push(port);
        }
        self.base.count_streams();
    }

    /// Ends a call that was not sent; its permission is for another one.
    fn end_queued_call(&mut self, slot: u32, error: StreamError) {
        if let Some(mut port) = self.base.calls.void(slot) {
            port.end(error);
            self.base.calls.wakes.push(port);
            self.permits.on_granted(&mut self.base, 1);
        }
    }

    /// Cancels the calls whose deadlines have passed.
    pub(crate) fn cancel_late_calls(&mut self, now: Instant) {
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for (slot, entry) in &self.base.calls.entries {
            let waits = matches!(entry.at, At::Queued | At::Sent);
            let deadline = entry.port.as_ref().and_then(|port| port.deadline());
            let Some(at) = deadline.filter(|_| waits) else {
                continue;
            };
            if at <= now {
                late.push(slot as u32);
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        for slot in late {
            self.cancel_call(slot, codes::DEADLINE);
        }
        if let Some(at) = next {
            self.base.timers.set_by(Timer::Calls, at);
        }
    }

    /// The calls of this side that `lost` selects, by id, were not processed.
    pub(crate) fn lose_calls(
        &mut self,
        error: &SessionError,
        mut lost: impl FnMut(Option<u32>) -> bool,
    ) {
        let of_this_side = self.base.calls.entries.iter().filter_map(|(slot, entry)| {
            let ours = matches!(entry.at, At::Queued | At::Sent);
            let id = Some(entry.id).filter(|id| *id != 0);
            (ours && lost(id)).then_some((slot as u32, entry.at))
        });
        for (slot, at) in of_this_side.collect::<Vec<_>>() {
            let error = StreamError::NotProcessed(error.clone());
            self.base.app.add(Count::Cancelled, 1);
            match at {
                At::Queued => self.end_queued_call(slot, error),
                _ => self.end_call(slot, error),
            }
        }
    }

    /// The peer opens the direction back on the id of a call: makes a stream of it, with a sending direction that has finished.
    /// `None` if there is no such call.
    pub(crate) fn stream_of_call(&mut self, id: u32, now: Instant) -> Option<Key> {
        let (slot, entry) = self.base.calls.find(id)?;
        if entry.at != At::Sent {
            return None;
        }
        let mut call = self.base.calls.remove(slot)?.port?;
        let port = self.base.app.stream_of_call(&mut call, id);
        let mut stream = self.new_stream(port, Opening::Sent, now);
        stream.id = id;
        stream.state.on(Event::SentFin);
        let key = self.base.streams.insert(stream);
        self.base.calls.wakes.push(call);
        self.base.count_streams();
        Some(key)
    }
}

// ---- calls of the peer ----------------------------------------------------------------------------

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
    fn give_up_call(&mut self, slot: u32, error: StreamError) {
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
    fn void_answer(&mut self, slot: u32) {
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
            let taken = entry.port.as_ref().is_none_or(|port| port.is_taken());
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

    /// The session has ended: ends all calls.
    pub(crate) fn end_calls(&mut self, error: &SessionError) {
        let mut calls = std::mem::take(&mut self.base.calls);
        calls.deliver_wakes(&mut self.base.app);
        for (_, entry) in &mut calls.entries {
            let error = match entry.at {
                At::Queued => StreamError::NotProcessed(error.clone()),
                _ => StreamError::Session(error.clone()),
            };
            if let Some(port) = &mut entry.port {
                port.set_key(None);
                port.end(error);
                port.wake();
            }
        }
    }
}

impl<S: SessionPort> Base<S> {
    /// Whether the peer is to be told that this side takes calls, or does not any more.
    pub(crate) fn take_announcement(&mut self) -> Option<bool> {
        if !std::mem::take(&mut self.calls.announce) {
            return None;
        }
        let takes = self.app.takes_calls();
        let news = takes || self.calls.announced;
        self.calls.announced |= takes;
        news.then_some(takes)
    }

    /// Whether the peer may ever have been told that this side takes calls.
    pub(crate) const fn has_announced_calls(&self) -> bool {
        self.calls.announced
    }
}
