//! Rate limit of log lines: the first line of each log statement within a time, then the number of further ones.
//!
//! A statement is a kind of event. Of those at level DEBUG and below, which are asked for by someone who looks for details, a few
//! lines are written; during a flood there are one line and one count per window, at every level.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

use super::writer;

/// The window, from the first line of a kind, with a limited number of lines.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of a kind at level DEBUG and below within the window, unless lines were suppressed in the previous one.
const DETAILS: u32 = 10;

/// One per log statement.
static KINDS: Mutex<Vec<Kind>> = Mutex::new(Vec::new());
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

fn kinds() -> MutexGuard<'static, Vec<Kind>> {
    KINDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines suppressed so far, here and by the library.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed) + ringmux::left_out_lines().total
}

/// The counts due now; sets when the next one is.
pub(super) fn due(now: Instant, next: &mut Option<Instant>) -> Vec<Vec<u8>> {
    let mut kinds = kinds();
    let mut told: Vec<_> = kinds.iter_mut().filter_map(|kind| kind.due(now)).collect();
    let mut library = library();
    told.extend(library.due(now));
    *next = (kinds.iter().filter_map(Kind::due_at))
        .chain(library.due_at())
        .min();
    told
}

/// All counts, due or not.
pub(super) fn all() -> Vec<Vec<u8>> {
    let now = Instant::now();
    let mut kinds = kinds();
    let counts = kinds.iter_mut().filter_map(|kind| kind.tell(now));
    counts.chain(library().tell(now)).collect()
}

/// Lets events through at their pace.
pub(super) struct Paced;

impl<S: Subscriber> Layer<S> for Paced {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        match admit(event) {
            Admission::Told => {
                if event.metadata().target().starts_with("ringmux::")
                    && library().spoke(Instant::now())
                {
                    writer::look();
                }
                return true;
            }
            Admission::LeftOut => {}
            Admission::FirstLeftOut => writer::look(),
        }
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        false
    }
}

fn admit(event: &Event<'_>) -> Admission {
    let now = Instant::now();
    let is_of = |kind: &Kind| kind.metadata.callsite() == event.metadata().callsite();
    if let Some(kind) = kinds().iter_mut().find(|kind| is_of(kind)) {
        return kind.admit(now);
    }
    // Without the lock: formatting an event's values may log.
    let mut message = Message::default();
    event.record(&mut message);
    let mut kinds = kinds();
    let at = kinds.iter().position(is_of).unwrap_or_else(|| {
        kinds.push(Kind::new(event.metadata(), message.0, now));
        kinds.len() - 1
    });
    kinds[at].admit(now)
}

/// The library suppresses lines by itself. Counts that no later line of it reports are reported here.
#[derive(Debug, Default)]
struct Library {
    /// When to check: a window after a line of the library.
    look_at: Option<Instant>,
    /// Time of its last line.
    spoke_at: Option<Instant>,
    /// Of its unreported lines, those already reported here.
    told: u64,
}

static LIBRARY: Mutex<Library> = Mutex::new(Library {
    look_at: None,
    spoke_at: None,
    told: 0,
});

fn library() -> MutexGuard<'static, Library> {
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    /// A line of the library was written; true if the time of the next check was not set before.
    fn spoke(&mut self, now: Instant) -> bool {
        self.spoke_at = Some(now);
        let begins = self.look_at.is_none();
        self.look_at.get_or_insert(now + WINDOW);
        begins
    }

    const fn due_at(&self) -> Option<Instant> {
        self.look_at
    }

    fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.look_at.filter(|at| *at <= now)?;
        self.tell(now)
    }

    fn tell(&mut self, now: Instant) -> Option<Vec<u8>> {
        let untold = ringmux::left_out_lines().untold;
        let new = untold.saturating_sub(self.told);
        self.told = untold;
        // The statement of its last line may suppress lines until then.
        let places_end = self.spoke_at.map(|at| at + WINDOW);
        self.look_at = places_end.filter(|at| *at > now);
        (new > 0).then(|| {
            let text = format_args!("ringmux: and {new} more lines like those above");
            dated(format_args!("{:>5} {text}", "INFO"))
        })
    }
}

/// A line in the format of the others.
fn dated(text: fmt::Arguments<'_>) -> Vec<u8> {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    let _ = writeln!(line, " {text}");
    line.into_bytes()
}

