//! Why a call failed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind};

use bytes::Bytes;

use super::code::Code;
use super::metadata::Metadata;
use crate::error::Processed;

/// Who says that a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The application that serves the call: its handler, or an interceptor.
    Handler,
    /// The library at the peer: an unknown method, a bound, a deadline, a handler that panicked.
    PeerLibrary,
    /// The library here: a deadline, a cancel, a message that cannot be encoded.
    Library,
    /// The session or the stream under the call.
    Transport,
}

/// Why a call failed: a code, words, and whether the call may have run.
///
/// A handler returns one, and a caller gets it as the handler made it. Every error of the transport converts into one by `?`.
/// It is one word, so a `Result` with it stays small.
///
/// A handler may return by `?` what ended a call that it made itself, or a connect, or a send: code, text, details and metadata reach its
/// caller, with [`Origin::Handler`] and as a call that was [processed](Self::was_processed), since this handler has run.
///
/// # Examples
/// ```
/// use ringmux::rpc::{Code, Origin, Status};
/// use ringmux::{Processed, SessionError, StreamError};
///
/// let status = Status::not_found("no account 7");
/// assert_eq!(status.code(), Code::NOT_FOUND);
/// assert_eq!(status.to_string(), "not-found: no account 7");
/// assert!(!status.is_retryable()); // the handler has run
///
/// // The connection was lost before the call has left.
/// let status = Status::from(StreamError::NotProcessed(SessionError::Disconnected));
/// assert_eq!((status.code(), status.origin()), (Code::UNAVAILABLE, Origin::Transport));
/// assert_eq!(status.was_processed(), Processed::No);
/// assert!(status.is_retryable());
/// ```
#[derive(Clone)]
pub struct Status(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    origin: Origin,
    processed: Processed,
    retry: bool,
    /// The application has said here that the call was not processed; nothing that came from elsewhere has this.
    not_processed_here: bool,
    message: Cow<'static, str>,
    details: Bytes,
    metadata: Metadata,
}

macro_rules! short {
    ($($name:ident = $code:ident;)+) => {
        $(#[doc = concat!("A status with [`Code::", stringify!($code), "`].")]
        #[must_use]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Code::$code, message)
        })+
    };
}

