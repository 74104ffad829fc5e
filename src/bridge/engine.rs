//! A session as a driver uses it: the core, a wire, and the link to the handles.

use std::sync::Arc as StdArc;
use std::time::Instant;

use bytes::BytesMut;

use super::info::Info;
use super::pool::Pool;
use super::port::LinkPort;
use super::session::{LinkSizes, SessionLink};
use crate::config::Config;
use crate::core::keepalive::PeerSystem;
use crate::core::port::{Count, SessionPort};
use crate::core::timers::Timer;
use crate::core::{Core, RecvSize, Status, report_mark};
use crate::error::SessionError;
use crate::sync::Arc;
use crate::wire::{BATCH_BYTES, Batch, Role, SHARED_BATCH_BYTES, Wire};

/// The interface of a session to its driver. It is called as follows, on one thread at a time:
///
/// ```text
///   loop {
///       take_work(now)           requests of handles since the last turn
///       receive(&mut buf, now)   bytes from the socket, parsed in place
///       on_deadline(now)         if next_deadline() has passed
///       transmit(&mut batch)     all frames that may be sent now; one write for all of them
///       deliver_wakes()          after the write and the read were submitted
///   } until status() says Closed
/// ```
pub(crate) trait Protocol {
    /// PINGs detect a lost peer. Else the driver looks for it, see [`see_peer_system`](Self::see_peer_system).
    const HAS_PING: bool;

    /// Handles the requests made since the last call.
    fn take_work(&mut self, now: Instant);

    /// The capacity of a receive buffer, in bytes.
    fn recv_capacity(&self) -> usize;
    /// Whether to receive at all: a peer without credit is held back by not reading from it.
    fn wants_bytes(&mut self) -> bool;
    /// The socket delivered this many bytes at once.
    fn count_received(&mut self, bytes: usize, now: Instant);
    /// Parses whole frames at the front of `buf`. The rest is the beginning of a frame or, if this
    /// returns true, may contain more frames: call again after the woken tasks have had
    /// their turn.
    fn receive(&mut self, buf: &mut BytesMut, now: Instant) -> bool;
    /// To be called when the receive buffer holds no whole frame: true if it is to be replaced by one of
    /// [`recv_capacity`](Self::recv_capacity), which has become smaller.
    fn shrinks_recv(&mut self, now: Instant) -> bool;
    /// The frames of both directions so far, counted as short frames.
    fn work_done(&self) -> u64;
    /// The peer closed the connection.
    fn eof(&mut self);
    /// The socket failed.
    fn io_failed(&mut self, error: std::io::Error);

    /// Fills an empty batch with the frames that may be sent now; false if there are none.
    fn transmit(&mut self, batch: &mut Batch, now: Instant) -> bool;
    /// The socket took this many bytes of the batch; `rest`: some are left of it.
    fn written(&mut self, bytes: usize, rest: bool, now: Instant);

    /// When [`on_deadline`](Self::on_deadline) is to be called at the latest.
    fn next_deadline(&mut self) -> Option<Instant>;
    /// Whether [`see_socket`](Self::see_socket) is to be called before [`on_deadline`](Self::on_deadline).
    fn looks_at_socket(&self, now: Instant) -> bool;
    /// The number of bytes that the socket still holds, if the driver can read it.
    fn see_socket(&mut self, queued: Option<u64>, now: Instant);
    /// What the peer's system does; to be called behind [`see_socket`](Self::see_socket), unless the session has PINGs.
    fn see_peer_system(&mut self, system: PeerSystem, now: Instant);
    /// The peer has closed the connection, behind bytes that are not read; nothing is sent any more.
    fn peer_has_closed(&mut self, now: Instant);
    /// Acts on the deadlines that have passed.
    fn on_deadline(&mut self, now: Instant);

