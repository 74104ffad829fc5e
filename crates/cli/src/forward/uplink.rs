//! The session to `serve`: made at the start, and made anew whenever it is lost.

use std::time::Duration;

use ringmux::manage::{Dial, Event, Events, ManageError, Manager};
use ringmux::{Addr, Config, Engine, OpenError, SessionError, Stream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connect;
use crate::tunnel::Endpoint;
use ringmux_measure::failure::Failure;

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

/// Why there is no stream for a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    #[error("no session within {0:?}")]
    NoSession(Duration),
    #[error("{0}")]
    Unmanaged(ManageError),
    #[error("{0}")]
    Refused(OpenError),
}

impl Uplink {
    /// Connects. That the first attempt fails is told at once: the address may be wrong.
    pub(super) async fn start(engine: Engine, via: Addr, config: Config) -> Result<Self, Failure> {
        let first = connect::connect(&engine, &via, &config, "`ringmux serve`").await?;
        tracing::info!(%via, driver = %first.driver(), "connected");
        let built = Manager::builder(Dial::new(engine, via.clone(), config)).build();
        let unmanaged = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(format!("cannot keep a session to {via}")).because(error)
        };
        let manager = built.map_err(|error| unmanaged(&error))?;
        manager.replace(first).map_err(|error| unmanaged(&error))?;
        tokio::spawn(tell(manager.subscribe(), via.clone()));
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
    pub(super) async fn open(&self, target: &str, wait: Duration) -> Result<Stream, NoStream> {
        let opened = timeout(wait, async {
            loop {
                let session = self.0.session().await.map_err(NoStream::Unmanaged)?;
                match session.open(target.to_owned()).await {
                    // Nothing has reached the server: the next session may do.
                    Err(OpenError::Session(_)) => {}
                    result => return result.map_err(NoStream::Refused),
                }
            }
        });
        opened.await.unwrap_or(Err(NoStream::NoSession(wait)))
    }
}

/// Logs what becomes of the session, until the end.
async fn tell(mut events: Events, via: Addr) {
    while let Some(event) = events.next().await {
        match event {
            Event::Ready { .. } => tracing::warn!(%via, "connected again"),
            // By us.
            Event::Lost {
                reason: SessionError::Closed,
                ..
            } => {}
            Event::Lost { reason, .. } => {
                tracing::warn!(%via, %reason, "session lost, connecting again");
            }
            Event::Reconnecting {
                error: Some(error), ..
            } => tracing::info!(%error, "no session yet, trying again"),
            _ => {}
        }
    }
}
