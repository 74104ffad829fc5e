//! What few streams have, apart from their lanes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;

use super::lane::Lane;
use super::reason;
use crate::queue::SetOnce;
use crate::sync::{Arc, AtomicU64, Ordering};

/// What few streams have: an opening block, an enabled span, a deadline.
pub(super) struct Particulars {
    opening: Bytes,
    span: Span,
    /// When the stream is to be cancelled, in nanoseconds from when its session began, not 0; 0: never.
    deadline: AtomicU64,
}

impl Particulars {
    #[inline]
    pub(super) fn new(opening: Bytes, span: Span) -> SetOnce<Self> {
        let some = !opening.is_empty() || !span.is_disabled();
        SetOnce::with(some.then(|| Self {
            opening,
            span,
            deadline: AtomicU64::new(0),
        }))
    }

    const fn of_a_deadline() -> Self {
        Self {
            opening: Bytes::new(),
            span: Span::none(),
            deadline: AtomicU64::new(0),
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

    /// The engine is to cancel the stream then, or never.
    pub(crate) fn set_deadline(self: &Arc<Self>, at: Option<Instant>) {
        let begun = self.session().begun;
        // One that is centuries away is none.
        let nanos = at.map_or(0, |at| {
            let nanos = at.saturating_duration_since(begun).as_nanos();
            u64::try_from(nanos).map_or(0, |nanos| nanos.max(1))
        });
        if self.particulars.get().is_none() {
            let _ = self.particulars.set(Particulars::of_a_deadline());
        }
        // Relaxed: published by `raise`.
        let before = (self.particulars.get()).map(|of| of.deadline.swap(nanos, Ordering::Relaxed));
        if before != Some(nanos) {
            self.raise(reason::DEADLINE);
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
