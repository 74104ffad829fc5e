//! One session: its parts, and its life from handshake to end.

use std::collections::VecDeque;
use std::sync::Arc as StdArc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::alive::Alive;
use super::idle::Spares;
use super::leave::Leave;
use super::limits::Limits;
use super::outbound::Outbound;
use super::pool::Share;
use super::recv_size::RecvSize;
use super::registry::{Key, Registry};
use super::schedule::Schedule;
use super::stream::{Opening, Stamps, Stream, wake};
use super::unheld::Unheld;
use super::window::{RecvWindow, SendCredit, report_mark};
use crate::config::Config;
use crate::error::{ProtocolError, SessionError, StreamError};
use crate::frame::{Role, Settings, StreamId, codes, preface};
use crate::link::{Activated, Info, LinkSizes, Pool, SessionLink};
use crate::sync::Arc;

/// How far a session is.
#[derive(Debug)]
pub(super) enum Phase {
    /// The peer's preface or SETTINGS has not come.
    Hello { preface: bool },
    /// Messages flow.
    Open,
    /// `shutdown` was called: streams go on to their end, see `leave`.
    Leaving,
    /// `close` was called: what was queued is sent, until the deadline.
    Draining { until: Instant },
    /// Only a GOAWAY is still to be sent; given up after the deadline.
    Ending { until: Instant },
    /// Nothing more happens; every handle knows why.
    Dead,
}

/// What a driver is to do with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Go on.
    Open,
    /// Everything was said: flush, shut the socket down, close it.
    Closed,
}

/// The GOAWAY that ends the session.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) code: u32,
    pub(super) text: String,
}

/// PING in both directions; one of ours is under way, unless the answer takes so long that another one is said.
#[derive(Debug, Default)]
pub(super) struct Ping {
    pub(super) wanted: bool,
    /// Also while one is under way.
    pub(super) again: bool,
    /// The latest.
    pub(super) in_flight: Option<([u8; 8], Instant)>,
    pub(super) sent: u64,
    /// The number of the latest that was answered. Of several the peer may answer the last alone.
    pub(super) answered: u64,
    /// The latest PING of the peer that was not answered yet.
    pub(super) pong_owed: Option<[u8; 8]>,
    pub(super) rtt: Option<Duration>,
}

/// One session's protocol state. See the module for how to drive it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) role: Role,
    pub(super) config: Config,
    pub(super) link: Arc<SessionLink>,
    pub(super) phase: Phase,
    pub(super) end: Option<SessionError>,
    pub(super) farewell: Option<Farewell>,
    handshake_deadline: Instant,
    pub(super) stamps: Stamps,
    /// When the last turn began.
    pub(super) turn: Instant,
    /// What came and was sent, in short frames, see [`work_done`](Self::work_done).
    pub(super) work: u64,
    /// No `Session` is left: nobody can accept.
    pub(super) unheld: Option<Unheld>,
    pub(super) alive: Alive,
    pub(super) limits: Limits,
    /// A shutdown that was asked for.
    pub(super) leave: Option<Leave>,
    /// When the socket must be closed, once it is known that the session ends.
    pub(super) closed_by: Option<Instant>,

    pub(super) registry: Registry,
    pub(super) schedule: Schedule,
    pub(super) outbound: Outbound,

    pub(super) recv_size: RecvSize,
    pub(super) pool: Share,
    pub(super) window: RecvWindow,
    /// Bytes by which the windows of live streams were raised, see `transmit`.
    pub(super) widened: u64,
    pub(super) window_owed: bool,
    pub(super) last_return: Instant,
    pub(super) hungry: bool,
    /// When to look again at streams that wait for memory or hold it.
    pub(super) recheck: Option<Instant>,
    pub(super) starved: VecDeque<Key>,
    /// Streams whose ring has grown, and since when; see `idle`.
    pub(super) grown: VecDeque<(Instant, Key)>,
    pub(super) spares: Spares,
    /// When to look at messages that were given memory and may have stopped coming.
    pub(super) advance_check: Option<Instant>,
    pub(super) stalled_since: Option<Instant>,
    pub(super) credit: SendCredit,
    /// What the peer has given in all.
    pub(super) credit_given: u64,
    pub(super) peer: Settings,

    pub(super) next_id: StreamId,
    pub(super) last_peer_id: Option<StreamId>,
    /// Opened by handles, not yet permitted by the peer.
    pub(super) waiting: VecDeque<Key>,
    /// Permitted, OPEN not yet encoded.
    pub(super) opens: VecDeque<Key>,
    /// Streams that the peer may still open.
    pub(super) peer_streams: u32,
    /// Streams to grant to the peer again.
    pub(super) grant_owed: u32,
    /// Streams of the peer that nobody took.
    pub(super) refusals: VecDeque<StreamId>,
    /// The peer takes no new streams.
    pub(super) peer_refusal: Option<SessionError>,
    /// The peer has said GOAWAY with its last id.
    pub(super) peer_farewell: Option<SessionError>,

    /// Preface and SETTINGS, until sent.
    pub(super) hello: BytesMut,
    pub(super) ping: Ping,
    /// Streams that owe a control frame.
    pub(super) owing: VecDeque<Key>,
    /// Streams whose sender asks whether everything was written.
    pub(super) unwritten: Vec<Key>,

    pub(super) wakes: Vec<Key>,
    pub(super) wake_accept: bool,
    pub(super) wake_state: bool,
    pub(super) wake_pings: bool,
    /// Requests of handles that were taken and not yet acted on.
    pub(super) asked: u32,
}

