//! The trace context of calls, as W3C writes it, and with the feature `rpc-tracing` a span for each call.

use std::fmt;
use std::str::FromStr;

use super::metadata::{Metadata, MetadataError};

/// The key under which a trace context travels.
pub(super) const TRACEPARENT: &str = "traceparent";
/// What vendors add to it, passed on as it is.
const TRACESTATE: &str = "tracestate";

/// A place in a trace, as in the header `traceparent` of the [W3C](https://www.w3.org/TR/trace-context/): the trace, the span in it, and
/// whether it is recorded.
///
/// # Examples
/// ```
/// use ringmux::rpc::TraceParent;
///
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let parent: TraceParent = text.parse()?;
/// assert_eq!(parent.span_id, 0xb7ad6b7169203331);
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), text);
/// assert!("00-0-0-01".parse::<TraceParent>().is_err());
/// # Ok::<(), ringmux::rpc::TraceParentError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The whole trace; not 0.
    pub trace_id: u128,
    /// The span; not 0.
    pub span_id: u64,
    /// Bit 0: the caller may have recorded it.
    pub flags: u8,
}

/// A text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a traceparent is `00-`, 32 hexadecimal digits, `-`, 16 of them, `-` and 2 of them, lower-case, the first two not 0"
)]
pub struct TraceParentError(());

