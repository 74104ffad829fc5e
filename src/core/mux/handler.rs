//! Calls of the peer: from their arrival to the answer that a handler gives, or to a cancel.

use std::time::Instant;

use bytes::Bytes;

use crate::core::base::Base;
use crate::core::calls::{Answer, At, Calls};
use crate::core::mux::Mux;
use crate::core::port::{CallPort, Count, RecvEnd, SendEnd, SessionPort, StreamPort};
use crate::core::state::Event;
use crate::core::stream::Opening;
use crate::core::streams::Key;
use crate::error::{Limit, SessionError, Side, StreamError, codes};

/// True if it was queued for the application, else it is refused.
pub(in crate::core) fn insert_call<S: SessionPort>(
    mux: &mut Mux<S>,
    id: u32,
    payload: Bytes,
    opening: usize,
    cost: u64,
) -> bool {
    let (port, offer) = mux.base.app.incoming_call(payload, opening, mux.base.turn);
    let slot = mux.base.calls.insert(id, At::Running, port, cost as u32);
    if !mux.base.app.offer_call(offer) {
        mux.base.calls.remove(slot);
        mux.base.app.trip(Limit::Unaccepted);
        mux.refuse(id, cost);
        return false;
    }
    mux.base.calls.offered = true;
    mux.base.calls.wakes_due = true;
    true
}

/// The peer has cancelled a call that runs: its handler is told, and keeps the permission until it lets go.
pub(super) fn give_up_call<S: SessionPort>(mux: &mut Mux<S>, slot: u32, error: StreamError) {
    let calls = &mut mux.base.calls;
    let Some(entry) = calls.entries.get_mut(slot as usize) else {
        return;
    };
    entry.at = At::Over;
    let mut taken = true;
    if let Some(port) = &mut entry.port {
        taken = port.is_taken();
        port.end(error);
        calls.wakes_here.push(slot);
        calls.wakes_due = true;
    }
    if !taken {
        entry.early = true;
        calls.early_resets += 1;
    }
    let charge = calls.take_charge(slot);
    mux.base.app.add(Count::Cancelled, 1);
    mux.flow.return_to_session(&mux.base, charge.into());
    mux.limits.charge_reset(mux.base.turn);
    let Some(most) = mux.base.config.max_unaccepted_resets() else {
        return;
    };
    let early = mux.base.calls.recount_early_resets(most);
    if early > most {
        mux.limits.trip(Limit::UnacceptedResets, early.into());
    }
}

/// A handler has let go of its call; its port has the answer.
pub(crate) fn answer_call<S: SessionPort>(mux: &mut Mux<S>, slot: u32, answer: Answer) {
    let charge = mux.base.calls.take_charge(slot);
    if charge > 0 {
        mux.flow.return_to_session(&mux.base, charge.into());
    }
    let calls = &mut mux.base.calls;
    let Some(entry) = calls.entries.get_mut(slot as usize) else {
        return;
    };
    if entry.at != At::Running {
        // The caller does not wait any more.
        return let_call_go(mux, slot);
    }
    entry.at = At::Answering;
    calls.frames_due = true;
    match answer {
        Answer::Reply => calls.replies.push_back(slot),
        Answer::Failure => calls.failures.push_back(slot),
        Answer::Cancel(code) => {
            calls.cancels.push_back((entry.id, code));
            mux.base.app.add(Count::Cancelled, 1);
            mux.limits.charge_reset(mux.base.turn);
            let_call_go(mux, slot);
        }
    }
}

/// Nothing of a call of the peer is left to do.
fn let_call_go<S: SessionPort>(mux: &mut Mux<S>, slot: u32) {
    if let Some(port) = mux.base.calls.remove(slot) {
        mux.base.app.recycle_call(port);
    }
    calls_gone(mux, 1);
}

fn calls_gone<S: SessionPort>(mux: &mut Mux<S>, calls: u32) {
    mux.spares.kept(&mut mux.base.timers, mux.base.turn);
    mux.permits.grant_owed += calls;
    mux.base.count_streams();
}

/// The answer that is in a queue is not sent.
pub(super) fn void_answer<S: SessionPort>(mux: &mut Mux<S>, slot: u32) {
    if let Some(port) = mux.base.calls.void(slot) {
        mux.base.app.recycle_call(port);
        mux.permits.grant_owed += 1;
        mux.base.count_streams();
    }
}

/// The answer to be sent next, and the id of its call.
pub(crate) fn next_reply<S: SessionPort>(mux: &mut Mux<S>) -> Option<(u32, &[u8])> {
    let slot = mux.base.calls.front(|calls| &mut calls.replies)?;
    let entry = mux.base.calls.entries.get(slot as usize)?;
    Some((entry.id, entry.port.as_ref()?.message()))
}

/// The next answer was put into the batch, at this cost; [`replies_sent`] follows.
pub(crate) fn reply_sent<S: SessionPort>(mux: &mut Mux<S>, cost: u64) {
    mux.credit.debit(cost);
    if let Some(slot) = mux.base.calls.replies.pop_front()
        && let Some(port) = mux.base.calls.remove(slot)
    {
        mux.base.app.recycle_call(port);
    }
}