/// The message of an event, without its values.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Told,
    /// To be reported at the end of the window.
    FirstLeftOut,
    LeftOut,
}

struct Kind {
    metadata: &'static Metadata<'static>,
    message: String,
    /// Start of the window.
    began: Instant,
    lines: u32,
    lines_max: u32,
    left_out: u64,
}

/// Lines of a kind within a window.
fn lines_max(kind: &Metadata<'_>) -> u32 {
    if *kind.level() <= Level::INFO {
        1
    } else {
        DETAILS
    }
}

impl Kind {
    fn new(metadata: &'static Metadata<'static>, message: String, now: Instant) -> Self {
        Self {
            metadata,
            message,
            began: now,
            lines: 0,
            lines_max: lines_max(metadata),
            left_out: 0,
        }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        if self.left_out == 0 && now.saturating_duration_since(self.began) >= WINDOW {
            self.begin(now, lines_max(self.metadata));
        }
        if self.lines < self.lines_max {
            self.lines += 1;
            return Admission::Told;
        }
        self.left_out += 1;
        match self.left_out {
            1 => Admission::FirstLeftOut,
            _ => Admission::LeftOut,
        }
    }

    fn begin(&mut self, now: Instant, lines_max: u32) {
        self.began = now;
        self.lines = 0;
        self.lines_max = lines_max;
        self.left_out = 0;
    }

    fn due_at(&self) -> Option<Instant> {
        (self.left_out > 0).then(|| self.began + WINDOW)
    }

    fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.due_at().filter(|at| *at <= now)?;
        self.tell(now)
    }

    /// The line with the count of suppressed lines; starts a new window.
    fn tell(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.left_out == 0 {
            return None;
        }
        let seconds = now
            .saturating_duration_since(self.began)
            .as_secs_f64()
            .ceil();
        let line = dated(format_args!(
            "{:>5} {}: {}: and {} more like it in the last {seconds} s",
            self.metadata.level(),
            self.metadata.target(),
            self.message,
            self.left_out
        ));
        self.begin(now, 1);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A new kind, and the time of the test's first line.
    fn kind() -> (Kind, Instant) {
        of(|| tracing::warn_span!("a place").metadata())
    }

    fn of(place: impl FnOnce() -> Option<&'static Metadata<'static>>) -> (Kind, Instant) {
        let metadata = tracing::subscriber::with_default(tracing_subscriber::registry(), place);
        let began = Instant::now();
        let metadata = metadata.expect("it has some");
        (Kind::new(metadata, "refused".to_owned(), began), began)
    }

    fn count(kind: &mut Kind, began: Instant, from_ms: u32, to_ms: u32) -> usize {
        let admit = |ms: &u32| kind.admit(began + *ms * MS) == Admission::Told;
        (from_ms..to_ms).filter(admit).count()
    }

    /// A flood of a line a millisecond: the first window, the second, and five lines after it.
    fn is_paced((mut kind, began): (Kind, Instant), lines: usize, left_out: u32, after: usize) {
        assert_eq!(count(&mut kind, began, 0, 10_000), lines);
        assert_eq!(kind.due(began + 9_999 * MS), None);
        let told = String::from_utf8(kind.due(began + 10_000 * MS).unwrap()).unwrap();
        let counted = format!(": refused: and {left_out} more like it in the last 10 s\n");
        assert!(told.ends_with(&counted), "{told}");
        assert_eq!(count(&mut kind, began, 10_000, 20_000), 1);
        assert!(kind.due(began + 20_000 * MS).is_some());
        // The flood is over.
        assert_eq!(kind.due(began + 30_000 * MS), None);
        assert_eq!(count(&mut kind, began, 30_000, 30_005), after);
    }

    #[test]
    fn a_flood_is_one_line_and_a_count_each_window() {
        is_paced(kind(), 1, 9999, 1);
    }

    #[test]
    fn details_are_a_few_lines_and_in_a_flood_one_and_a_count_each_window() {
        let details = of(|| tracing::debug_span!("a place").metadata());
        is_paced(details, 10, 9990, 5);
    }

    #[test]
    fn counts_that_could_not_be_told_are_not_forgotten() {
        let (mut kind, began) = kind();
        assert_eq!(count(&mut kind, began, 0, 100_000), 1);
        let told = String::from_utf8(kind.due(began + 100_000 * MS).unwrap()).unwrap();
        assert!(
            told.contains("99999 more like it in the last 100 s"),
            "{told}"
        );
    }
}
