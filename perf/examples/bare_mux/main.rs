//! The minimum cost of a multiplexer with a task for each stream on two threads: frames in one write, parsed and
//! handed to a task, which is woken. No credit, no limits, no ends, no fairness. Its figures beside plain sockets
//! are a bound for those of ringmux in `compare --wait spin`.
//!
//! "bare" is for one thread: no atomics but tokio's. "queues" is the minimum for a library whose streams may be used
//! from any thread.
//!
//! ```sh
//! cargo run --release -p ringmux-perf --example bare_mux
//! ```

mod bell;
mod oneway;
mod plain;
mod pump;
mod queues;
mod ready;
mod slots;

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use pump::{block_on, read_some};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;

const STREAMS: usize = 64;
/// All variants take a turn in each round.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// This many messages back and forth in one write, without tasks.
    Plain(usize),
    /// By way of slots.
    Bare(Talk),
    /// By way of lock-free queues.
    Queues(Talk),
    /// Bulk messages as they are.
    BulkPlain,
    /// Bulk messages with a header before every 16 KiB.
    BulkFramed,
    /// Small messages in one direction, side by side in large writes.
    OnewayPlain,
    /// Small messages on this many streams.
    Oneway(Flow, usize),
}

impl Work {
    const fn is_one_way(self) -> bool {
        !matches!(self, Self::Plain(_) | Self::Bare(_) | Self::Queues(_))
    }
}

/// The tasks of echoed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// This many tasks, as long-lived as their streams.
    Echo(usize),
    /// A task on both sides for each call, with this many under way.
    Calls(usize),
}

impl Talk {
    const fn under_way(self) -> usize {
        match self {
            Self::Echo(streams) => streams,
            Self::Calls(calls) => calls,
        }
    }
}

/// How messages in one direction get from the task to the engine, and from there to the other task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Into the batch, and not at all: the engine checks them itself.
    Bare,
    /// Through queues; the engine is notified when a queue is full.
    Fed,
    /// Through queues; the engine is notified of each message.
    Sent,
}

const CONC64: Work = Work::Plain(STREAMS);
const PINGPONG: Work = Work::Plain(1);

const WORKS: [(Work, &str, Work); 19] = [
    (PINGPONG, "a message in a write", PINGPONG),
    (Work::Bare(Talk::Echo(1)), "pingpong, bare", PINGPONG),
    (Work::Queues(Talk::Echo(1)), "pingpong, queues", PINGPONG),
    (CONC64, "64 messages in one write", CONC64),
    (Work::Bare(Talk::Echo(STREAMS)), "conc64, bare", CONC64),
    (Work::Queues(Talk::Echo(STREAMS)), "conc64, queues", CONC64),
    (Work::Bare(Talk::Calls(64)), "unary64, bare", CONC64),
    (Work::Queues(Talk::Calls(64)), "unary64, queues", CONC64),
    (Work::Bare(Talk::Calls(1024)), "unary1k, bare", CONC64),
    (Work::Queues(Talk::Calls(1024)), "unary1k, queues", CONC64),
    (Work::BulkPlain, "bulk, plain", Work::BulkPlain),
    (Work::BulkFramed, "bulk, in frames", Work::BulkPlain),
    (Work::OnewayPlain, "oneway, plain", Work::OnewayPlain),
    (
        Work::Oneway(Flow::Bare, 1),
        "oneway, bare",
        Work::OnewayPlain,
    ),
    (
        Work::Oneway(Flow::Fed, 1),
        "oneway, queues, fed",
        Work::OnewayPlain,
    ),
    (
        Work::Oneway(Flow::Sent, 1),
        "oneway, queues, sent",
        Work::OnewayPlain,
    ),
    (
        Work::Oneway(Flow::Bare, STREAMS),
        "oneway64, bare",
        Work::OnewayPlain,
    ),
    (
        Work::Oneway(Flow::Fed, STREAMS),
        "oneway64, queues, fed",
        Work::OnewayPlain,
    ),
    (
        Work::Oneway(Flow::Sent, STREAMS),
        "oneway64, queues, sent",
        Work::OnewayPlain,
    ),
];

/// Messages that came back, or messages or bytes that were sent.
fn client(work: Work, socket: &TcpStream) -> io::Result<u64> {
    let until = Instant::now() + ROUND;
    let is_over = || Instant::now() >= until;
    match work {
        Work::Plain(messages) => plain::round_trips(messages, socket, is_over),
        Work::Bare(talk) => block_on(slots::talk(talk, socket, is_over))?,
        Work::Queues(talk) => block_on(queues::talk(talk, socket, is_over))?,
        Work::BulkPlain => plain::send_bulk(false, socket, is_over),
        Work::BulkFramed => plain::send_bulk(true, socket, is_over),
        Work::OnewayPlain => plain::send_messages(socket, is_over),
        Work::Oneway(flow, streams) => block_on(oneway::send(flow, streams, socket, is_over))?,
    }
}

/// Runs until the client closes. Returns the count of arrivals for one-way work.
fn server(work: Work, socket: &TcpStream) -> io::Result<Option<u64>> {
    match work {
        Work::Plain(messages) => plain::echo(messages, socket).map(|()| None),
        Work::Bare(talk) => block_on(slots::answer(talk, socket))?.map(|()| None),
        Work::Queues(talk) => block_on(queues::answer(talk, socket))?.map(|()| None),
        Work::BulkPlain => plain::receive_bulk(socket).map(Some),
        // Headers are not counted where they are sent.
        Work::BulkFramed => plain::receive_bulk(socket).map(|_| None),
        Work::OnewayPlain => plain::receive_messages(socket).map(Some),
        Work::Oneway(flow, _) => block_on(oneway::receive(flow, socket))?.map(Some),
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)
}

/// A client disconnects with messages under way.
fn has_left(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// Messages or bytes a second.
fn round(work: Work) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || -> io::Result<Option<u64>> {
        pin(1)?;
        let socket = listener.accept()?.0;
        prepare(&socket)?;
        match server(work, &socket) {
            Err(error) if !work.is_one_way() && has_left(&error) => Ok(None),
            ended => ended,
        }
    });
    let calling = thread::spawn(move || -> io::Result<(u64, f64)> {
        pin(0)?;
        let socket = TcpStream::connect(address)?;
        prepare(&socket)?;
        let started = Instant::now();
        let count = client(work, &socket)?;
        if work.is_one_way() {
            // The server has taken all when it closes.
            read_some(&socket, &mut [0])?;
        }
        Ok((count, count as f64 / started.elapsed().as_secs_f64()))
    });
    let (count, rate) = calling.join().expect("it does not panic")?;
    let received = serving.join().expect("it does not panic")?;
    if received.is_some_and(|received| received != count) {
        return Err(format!("{received:?} of {count} arrived").into());
    }
    Ok(rate)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failure> {
    let mut rounds = vec![Vec::new(); WORKS.len()];
    for _ in 0..ROUNDS {
        for (rates, (work, ..)) in rounds.iter_mut().zip(WORKS) {
            rates.push(round(work)?);
        }
    }
    println!("{:<28}{:>18}{:>22}", "", "a second", "of plain, in turn");
    for (rates, (_, name, plain)) in rounds.iter().zip(WORKS) {
        let at = WORKS.iter().position(|(work, ..)| *work == plain);
        let plain = &rounds[at.expect("it is one of them")];
        let ratios = rates.iter().zip(plain).map(|(rate, plain)| rate / plain);
        let ratio = median(ratios.collect());
        let rate = median(rates.clone()) / 1e6;
        println!("{name:<28}{rate:>14.3} M/s{ratio:>22.3}");
    }
    Ok(())
}
