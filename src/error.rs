//! Errors, by scope: of a session, of a stream, or of one call.
//!
//! Each error answers two questions that a caller must ask before a retry: [`is_retryable`](StreamError::is_retryable), and
//! whether the peer can have processed the work
//! ([`was_processed`](StreamError::was_processed)).
//!
//! An error with a text of its own shows only that, and has its cause as `source`: printing the chain ([`Chain`], `anyhow`)
//! shows each text once, and searching the chain for a type finds it. An error that only wraps another, such as
//! [`SendError::Stream`], shows the other's text, and has the other's source.

mod carried;
pub mod codes;
mod io_error;
mod limit;
mod try_send;
mod words;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use carried::{NotCarried, PingError};
pub(crate) use io_error::{DESCRIPTORS_REMEDY, into_io, lacks_descriptors};
pub use limit::{Limit, LimitExceeded};
pub use try_send::TrySendError;
pub use words::Chain;

use crate::drpc::DrpcError;
use crate::wire::native::frame::{FrameError, Role, StreamId};
use words::{Cancelling, Code, Stopping};

/// Whether the peer's application can have seen the messages of a failed stream.
///
/// # Examples
/// ```
/// # use ringmux::{Processed, SessionError, StreamError};
/// let never_left = StreamError::NotProcessed(SessionError::Disconnected);
/// assert_eq!(never_left.was_processed(), Processed::No);
/// let under_way = StreamError::Session(SessionError::Disconnected);
/// assert_eq!(under_way.was_processed(), Processed::Maybe);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Processed {
    /// It cannot: nothing of the stream reached it. Trying again is safe.
    No,
    /// It may have: the connection ended, or either side cancelled, while the stream was alive.
    Maybe,
    /// It has: the peer answered with this error.
    Yes,
}

/// One of the two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This process.
    This,
    /// The process at the other end.
    Peer,
}

/// Why a session ended.
///
/// Cheap to clone: every stream of the session gets the same error.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use ringmux::SessionError;
///
/// let (a, b) = tokio::io::duplex(4096);
/// let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// tokio::spawn(connection);
/// drop(b); // a peer that has vanished
/// let error = client.closed().await;
/// assert!(matches!(error, SessionError::Disconnected) && !error.is_orderly());
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum SessionError {
    /// This side called [`Session::close`](crate::Session::close), or dropped its last handle.
    Closed,
    /// The peer closed the session with a code.
    PeerClosed {
        /// The peer's code; [`NO_ERROR`](crate::codes::NO_ERROR) for an orderly close. See
        /// [`codes`].
        code: u32,
        /// The peer's explanation, at most 256 bytes.
        reason: Arc<str>,
    },
    /// The connection ended without a GOAWAY from the peer.
    Disconnected,
    /// The socket failed.
    Io(Arc<io::Error>),
    /// The peer broke a rule of the protocol; the GOAWAY to it names the rule.
    Protocol(ProtocolError),
    /// The peer tripped a limit of this side; the GOAWAY to it has the same text.
    LimitExceeded(LimitExceeded),
    /// The peer did not complete the handshake in time.
    HandshakeTimeout(Duration),
    /// The peer sent nothing for [`keepalive_idle`](crate::ConfigBuilder::keepalive_idle), and did not answer the keepalive PING
    /// within [`keepalive_timeout`](crate::ConfigBuilder::keepalive_timeout).
    KeepaliveTimeout(Duration),
    /// The connection took none of the bytes to be sent, or over DRPC the peer's system answered none of those sent, for
    /// [`write_timeout`](crate::ConfigBuilder::write_timeout).
    WriteTimeout(Duration),
    /// The thread or runtime that ran the session ended first.
    EngineStopped,
}

/// Not derived: `source` returns the error itself, not the `Arc` that shares it.
impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(&**error),
            Self::Protocol(error) => Some(error),
            _ => None,
        }
    }
}

impl From<LimitExceeded> for SessionError {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::LimitExceeded(exceeded)
    }
}

impl From<ProtocolError> for SessionError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl SessionError {
    /// Whether the end was orderly: either side closed it, shut it down, or dropped its last handle.
    ///
    /// # Examples
    /// ```
    /// use ringmux::SessionError;
    ///
    /// assert!(SessionError::Closed.is_orderly());
    /// assert!(!SessionError::Disconnected.is_orderly());
    /// ```
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        matches!(
            self,
            Self::Closed
                | Self::PeerClosed {
                    code: codes::NO_ERROR | codes::SHUTDOWN,
                    ..
                }
        )
    }

    /// Whether a new session to the same peer may succeed.
    ///
    /// False after a protocol error: the two sides are incompatible, and stay so.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::Protocol(_) | Self::Closed)
    }

    /// Whether the peer can have seen the messages of the session's unfinished streams.
    ///
    /// Always [`Maybe`](Processed::Maybe), even if the peer never answered: data that a dialling side sends together with its
    /// handshake may arrive although the answer does not. A stream of which nothing was sent has the error
    /// [`StreamError::NotProcessed`].
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::Maybe
    }
}

