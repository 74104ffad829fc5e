//! The wire of DRPC, in the variants of [`Profile`]: frames of packets of streams, without a handshake.
//!
//! `frame` has headers; `ids` and `line` the numbers of streams and of their packets, `setup` streams that the peer is about to open, `failure`
//! the forms of errors and `errors` those that are not complete, `flow` the optional credit. `receive` acts on frames, `transmit` fills a batch; this file has their
//! state. How a stream's opening block, error and end are written is in [`crate::drpc`].
//!
//! # Rules of reading
//! Liberal: every id is a stream of its own, whatever the profile, so frames of several may be interleaved; a packet may be cut
//! anywhere, also into frames longer than the receive buffer. A fault of one stream (numbers of packets out of order, a change
//! of kind inside a packet, a second Invoke, an unknown kind without the control bit, a message above the limit) ends that
//! stream, with a Cancel or an Error to the peer, and no other. The connection ends where the bytes cannot be understood:
//! [`DrpcError`].
//!
//! # Rules of sending
//! Strict: nothing of a stream before its complete Invoke, metadata in front of it, the least form of numbers, one frame
//! for packets other than messages, frames of at most 64 KiB, ids in order. A stream that is cancelled before its Invoke
//! has left sends nothing.
//!
//! # Memory
//! Without credit, the bytes that applications have not consumed are bounded by not reading the connection while they are as
//! many as `session_window`: one stream that is not read stops all. With credit, which bounds each stream, `session_window_max`
//! holds instead, so that a stream that is not read leaves the others alone. A peer cannot be made to keep to credit: one
//! that does not is stopped there. All beyond 256 KiB is taken from the pool as it is needed, if it has as much. Messages that are not complete do not stop the
//! reading, as nothing but the rest of them helps: beyond the window they take memory from the pool, or their streams end.
//! Openings and errors that are not complete are held in the same window, and take at most [`PARTS_MAX`] of it: beyond that an
//! opening is refused, and an error cut off.

#[cfg(any(test, fuzzing))]
mod check;
mod errors;
mod failure;
mod flow;
mod frame;
mod ids;
mod line;
mod receive;
mod setup;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::{Batch, Role, Wire};
use crate::config::Config;
use crate::core::port::SessionPort;
use crate::core::stream::owed;
use crate::core::timers::Timer;
use crate::core::{Core, Floors, Mux, Terms};
use crate::drpc::{Calls, CancelForm, DrpcError, ErrorForm, FlowControl, MAX_OPENING, Profile};
use crate::error::{ProtocolError, SessionError};
use errors::Errors;
use frame::HEADER_MAX;
use ids::Ids;
use line::{Line, core_id};
use receive::{Arriving, PIECE_MIN};
use setup::Setups;

#[cfg(any(test, fuzzing))]
pub(crate) use check::check_sent;

/// The first bytes of a dialling side for a server of several protocols, and those of storj's Noise.
const CONNECTION_HEADER: [u8; 8] = *b"DRPC!!!1";
const NOISE_HEADER: [u8; 8] = *b"DRPC!N!1";
/// The longest details of an error, in bytes.
const MAX_DETAILS: u32 = 8 * 1024;
/// Bytes of openings and errors that are not complete: half of what a session always has, so that they cannot stop the reading.
const PARTS_MAX: usize = 128 * 1024;
const _: () = assert!(2 * PARTS_MAX <= Drpc::TERMS.floors.session_window as usize);
/// Streams kept beyond twice the number of the core's.
const LINES_SLACK: usize = 16;

/// A stream that was invoked and is refused, until its Error is sent.
#[derive(Clone, Copy, Debug)]
struct TurnedAway {
    id: u64,
    code: u32,
}

