//! One connection and its driver's part, without a socket.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::bridge::{Engine, Info, Pool, Protocol, SessionLink, Status};
use crate::config::{Config, ConfigBuilder};
use crate::error::{SessionError, StreamError};
use crate::handle::Session;
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::native::frame::{MAX_CALL_LEN, cost};
use crate::wire::{Batch, Native, Role, Wire};

const POOL_BYTES: u64 = 2 << 20;

/// Bytes that a connection without credit receives at once.
const PIECE: usize = 8 * 1024;

pub(super) struct Side<W = Native> {
    pub(super) connection: Engine<W>,
    /// The application's first handle, until it drops it.
    pub(super) session: Option<Session>,
    /// For inspecting the session after the application has dropped it.
    link: Arc<SessionLink>,
    pool: Arc<Pool>,
    batch: Batch,
    recv: BytesMut,
    /// Bytes in the socket, which a full connection does not read.
    unread: BytesMut,
    /// The most bytes that the session may hold.
    window_max: u64,
    pub(super) now: Instant,
}

/// Small limits and short timeouts, so that an input of a few bytes reaches them.
pub(super) fn config(patience: Duration) -> Config {
    settings(patience).build().expect("valid")
}

pub(super) fn settings(patience: Duration) -> ConfigBuilder {
    Config::builder()
        .stream_window(32 * 1024)
        .stream_window_max(64 * 1024)
        .session_window(256 * 1024)
        .session_window_max(512 * 1024)
        .max_message(64 * 1024)
        .max_streams(16)
        .send_buffer(64 * 1024)
        .max_pending_opens(16)
        .handshake_timeout(patience)
        .message_timeout(patience)
        .keepalive_idle(Some(patience))
        .keepalive_timeout(patience)
        .write_timeout(patience)
}

/// The output of a future if it is ready now.
pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// What a side took of the pool.
#[must_use]
pub(super) struct Memory(Arc<Pool>);

impl Memory {
    /// No handle is left.
    pub(super) fn is_back(&self) {
        assert_eq!(self.0.used(), 0, "everything is given back");
    }
}

impl<W: Wire> Side<W> {
    pub(super) fn new(role: Role, config: &Config, now: Instant) -> Self {
        let info = Info::of_a_test(role);
        let pool = Pool::new(POOL_BYTES);
        let (connection, link) = Engine::<W>::new(role, config, info, Arc::clone(&pool), now);
        Self {
            connection,
            session: Some(Session::new(Arc::clone(&link))),
            link,
            pool,
            batch: Batch::new(),
            recv: BytesMut::new(),
            unread: BytesMut::new(),
            window_max: u64::from(config.session_window_max()) + beyond::<W>(),
            now,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.connection.status(), Status::Closed)
    }

    /// Why the session has ended.
    pub(super) fn end(&self) -> Option<SessionError> {
        self.link.end().cloned()
    }

