//! The least that a multiplexer with a task for each stream can do on two threads: frames in one write, taken apart and
//! put into the slot of a task, which is woken. No credit, no limits, no ends, no threads that share a stream, no
//! atomics but tokio's. What it reaches beside plain sockets is a bound for what `compare --wait spin` says of ringmux.
//!
//! ```sh
//! cargo run --release -p ringmux-perf --example bare_mux
//! ```

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error + Send + Sync>;
type Message = [u8; 64];

const STREAMS: usize = 64;
/// Length and number of the stream.
const HEADER_LEN: usize = 8;
const FRAME_LEN: usize = HEADER_LEN + size_of::<Message>();
/// A bulk message, what a frame carries of it, and what one write takes.
const BULK_LEN: usize = 64 * 1024;
const BULK_FRAME: usize = 16 * 1024;
const BULK_WRITE: usize = 256 * 1024;
/// Everybody takes a turn in each round.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// All messages back and forth in one write, without tasks.
    Plain,
    /// Tasks that live as long as their streams.
    Echo,
    /// A task on both sides for each call, of which so many are under way.
    Calls(usize),
    /// Bulk messages as they are.
    BulkPlain,
    /// Bulk messages with a header before every 16 KiB.
    BulkFramed,
}

const WORKS: [(Work, &str, Work); 6] = [
    (Work::Plain, "64 messages in one write", Work::Plain),
    (Work::Echo, "conc64, bare tasks", Work::Plain),
    (Work::Calls(64), "unary64, bare tasks", Work::Plain),
    (Work::Calls(1024), "unary1k, bare tasks", Work::Plain),
    (Work::BulkPlain, "bulk, plain", Work::BulkPlain),
    (Work::BulkFramed, "bulk, in frames", Work::BulkPlain),
];

/// What comes for a stream and who waits for it.
#[derive(Default)]
struct Slot {
    message: Option<Message>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Mux {
    out: RefCell<Vec<u8>>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
}

impl Mux {
    fn send(&self, stream: u32, message: &Message) {
        let mut out = self.out.borrow_mut();
        out.extend_from_slice(&(size_of::<Message>() as u32).to_le_bytes());
        out.extend_from_slice(&stream.to_le_bytes());
        out.extend_from_slice(message);
    }

