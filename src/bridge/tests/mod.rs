//! Whole-protocol tests: two connections with their real handles, joined by a virtual network and a
//! virtual clock. No socket, no thread, no sleep.
//!
//! ```text
//!   Session ─ link ─ Connection ═ Pipe ═► Connection ─ link ─ Session      `Pair`
//!   Session ─ link ─ Connection ◄═ frames written out by the test           `Solo`
//! ```
//! * `net`: one direction of the network, and the seeded generator.
//! * `invariants`: checked after every step of the two ends.
//! * `sim`: seeded runs of many sessions between several processes, and the promises they must keep.
//! * `solo`: one connection against frames that an honest peer would not send.
//! * the others: scripted cases, one file a topic.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{Engine, Pool, Protocol, Status, sooner};
use crate::bridge::Info;
use crate::config::Config;
use crate::handle::Session;
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::{Batch, Native, Role, Wire};

mod calls;
mod deadlines;
mod drain;
mod ending;
mod handles;
mod idle;
mod invariants;
mod keepalive;
mod kept;
mod limits;
mod memory;
pub(crate) mod net;
mod opening;
mod orphan;
mod outbound;
mod serving;
mod sim;
mod solo;
mod turns;
mod unanswered;
mod unread;
mod wakes;
mod written;

use net::{Cut, Pipe, Read, Rng, Weather};

/// The next deadline, without a change.
fn deadline<W: Wire>(connection: &Engine<W>) -> Option<Instant> {
    let core = &connection.core;
    let of_core = core.mux.base.timers.find_next(core.life.timers());
    sooner(connection.wire.deadline(), of_core)
}

/// Counts its wakes.
#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future polled by hand.
struct Polled<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    bell: Arc<Bell>,
}

