//! The session to `serve`: made at the start, and made anew whenever it is lost.

use std::time::Duration;

use ringmux::manage::{Dial, Event, Events, ManageError, Manager, ProvideError};
use ringmux::{Addr, Chain, Config, Engine, OpenError, RecvStream, SendStream, SessionError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connect;
use crate::tunnel::Endpoint;
use crate::waiting::Waiting;
use ringmux_measure::failure::{Failure, reworded};

/// How long the end of the session may take.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Keeps a session to one address.
#[derive(Debug)]
pub(super) struct Uplink {
    manager: Manager,
    keeper: JoinHandle<()>,
}

/// Opens streams on whatever session there is.
#[derive(Clone, Debug)]
pub(super) struct UplinkHandle(Manager);

const PERMITS: &str = "`ringmux serve` permits no further connection, and none has ended";

/// Why there is no stream for a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    #[error("no session within {0:?}")]
    NoSession(Duration),
    #[error("{permits} within {0:?}: see its --max-connections", permits = PERMITS)]
    NoPlace(Duration),
    #[error("{}", Chain(.0))]
    Unmanaged(ManageError),
    #[error("{}", Chain(.0))]
    Refused(OpenError),
}

impl Uplink {
    /// Connects. That the first attempt fails is told at once, as the address may be wrong; with `retry` it returns before
    /// the first, and tries for ever.
    pub(super) async fn start(
        engine: Engine,
        via: Addr,
        config: Config,
        retry: bool,
    ) -> Result<Self, Failure> {
        let first = if retry {
            None
        } else {
            let first = connect::connect(&engine, &via, &config, "`ringmux serve`").await?;
            tracing::info!(%via, driver = %first.driver(), "connected");
            Some(first)
        };
        let built = Manager::builder(Dial::new(engine, via.clone(), config)).build();
        let unmanaged = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(format!("cannot keep a session to {via}")).because(error)
        };
        let manager = built.map_err(|error| unmanaged(&error))?;
        let waiting = first.is_none().then(|| Waiting::on(&via));
        if let Some(first) = first {
            manager.replace(first).map_err(|error| unmanaged(&error))?;
        }
        tokio::spawn(tell(manager.subscribe(), via.clone(), waiting));
        let keeper = manager.start().map_err(|error| unmanaged(&error))?;
        Ok(Self {
            keeper: tokio::spawn(keeper),
            manager,
        })
    }

    pub(super) fn handle(&self) -> UplinkHandle {
        UplinkHandle(self.manager.clone())
    }

    /// Shows what becomes of the session.
    pub(super) fn watch_in(&self, endpoint: &Endpoint) {
        endpoint.watch("uplink", &self.manager);
    }

    /// Ends the session in order.
    pub(super) async fn close(self) {
        self.manager.close();
        // A server that does not take its leave is left.
        let _ = timeout(CLOSE_TIME, self.keeper).await;
    }
}

impl UplinkHandle {
    /// Opens a stream, waiting for a session and for the server's permission at most for `wait`.
    pub(super) async fn open(
        &self,
        target: &str,
        wait: Duration,
    ) -> Result<(SendStream, RecvStream), NoStream> {
        // A session is there, and has no place for another stream.
        let mut full = false;
        let opening = async {
            loop {
                let session = self.0.session().await.map_err(NoStream::Unmanaged)?;
                full = true;
                match session.open(target.to_owned()).await {
                    // Nothing has reached the server: the next session may do.
                    Err(OpenError::Session(_)) => full = false,
                    result => return result.map_err(NoStream::Refused),
                }
            }
        };
        let opened = timeout(wait, opening).await;
        opened.unwrap_or_else(|_| {
            Err(if full {
                NoStream::NoPlace(wait)
            } else {
                NoStream::NoSession(wait)
            })
        })
    }
}

/// Logs what becomes of the session, until the end. `waiting`: for the first one.
async fn tell(mut events: Events, via: Addr, mut waiting: Option<Waiting>) {
    loop {
        let event = match &mut waiting {
            Some(waiting) => waiting.during(events.next()).await,
            None => events.next().await,
        };
        let Some(event) = event else { return };
        match event {
            Event::Ready { .. } if waiting.take().is_some() => tracing::info!(%via, "connected"),
            Event::Ready { .. } => tracing::warn!(%via, "connected again"),
            // By us.
            Event::Lost {
                reason: SessionError::Closed,
                ..
            } => {}
            Event::Lost { reason, .. } => {
                tracing::warn!(%via, reason = %Chain(&reason), "session lost, connecting again");
            }
            Event::Reconnecting {
                error: Some(error), ..
            } => match &mut waiting {
                Some(waiting) => waiting.failed(reason(&error)),
                None => tracing::info!(error = %Chain(&*error), "no session yet, trying again"),
            },
            _ => {}
        }
    }
}

/// Why an attempt failed, without the address.
fn reason(error: &ProvideError) -> String {
    match error {
        ProvideError::Connect(error) => connect::reason(error),
        error => reworded(error),
    }
}
