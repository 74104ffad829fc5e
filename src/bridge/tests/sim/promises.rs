//! What holds of one end at all times, beyond the books: it ends in time, it keeps nothing back, it is bounded.

use std::time::Instant;

use super::world::Desk;
use crate::bridge::tests::End;
use crate::bridge::tx_tag;
use crate::core::state::Sending;
use crate::wire::native::frame::{MAX_META_BLOCK, cost};

/// A piece of a message that fits into this much credit leaves; see `transmit`.
const A_PIECE: u64 = 1024;

/// What was asked to end has ended.
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

/// A peer that says nothing is given up in time.
pub(super) fn silence(end: &End, now: Instant) -> Result<(), String> {
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
        // What is left has deadlines of its own, from when it began.
        return Ok(());
    };
    if silent > most {
        return Err(format!("silent for {silent:?}: {}", end.dump()));
    }
    Ok(())
}

/// Called when a driver has found that nothing moves: whatever may leave has left.
#[track_caller]
pub(super) fn nothing_sendable_is_left(end: &mut End) {
    let idle = !end.closed && !end.writing && !end.connection.link.has_work();
    if !idle || !end.connection.core.life.is_established() {
        return;
    }
    let dump = end.dump();
    let connection = &mut end.connection;
    assert!(
        !connection.core.mux.budget.has_to_lend(),
        "budget is kept from who waits for it: {dump}"
    );
    assert!(
        connection.core.mux.base.owing.is_empty(),
        "control frames are owed: {dump}"
    );
    assert!(
        connection.core.mux.permits.refusals.is_empty(),
        "refusals are owed: {dump}"
    );
    // With this much no block of any kind waits for the session's credit.
    let plenty = connection.core.mux.credit.left() >= cost(MAX_META_BLOCK);
    if !plenty {
        return;
    }
    assert!(
        connection.core.mux.permits.opens.is_empty(),
        "an OPEN waits: {dump}"
    );
    for (_, stream) in connection.core.mux.base.streams.iter_mut() {
        if !stream.opening.is_done() || stream.state.sending != Sending::Open {
            continue;
        }
        let credit = stream.credit.left();
        let Some(record) = stream.port.tx.peek() else {
            continue;
        };
        let may = record.tag != tx_tag::MESSAGE || credit >= A_PIECE;
        assert!(
            !may,
            "kept back with {credit} of credit: {stream:?}\n{dump}"
        );
    }
}

/// What lies here for applications is at most twice what was granted, and the messages that were admitted; and of each
/// stream that has ended before its time and was not let go of, its window, which the session does not hold any more.
#[track_caller]
pub(super) fn memory_is_bounded(end: &mut End) {
    let connection = &mut end.connection;
    let (mut lies, mut admitted) = (0, 0);
    for (_, stream) in connection.core.mux.base.streams.iter_mut() {
        let of_stream = stream.port.rx.refresh();
        admitted += stream.window.parts().advance + u64::from(stream.lingering);
        if !stream.discarded {
            lies += of_stream;
            continue;
        }
        assert!(
            of_stream <= stream.window.target() + u64::from(stream.lingering),
            "{of_stream} bytes of an ended stream lie here: {stream:?}"
        );
    }
    let granted = connection.core.mux.flow.window.target();
    assert!(
        lies <= 2 * granted + admitted,
        "{lies} bytes lie here, {granted} were granted and {admitted} admitted"
    );
}