/// The rule of the wire that a peer broke.
///
/// # Examples
/// ```
/// # use ringmux::wire::ProtocolError;
/// let error = ProtocolError::SettingsTwice;
/// assert_eq!(error.rule(), "settings-twice");
/// assert_eq!(error.to_string(), "SETTINGS must be sent once, as the first frame");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// An invalid frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame before SETTINGS.
    #[error("the first frame must be SETTINGS")]
    SettingsMissing,
    /// A second SETTINGS.
    #[error("SETTINGS must be sent once, as the first frame")]
    SettingsTwice,
    /// SETTINGS with this side's own role, dialer or acceptor: from an echo server, from this side itself, or because the two
    /// sides disagree on who dialled.
    #[error(
        "the peer has the same role, {role}: an echo server, or a connection to this side itself"
    )]
    SameRole {
        /// The role of both sides.
        role: Role,
    },
    /// OPEN with an id of the other side's parity, or of a stream that exists.
    #[error("stream {id} cannot be opened by the peer: wrong parity")]
    WrongParity {
        /// The id in the frame.
        id: StreamId,
    },
    /// OPEN with an id that does not follow the peer's last one.
    #[error("stream {id} cannot be opened after stream {last}: ids increase")]
    IdNotIncreasing {
        /// The id in the frame.
        id: StreamId,
        /// The last id that the peer opened.
        last: StreamId,
    },
    /// CALL to a side that has not said that it takes calls.
    #[error("call {id} was sent to a side that takes none")]
    CallNotTaken {
        /// The id in the frame.
        id: StreamId,
    },
    /// A frame for a stream that was never opened.
    #[error("stream {id} was never opened")]
    NeverOpened {
        /// The id in the frame.
        id: StreamId,
    },
    /// More streams at once than were granted.
    #[error("stream {id} exceeds the {limit} streams granted")]
    TooManyStreams {
        /// The id in the frame.
        id: StreamId,
        /// Streams that the peer may have open.
        limit: u32,
    },
    /// A frame after the sender's end of the stream.
    #[error("stream {id} got a frame after its end")]
    AfterEnd {
        /// The id in the frame.
        id: StreamId,
    },
    /// FIN before the end of a message.
    #[error("stream {id} ended inside a message")]
    FinInsideMessage {
        /// The id in the frame.
        id: StreamId,
    },
    /// More data than the stream's credit.
    #[error("stream {id} got a frame that costs {cost} with {credit} of credit left")]
    StreamCredit {
        /// The id in the frame.
        id: StreamId,
        /// Payload plus 256.
        cost: u64,
        /// The peer's remaining credit.
        credit: u64,
    },
    /// More data than the session's credit.
    #[error("a frame costs {cost} with {credit} of session credit left")]
    SessionCredit {
        /// Payload plus 256.
        cost: u64,
        /// The peer's remaining credit.
        credit: u64,
    },
    /// A WINDOW that takes a credit above 2^32 - 1.
    #[error("WINDOW of {credit} on stream {stream} overflows the credit")]
    CreditOverflow {
        /// The stream's id, or 0 for the session.
        stream: u32,
        /// The credit in the frame.
        credit: u32,
    },
    /// A message above the limit.
    #[error("a message of {total} bytes on stream {id} exceeds the limit of {limit}")]
    MessageTooLong {
        /// The id in the frame.
        id: StreamId,
        /// The message's size.
        total: u64,
        /// The announced limit.
        limit: u32,
    },
    /// The pieces of a message do not add up to the total in the first one.
    #[error("the pieces of a message on stream {id} do not add up to its {total} bytes")]
    PiecesMismatch {
        /// The id in the frame.
        id: StreamId,
        /// The total in the first piece.
        total: u32,
    },
    /// META more than twice, or inside a message.
    #[error("META on stream {id} is out of place: at most two a direction, not inside a message")]
    MetaOutOfPlace {
        /// The id in the frame.
        id: StreamId,
    },
    /// A PING with ACK that answers no PING.
    #[error("a PING was acknowledged that was never sent")]
    UnexpectedPong,
    /// A rule of DRPC.
    #[error(transparent)]
    Drpc(#[from] DrpcError),
    /// A rule of another wire than that of ringmux.
    #[error("{rule}")]
    Foreign {
        /// In the words of that wire.
        rule: &'static str,
    },
}

