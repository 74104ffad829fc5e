//! The session to `serve`: made at the start, and made anew whenever it is lost.

use std::time::{Duration, Instant};

use ringmux::{Addr, Config, ConnectError, Engine, OpenError, Session, Stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use crate::failure::Failure;

/// A session that has lived for this long proves that the peer is well.
const WELL: Duration = Duration::from_secs(10);
/// How long the end of the session may take.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Keeps a session to one address.
#[derive(Debug)]
pub(super) struct Uplink {
    session: watch::Receiver<Option<Session>>,
    keeper: JoinHandle<()>,
}

/// Opens streams on whatever session there is.
#[derive(Clone, Debug)]
pub(super) struct UplinkHandle(watch::Receiver<Option<Session>>);

/// Why there is no stream for a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    #[error("no session within {0:?}")]
    NoSession(Duration),
    #[error("{0}")]
    Refused(OpenError),
}

impl Uplink {
    /// Connects. That the first attempt fails is told at once: the address may be wrong.
    pub(super) async fn start(engine: Engine, via: Addr, config: Config) -> Result<Self, Failure> {
        let connected = engine.connect(&via, &config).await;
        let first = connected.map_err(|error| unreachable(&via, &error))?;
        tracing::info!(%via, driver = %first.driver(), "connected");
        let (sessions, session) = watch::channel(Some(first.clone()));
        let keeper = Keeper {
            engine,
            via,
            config,
            sessions,
        };
        Ok(Self {
            session,
            keeper: tokio::spawn(keeper.keep(first)),
        })
    }

    pub(super) fn handle(&self) -> UplinkHandle {
        UplinkHandle(self.session.clone())
    }

    /// Ends the session in order.
    pub(super) async fn close(self) {
        self.keeper.abort();
        let session = self.session.borrow().clone();
        if let Some(session) = session {
            session.close();
            // A server that does not take its leave is left.
            let _ = timeout(CLOSE_TIME, session.closed()).await;
        }
    }
}

impl UplinkHandle {
    /// Opens a stream, waiting for a session and for the server's permission at most for `wait`.
    pub(super) async fn open(&self, target: &str, wait: Duration) -> Result<Stream, NoStream> {
        let mut sessions = self.0.clone();
        let opened = timeout(wait, async {
            loop {
                let session = sessions.borrow_and_update().clone();
                if let Some(session) = session {
                    match session.open(target.to_owned()).await {
                        // Nothing has reached the server: the next session may do.
                        Err(OpenError::Session(_)) => {}
                        result => return result.map_err(NoStream::Refused),
                    }
                }
                if sessions.changed().await.is_err() {
                    return Err(NoStream::NoSession(wait));
                }
            }
        });
        opened.await.unwrap_or(Err(NoStream::NoSession(wait)))
    }
}

fn unreachable(via: &Addr, error: &ConnectError) -> Failure {
    let failure = Failure::new(format!("cannot connect to {via}"));
    match error {
        ConnectError::Io { source, .. } => failure
            .because(source)
            .advise("is `ringmux serve` listening there?"),
        ConnectError::Handshake { source, .. } => failure.because(source),
        error => failure.because(error),
    }
}

/// The task behind an [`Uplink`].
struct Keeper {
    engine: Engine,
    via: Addr,
    config: Config,
    sessions: watch::Sender<Option<Session>>,
}

impl Keeper {
    async fn keep(self, mut session: Session) {
        let mut backoff = Backoff::new();
        loop {
            let since = Instant::now();
            let end = session.closed().await;
            self.sessions.send_replace(None);
            tracing::warn!(via = %self.via, reason = %end, "session lost, connecting again");
            if since.elapsed() >= WELL {
                backoff.reset();
            }
            session = self.connect(&mut backoff).await;
            tracing::warn!(via = %self.via, "connected again");
            self.sessions.send_replace(Some(session.clone()));
        }
    }

    async fn connect(&self, backoff: &mut Backoff) -> Session {
        loop {
            let pause = backoff.next();
            sleep(pause).await;
            match self.engine.connect(&self.via, &self.config).await {
                Ok(session) => return session,
                Err(error) => tracing::info!(%error, "no session yet, trying again"),
            }
        }
    }
}
