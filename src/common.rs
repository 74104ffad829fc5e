//! The one error that all others convert into.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};

use crate::addr::{AddrError, UnknownDriver, UnknownWire};
use crate::config::ConfigError;
use crate::connect::{ConnectError, DialError, EngineError, ListenError, Refusal, SocketError};
use crate::error::{
    Chain, LimitExceeded, OpenError, PingError, Processed, ProtocolError, SendError, SessionError,
    StreamError, TrySendError, into_io,
};
#[cfg(feature = "manage")]
use crate::manage::{Doubt, Dropped, ManageError, ProvideError, PushError};
#[cfg(feature = "rpc")]
use crate::rpc::Status;
use crate::wire::native::frame::FrameError;

/// Any error of this crate: the return type of functions that connect, open a stream, send and receive.
///
/// Every other error converts into it by `?`, an [`io::Error`] as well, and it converts into an [`io::Error`]. It answers the
/// same two questions as they do; `{:#}` shows its whole chain of sources on one line, and so does `{:?}`, which a `main`
/// that returns it prints.
///
/// # Examples
/// ```
/// use ringmux::{Error, Processed, Session, SessionError};
///
/// async fn call(session: &Session) -> Result<bytes::Bytes, Error> {
///     let (mut send, mut recv) = session.open("greetings").await?; // an OpenError
///     send.send("hello").await?; // a SendError
///     send.finish()?;
///     let answer = recv.recv().await?; // a StreamError
///     Ok(answer.unwrap_or_default())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// # let (a, b) = tokio::io::duplex(4096);
/// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
/// # tokio::spawn(connection);
/// client.close();
/// client.closed().await;
/// let error = call(&client).await.unwrap_err();
/// assert_eq!(error.was_processed(), Processed::No);
/// assert!(matches!(error.find::<SessionError>(), Some(SessionError::Closed)));
/// # drop(b);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub enum Error {
    /// A session ended.
    Session(SessionError),
    /// A round trip was not measured.
    Ping(PingError),
    /// A stream ended.
    Stream(StreamError),
    /// A message was not accepted for sending.
    Send(Box<SendError>),
    /// `try_send` did not take a message; contains the message.
    TrySend(Box<TrySendError>),
    /// A stream could not be opened.
    Open(OpenError),
    /// Connecting failed.
    Connect(Box<ConnectError>),
    /// Dialling a name failed.
    Dial(Box<DialError>),
    /// Listening failed.
    Listen(Box<ListenError>),
    /// A given socket is unsuitable.
    Socket(Box<SocketError>),
    /// No engine could be made, or it has stopped.
    Engine(Box<EngineError>),
    /// A rule of the protocol was broken.
    Protocol(Box<ProtocolError>),
    /// A limit was tripped.
    Limit(LimitExceeded),
    /// An address is invalid.
    Addr(Box<AddrError>),
    /// A driver's name is unknown.
    Driver(UnknownDriver),
    /// A wire's name is unknown.
    Wire(UnknownWire),
    /// A setting is outside its range.
    Config(Box<ConfigError>),
    /// io_uring is not available.
    Refused(Box<Refusal>),
    /// A manager returned no session.
    #[cfg(feature = "manage")]
    Manage(Box<ManageError>),
    /// A manager's attempt to get a session failed.
    #[cfg(feature = "manage")]
    Provide(Box<ProvideError>),
    /// An outbox did not take a message; contains the message.
    #[cfg(feature = "manage")]
    Push(Box<PushError>),
    /// The outcome of an outbox's message is unknown.
    #[cfg(feature = "manage")]
    Doubt(Box<Doubt>),
    /// An outbox did not send a message.
    #[cfg(feature = "manage")]
    Dropped(Box<Dropped>),
    /// A call failed.
    #[cfg(feature = "rpc")]
    Status(Status),
    /// Any other I/O error.
    Io(io::Error),
}

const _: () = assert!(size_of::<Error>() <= 5 * size_of::<usize>());

