//! The error messages of the program: the attempted action, the reason, the advice.
//!
//! One line, for a person. A failure of the library or of the system is reworded to fit into it.

use std::error::Error;
use std::fmt;
use std::io;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: Option<String>,
    advice: Option<String>,
    closed_pipe: bool,
}

impl Failure {
    /// `what` names the failed action with its object: `cannot connect to ADDR`.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: None,
            advice: None,
            closed_pipe: false,
        }
    }

    /// Adds the cause.
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.closed_pipe = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        self.why = Some(reworded(error));
        self
    }

    /// Adds advice.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Advises the driver that works everywhere, unless the error does so itself.
    pub fn advise_tokio(self, error: &ringmux::EngineError) -> Self {
        match error.remedy() {
            Some(remedy) if remedy.contains("the driver tokio") => self,
            _ => self.advise("try --driver tokio"),
        }
    }

    /// Whether the failure is only a closed stdout.
    pub const fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for part in [&self.why, &self.advice].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// The error's text and those of its sources not already contained in it, on one line.
pub fn reworded(error: &(dyn Error + 'static)) -> String {
    let mut words = plain(&error.to_string());
    let mut source = error.source();
    while let Some(error) = source {
        let more = plain(&error.to_string());
        // Ignore case: sources may be capitalized in one place and not in the other.
        if !words.to_lowercase().contains(&more.to_lowercase()) {
            words = format!("{words}: {more}");
        }
        source = error.source();
    }
    words
}

/// `Connection refused (os error 111)` as it stands in the middle of a sentence.
fn plain(message: &str) -> String {
    let message = match message.rfind(" (os error ") {
        Some(at) if message.ends_with(')') => &message[..at],
        _ => message,
    };
    let message = message.replace(['\n', '\r'], " ");
    let mut letters = message.chars();
    match (letters.next(), letters.clone().next()) {
        // Only a word that begins a sentence, not an acronym.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_what_why_advice() {
        let error = io::Error::from_raw_os_error(111);
        let failure = Failure::new("cannot connect to tcp://127.0.0.1:1")
            .because(&error)
            .advise("is a ringmux server listening there?");
        assert_eq!(
            failure.to_string(),
            "cannot connect to tcp://127.0.0.1:1: connection refused: is a ringmux server listening there?"
        );
    }

    #[test]
    fn acronyms_keep_their_capitals_and_lines_are_joined() {
        assert_eq!(plain("TLS failed\nbadly"), "TLS failed badly");
        assert_eq!(plain("No such file"), "no such file");
        assert_eq!(plain("a (os error 2) inside"), "a (os error 2) inside");
    }

    #[test]
    fn a_source_that_is_repeated_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot listen: {0}")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::from_raw_os_error(98));
        assert_eq!(reworded(&error), "cannot listen: Address already in use");
    }

    #[test]
    fn only_a_broken_pipe_counts_as_a_reader_that_left() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(Failure::new("cannot write").because(&pipe).is_closed_pipe());
        let other = io::Error::from(io::ErrorKind::TimedOut);
        assert!(
            !Failure::new("cannot write")
                .because(&other)
                .is_closed_pipe()
        );
    }
}
