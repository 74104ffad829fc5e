//! Fields that few streams need, apart from their lanes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;

use super::lane::Lane;
use super::reason;
use crate::queue::SetOnce;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Fields that few streams need: an opening block, an enabled span, a deadline.
pub(super) struct Particulars {
    opening: Bytes,
    span: Span,
    /// When the stream is to be cancelled, in nanoseconds from when its session began, not 0; 0: never.
    deadline: AtomicU64,
    /// When its OPEN was received, in the same nanoseconds; 0 of a stream that this side opened.
    received: AtomicU64,
}

impl Particulars {
    #[inline]
    pub(super) fn new(opening: Bytes, span: Span) -> SetOnce<Self> {
        let some = !opening.is_empty() || !span.is_disabled();
        SetOnce::with(some.then(|| Self {
            opening,
            span,
            deadline: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }))
    }

    const fn of_a_deadline() -> Self {
        Self {
            opening: Bytes::new(),
            span: Span::none(),
            deadline: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }
}

impl Lane {
    pub(crate) fn opening(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        self.particulars.get().map_or(&NONE, |of| &of.opening)
    }

    pub(crate) fn span(&self) -> &Span {
        static NONE: Span = Span::none();
        self.particulars.get().map_or(&NONE, |of| &of.span)
    }

    /// The engine cancels the stream at this time, or never.
    pub(crate) fn set_deadline(self: &Arc<Self>, at: Option<Instant>) {
        let begun = self.session().begun;
        // One that is centuries away counts as none.
        let nanos = at.map_or(0, |at| nanos_between(begun, at));
        if self.particulars.get().is_none() {
            let _ = self.particulars.set(Particulars::of_a_deadline());
        }
        // Relaxed: published by `raise`.
        let before = (self.particulars.get()).map(|of| of.deadline.swap(nanos, Ordering::Relaxed));
        if before != Some(nanos) {
            self.raise(reason::DEADLINE);
        }
    }

    /// The engine received the OPEN of the stream at this time, which is kept with an opening block only.
    pub(crate) fn set_received(&self, at: Instant) {
        if let Some(of) = self.particulars.get() {
            let nanos = nanos_between(self.session().begun, at);
            // Relaxed: the accept queue publishes it.
            of.received.store(nanos, Ordering::Relaxed);
        }
    }

    /// When the engine received the OPEN of the stream, if that is known.
    pub(crate) fn received(&self) -> Option<Instant> {
        match self.particulars.get()?.received.load(Ordering::Relaxed) {
            0 => None,
            nanos => self
                .session()
                .begun
                .checked_add(Duration::from_nanos(nanos)),
        }
    }

    /// When the stream is to be cancelled.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.particulars.get()?.deadline.load(Ordering::Relaxed) {
            0 => None,
            nanos => self
                .session()
                .begun
                .checked_add(Duration::from_nanos(nanos)),
        }
    }
}

/// Nanoseconds from the beginning of a session, at least 1; 0 for a time that is centuries away.
fn nanos_between(begun: Instant, at: Instant) -> u64 {
    let nanos = at.saturating_duration_since(begun).as_nanos();
    u64::try_from(nanos).map_or(0, |nanos| nanos.max(1))
}
