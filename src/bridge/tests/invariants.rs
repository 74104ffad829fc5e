//! Invariants after every step of the two ends.

use std::collections::{HashMap, HashSet};

use super::{A, D, End, Pair};
use crate::bridge::Engine;
use crate::bridge::SEND_FLOOR;
use crate::wire::native::frame::{Frame, HEADER_LEN, Header, Scope, StreamId, data_cost, preface};

/// Bytes on their way from one side to the other, already built and not yet processed.
#[derive(Debug, Default)]
struct InFlight {
    session_cost: u64,
    session_credit: u64,
    streams: u64,
    opens: u64,
    answered: HashSet<u32>,
    cost: HashMap<u32, u64>,
    credit: HashMap<u32, u64>,
}

impl InFlight {
    fn of(end: &End) -> Self {
        let mut sum = Self::default();
        let mut bytes = &end.unprocessed[..];
        if bytes.starts_with(b"RINGMUX") {
            bytes = &bytes[preface::PREFACE_LEN..];
        }
        while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head);
            let len = HEADER_LEN + header.length as usize;
            let frame = Frame::parse(header, &bytes[HEADER_LEN..len]).expect("what we built");
            sum.add(&frame);
            bytes = &bytes[len..];
        }
        sum
    }

    fn add(&mut self, frame: &Frame<'_>) {
        match *frame {
            Frame::Data {
                stream,
                payload,
                end,
                ..
            } => {
                let cost = data_cost(payload.len() as u32, end);
                self.session_cost += cost;
                *self.cost.entry(stream.get()).or_default() += cost;
            }
            Frame::Open { block, .. } => {
                self.opens += 1;
                self.session_cost += crate::wire::native::frame::cost(block.len() as u32);
            }
            Frame::Call { payload, .. } => {
                self.opens += 1;
                self.session_cost += crate::wire::native::frame::cost(payload.len() as u32 + 2);
            }
            Frame::Reply { stream, answer } => {
                let twice = !self.answered.insert(stream.get());
                assert!(!twice, "call {stream} is answered once");
                self.session_cost += crate::wire::native::frame::cost(answer.len() as u32);
            }
            Frame::Meta { block, .. } => {
                self.session_cost += crate::wire::native::frame::cost(block.len() as u32);
            }
            Frame::Window { scope, credit } => {
                let credit = u64::from(credit.get());
                match scope {
                    Scope::Session => self.session_credit += credit,
                    Scope::Streams => self.streams += credit,
                    Scope::Stream(id) => *self.credit.entry(id.get()).or_default() += credit,
                }
            }
            _ => {}
        }
    }
}

/// Panics with the name of the invariant that does not hold.
#[track_caller]
pub(super) fn check(pair: &mut Pair) {
    check_but_pools(pair);
    for end in &mut pair.ends {
        assert_eq!(end.pool.used(), taken(end), "the pool knows who took");
    }
}

/// The bytes that one side has taken from its pool, by its own accounts.
pub(super) fn taken<W>(end: &mut End<W>) -> u64 {
    let connection = &mut end.connection;
    let advances = connection.core.mux.base.streams.iter_mut();
    let advances =
        advances.map(|(_, stream)| stream.window.parts().advance + u64::from(stream.lingering));
    let advances: u64 = advances.sum();
    let [window, messages] = connection.core.mux.flow.pool.taken();
    assert_eq!(messages, advances, "a session knows what it took");
    // Of a session that has ended: the bytes that its handles still hold.
    let kept = match connection.core.life.is_closed() {
        true => connection.link.stats().bytes_held,
        false => 0,
    };
    window + messages + kept
}

/// Where several sessions share a pool.
#[track_caller]
pub(super) fn check_but_pools(pair: &mut Pair) {
    for end in &mut pair.ends {
        books_of_one_side_balance(end);
    }
    if !pair
        .ends
        .iter()
        .all(|end| end.connection.core.life.is_established())
    {
        return;
    }
    let flights = [InFlight::of(&pair.ends[D]), InFlight::of(&pair.ends[A])];
    for (from, to) in [(D, A), (A, D)] {
        let [sender, receiver] = pair
            .ends
            .get_disjoint_mut([from, to])
            .expect("two different sides");
        credit_is_conserved(sender, receiver, &flights[from], &flights[to]);
    }
}

/// One side: the bytes that the session holds are those that its streams hold, and these are queued in the rings.
#[track_caller]
pub(super) fn books_of_one_side_balance<W>(end: &mut End<W>) {
    let connection = &mut end.connection;
    if !connection.core.life.is_closed() {
        queued_bytes_are_bounded(connection);
    }
    if !connection.core.life.is_established() {
        return;
    }
    let (mut held, mut peers) = (0, 0);
    for (_, stream) in connection.core.mux.base.streams.iter_mut() {
        let parts = stream.window.parts();
        held += parts.held - (parts.advance - parts.unused) + u64::from(stream.open_charge);
        if !stream.discarded {
            let unaccounted = stream.port.lane().consumed() - stream.consumed;
            let in_ring = stream.port.rx().refresh();
            assert_eq!(
                parts.held - unaccounted,
                in_ring,
                "held and queued bytes of a stream: {stream:?}"
            );
        }
        peers += u64::from(stream.of_peer());
    }
    held += connection.core.mux.flow.parts();
    let calls = connection.core.mux.base.calls.books();
    held += calls.charged;
    peers += calls.of_peer;
    assert_eq!(
        connection.core.mux.flow.window.held(),
        held,
        "the session holds what its streams hold"
    );
    let parts = connection.core.mux.flow.window.parts();
    assert!(
        parts.outstanding + parts.held <= parts.target,
        "a session is never owed more than its window: {parts:?}"
    );
    let granted = u64::from(connection.core.mux.permits.peer_streams)
        + u64::from(connection.core.mux.permits.grant_owed);
    assert_eq!(
        granted + peers + connection.core.mux.permits.refusals.len() as u64,
        u64::from(connection.core.mux.base.config.max_streams()),
        "every stream granted is unused, alive, refused or owed again"
    );
}