/// One side of a DRPC connection.
#[derive(Debug)]
pub(crate) struct Drpc {
    role: Role,
    profile: Profile,
    /// The connection header is still to be sent, or awaited.
    header_due: bool,
    /// The frame whose data is arriving.
    arriving: Option<Arriving>,
    /// Streams by the core's numbers. Some may have gone, see `prune`.
    lines: BTreeMap<u32, Line>,
    setups: Setups,
    errors: Errors,
    turned_away: VecDeque<TurnedAway>,
    /// The ids of this side's streams, or of the peer's.
    ids: Ids,
    /// Calls of this side that may run at once, and those that run.
    most_calls: u32,
    calls: u32,
    /// The peer has sent a WindowUpdate, or is known to do so.
    peer_returns: bool,
    /// The smallest WindowUpdate, in bytes.
    step: u64,
    /// As of the last batch, this side does not shut down.
    takes_calls: bool,
}

impl Drpc {
    /// Takes the connection header, if there is one; false until that is known.
    fn take_header(&mut self, buf: &mut BytesMut) -> Result<bool, DrpcError> {
        let len = buf.len().min(CONNECTION_HEADER.len());
        let front = &buf[..len];
        if front == &NOISE_HEADER[..len] && len == NOISE_HEADER.len() {
            return Err(DrpcError::NoisePrefix);
        }
        let may_be = front == &CONNECTION_HEADER[..len] || front == &NOISE_HEADER[..len];
        if may_be && len < CONNECTION_HEADER.len() {
            return Ok(false);
        }
        if may_be {
            buf.advance(len);
        }
        self.header_due = false;
        Ok(true)
    }

    /// Whether a stream that was invoked is to be cancelled.
    fn owes_cancel<S: SessionPort>(&self, mux: &mut Mux<S>) -> bool {
        let streams = &mut mux.base.streams;
        !mux.base.owing.is_empty()
            && self.lines.keys().any(|id| {
                let stream = streams.find_mut(*id);
                stream.is_some_and(|(_, stream)| stream.owes & owed::CANCEL != 0)
            })
    }

    /// Whether this side may open another call.
    const fn may_call(&self) -> bool {
        matches!(self.role, Role::Dialer) && self.calls < self.most_calls
    }

    /// Calls of this side that are over make room for others, if there was none. Whether there is some now.
    fn settle_calls<S: SessionPort>(&mut self, mux: &mut Mux<S>) -> bool {
        if self.calls == 0 || self.calls < self.most_calls {
            return false;
        }
        let streams = &mut mux.base.streams;
        let mut over = 0;
        for (id, line) in &mut self.lines {
            if !line.counted {
                continue;
            }
            let key = streams.find(*id);
            let stream = key.and_then(|key| streams.get_mut(key));
            if stream.is_none_or(|stream| stream.state.is_over() && stream.owes == 0) {
                line.counted = false;
                over += 1;
            }
        }
        self.calls -= over;
        mux.permits.on_granted(&mut mux.base, over);
        over > 0
    }

    /// Forgets streams that the core has forgotten, once they are many.
    fn prune<S: SessionPort>(&mut self, mux: &mut Mux<S>) {
        let streams = &mut mux.base.streams;
        if self.lines.len() <= 2 * streams.len() + LINES_SLACK {
            return;
        }
        let mut over = 0;
        self.lines.retain(|id, line| {
            let keep = streams.find(*id).is_some();
            over += u32::from(!keep && line.counted);
            keep
        });
        self.calls -= over;
        mux.permits.on_granted(&mut mux.base, over);
    }

    /// How errors are written, see [`failure::encode`].
    const fn error_form(&self) -> (ErrorForm, bool) {
        (self.profile.errors, self.takes_calls)
    }

    /// Room for openings and errors that are not complete.
    const fn parts_room(&self) -> usize {
        PARTS_MAX.saturating_sub(self.setups.bytes() + self.errors.bytes())
    }

