//! A row for each variant of each error: its text, its answers, its conversions.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::addr::{Addr, Driver, Wire};
use crate::connect::ProbeStep;
use crate::error::codes;
use crate::error::{Failure, Limit, NotCarried, Side};

/// The variants of an error, by name.
trait Variants {
    const ALL: &'static [&'static str];
    fn variant(&self) -> &'static str;
}

macro_rules! variants {
    ($($error:ident: $($variant:ident),+;)+) => {
        $(impl Variants for $error {
            const ALL: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn variant(&self) -> &'static str {
                match self {
                    $($error::$variant { .. } => stringify!($variant),)+
                }
            }
        })+
    };
}

variants! {
    SessionError: Closed, PeerClosed, Disconnected, Io, Protocol, LimitExceeded, HandshakeTimeout, KeepaliveTimeout,
        WriteTimeout, EngineStopped;
    PingError: NotCarried, Session;
    StreamError: Failed, Cancelled, NotProcessed, NotSent, LimitExceeded, Session;
    SendError: TooLong, Stopped, TooManyMetas, NotCarried, Finished, Stream;
    TrySendError: Full, Refused;
    OpenError: BlockTooLong, MessageTooLong, NoCredit, TooManyPending, NotThisSide, Session;
    EngineError: Unavailable, Refused, NotBuiltIn, NoRuntime, ManyThreads, RuntimeLacks, InsideRuntime, DoesNotApply, Processor, Stopped;
    ConnectError: Addr, Engine, Io, TimedOut, Handshake, Socket, NoSession;
    SocketError: NotASocket, NotAStream, Family, NotListening, Listening, NotConnected, Io;
    DialError: Lookup, Failed, TimedOut;
    ListenError: Addr, Engine, NotShareable, Socket, ShutDown, Io;
}

#[cfg(feature = "manage")]
variants! {
    ManageError: ShuttingDown, NotReady, TooManyWaiting, NotStarted, NoRuntime, AlreadyStarted;
    ProvideError: Connect, Listen, TimedOut, Ended, Hook, HookTimedOut, HookPanicked, Panicked, Other;
    PushError: Full, Closed;
    Doubt: Ended, Late, Stopped;
    Dropped: Closed, TooOld, TooLong, Opening;
}

/// Checks rows, and that no variant is missing.
#[derive(Default)]
struct Table(BTreeSet<&'static str>);

impl Table {
    /// `says` is the whole chain.
    fn row<E>(
        &mut self,
        make: impl Fn() -> E,
        answers: (bool, Processed),
        kind: ErrorKind,
        says: &str,
    ) where
        E: StdError + Variants + Into<Error> + Into<io::Error> + 'static,
    {
        self.0.insert(make().variant());
        row(make, answers, kind, says);
    }

    fn has_all_of<E: Variants>(self) {
        assert_eq!(self.0, E::ALL.iter().copied().collect(), "rows");
    }
}

fn row<E>(make: impl Fn() -> E, answers: (bool, Processed), kind: ErrorKind, says: &str)
where
    E: StdError + Into<Error> + Into<io::Error> + 'static,
{
    let own = make();
    assert_eq!(Chain(&own).to_string(), says);
    assert!(!says.contains('\n'), "{says}");
    let (mut said, mut source) = (own.to_string(), own.source());
    while let Some(error) = source {
        assert!(!said.contains(&error.to_string()), "said twice: {says}");
        said += &error.to_string();
        source = error.source();
    }
    for shown in [format!("{own:?}"), says.to_owned()] {
        let reserved = |code: u32| shown.contains(&code.to_string());
        assert!(
            !(codes::FIRST_RESERVED..=codes::UNAVAILABLE).any(reserved),
            "{shown}"
        );
    }

    let common: Error = make().into();
    assert_eq!(common.to_string(), own.to_string());
    assert_eq!(
        (format!("{common:#}"), format!("{common:?}")),
        (says.into(), says.into())
    );
    assert_eq!(
        (common.is_retryable(), common.was_processed()),
        answers,
        "{says}"
    );
    let source = |error: &dyn StdError| error.source().map(ToString::to_string);
    assert_eq!(source(&common), source(&own));
    assert!(common.find::<E>().is_some(), "{says}");

    let io: io::Error = make().into();
    assert_eq!(
        (io.kind(), io.to_string()),
        (kind, own.to_string()),
        "{says}"
    );
    assert!(
        io.get_ref()
            .is_some_and(<dyn StdError + Send + Sync>::is::<E>),
        "{says}"
    );
    let again = Error::from(io);
    assert!(again.find::<E>().is_some(), "{says}");
    assert_eq!(
        (again.is_retryable(), again.was_processed()),
        answers,
        "{says}"
    );
    let io: io::Error = common.into();
    assert!(
        io.get_ref()
            .is_some_and(<dyn StdError + Send + Sync>::is::<E>),
        "{says}"
    );
}

const NO: (bool, Processed) = (false, Processed::No);
const AGAIN: (bool, Processed) = (true, Processed::No);
const MAYBE: (bool, Processed) = (false, Processed::Maybe);
/// A new session may succeed; messages sent on the old one may have arrived.
const ANOTHER: (bool, Processed) = (true, Processed::Maybe);

const TIME: Duration = Duration::from_secs(5);

fn reset() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNRESET)
}