impl ProtocolError {
    /// Whether trying again may succeed: never, as the two sides are incompatible.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }

    /// Whether the peer can have seen the messages of the session's streams.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::Maybe
    }

    /// A short, stable name for logs, counters and the text sent to the peer.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.rule(),
            Self::SettingsMissing => "settings-missing",
            Self::SettingsTwice => "settings-twice",
            Self::SameRole { .. } => "same-role",
            Self::WrongParity { .. } => "wrong-parity",
            Self::IdNotIncreasing { .. } => "id-not-increasing",
            Self::CallNotTaken { .. } => "call-not-taken",
            Self::NeverOpened { .. } => "never-opened",
            Self::TooManyStreams { .. } => "too-many-streams",
            Self::AfterEnd { .. } => "after-end",
            Self::FinInsideMessage { .. } => "fin-inside-message",
            Self::StreamCredit { .. } => "stream-credit",
            Self::SessionCredit { .. } => "session-credit",
            Self::CreditOverflow { .. } => "credit-overflow",
            Self::MessageTooLong { .. } => "message-too-long",
            Self::PiecesMismatch { .. } => "pieces-mismatch",
            Self::MetaOutOfPlace { .. } => "meta-out-of-place",
            Self::UnexpectedPong => "unexpected-pong",
            Self::Drpc(error) => error.rule(),
            Self::Foreign { .. } => "foreign",
        }
    }
}

/// The error that the peer's application sent with
/// [`finish_with_error`](crate::SendStream::finish_with_error).
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// The application's code.
    pub code: u32,
    /// The application's text, at most 1 KiB.
    pub message: String,
    /// Opaque details, at most 8 KiB.
    pub details: Bytes,
}

/// Why a stream ended other than by a clean end of stream.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use ringmux::{Config, StreamError};
///
/// let (a, b) = tokio::io::duplex(4096);
/// let (client, connection) = ringmux::client(a, &Config::default());
/// tokio::spawn(connection);
/// let (server, connection) = ringmux::server(b, &Config::default());
/// tokio::spawn(connection);
/// let (_sender, mut answers) = client.open("").await?;
/// let (mut refused, _) = server.accept().await?.unwrap();
/// refused.finish_with_error(7, "no such account")?;
/// match answers.recv().await {
///     Err(StreamError::Failed(failure)) => {
///         assert_eq!((failure.code, &*failure.message), (7, "no such account"));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer's application ended the stream with an error, delivered after all earlier messages.
    #[error("the peer failed the stream with code {}: {}", Code(.0.code), .0.message)]
    Failed(Arc<Failure>),
    /// The stream was cancelled, or stopped by this side; messages not yet received are lost.
    #[error("{}", Cancelling(*by, *code))]
    Cancelled {
        /// The side that cancelled.
        by: Side,
        /// The code given to `cancel`, `stop` or `finish_with_error`. See [`codes`].
        code: u32,
    },
    /// The stream never reached the peer's application. Trying again is safe.
    #[error("the peer did not process the stream")]
    NotProcessed(#[source] SessionError),
    /// This side gave a unary call up, or its deadline passed, before any of it was sent. Trying again is safe.
    #[error("before it was sent, {}", Cancelling(Side::This, *code))]
    NotSent {
        /// As of [`Cancelled`](Self::Cancelled).
        code: u32,
    },
    /// The stream tripped a limit of this side.
    #[error(transparent)]
    LimitExceeded(#[from] LimitExceeded),
    /// The whole session ended.
    #[error(transparent)]
    Session(SessionError),
}

impl StreamError {
    /// Whether trying again on a live session may succeed without running anything twice.
    ///
    /// # Examples
    /// ```
    /// # use ringmux::{Processed, Side, StreamError, codes};
    /// let error = StreamError::Cancelled { by: Side::Peer, code: 7 };
    /// assert!(!error.is_retryable());
    /// assert_eq!(error.was_processed(), Processed::Maybe);
    /// assert_eq!(error.to_string(), "the peer cancelled the stream with code 7");
    ///
    /// let error = StreamError::Cancelled { by: Side::Peer, code: codes::REFUSED };
    /// assert!(error.is_retryable());
    /// ```
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.was_processed(), Processed::No)
    }

    /// Whether the peer's ringmux refused the stream at a limit, which an immediate retry may meet again.
    #[cfg(feature = "manage")]
    pub(crate) const fn was_turned_away(&self) -> bool {
        matches!(
            self,
            Self::Cancelled {
                by: Side::Peer,
                code: codes::UNAVAILABLE,
            }
        )
    }

    /// Whether the peer's application can have seen messages of this stream.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        match self {
            Self::NotProcessed(_) | Self::NotSent { .. } => Processed::No,
            Self::Failed(_) => Processed::Yes,
            Self::Cancelled {
                by: Side::Peer,
                code: codes::REFUSED | codes::UNAVAILABLE,
            } => Processed::No,
            Self::Cancelled { .. } | Self::LimitExceeded(_) => Processed::Maybe,
            Self::Session(error) => error.was_processed(),
        }
    }
}

