//! Sessions to an endpoint that is named on the command line.

use ringmux::{Addr, Config, ConnectError, Engine, Session};

use ringmux_measure::failure::Failure;

/// Connects to `whom`, who should be at `addr`.
pub(crate) async fn connect(
    engine: &Engine,
    addr: &Addr,
    config: &Config,
    whom: &str,
) -> Result<Session, Failure> {
    let connected = engine.connect(addr, config).await;
    connected.map_err(|error| {
        let failure = Failure::new(format!("cannot connect to {addr}"));
        // Without the address, which was said.
        let failure = match &error {
            ConnectError::Io { error, .. } => failure.because(error),
            ConnectError::TimedOut { error, .. } => failure.because(error),
            ConnectError::Handshake { error, .. } => failure.because(error),
            error => return failure.because(error),
        };
        failure.advise(format!("is {whom} listening there?"))
    })
}
