//! The connections of a listener that have no session yet: in their handshake, or waiting for `accept`.
//!
//! Each holds a permit. When none is left, a new connection takes the place of the oldest handshake: an honest handshake
//! takes about a round trip, so silent peers lose their places to others. Connections that have completed it and wait for
//! the application are never evicted: accepting stops instead.

use std::collections::VecDeque;
use std::sync::{Arc as StdArc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::bridge::{SessionLink, request};
use crate::driver::clock;
use crate::sync::Arc;

/// No handshake younger than this is evicted: its bytes may have arrived but not been read.
const PATIENCE: Duration = Duration::from_millis(10);

/// Entries listed beyond twice the handshakes under way: each keeps the memory of a session's link, of some 3 KiB.
const PRUNE_SLACK: usize = 16;

/// See the module. Owned by the task that accepts.
#[derive(Debug)]
pub(super) struct HalfOpen {
    permits: StdArc<Semaphore>,
    /// Begun handshakes with their start, oldest first; some may be complete.
    begun: VecDeque<(Begun, Instant)>,
    /// List length at which complete ones are removed.
    prune_at: usize,
}

/// A connection in its handshake.
#[derive(Debug)]
enum Begun {
    Session(Weak<SessionLink>),
    /// Its wire is not known yet.
    Detecting(AbortHandle),
}

impl Begun {
    fn is_half_open(&self) -> bool {
        match self {
            Self::Session(link) => link.upgrade().is_some_and(|link| is_half_open(&link)),
            Self::Detecting(task) => !task.is_finished(),
        }
    }

    fn evict(&self) {
        match self {
            Self::Session(link) => {
                if let Some(link) = link.upgrade() {
                    link.request(request::EVICT);
                }
            }
            Self::Detecting(task) => task.abort(),
        }
    }
}

impl HalfOpen {
    pub(super) fn new(max: u32) -> Self {
        Self {
            permits: StdArc::new(Semaphore::new(max as usize)),
            begun: VecDeque::new(),
            prune_at: PRUNE_SLACK,
        }
    }

    /// Waits for a place, evicting the oldest handshake if need be. Never `None`: the semaphore is not closed.
    pub(super) async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = StdArc::clone(&self.permits).try_acquire_owned() {
                return Some(permit);
            }
            let waiting = StdArc::clone(&self.permits).acquire_owned();
            let Some(since) = self.oldest() else {
                // All connections wait for the application.
                return waiting.await.ok();
            };
            let mut until = since + PATIENCE;
            let now = clock::now();
            if until <= now {
                if let Some((oldest, _)) = self.begun.pop_front() {
                    oldest.evict();
                }
                until = now + PATIENCE;
            }
            // The evicted one's place, or that of another that has ended meanwhile.
            if let Ok(permit) = tokio::time::timeout_at(until.into(), waiting).await {
                return permit.ok();
            }
        }
    }

    /// Registers a connection that begins its handshake.
    pub(super) fn begin(&mut self, link: &Arc<SessionLink>) {
        self.register(Begun::Session(Arc::downgrade(link)));
    }

    /// The same of one whose wire is not known yet.
    pub(super) fn begin_detecting(&mut self, task: AbortHandle) {
        self.register(Begun::Detecting(task));
    }

    fn register(&mut self, begun: Begun) {
        if self.begun.len() >= self.prune_at {
            self.begun.retain(|(begun, _)| begun.is_half_open());
            self.prune_at = 2 * self.begun.len() + PRUNE_SLACK;
        }
        self.begun.push_back((begun, clock::now()));
    }

    /// When the oldest handshake under way has begun: the first of the list.
    fn oldest(&mut self) -> Option<Instant> {
        while let Some((begun, since)) = self.begun.front() {
            if begun.is_half_open() {
                return Some(*since);
            }
            self.begun.pop_front();
        }
        None
    }
}

fn is_half_open(link: &SessionLink) -> bool {
    !link.is_established() && link.end().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::{Limit, SessionError};
    use crate::handle::Session;

    /// A session that holds its place until it has ended, and its peer.
    async fn enter(places: &mut HalfOpen) -> (Session, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let permit = places.place().await.unwrap();
        let (session, connection) = crate::server(ours, &Config::default());
        tokio::spawn(connection);
        let held = session.clone();
        tokio::spawn(async move {
            if held.established().await.is_ok() {
                held.closed().await;
            }
            drop(permit);
        });
        places.begin(session.link());
        (session, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_silent_longest_makes_place_for_who_comes() {
        let mut places = HalfOpen::new(3);
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(enter(&mut places).await);
        }
        for (n, (session, _peer)) in all.iter().enumerate() {
            match session.state().end() {
                Some(SessionError::LimitExceeded(error)) => {
                    assert!(n < 97 && error.limit == Limit::HalfOpen, "{n}: {error}");
                }
                None => assert!(n >= 97, "{n} was not given up"),
                Some(other) => panic!("{n}: {other}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_done_with_the_handshake_keeps_its_place() {
        let mut places = HalfOpen::new(2);
        let mut all = Vec::new();
        for _ in 0..2 {
            let (session, peer) = enter(&mut places).await;
            let (client, connection) = crate::client(peer, &Config::default());
            tokio::spawn(connection);
            session.established().await.unwrap();
            all.push((session, client));
        }
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, places.place()).await.is_err());
        assert!(
            all.iter()
                .all(|(session, _)| session.state().end().is_none())
        );
        // Until one of them is dropped.
        all.pop();
        assert!(tokio::time::timeout(minute, places.place()).await.is_ok());
    }

    #[tokio::test]
    async fn those_that_have_gone_are_forgotten_however_many_places_there_are() {
        for max in [4, 256] {
            let mut places = HalfOpen::new(max);
            for _ in 0..200 {
                let (session, peer) = enter(&mut places).await;
                drop(peer);
                session.closed().await;
                let listed = places.begun.len();
                assert!(listed <= PRUNE_SLACK + 1, "{listed} of {max}");
            }
        }
    }
}