    /// Streams and calls with tasks that [`deliver_wakes`](Self::deliver_wakes) wakes.
    fn waking(&self) -> usize;
    /// Wakes the tasks noted since the last call.
    fn deliver_wakes(&mut self);
    /// The action of the driver on the socket.
    fn status(&self) -> Status;
    /// The time limit for closing the socket after the end; see [`SocketStage`](crate::core::SocketStage).
    fn linger_until(&self, now: Instant) -> Instant;
    /// The socket is closed: the last step of the session's end.
    fn released(&self);
    /// The link to the session's handles.
    fn link(&self) -> &Arc<SessionLink>;
}

/// The sooner of two deadlines.
#[inline]
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine<W> {
    pub(crate) core: Core<LinkPort>,
    pub(crate) wire: W,
    pub(crate) link: Arc<SessionLink>,
    recv_size: RecvSize,
}

/// The most streams that may be unaccepted unless the settings say more: their queues have this room from the start.
const UNACCEPTED_MAX: u32 = 1 << 16;

fn link_sizes(role: Role, config: &Config, wire: &crate::core::Terms) -> LinkSizes {
    let may_open = wire.both_open || role == Role::Dialer;
    LinkSizes {
        max_unaccepted: config
            .max_unaccepted()
            .unwrap_or(UNACCEPTED_MAX)
            .min(config.max_streams()),
        may_open,
        open_credit: if may_open { wire.floors.streams } else { 0 },
        peer_max_message: wire.floors.max_message,
        send_buffer: config.send_buffer(),
        session_send_buffer: config.session_send_buffer(),
        max_pending_opens: config.max_pending_opens(),
        credit_mark: report_mark(u64::from(config.reported_window())),
        max_opening: wire.max_opening as usize,
        max_block: wire.max_block as usize,
        max_details: wire.max_details as usize,
        has_ping: wire.ping,
        max_call: if config.calls() {
            wire.max_call as usize
        } else {
            0
        },
    }
}

impl<W: Wire> Engine<W> {
    /// A session and the link for its first handle.
    pub(crate) fn new(
        role: Role,
        config: &Config,
        info: Info,
        pool: StdArc<Pool>,
        now: Instant,
    ) -> (Self, Arc<SessionLink>) {
        let start = (W::is_silent(role), info.seed);
        let link = SessionLink::new(
            link_sizes(role, config, &W::TERMS),
            info,
            StdArc::clone(&pool),
        );
        let port = LinkPort::new(Arc::clone(&link));
        let (core, window) = Core::new(port, pool, config, W::TERMS, start, now);
        let (least, most) = (W::least_reception(config), config.receive_buffer() as usize);
        let mut engine = Self {
            core,
            wire: W::new(role, config, window),
            link: Arc::clone(&link),
            recv_size: RecvSize::new(least, most, now),
        };
        engine.wire.begin(&mut engine.core);
        (engine, link)
    }

    fn fill(&mut self, batch: &mut Batch, usual: bool, now: Instant) -> bool {
        let alone = self.core.mux.schedule.has_one_alone();
        batch.limit(if alone {
            BATCH_BYTES
        } else {
            SHARED_BATCH_BYTES
        });
        if usual {
            self.core.probe_before_use(now);
            self.wire.transmit_messages(&mut self.core, batch, now);
            self.core.mux.budget.serve_waiting(&mut self.core.mux.base);
        } else {
            self.wire.transmit(&mut self.core, batch, now);
        }
        if batch.is_empty() {
            return false;
        }
        self.core.end_batch(batch.len(), now);
        true
    }
}

impl<W: Wire> Protocol for Engine<W> {
    const HAS_PING: bool = W::TERMS.ping;

    fn take_work(&mut self, now: Instant) {
        self.take_all(now);
        self.wire.requests_taken(&mut self.core);
    }

    fn recv_capacity(&self) -> usize {
        self.recv_size.get()
    }