impl<'a, T> Polled<'a, T> {
    fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self {
            future: Box::pin(future),
            bell: Arc::default(),
        }
    }

    fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(Arc::clone(&self.bell));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Its value, if it has one now.
    fn now(mut self) -> Option<T> {
        match self.poll() {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn wakes(&self) -> usize {
        self.bell.0.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn pending(&mut self) {
        assert!(self.poll().is_pending(), "the future must wait");
    }

    /// The value of a future that was woken, or never polled.
    #[track_caller]
    fn ready(mut self) -> T {
        match self.poll() {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the future must be ready"),
        }
    }
}

/// The value of a future that must not wait.
#[track_caller]
fn now<T>(future: impl Future<Output = T>) -> T {
    Polled::new(future).ready()
}

/// One side: a connection, its first handle, and the state of a driver.
struct End<W = Native> {
    connection: Engine<W>,
    session: Option<Session>,
    pool: Arc<Pool>,
    batch: Batch,
    writing: bool,
    recv: BytesMut,
    /// `recv` may hold whole frames.
    unparsed: bool,
    /// Its driver has not found yet that it can make no progress.
    awake: bool,
    /// The socket has reported its end.
    read_all: bool,
    /// The time limit for writing the final GOAWAY.
    linger: Option<Instant>,
    /// The final GOAWAY was written, or given up; the socket is shut down.
    closed: bool,
    /// Bytes built by this side and not yet processed by the peer's connection, from a frame's beginning; over a wire without
    /// credit all bytes.
    unprocessed: BytesMut,
    /// When it was made, or last received bytes.
    heard: Instant,
    /// Handles act just after the engine has read the requests.
    looked: bool,
    /// Since when it holds the peer back.
    full: Option<Instant>,
    /// The peer has closed the connection, behind bytes that are not read.
    unheard: bool,
}

impl<W: Wire> End<W> {
    fn new(role: Role, config: &Config, pool: &Arc<Pool>, now: Instant) -> Self {
        let info = Info::of_a_test(role);
        let (connection, link) = Engine::new(role, config, info, Arc::clone(pool), now);
        Self {
            connection,
            session: Some(Session::new(link)),
            pool: Arc::clone(pool),
            batch: Batch::new(),
            writing: false,
            recv: BytesMut::new(),
            unparsed: false,
            awake: true,
            read_all: false,
            linger: None,
            closed: false,
            unprocessed: BytesMut::new(),
            heard: now,
            looked: false,
            full: None,
            unheard: false,
        }
    }

    #[track_caller]
    fn session(&self) -> &Session {
        self.session.as_ref().expect("the handle was not dropped")
    }

    /// The state of a side that makes no progress.
    fn dump(&self) -> String {
        let c = &self.connection;
        format!(
            "{:?} end {:?}, window {:?}, owed {}, hungry {}, credit {:?}, queues {:?}, writing {}, deadline {:?}, open credit {}, peer streams {}+{}",
            c.core.life,
            c.link.end(),
            c.core.mux.flow.window,
            c.core.mux.flow.owed,
            c.core.mux.flow.hungry,
            c.core.mux.credit,
            crate::core::mux::queue_lengths(&c.core.mux),
            self.writing,
            deadline(c),
            c.link.opens.granted(),
            c.core.mux.permits.peer_streams,
            c.core.mux.permits.grant_owed,
        )
    }

    /// The last batch is written, or was not taken for too long.
    fn may_leave(&mut self, now: Instant) -> bool {
        let until = self.connection.linger_until(now);
        let until = *self.linger.get_or_insert(until);
        !self.writing || now >= until
    }

    /// Whether it reads at all.
    fn wants_bytes(&mut self, now: Instant) -> bool {
        let full = !self.connection.wants_bytes();
        self.full = full.then(|| self.full.unwrap_or(now));
        !full
    }

    /// Bytes that its applications could consume and have not, and those of openings and errors that are not complete.
    fn unread(&mut self) -> u64 {
        let mux = &mut self.connection.core.mux;
        let streams = mux.base.streams.iter_mut().map(|(_, stream)| stream);
        let unread = streams
            .filter(|stream| !stream.discarded)
            .map(|stream| {
                let unfinished = stream.assembly.as_ref().filter(|_| !stream.chunks);
                let unfinished = unfinished.map_or(0, |assembly| assembly.cost);
                let queued = stream.port.rx().refresh();
                queued.saturating_sub(unfinished) + u64::from(stream.open_charge)
            })
            .sum::<u64>();
        unread + mux.flow.parts()
    }

    /// For this long it has read nothing, as its applications have not consumed what a session of this wire may hold at least.
    /// Only then may the peer take the connection for a stuck one.
    fn holds_back_for(&mut self, time: Duration, now: Instant) -> bool {
        let full = self.full.is_some_and(|since| now - since >= time);
        full && self.unread() >= W::TERMS.floors.session_window.into()
    }

    fn fail(&mut self, error: std::io::ErrorKind) {
        self.connection.io_failed(error.into());
        self.batch.clear();
        self.writing = false;
    }

    fn build(&mut self, now: Instant) {
        self.writing = self.connection.transmit(&mut self.batch, now);
        if self.writing {
            assert!(!self.batch.is_empty(), "a batch that is sent has bytes");
            for slice in self.batch.remaining() {
                self.unprocessed.extend_from_slice(slice);
            }
        }
    }

    /// Writes as much as the socket takes; true if any byte was moved.
    fn write(&mut self, out: &mut Pipe, now: Instant) -> bool {
        if self.unheard {
            return false;
        }
        if !self.writing {
            self.build(now);
        }
        if !self.writing {
            return false;
        }
        let first = self.batch.remaining()[0].to_vec();
        match out.write(&first, now) {
            Ok(None) => return false,
            Ok(Some(n)) => {
                if self.batch.advance(n) {
                    self.batch.clear();
                    self.writing = false;
                }
                self.connection.written(n, self.writing, now);
            }
            Err(()) => self.fail(std::io::ErrorKind::BrokenPipe),
        }
        true
    }
}

/// Two ends and the network between them.
struct Pair<W = Native> {
    now: Instant,
    ends: [End<W>; 2],
    /// `pipes[i]` carries what `ends[i]` writes.
    pipes: [Pipe; 2],
}

/// Index of the dialling side.
const D: usize = 0;
/// Index of the accepting side.
const A: usize = 1;

impl Pair {
    /// Large pools, no faults.
    fn new(dialer: &Config, acceptor: &Config) -> Self {
        let pools = [Pool::new(1 << 30), Pool::new(1 << 30)];
        Self::with(dialer, acceptor, &pools, &Weather::FAIR, 0)
    }

    fn with(
        dialer: &Config,
        acceptor: &Config,
        pools: &[Arc<Pool>; 2],
        weather: &Weather,
        seed: u64,
    ) -> Self {
        Self::at(Instant::now(), dialer, acceptor, pools, weather, seed)
    }

    /// The handshake is complete and no frame is under way.
    fn established(dialer: &Config, acceptor: &Config) -> Self {
        let mut pair = Self::new(dialer, acceptor);
        pair.drive();
        assert!(now(pair.ends[D].session().established()).is_ok());
        assert!(now(pair.ends[A].session().established()).is_ok());
        pair
    }
}

impl<W: Wire> Pair<W> {
    fn at(
        now: Instant,
        dialer: &Config,
        acceptor: &Config,
        pools: &[Arc<Pool>; 2],
        weather: &Weather,
        seed: u64,
    ) -> Self {
        Self {
            now,
            ends: [
                End::new(Role::Dialer, dialer, &pools[D], now),
                End::new(Role::Acceptor, acceptor, &pools[A], now),
            ],
            pipes: [
                Pipe::new(weather.clone(), Rng::of(seed, 11), now),
                Pipe::new(weather.clone(), Rng::of(seed, 12), now),
            ],
        }
    }

    /// Reads at most once; true if anything arrived.
    fn read(&mut self, side: usize) -> bool {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[1 - side]);
        if end.unparsed {
            self.parse(side);
            return true;
        }
        if end.read_all || !end.wants_bytes(self.now) {
            return false;
        }
        let room = end
            .connection
            .recv_capacity()
            .saturating_sub(end.recv.len());
        match pipe.read(&mut end.recv, room, self.now) {
            Read::Nothing => return false,
            Read::Bytes(n) => {
                end.heard = self.now;
                end.connection.count_received(n, self.now);
                self.parse(side);
            }
            Read::End(cut) => {
                end.read_all = true;
                match cut {
                    Cut::Eof => end.connection.eof(),
                    Cut::Error => end
                        .connection
                        .io_failed(std::io::ErrorKind::ConnectionReset.into()),
                }
            }
        }
        true
    }

    fn parse(&mut self, side: usize) {
        let end = &mut self.ends[side];
        let before = end.recv.len();
        end.unparsed = end.connection.receive(&mut end.recv, self.now);
        let taken = before - end.recv.len();
        if !W::TERMS.credit {
            return;
        }
        let peer = &mut self.ends[1 - side].unprocessed;
        let _ = peer.split_to(taken.min(peer.len()));
    }

    /// One step of a driver; true if it made progress.
    fn turn(&mut self, side: usize) -> bool {
        let moved = !self.ends[side].closed && self.turn_once(side);
        self.ends[side].awake = moved;
        moved
    }

    fn turn_once(&mut self, side: usize) -> bool {
        let now = self.now;
        if !self.ends[side].looked {
            self.ends[side].connection.take_work(now);
        }
        let mut moved = self.read(side);
        let connection = &mut self.ends[side].connection;
        if connection.next_deadline().is_some_and(|at| at <= now) {
            if connection.looks_at_socket(now) {
                self.look(side);
            }
            self.ends[side].connection.on_deadline(now);
            moved = true;
        }
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[side]);
        moved |= end.write(pipe, now);
        end.connection.deliver_wakes();
        if end.connection.status() == Status::Closed && end.may_leave(now) {
            end.closed = true;
            pipe.shut(Cut::Eof, now);
            self.pipes[1 - side].sink();
            end.connection.released();
            moved = true;
        }
        moved
    }

    /// Reports what the system knows of the connection, as a driver does; not whether the peer's system answers (`unanswered`). The
    /// end of the connection is behind bytes that are not read for now.
    fn look(&mut self, side: usize) {
        let now = self.now;
        let (end, out, into) = (
            &mut self.ends[side],
            &self.pipes[side],
            &self.pipes[1 - side],
        );
        end.connection.see_socket(out.queued(now), now);
        let open = end.connection.status() == Status::Open && !end.unparsed;
        if W::TERMS.ping || !open || end.wants_bytes(now) {
            return;
        }
        match into.ended(now) {
            Some(Cut::Error) => end.fail(std::io::ErrorKind::ConnectionReset),
            // A peer that has shut down only its own direction may still read.
            Some(Cut::Eof) if out.has_no_reader() && !into.has_bytes() => {
                end.read_all = true;
                end.connection.eof();
            }
            Some(Cut::Eof) if out.has_no_reader() => {
                end.connection.peer_has_closed(now);
                end.unheard = true;
                end.batch.clear();
                end.writing = false;
            }
            _ => {}
        }
    }

    /// A side's process dies: its driver is dropped, and its sockets with it.
    fn crash(&mut self, side: usize, how: Cut) {
        let end = &mut self.ends[side];
        if end.closed {
            return;
        }
        // As `Engine` does when it is dropped.
        end.connection
            .core
            .abort(crate::SessionError::EngineStopped);
        end.connection.released();
        end.closed = true;
        self.pipes[side].shut(how, self.now);
        self.pipes[1 - side].sink();
    }

    /// A side's driver is polled: turns until it makes no progress.
    fn run(&mut self, side: usize) {
        let mut turns = 0;
        while self.turn(side) {
            turns += 1;
            let end = &self.ends[side];
            assert!(turns < 100_000, "{side} turns for ever: {}", end.dump());
        }
    }

    /// Whether a side's driver would be woken.
    fn has_cause(&self, side: usize) -> bool {
        let end = &self.ends[side];
        !end.closed
            && (end.awake
                || end.connection.link().has_work()
                || (!end.read_all
                    && end.full.is_none()
                    && self.pipes[1 - side].is_readable(self.now))
                || (end.writing && self.pipes[side].has_room())
                || (deadline(&end.connection).or(end.linger)).is_some_and(|at| at <= self.now))
    }

    /// The time of the next event.
    fn next_event(&self) -> Option<Instant> {
        let of = |side: usize| {
            let end = &self.ends[side];
            let due = deadline(&end.connection).or(end.linger);
            let arrival = self.pipes[1 - side].next_arrival();
            let arrival = arrival.filter(|_| !end.read_all && end.full.is_none());
            let live = !end.closed;
            [due.filter(|_| live), arrival.filter(|_| live)]
        };
        of(D).into_iter().chain(of(A)).flatten().min()
    }
}

