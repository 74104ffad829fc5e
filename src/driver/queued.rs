//! What the system knows of a connection: the length of the socket's send queue, which tells a slow connection from a dead one
//! while neither its owner nor the peer can act; whether the peer's system answers; whether the connection has ended.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl};

use crate::bridge::PeerSystem;

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

/// What the peer's system does, of a TCP socket: another kind of connection has no far system.
///
/// Bytes that stay unacknowledged do not tell, as those beyond a closed window do for as long as the peer does not read: the
/// system probes it meanwhile, ever more rarely, and it answers.
pub(crate) fn peer_system(socket: BorrowedFd<'_>) -> PeerSystem {
    let Some(info) = tcp_info(socket) else {
        return PeerSystem::Unknown;
    };
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let (heard, sent) = (
        millis(info.tcpi_last_ack_recv),
        millis(info.tcpi_last_data_sent),
    );
    // Where there is no route, what is repeated is not even sent.
    let repeats = info.tcpi_retransmits > 0 && heard > Duration::from_micros(info.tcpi_rto.into());
    let owes = info.tcpi_unacked > 0 && (heard > sent || repeats);
    match owes || info.tcpi_probes > 0 {
        true => PeerSystem::Silent(heard),
        false => PeerSystem::Answers,
    }
}

fn tcp_info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `info`, which has that many, and the number of them to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    // SAFETY: it is made of numbers, for which the zeros that it was made of are values as well.
    (result == 0).then(|| unsafe { info.assume_init() })
}

/// Whether the connection has ended in both directions, which reading would tell behind the bytes received before: `Some`, with the
/// error that ended it, if one did. A peer that has shut down only its own direction may still read.
pub(crate) fn hung_up(socket: BorrowedFd<'_>) -> Option<io::Result<()>> {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).ok()?;
    if !fds[0].revents().contains(PollFlags::HUP) {
        return None;
    }
    Some(match rustix::net::sockopt::socket_error(socket) {
        // The peer's end was received before what failed.
        Ok(Ok(()) | Err(Errno::PIPE)) => Ok(()),
        Ok(Err(error)) | Err(error) => Err(error.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

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

    /// Both ends of a connection over TCP.
    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let near = TcpStream::connect(addr).expect("a connection");
        (near, listener.accept().expect("a connection").0)
    }

    #[test]
    fn a_system_whose_window_is_closed_answers() {
        let (mut near, _far) = tcp();
        assert_eq!(peer_system(near.as_fd()), PeerSystem::Answers);
        near.set_nonblocking(true).expect("a flag");
        fill(&mut near);
        assert!(queued(near.as_fd()) > Some(0));
        // A probe may be under way at one look, and is answered at another.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while peer_system(near.as_fd()) != PeerSystem::Answers {
            assert!(std::time::Instant::now() < deadline, "it never answers");
            std::thread::yield_now();
        }
        let (near, _far) = UnixStream::pair().expect("a pair");
        assert_eq!(peer_system(near.as_fd()), PeerSystem::Unknown);
    }

    #[test]
    fn a_connection_that_is_over_in_both_directions_says_so_in_front_of_what_was_received() {
        for shuts in [false, true] {
            let (near, mut far) = tcp();
            far.write_all(b"unread").expect("it is open");
            if shuts {
                far.shutdown(std::net::Shutdown::Write).expect("it is open");
            }
            assert!(hung_up(near.as_fd()).is_none(), "it may still read");
            let socket = socket2::SockRef::from(&far);
            socket.set_linger(Some(Duration::ZERO)).expect("an option");
            drop(far);
            let ended = loop {
                if let Some(ended) = hung_up(near.as_fd()) {
                    break ended.map_err(|error| error.kind());
                }
                std::thread::yield_now();
            };
            let reset = Err(io::ErrorKind::ConnectionReset);
            assert_eq!(ended, if shuts { Ok(()) } else { reset });
        }

        let (near, mut far) = UnixStream::pair().expect("a pair");
        far.write_all(b"unread").expect("it is open");
        assert!(hung_up(near.as_fd()).is_none());
        drop(far);
        assert!(matches!(hung_up(near.as_fd()), Some(Ok(()))));
    }

    #[test]
    fn what_is_no_socket_says_nothing() {
        let file = std::fs::File::open("/dev/null").expect("it is everywhere");
        assert_eq!(queued(file.as_fd()), None);
    }
}
