//! A call as its server counts it: its row, its time, its outcome and its span.

use tokio::time::Instant;

use super::code::Code;
use super::metrics::ServerRows;
use super::span::CallSpan;
use super::tally::Tally;

/// A call that is counted on the side that serves it, from its beginning to its end.
pub(super) struct Served(Option<Begun>);

struct Begun {
    /// The number of its method; 0: none.
    row: usize,
    since: Instant,
    code: Code,
    span: CallSpan,
    /// The row has its beginning.
    counted: bool,
}

impl Served {
    /// None yet.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) fn begin(&mut self, rows: &ServerRows, row: usize, since: Instant) {
        self.begin_in_place(row, since);
        self.count(rows);
    }

    /// Of a call that will probably be over before anything else is done, and is counted then.
    pub(super) fn begin_in_place(&mut self, row: usize, since: Instant) {
        self.0 = Some(Begun {
            row,
            since,
            code: Code::CANCELLED,
            span: CallSpan::none(),
            counted: false,
        });
    }

    /// Counts its beginning; once.
    pub(super) fn count(&mut self, rows: &ServerRows) {
        if let Some(begun) = &mut self.0
            && !std::mem::replace(&mut begun.counted, true)
        {
            rows.row(begun.row).begin();
        }
    }

    /// Its outcome so far; without one it was cancelled.
    pub(super) fn ends_with(&mut self, code: Code) {
        if let Some(begun) = &mut self.0 {
            begun.code = code;
        }
    }

    pub(super) fn set_span(&mut self, span: CallSpan) {
        if let Some(begun) = &mut self.0 {
            begun.span = span;
        }
    }

    /// Does something of the call in its span.
    pub(super) fn in_span<R>(&self, step: impl FnOnce() -> R) -> R {
        match &self.0 {
            Some(begun) => begun.span.in_scope(step),
            None => step(),
        }
    }

    /// Ends a call that was over in place.
    pub(super) fn end_in_place(&mut self, rows: &ServerRows, tally: &mut Tally) {
        match self
            .0
            .take_if(|begun| begun.code == Code::OK && !begun.counted)
        {
            Some(begun) => {
                tally.ended(rows, begun.row, begun.since);
                begun.span.end(begun.code);
            }
            None => self.end(rows),
        }
    }

    pub(super) fn end(&mut self, rows: &ServerRows) {
        self.count(rows);
        if let Some(begun) = self.0.take() {
            rows.row(begun.row).end(begun.code, begun.since.elapsed());
            begun.span.end(begun.code);
        }
    }
}
