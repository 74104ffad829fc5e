//! Calls of this side: from a caller's request to the end that the peer, the caller or the time makes.

use std::sync::Arc as StdArc;
use std::time::Instant;

use bytes::Bytes;

use crate::core::calls::At;
use crate::core::mux::Mux;
use crate::core::port::{CallPort, Count, SessionPort};
use crate::core::state::Event;
use crate::core::stream::Opening;
use crate::core::streams::Key;
use crate::core::timers::Timer;
use crate::core::violation::Violation;
use crate::error::{Failure, SessionError, Side, StreamError, codes};

/// The call to be sent next: its opening block and its request.
pub(crate) fn next_call<S: SessionPort>(mux: &mut Mux<S>) -> Option<(&[u8], &[u8])> {
    let slot = mux.base.calls.front(|calls| &mut calls.queue)?;
    let port = mux.base.calls.port(slot)?;
    Some((port.opening(), port.message()))
}

/// The next call was put into the batch, with this id and cost; [`calls_sent`] follows.
pub(crate) fn call_sent<S: SessionPort>(mux: &mut Mux<S>, id: u32, cost: u64) {
    let calls = &mut mux.base.calls;
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
    mux.credit.debit(cost);
}

/// So many calls were put into the batch.
pub(crate) fn calls_sent<S: SessionPort>(mux: &mut Mux<S>, calls: u64) {
    if calls > 0 {
        let app = &mux.base.app;
        app.add(Count::Opened, calls);
        app.add(Count::MessagesSent, calls);
        app.add(Count::Calls, calls);
        mux.base.count_sent(calls);
    }
}

/// The peer has answered a call, which costs `cost`. False if there is no such call. What has received it returns the credit:
/// [`Flow::return_if_worth_it`](crate::core::flow::Flow::return_if_worth_it).
pub(crate) fn reply_by_peer<S: SessionPort>(
    mux: &mut Mux<S>,
    id: u32,
    answer: Bytes,
    cost: u64,
) -> Result<bool, Violation> {
    mux.flow.receive(cost)?;
    // It is not held.
    mux.flow.window.consume(cost);
    let base = &mut mux.base;
    let Some((slot, entry)) = base.calls.find(id) else {
        return Ok(false);
    };
    if entry.at != At::Sent {
        // Only the side that was called may answer.
        return Err(Violation::AfterEnd);
    }
    if let Some(mut port) = base.calls.remove(slot) {
        base.app.answer_call(&mut port, answer, base.turn);
        base.calls.wake_later(port);
    }
    Ok(true)
}

/// The peer has failed a call.
pub(crate) fn fail_call_by_peer<S: SessionPort>(mux: &mut Mux<S>, id: u32, failure: Failure) {
    end_call_by_peer(mux, id, StreamError::Failed(StdArc::new(failure)));
}

pub(in crate::core) fn end_call_by_peer<S: SessionPort>(
    mux: &mut Mux<S>,
    id: u32,
    error: StreamError,
) {
    let Some((slot, entry)) = mux.base.calls.find(id) else {
        return;
    };
    match entry.at {
        At::Sent => {
            if matches!(error, StreamError::Cancelled { .. }) {
                mux.base.app.add(Count::Cancelled, 1);
            }
            end_call(mux, slot, error);
        }
        At::Running => super::handler::give_up_call(mux, slot, error),
        At::Answering => {
            mux.base.app.add(Count::Cancelled, 1);
            super::handler::void_answer(mux, slot);
            mux.limits.charge_reset(mux.base.turn);
        }
        At::Queued | At::Over | At::Void => mux.limits.charge_control(&mux.base),
    }
}

/// The caller has given up.
pub(crate) fn cancel_call<S: SessionPort>(mux: &mut Mux<S>, slot: u32, code: u32) {
    let error = StreamError::Cancelled {
        by: Side::This,
        code,
    };
    let Some(entry) = mux.base.calls.entries.get(slot as usize) else {
        return;
    };
    let id = entry.id;
    match entry.at {
        At::Sent => {
            mux.base.calls.cancels.push_back((id, code));
            mux.base.calls.frames_due = true;
            mux.base.app.add(Count::Cancelled, 1);
            end_call(mux, slot, error);
        }
        At::Queued => {
            // The peer never hears of it.
            mux.base.app.add(Count::Cancelled, 1);
            end_queued_call(mux, slot, StreamError::NotSent { code });
        }
        At::Running | At::Answering | At::Over | At::Void => {}
    }
}

/// A call was given up before it was begun.
pub(crate) fn give_permission_back<S: SessionPort>(mux: &mut Mux<S>) {
    mux.permits.on_granted(&mut mux.base, 1);
}

/// Ends a call that was sent.
fn end_call<S: SessionPort>(mux: &mut Mux<S>, slot: u32, error: StreamError) {
    let calls = &mut mux.base.calls;
    if let Some(mut port) = calls.remove(slot) {
        port.end(error);
        calls.wake_later(port);
    }
    mux.base.count_streams();
}

/// Ends a call that was not sent; its permission is for another one.
fn end_queued_call<S: SessionPort>(mux: &mut Mux<S>, slot: u32, error: StreamError) {
    if let Some(mut port) = mux.base.calls.void(slot) {
        port.end(error);
        mux.base.calls.wake_later(port);
        mux.permits.on_granted(&mut mux.base, 1);
        mux.base.count_streams();
    }
}

/// Cancels the calls whose deadlines have passed.
pub(crate) fn cancel_late_calls<S: SessionPort>(mux: &mut Mux<S>, now: Instant) {
    let mut next: Option<Instant> = None;
    let mut late = Vec::new();
    for (slot, entry) in &mux.base.calls.entries {
        let waits = matches!(entry.at, At::Queued | At::Sent);
        let deadline = entry.port.as_ref().and_then(CallPort::deadline);
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
        cancel_call(mux, slot, codes::DEADLINE);
    }
    if let Some(at) = next {
        mux.base.timers.set_by(Timer::Calls, at);
    }
}

/// The calls of this side that `lost` selects, by id, were not processed.
pub(crate) fn lose_calls<S: SessionPort>(
    mux: &mut Mux<S>,
    error: &SessionError,
    mut lost: impl FnMut(Option<u32>) -> bool,
) {
    let of_this_side = mux.base.calls.entries.iter().filter_map(|(slot, entry)| {
        let ours = matches!(entry.at, At::Queued | At::Sent);
        let id = Some(entry.id).filter(|id| *id != 0);
        (ours && lost(id)).then_some((slot as u32, entry.at))
    });
    for (slot, at) in of_this_side.collect::<Vec<_>>() {
        let error = StreamError::NotProcessed(error.clone());
        mux.base.app.add(Count::Cancelled, 1);
        match at {
            At::Queued => end_queued_call(mux, slot, error),
            _ => end_call(mux, slot, error),
        }
    }
}

/// The peer opens the direction back on the id of a call: makes a stream of it, with a sending direction that has finished.
/// `None` if there is no such call.
pub(crate) fn stream_of_call<S: SessionPort>(
    mux: &mut Mux<S>,
    id: u32,
    now: Instant,
) -> Option<Key> {
    let (slot, entry) = mux.base.calls.find(id)?;
    if entry.at != At::Sent {
        return None;
    }
    let mut call = mux.base.calls.remove(slot)?;
    let port = mux.base.app.stream_of_call(&mut call, id);
    let (key, stream) = mux.insert(port, id, Opening::Sent, now);
    stream.state.on(Event::SentFin);
    mux.base.calls.wake_later(call);
    mux.base.count_streams();
    Some(key)
}
