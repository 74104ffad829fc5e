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

/// Intervals between probes of a closed window.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_INTERVAL: Duration = Duration::from_secs(120);

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
    tcp_info(socket).map_or(PeerSystem::Unknown, |info| of_info(&info))
}

fn of_info(info: &libc::tcp_info) -> PeerSystem {
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let (heard, sent) = (
        millis(info.tcpi_last_ack_recv),
        millis(info.tcpi_last_data_sent),
    );
    // Where there is no route, what is repeated is not even sent.
    let repeats = info.tcpi_retransmits > 0 && heard > Duration::from_micros(info.tcpi_rto.into());
    if info.tcpi_unacked > 0 && (heard > sent || repeats) {
        PeerSystem::Silent(heard)
    } else if info.tcpi_probes > 0 {
        PeerSystem::Silent(between_probes(info))
    } else {
        PeerSystem::Answers
    }
}

/// The least time between the first and the last of the probes that were not answered: each of their intervals is at least half
/// of the one behind it. A single one tells nothing: if it was lost, the next one may follow only after minutes.
fn between_probes(info: &libc::tcp_info) -> Duration {
    let interval = Duration::from_micros(info.tcpi_rto.into()).max(LEAST_INTERVAL);
    let next = interval * (1 << info.tcpi_backoff.min(15));
    let next = next.min(LONGEST_INTERVAL);
    next - next / (1 << (info.tcpi_probes.clamp(1, 16) - 1))
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

/// The end of a connection, as seen in front of the bytes that were received before it.
#[derive(Debug)]
pub(crate) enum HungUp {
    /// It has not ended in both directions. A peer that has shut down only its own direction may still read.
    No,
    /// The peer has closed it in order, behind bytes that are not read.
    BehindBytes,
    /// Nothing follows that reading would tell but the error that ended it, if one did.
    Now(io::Result<()>),
}

/// Whether the connection has ended in both directions. The caller may have `received` bytes of it that it has not passed on.
pub(crate) fn hung_up(socket: BorrowedFd<'_>, received: bool) -> HungUp {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut fds, Some(&now)).is_err() || !fds[0].revents().contains(PollFlags::HUP) {
        return HungUp::No;
    }
    match rustix::net::sockopt::socket_error(socket) {
        // The peer's end was received before what failed.
        Ok(Ok(()) | Err(Errno::PIPE)) if received || has_unread(socket) => HungUp::BehindBytes,
        Ok(Ok(()) | Err(Errno::PIPE)) => HungUp::Now(Ok(())),
        Ok(Err(error)) | Err(error) => HungUp::Now(Err(error.into())),
    }
}

fn has_unread(socket: BorrowedFd<'_>) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
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

    /// As the system reports them: the acknowledged and sent times in milliseconds, the others in microseconds.
    fn info(unacked: u32, heard: u32, sent: u32, probes: u8, backoff: u8) -> libc::tcp_info {
        // SAFETY: it is made of numbers.
        let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
        (info.tcpi_unacked, info.tcpi_rto) = (unacked, 200_000);
        (info.tcpi_last_ack_recv, info.tcpi_last_data_sent) = (heard, sent);
        (info.tcpi_probes, info.tcpi_backoff) = (probes, backoff);
        info
    }

    #[test]
    fn a_system_whose_window_is_closed_is_silent_for_the_time_between_probes_that_it_left_unanswered()
     {
        let silent = |millis| PeerSystem::Silent(Duration::from_millis(millis));
        // Probes that are not answered, and the intervals so far as doublings of 200 ms.
        for (probes, backoff, system) in [
            (0, 7, PeerSystem::Answers),
            // The next one follows in 25.6 s, or, at the most, 120 s.
            (1, 7, silent(0)),
            (1, 15, silent(0)),
            // Of intervals that double: 6.4 s before one of 12.8 s, and 9.6 s.
            (2, 6, silent(6_400)),
            (3, 6, silent(9_600)),
            // The first two were more than 60 s apart.
            (2, 15, silent(60_000)),
            (3, 15, silent(90_000)),
        ] {
            let heard = 130_000;
            let seen = of_info(&info(0, heard, heard + 60_000, probes, backoff));
            assert_eq!(seen, system, "{probes} probes, {backoff} doublings");
        }
        // Bytes under way are repeated all the time.
        assert_eq!(of_info(&info(1, 5_000, 4_000, 0, 0)), silent(5_000));
        assert_eq!(of_info(&info(1, 4_000, 5_000, 0, 0)), PeerSystem::Answers);
    }

    /// Waits until the connection has ended.
    fn end(socket: BorrowedFd<'_>) -> HungUp {
        loop {
            match hung_up(socket, false) {
                HungUp::No => std::thread::yield_now(),
                end => return end,
            }
        }
    }

    fn is_reset(end: &HungUp) -> bool {
        matches!(end, HungUp::Now(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Its bytes are behind the end for as long as they are not read.
    fn ends_behind_bytes(near: &mut (impl Read + AsFd)) {
        let ended = end(near.as_fd());
        assert!(matches!(ended, HungUp::BehindBytes), "{ended:?}");
        near.read_exact(&mut [0; 5]).expect("bytes");
        let ended = end(near.as_fd());
        assert!(matches!(ended, HungUp::BehindBytes), "{ended:?}");
        near.read_exact(&mut [0]).expect("a byte");
        let received = hung_up(near.as_fd(), true);
        assert!(matches!(received, HungUp::BehindBytes), "{received:?}");
        let ended = end(near.as_fd());
        assert!(matches!(ended, HungUp::Now(Ok(()))), "{ended:?}");
        assert_eq!(near.read(&mut [0]).expect("the end"), 0);
    }

    #[test]
    fn an_end_in_order_is_behind_the_bytes_before_it_and_a_reset_is_in_front_of_them() {
        for shuts in [false, true] {
            let (mut near, mut far) = tcp();
            far.write_all(b"unread").expect("it is open");
            if shuts {
                far.shutdown(std::net::Shutdown::Write).expect("it is open");
            }
            let open = hung_up(near.as_fd(), false);
            assert!(matches!(open, HungUp::No), "it may still read: {open:?}");
            let socket = socket2::SockRef::from(&far);
            socket.set_linger(Some(Duration::ZERO)).expect("an option");
            drop(far);
            if shuts {
                ends_behind_bytes(&mut near);
            } else {
                let ended = end(near.as_fd());
                assert!(is_reset(&ended), "{ended:?}");
            }
        }
    }

    #[test]
    fn an_end_over_a_unix_socket_is_behind_the_bytes_before_it_unless_the_peer_has_left_some_unread()
     {
        for leaves in [false, true] {
            let (mut near, mut far) = UnixStream::pair().expect("a pair");
            far.write_all(b"unread").expect("it is open");
            assert!(matches!(hung_up(near.as_fd(), false), HungUp::No));
            if leaves {
                near.write_all(b"unread").expect("it is open");
            }
            drop(far);
            if leaves {
                let ended = end(near.as_fd());
                assert!(is_reset(&ended), "{ended:?}");
            } else {
                ends_behind_bytes(&mut near);
            }
        }
    }

    #[test]
    fn what_is_no_socket_says_nothing() {
        let file = std::fs::File::open("/dev/null").expect("it is everywhere");
        assert_eq!(queued(file.as_fd()), None);
    }
}