/// The same expression for every variant.
macro_rules! each {
    ($error:expr, $inner:ident => $answer:expr, io: $io:expr) => {
        match $error {
            Error::Session($inner) => $answer,
            Error::Ping($inner) => $answer,
            Error::Stream($inner) => $answer,
            Error::Send($inner) => $answer,
            Error::TrySend($inner) => $answer,
            Error::Open($inner) => $answer,
            Error::Connect($inner) => $answer,
            Error::Dial($inner) => $answer,
            Error::Listen($inner) => $answer,
            Error::Socket($inner) => $answer,
            Error::Engine($inner) => $answer,
            Error::Protocol($inner) => $answer,
            Error::Limit($inner) => $answer,
            Error::Addr($inner) => $answer,
            Error::Driver($inner) => $answer,
            Error::Wire($inner) => $answer,
            Error::Config($inner) => $answer,
            Error::Refused($inner) => $answer,
            #[cfg(feature = "manage")]
            Error::Manage($inner) => $answer,
            #[cfg(feature = "manage")]
            Error::Provide($inner) => $answer,
            #[cfg(feature = "manage")]
            Error::Push($inner) => $answer,
            #[cfg(feature = "manage")]
            Error::Doubt($inner) => $answer,
            #[cfg(feature = "manage")]
            Error::Dropped($inner) => $answer,
            #[cfg(feature = "rpc")]
            Error::Status($inner) => $answer,
            Error::Io($inner) => $io,
        }
    };
}

impl Error {
    /// Whether trying again may succeed without running anything twice; false for a foreign [`io::Error`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        each!(self, error => error.is_retryable(), io: { let _ = error; false })
    }

    /// Whether the peer's application can have seen the message; unknown for a foreign [`io::Error`].
    #[must_use]
    pub fn was_processed(&self) -> Processed {
        each!(self, error => error.was_processed(), io: { let _ = error; Processed::Maybe })
    }

    /// Finds the first error of type `T`: the converted error, errors wrapped in it, and their sources.
    #[must_use]
    pub fn find<T: StdError + 'static>(&self) -> Option<&T> {
        let mut next = Some(self.inner());
        while let Some(error) = next {
            let shared = || error.downcast_ref::<std::sync::Arc<T>>().map(|arc| &**arc);
            if let Some(found) = error.downcast_ref::<T>().or_else(shared) {
                return Some(found);
            }
            next = inside(error).or_else(|| error.source());
        }
        None
    }

    /// The error that was converted.
    fn inner(&self) -> &(dyn StdError + 'static) {
        fn plain<E: StdError + 'static>(error: &E) -> &(dyn StdError + 'static) {
            error
        }
        match self {
            Self::Send(error) => plain(&**error),
            Self::TrySend(error) => plain(&**error),
            Self::Connect(error) => plain(&**error),
            Self::Dial(error) => plain(&**error),
            Self::Listen(error) => plain(&**error),
            Self::Socket(error) => plain(&**error),
            Self::Engine(error) => plain(&**error),
            Self::Protocol(error) => plain(&**error),
            Self::Addr(error) => plain(&**error),
            Self::Config(error) => plain(&**error),
            Self::Refused(error) => plain(&**error),
            #[cfg(feature = "manage")]
            Self::Manage(error) => plain(&**error),
            #[cfg(feature = "manage")]
            Self::Provide(error) => plain(&**error),
            #[cfg(feature = "manage")]
            Self::Push(error) => plain(&**error),
            #[cfg(feature = "manage")]
            Self::Doubt(error) => plain(&**error),
            #[cfg(feature = "manage")]
            Self::Dropped(error) => plain(&**error),
            #[cfg(feature = "rpc")]
            Self::Status(error) => plain(error),
            Self::Session(error) => plain(error),
            Self::Ping(error) => plain(error),
            Self::Stream(error) => plain(error),
            Self::Open(error) => plain(error),
            Self::Limit(error) => plain(error),
            Self::Driver(error) => plain(error),
            Self::Wire(error) => plain(error),
            Self::Io(error) => plain(error),
        }
    }
}

