//! Addresses, and the names of drivers and wires: small types that every layer may use.

mod wire;

use std::fmt;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;
use std::str::FromStr;

pub use wire::{UnknownWire, Wire};

/// The longest path or abstract name of a Unix socket, in bytes: `sun_path` without the NUL that ends a path, or begins
/// a name.
const UNIX_PATH_MAX_BYTES: usize = 107;
/// The longest host, in bytes: the longest name that DNS has.
const HOST_MAX_BYTES: usize = 253;

/// An address to connect to or to listen on.
///
/// | written | is |
/// |---|---|
/// | `HOST:PORT`, `tcp://HOST:PORT`, `tcp:HOST:PORT` | TCP; the host is a name, an IPv4 address, or an IPv6 address in brackets |
/// | `/PATH`, `./PATH`, `unix:PATH`, `unix:///PATH` | a Unix socket, by the path of its file |
/// | `@NAME`, `unix:@NAME`, `unix://@NAME` | a Unix socket with an abstract name, as `ss` and systemd show it |
///
/// Paths and names have at most 107 bytes, hosts 253. Any other text is refused with an error that shows the right form.
///
/// # Examples
/// ```
/// use ringmux::Addr;
///
/// let tcp: Addr = "tcp://127.0.0.1:4500".parse()?;
/// assert_eq!(tcp, "127.0.0.1:4500".parse()?);
/// let unix: Addr = "unix:///run/app.sock".parse()?;
/// assert_eq!(unix, "/run/app.sock".parse()?);
/// assert_eq!(unix.to_string(), "unix:///run/app.sock");
///
/// let error = "http://127.0.0.1".parse::<Addr>().unwrap_err();
/// assert!(error.to_string().ends_with("write tcp://HOST:PORT or unix:///PATH"), "{error}");
/// # Ok::<(), ringmux::AddrError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Addr {
    /// `host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp(String),
    /// The path of a Unix socket; one without a `/` in front is relative to the working directory. One that begins with
    /// `@` is an abstract name, which has no file; the file of that name is `./@NAME`.
    Unix(PathBuf),
}