impl Pair {
    /// Both drivers, until neither makes progress without time passing.
    fn drive(&mut self) {
        self.drive_looking(invariants::check);
    }

    /// Where other sessions use the pools as well.
    fn drive_unchecked(&mut self) {
        self.drive_looking(invariants::check_but_pools);
    }

    fn drive_looking(&mut self, look: fn(&mut Self)) {
        loop {
            let moved = [D, A].map(|side| {
                let mut moved = false;
                while self.turn(side) {
                    moved = true;
                }
                moved
            });
            look(self);
            if moved == [false, false] {
                return;
            }
        }
    }

    /// Lets time pass, with all events of that time.
    fn elapse(&mut self, time: Duration) {
        let until = self.now + time;
        self.drive();
        while let Some(at) = self.next_event().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.drive();
        }
        self.now = until;
        self.drive();
    }

    /// A stream opened by `side`, both ends of it.
    fn stream(&mut self, side: usize) -> (Stream, Stream) {
        let opened = now(self.ends[side].session().open("")).expect("a stream can be opened");
        self.drive();
        let accepted = now(self.ends[1 - side].session().accept())
            .unwrap()
            .expect("the peer has it");
        (opened, accepted)
    }

    /// No stream is left, and all credit is returned.
    #[track_caller]
    fn is_clean(&mut self) {
        self.drive();
        for end in &mut self.ends {
            invariants::at_rest(end);
        }
    }
}

fn config() -> crate::ConfigBuilder {
    Config::builder()
}

fn small_config() -> Config {
    config()
        .stream_window(32 * 1024)
        .stream_window_max(32 * 1024)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .max_streams(16)
        .build()
        .expect("valid")
}

/// A message that is not all zeros.
fn message(len: usize) -> Bytes {
    ringmux_testing::message(len).into()
}
