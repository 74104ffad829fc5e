//! The variants of DRPC.

use std::time::Duration;

/// The time for the first call of a connection. Pools dial when they have a call, and others soon before.
const FIRST_CALL: Duration = Duration::from_secs(60);

/// How many calls a connection carries at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Calls {
    /// One: `open` waits until the previous call is over. For concurrency use several sessions. On the accepting side, an
    /// Invoke cancels the call before it.
    OneAtATime,
    /// Many, whose frames are interleaved.
    Many,
}

/// How errors are sent. Both forms are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorForm {
    /// Eight bytes of code, then the text: storj, and CockroachDB before September 2025. Details are not sent.
    Code,
    /// `google.rpc.Status`: CockroachDB since then.
    Status,
}

/// How the dialling side cancels a call that was invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelForm {
    /// By a Cancel: the connection stays.
    Soft,
    /// By closing the connection, as storj does unless it is told otherwise. Calls that wait for it fail with
    /// [`NotProcessed`](crate::StreamError::NotProcessed).
    Hard,
}

/// Whether streams have credit (WindowUpdate). DRPC does not negotiate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlowControl {
    /// Never: WindowUpdates of the peer are ignored.
    Off,
    /// From the peer's first WindowUpdate on. A peer with flow control that only sends, and never receives, is not recognised,
    /// and stops after its window: for peers that take no frames unknown to them, and receive before they send that much.
    WhenSeen,
    /// Credit is returned from the start, in a form that peers without flow control ignore: unknown frames with the control bit.
    /// Sending waits for credit only after the peer's first WindowUpdate, as otherwise it may wait for ever: a peer
    /// with flow control that reads nothing of a stream from its start on stops reading the connection, after its window.
    On,
    /// As [`On`](Self::On), and sending waits for credit from the start: only for peers that certainly have flow control, as a
    /// stream to any other one stops after `window`.
    Required,
}

/// The variant of DRPC that a peer speaks. DRPC has no handshake, so it has to be configured.
///
/// # Examples
/// ```
/// use ringmux::Config;
/// use ringmux::drpc::{FlowControl, Profile};
///
/// let config = Config::builder()
///     .drpc(Profile::COCKROACH.flow_control(FlowControl::On))
///     .build()?;
/// assert_eq!(config.drpc().window, 2 << 20);
/// # Ok::<(), ringmux::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Profile {
    /// How many calls a connection carries at once.
    pub calls: Calls,
    /// How errors are sent.
    pub errors: ErrorForm,
    /// How the dialling side cancels.
    pub cancel: CancelForm,
    /// Whether streams have credit.
    pub flow_control: FlowControl,
    /// With flow control: bytes of messages that a stream may send beyond what the peer has returned, 1 at least. It should be
    /// the peer's own window. 2 MiB.
    pub window: u32,
    /// The dialling side sends `DRPC!!!1` first, for servers that serve several protocols on one address. The accepting side
    /// takes it from any peer.
    pub header: bool,
    /// The time within which the accepting side wants the first call of a connection; then the session ends with
    /// [`SessionError::HandshakeTimeout`](crate::SessionError::HandshakeTimeout). A connection that has had a call may be
    /// idle for any time. Above 0, and 1 h at most; `None` for peers that dial long before they call, as managers of this library
    /// do: an idle one has its connection closed, and dials again. 60 s.
    pub first_call: Option<Duration>,
}

impl Profile {
    /// storj/drpc, and CockroachDB's fork until September 2025: one call at a time, errors as code and text.
    pub const STORJ: Self = Self {
        calls: Calls::OneAtATime,
        errors: ErrorForm::Code,
        cancel: CancelForm::Soft,
        flow_control: FlowControl::Off,
        window: 2 << 20,
        header: false,
        first_call: Some(FIRST_CALL),
    };

    /// CockroachDB's fork since May 2026: many calls at a time, errors as `google.rpc.Status`, flow control.
    pub const COCKROACH: Self = Self {
        calls: Calls::Many,
        errors: ErrorForm::Status,
        flow_control: FlowControl::On,
        ..Self::STORJ
    };

    /// CockroachDB's fork between September 2025 and May 2026: one call at a time, errors as `google.rpc.Status`.
    pub const COCKROACH_BEFORE_MUX: Self = Self {
        errors: ErrorForm::Status,
        ..Self::STORJ
    };

    /// Sends errors in this form.
    #[must_use]
    pub const fn errors(mut self, errors: ErrorForm) -> Self {
        self.errors = errors;
        self
    }

    /// Cancels in this form.
    #[must_use]
    pub const fn cancel(mut self, cancel: CancelForm) -> Self {
        self.cancel = cancel;
        self
    }

    /// With or without credit.
    #[must_use]
    pub const fn flow_control(mut self, flow_control: FlowControl) -> Self {
        self.flow_control = flow_control;
        self
    }

    /// The peer's window for a stream, in bytes.
    #[must_use]
    pub const fn window(mut self, bytes: u32) -> Self {
        self.window = bytes;
        self
    }

    /// The time for the first call of a connection, on the accepting side.
    #[must_use]
    pub const fn first_call(mut self, limit: Option<Duration>) -> Self {
        self.first_call = limit;
        self
    }

    /// With or without the connection header `DRPC!!!1`.
    #[must_use]
    pub const fn header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }
}

impl Default for Profile {
    /// [`STORJ`](Self::STORJ).
    fn default() -> Self {
        Self::STORJ
    }
}
