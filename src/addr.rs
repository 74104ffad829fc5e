//! Where a peer is, and what moves the bytes: two small types that every layer may name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to connect to or to listen on.
///
/// # Examples
/// ```
/// use ringmux::Addr;
///
/// let tcp: Addr = "tcp://127.0.0.1:4500".parse()?;
/// assert_eq!(tcp, "127.0.0.1:4500".parse()?);
/// let unix: Addr = "unix:///run/app.sock".parse()?;
/// assert_eq!(unix.to_string(), "unix:///run/app.sock");
/// assert!("http://127.0.0.1".parse::<Addr>().is_err());
/// # Ok::<(), ringmux::AddrError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Addr {
    /// `host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp(String),
    /// The path of a Unix socket; one without a `/` in front is relative to the working directory.
    Unix(PathBuf),
}

/// A text that is no [`Addr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {problem} (expected tcp://HOST:PORT or unix:///PATH)")]
pub struct AddrError {
    text: String,
    problem: &'static str,
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = |problem| AddrError {
            text: text.to_owned(),
            problem,
        };
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() {
                Err(error("the path is missing"))
            } else {
                Ok(Self::Unix(PathBuf::from(path)))
            };
        }
        let host_port = text.strip_prefix("tcp://").unwrap_or(text);
        if host_port.contains("://") {
            return Err(error("unknown scheme"));
        }
        let (host, port) = host_port
            .rsplit_once(':')
            .ok_or(error("the port is missing"))?;
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return Err(error("an IPv6 address goes in brackets"));
        }
        port.parse::<u16>()
            .map_err(|_| error("the port is not a number from 0 to 65535"))?;
        Ok(Self::Tcp(host_port.to_owned()))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => write!(f, "tcp://{host_port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What moves a session's bytes between its protocol and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Driver {
    /// io_uring, on a ring of the engine's own: the fastest, and what [`Engine::auto`] takes where
    /// the kernel allows it (Linux 6.1 or later).
    ///
    /// [`Engine::auto`]: crate::Engine::auto
    Uring,
    /// io_uring, through the tokio-uring runtime. Its writes to Unix sockets raise SIGPIPE when the peer has gone: a
    /// process whose `main` is not Rust's, which ignores that signal, must ignore it itself.
    TokioUring,
    /// Readiness and non-blocking calls, through tokio; works where io_uring is not allowed, and
    /// over any `AsyncRead + AsyncWrite`.
    Tokio,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::TokioUring => "tokio-uring",
            Self::Tokio => "tokio",
        })
    }
}

impl FromStr for Driver {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        match name {
            "uring" => Ok(Self::Uring),
            "tokio-uring" => Ok(Self::TokioUring),
            "tokio" => Ok(Self::Tokio),
            _ => Err(UnknownDriver(name.to_owned())),
        }
    }
}

/// A name that is no [`Driver`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown driver {0:?} (expected uring, tokio-uring or tokio)")]
pub struct UnknownDriver(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_addresses_are_told_apart() {
        for (text, problem) in [
            ("localhost", "port is missing"),
            (":80", "host is missing"),
            ("localhost:http", "not a number"),
            ("::1:80", "brackets"),
            ("udp://localhost:80", "unknown scheme"),
            ("unix://", "path is missing"),
        ] {
            let error = text.parse::<Addr>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
