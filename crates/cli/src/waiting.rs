//! Long waits of a command, reported on stderr.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::log;

/// Time until the first report.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// Time between further reports.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A wait for one thing, in one attempt or many.
#[derive(Debug)]
pub(crate) struct Waiting {
    what: String,
    /// Why the last attempt failed.
    reason: Option<String>,
    attempt: u32,
    tell_at: Instant,
}

impl Waiting {
    /// Starts a wait for an address.
    pub(crate) fn on(what: impl Display) -> Self {
        Self {
            what: what.to_string(),
            reason: None,
            attempt: 1,
            tell_at: Instant::now() + TELL_AFTER,
        }
    }

    /// An attempt has failed and another follows.
    pub(crate) fn failed(&mut self, reason: String) {
        self.reason = Some(reason);
        self.attempt = self.attempt.saturating_add(1);
    }

    /// Awaits a future, and reports a long wait. Cancel-safe if the future is.
    pub(crate) async fn during<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = sleep_until(self.tell_at) => {
                    log::line(self.text());
                    self.tell_at = Instant::now() + TELL_AGAIN;
                }
            }
        }
    }

    fn text(&self) -> String {
        let Self { what, attempt, .. } = self;
        match &self.reason {
            None => format!("waiting for {what}: nothing yet"),
            Some(reason) => format!("waiting for {what}: {reason}, attempt {attempt}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_names_what_is_waited_for_and_why() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _entered = runtime.as_ref().expect("a runtime").enter();
        let mut waiting = Waiting::on("tcp://host:1");
        assert_eq!(waiting.text(), "waiting for tcp://host:1: nothing yet");
        waiting.failed("connection refused".to_owned());
        waiting.failed("connection refused".to_owned());
        assert_eq!(
            waiting.text(),
            "waiting for tcp://host:1: connection refused, attempt 3"
        );
    }
}
