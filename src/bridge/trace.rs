//! Spans and events: one span a session, one a stream, and events for their ends. Nothing per message or frame.
//!
//! | target | span | level | events |
//! |---|---|---|---|
//! | `ringmux::session` | `session` | info | established, ended in its handshake (debug); ended, by severity |
//! | `ringmux::stream` | `stream` | debug | failed (debug) |
//!
//! A span begins with its session or stream and closes with its last handle. While no subscriber is interested in a level, each
//! of these is one relaxed load and a branch. Events are limited by [`crate::pace`]. A subscriber is called on the engine's
//! thread: one that blocks, blocks all its sessions.

use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use super::RecvEnd;
use super::info::Info;
use crate::addr::Wire;
use crate::error::{Chain, SessionError};
use crate::pace::paced;
use crate::wire::Role;

/// Target of events of a session.
pub(super) const SESSION: &str = "ringmux::session";
/// Target of events of a stream.
pub(super) const STREAM: &str = "ringmux::stream";

/// The handshake is done.
pub(super) fn established(span: &Span) {
    paced!(target: SESSION, parent: span, Level::DEBUG, "established");
}

/// A session outlives its first caller's work, so its span has no parent.
pub(super) fn session(id: u64, info: &Info) -> Span {
    let role = match info.role {
        Role::Dialer => "dialer",
        Role::Acceptor => "acceptor",
    };
    let peer = info.peer.as_ref().map(display);
    let driver = display(info.driver);
    // The usual one goes without saying.
    let wire = (info.wire != Wire::Native).then(|| display(info.wire));
    tracing::info_span!(target: SESSION, parent: None, "session", id, peer, role, %driver, wire)
}

/// The severity of an end: in order; lost, as is usual for networks; a fault, for an operator. A failed handshake is
/// returned to the caller of `connect`, and logged by the listener with the peer's address.
pub(super) fn session_ended(span: &Span, established: bool, end: &SessionError) {
    let reason = Chain(end);
    match end {
        _ if !established => {
            paced!(target: SESSION, parent: span, Level::DEBUG, %reason, "ended in its handshake");
        }
        end if end.is_orderly() => {
            paced!(target: SESSION, parent: span, Level::DEBUG, %reason, "ended");
        }
        SessionError::Protocol(_)
        | SessionError::LimitExceeded(_)
        | SessionError::PeerClosed { .. }
        | SessionError::EngineStopped => {
            paced!(target: SESSION, parent: span, Level::WARN, %reason, "ended");
        }
        _ => paced!(target: SESSION, parent: span, Level::INFO, %reason, "ended"),
    }
}

/// Whether a subscriber may be interested in spans of streams: one load, where making a disabled span and dropping it takes a
/// hundred instructions.
#[inline]
pub(super) fn may_trace_streams() -> bool {
    Level::DEBUG <= LevelFilter::current()
}

/// A stream's span; disabled if no subscriber is interested.
pub(super) fn stream(session: &Span, urgency: u8) -> Span {
    tracing::debug_span!(target: STREAM, parent: session, "stream", id = Empty, urgency)
}

/// The stream has its id.
pub(super) fn id(span: &Span, id: u32) {
    span.record("id", id);
}

/// The stream's urgency was changed.
pub(super) fn urgency(span: &Span, urgency: u8) {
    span.record("urgency", urgency);
}

/// Each failure of a stream ends its receiving direction.
pub(super) fn ended(span: &Span, end: &RecvEnd) {
    if let RecvEnd::Error(error) | RecvEnd::Discard(error) = end {
        paced!(target: STREAM, parent: span, Level::DEBUG, error = %Chain(error), "failed");
    }
}