impl TraceParent {
    /// Whether the caller may have recorded its span.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Of the entry of a call's metadata; one that makes no sense is as if there were none.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        metadata.get_str(TRACEPARENT)?.parse().ok()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut digits = |len: usize| {
            let part = parts.next().filter(|part| part.len() == len)?;
            let lower = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
            part.bytes().all(lower).then_some(part)
        };
        let version = digits(2)?;
        let trace_id = u128::from_str_radix(digits(32)?, 16).ok()?;
        let span_id = u64::from_str_radix(digits(16)?, 16).ok()?;
        let flags = u8::from_str_radix(digits(2)?, 16).ok()?;
        // Later versions may have more parts behind these.
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        (known && trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        Self::parse(text).ok_or(TraceParentError(()))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// The span of a call that is about to be made, and its trace context in the metadata: that of its span; without one, that of the parent,
/// whose place in a trace is `before` and whose metadata is `received`. An entry that the caller has made stays.
pub(super) fn call(
    method: &'static str,
    metadata: &mut Option<Box<Metadata>>,
    before: Option<TraceParent>,
    received: Option<&Metadata>,
) -> Result<CallSpan, MetadataError> {
    if let Some(own) = metadata.as_ref()
        && own.get(TRACEPARENT).is_some()
    {
        return Ok(CallSpan::of_caller(method, TraceParent::of(own)).0);
    }
    let (span, child) = CallSpan::of_caller(method, before);
    let received = |key| received.and_then(|metadata| metadata.get(key));
    if let Some(context) = child.or(before) {
        let metadata = metadata.get_or_insert_default();
        metadata.insert(TRACEPARENT, context.to_string())?;
    } else if let Some(unknown) = received(TRACEPARENT) {
        // No version that is known here; it may be to the server.
        let metadata = metadata.get_or_insert_default();
        metadata.insert(TRACEPARENT, unknown)?;
    }
    if let Some(state) = received(TRACESTATE) {
        metadata.get_or_insert_default().insert(TRACESTATE, state)?;
    }
    Ok(span)
}

#[cfg(not(feature = "rpc-tracing"))]
pub(super) use disabled::CallSpan;
#[cfg(feature = "rpc-tracing")]
pub(super) use enabled::CallSpan;

/// Without the feature `rpc-tracing`: nothing.
#[cfg(not(feature = "rpc-tracing"))]
mod disabled {
    use super::TraceParent;
    use crate::rpc::code::Code;

    pub(in crate::rpc) struct CallSpan;

    impl CallSpan {
        pub(in crate::rpc) const ENABLED: bool = false;

        pub(in crate::rpc) const fn none() -> Self {
            Self
        }

        pub(super) const fn of_caller(
            _: &'static str,
            _: Option<TraceParent>,
        ) -> (Self, Option<TraceParent>) {
            (Self, None)
        }

        pub(in crate::rpc) const fn of_server(
            _: &'static str,
            _: Option<&tracing::Span>,
            _: Option<TraceParent>,
        ) -> (Self, Option<TraceParent>) {
            (Self, None)
        }

        pub(in crate::rpc) fn in_scope<R>(&self, step: impl FnOnce() -> R) -> R {
            step()
        }

        pub(in crate::rpc) const fn end(&self, _: Code) {}
    }
}

#[cfg(feature = "rpc-tracing")]
mod enabled {
    use std::hash::{BuildHasher, RandomState};

    use tracing::field::{Empty, display};
    use tracing::subscriber::NoSubscriber;
    use tracing::{Span, info_span};

    use super::TraceParent;
    use crate::rpc::code::Code;

    /// Recorded: the caller decided nothing else.
    const SAMPLED: u8 = 1;

    /// The span of a call.
    pub(in crate::rpc) struct CallSpan {
        span: Span,
        /// Which codes are an error of this side, as OpenTelemetry has it.
        fails: fn(Code) -> bool,
    }

    impl CallSpan {
        pub(in crate::rpc) const ENABLED: bool = true;

        pub(in crate::rpc) const fn none() -> Self {
            Self {
                span: Span::none(),
                fails: |_| false,
            }
        }

        /// A span inside of the current one, and the context that it gives its call; none if it is disabled.
        pub(super) fn of_caller(
            method: &'static str,
            before: Option<TraceParent>,
        ) -> (Self, Option<TraceParent>) {
            let span = info_span!(
                target: "ringmux::rpc", "call", otel.kind = "client", otel.name = method, method,
                trace_id = Empty, span_id = Empty, parent_id = Empty, code = Empty, otel.status_code = Empty
            );
            let context = begin(&span, before);
            (
                Self {
                    span,
                    fails: |code| code != Code::OK,
                },
                context,
            )
        }

        /// A span inside of its session's, and the context that calls get which are made for it; none if it is disabled.
        pub(in crate::rpc) fn of_server(
            method: &'static str,
            session: Option<&Span>,
            before: Option<TraceParent>,
        ) -> (Self, Option<TraceParent>) {
            let session = session.and_then(Span::id);
            let span = info_span!(
                target: "ringmux::rpc", parent: session, "serve", otel.kind = "server", otel.name = method, method,
                trace_id = Empty, span_id = Empty, parent_id = Empty, code = Empty, otel.status_code = Empty
            );
            let context = begin(&span, before);
            (
                Self {
                    span,
                    fails: is_fault_of_server,
                },
                context,
            )
        }

        pub(in crate::rpc) fn in_scope<R>(&self, step: impl FnOnce() -> R) -> R {
            self.span.in_scope(step)
        }

        pub(in crate::rpc) fn end(&self, code: Code) {
            self.span.record("code", display(code));
            if (self.fails)(code) {
                self.span.record("otel.status_code", "ERROR");
            }
        }
    }

    /// Source: OpenTelemetry's semantic conventions for gRPC. The others are the caller's.
    fn is_fault_of_server(code: Code) -> bool {
        matches!(
            code,
            Code::UNKNOWN
                | Code::DEADLINE_EXCEEDED
                | Code::UNIMPLEMENTED
                | Code::INTERNAL
                | Code::UNAVAILABLE
                | Code::DATA_LOSS
        )
    }

    /// The context of a span, which begins a trace if there is none before it.
    fn begin(span: &Span, before: Option<TraceParent>) -> Option<TraceParent> {
        // One may be enabled for another thread's subscriber alone.
        let is_kept = span.with_subscriber(|(_, dispatch)| !dispatch.is::<NoSubscriber>());
        if is_kept != Some(true) {
            return None;
        }
        let context = TraceParent {
            trace_id: before.map_or_else(new_trace, |before| before.trace_id),
            span_id: new_id(),
            flags: before.map_or(SAMPLED, |before| before.flags),
        };
        span.record("trace_id", format_args!("{:032x}", context.trace_id));
        span.record("span_id", format_args!("{:016x}", context.span_id));
        if let Some(before) = before {
            span.record("parent_id", format_args!("{:016x}", before.span_id));
        }
        Some(context)
    }

    fn new_trace() -> u128 {
        u128::from(new_id()) << 64 | u128::from(new_id())
    }

    /// Not 0. Keys of a thread are random, and each `RandomState` has others.
    fn new_id() -> u64 {
        RandomState::new().hash_one(0).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_parent_is_read_and_written_as_w3c_says() {
        let parent: TraceParent = GOOD.parse().unwrap();
        assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent.to_string(), GOOD);
        // A later version is read as far as it is known.
        let later = format!("cc{}-more", &GOOD[2..]);
        assert_eq!(later.parse(), Ok(parent));
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(wrong.parse::<TraceParent>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_entry_of_the_caller_stays_and_is_the_only_one() {
        let mut metadata = Metadata::new();
        metadata.insert(TRACEPARENT, GOOD).unwrap();
        let mut given = Some(Box::new(metadata.clone()));
        call("a/B", &mut given, GOOD.parse().ok(), None).unwrap();
        assert_eq!(given.as_deref(), Some(&metadata));
    }
}