fn exceeded() -> LimitExceeded {
    LimitExceeded {
        limit: Limit::ResetRate,
        value: 7,
    }
}

fn addr() -> Addr {
    "tcp://host:1".parse().expect("an address")
}

fn no_addr() -> AddrError {
    "host".parse::<Addr>().expect_err("no address")
}

fn refusal() -> Refusal {
    Refusal::Io {
        step: ProbeStep::Nop,
        error: Arc::new(reset()),
    }
}

#[test]
fn errors_of_sessions() {
    use SessionError as E;
    let mut table = Table::default();
    let closed = |code, reason: &str| E::PeerClosed {
        code,
        reason: reason.into(),
    };
    let reset_kind = ErrorKind::ConnectionReset;
    for (code, reason, says) in [
        (codes::NO_ERROR, "", "the peer closed the session in order"),
        (
            codes::SHUTDOWN,
            "",
            "the peer closed the session: it is shutting down",
        ),
        (
            codes::LIMIT_EXCEEDED,
            "limit ping-rate",
            "the peer closed the session: it says that this side exceeded one of its limits (limit ping-rate)",
        ),
        (
            codes::PROTOCOL,
            "",
            "the peer closed the session: it says that this side broke the protocol",
        ),
        (
            codes::INTERNAL,
            "",
            "the peer closed the session: it had an internal error",
        ),
        (7, "why", "the peer closed the session with code 7 (why)"),
    ] {
        table.row(|| closed(code, reason), ANOTHER, reset_kind, says);
    }
    table.row(
        || E::Closed,
        MAYBE,
        ErrorKind::NotConnected,
        "the session was closed by this side",
    );
    table.row(
        || E::Disconnected,
        ANOTHER,
        reset_kind,
        "the peer closed the connection without ending the session",
    );
    table.row(
        || E::Io(Arc::new(reset())),
        ANOTHER,
        reset_kind,
        "the connection failed: Connection reset by peer (os error 104)",
    );
    table.row(
        || E::Protocol(ProtocolError::SettingsTwice),
        MAYBE,
        ErrorKind::InvalidData,
        "the peer broke the protocol: SETTINGS must be sent once, as the first frame",
    );
    table.row(
        || E::LimitExceeded(exceeded()),
        ANOTHER,
        ErrorKind::ConnectionAborted,
        "limit reset-rate exceeded at 7 resets: see the setting reset_rate",
    );
    for (make, says) in [
        (
            E::HandshakeTimeout as fn(Duration) -> E,
            "the peer did not complete the handshake within 5s: is it a ringmux endpoint?",
        ),
        (
            E::KeepaliveTimeout,
            "the peer did not answer a keepalive PING within 5s",
        ),
        (
            E::WriteTimeout,
            "the connection took none of the bytes to be sent for 5s",
        ),
    ] {
        table.row(|| make(TIME), ANOTHER, ErrorKind::TimedOut, says);
    }
    table.row(
        || E::EngineStopped,
        ANOTHER,
        ErrorKind::NotConnected,
        "the engine that ran the session has stopped",
    );
    table.has_all_of::<E>();

    let mut table = Table::default();
    table.row(
        || PingError::NotCarried(NotCarried::Ping),
        NO,
        ErrorKind::Unsupported,
        "this session's wire has no PING, so no round trip can be measured",
    );
    table.row(
        || PingError::Session(E::Disconnected),
        ANOTHER,
        ErrorKind::ConnectionReset,
        "the peer closed the connection without ending the session",
    );
    table.has_all_of::<PingError>();
}

