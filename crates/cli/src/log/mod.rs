//! The output on stderr: the log, warnings, and the reason of a failure.
//!
//! * `writer`: a thread that writes it, so that no other thread waits for an unread pipe, a full disk or a stopped
//!   terminal. Lines that it cannot queue or write are lost, and counted.
//! * `pace`: the first line of each kind, then counts, so that no peer fills the disk.

mod pace;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

pub(crate) use pace::left_out;
pub(crate) use writer::{Flushed, line, lost};

/// Starts the log. Until the value that it returns is dropped, nothing but this module writes to stderr.
#[must_use]
pub(crate) fn start(filter: &str) -> Flushed {
    let flushed = writer::start();
    panic::set_hook(Box::new(panicked));
    // `log_filter` has accepted it, so the fallback is never taken; a log is no reason to panic.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = fmt::layer()
        .with_writer(|| writer::Lines)
        .with_ansi(io::stderr().is_terminal())
        // Its error report is a macro that panics where stderr cannot be written.
        .log_internal_errors(false);
    let log = tracing_subscriber::registry()
        .with(lines)
        .with(pace::Paced)
        .with(filter);
    if let Err(error) = log.try_init() {
        line(format_args!("warning: there is no log: {error}"));
    }
    flushed
}

/// Whether the text can be a filter. A word alone would be taken for the name of a crate: more likely it is a level,
/// mistyped.
pub(crate) fn check_filter(filter: &str) -> Result<String, String> {
    EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let is_word = |part: &&str| part.chars().all(|c| c.is_ascii_alphabetic()) && !part.is_empty();
    let is_known = |word: &str| word == "ringmux" || word.parse::<LevelFilter>().is_ok();
    let mut words = filter.split(',').map(str::trim).filter(is_word);
    if let Some(word) = words.find(|word| !is_known(word)) {
        return Err(format!(
            "{word:?} is no level (error, warn, info, debug, trace, off); for a crate of that name write {word}=trace"
        ));
    }
    Ok(filter.to_owned())
}

/// Replaces the standard library's panic hook, which blocks on stderr.
fn panicked(info: &panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    line(format_args!("thread {name}: {info}"));
    // Empty unless RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        line(backtrace);
    }
}
