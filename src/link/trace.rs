//! Spans and events: one span a session, one a stream, and what ends them. Nothing per message or frame.
//!
//! | target | span | level | events |
//! |---|---|---|---|
//! | `ringmux::session` | `session` | info | established (debug); ended, by severity |
//! | `ringmux::stream` | `stream` | debug | failed (debug) |
//!
//! A span begins with its session or stream and closes with its last handle. While no subscriber wants a level, each
//! of these is one relaxed load and a branch. A subscriber is called on the engine's thread: one that blocks, blocks
//! all its sessions.

use tracing::Span;
use tracing::field::{Empty, display};

use super::lane::RecvEnd;
use super::session::Info;
use crate::error::SessionError;
use crate::frame::{Role, codes};

/// Target of what concerns a session.
pub(super) const SESSION: &str = "ringmux::session";
/// Target of what concerns a stream.
pub(super) const STREAM: &str = "ringmux::stream";

/// A session outlives whatever its first caller is about, so its span is nobody's child.
pub(super) fn session(id: u64, info: &Info) -> Span {
    let role = match info.role {
        Role::Dialer => "dialer",
        Role::Acceptor => "acceptor",
    };
    let peer = info.peer.as_ref().map(display);
    let driver = display(info.driver);
    tracing::info_span!(target: SESSION, parent: None, "session", id, peer, role, %driver)
}

/// How bad an end is: in order; lost, as happens with networks; wrong, for somebody to look at.
pub(super) fn session_ended(span: &Span, reason: &SessionError) {
    match reason {
        SessionError::Closed
        | SessionError::PeerClosed {
            code: codes::NO_ERROR | codes::SHUTDOWN,
            ..
        } => tracing::debug!(target: SESSION, parent: span, %reason, "ended"),
        SessionError::Protocol(_)
        | SessionError::LimitExceeded(_)
        | SessionError::PeerClosed { .. }
        | SessionError::EngineStopped => {
            tracing::warn!(target: SESSION, parent: span, %reason, "ended");
        }
        _ => tracing::info!(target: SESSION, parent: span, %reason, "ended"),
    }
}

/// A stream's span. It takes memory only if somebody wants it.
#[derive(Debug)]
pub(super) struct StreamSpan(Option<Box<Span>>);

impl StreamSpan {
    pub(super) fn new(session: &Span, urgency: u8) -> Self {
        let span =
            tracing::debug_span!(target: STREAM, parent: session, "stream", id = Empty, urgency);
        Self((!span.is_disabled()).then(|| Box::new(span)))
    }

    pub(super) fn get(&self) -> &Span {
        static NONE: Span = Span::none();
        self.0.as_deref().unwrap_or(&NONE)
    }

    pub(super) fn id(&self, id: u32) {
        if let Some(span) = &self.0 {
            span.record("id", id);
        }
    }

    pub(super) fn urgency(&self, urgency: u8) {
        if let Some(span) = &self.0 {
            span.record("urgency", urgency);
        }
    }

    /// Whatever fails a stream ends its receiving direction.
    pub(super) fn ended(&self, end: &RecvEnd) {
        if let RecvEnd::Error(error) | RecvEnd::Discard(error) = end {
            tracing::debug!(target: STREAM, parent: self.get(), %error, "failed");
        }
    }
}
