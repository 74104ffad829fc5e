//! Sessions that the peer makes.

use super::errors::ProvideError;
use super::provider::Provider;
use crate::connect::Listener;
use crate::handle::Session;
use crate::sync::Arc;

/// Takes the sessions that come to a listener: for the side that is called, and has requests of its own.
///
/// Whoever can reach the listener is the peer. A manager of one session keeps the newest: when the peer comes
/// again its old session is closed, at most once in every
/// [`first_pause`](super::ManagerBuilder::first_pause). A manager of several takes as many as it keeps; further ones
/// wait in the listener until one is lost.
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
/// assert!(manager.try_session_or_else(|| "nobody has called").is_err());
///
/// let peer = ringmux::connect(&addr).await?;
/// let _request = manager.session().await?.open("from the side that was called").await?;
/// let (send, _recv) = peer.accept().await?.expect("the session is open");
/// assert_eq!(send.opening(), "from the side that was called");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Accept(Arc<Listener>);

impl Accept {
    /// The sessions that come to `listener`, which listens as long as the manager lives.
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