#[test]
fn errors_of_streams() {
    use StreamError as E;
    let mut table = Table::default();
    let failure = |code| {
        Arc::new(Failure {
            code,
            message: "no such thing".into(),
            details: Bytes::new(),
        })
    };
    let answered = (false, Processed::Yes);
    table.row(
        || E::Failed(failure(7)),
        answered,
        ErrorKind::Other,
        "the peer failed the stream with code 7: no such thing",
    );
    table.row(
        || E::Failed(failure(codes::INTERNAL)),
        answered,
        ErrorKind::Other,
        "the peer failed the stream with code internal: no such thing",
    );
    let cancelled = |by, code| move || E::Cancelled { by, code };
    let kinds = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];
    for (by, code, answers, says) in [
        (
            Side::Peer,
            codes::CANCELLED,
            MAYBE,
            "the peer cancelled the stream",
        ),
        (
            Side::This,
            codes::CANCELLED,
            MAYBE,
            "this side cancelled the stream",
        ),
        (
            Side::Peer,
            7,
            MAYBE,
            "the peer cancelled the stream with code 7",
        ),
        (
            Side::Peer,
            codes::DEADLINE,
            MAYBE,
            "the peer cancelled the stream: its deadline has passed",
        ),
        (
            Side::Peer,
            codes::REFUSED,
            AGAIN,
            "the peer refused the stream without processing it",
        ),
        (
            Side::Peer,
            codes::UNAVAILABLE,
            AGAIN,
            "the peer refused the stream without processing it: a limit was reached, or the session is \
             about to end",
        ),
        // The peer may have seen this side's messages.
        (
            Side::This,
            codes::REFUSED,
            MAYBE,
            "this side refused the stream without processing it",
        ),
    ] {
        let kind = kinds[usize::from(by == Side::Peer)];
        table.row(cancelled(by, code), answers, kind, says);
    }
    table.row(
        || E::NotProcessed(SessionError::Closed),
        AGAIN,
        ErrorKind::ConnectionRefused,
        "the peer did not process the stream: the session was closed by this side",
    );
    table.row(
        || E::NotSent {
            code: codes::DEADLINE,
        },
        AGAIN,
        ErrorKind::ConnectionAborted,
        "before it was sent, this side cancelled the stream: its deadline has passed",
    );
    table.row(
        || E::LimitExceeded(exceeded()),
        MAYBE,
        ErrorKind::ConnectionAborted,
        "limit reset-rate exceeded at 7 resets: see the setting reset_rate",
    );
    table.row(
        || E::Session(SessionError::Io(Arc::new(reset()))),
        MAYBE,
        ErrorKind::ConnectionReset,
        "the connection failed: Connection reset by peer (os error 104)",
    );
    table.has_all_of::<E>();
}

#[test]
fn errors_of_sending() {
    use SendError as E;
    let mut table = Table::default();
    let too_long = || E::TooLong { len: 5, limit: 4 };
    let long = "a message of 5 bytes exceeds the peer's limit of 4";
    table.row(too_long, NO, ErrorKind::InvalidInput, long);
    let stopped = |code| move || E::Stopped { code };
    let kind = ErrorKind::BrokenPipe;
    let asked = "the peer asked this side to stop sending";
    table.row(stopped(codes::CANCELLED), MAYBE, kind, asked);
    table.row(stopped(7), MAYBE, kind, &format!("{asked} with code 7"));
    table.row(
        || E::TooManyMetas,
        NO,
        ErrorKind::InvalidInput,
        "the stream has carried two opaque blocks already",
    );
    table.row(
        || E::NotCarried(NotCarried::Meta),
        NO,
        ErrorKind::Unsupported,
        "this session's wire carries no blocks between messages",
    );
    table.row(
        || E::Finished,
        NO,
        kind,
        "the stream was already finished by this side",
    );
    table.row(
        || E::Stream(StreamError::NotProcessed(SessionError::Disconnected)),
        AGAIN,
        ErrorKind::ConnectionRefused,
        "the peer did not process the stream: the peer closed the connection without ending the session",
    );
    table.has_all_of::<E>();

    let mut table = Table::default();
    let message = Bytes::new;
    table.row(
        || TrySendError::Full(message()),
        AGAIN,
        ErrorKind::WouldBlock,
        "the stream's send queue is full",
    );
    table.row(
        || TrySendError::Refused {
            message: message(),
            error: too_long(),
        },
        NO,
        ErrorKind::InvalidInput,
        &format!("the message was refused: {long}"),
    );
    table.has_all_of::<TrySendError>();
}

