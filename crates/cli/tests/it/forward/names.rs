//! Addresses as people write them, through the whole program.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::process::Signal;

use crate::process::Program;

#[test]
fn abstract_names_carry_sessions_and_connections_and_leave_no_file() {
    let here = std::env::current_dir().unwrap();
    let files = || std::fs::read_dir(&here).unwrap().count();
    let before = files();
    let id = std::process::id();
    let [via, entry, target] =
        ["via", "entry", "target"].map(|name| format!("@ringmux-{id}-{name}"));
    let named = |name: &str| SocketAddr::from_abstract_name(&name[1..]).unwrap();
    let listener = UnixListener::bind_addr(&named(&target)).unwrap();
    let via_url = format!("unix://{via}");
    let mut serve = Program::start(&["serve", "--listen", &via_url, "--allow", &target]);
    assert_eq!(serve.listening(), via_url);
    let pair = format!("unix:{entry}={target}");
    let mut forward = Program::start(&["forward", &pair, "--via", &via]);
    assert_eq!(forward.listening(), format!("unix://{entry}"));
    let mut client = UnixStream::connect_addr(&named(&entry)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(files(), before, "a file was made in {}", here.display());
    drop(client);
    for program in [&mut forward, &mut serve] {
        program.signal(Signal::TERM);
        assert_eq!(program.ended().code(), Some(0));
    }
    // The name is free again.
    UnixListener::bind_addr(&named(&via)).unwrap();
}

#[test]
fn a_path_that_is_too_long_is_wrong_usage_that_names_the_limit() {
    let long = format!("unix:///{}", "a".repeat(119));
    let pair = format!("{long}=127.0.0.1:1");
    for args in [
        &["ping", &long][..],
        &["serve", "--allow", "*:*", "--listen", &long],
        &["forward", &pair, "--via", "127.0.0.1:1"],
    ] {
        let mut program = Program::start(args);
        assert_eq!(program.ended().code(), Some(2), "{args:?}");
        program.logged(&["has 120 bytes", "107 at most"]);
    }
}