/// The error wrapped by one that shows the wrapped text as its own, and so has the wrapped one's source.
fn inside<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<SendError>() {
        return match error {
            SendError::Stream(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<StreamError>() {
        return match error {
            StreamError::Session(inner) => Some(inner),
            StreamError::LimitExceeded(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<SessionError>() {
        return match error {
            SessionError::LimitExceeded(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<ProtocolError>() {
        return match error {
            ProtocolError::Frame(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(PingError::Session(inner)) = error.downcast_ref() {
        return Some(inner);
    }
    if let Some(OpenError::Session(inner)) = error.downcast_ref() {
        return Some(inner);
    }
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        return match error {
            ConnectError::Addr(inner) => Some(inner),
            ConnectError::Engine(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<ListenError>() {
        return match error {
            ListenError::Addr(inner) => Some(inner),
            ListenError::Engine(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|inner| inner as _);
    }
    #[cfg(feature = "manage")]
    return inside_managed(error);
    #[cfg(not(feature = "manage"))]
    None
}

#[cfg(feature = "manage")]
fn inside_managed<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let shared = || {
        let shared = error.downcast_ref::<std::sync::Arc<ProvideError>>();
        shared.map(|error| &**error)
    };
    if let Some(error) = error.downcast_ref().or_else(shared) {
        return match error {
            ProvideError::Connect(inner) => Some(inner),
            ProvideError::Listen(inner) => Some(inner),
            ProvideError::Other(inner) => Some(&**inner),
            _ => None,
        };
    }
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(Doubt::Ended(inner)), _) => Some(inner),
        (_, Some(Dropped::Opening(inner))) => Some(inner),
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.alternate() {
            true => Chain(self.inner()).fmt(f),
            false => fmt::Display::fmt(self.inner(), f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self.inner()))
    }
}

/// It adds no text, so its source is the source of the converted error.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner().source()
    }
}

// ---- into it, and out of it -------------------------------------------------------------------

macro_rules! from {
    ($($error:ty => $make:expr),+ $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                $make(error)
            }
        })+
    };
}

fn boxed<E>(make: impl FnOnce(Box<E>) -> Error) -> impl FnOnce(E) -> Error {
    |error| make(Box::new(error))
}

from! {
    SessionError => Error::Session,
    PingError => Error::Ping,
    StreamError => Error::Stream,
    SendError => boxed(Error::Send),
    TrySendError => boxed(Error::TrySend),
    OpenError => Error::Open,
    ConnectError => boxed(Error::Connect),
    DialError => boxed(Error::Dial),
    ListenError => boxed(Error::Listen),
    SocketError => boxed(Error::Socket),
    EngineError => boxed(Error::Engine),
    ProtocolError => boxed(Error::Protocol),
    LimitExceeded => Error::Limit,
    AddrError => boxed(Error::Addr),
    UnknownDriver => Error::Driver,
    UnknownWire => Error::Wire,
    ConfigError => boxed(Error::Config),
    Refusal => boxed(Error::Refused),
}

#[cfg(feature = "manage")]
from! {
    ManageError => boxed(Error::Manage),
    ProvideError => boxed(Error::Provide),
    PushError => boxed(Error::Push),
    Doubt => boxed(Error::Doubt),
    Dropped => boxed(Error::Dropped),
}

#[cfg(feature = "rpc")]
from! {
    Status => Error::Status,
}

#[cfg(feature = "rpc")]
impl From<Error> for Status {
    /// A status that was converted before comes out again; what no call can come from is internal.
    fn from(error: Error) -> Self {
        match error {
            Error::Status(status) => status,
            Error::Session(error) => error.into(),
            Error::Ping(error) => error.into(),
            Error::Stream(error) => error.into(),
            Error::Send(error) => (*error).into(),
            Error::Open(error) => error.into(),
            Error::Connect(error) => (*error).into(),
            Error::Engine(error) => (*error).into(),
            Error::Protocol(error) => (*error).into(),
            Error::Limit(error) => error.into(),
            #[cfg(feature = "manage")]
            Error::Manage(error) => (*error).into(),
            other => Self::internal(format!("{other:#}")),
        }
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        ProtocolError::from(error).into()
    }
}

/// Returns the error inside of an [`io::Error`], if it is of one of these types.
macro_rules! unwrap {
    ($error:ident, $($inner:ty),+) => {
        let mut $error = $error;
        $(match $error.downcast::<$inner>() {
            Ok(inner) => return inner.into(),
            Err(other) => $error = other,
        })+
        let $error = $error;
    };
}

impl From<io::Error> for Error {
    /// An error of this crate inside of the [`io::Error`] is taken out again.
    fn from(error: io::Error) -> Self {
        unwrap!(
            error,
            SendError,
            StreamError,
            SessionError,
            PingError,
            TrySendError,
            OpenError,
            ConnectError,
            DialError,
            ListenError,
            SocketError,
            EngineError,
            ProtocolError,
            LimitExceeded,
            AddrError,
            UnknownDriver,
            UnknownWire,
            ConfigError,
            Refusal,
            FrameError
        );
        #[cfg(feature = "manage")]
        unwrap!(error, ManageError, ProvideError, PushError, Doubt, Dropped);
        #[cfg(feature = "rpc")]
        unwrap!(error, Status);
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

impl From<Error> for io::Error {
    /// The error that was converted is inside: see [`get_ref`](io::Error::get_ref).
    fn from(error: Error) -> Self {
        match error {
            Error::Session(error) => error.into(),
            Error::Ping(error) => error.into(),
            Error::Stream(error) => error.into(),
            Error::Open(error) => error.into(),
            Error::Limit(error) => error.into(),
            Error::Driver(error) => error.into(),
            Error::Wire(error) => error.into(),
            Error::Send(error) => (*error).into(),
            Error::TrySend(error) => (*error).into(),
            Error::Connect(error) => (*error).into(),
            Error::Dial(error) => (*error).into(),
            Error::Listen(error) => (*error).into(),
            Error::Socket(error) => (*error).into(),
            Error::Engine(error) => (*error).into(),
            Error::Protocol(error) => (*error).into(),
            Error::Addr(error) => (*error).into(),
            Error::Config(error) => (*error).into(),
            Error::Refused(error) => (*error).into(),
            #[cfg(feature = "manage")]
            Error::Manage(error) => (*error).into(),
            #[cfg(feature = "manage")]
            Error::Provide(error) => (*error).into(),
            #[cfg(feature = "manage")]
            Error::Push(error) => (*error).into(),
            #[cfg(feature = "manage")]
            Error::Doubt(error) => (*error).into(),
            #[cfg(feature = "manage")]
            Error::Dropped(error) => (*error).into(),
            #[cfg(feature = "rpc")]
            Error::Status(error) => error.into(),
            Error::Io(error) => error,
        }
    }
}

// ---- errors that a retry cannot change ---------------------------------------------------------------

macro_rules! wrong_from_the_start {
    ($($error:ident: $kind:ident),+ $(,)?) => {
        $(impl $error {
            /// Whether the same call may succeed later: never.
            #[must_use]
            pub const fn is_retryable(&self) -> bool {
                false
            }

            /// Whether a peer can have processed anything: never.
            #[must_use]
            pub const fn was_processed(&self) -> Processed {
                Processed::No
            }

            const fn io_kind(&self) -> ErrorKind {
                ErrorKind::$kind
            }
        })+

        into_io!($($error),+);
    };
}

wrong_from_the_start! {
    AddrError: InvalidInput,
    UnknownDriver: InvalidInput,
    UnknownWire: InvalidInput,
    ConfigError: InvalidInput,
    Refusal: Unsupported,
    FrameError: InvalidData,
}

#[cfg(test)]
mod tests;