#[test]
fn errors_of_opening() {
    use OpenError as E;
    let mut table = Table::default();
    table.row(
        || E::BlockTooLong { len: 5, limit: 4 },
        NO,
        ErrorKind::InvalidInput,
        "an opening block of 5 bytes exceeds the limit of 4",
    );
    table.row(
        || E::MessageTooLong { len: 5, limit: 4 },
        NO,
        ErrorKind::InvalidInput,
        "a message of 5 bytes exceeds the 4 that the peer accepts",
    );
    table.row(
        || E::NoCredit,
        AGAIN,
        ErrorKind::WouldBlock,
        "the peer has granted no further stream for now",
    );
    table.row(
        || E::TooManyPending { limit: 3 },
        AGAIN,
        ErrorKind::WouldBlock,
        "3 calls of open are waiting already: raise max_pending_opens or open less",
    );
    table.row(
        || E::NotThisSide,
        NO,
        ErrorKind::Unsupported,
        "the side that accepted the connection cannot open streams over this wire",
    );
    table.row(
        || E::Session(SessionError::Disconnected),
        AGAIN,
        ErrorKind::ConnectionReset,
        "the peer closed the connection without ending the session",
    );
    table.has_all_of::<E>();
}

#[test]
fn errors_of_engines_and_connections() {
    let mut table = Table::default();
    let unavailable = |errno| {
        move || EngineError::Unavailable {
            driver: Driver::Tokio,
            error: io::Error::from_raw_os_error(errno),
        }
    };
    let no_threads = "the driver tokio cannot start (no thread can be made: raise the limits on tasks (ulimit -u; \
                      systemd: TasksMax=, LimitNPROC=)): Resource temporarily unavailable (os error 11)";
    table.row(
        unavailable(libc::EAGAIN),
        AGAIN,
        ErrorKind::WouldBlock,
        no_threads,
    );
    table.row(
        unavailable(libc::EPERM),
        NO,
        ErrorKind::PermissionDenied,
        "the driver tokio cannot start: Operation not permitted (os error 1)",
    );
    table.row(
        || EngineError::Refused(refusal()),
        NO,
        ErrorKind::Unsupported,
        "the driver uring cannot start (use the driver tokio, and report this with the kernel's release): io_uring \
         failed in no-op: Connection reset by peer (os error 104)",
    );
    table.row(
        || EngineError::NoRuntime {
            driver: Driver::Tokio,
        },
        NO,
        ErrorKind::Other,
        &EngineError::NoRuntime {
            driver: Driver::Tokio,
        }
        .to_string(),
    );
    let (driver, place) = (Driver::TokioUring, "an inline");
    let no_thread_of_its_own = || EngineError::DoesNotApply {
        driver,
        option: "cpu",
        place,
        why: "it runs where the application does",
    };
    let no_processor = || EngineError::Processor {
        cpu: 9999,
        allowed: "0-3".into(),
    };
    table.row(
        no_thread_of_its_own,
        NO,
        ErrorKind::InvalidInput,
        "the option cpu does not apply to an inline tokio-uring engine: it runs where the application does",
    );
    table.row(
        no_processor,
        NO,
        ErrorKind::InvalidInput,
        "processor 9999 cannot be used: this process may run on 0-3",
    );
    table.row(
        || EngineError::ManyThreads { driver },
        NO,
        ErrorKind::Other,
        "an inline tokio-uring engine needs a runtime of one thread, and this one has several: build it with \
         tokio_uring::start, or take Engine::thread",
    );
    table.row(
        || EngineError::NotBuiltIn { driver },
        NO,
        ErrorKind::Unsupported,
        "the driver tokio-uring is not built in: turn ringmux's feature tokio-uring on, or take another driver",
    );
    table.row(
        || EngineError::RuntimeLacks { what: "time" },
        NO,
        ErrorKind::Other,
        "the runtime has no time: build it with enable_all()",
    );
    table.row(
        || EngineError::InsideRuntime,
        NO,
        ErrorKind::Other,
        "block_on cannot wait inside of another runtime: call it on a thread of its own, or use Engine::inline",
    );
    let stopped = "the engine has stopped";
    table.row(
        || EngineError::Stopped,
        NO,
        ErrorKind::NotConnected,
        stopped,
    );
    table.has_all_of::<EngineError>();

    let mut table = Table::default();
    let kind = ErrorKind::InvalidInput;
    let no_addr_says = no_addr().to_string();
    table.row(|| ConnectError::Addr(no_addr()), NO, kind, &no_addr_says);
    table.row(
        || ConnectError::Engine(unavailable(libc::EAGAIN)()),
        AGAIN,
        ErrorKind::WouldBlock,
        no_threads,
    );
    table.row(
        || ConnectError::Io {
            addr: addr(),
            error: reset(),
        },
        AGAIN,
        ErrorKind::ConnectionReset,
        "cannot connect to tcp://host:1: Connection reset by peer (os error 104)",
    );
    let silent = || DialError::TimedOut {
        limit: TIME,
        tried: Vec::new(),
    };
    table.row(
        || ConnectError::TimedOut {
            addr: addr(),
            error: silent(),
        },
        AGAIN,
        ErrorKind::TimedOut,
        &format!("cannot connect to tcp://host:1: {}", silent()),
    );
    table.row(
        || ConnectError::Handshake {
            addr: addr(),
            error: SessionError::Protocol(ProtocolError::SettingsTwice),
        },
        NO,
        ErrorKind::InvalidData,
        "connected to tcp://host:1, but the handshake failed: the peer broke the protocol: SETTINGS must be sent \
         once, as the first frame",
    );
    table.row(
        || ConnectError::NoSession {
            error: SessionError::HandshakeTimeout(TIME),
        },
        AGAIN,
        ErrorKind::TimedOut,
        "the socket is connected, but the handshake failed: the peer did not complete the handshake within 5s: is \
         it a ringmux endpoint?",
    );
    table.row(
        || ConnectError::Socket {
            fd: 7,
            error: SocketError::Listening,
        },
        NO,
        kind,
        "cannot use descriptor 7: it listens, and a connected socket is needed",
    );
    table.has_all_of::<ConnectError>();

    let mut table = Table::default();
    type Make = fn() -> SocketError;
    for (make, kind, says) in [
        (
            (|| SocketError::NotASocket) as Make,
            kind,
            "it is not a socket",
        ),
        (
            || SocketError::NotAStream,
            kind,
            "it is a socket for datagrams, and a stream socket is needed",
        ),
        (
            || SocketError::Family { family: 40 },
            kind,
            "its address family is 40, and TCP (IPv4 or IPv6) or a Unix socket is needed",
        ),
        (|| SocketError::NotListening, kind, "it does not listen"),
        (
            || SocketError::Listening,
            kind,
            "it listens, and a connected socket is needed",
        ),
        (
            || SocketError::NotConnected,
            ErrorKind::NotConnected,
            "it is not connected",
        ),
        (
            || SocketError::Io(reset()),
            ErrorKind::ConnectionReset,
            "Connection reset by peer (os error 104)",
        ),
    ] {
        table.row(make, NO, kind, says);
    }
    table.has_all_of::<SocketError>();

    let mut table = Table::default();
    table.row(silent, AGAIN, ErrorKind::TimedOut, &silent().to_string());
    let unknown = || DialError::Lookup(io::Error::new(ErrorKind::NotFound, "no such name"));
    table.row(unknown, AGAIN, ErrorKind::NotFound, "no such name");
    let failed = || DialError::Failed { tried: Vec::new() };
    table.row(failed, AGAIN, ErrorKind::NotFound, &failed().to_string());
    table.has_all_of::<DialError>();

    let mut table = Table::default();
    table.row(|| ListenError::Addr(no_addr()), NO, kind, &no_addr_says);
    table.row(
        || ListenError::Engine(EngineError::Stopped),
        NO,
        ErrorKind::NotConnected,
        stopped,
    );
    table.row(
        || ListenError::NotShareable { addr: addr() },
        NO,
        kind,
        "cannot share tcp://host:1 among engines: only tcp:// addresses can be listened on together",
    );
    table.row(
        || ListenError::Socket {
            fd: 7,
            error: SocketError::NotListening,
        },
        NO,
        kind,
        "cannot listen on descriptor 7: it does not listen",
    );
    table.row(
        || ListenError::ShutDown,
        NO,
        ErrorKind::NotConnected,
        "the listener was shut down",
    );
    table.row(
        || ListenError::Io {
            addr: addr(),
            error: io::Error::from_raw_os_error(libc::EADDRINUSE),
        },
        AGAIN,
        ErrorKind::AddrInUse,
        "cannot listen on tcp://host:1: Address already in use (os error 98)",
    );
    table.has_all_of::<ListenError>();
}