    async fn recv(&self, stream: u32) -> Message {
        poll_fn(|cx| {
            let slot = &mut self.slots.borrow_mut()[stream as usize];
            if let Some(message) = slot.message.take() {
                return Poll::Ready(message);
            }
            slot.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn open(&self) -> u32 {
        if let Some(free) = self.free.borrow_mut().pop() {
            return free;
        }
        let mut slots = self.slots.borrow_mut();
        slots.push(Slot::default());
        slots.len() as u32 - 1
    }

    fn deliver(&self, stream: u32, message: Message) {
        let slot = &mut self.slots.borrow_mut()[stream as usize];
        slot.message = Some(message);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

/// Moves bytes until the peer closes or `done` says so, in turns with the tasks.
async fn pump(
    mux: &Mux,
    mut socket: &TcpStream,
    mut arrived: impl FnMut(u32, Message),
    done: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    while !done() {
        write_all(socket, &mux.out.borrow())?;
        mux.out.borrow_mut().clear();
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let whole = filled / FRAME_LEN * FRAME_LEN;
        for frame in buffer[..whole].chunks_exact(FRAME_LEN) {
            let (head, body) = frame.split_at(HEADER_LEN);
            let stream = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
            arrived(stream, body.try_into().expect("a message"));
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    Ok(())
}

/// Polled, as all sockets here are.
fn write_all(mut socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all_slices(mut socket: &TcpStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match socket.write_vectored(slices) {
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Messages that came back, or bytes that were sent.
fn client(work: Work, socket: &TcpStream) -> io::Result<u64> {
    let until = Instant::now() + ROUND;
    let is_over = || Instant::now() >= until;
    match work {
        Work::Plain => {
            let batch = [7; STREAMS * FRAME_LEN];
            let mut buffer = batch;
            let mut trips = 0;
            while !is_over() {
                write_all(socket, &batch)?;
                read_batch(socket, &mut buffer)?;
                trips += STREAMS as u64;
            }
            Ok(trips)
        }
        Work::Echo | Work::Calls(_) => block_on(converse(work, socket, is_over))?,
        Work::BulkPlain | Work::BulkFramed => {
            let message = vec![7; BULK_LEN];
            let header = [0; HEADER_LEN];
            let mut sent = 0;
            while !is_over() {
                let mut slices = Vec::with_capacity(2 * BULK_WRITE / BULK_FRAME);
                for _ in 0..BULK_WRITE / BULK_LEN {
                    if work == Work::BulkPlain {
                        slices.push(IoSlice::new(&message));
                        continue;
                    }
                    for frame in message.chunks(BULK_FRAME) {
                        slices.extend([IoSlice::new(&header), IoSlice::new(frame)]);
                    }
                }
                write_all_slices(socket, &mut slices)?;
                sent += BULK_WRITE as u64;
            }
            Ok(sent)
        }
    }
}

/// The client's side of a workload with tasks.
async fn converse(work: Work, socket: &TcpStream, is_over: impl Fn() -> bool) -> io::Result<u64> {
    let mux = Rc::new(Mux::default());
    let trips = Rc::new(RefCell::new(0));
    let under_way = match work {
        Work::Calls(calls) => calls,
        _ => STREAMS,
    };
    for _ in 0..under_way {
        let (mux, trips) = (Rc::clone(&mux), Rc::clone(&trips));
        spawn_local(async move {
            let stream = mux.open();
            loop {
                if let Work::Calls(_) = work {
                    let call = Rc::clone(&mux);
                    let call = spawn_local(async move {
                        let stream = call.open();
                        call.send(stream, &[7; 64]);
                        call.recv(stream).await;
                        call.free.borrow_mut().push(stream);
                    });
                    call.await.expect("it does not panic");
                } else {
                    mux.send(stream, &[7; 64]);
                    mux.recv(stream).await;
                }
                *trips.borrow_mut() += 1;
            }
        });
    }
    // The tasks come first.
    tokio::task::yield_now().await;
    pump(
        &mux,
        socket,
        |stream, message| mux.deliver(stream, message),
        is_over,
    )
    .await?;
    let trips = *trips.borrow();
    Ok(trips)
}

/// Until the client closes.
fn server(work: Work, mut socket: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    match work {
        Work::Plain => {
            let batch = &mut buffer[..STREAMS * FRAME_LEN];
            while read_batch(socket, batch)? {
                write_all(socket, batch)?;
            }
            Ok(())
        }
        Work::Echo | Work::Calls(_) => block_on(async {
            let mux = Rc::new(Mux::default());
            let arrived = |stream: u32, message| {
                let known = (stream as usize) < mux.slots.borrow().len();
                if work == Work::Echo && known {
                    return mux.deliver(stream, message);
                }
                let mux = Rc::clone(&mux);
                if let Work::Calls(_) = work {
                    spawn_local(async move { mux.send(stream, &message) });
                    return;
                }
                (mux.slots.borrow_mut()).resize_with(stream as usize + 1, Slot::default);
                mux.deliver(stream, message);
                spawn_local(async move {
                    loop {
                        let message = mux.recv(stream).await;
                        mux.send(stream, &message);
                    }
                });
            };
            pump(&mux, socket, arrived, || false).await
        })?,
        Work::BulkPlain | Work::BulkFramed => loop {
            match socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        },
    }
}

/// False if the peer has closed instead.
fn read_batch(mut socket: &TcpStream, batch: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < batch.len() {
        match socket.read(&mut batch[filled..]) {
            Ok(0) => return Ok(false),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
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

/// Messages or bytes a second.
fn round(work: Work) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || -> io::Result<()> {
        pin(1)?;
        let socket = listener.accept()?.0;
        prepare(&socket)?;
        match server(work, &socket) {
            // The client leaves with messages under way.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            ended => ended,
        }
    });
    let calling = thread::spawn(move || -> io::Result<f64> {
        pin(0)?;
        let socket = TcpStream::connect(address)?;
        prepare(&socket)?;
        let started = Instant::now();
        let count = client(work, &socket)?;
        Ok(count as f64 / started.elapsed().as_secs_f64())
    });
    let rate = calling.join().expect("it does not panic")?;
    serving.join().expect("it does not panic")?;
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