    #[inline]
    fn wants_bytes(&mut self) -> bool {
        let Core { mux, keepalive, .. } = &mut self.core;
        let now = mux.base.turn;
        if W::TERMS.credit || !mux.is_full(now) {
            return true;
        }
        keepalive.pause(now, &mut mux.base.timers);
        false
    }

    #[inline]
    fn count_received(&mut self, bytes: usize, now: Instant) {
        self.core
            .mux
            .base
            .app
            .add(Count::BytesReceived, bytes as u64);
        self.recv_size.arrived(bytes, now);
    }

    #[inline]
    fn receive(&mut self, buf: &mut BytesMut, now: Instant) -> bool {
        if !self.core.begin_reception(now) {
            buf.clear();
            return false;
        }
        let backing = self.recv_size.get();
        match self.wire.receive(&mut self.core, buf, backing, now) {
            Ok(more) => {
                self.core.end_reception(!more && !buf.is_empty(), now);
                more
            }
            Err(error) => {
                buf.clear();
                self.core.end(error);
                false
            }
        }
    }

    #[inline]
    fn shrinks_recv(&mut self, now: Instant) -> bool {
        self.recv_size.shrink(now)
    }

    #[inline]
    fn work_done(&self) -> u64 {
        self.core.mux.base.work
    }

    fn eof(&mut self) {
        self.core.eof();
    }

    fn io_failed(&mut self, error: std::io::Error) {
        self.core.io_failed(error);
    }

    #[inline]
    fn transmit(&mut self, batch: &mut Batch, now: Instant) -> bool {
        debug_assert!(batch.is_empty());
        if self.core.has_more_than_messages() || !self.wire.is_silent_now() {
            self.core.life.may_send() && self.fill(batch, false, now)
        } else {
            self.core.mux.wants_to_send() && self.fill(batch, true, now)
        }
    }

    #[inline]
    fn written(&mut self, bytes: usize, rest: bool, now: Instant) {
        self.core.keepalive.written(bytes, rest, now);
    }

    #[inline]
    fn next_deadline(&mut self) -> Option<Instant> {
        let of_core = (self.core.mux.base.timers).next(self.core.life.timers());
        sooner(self.wire.deadline(), of_core)
    }

    fn looks_at_socket(&self, now: Instant) -> bool {
        let at = self.core.mux.base.timers.get(Timer::Keepalive);
        self.core.life.is_established() && at.is_some_and(|at| at <= now)
    }

    fn see_socket(&mut self, queued: Option<u64>, now: Instant) {
        let config = &self.core.mux.base.config;
        self.core.keepalive.see_socket(queued, config, now);
    }

    fn see_peer_system(&mut self, system: PeerSystem, now: Instant) {
        self.core.keepalive.see_peer_system(system, now);
    }

    fn peer_has_closed(&mut self, now: Instant) {
        let Core { mux, keepalive, .. } = &mut self.core;
        keepalive.peer_has_closed(now, &mut mux.base.timers);
    }

    fn on_deadline(&mut self, now: Instant) {
        self.core.on_deadline(now);
        if self.wire.deadline().is_some_and(|at| at <= now) {
            self.wire.on_deadline(&mut self.core, now);
        }
    }

    #[inline]
    fn waking(&self) -> usize {
        self.core.mux.base.waking()
    }

    #[inline]
    fn deliver_wakes(&mut self) {
        self.core.mux.base.deliver_wakes();
    }

    #[inline]
    fn status(&self) -> Status {
        if self.core.life.is_closed() {
            Status::Closed
        } else {
            Status::Open
        }
    }

    fn linger_until(&self, now: Instant) -> Instant {
        self.core.life.linger_until(now)
    }

    fn released(&self) {
        self.link.finish();
    }

    #[inline]
    fn link(&self) -> &Arc<SessionLink> {
        &self.link
    }
}

impl<W> Drop for Engine<W> {
    /// When a driver is dropped or panics, its session's handles get an error.
    fn drop(&mut self) {
        self.core.abort(SessionError::EngineStopped);
        self.link.finish();
    }
}