#[test]
fn errors_that_are_wrong_from_the_start_or_broken_rules() {
    let kind = ErrorKind::InvalidInput;
    row(no_addr, NO, kind, &no_addr().to_string());
    let driver = || "none".parse::<Driver>().expect_err("no driver");
    row(driver, NO, kind, &driver().to_string());
    let wire = || "none".parse::<Wire>().expect_err("no wire");
    row(wire, NO, kind, &wire().to_string());
    let built = crate::Config::builder().max_message(0).build();
    let config = || built.clone().expect_err("out of range");
    row(config, NO, kind, &config().to_string());
    row(
        refusal,
        NO,
        ErrorKind::Unsupported,
        "io_uring failed in no-op: Connection reset by peer (os error 104)",
    );
    let limit = exceeded().to_string();
    row(exceeded, MAYBE, ErrorKind::ConnectionAborted, &limit);
    let rule = ProtocolError::SettingsTwice;
    row(|| rule, MAYBE, ErrorKind::InvalidData, &rule.to_string());
}

#[cfg(feature = "manage")]
#[test]
fn errors_of_managed_sessions() {
    let mut table = Table::default();
    let refused = || ConnectError::Io {
        addr: addr(),
        error: io::Error::from_raw_os_error(libc::ECONNREFUSED),
    };
    let refused_says = "cannot connect to tcp://host:1: Connection refused (os error 111)";
    table.row(
        || ManageError::ShuttingDown,
        NO,
        ErrorKind::NotConnected,
        "the session manager is shutting down",
    );
    table.row(
        || ManageError::NotReady {
            waited: TIME,
            last: Some(Arc::new(ProvideError::Connect(refused()))),
        },
        AGAIN,
        ErrorKind::TimedOut,
        &format!("no session within 5s: {refused_says}"),
    );
    table.row(
        || ManageError::TooManyWaiting { limit: 3 },
        AGAIN,
        ErrorKind::WouldBlock,
        "3 callers wait for a session already: raise max_waiting or call less",
    );
    table.row(
        || ManageError::NotStarted,
        NO,
        ErrorKind::InvalidInput,
        "the session manager was not started: spawn the future that `start` returns",
    );
    table.row(
        || ManageError::NoRuntime,
        NO,
        ErrorKind::InvalidInput,
        "session managers need a tokio runtime with time enabled: there was none where this was polled",
    );
    table.row(
        || ManageError::AlreadyStarted,
        NO,
        ErrorKind::InvalidInput,
        "the session manager was started before",
    );
    table.has_all_of::<ManageError>();

    use ProvideError as E;
    let mut table = Table::default();
    table.row(
        || E::Connect(refused()),
        AGAIN,
        ErrorKind::ConnectionRefused,
        refused_says,
    );
    table.row(
        || E::Listen(ListenError::ShutDown),
        NO,
        ErrorKind::NotConnected,
        "the listener was shut down",
    );
    table.row(
        || E::TimedOut(TIME),
        AGAIN,
        ErrorKind::TimedOut,
        "no connection within 5s",
    );
    table.row(
        || E::Ended(SessionError::Disconnected),
        AGAIN,
        ErrorKind::ConnectionReset,
        "the session ended before it was ready: the peer closed the connection without ending the session",
    );
    table.row(
        || E::Hook("not today".into()),
        AGAIN,
        ErrorKind::Other,
        "the hook for new sessions failed: not today",
    );
    table.row(
        || E::HookTimedOut(TIME),
        AGAIN,
        ErrorKind::TimedOut,
        "the hook for new sessions took more than 5s",
    );
    table.row(
        || E::HookPanicked("no token".to_owned()),
        AGAIN,
        ErrorKind::Other,
        "the hook for new sessions panicked: no token",
    );
    table.row(
        || E::Panicked("no address".to_owned()),
        AGAIN,
        ErrorKind::Other,
        "the provider of sessions panicked: no address",
    );
    table.row(|| E::Other("away".into()), AGAIN, ErrorKind::Other, "away");
    table.has_all_of::<E>();
}

