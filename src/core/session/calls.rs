//! The steps of unary calls that depend on the life of the session.

use bytes::Bytes;

use crate::core::calls::At;
use crate::core::mux::{caller, handler};
use crate::core::port::{CallPort, Count, SessionPort};
use crate::core::session::Core;
use crate::core::timers::Timer;
use crate::core::violation::Violation;
use crate::error::StreamError;

/// A handle, which has taken a permission, asks for a call.
pub(crate) fn start_call<S: SessionPort>(core: &mut Core<S>, mut port: S::Call) {
    let base = &mut core.mux.base;
    if let Some(reason) = core.life.refusal() {
        base.app.add_open_credit(1);
        port.end(StreamError::NotProcessed(reason));
        base.calls.wake_later(port);
        return;
    }
    let deadline = port.deadline();
    let slot = base.calls.insert(0, At::Queued, port, 0);
    base.calls.queue.push_back(slot);
    base.calls.frames_due = true;
    if let Some(at) = deadline {
        base.timers.set_by(Timer::Calls, at);
    }
    base.count_streams();
}

/// The peer has cancelled a call.
pub(crate) fn call_cancelled_by_peer<S: SessionPort>(core: &mut Core<S>, id: u32, code: u32) {
    let error = core.life.reason.cancelled_as(code);
    caller::end_call_by_peer(&mut core.mux, id, error);
}

/// Counts calls of the peer, and answers, which were received.
pub(crate) fn calls_received<S: SessionPort>(core: &mut Core<S>, calls: u64, answers: u64) {
    let app = &core.mux.base.app;
    app.add(Count::Accepted, calls);
    app.add(Count::Calls, calls);
    app.add(Count::MessagesReceived, calls + answers);
    app.add(Count::Finished, answers);
    core.life.count_streams(calls);
    let mux = &mut core.mux;
    mux.base.count_streams();
    mux.flow.return_if_worth_it();
    if answers > 0 {
        mux.spares.kept(&mut mux.base.timers, mux.base.turn);
    }
}

/// The peer calls: `payload` is the opening block, of `opening` bytes, and the request, and has this cost.
pub(crate) fn call_by_peer<S: SessionPort>(
    core: &mut Core<S>,
    id: u32,
    payload: Bytes,
    opening: usize,
    cost: u64,
) -> Result<(), Violation> {
    core.mux.flow.receive(cost)?;
    let app = &core.mux.base.app;
    let admits = core.life.admits() && !core.orphan.is_orphaned() && app.takes_calls();
    if admits && handler::insert_call(&mut core.mux, id, payload, opening, cost) {
        return Ok(());
    }
    if !admits {
        core.mux.refuse(id, cost);
    }
    core.count_refused();
    Ok(())
}

/// Whether this side takes calls has changed.
pub(crate) fn on_calls_taken<S: SessionPort>(core: &mut Core<S>) {
    core.mux.base.calls.announce = true;
    if !core.mux.base.app.takes_calls() {
        refuse_unaccepted_calls(core);
    }
}

/// Refuses the peer's calls that no handler has taken.
pub(crate) fn refuse_unaccepted_calls<S: SessionPort>(core: &mut Core<S>) {
    while let Some(key) = core.mux.base.app.take_unaccepted_call() {
        if let Some(slot) = key
            && handler::refuse_call(&mut core.mux, slot as u32)
        {
            core.count_refused();
        }
    }
}
