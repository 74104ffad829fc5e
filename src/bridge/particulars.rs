//! Fields that few streams need, apart from their lanes: an opening block, an enabled span, a deadline.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;

use super::trace;
use crate::queue::SetOnce;
use crate::sync::{AtomicU64, Ordering};

/// See the module. Almost all streams have none of them.
#[derive(Debug)]
pub(crate) struct Particulars(SetOnce<Fields>);

#[derive(Debug)]
struct Fields {
    opening: Bytes,
    span: Span,
    /// When the stream is to be cancelled, in nanoseconds from when its session began, not 0; 0: never.
    deadline: AtomicU64,
    /// When the engine received the opening block, if the peer has opened the stream.
    received: Option<Instant>,
}

impl Fields {
    #[inline(never)]
    fn trace_id(&self, id: u32) {
        trace::id(&self.span, id);
    }
}

impl Particulars {
    /// For a stream of this side with this opening block, in a session with this span.
    #[inline]
    pub(super) fn new(block: Bytes, session: &Span, urgency: u8) -> Self {
        match block.is_empty() && !trace::may_trace_streams() {
            true => Self::none(),
            false => Self::some(block, None, session, urgency),
        }
    }

    /// The same for a stream of the peer, whose opening block was received now.
    #[inline]
    pub(super) fn of_peer(block: &[u8], now: Instant, session: &Span, urgency: u8) -> Self {
        match block.is_empty() && !trace::may_trace_streams() {
            true => Self::none(),
            false => Self::some(Bytes::copy_from_slice(block), Some(now), session, urgency),
        }
    }

    #[inline(never)]
    fn some(block: Bytes, received: Option<Instant>, session: &Span, urgency: u8) -> Self {
        let span = trace::stream(session, urgency);
        let some = !block.is_empty() || !span.is_disabled();
        Self(SetOnce::with(some.then(|| Fields {
            opening: block,
            span,
            deadline: AtomicU64::new(0),
            received,
        })))
    }

    /// Of a stream that has none.
    #[inline]
    pub(super) fn none() -> Self {
        Self(SetOnce::new())
    }

    pub(super) fn is_none(&self) -> bool {
        !self.0.is_set()
    }

    pub(crate) fn opening(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        self.0.get().map_or(&NONE, |of| &of.opening)
    }

    pub(crate) fn span(&self) -> &Span {
        static NONE: Span = Span::none();
        self.0.get().map_or(&NONE, |of| &of.span)
    }

    /// The stream has its id.
    #[inline]
    pub(super) fn trace_id(&self, id: u32) {
        if let Some(of) = self.0.get() {
            of.trace_id(id);
        }
    }

    /// Sets the deadline of a stream of a session that began at `begun`. False if it was this one.
    pub(super) fn set_deadline(&self, at: Option<Instant>, begun: Instant) -> bool {
        // One that is centuries away counts as none.
        let nanos = at.map_or(0, |at| {
            let nanos = at.saturating_duration_since(begun).as_nanos();
            u64::try_from(nanos).map_or(0, |nanos| nanos.max(1))
        });
        if self.is_none() {
            let _ = self.0.set(Fields {
                opening: Bytes::new(),
                span: Span::none(),
                deadline: AtomicU64::new(0),
                received: None,
            });
        }
        // Relaxed: published by the reason that the caller raises.
        let before = (self.0.get()).map(|of| of.deadline.swap(nanos, Ordering::Relaxed));
        before != Some(nanos)
    }

    /// When the engine received the OPEN of the stream; kept with other fields only.
    pub(crate) fn received(&self) -> Option<Instant> {
        self.0.get()?.received
    }

    /// When the stream is to be cancelled.
    pub(super) fn deadline(&self, begun: Instant) -> Option<Instant> {
        match self.0.get()?.deadline.load(Ordering::Relaxed) {
            0 => None,
            nanos => begun.checked_add(Duration::from_nanos(nanos)),
        }
    }
}
