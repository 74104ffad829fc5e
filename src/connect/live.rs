//! The sessions of a listener, for its shutdown: one value, owned by the task that registers them.
//!
//! Shutting down and taking the set is one step of that task, so a session is either in the taken set, or its registration
//! finds the shutdown and drains it. No session is drained twice, and none is missed.

use std::sync::Weak;
use std::time::{Duration, Instant};

use crate::bridge::SessionLink;
use crate::sync::Arc;

/// Entries listed beyond twice the live sessions.
const PRUNE_SLACK: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Live {
    /// Weak: a listener keeps no session alive, nor any of its memory.
    sessions: Vec<Weak<SessionLink>>,
    /// List length at which ended sessions are removed.
    prune_at: usize,
    /// The ceiling, once it is shutting down.
    until: Option<Instant>,
    /// Draining sessions, to be waited for.
    leaving: Vec<Arc<SessionLink>>,
}

impl Live {
    pub(super) const fn new() -> Self {
        Self {
            sessions: Vec::new(),
            prune_at: PRUNE_SLACK,
            until: None,
            leaving: Vec::new(),
        }
    }

    /// Adds a session. After the shutdown began it is drained at once, within the rest of the grace.
    pub(super) fn register(&mut self, link: &Arc<SessionLink>, now: Instant) {
        if let Some(until) = self.until {
            link.shut_down(until.saturating_duration_since(now));
            return self.leaving.push(Arc::clone(link));
        }
        if self.sessions.len() >= self.prune_at {
            self.sessions.retain(|session| session.strong_count() > 0);
            self.prune_at = 2 * self.sessions.len() + PRUNE_SLACK;
        }
        self.sessions.push(Arc::downgrade(link));
    }

    /// Drains all present and future sessions. A repeated call takes effect only if its grace ends earlier.
    pub(super) fn shut_down(&mut self, grace: Duration, now: Instant) {
        let until = now + grace;
        if self.until.is_some_and(|before| before <= until) {
            return;
        }
        self.until = Some(until);
        for link in &self.leaving {
            link.shut_down(grace);
        }
        for session in std::mem::take(&mut self.sessions) {
            let alive = session.upgrade().filter(|link| link.finished().is_none());
            if let Some(link) = alive {
                link.shut_down(grace);
                self.leaving.push(link);
            }
        }
    }

    /// The ceiling, once it is shutting down.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The draining sessions.
    pub(super) fn leaving(&self) -> &[Arc<SessionLink>] {
        &self.leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::SessionError;
    use crate::handle::Session;

    const SECOND: Duration = Duration::from_secs(1);

    struct Peers {
        client: Session,
        server: Session,
    }

    /// Over an in-memory pipe, on this thread: no progress between two awaits.
    fn peers() -> Peers {
        let (a, b) = tokio::io::duplex(1024);
        let (client, connection) = crate::client(a, &Config::default());
        tokio::spawn(connection);
        let (server, connection) = crate::server(b, &Config::default());
        tokio::spawn(connection);
        Peers { client, server }
    }

    async fn is_drained(peers: &Peers) {
        assert!(matches!(peers.server.closed().await, SessionError::Closed));
        let end = peers.client.closed().await;
        assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
    }

    #[tokio::test]
    async fn a_straggler_is_drained_by_its_own_registration_and_once() {
        let mut live = Live::new();
        let now = Instant::now();
        let [early, late] = [peers(), peers()];
        early.server.established().await.unwrap();
        late.server.established().await.unwrap();
        live.register(early.server.link(), now);
        live.shut_down(30 * SECOND, now);
        assert!(early.server.state().reason().is_some());
        // Accepted by the kernel before the listener stopped, registered after.
        assert!(late.server.state().reason().is_none());
        live.register(late.server.link(), now + 10 * SECOND);
        assert!(late.server.state().reason().is_some());
        let graces = live.leaving().iter().map(|link| link.drain.grace());
        let graces: Vec<_> = graces.collect();
        assert_eq!(graces, [30 * SECOND, 20 * SECOND], "one ceiling for both");
        is_drained(&early).await;
        is_drained(&late).await;
        // After the ceiling there is no grace left.
        let last = peers();
        live.register(last.server.link(), now + 40 * SECOND);
        assert_eq!(live.leaving()[2].drain.grace(), Duration::ZERO);
        is_drained(&last).await;
    }

    #[tokio::test]
    async fn a_second_shutdown_can_only_be_sooner() {
        let mut live = Live::new();
        let now = Instant::now();
        let peers = peers();
        live.register(peers.server.link(), now);
        live.shut_down(10 * SECOND, now);
        live.shut_down(20 * SECOND, now);
        assert_eq!(live.until(), Some(now + 10 * SECOND));
        live.shut_down(SECOND, now);
        assert_eq!(live.until(), Some(now + SECOND));
        assert_eq!(live.leaving().len(), 1);
        assert_eq!(live.leaving()[0].drain.grace(), SECOND);
    }

    #[tokio::test]
    async fn sessions_that_have_gone_are_forgotten() {
        let mut live = Live::new();
        let now = Instant::now();
        let kept = peers();
        live.register(kept.server.link(), now);
        for _ in 0..200 {
            let gone = peers();
            live.register(gone.server.link(), now);
            gone.server.close();
            gone.client.close();
            gone.server.closed().await;
            gone.client.closed().await;
        }
        assert!(live.sessions.len() <= 40, "{}", live.sessions.len());
        live.shut_down(SECOND, now);
        assert_eq!(live.leaving().len(), 1);
    }
}
