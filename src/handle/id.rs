//! The number of a stream, for logs.

use std::fmt;

/// The number of a stream within its session, for logs and for comparison with the peer's logs: both sides have the same
/// number for a stream. Long sessions reuse numbers; their other properties are the wire's.
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
/// let (mut send, _recv) = client.open("").await?;
/// send.finish()?;
/// let (_send, recv) = server.accept().await?.expect("the session is open");
/// assert_eq!(send.id(), recv.id());
/// println!("stream {}", recv.id().unwrap());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(u64);

impl StreamId {
    pub(super) fn new(id: u32) -> Self {
        Self(u64::from(id))
    }

    /// The number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}
