//! Properties of one end at all times, beyond the accounts: it ends in time, it holds nothing back, it is bounded.

use std::time::Instant;

use super::world::Desk;
use crate::bridge::tests::End;
use crate::bridge::{Protocol as _, tx_tag};
use crate::core::state::Sending;
use crate::drpc::FlowControl;
use crate::wire::native::frame::{MAX_META_BLOCK, cost};
use crate::wire::{Drpc, Wire};

/// A piece of a message that fits into this much credit is sent; see `transmit`.
const A_PIECE: u64 = 1024;
/// What a byte of a frame without data may become in a queue.
const SHORTEST: u64 = 260 / 4;
/// The longest payload of a frame of a call.
const MAX_CALL: u32 = 16 * 1024;

/// Ends that were requested have happened in time.
pub(super) fn ceilings(
    desk: &Desk,
    is_closed: impl Fn(usize, usize) -> bool,
) -> Result<(), String> {
    let mut late = None;
    desk.ceilings.borrow_mut().retain(|(pair, side, at)| {
        let open = !is_closed(*pair, *side);
        if open && desk.now() > *at {
            late.get_or_insert((*pair, *side, desk.now() - *at));
        }
        open
    });
    match late {
        Some((pair, side, by)) => Err(format!("{pair}/{side} is {by:?} late to its end")),
        None => Ok(()),
    }
}

/// A silent peer is given up in time.
pub(super) fn silence<W: Wire>(end: &End<W>, now: Instant) -> Result<(), String> {
    if end.closed {
        return Ok(());
    }
    let (config, silent) = (&end.connection.core.mux.base.config, now - end.heard);
    let life = &end.connection.core.life;
    let most = if life.is_in_hello() {
        config.handshake_timeout()
    } else if life.is_established() {
        config.keepalive_idle().unwrap_or_default() + config.keepalive_timeout()
    } else {
        // The remaining steps have deadlines of their own, from their start.
        return Ok(());
    };
    if silent > most {
        return Err(format!("silent for {silent:?}: {}", end.dump()));
    }
    Ok(())
}

/// Called when a driver can make no progress: nothing that needs no credit is left. False if that cannot be told.
#[track_caller]
fn owes_nothing<W: Wire>(end: &mut End<W>) -> bool {
    let idle = !end.closed && !end.writing && !end.unheard && !end.connection.link.has_work();
    if !idle || !end.connection.core.life.is_established() {
        return false;
    }
    let mux = &end.connection.core.mux;
    let left = if mux.budget.has_to_lend() {
        "budget is kept from who waits for it"
    } else if !mux.base.owing.is_empty() {
        "control frames are owed"
    } else if !mux.permits.refusals.is_empty() {
        "refusals are owed"
    } else {
        return true;
    };
    panic!("{left}: {}", end.dump());
}

/// The same over DRPC, where only flow control keeps a message back.
#[track_caller]
pub(super) fn nothing_sendable_is_left_of_drpc(end: &mut End<Drpc>) {
    let mux = &end.connection.core.mux;
    let credit = mux.base.config.drpc().flow_control != FlowControl::Off;
    if !owes_nothing(end) || credit {
        return;
    }
    let mux = &mut end.connection.core.mux;
    let kept = mux.base.streams.iter_mut().find_map(|(_, stream)| {
        let open = stream.opening.is_done() && stream.state.sending == Sending::Open;
        let queued = stream.port.tx.peek().is_some();
        (open && queued).then(|| format!("{stream:?}"))
    });
    if let Some(stream) = kept {
        panic!("kept back: {stream}\n{}", end.dump());
    }
}

/// Called when a driver can make no progress: all that may be sent is sent.
#[track_caller]
pub(super) fn nothing_sendable_is_left(end: &mut End) {
    if owes_nothing(end)
        && let Some(left) = something_sendable(end)
    {
        panic!("{left}\n{}", end.dump());
    }
}

fn something_sendable(end: &mut End) -> Option<String> {
    let mux = &mut end.connection.core.mux;
    let (calls, credit) = (mux.base.calls.queued(), mux.credit.left());
    if calls.failures + calls.cancels > 0 {
        return Some(format!("ends of calls are owed: {calls:?}"));
    }
    // Calls and answers that wait for credit go before openings and messages.
    if calls.calls + calls.replies > 0 {
        let may = credit >= cost(MAX_CALL);
        return may.then(|| format!("kept back with {credit} of credit: {calls:?}"));
    }
    // With this much no block of any kind waits for the session's credit.
    if credit < cost(MAX_META_BLOCK) {
        return None;
    }
    if !mux.permits.opens.is_empty() {
        return Some("an OPEN waits".to_owned());
    }
    mux.base.streams.iter_mut().find_map(|(_, stream)| {
        if !stream.opening.is_done() || stream.state.sending != Sending::Open {
            return None;
        }
        let credit = stream.credit.left();
        let record = stream.port.tx.peek()?;
        let may = record.tag != tx_tag::MESSAGE || credit >= A_PIECE;
        may.then(|| format!("kept back with {credit} of credit: {stream:?}"))
    })
}

/// Bytes queued for applications are at most twice the granted ones, and the messages that were admitted; and for each
/// stream that was cut off and is still held, its window, which the session does not count any more.
#[track_caller]
pub(super) fn memory_is_bounded<W: Wire>(end: &mut End<W>) {
    // Without credit a reception is accepted before it is counted, in messages as short as can be.
    let beyond = match W::TERMS.credit {
        true => 0,
        false => end.connection.recv_capacity() as u64 * SHORTEST,
    };
    let connection = &mut end.connection;
    let (mut queued, mut admitted) = (0, 0);
    for (_, stream) in connection.core.mux.base.streams.iter_mut() {
        let of_stream = stream.port.rx().refresh();
        admitted += stream.window.parts().advance + u64::from(stream.lingering);
        if !stream.discarded {
            queued += of_stream;
            continue;
        }
        assert!(
            !W::TERMS.credit || of_stream <= stream.window.target() + u64::from(stream.lingering),
            "{of_stream} bytes of an ended stream are queued: {stream:?}"
        );
    }
    let granted = connection.core.mux.flow.window.target();
    assert!(
        queued <= 2 * granted + admitted + beyond,
        "{queued} bytes are queued, {granted} were granted and {admitted} admitted"
    );
}
