//! The length of a socket's send queue: the only sign that tells a slow connection from a dead one while neither its owner
//! nor the peer can act.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// Asks for the bytes of a socket's send queue (`SIOCOUTQ`, which is the terminals' number as well).
const OUTQ: Opcode = libc::TIOCOUTQ as Opcode;

/// Bytes that `socket` has taken and the system at the other end has not acknowledged; of a Unix socket, the memory of
/// packets (up to 48 KiB each) that the peer has not read completely. `None` if that is no such socket.
pub(crate) fn queued(socket: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: the kernel writes one `int` for this number, on any kind of descriptor.
    let getter = unsafe { Getter::<OUTQ, c_int>::new() };
    // SAFETY: as above; it changes nothing.
    let bytes = unsafe { ioctl(socket, getter) }.ok()?;
    u64::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::queued;

    /// Fills the socket; returns how much it has taken.
    fn fill(socket: &mut impl Write) -> u64 {
        let mut taken = 0;
        while let Ok(n) = socket.write(&[7; 4096]) {
            taken += n as u64;
        }
        taken
    }

    #[test]
    fn what_the_peer_reads_leaves_a_unix_socket() {
        let (mut near, mut far) = UnixStream::pair().expect("a pair");
        assert_eq!(queued(near.as_fd()), Some(0));
        near.set_nonblocking(true).expect("a flag");
        let taken = fill(&mut near);
        let full = queued(near.as_fd()).expect("a socket");
        assert!(full >= taken, "{full} of {taken}");
        far.read_exact(&mut vec![0; taken as usize]).expect("bytes");
        assert_eq!(queued(near.as_fd()), Some(0));
    }

    #[test]
    fn what_the_peer_does_not_take_stays_in_a_tcp_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut near = TcpStream::connect(addr).expect("a connection");
        let (_far, _) = listener.accept().expect("a connection");
        assert_eq!(queued(near.as_fd()), Some(0));
        near.set_nonblocking(true).expect("a flag");
        let taken = fill(&mut near);
        let full = queued(near.as_fd()).expect("a socket");
        assert!(full > 0 && full <= taken, "{full} of {taken}");
    }

    #[test]
    fn what_is_no_socket_says_nothing() {
        let file = std::fs::File::open("/dev/null").expect("it is everywhere");
        assert_eq!(queued(file.as_fd()), None);
    }
}
