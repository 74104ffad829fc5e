//! What a call has of its session and its server, until it is over.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::bound::{Bound, Place};
use super::context::{Context, Peer};
#[cfg(feature = "rpc-tower")]
use super::layer::Layered;
use super::metrics::ServerRows;
use super::served::Served;
use super::status::Status;

/// What runs before a handler.
pub(super) type Interceptor = Arc<
    dyn Fn(Context) -> Pin<Box<dyn Future<Output = Result<Context, Status>> + Send>> + Send + Sync,
>;

/// What all calls of a server have together.
pub(super) struct Common {
    pub(super) bound: Arc<Bound>,
    pub(super) counters: Counters,
    pub(super) rows: ServerRows,
    pub(super) interceptors: Vec<Interceptor>,
    #[cfg(feature = "rpc-tower")]
    pub(super) layers: Option<Layered>,
}

/// Session and server of a call, and its places of them, which are given back when it is over.
pub(super) struct Held {
    pub(super) peer: Arc<Peer>,
    pub(super) server: Arc<Common>,
    pub(super) of_session: bool,
    pub(super) of_server: bool,
    pub(super) of_method: Option<Place>,
    pub(super) seen: Served,
}

impl Held {
    pub(super) fn new(peer: &Arc<Peer>, server: &Arc<Common>) -> Self {
        Self {
            peer: Arc::clone(peer),
            server: Arc::clone(server),
            of_session: false,
            of_server: false,
            of_method: None,
            seen: Served::none(),
        }
    }

    /// A call has begun: of the method whose counters have this number.
    pub(super) fn begin(&mut self, row: usize, since: Instant) {
        self.seen.begin(&self.server.rows, row, since);
    }

    /// Has a place of the session and one of the server; false if one of them has none: of the server alone, or of both.
    pub(super) fn take_places(&mut self) -> bool {
        if !self.of_session {
            self.of_session = self.peer.bound.try_take();
        }
        if !self.of_server {
            self.of_server = self.of_session && self.server.bound.try_take();
        }
        self.of_server
    }

    /// Does something of the call in its span.
    pub(super) fn in_span<R>(&self, step: impl FnOnce() -> R) -> R {
        self.seen.in_span(step)
    }

    /// The call is over.
    pub(super) fn over(&mut self) {
        self.give_back();
        self.seen.end(&self.server.rows);
    }

    /// Gives up the places that calls of other sessions wait for; the method, if it had one of it.
    pub(super) fn lend(&mut self) -> Option<Arc<Bound>> {
        if std::mem::take(&mut self.of_server) {
            self.server.bound.release();
        }
        self.of_method.take().and_then(Place::lend)
    }

    pub(super) fn give_back(&mut self) {
        self.of_method = None;
        if std::mem::take(&mut self.of_server) {
            self.server.bound.release();
        }
        if std::mem::take(&mut self.of_session) {
            self.peer.bound.release();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.over();
    }
}

/// A number that grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        // ORDERING: publishes nothing.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) failed: Counter,
    pub(super) refused: Counter,
    pub(super) late: Counter,
    pub(super) panicked: Counter,
    pub(super) cancelled: Counter,
}
