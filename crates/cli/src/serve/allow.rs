//! The targets that clients of `serve` may reach.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use ringmux::Addr;

/// One `--allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Allow {
    /// `HOST:PORT`; `*` for either of them allows any.
    Tcp {
        host: Option<String>,
        port: Option<u16>,
    },
    /// `unix:///PATH`.
    Unix(PathBuf),
    /// `unix:///DIRECTORY/*`: everything below it.
    UnixBelow(PathBuf),
}

impl Allow {
    /// Compares names as they are written: neither is resolved.
    pub(super) fn allows(&self, target: &Addr) -> bool {
        match (self, target) {
            (Self::Tcp { host, port }, Addr::Tcp(target)) => {
                let Some((target_host, target_port)) = split(target) else {
                    return false;
                };
                host.as_ref()
                    .is_none_or(|host| host.eq_ignore_ascii_case(target_host))
                    && port.is_none_or(|port| target_port.parse() == Ok(port))
            }
            (Self::Unix(path), Addr::Unix(target)) => path == target,
            (Self::UnixBelow(directory), Addr::Unix(target)) => {
                target.starts_with(directory) && target != directory && !climbs(target)
            }
            _ => false,
        }
    }
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(Addr::Unix(path)) = text.parse() {
            return Ok(
                match path.to_str().and_then(|path| path.strip_suffix("/*")) {
                    Some(directory) => Self::UnixBelow(PathBuf::from(format!("{directory}/"))),
                    None => Self::Unix(path),
                },
            );
        }
        // With its stars replaced it must be a valid address.
        let host_port = text.strip_prefix("tcp://").unwrap_or(text);
        let (named, any_host) = match host_port.strip_prefix("*:") {
            Some(port) => (format!("any:{port}"), true),
            None => (text.to_owned(), false),
        };
        let (named, any_port) = match named.strip_suffix(":*") {
            Some(host) => (format!("{host}:0"), true),
            None => (named, false),
        };
        let Addr::Tcp(host_port) = named.parse::<Addr>().map_err(|error| error.to_string())? else {
            return Err("this kind of address is not supported".to_owned());
        };
        let (host, port) = split(&host_port).ok_or("the port is missing")?;
        let port = port.parse().map_err(|_| "the port is not a number")?;
        if port == 0 && !any_port {
            return Err("nothing listens at port 0: write another one, or * for any".to_owned());
        }
        Ok(Self::Tcp {
            host: (!any_host).then(|| host.to_owned()),
            port: (!any_port).then_some(port),
        })
    }
}

fn split(host_port: &str) -> Option<(&str, &str)> {
    host_port.rsplit_once(':')
}

/// Whether a path leaves the directories that it names.
fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allow: &str, target: &str) -> bool {
        let allow: Allow = allow.parse().unwrap();
        allow.allows(&target.parse().unwrap())
    }

    #[test]
    fn an_address_allows_itself_however_it_is_written() {
        assert!(allows("127.0.0.1:80", "tcp://127.0.0.1:80"));
        assert!(allows("tcp://Example.org:443", "example.ORG:443"));
        assert!(allows("[::1]:80", "[::1]:80"));
        assert!(allows("unix:///run/a.sock", "unix:///run/a.sock"));
        assert!(allows("/run/a.sock", "unix:/run/a.sock"));
        assert!(allows("@app", "unix://@app"));
        assert!(!allows("@app", "unix://./@app"));
        assert!(!allows("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!allows("127.0.0.1:80", "127.0.0.11:80"));
        assert!(!allows("127.0.0.1:80", "localhost:80"));
        assert!(!allows("unix:///run/a.sock", "unix:///run/a.sock2"));
    }

    #[test]
    fn stars_stand_for_any_port_or_any_host() {
        assert!(allows("localhost:*", "localhost:9000"));
        assert!(allows("tcp:localhost:*", "localhost:9000"));
        assert!(allows("*:443/", "example.org:443"));
        assert!(!allows("*:443/", "example.org:80"));
        assert!(!allows("localhost:*", "localhost.evil.org:9000"));
        assert!(allows("*:443", "example.org:443"));
        assert!(!allows("*:443", "example.org:80"));
        assert!(allows("*:*", "[::1]:80"));
        assert!(!allows("*:*", "unix:///run/a.sock"));
    }

    #[test]
    fn a_directory_allows_what_is_below_it_and_nothing_else() {
        assert!(allows("unix:///run/app/*", "unix:///run/app/a/b.sock"));
        assert!(allows("unix:/run/app/*", "/run/app/a.sock"));
        assert!(allows("/run/app/*", "unix:/run/app/a.sock"));
        assert!(!allows("unix:///*", "unix://@app"));
        assert!(!allows("unix:///run/app/*", "unix:///run/application.sock"));
        assert!(!allows("unix:///run/app/*", "unix:///run/app/../root.sock"));
        assert!(!allows("unix:///run/app/*", "unix:///run/app"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", "localhost", "::1:*", ":*", "localhost:http", "unix://"] {
            assert!(wrong.parse::<Allow>().is_err(), "{wrong}");
        }
    }
}
