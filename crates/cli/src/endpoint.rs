//! Addresses as options take them: where to listen, and where to connect.

use ringmux::Addr;

/// Reads where to listen; a port alone is on the loopback interface, where only this machine reaches it.
pub(crate) fn local(text: &str) -> Result<Addr, String> {
    let addr = match text.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}").parse(),
        Err(_) => text.parse::<Addr>(),
    };
    addr.map_err(|error| error.to_string())
}

/// Reads where to listen on TCP, as `HOST:PORT`.
pub(crate) fn local_tcp(text: &str) -> Result<String, String> {
    match local(text)? {
        Addr::Tcp(host_port) => Ok(host_port),
        other => Err(format!(
            "{other} is no TCP address: write HOST:PORT or PORT"
        )),
    }
}

/// Reads where to connect.
pub(crate) fn remote(text: &str) -> Result<Addr, String> {
    let addr: Addr = text.parse().map_err(|error| format!("{error}"))?;
    match &addr {
        Addr::Tcp(host_port) if host_port.ends_with(":0") => Err(format!(
            "{text:?} is not where anything listens: write the port in the place of 0"
        )),
        _ => Ok(addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_the_loopback_interface_and_unix_sockets_have_no_metrics() {
        assert_eq!(local("8080"), Ok("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(local_tcp("localhost:0"), Ok("localhost:0".to_owned()));
        assert_eq!(local_tcp("9100"), Ok("127.0.0.1:9100".to_owned()));
        assert!(local_tcp("/run/a.sock").unwrap_err().contains("HOST:PORT"));
    }

    #[test]
    fn port_0_is_for_listening_only() {
        assert!(local("127.0.0.1:0").is_ok());
        for text in ["127.0.0.1:0", "tcp://[::1]:0"] {
            assert!(
                remote(text).unwrap_err().contains("write the port"),
                "{text}"
            );
        }
        assert!(remote("127.0.0.1:10").is_ok() && remote("/run/a:0").is_ok());
    }
}