/// How soon streams that wait for memory, or hold it, are looked at again.
const RECHECK: Duration = Duration::from_millis(5);

impl Connection {
    /// A session and the link for its first handle.
    pub(crate) fn new(
        role: Role,
        config: &Config,
        info: Info,
        pool: StdArc<Pool>,
        now: Instant,
    ) -> (Self, Arc<SessionLink>) {
        let process_pool = pool;
        let mut pool = Share::new(StdArc::clone(&process_pool), config.receive_pool());
        let info_seed = info.seed;
        let (wanted, floor) = (config.session_window(), Settings::FLOORS.session_window);
        let session_window = match pool.take_to_begin((wanted - floor).into()) {
            true => wanted,
            false => floor,
        };
        let ours = Settings {
            max_frame: config.max_frame(),
            max_message: config.max_message(),
            stream_window: config.stream_window(),
            session_window,
            streams: config.max_streams(),
            role: Some(role),
        };
        let sizes = LinkSizes {
            max_unaccepted: config
                .max_unaccepted()
                .map_or(config.max_streams(), |max| max.min(config.max_streams())),
            open_credit: Settings::FLOORS.streams,
            peer_max_message: Settings::FLOORS.max_message,
            send_buffer: config.send_buffer(),
            session_send_buffer: config.session_send_buffer(),
            max_pending_opens: config.max_pending_opens(),
            credit_mark: report_mark(u64::from(config.stream_window())),
        };
        let link = SessionLink::new(sizes, info, process_pool);
        let mut hello = BytesMut::with_capacity(64);
        hello.extend_from_slice(&preface::encode(preface::VERSION));
        ours.put(&mut hello);
        let connection = Self {
            role,
            config: config.clone(),
            link: Arc::clone(&link),
            phase: Phase::Hello { preface: false },
            end: None,
            farewell: None,
            stamps: Stamps::new(now),
            turn: now,
            work: 0,
            handshake_deadline: now + config.handshake_timeout(),
            unheld: None,
            alive: Alive::new(config, info_seed, now),
            limits: Limits::new(config, &link, now),
            leave: None,
            closed_by: None,
            registry: Registry::default(),
            schedule: Schedule::default(),
            outbound: Outbound::default(),
            recv_size: RecvSize::new(config, now),
            pool,
            window: RecvWindow::new(session_window),
            widened: 0,
            window_owed: false,
            last_return: now,
            hungry: false,
            recheck: None,
            starved: VecDeque::new(),
            grown: VecDeque::new(),
            spares: Spares::default(),
            advance_check: None,
            stalled_since: None,
            credit: SendCredit::new(Settings::FLOORS.session_window),
            credit_given: Settings::FLOORS.session_window.into(),
            peer: Settings::FLOORS,
            next_id: StreamId::first(role),
            last_peer_id: None,
            waiting: VecDeque::new(),
            opens: VecDeque::new(),
            peer_streams: config.max_streams(),
            grant_owed: 0,
            refusals: VecDeque::new(),
            peer_refusal: None,
            peer_farewell: None,
            hello,
            ping: Ping::default(),
            owing: VecDeque::new(),
            unwritten: Vec::new(),
            wakes: Vec::new(),
            wake_accept: false,
            wake_state: false,
            wake_pings: false,
            asked: 0,
        };
        (connection, link)
    }

    /// What the driver is to do with the socket.
    pub(crate) const fn status(&self) -> Status {
        if matches!(self.phase, Phase::Dead) {
            Status::Closed
        } else {
            Status::Open
        }
    }

    /// Bytes that a receive buffer should hold, at least two of the largest frames.
    pub(crate) const fn recv_capacity(&self) -> usize {
        self.recv_size.get()
    }

    /// The peer has sent its SETTINGS and nothing has ended yet.
    pub(super) const fn is_established(&self) -> bool {
        matches!(
            self.phase,
            Phase::Open | Phase::Leaving | Phase::Draining { .. }
        )
    }