#[cfg(feature = "manage")]
#[test]
fn errors_of_outboxes() {
    let mut table = Table::default();
    let message = Bytes::new;
    table.row(
        || PushError::Full {
            message: message(),
            messages: 2,
            bytes: 3,
        },
        AGAIN,
        ErrorKind::WouldBlock,
        "the outbox is full: it holds 2 messages of 3 bytes",
    );
    table.row(
        || PushError::Closed { message: message() },
        NO,
        ErrorKind::NotConnected,
        "the outbox is closed",
    );
    table.has_all_of::<PushError>();

    let mut table = Table::default();
    table.row(
        || Doubt::Ended(StreamError::Session(SessionError::Disconnected)),
        MAYBE,
        ErrorKind::ConnectionReset,
        "the peer closed the connection without ending the session",
    );
    table.row(
        || Doubt::Late(TIME),
        MAYBE,
        ErrorKind::TimedOut,
        "the peer did not finish with the message within 5s",
    );
    table.row(
        || Doubt::Stopped,
        MAYBE,
        ErrorKind::NotConnected,
        "the outbox was stopped while the message was under way",
    );
    table.has_all_of::<Doubt>();

    let mut table = Table::default();
    table.row(
        || Dropped::Closed,
        NO,
        ErrorKind::NotConnected,
        "the outbox is closed",
    );
    table.row(
        || Dropped::TooOld(TIME),
        AGAIN,
        ErrorKind::TimedOut,
        "the message could not be sent within 5s",
    );
    table.row(
        || Dropped::TooLong { len: 5, limit: 4 },
        NO,
        ErrorKind::InvalidInput,
        "a message of 5 bytes exceeds the peer's limit of 4",
    );
    table.row(
        || Dropped::Opening(OpenError::NoCredit),
        AGAIN,
        ErrorKind::WouldBlock,
        "the peer has granted no further stream for now",
    );
    table.has_all_of::<Dropped>();
}