/// No part of the budget for sending is lost or lent twice, and the bytes that streams have queued are within their loans,
/// their floors and one message each.
#[track_caller]
pub(super) fn queued_bytes_are_bounded<W>(connection: &mut Engine<W>) {
    let budget = u64::from(connection.core.mux.base.config.session_send_buffer());
    let send_buffer = u64::from(connection.core.mux.base.config.send_buffer());
    // A lane that a handle has just opened or dropped is not or no more a stream, and may have a loan.
    let settled = !connection.link.has_work();
    let books = outbound_books(connection);
    let sum = books.iter().sum::<u64>();
    assert!(sum == budget || (!settled && sum < budget), "{books:?}");
    let mut beyond = 0;
    for (_, stream) in connection.core.mux.base.streams.iter_mut() {
        let queued = stream.port.tx.queued_weights();
        let longest = queued.iter().max().copied().unwrap_or_default();
        let queued = queued.iter().sum::<u64>() - longest;
        let limit = u64::from(stream.port.lane().send_limit());
        assert!(limit <= send_buffer, "{limit}: {stream:?}");
        assert!(
            queued <= limit + stream.loan.owed(),
            "{queued} bytes and a message are queued: {stream:?}"
        );
        beyond += queued.saturating_sub(u64::from(SEND_FLOOR));
    }
    assert!(
        beyond <= budget,
        "{beyond} bytes are queued beyond the floors"
    );
}

/// The parts of the budget for sending: lent to streams, free, and returned but not lent again.
pub(super) fn outbound_books<W>(connection: &mut Engine<W>) -> [u64; 3] {
    let mux = &mut connection.core.mux;
    let [lent, spare] = mux.budget.books(&mut mux.base.streams);
    [lent, connection.link.send_budget.left(), spare]
}

/// The send credit of one side, with the bytes under way, is the outstanding credit of the other.
#[track_caller]
fn credit_is_conserved(sender: &mut End, receiver: &mut End, out: &InFlight, back: &InFlight) {
    let (from, to) = (&mut sender.connection, &mut receiver.connection);
    assert_eq!(
        from.core.mux.credit.left() + out.session_cost + back.session_credit,
        to.core.mux.flow.window.outstanding(),
        "session credit"
    );
    if !from.link.has_work() && from.link.refusal().is_none() {
        let base = &mut from.core.mux.base;
        let unsent = base.streams.count_granted() + base.calls.books().queued;
        assert_eq!(
            u64::from(from.link.opens.granted()) + unsent + out.opens + back.streams,
            u64::from(to.core.mux.permits.peer_streams),
            "stream grants"
        );
    }
    let ids: Vec<StreamId> = from
        .core
        .mux
        .base
        .streams
        .iter_mut()
        .filter_map(|(_, stream)| StreamId::new(stream.id))
        .collect();
    for id in ids {
        let (Some(a), Some(b)) = (
            from.core.mux.base.streams.find(id.get()),
            to.core.mux.base.streams.find(id.get()),
        ) else {
            continue;
        };
        let (Some(a), Some(b)) = (
            from.core.mux.base.streams.get_mut(a),
            to.core.mux.base.streams.get_mut(b),
        ) else {
            panic!("an id that is found has a stream");
        };
        let under_way = out.cost.get(&id.get()).copied().unwrap_or_default();
        let returning = back.credit.get(&id.get()).copied().unwrap_or_default();
        assert_eq!(
            a.credit.left() + under_way + returning,
            b.window.outstanding(),
            "credit of stream {id}"
        );
    }
}

/// No stream is left, and all resources are returned.
#[track_caller]
pub(super) fn at_rest<W>(end: &mut End<W>) {
    let connection = &mut end.connection;
    let left = connection.core.mux.base.streams.iter_mut().next();
    assert!(left.is_none(), "no stream is left: {left:?}");
    let calls = &connection.core.mux.base.calls;
    assert!(calls.is_empty(), "no call is left: {calls:?}");
    let parts = connection.core.mux.flow.window.parts();
    assert_eq!(parts.held, 0, "nothing is held: {parts:?}");
    assert_eq!((parts.advance, parts.unused), (0, 0));
    assert!(
        parts.outstanding * 2 > parts.target,
        "the peer has most of the window: {parts:?}"
    );
    let queues = crate::core::mux::queue_lengths(&connection.core.mux);
    assert!(queues.iter().all(|len| *len <= 16), "queues: {queues:?}");
}
