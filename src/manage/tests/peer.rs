//! An in-memory peer that can be unreachable, hang up at once, or fall silent.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::manage::{ProvideError, Provider};
use crate::{Config, Connection, Session, codes};

#[derive(Clone, Default)]
pub(super) struct Peer(Arc<Inner>);

#[derive(Default)]
struct Inner {
    away: AtomicBool,
    hangs_up: AtomicBool,
    /// Attempts never complete.
    hangs: AtomicBool,
    silent: AtomicBool,
    waits: AtomicBool,
    arrival: Notify,
    attempts: Mutex<Vec<Instant>>,
    /// The peer's sides of the sessions, with their tasks.
    sessions: Mutex<Vec<(Session, JoinHandle<()>)>>,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Existing sessions stay; new attempts fail.
    pub(super) fn goes_away(&self) {
        self.0.away.store(true, SeqCst);
        self.hangs_up_once();
    }

    pub(super) fn comes_back(&self) {
        self.0.away.store(false, SeqCst);
    }

    /// Disconnects all sessions.
    pub(super) fn hangs_up_once(&self) {
        for (_, connection) in self.0.sessions.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Disconnects every session as soon as it is established.
    pub(super) fn hangs_up_always(&self) {
        self.0.hangs_up.store(true, SeqCst);
    }

    pub(super) fn never_answers(&self) {
        self.0.hangs.store(true, SeqCst);
    }

    /// From now on the peer connects to the manager.
    pub(super) fn calls_us(&self) {
        self.0.waits.store(true, SeqCst);
    }

    pub(super) fn calls(&self) {
        self.0.arrival.notify_one();
    }

    /// Closes every session in order.
    pub(super) fn takes_its_leave(&self) {
        for (session, _) in &*self.0.sessions.lock().unwrap() {
            session.close();
        }
    }

    /// Stops reading and writing on every session once it is established.
    pub(super) fn is_silent(&self) {
        self.0.silent.store(true, SeqCst);
    }

    pub(super) fn attempts(&self) -> Vec<Instant> {
        self.0.attempts.lock().unwrap().clone()
    }

    pub(super) fn sessions(&self) -> Vec<Session> {
        let sessions = self.0.sessions.lock().unwrap();
        sessions
            .iter()
            .map(|(session, _)| session.clone())
            .collect()
    }

    async fn serve(self, session: Session, connection: Connection<DuplexStream>) {
        let mut connection = std::pin::pin!(connection);
        let silenced = std::future::poll_fn(|cx| {
            if self.0.silent.load(SeqCst) && session.stats().frames_received > 0 {
                return Poll::Pending; // Never woken again.
            }
            connection.as_mut().poll(cx)
        });
        let accept = async {
            while let Ok(Some((mut send, mut recv))) = session.accept().await {
                tokio::spawn(async move {
                    match &send.opening()[..] {
                        b"refuse" => drop(send.finish_with_error(7, "no")),
                        b"unwanted" => send.cancel(codes::REFUSED),
                        b"turned away" => send.cancel(codes::UNAVAILABLE),
                        b"keep" => std::future::pending().await,
                        _ => {
                            while let Ok(Some(message)) = recv.recv().await {
                                let _ = send.send(message).await;
                            }
                            let _ = send.finish();
                        }
                    }
                });
            }
        };
        tokio::join!(silenced, accept);
    }
}

impl Provider for Peer {
    async fn provide(&self) -> Result<Session, ProvideError> {
        if self.0.waits.load(SeqCst) {
            self.0.arrival.notified().await;
        }
        self.0.attempts.lock().unwrap().push(Instant::now());
        if self.0.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.0.away.load(SeqCst) {
            return Err(ProvideError::Other("peer unreachable".into()));
        }
        let (client, session) = pair();
        let (session, connection) = session;
        let serving = tokio::spawn(self.clone().serve(session.clone(), connection));
        client.established().await.map_err(ProvideError::Ended)?;
        if self.0.hangs_up.load(SeqCst) {
            serving.abort();
        } else {
            self.0.sessions.lock().unwrap().push((session, serving));
        }
        Ok(client)
    }

    fn describe(&self) -> String {
        "a peer in memory".to_owned()
    }

    fn waits_for_peer(&self) -> bool {
        self.0.waits.load(SeqCst)
    }
}

/// The manager's side, already running, and the peer's, not yet.
pub(super) fn pair() -> (Session, (Session, Connection<DuplexStream>)) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    // Only the manager's keepalive should detect a silent peer.
    let config = Config::builder().keepalive_idle(None).build().unwrap();
    let (client, connection) = crate::client(ours, &config);
    tokio::spawn(connection);
    (client, crate::server(theirs, &config))
}
