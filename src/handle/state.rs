//! Where a session is in its life.

use std::fmt;

use crate::bridge::SessionLink;
use crate::error::SessionError;

/// Where a session is in its life, from [`Session::state`](crate::Session::state). It goes through these in order, may pass over
/// some, and never goes back.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (a, b) = tokio::io::duplex(4096);
/// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// # tokio::spawn(connection);
/// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
/// # tokio::spawn(connection);
/// use ringmux::SessionState;
///
/// assert!(matches!(client.state(), SessionState::Connecting));
/// client.established().await?;
/// assert!(client.state().is_open());
///
/// server.close();
/// let state = client.wait_for(|state| state.reason().is_some()).await;
/// assert!(state.reason().unwrap().is_orderly());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionState {
    /// The peer has not completed the handshake. Streams may be opened, and what is sent on them leaves.
    Connecting,
    /// Both sides may open streams.
    Open,
    /// No stream can be opened any more, for this reason; those that exist go on to their end.
    Draining(SessionError),
    /// Every stream has ended, for this reason; the connection is being closed.
    Closing(SessionError),
    /// The connection is closed; the reason is the one of `Closing`.
    Closed(SessionError),
}

impl SessionState {
    pub(super) fn of(link: &SessionLink) -> Self {
        // From the last to the first: each was set after those before it.
        if let Some(reason) = link.finished() {
            Self::Closed(reason.clone())
        } else if let Some(reason) = link.end() {
            Self::Closing(reason.clone())
        } else if let Some(reason) = link.refusal() {
            Self::Draining(reason.clone())
        } else if link.is_established() {
            Self::Open
        } else {
            Self::Connecting
        }
    }

    /// Whether the handshake is complete and streams may be opened.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Why every stream has ended: the reason of [`Closing`](Self::Closing) and [`Closed`](Self::Closed). `None` before.
    #[must_use]
    pub fn end(&self) -> Option<SessionError> {
        match self {
            Self::Closing(reason) | Self::Closed(reason) => Some(reason.clone()),
            Self::Connecting | Self::Open | Self::Draining(_) => None,
        }
    }

    /// Why no stream can be opened any more; `None` while they can.
    #[must_use]
    pub fn reason(&self) -> Option<SessionError> {
        match self {
            Self::Draining(reason) | Self::Closing(reason) | Self::Closed(reason) => {
                Some(reason.clone())
            }
            Self::Connecting | Self::Open => None,
        }
    }
}

impl fmt::Display for SessionState {
    /// One word, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Draining(_) => "draining",
            Self::Closing(_) => "closing",
            Self::Closed(_) => "closed",
        })
    }
}