    /// The accepting side is silent until it has seen the dialler's preface.
    pub(super) const fn may_send(&self) -> bool {
        !matches!(
            (&self.phase, self.role),
            (Phase::Hello { preface: false }, Role::Acceptor) | (Phase::Dead, _)
        )
    }

    // ---- the end ----------------------------------------------------------------------------

    /// `close` was called, or nobody is left to use the session.
    pub(super) fn drain(&mut self, now: Instant) {
        match self.phase {
            Phase::Open | Phase::Leaving => {
                self.link.refuse_opens(SessionError::Closed);
                self.wake_state = true;
                let until = now + self.config.close_linger();
                let ceiling = self.leave_deadline().unwrap_or(until);
                self.end_by(until);
                self.phase = Phase::Draining {
                    until: until.min(ceiling),
                };
            }
            Phase::Hello { .. } => self.finish_closed(),
            Phase::Draining { .. } | Phase::Ending { .. } | Phase::Dead => {}
        }
    }

    /// Draining is over when nothing is queued any more, also nothing that waits for credit.
    pub(super) fn end_drain_if_idle(&mut self) {
        if !matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        let queues_are_empty =
            self.schedule.is_empty() && self.opens.is_empty() && self.owing.is_empty();
        if queues_are_empty && !self.registry.iter_mut().any(|(_, s)| s.has_queued()) {
            self.finish_closed();
        }
    }

    fn finish_closed(&mut self) {
        let code = match self.leave {
            Some(_) => codes::SHUTDOWN,
            None => codes::NO_ERROR,
        };
        self.finish_with(SessionError::Closed, code, "");
    }

    /// The peer broke a rule.
    #[cold]
    pub(super) fn violate(&mut self, error: ProtocolError) {
        let text = format!("{}: {error}", error.rule());
        self.finish_with(SessionError::Protocol(error), codes::PROTOCOL, &text);
    }