impl Status {
    /// A status for a caller; [`Code::OK`] is no failure, and becomes [`Code::UNKNOWN`]. Of the message 1 KiB is sent.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code: if code == Code::OK {
                Code::UNKNOWN
            } else {
                code
            },
            origin: Origin::Handler,
            processed: Processed::Yes,
            retry: false,
            not_processed_here: false,
            message: message.into(),
            details: Bytes::new(),
            metadata: Metadata::new(),
        }))
    }

    short! {
        cancelled = CANCELLED;
        unknown = UNKNOWN;
        invalid_argument = INVALID_ARGUMENT;
        deadline_exceeded = DEADLINE_EXCEEDED;
        not_found = NOT_FOUND;
        already_exists = ALREADY_EXISTS;
        permission_denied = PERMISSION_DENIED;
        resource_exhausted = RESOURCE_EXHAUSTED;
        failed_precondition = FAILED_PRECONDITION;
        aborted = ABORTED;
        out_of_range = OUT_OF_RANGE;
        unimplemented = UNIMPLEMENTED;
        internal = INTERNAL;
        unavailable = UNAVAILABLE;
        data_loss = DATA_LOSS;
        unauthenticated = UNAUTHENTICATED;
    }

    /// The same with details for programs, opaque to ringmux; with the metadata they have 8 KiB, and are left out above.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Bytes>) -> Self {
        self.0.details = details.into();
        self
    }

    /// The same with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// The same, saying that nothing was done for the call, so that it can be tried again, here or elsewhere.
    ///
    /// The caller takes it at its word: say it only if it is true. It is the only way in which a handler that has begun can say it: a
    /// status or an error of another call that says so, and that a handler returns by `?`, is about that other call alone.
    #[must_use]
    pub fn not_processed(mut self) -> Self {
        self.0.processed = Processed::No;
        self.0.retry = true;
        self.0.not_processed_here = true;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Words for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Details for programs.
    #[must_use]
    pub fn details(&self) -> &Bytes {
        &self.0.details
    }

    /// Metadata that came with it.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Who says it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Whether the same call may succeed later, without running anything twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retry && self.0.processed == Processed::No
    }

    /// Whether the handler can have run, or has: [`Processed::No`] is a promise that it has not, or that it has said so itself, by
    /// [`not_processed`](Self::not_processed).
    ///
    /// It is about the call that gave this status. What a handler returns of a call that it has made itself, which was not processed,
    /// is [`Processed::Yes`] for the handler's own caller.
    #[must_use]
    pub fn was_processed(&self) -> Processed {
        self.0.processed
    }

    /// What the library of this side says.
    pub(super) fn library(
        code: Code,
        processed: Processed,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut status = Self::new(code, text);
        status.0.origin = Origin::Library;
        status.0.processed = processed;
        status
    }

    /// What a call that this side ended is for its caller.
    pub(super) fn given_up(code: Code, processed: Processed) -> Self {
        let text = match code {
            Code::DEADLINE_EXCEEDED => "the time for the call ran out",
            Code::FAILED_PRECONDITION => {
                "a call that waits needs a runtime of tokio, with time enabled"
            }
            _ => "the call was cancelled by this side",
        };
        Self::library(code, processed, text)
    }

    /// The same of a call that this side ended before there was a place for it.
    pub(super) fn waited_for_place(mut self) -> Self {
        if self.0.code == Code::DEADLINE_EXCEEDED {
            self.0.message = "the time for the call ran out while it waited for a place: the server grants its session no more streams \
                              at once (its setting `max_streams`; some wires carry one call at a time)"
                .into();
        }
        self
    }

    /// What the transport says.
    pub(super) fn transport(code: Code, processed: Processed, retry: bool, text: String) -> Self {
        let mut status = Self::new(code, text);
        status.0.origin = Origin::Transport;
        status.0.processed = processed;
        status.0.retry = retry;
        status
    }

    /// What a peer says.
    pub(super) fn said_by(mut self, origin: Origin, processed: Processed, retry: bool) -> Self {
        self.0.origin = origin;
        self.0.processed = processed;
        self.0.retry = retry;
        self.0.not_processed_here = false;
        self
    }

    /// What the handler of a call says that has begun: wherever the status is from, its caller has it of the handler, which has run
    /// unless it has said otherwise itself.
    pub(super) fn of_handler(mut self) -> Self {
        self.0.origin = Origin::Handler;
        match self.0.not_processed_here {
            true => self,
            false => self.has_run(),
        }
    }

    /// What a layer says before the handler begins.
    #[cfg(feature = "rpc-tower")]
    pub(super) fn before_handler(mut self) -> Self {
        self.0.origin = Origin::Handler;
        self.0.processed = Processed::No;
        self
    }

    /// The outcome of a call for its caller, who may return it as the status of a call that it serves: `not_processed` is of the first alone.
    pub(super) fn of_call(mut self) -> Self {
        self.0.not_processed_here = false;
        self
    }

    /// The same of a call whose handler has run.
    pub(super) fn has_run(mut self) -> Self {
        self.0.processed = Processed::Yes;
        self.0.retry = false;
        self.0.not_processed_here = false;
        self
    }

    /// The same, not run for a reason that may pass.
    pub(super) fn refused(mut self) -> Self {
        self.0.processed = Processed::No;
        self.0.retry = true;
        self
    }

    pub(crate) fn io_kind(&self) -> ErrorKind {
        match self.0.code {
            Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => ErrorKind::InvalidInput,
            Code::DEADLINE_EXCEEDED => ErrorKind::TimedOut,
            Code::NOT_FOUND => ErrorKind::NotFound,
            Code::ALREADY_EXISTS => ErrorKind::AlreadyExists,
            Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => ErrorKind::PermissionDenied,
            Code::UNIMPLEMENTED => ErrorKind::Unsupported,
            Code::DATA_LOSS => ErrorKind::InvalidData,
            Code::UNAVAILABLE => ErrorKind::ConnectionReset,
            Code::CANCELLED => ErrorKind::ConnectionAborted,
            _ => ErrorKind::Other,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            "" => self.code().fmt(f),
            message => write!(f, "{}: {message}", self.code()),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("origin", &self.0.origin)
            .field("processed", &self.0.processed)
            .field("details", &self.0.details.len())
            .field("metadata", &self.0.metadata)
            .finish()
    }
}

impl std::error::Error for Status {}

impl From<Status> for io::Error {
    /// The status is inside: see [`get_ref`](io::Error::get_ref).
    fn from(status: Status) -> Self {
        Self::new(status.io_kind(), status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_grpc_but_ok_has_its_function() {
        let all: [fn(&'static str) -> Status; 16] = [
            Status::cancelled,
            Status::unknown,
            Status::invalid_argument,
            Status::deadline_exceeded,
            Status::not_found,
            Status::already_exists,
            Status::permission_denied,
            Status::resource_exhausted,
            Status::failed_precondition,
            Status::aborted,
            Status::out_of_range,
            Status::unimplemented,
            Status::internal,
            Status::unavailable,
            Status::data_loss,
            Status::unauthenticated,
        ];
        for (number, make) in (1..).zip(all) {
            let status = make("words");
            assert_eq!(
                (status.code(), status.message()),
                (Code::new(number), "words")
            );
            assert_eq!(status.origin(), Origin::Handler);
        }
    }
}