/// By `source` alone, without [`Error::find`].
fn comes_from<T: StdError + 'static>(error: &dyn StdError) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<T>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[test]
fn what_the_system_said_is_found_by_the_sources_alone() {
    let lost = || SessionError::Io(Arc::new(reset()));
    let from_the_system: [Box<dyn StdError>; 7] = [
        Box::new(lost()),
        Box::new(StreamError::NotProcessed(lost())),
        Box::new(SendError::Stream(StreamError::Session(lost()))),
        Box::new(ConnectError::Handshake {
            addr: addr(),
            error: lost(),
        }),
        Box::new(ConnectError::from(EngineError::from(refusal()))),
        Box::new(Error::from(OpenError::Session(lost()))),
        Box::new(io::Error::from(StreamError::Session(lost()))),
    ];
    for error in from_the_system {
        assert!(comes_from::<io::Error>(&*error), "{error}");
    }
    let never_left = SendError::from(StreamError::NotProcessed(lost()));
    assert!(comes_from::<SessionError>(&never_left));
    let common = Error::from(SendError::Stream(StreamError::Session(lost())));
    assert!(common.find::<SendError>().is_some() && common.find::<StreamError>().is_some());
    assert!(common.find::<SessionError>().is_some() && common.find::<io::Error>().is_some());
    assert!(common.find::<ConnectError>().is_none());
}

#[test]
fn an_io_error_of_another_stays_what_it_is() {
    let error = Error::from(reset());
    assert_eq!((error.is_retryable(), error.was_processed()), MAYBE);
    assert_eq!(
        io::Error::from(error).raw_os_error(),
        Some(libc::ECONNRESET)
    );
}