/// So many answers were put into the batch.
pub(crate) fn replies_sent<S: SessionPort>(mux: &mut Mux<S>, replies: u32) {
    if replies > 0 {
        mux.base.app.add(Count::MessagesSent, replies.into());
        mux.base.app.add(Count::Finished, replies.into());
        mux.base.count_sent(replies.into());
        calls_gone(mux, replies);
    }
}

/// The error to be sent next, encoded, and the id of its call.
pub(crate) fn next_failure<S: SessionPort>(mux: &mut Mux<S>) -> Option<(u32, &[u8])> {
    let slot = mux.base.calls.front(|calls| &mut calls.failures)?;
    let entry = mux.base.calls.entries.get(slot as usize)?;
    Some((entry.id, entry.port.as_ref()?.message()))
}

/// The next error was put into the batch.
pub(crate) fn failure_sent<S: SessionPort>(mux: &mut Mux<S>) {
    if let Some(slot) = mux.base.calls.failures.pop_front() {
        mux.base.count_sent(1);
        let_call_go(mux, slot);
    }
}

/// Id and code of a call to be cancelled at the peer.
pub(crate) fn next_call_cancel<S: SessionPort>(mux: &mut Mux<S>) -> Option<(u32, u32)> {
    mux.base.calls.cancels.pop_front()
}

/// A handler goes on with its call as a stream, whose receiving direction has finished. `None` if the call is over: the
/// stream has its end then.
pub(crate) fn call_becomes_stream<S: SessionPort>(
    mux: &mut Mux<S>,
    slot: u32,
    mut port: S::Stream,
    now: Instant,
) -> Option<Key> {
    let charge = mux.base.calls.take_charge(slot);
    mux.flow.return_to_session(&mux.base, charge.into());
    let entry = mux.base.calls.entries.get(slot as usize)?;
    if entry.at != At::Running {
        let error = StreamError::Cancelled {
            by: Side::Peer,
            code: codes::CANCELLED,
        };
        mux.budget.take_back(&port);
        port.end_send(SendEnd::Error(error.clone()));
        port.end_recv(RecvEnd::Error(error));
        port.wake_sender();
        let_call_go(mux, slot);
        return None;
    }
    let id = entry.id;
    if let Some(call) = mux.base.calls.remove(slot) {
        mux.base.app.recycle_call(call);
    }
    port.set_id(id);
    port.end_recv(RecvEnd::Finished);
    let (key, stream) = mux.insert(port, id, Opening::Received, now);
    stream.state.on(Event::RecvFin);
    Some(key)
}

/// Refuses a call that no handler has taken. True if it was alive.
pub(in crate::core) fn refuse_call<S: SessionPort>(mux: &mut Mux<S>, slot: u32) -> bool {
    let Some(entry) = mux.base.calls.entries.get(slot as usize) else {
        return false;
    };
    let (id, alive) = (entry.id, entry.at == At::Running);
    if !alive {
        let_call_go(mux, slot);
        return false;
    }
    let charge = mux.base.calls.take_charge(slot);
    if let Some(port) = mux.base.calls.remove(slot) {
        mux.base.app.recycle_call(port);
    }
    mux.refuse(id, charge.into());
    mux.base.count_streams();
    true
}

/// The session's window is scarce, and calls hold most of it: refuses the one that waits longest for a handler.
#[cold]
pub(super) fn refuse_oldest_call<S: SessionPort>(mux: &mut Mux<S>) {
    while let Some(key) = mux.base.app.take_unaccepted_call() {
        if key.is_some_and(|slot| refuse_call(mux, slot as u32)) {
            return mux.base.app.trip(Limit::StalledStream);
        }
    }
}

/// The session's window is scarce: returns the credit of requests that handlers have taken.
pub(super) fn release_taken_calls<S: SessionPort>(mux: &mut Mux<S>) {
    if mux.base.calls.charged == 0 {
        return;
    }
    let mut returned = 0;
    for (_, entry) in &mut mux.base.calls.entries {
        let taken = entry.port.as_ref().is_none_or(CallPort::is_taken);
        if entry.charge > 0 && taken {
            returned += u64::from(std::mem::take(&mut entry.charge));
            mux.base.calls.charged -= 1;
        }
    }
    mux.flow.return_to_session(&mux.base, returned);
}

/// The session has ended: ends all calls. Requests and answers that applications hold unread stay charged.
pub(super) fn end_calls<S: SessionPort>(base: &mut Base<S>, error: &SessionError) {
    // Nothing is added after the end.
    let mut calls = std::mem::replace(&mut base.calls, Calls::new(0));
    calls.deliver_wakes(&mut base.app);
    base.app.keep_answers();
    for (_, entry) in &mut calls.entries {
        let error = match entry.at {
            At::Queued => StreamError::NotProcessed(error.clone()),
            _ => StreamError::Session(error.clone()),
        };
        if let Some(port) = &mut entry.port {
            if matches!(entry.at, At::Running | At::Over) {
                port.keep_charge(entry.cost.into());
            }
            port.set_key(None);
            port.end(error);
            port.wake();
        }
    }
}
