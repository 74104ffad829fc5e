//! The listening socket of `serve`: an address, or a socket passed by the service manager.

use std::fmt;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use listenfd::ListenFd;
use ringmux::{Addr, Config, Engine, ListenError, Listener};

use ringmux_measure::failure::Failure;

/// One `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    Addr(Addr),
    /// `systemd:N`: the socket of this number, from 0, that was passed in `LISTEN_FDS`.
    Passed(usize),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "systemd" {
            return Ok(Self::Passed(0));
        }
        match text.strip_prefix("systemd:") {
            Some("") => Ok(Self::Passed(0)),
            Some(number) => number.parse().map(Self::Passed).map_err(|_| {
                "write systemd:N, where N counts the unit's sockets from 0".to_owned()
            }),
            None => match text.parse() {
                Ok(addr) => Ok(Self::Addr(addr)),
                Err(error) => Err(format!("{error}")),
            },
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Passed(number) => write!(f, "systemd:{number}"),
        }
    }
}

impl Listen {
    pub(super) async fn bind(&self, engine: &Engine, config: &Config) -> Result<Listener, Failure> {
        let unavailable = |error: &ListenError| {
            let failure = Failure::new(format!("cannot listen on {self}"));
            match error {
                ListenError::Io { error, .. } => failure.because(error),
                error => failure.because(error),
            }
        };
        let listening = match self {
            Self::Addr(addr) => engine.listen(addr, config).await,
            Self::Passed(number) => engine.listen_on(self.take(*number)?, config).await,
        };
        listening.map_err(|error| unavailable(&error))
    }

    /// The socket, owned from now on.
    fn take(&self, number: usize) -> Result<OwnedFd, Failure> {
        let failure = || Failure::new(format!("cannot listen on {self}"));
        let mut passed = ListenFd::from_env();
        if number >= passed.len() {
            let what = match passed.len() {
                0 => "no socket was passed in LISTEN_FDS".to_owned(),
                1 => "1 was passed in LISTEN_FDS, counted from 0".to_owned(),
                len => format!("{len} were passed in LISTEN_FDS, counted from 0"),
            };
            return Err(failure().advise(what));
        }
        if let Ok(Some(socket)) = passed.take_tcp_listener(number) {
            return Ok(socket.into());
        }
        match passed.take_unix_listener(number) {
            Ok(Some(socket)) => Ok(socket.into()),
            _ => Err(failure().advise("it is not a TCP or Unix stream socket")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_socket_is_named_by_its_number() {
        for (text, expected) in [
            ("systemd", Listen::Passed(0)),
            ("systemd:", Listen::Passed(0)),
            ("systemd:2", Listen::Passed(2)),
            (
                "systemd:80:80",
                Listen::Addr("127.0.0.1:1".parse().unwrap()),
            ),
            ("127.0.0.1:1", Listen::Addr("127.0.0.1:1".parse().unwrap())),
        ] {
            match text.parse::<Listen>() {
                Ok(listen) => assert_eq!(listen, expected, "{text}"),
                Err(error) => assert!(error.contains("systemd:N"), "{text}: {error}"),
            }
        }
    }
}