/// Why a text is no [`Addr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {problem}")]
pub struct AddrError {
    text: String,
    /// The problem, and the right form.
    problem: String,
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        parse(text).map_err(|problem| AddrError {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Addr, String> {
    if text.is_empty() {
        return Err("it is empty: write tcp://HOST:PORT or unix:///PATH".to_owned());
    }
    if text.trim() != text {
        return Err("there is white space around it: remove it".to_owned());
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path.strip_prefix("//").unwrap_or(path));
    }
    if text.starts_with(['/', '@']) || text.starts_with("./") || text.starts_with("../") {
        return unix(text);
    }
    if text.starts_with('~') {
        return Err("~ is expanded by shells only: write the whole path".to_owned());
    }
    if let Some((scheme, host_port)) = text.split_once("://") {
        if scheme.eq_ignore_ascii_case("tcp") {
            return tcp(host_port);
        }
        return Err(format!(
            "{scheme}:// is another protocol: write tcp://HOST:PORT or unix:///PATH"
        ));
    }
    match text.split_once(':') {
        // A host of this name would be `tcp:PORT`, with one colon.
        Some(("tcp", host_port)) if host_port.contains(':') => tcp(host_port),
        Some((kind @ ("fd" | "systemd" | "vsock" | "udp"), _)) => Err(format!(
            "{kind}: is no address of TCP or of a Unix socket; if a host has that name, write tcp://{text}"
        )),
        _ => tcp(text),
    }
}

fn unix(path: &str) -> Result<Addr, String> {
    let name = path.strip_prefix('@');
    let (kind, len) = match name {
        Some(name) => ("abstract name", name.len()),
        None => ("path", path.len()),
    };
    if len == 0 {
        return Err(format!(
            "the {kind} is missing: write unix:///PATH or unix://@NAME"
        ));
    }
    if len > UNIX_PATH_MAX_BYTES {
        return Err(format!(
            "the {kind} has {len} bytes and a Unix socket's has {UNIX_PATH_MAX_BYTES} at most: choose a shorter one"
        ));
    }
    if path.contains('\0') {
        return Err(format!(
            "there is a NUL byte in the {kind}: an abstract name is written unix://@NAME"
        ));
    }
    if path.ends_with('/') && name.is_none() {
        return Err("it is a directory: write the path of the socket in it".to_owned());
    }
    Ok(Addr::Unix(PathBuf::from(path)))
}

fn tcp(text: &str) -> Result<Addr, String> {
    // URLs copied from a browser or curl end in `/`.
    let host_port = text.strip_suffix('/').unwrap_or(text);
    if let Some((before, path)) = host_port.split_once('/') {
        return Err(format!(
            "/{path} is a path, and TCP addresses have none: write {before}"
        ));
    }
    if let Some(c) = host_port
        .chars()
        .find(|c| c.is_whitespace() || c.is_control())
    {
        return Err(format!("{c:?} is in it: write HOST:PORT"));
    }
    if host_port.parse::<Ipv6Addr>().is_ok() {
        let or = match host_port.rsplit_once(':') {
            Some((host, port))
                if host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok() =>
            {
                format!(", or [{host}]:{port} if {port} is the port")
            }
            _ => String::new(),
        };
        return Err(format!(
            "an IPv6 address goes in brackets, and a port behind it: write [{host_port}]:PORT{or}"
        ));
    }
    let Some((host, port)) = host_port
        .rsplit_once(':')
        .filter(|_| !host_port.ends_with(']'))
    else {
        return Err(match host_port.parse::<u16>() {
            Ok(port) => format!("the host is missing: write HOST:{port}"),
            Err(_) => format!("the port is missing: write {host_port}:PORT"),
        });
    };
    check_port(host, port)?;
    check_host(host, port)?;
    Ok(Addr::Tcp(host_port.to_owned()))
}

fn check_port(host: &str, port: &str) -> Result<(), String> {
    if port.is_empty() {
        return Err(format!("the port is missing: write {host}:PORT"));
    }
    // `u16` would accept a sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(_) if digits => Ok(()),
        _ => Err(format!("the port {port} is not a number from 0 to 65535")),
    }
}

fn check_host(host: &str, port: &str) -> Result<(), String> {
    if let Some((_, host)) = host.rsplit_once('@') {
        return Err(format!("addresses have no user names: write {host}:{port}"));
    }
    if host.is_empty() || host == "*" {
        return Err(format!(
            "the host is missing: write 127.0.0.1:{port}, or 0.0.0.0:{port} or [::]:{port} to listen on every interface"
        ));
    }
    if host.starts_with('[') || host.ends_with(']') {
        let v6 = format!("{host}:{port}").parse::<SocketAddrV6>();
        return v6.map(drop).map_err(|_| {
            format!("{host} is not an IPv6 address in brackets, such as [::1] or [fe80::1%2], with the number of the interface")
        });
    }
    if host.contains(':') {
        return Err(format!(
            "an IPv6 address goes in brackets: write [{host}]:{port}"
        ));
    }
    if host.len() > HOST_MAX_BYTES {
        let len = host.len();
        return Err(format!(
            "the host has {len} bytes and a name has {HOST_MAX_BYTES} at most"
        ));
    }
    Ok(())
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => write!(f, "tcp://{host_port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The driver that moves a session's bytes between its protocol and the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Driver {
    /// io_uring, on a ring of the engine's own: the fastest, and the choice of [`Engine::auto`] where
    /// the kernel allows it (Linux 6.1 or later).
    ///
    /// [`Engine::auto`]: crate::Engine::auto
    Uring,
    /// io_uring, through the tokio-uring runtime. Its writes to Unix sockets raise SIGPIPE when the peer has gone: a
    /// process whose `main` is not Rust's, which ignores that signal, must ignore it itself. Needs the feature `tokio-uring`, which is
    /// on by default.
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

/// An unknown name of a [`Driver`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown driver {0:?} (expected uring, tokio-uring or tokio)")]
pub struct UnknownDriver(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_other_programs_write_them_work() {
        for (text, shown) in [
            ("localhost:80", "tcp://localhost:80"),
            ("tcp://localhost:80", "tcp://localhost:80"),
            ("tcp://localhost:80/", "tcp://localhost:80"),
            ("tcp:localhost:80", "tcp://localhost:80"),
            ("TCP://localhost:80", "tcp://localhost:80"),
            ("tcp://fd:3", "tcp://fd:3"),
            ("tcp:80", "tcp://tcp:80"),
            ("127.0.0.1:0", "tcp://127.0.0.1:0"),
            ("[::1]:65535", "tcp://[::1]:65535"),
            ("tcp://[fe80::1%2]:80", "tcp://[fe80::1%2]:80"),
            ("tcp:[::]:80", "tcp://[::]:80"),
            ("unix:///run/a b.sock", "unix:///run/a b.sock"),
            ("unix:/run/a.sock", "unix:///run/a.sock"),
            ("unix://a.sock", "unix://a.sock"),
            ("unix:a.sock", "unix://a.sock"),
            ("/run/a.sock", "unix:///run/a.sock"),
            ("./a.sock", "unix://./a.sock"),
            ("../a.sock", "unix://../a.sock"),
            ("unix://@app", "unix://@app"),
            ("unix:@app/1", "unix://@app/1"),
            ("@app", "unix://@app"),
            ("unix://./@app", "unix://./@app"),
        ] {
            let addr: Addr = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(addr.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(addr), "it is read as it is shown");
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write_instead() {
        for (text, problem) in [
            ("", "it is empty: write tcp://HOST:PORT or unix:///PATH"),
            (" localhost:80", "white space around it"),
            ("localhost:80\n", "white space around it"),
            ("local host:80", "' ' is in it"),
            ("localhost", "the port is missing: write localhost:PORT"),
            ("localhost:", "the port is missing: write localhost:PORT"),
            ("[::1]", "the port is missing: write [::1]:PORT"),
            ("80", "the host is missing: write HOST:80"),
            (
                ":80",
                "the host is missing: write 127.0.0.1:80, or 0.0.0.0:80 or [::]:80",
            ),
            (
                "*:80",
                "the host is missing: write 127.0.0.1:80, or 0.0.0.0:80 or [::]:80",
            ),
            (
                "localhost:http",
                "the port http is not a number from 0 to 65535",
            ),
            (
                "localhost:65536",
                "the port 65536 is not a number from 0 to 65535",
            ),
            ("localhost:+80", "the port +80 is not a number"),
            ("localhost:-1", "the port -1 is not a number"),
            ("::1", "write [::1]:PORT"),
            ("fe80::1:80", "write [fe80::1:80]:PORT"),
            ("fe80::1%eth0:80", "write [fe80::1%eth0]:80"),
            (
                "[fe80::1%eth0]:80",
                "[fe80::1%eth0] is not an IPv6 address in brackets",
            ),
            (
                "[localhost]:80",
                "[localhost] is not an IPv6 address in brackets",
            ),
            ("[::1:80", "[::1 is not an IPv6 address in brackets"),
            (
                "http://localhost:80",
                "http:// is another protocol: write tcp://HOST:PORT",
            ),
            ("udp://localhost:80", "udp:// is another protocol"),
            ("udp:localhost:80", "write tcp://udp:localhost:80"),
            ("vsock:2:70", "vsock: is no address"),
            ("fd:3", "if a host has that name, write tcp://fd:3"),
            ("systemd:0", "systemd: is no address"),
            (
                "~/a.sock",
                "~ is expanded by shells only: write the whole path",
            ),
            ("::1:7000", "or [::1]:7000 if 7000 is the port"),
            (
                "tcp://localhost:80/path",
                "/path is a path, and TCP addresses have none: write localhost:80",
            ),
            (
                "me@localhost:22",
                "addresses have no user names: write localhost:22",
            ),
            ("unix:", "the path is missing"),
            ("unix://", "the path is missing"),
            ("unix://@", "the abstract name is missing"),
            ("/run/", "it is a directory"),
            ("unix:///run/a\0b", "a NUL byte in the path"),
        ] {
            let error = text.parse::<Addr>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_a_socket_cannot_be_named_is_refused_by_its_length() {
        for start in ["/", "@"] {
            let named = |len: usize| format!("{start}{}", "a".repeat(len));
            let max = if start == "@" { 107 } else { 106 };
            assert!(named(max).parse::<Addr>().is_ok());
            let error = named(max + 1).parse::<Addr>().unwrap_err().to_string();
            assert!(error.contains("has 108 bytes"), "{error}");
            assert!(error.contains("107 at most"), "{error}");
        }
        let error = format!("{}:80", "a".repeat(254)).parse::<Addr>();
        assert!(error.unwrap_err().to_string().contains("254 bytes"));
    }
}
