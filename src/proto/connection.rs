//! One session: its parts, and its deadlines.

use std::collections::VecDeque;
use std::sync::Arc as StdArc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::deadlines::Deadlines;
use super::idle::Spares;
use super::keepalive::Keepalive;
use super::life::Life;
use super::limits::Limits;
use super::orphan::Progress;
use super::outbound::Outbound;
use super::pool::Share;
use super::recv_size::RecvSize;
use super::registry::{Key, Registry};
use super::schedule::Schedule;
use super::stream::{Stamps, Stream, wake};
use super::timers::{Timer, Timers};
use super::window::{RecvWindow, SendCredit, report_mark};
use crate::config::Config;
use crate::error::SessionError;
use crate::frame::{Role, Settings, StreamId, preface};
use crate::link::{Info, LinkSizes, Pool, SessionLink};
use crate::sync::Arc;

/// What a driver is to do with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Go on.
    Open,
    /// Everything was said: flush, shut the socket down, close it.
    Closed,
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
    pub(super) life: Life,
    pub(super) timers: Timers,
    pub(super) deadlines: Deadlines,
    /// The peer's preface was parsed.
    pub(super) greeted: bool,
    pub(super) stamps: Stamps,
    /// When the last turn began.
    pub(super) turn: Instant,
    /// What came and was sent, in short frames, see [`work_done`](Self::work_done).
    pub(super) work: u64,
    /// No `Session` is left to accept or open: what was seen at the last look.
    pub(super) orphaned: Option<Progress>,
    pub(super) keepalive: Keepalive,
    pub(super) limits: Limits,

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
    pub(super) starved: VecDeque<Key>,
    /// Streams whose ring has grown, and since when; see `idle`.
    pub(super) grown: VecDeque<(Instant, Key)>,
    pub(super) spares: Spares,
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

fn link_sizes(config: &Config) -> LinkSizes {
    LinkSizes {
        max_unaccepted: config
            .max_unaccepted()
            .map_or(config.max_streams(), |max| max.min(config.max_streams())),
        open_credit: Settings::FLOORS.streams,
        peer_max_message: Settings::FLOORS.max_message,
        send_buffer: config.send_buffer(),
        session_send_buffer: config.session_send_buffer(),
        max_pending_opens: config.max_pending_opens(),
        credit_mark: report_mark(u64::from(config.stream_window())),
    }
}

/// Preface and SETTINGS.
fn hello(role: Role, config: &Config, session_window: u32) -> BytesMut {
    let ours = Settings {
        max_frame: config.max_frame(),
        max_message: config.max_message(),
        stream_window: config.stream_window(),
        session_window,
        streams: config.max_streams(),
        role: Some(role),
    };
    let mut hello = BytesMut::with_capacity(64);
    hello.extend_from_slice(&preface::encode(preface::VERSION));
    ours.put(&mut hello);
    hello
}

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
        let link = SessionLink::new(link_sizes(config), info, process_pool);
        let mut timers = Timers::new(now);
        timers.set(Timer::Handshake, now + config.handshake_timeout());
        let keepalive = Keepalive::new(config, info_seed, now, &mut timers);
        let connection = Self {
            role,
            config: config.clone(),
            link: Arc::clone(&link),
            life: Life::new(role, config.close_linger()),
            timers,
            deadlines: Deadlines::default(),
            greeted: false,
            stamps: Stamps::new(now),
            turn: now,
            work: 0,
            orphaned: None,
            keepalive,
            limits: Limits::new(config, &link, now),
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
            starved: VecDeque::new(),
            grown: VecDeque::new(),
            spares: Spares::default(),
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
            hello: hello(role, config, session_window),
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
        if self.life.is_closed() {
            Status::Closed
        } else {
            Status::Open
        }
    }

    /// Bytes that a receive buffer should hold, at least two of the largest frames.
    pub(crate) const fn recv_capacity(&self) -> usize {
        self.recv_size.get()
    }

    /// Until when the socket is closed, after the end; see [`SocketStage`](super::SocketStage).
    pub(crate) fn linger_until(&self, now: Instant) -> Instant {
        self.life.linger_until(now)
    }

    // ---- time -------------------------------------------------------------------------------

    /// When [`on_deadline`](Self::on_deadline) is to be called at the latest.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next(self.life.timers())
    }

    /// Acts on the deadlines that have passed.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        self.turn = now;
        for timer in Timer::ALL {
            // The one before may have moved the session on.
            if self.life.timers().contains(timer)
                && let Some(at) = self.timers.take_expired(timer, now)
            {
                self.on_timer(timer, at, now);
            }
        }
    }

    /// It was set for `at`.
    fn on_timer(&mut self, timer: Timer, at: Instant, now: Instant) {
        match timer {
            Timer::Handshake
            | Timer::HelloGrace
            | Timer::Ceiling
            | Timer::Pong
            | Timer::FinalGoaway
            | Timer::Age => self.on_life_timer(timer, now),
            Timer::Recheck => self.recheck_memory(now),
            Timer::Advances => self.check_advances(now),
            Timer::Keepalive => self.check_keepalive(at, now),
            Timer::Shrink => self.shrink_idle(now),
            Timer::Spares => self.give_spares_back(now),
            Timer::Orphan => self.check_orphaned(now),
            Timer::Deadlines => self.check_stream_deadlines(now),
        }
    }

    /// Looks again soon at streams that wait for memory or hold it.
    pub(super) fn recheck_soon(&mut self, now: Instant) {
        self.timers.set_by(Timer::Recheck, now + RECHECK);
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

    /// The socket is closed: the last step of the session's end.
    pub(crate) fn released(&self) {
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
        self.abort(SessionError::EngineStopped);
        self.link.finish();
    }
}
