//! Sessions to an endpoint that is named on the command line.

use std::error::Error;
use std::time::Duration;

use ringmux::{Addr, Config, ConnectError, Engine, Session, SessionError};
use ringmux_measure::failure::{Failure, reworded};
use tokio::time::sleep;

use crate::waiting::Waiting;

/// Pause after the first attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connects to `addr` in one attempt; `whom` names the expected endpoint in errors.
pub(crate) async fn connect(
    engine: &Engine,
    addr: &Addr,
    config: &Config,
    whom: &str,
) -> Result<Session, Failure> {
    let mut waiting = Waiting::on(addr);
    let connected = waiting.during(engine.connect(addr, config)).await;
    connected.map_err(|error| failure(addr, &error, whom))
}

/// Connects in as many attempts as necessary; only a permanent error ends it.
pub(crate) async fn connect_at_last(
    engine: &Engine,
    addr: &Addr,
    config: &Config,
    whom: &str,
) -> Result<Session, Failure> {
    let mut waiting = Waiting::on(addr);
    let mut pause = FIRST_PAUSE;
    loop {
        match waiting.during(engine.connect(addr, config)).await {
            Ok(session) => return Ok(session),
            Err(error) if may_pass(&error) => waiting.failed(reason(&error)),
            Err(error) => return Err(failure(addr, &error, whom)),
        }
        waiting.during(sleep(pause)).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// Whether a later attempt may succeed.
fn may_pass(error: &ConnectError) -> bool {
    match error {
        ConnectError::Io { .. } | ConnectError::TimedOut { .. } => true,
        // It speaks another protocol.
        ConnectError::Handshake { error, .. } => !matches!(error, SessionError::Protocol(_)),
        _ => false,
    }
}

/// The cause of an error that names the address.
fn behind(error: &ConnectError) -> &(dyn Error + 'static) {
    match error {
        ConnectError::Io { error, .. } => error,
        ConnectError::TimedOut { error, .. } => error,
        ConnectError::Handshake { error, .. } => error,
        error => error,
    }
}

/// The reason, without the address.
pub(crate) fn reason(error: &ConnectError) -> String {
    reworded(behind(error))
}

fn failure(addr: &Addr, error: &ConnectError, whom: &str) -> Failure {
    let failure = Failure::new(format!("cannot connect to {addr}")).because(behind(error));
    let was_tried = matches!(
        error,
        ConnectError::Io { .. } | ConnectError::TimedOut { .. } | ConnectError::Handshake { .. }
    );
    let reason = reason(error);
    // The message of the C library's resolver.
    if reason.contains("failed to lookup address") {
        return failure.advise("check the name and the resolver");
    }
    // Some reasons already end in a question.
    if was_tried && !reason.ends_with('?') {
        return failure.advise(format!("is {whom} listening there?"));
    }
    failure
}