/// Why a message was not accepted for sending.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is larger than the peer accepts. Nothing was sent; the stream stays usable.
    #[error("a message of {len} bytes exceeds the peer's limit of {limit}")]
    TooLong {
        /// The message's size, in bytes.
        len: usize,
        /// The peer's limit, in bytes.
        limit: usize,
    },
    /// The peer asked to stop sending on this stream; it still sends.
    #[error("{}", Stopping(*code))]
    Stopped {
        /// The code given to `stop`.
        code: u32,
    },
    /// A direction of a stream carries at most two opaque blocks.
    #[error("the stream has carried two opaque blocks already")]
    TooManyMetas,
    /// The session's wire cannot carry it; the stream stays usable.
    #[error(transparent)]
    NotCarried(#[from] NotCarried),
    /// This side has already finished the stream.
    #[error("the stream was already finished by this side")]
    Finished,
    /// The stream has ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl SendError {
    /// Whether trying again with a new stream on a live session may succeed without running anything twice.
    ///
    /// # Examples
    /// ```
    /// # use ringmux::{Processed, SendError, SessionError, StreamError};
    /// let error = SendError::TooLong { len: 5, limit: 4 };
    /// assert_eq!((error.is_retryable(), error.was_processed()), (false, Processed::No));
    ///
    /// let never_left = StreamError::NotProcessed(SessionError::Disconnected);
    /// assert!(SendError::from(never_left).is_retryable());
    /// ```
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Stream(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Whether the peer's application can have seen the message to be sent; if the stream has ended, also messages queued
    /// before it.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        match self {
            Self::TooLong { .. } | Self::TooManyMetas | Self::NotCarried(_) | Self::Finished => {
                Processed::No
            }
            Self::Stopped { .. } => Processed::Maybe,
            Self::Stream(error) => error.was_processed(),
        }
    }
}

/// Why a stream could not be opened.
///
/// # Examples
/// ```
/// # use ringmux::{OpenError, Processed, SessionError};
/// let full = OpenError::TooManyPending { limit: 1024 };
/// assert!(full.is_retryable() && full.to_string().contains("max_pending_opens"));
/// let over = OpenError::Session(SessionError::Disconnected);
/// assert!(over.is_retryable(), "on another session");
/// assert_eq!(over.was_processed(), Processed::No);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The opening block is larger than a frame of its kind may be.
    #[error("an opening block of {len} bytes exceeds the limit of {limit}")]
    BlockTooLong {
        /// The block's size, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The first message is larger than the peer accepts; only from `open_with`. If the peer announces its limit only after
    /// the opening, it may see a stream opened and cancelled.
    #[error("a message of {len} bytes exceeds the {limit} that the peer accepts")]
    MessageTooLong {
        /// The message's size, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer has not granted another stream; only from `try_open`.
    #[error("the peer has granted no further stream for now")]
    NoCredit,
    /// Too many calls of `open` already wait for the peer's grant.
    #[error("{limit} calls of open are waiting already: raise max_pending_opens or open less")]
    TooManyPending {
        /// [`max_pending_opens`](crate::ConfigBuilder::max_pending_opens).
        limit: u32,
    },
    /// Over this wire only the side that dialled can open streams.
    #[error("the side that accepted the connection cannot open streams over this wire")]
    NotThisSide,
    /// The session has ended, or takes no new streams. Nothing was sent.
    #[error(transparent)]
    Session(SessionError),
}

impl OpenError {
    /// Whether the peer can have seen the stream: never.
    #[must_use]
    pub const fn was_processed(&self) -> Processed {
        Processed::No
    }

    /// Whether trying again, perhaps on another session, may succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::BlockTooLong { .. } | Self::MessageTooLong { .. } | Self::NotThisSide => false,
            Self::NoCredit | Self::TooManyPending { .. } => true,
            Self::Session(error) => error.is_retryable(),
        }
    }
}
