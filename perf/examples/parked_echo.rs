//! Round trips of 64 bytes between two threads that sleep while they wait, without any protocol: over blocking sockets,
//! and over the minimum of a parked driver on io_uring. The ratio of the two is the kernel's part of the figure of
//! `compare --wait park --workload pingpong`.
//!
//! ```sh
//! cargo run --release -p ringmux-perf --example parked_echo
//! ```

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};

const MESSAGE_LEN: usize = 64;
/// All variants take a turn in each round.
const ROUNDS: usize = 15;
const TRIPS_PER_ROUND: usize = 8_000;
/// First byte of the last message.
const LAST: u8 = 1;

type Message = [u8; MESSAGE_LEN];

/// How a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In `recv`.
    Blocking,
    /// In a ring, for the socket alone.
    Ring,
    /// In a ring, for the socket, for a bell that another thread can ring, and for a deadline, as a driver must.
    RingBellDeadline,
}

const WAYS: [(Way, &str); 3] = [
    (Way::Blocking, "blocking recv"),
    (Way::Ring, "io_uring, socket alone"),
    (Way::RingBellDeadline, "io_uring, bell and deadline too"),
];

/// One end of the connection.
enum End {
    Blocking(TcpStream),
    Ring(Box<RingEnd>),
}

/// A ring set up as the driver `uring` does it.
struct RingEnd {
    ring: IoUring,
    bell: Option<OwnedFd>,
    socket: TcpStream,
    /// Never freed: the kernel may still write it after an error.
    message: &'static mut Message,
}

const FROM_SOCKET: u64 = 1;
const FROM_BELL: u64 = 2;
const DEADLINE: Timespec = Timespec::new().sec(30);

impl End {
    fn new(way: Way, socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        if way == Way::Blocking {
            return Ok(Self::Blocking(socket));
        }
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(8)?;
        let bell = if way == Way::RingBellDeadline {
            let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
            let poll = opcode::PollAdd::new(
                Fd(bell.as_raw_fd()),
                rustix::event::PollFlags::IN.bits().into(),
            )
            .build()
            .user_data(FROM_BELL);
            // SAFETY: it points to no memory.
            unsafe { ring.submission().push(&poll) }.map_err(io::Error::other)?;
            Some(bell)
        } else {
            None
        };
        Ok(Self::Ring(Box::new(RingEnd {
            ring,
            bell,
            socket,
            message: Box::leak(Box::new([0; MESSAGE_LEN])),
        })))
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        match self {
            Self::Blocking(socket) => socket.write_all(message),
            Self::Ring(end) => end.socket.write_all(message),
        }
    }

    fn recv(&mut self) -> io::Result<Message> {
        match self {
            Self::Blocking(socket) => {
                let mut message = [0; MESSAGE_LEN];
                socket.read_exact(&mut message)?;
                Ok(message)
            }
            Self::Ring(end) => end.recv(),
        }
    }
}

impl RingEnd {
    fn recv(&mut self) -> io::Result<Message> {
        let mut filled = 0;
        while filled < MESSAGE_LEN {
            let rest = &mut self.message[filled..];
            let recv = opcode::Recv::new(
                Fd(self.socket.as_raw_fd()),
                rest.as_mut_ptr(),
                rest.len() as u32,
            )
            .build()
            .user_data(FROM_SOCKET);
            // SAFETY: the memory is never freed, and is not read before the operation has completed.
            unsafe { self.ring.submission().push(&recv) }.map_err(io::Error::other)?;
            filled += self.wait()?;
        }
        Ok(*self.message)
    }

    /// Sleeps until bytes arrive from the socket; returns their number.
    fn wait(&mut self) -> io::Result<usize> {
        loop {
            if self.bell.is_some() {
                let until = SubmitArgs::new().timespec(&DEADLINE);
                self.ring.submitter().submit_with_args(1, &until)?;
            } else {
                self.ring.submit_and_wait(1)?;
            }
            for completion in self.ring.completion() {
                if completion.user_data() == FROM_SOCKET {
                    return match completion.result() {
                        0 => Err(io::ErrorKind::UnexpectedEof.into()),
                        failed @ ..0 => Err(io::Error::from_raw_os_error(-failed)),
                        bytes => Ok(bytes as usize),
                    };
                }
            }
        }
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

/// Median of one round, in microseconds.
fn round(way: Way) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> io::Result<()> {
        pin(1)?;
        let mut end = End::new(way, listener.accept()?.0)?;
        loop {
            let message = end.recv()?;
            end.send(&message)?;
            if message[0] == LAST {
                return Ok(());
            }
        }
    });
    let client = thread::spawn(move || -> Result<f64, Box<dyn Error + Send + Sync>> {
        pin(0)?;
        let mut end = End::new(way, TcpStream::connect(address)?)?;
        let mut times = Histogram::<u64>::new(3)?;
        for left in (0..TRIPS_PER_ROUND).rev() {
            let mut message = [0; MESSAGE_LEN];
            message[0] = if left == 0 { LAST } else { 0 };
            let started = Instant::now();
            end.send(&message)?;
            end.recv()?;
            times.record(started.elapsed().as_nanos() as u64)?;
        }
        Ok(times.value_at_quantile(0.5) as f64 / 1e3)
    });
    let median = client.join().expect("it does not panic")?;
    server.join().expect("it does not panic")?;
    Ok(median)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut rounds = vec![Vec::new(); WAYS.len()];
    for _ in 0..ROUNDS {
        for (times, (way, _)) in rounds.iter_mut().zip(WAYS) {
            times.push(round(way)?);
        }
    }
    println!("{:<34}{:>10}{:>22}", "", "p50", "of blocking, in turn");
    for (times, (_, name)) in rounds.iter().zip(WAYS) {
        let ratios = times
            .iter()
            .zip(&rounds[0])
            .map(|(time, blocking)| time / blocking);
        let ratio = median(ratios.collect());
        println!("{name:<34}{:>7.1} us{ratio:>22.3}", median(times.clone()));
    }
    Ok(())
}
