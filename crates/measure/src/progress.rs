//! A progress bar on stderr, if that is a terminal.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws wake a thread on a processor that is being measured, so they are few.
const REDRAWS_PER_S: u8 = 4;

/// A bar with one step for each slice.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `steps` steps of about this length; hidden unless stderr is a terminal.
    pub fn new(steps: usize, step: Duration) -> Self {
        let target = if stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
        bar.set_style(style.expect("a constant template that is valid"));
        let seconds = (step * u32::try_from(steps).unwrap_or(u32::MAX)).as_secs_f64();
        bar.set_message(format!("about {seconds:.0} s"));
        Self(bar)
    }

    /// The next step begins.
    pub fn step(&self, what: String) {
        self.0.set_message(what);
        self.0.inc(1);
    }

    /// Prints a line to stdout without tearing the bar.
    pub fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.0.suspend(print)
    }

    /// Takes the bar off the terminal.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