    /// Bytes from the socket.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.read();
    }

    /// Receives the bytes in the socket.
    fn read(&mut self) {
        while !self.unread.is_empty() && self.connection.wants_bytes() {
            let all = self.unread.len();
            let take = if W::TERMS.credit { all } else { all.min(PIECE) };
            let piece = self.unread.split_to(take);
            self.recv.extend_from_slice(&piece);
            self.connection.count_received(take, self.now);
            while self.connection.receive(&mut self.recv, self.now) {
                self.connection.deliver_wakes();
            }
            self.connection.deliver_wakes();
        }
        let most = self.connection.recv_capacity();
        assert!(
            self.recv.len() <= most,
            "no frame is waited for that is longer than was allowed"
        );
        self.is_bounded();
    }

    /// Appends the bytes of one write; false if there are none.
    pub(super) fn say(&mut self, out: &mut Vec<u8>) -> bool {
        self.connection.take_work(self.now);
        self.read();
        let any = self.connection.transmit(&mut self.batch, self.now);
        if any {
            for slice in self.batch.remaining() {
                out.extend_from_slice(slice);
            }
            let n = self.batch.len();
            self.batch.clear();
            self.connection.written(n, false, self.now);
        }
        self.connection.deliver_wakes();
        self.is_bounded();
        any
    }

    /// Lets time pass and timers expire, without the peer.
    pub(super) fn elapse(&mut self, time: Duration, out: &mut Vec<u8>) {
        let until = self.now + time;
        while let Some(at) = self.connection.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.connection.on_deadline(self.now);
            while self.say(out) {}
        }
        self.now = until;
    }

    /// Disconnects the peer; checks that every handle gets an error. Its memory is [released](Memory::is_back) once calls have ended too.
    pub(super) fn finish(mut self, streams: impl IntoIterator<Item = Stream>) -> Memory {
        self.connection.eof();
        assert!(self.is_closed());
        self.connection.released();
        for mut stream in streams {
            ends(&mut stream);
        }
        if let Some(session) = &self.session {
            assert!(
                now(session.closed()).is_some(),
                "a session that is over says so"
            );
            while let Some(Ok(Some(mut stream))) = now(session.accept()) {
                ends(&mut stream);
            }
        }
        Memory(self.pool)
    }

    /// The session holds what its streams and calls hold, and every stream that it has granted is unused, alive, refused or
    /// owed again.
    pub(super) fn accounts_balance(&mut self) {
        let core = &mut self.connection.core;
        if !core.life.is_established() {
            return;
        }
        let mux = &mut core.mux;
        let calls = mux.base.calls.books();
        let (mut held, mut of_peer) = (calls.charged, calls.of_peer);
        for (_, stream) in mux.base.streams.iter_mut() {
            held += stream.window.uncovered() + u64::from(stream.open_charge);
            of_peer += u64::from(stream.of_peer());
        }
        assert_eq!(mux.flow.window.held(), held, "bytes held");
        let permits = &mux.permits;
        let granted = u64::from(permits.peer_streams) + u64::from(permits.grant_owed);
        assert_eq!(
            granted + of_peer + permits.refusals.len() as u64,
            u64::from(mux.base.config.max_streams()),
            "streams granted"
        );
    }

    /// Nothing is under way between these two: what each may send is what the other can take.
    pub(super) fn agrees_with(&mut self, peer: &mut Self) {
        let (core, of_peer) = (&mut self.connection.core, &mut peer.connection.core);
        let established = core.life.is_established() && of_peer.life.is_established();
        if !W::TERMS.credit || !established || self.link.refusal().is_some() {
            return;
        }
        let outstanding = of_peer.mux.flow.window.outstanding();
        assert_eq!(core.mux.credit.left(), outstanding, "session credit");
        let unsent = core.mux.base.streams.count_granted() + core.mux.base.calls.books().queued;
        assert_eq!(
            u64::from(self.link.opens.granted()) + unsent,
            u64::from(of_peer.mux.permits.peer_streams),
            "streams granted"
        );
    }

    fn is_bounded(&self) {
        let stats = self.link.stats();
        // Behind the end all that applications have not read is charged to the pool: messages that had memory of it beyond the
        // window before, and of each call an answer, however many calls the application keeps.
        let (most, in_pool) = match self.link.end() {
            None => (self.window_max, POOL_BYTES),
            Some(_) => {
                let unread = POOL_BYTES + stats.calls * cost(MAX_CALL_LEN);
                (unread, unread)
            }
        };
        let held = stats.bytes_held;
        assert!(held <= most, "{held} bytes of {most}");
        assert!(self.pool.used() <= in_pool);
    }
}

/// Bytes that a session may hold beyond its window: without credit, those of one reception, in the shortest messages.
const fn beyond<W: Wire>() -> u64 {
    if W::TERMS.credit {
        0
    } else {
        (PIECE / 4 * 260) as u64
    }
}

/// Reads the remaining messages of a stream of an ended session, and then its end.
fn ends(stream: &mut Stream) {
    let mut messages = 0;
    let end: Option<StreamError> = loop {
        match now(stream.recv()).expect("a stream of a session that is over does not wait") {
            Ok(Some(_)) => messages += 1,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
        assert!(messages < 100_000, "an end");
    };
    let again = now(stream.recv()).expect("an end stays").err();
    assert_eq!(
        end.map(|error| error.to_string()),
        again.map(|error| error.to_string()),
        "an end does not change"
    );
}
