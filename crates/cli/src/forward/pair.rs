//! `LOCAL=TARGET`.

use std::str::FromStr;

use ringmux::Addr;

use crate::endpoint;

/// Where to listen, and where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) local: Addr,
    pub(super) target: Addr,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text
            .split_once('=')
            .ok_or("expected LOCAL=TARGET, as in 127.0.0.1:8080=127.0.0.1:80")?;
        Ok(Self {
            local: endpoint::local(from)?,
            target: endpoint::remote(to)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_two_addresses() {
        let pair: Pair = "8080=unix:///run/a=b.sock".parse().unwrap();
        assert_eq!(pair.local, "tcp://127.0.0.1:8080".parse().unwrap());
        assert_eq!(pair.target, "unix:///run/a=b.sock".parse().unwrap());
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_said() {
        for (text, problem) in [
            ("127.0.0.1:80", "LOCAL=TARGET"),
            ("localhost=127.0.0.1:80", "port is missing"),
            ("8080=80", "host is missing"),
        ] {
            let error = text.parse::<Pair>().unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