    pub(super) fn finish_with(&mut self, error: SessionError, code: u32, text: &str) {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Dead) {
            return;
        }
        self.end_by(self.turn + self.config.close_linger());
        if self.may_send() {
            self.farewell = Some(Farewell {
                code,
                text: text.to_owned(),
            });
            self.end = Some(error);
            self.phase = Phase::Ending {
                until: self.last_word_until(self.turn),
            };
        } else {
            self.terminate(error);
        }
    }

    /// The peer closed the connection.
    pub(crate) fn eof(&mut self) {
        let live = self.has_live_streams();
        let error = match (&self.end, &self.peer_farewell, &self.phase) {
            (Some(error), ..) | (None, Some(error), _) => error.clone(),
            (None, None, Phase::Draining { .. }) => SessionError::Closed,
            (None, None, Phase::Leaving) if !live => SessionError::Closed,
            (None, None, _) => SessionError::Disconnected,
        };
        self.terminate(error);
    }

    /// The socket failed.
    pub(crate) fn io_failed(&mut self, error: std::io::Error) {
        let error = match (self.end.take(), self.peer_farewell.take()) {
            (Some(error), _) | (None, Some(error)) => error,
            (None, None) => SessionError::Io(StdArc::new(error)),
        };
        self.terminate(error);
    }

    /// Ends everything at once; every handle learns the reason. Idempotent.
    pub(crate) fn terminate(&mut self, error: SessionError) {
        if matches!(self.phase, Phase::Dead) {
            return;
        }
        self.phase = Phase::Dead;
        self.report_leave();
        let activated = self.link.close(error.clone());
        self.link.counters.bytes_held.set(0);
        for (_, stream) in self.registry.iter_mut() {
            let error = match stream.opening {
                Opening::Done => StreamError::Session(error.clone()),
                Opening::Waiting | Opening::Granted => StreamError::NotProcessed(error.clone()),
            };
            // Before the end is set: a receiver that sees the end gives the charge back.
            let lies = stream.put_in_order();
            stream.lane().charge(lies);
            stream.end_both(&error);
            stream.forget_queued();
        }
        for lane in activated {
            if let (Activated::New(side), _) = lane.activated() {
                side.refuse(&StreamError::NotProcessed(error.clone()));
            }
        }
        self.registry = Registry::default();
        self.outbound = Outbound::default();
        self.unwritten = Vec::new();
        self.link.counters.streams.set(0);
        self.pool.end();
        self.link.drop_spares();
        self.link.drop_unaccepted_if_unheld();
        self.link.wake_all();
    }

    // ---- time -------------------------------------------------------------------------------

    /// When [`on_deadline`](Self::on_deadline) is to be called at the latest.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.only_watches_the_peer() {
            return sooner(self.alive_deadline(), self.spares.look_at());
        }
        self.next_of_all_deadlines()
    }

    fn next_of_all_deadlines(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Hello { .. } => Some(self.handshake_deadline),
            Phase::Draining { until } | Phase::Ending { until } => Some(until),
            Phase::Open => self.alive.age_at,
            Phase::Leaving => None,
            Phase::Dead => return None,
        };
        [
            phase,
            self.recheck,
            self.advance_check,
            self.alive_deadline(),
            self.leave_deadline(),
            self.shrink_deadline(),
            self.unheld_deadline(),
            self.spares.look_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The usual case: of all deadlines only those of `alive` and `idle::Spares` may be set.
    fn only_watches_the_peer(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && self.alive.age_at.is_none()
            && self.recheck.is_none()
            && self.advance_check.is_none()
            && self.leave.is_none()
            && self.grown.is_empty()
            && self.unheld.is_none()
    }

    /// Acts on the deadlines that have passed.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        match self.phase {
            Phase::Hello { .. } if now >= self.handshake_deadline => {
                let error = SessionError::HandshakeTimeout(self.config.handshake_timeout());
                self.terminate(error);
                return;
            }
            Phase::Draining { until } if now >= until => {
                self.turn = now;
                self.finish_closed();
                return;
            }
            Phase::Ending { until } if now >= until => {
                let error = self.end.clone().unwrap_or(SessionError::Closed);
                self.terminate(error);
                return;
            }
            Phase::Open if self.alive.age_at.is_some_and(|at| now >= at) => {
                self.leave(self.config.drain_timeout(), now);
            }
            Phase::Dead => return,
            _ => {}
        }
        if !self.check_leave(now) {
            return;
        }
        if self.recheck.is_some_and(|at| now >= at) {
            self.recheck = None;
            self.recheck_memory(now);
        }
        if self.advance_check.is_some_and(|at| now >= at) {
            self.check_advances(now);
        }
        self.check_alive(now);
        self.shrink_idle(now);
        self.spares.give_back_if_idle(&self.link, now);
        self.check_unheld(now);
    }

    /// Looks again soon at streams that wait for memory or hold it.
    pub(super) fn recheck_soon(&mut self, now: Instant) {
        self.recheck.get_or_insert(now + RECHECK);
    }

    // ---- wakes ------------------------------------------------------------------------------

    /// Remembers to wake a stream's task after the next I/O was submitted.
    pub(super) fn notify(wakes: &mut Vec<Key>, key: Key, stream: &mut Stream, bits: u8) {
        if stream.wakes == 0 {
            wakes.push(key);
        }
        stream.wakes |= bits;
    }

    /// Wakes the tasks for which something has happened.
    #[inline]
    pub(crate) fn deliver_wakes(&mut self) {
        if !self.wakes.is_empty() {
            self.wake_streams();
        }
        if self.wake_accept | self.wake_state | self.wake_pings {
            self.wake_waiters();
        }
    }

    fn wake_streams(&mut self) {
        for key in self.wakes.drain(..) {
            let Some(stream) = self.registry.get_mut(key) else {
                continue;
            };
            let bits = std::mem::take(&mut stream.wakes);
            if bits & wake::SENDER != 0 {
                stream.tx.wake_sender();
            }
            if bits & wake::RECEIVER != 0 {
                stream.rx.wake_receiver();
            }
        }
    }

    fn wake_waiters(&mut self) {
        if std::mem::take(&mut self.wake_accept) {
            self.link.accept_waiters.wake_all();
        }
        if std::mem::take(&mut self.wake_state) {
            self.link.state_waiters.wake_all();
        }
        if std::mem::take(&mut self.wake_pings) {
            self.link.ping_waiters.wake_all();
        }
    }

    /// The socket is closed.
    pub(crate) fn finish(&self) {
        self.link.finish();
    }

    /// How long the queues of keys are, for tests: none may grow with the streams that have gone.
    #[cfg(test)]
    pub(super) fn queue_lengths(&self) -> [usize; 6] {
        [
            self.schedule.len(),
            self.opens.len(),
            self.waiting.len(),
            self.owing.len(),
            self.starved.len(),
            self.wakes.len(),
        ]
    }

    /// The link to the session's handles.
    pub(crate) const fn link(&self) -> &Arc<SessionLink> {
        &self.link
    }
}

/// The sooner of two deadlines.
#[inline]
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Drop for Connection {
    /// A driver that is dropped, or panics, takes no handle with it into silence.
    fn drop(&mut self) {
        let error = self.end.take().unwrap_or(SessionError::EngineStopped);
        self.terminate(error);
        self.link.finish();
    }
}
