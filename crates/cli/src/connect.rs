//! Sessions to an endpoint that is named on the command line.

use std::error::Error;
use std::time::Duration;

use ringmux::{Addr, Config, ConnectError, Engine, Session, SessionError};
use ringmux_measure::failure::{Failure, reworded};
use tokio::time::sleep;

use crate::waiting::Waiting;

/// From the first attempt to the next, where there is more than one; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connects to `whom`, who should be at `addr`, in one attempt.
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

/// The same in as many attempts as it takes; only what will not pass by itself ends it.
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

/// Whether the endpoint may be there later.
fn may_pass(error: &ConnectError) -> bool {
    match error {
        ConnectError::Io { .. } | ConnectError::TimedOut { .. } => true,
        // It speaks another protocol.
        ConnectError::Handshake { error, .. } => !matches!(error, SessionError::Protocol(_)),
        _ => false,
    }
}

/// What lies behind an error that names the address.
fn behind(error: &ConnectError) -> &(dyn Error + 'static) {
    match error {
        ConnectError::Io { error, .. } => error,
        ConnectError::TimedOut { error, .. } => error,
        ConnectError::Handshake { error, .. } => error,
        error => error,
    }
}

/// Why, without the address.
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
    // As the resolver of the C library says it.
    if reason.contains("failed to lookup address") {
        return failure.advise("check the name and the resolver");
    }
    // Some reasons ask already.
    if was_tried && !reason.ends_with('?') {
        return failure.advise(format!("is {whom} listening there?"));
    }
    failure
}