    /// Counts them among the bytes that the session holds.
    fn count_parts<S: SessionPort>(&mut self, mux: &mut Mux<S>) {
        let streams = &mut mux.base.streams;
        self.errors.retain(|id| {
            let stream = streams.find_mut(id);
            stream.is_some_and(|(_, stream)| !stream.state.is_over())
        });
        let bytes = self.setups.bytes() + self.errors.bytes();
        mux.flow.hold_parts(&mux.base, bytes as u64);
    }

    /// The line of a stream of this id on the wire.
    fn line(&mut self, id: u64) -> Option<&mut Line> {
        let line = self.lines.get_mut(&core_id(id))?;
        (line.id == id).then_some(line)
    }
}

/// With flow control the peer bounds each stream itself.
fn hold_more<S: SessionPort>(core: &mut Core<S>) {
    let max = core.mux.base.config.session_window_max();
    core.mux.flow.raise_limit(max);
}

impl Wire for Drpc {
    const TERMS: Terms = Terms {
        credit: false,
        ping: false,
        goaway: false,
        both_open: false,
        max_call: 0,
        floors: Floors {
            max_message: 0,
            stream_window: 0,
            session_window: 256 * 1024,
            streams: 1,
        },
        max_opening: MAX_OPENING as u32,
        max_block: 0,
        max_details: MAX_DETAILS,
    };

    fn new(role: Role, config: &Config, _session_window: u32) -> Self {
        let profile = config.drpc();
        Self {
            role,
            profile,
            header_due: profile.header || role == Role::Acceptor,
            arriving: None,
            lines: BTreeMap::new(),
            setups: Setups::default(),
            errors: Errors::default(),
            turned_away: VecDeque::new(),
            ids: Ids::new(),
            most_calls: match profile.calls {
                Calls::OneAtATime => 1,
                Calls::Many => config.max_streams(),
            },
            calls: 0,
            peer_returns: profile.flow_control == FlowControl::Required,
            step: u64::from((config.stream_window() / 2).min(profile.window / 4)).max(1),
            takes_calls: true,
        }
    }

    fn is_silent(_role: Role) -> bool {
        false
    }

    fn least_reception(_config: &Config) -> usize {
        2 * (HEADER_MAX + PIECE_MIN)
    }

    /// There is no handshake. The peer's limit of a message is not known: this side's is taken for both.
    fn begin<S: SessionPort>(&mut self, core: &mut Core<S>) {
        let max_message = core.mux.base.config.max_message();
        let more = match self.role {
            Role::Dialer => self.most_calls - Self::TERMS.floors.streams,
            Role::Acceptor => 0,
        };
        if matches!(
            self.profile.flow_control,
            FlowControl::On | FlowControl::Required
        ) {
            hold_more(core);
        }
        core.established(max_message, more);
        if let Some(limit) = self
            .profile
            .first_call
            .filter(|_| self.role == Role::Acceptor)
        {
            let base = &mut core.mux.base;
            base.timers.set(Timer::FirstCall, base.turn + limit);
        }
    }

    fn receive<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        backing: usize,
        now: Instant,
    ) -> Result<bool, SessionError> {
        let received = self.take_frames(core, buf, backing, now);
        received.map_err(|error| SessionError::Protocol(ProtocolError::Drpc(error)))
    }

    fn is_silent_now(&self) -> bool {
        self.calls == 0 || self.calls < self.most_calls
    }

    /// Closing the connection needs no room in the socket.
    #[inline]
    fn requests_taken<S: SessionPort>(&mut self, core: &mut Core<S>) {
        core.mux.flow.give_rest_back();
        let hard = self.role == Role::Dialer && self.profile.cancel == CancelForm::Hard;
        if hard && self.owes_cancel(&mut core.mux) {
            core.abort(SessionError::Closed);
        }
    }

    fn transmit<S: SessionPort>(&mut self, core: &mut Core<S>, batch: &mut Batch, now: Instant) {
        self.fill(core, batch, now);
        core.mux.flow.give_rest_back();
    }
}
