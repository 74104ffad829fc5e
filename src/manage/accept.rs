//! A provider of sessions that the peer opens.

use super::errors::ProvideError;
use super::provider::Provider;
use crate::connect::Listener;
use crate::handle::Session;
use crate::sync::Arc;

/// Takes the sessions of a listener: for an accepting side that sends requests of its own.
///
/// Every client that reaches the listener counts as the peer. A manager of one session keeps the newest: when the peer
/// connects again its old session is closed, at most once per
/// [`first_pause`](super::ManagerBuilder::first_pause). A manager of several sessions takes as many as it keeps; further
/// ones wait in the listener until one is lost.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::manage::{Accept, Manager};
///
/// let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
/// let addr = listener.local_addr().to_string();
/// let manager = Manager::builder(Accept::new(listener)).build()?;
/// tokio::spawn(manager.start()?);
/// assert!(manager.try_session_or_else(|| "no session yet").is_err());
///
/// let peer = ringmux::connect(&addr).await?;
/// let _request = manager.session().await?.open("from the accepting side").await?;
/// let (send, _recv) = peer.accept().await?.expect("the session is open");
/// assert_eq!(send.opening(), "from the accepting side");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Accept(Arc<Listener>);

impl Accept {
    /// Takes sessions from `listener`, which listens as long as the manager lives.
    #[must_use]
    pub fn new(listener: Listener) -> Self {
        Self(Arc::new(listener))
    }
}

impl Provider for Accept {
    async fn provide(&self) -> Result<Session, ProvideError> {
        Ok(self.0.accept().await?)
    }

    fn describe(&self) -> String {
        format!("accept on {}", self.0.local_addr())
    }

    fn waits_for_peer(&self) -> bool {
        true
    }
}
