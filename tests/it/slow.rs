//! Slow connections: a peer behind a proxy with a low rate is not dead, one behind a stopped proxy is.
//!
//! Times are a tenth of the default ones, so the rates are ten times those in the documentation of `Config`. A machine that keeps
//! a thread waiting for a good part of them makes a peer look dead: then a case is played again.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringmux::drpc::Profile;
use ringmux::{Addr, Config, Session, SessionError};
use socket2::{Domain, SockRef, Socket, Type};

use crate::host::{Net, Soon, eventually, pattern};
use crate::still::{Clock, Processors};

test_on!(over_unix_sockets: tokio_inline_unix tokio_uring_thread_unix uring_thread_unix);
on_each_driver!(
    two_kilobytes_a_second_are_no_reason_to_end_a_session,
    nor_is_sixty_where_the_receiver_says_nothing,
    eight_kilobytes_a_second_through_deep_buffers_are_no_reason_either,
    a_proxy_that_stops_in_a_transfer_is_noticed,
);

const TIMEOUT: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(1500);
/// Time between two forwards of the proxy.
const TICK: Duration = Duration::from_millis(50);
/// A thread that was kept waiting for so long may have made a peer look dead: PINGs are half of a timeout apart.
const STALL: Duration = TIMEOUT.checked_div(4).unwrap();
/// Times that a case is played, if the machine disturbs it.
const PLAYS: u32 = 5;
/// Time limit of a transfer: above that of all of its bytes, and below that of a case.
const PATIENCE: Duration = Duration::from_secs(60);
/// Delays that a busy machine may add to what has an upper limit.
const SLACK: Duration = Duration::from_secs(8);
/// A small buffer of the proxy, in bytes; the kernel doubles it.
const SMALL: usize = 4096;

fn config() -> Config {
    Config::builder()
        .keepalive_idle(Some(IDLE))
        .keepalive_timeout(TIMEOUT)
        .write_timeout(TIMEOUT)
        .build()
        .unwrap()
}

/// The behaviour of a proxy.
#[derive(Clone)]
struct Pace {
    bytes_a_second: usize,
    /// Its sockets' buffers, with the system's sizes if `None`.
    buffers: Option<usize>,
    stopped: Arc<AtomicBool>,
}

impl Pace {
    fn of(bytes_a_second: usize, buffers: Option<usize>) -> Self {
        let stopped = Arc::default();
        Self {
            bytes_a_second,
            buffers,
            stopped,
        }
    }

    fn set(&self, socket: &impl AsFd) {
        if let Some(bytes) = self.buffers {
            let socket = SockRef::from(socket);
            socket.set_recv_buffer_size(bytes).unwrap();
            socket.set_send_buffer_size(bytes).unwrap();
        }
    }

    /// Forwards bytes until either end closes.
    fn pass(&self, mut from: impl Read, mut to: impl Write) {
        let start = Instant::now();
        let mut passed = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            thread::sleep(TICK);
            if self.stopped.load(Ordering::Relaxed) {
                continue;
            }
            // No more than the rate in all, and in small pieces also after a pause.
            let may = start.elapsed().as_secs_f64() * self.bytes_a_second as f64;
            let most = (may as usize).saturating_sub(passed);
            let tick = self.bytes_a_second / 10;
            let most = most.clamp(1, tick);
            let Ok(n) = from.read(&mut buffer[..most]) else {
                return;
            };
            if n == 0 || to.write_all(&buffer[..n]).is_err() {
                return;
            }
            passed += n;
        }
    }
}

macro_rules! proxy {
    ($pace:expr, $listener:expr, $connect:expr, $socket:ty) => {
        thread::spawn(move || {
            let (pace, near): (Pace, $socket) = ($pace, $listener.accept().unwrap().0);
            let far: $socket = $connect;
            pace.set(&near);
            pace.set(&far);
            let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
            let of_back = pace.clone();
            let other = thread::spawn(move || {
                of_back.pass(&back.0, &back.1);
                let _ = back.1.shutdown(std::net::Shutdown::Both);
                let _ = back.0.shutdown(std::net::Shutdown::Both);
            });
            pace.pass(&near, &far);
            let _ = far.shutdown(std::net::Shutdown::Both);
            let _ = near.shutdown(std::net::Shutdown::Both);
            other.join().unwrap();
        })
    };
}

/// Both ends of a session through a proxy.
async fn through(net: &Net, pace: &Pace) -> (Session, Session) {
    let listener = net.listen(&config()).await;
    let pace = pace.clone();
    let addr = match listener.local_addr().clone() {
        Addr::Tcp(to) => {
            let between = TcpListener::bind("127.0.0.1:0").unwrap();
            pace.set(&between);
            let addr = Addr::Tcp(between.local_addr().unwrap().to_string());
            proxy!(pace, between, TcpStream::connect(to).unwrap(), TcpStream);
            addr
        }
        Addr::Unix(to) => {
            let addr = net.free_addr();
            let Addr::Unix(path) = &addr else {
                panic!("of the same kind")
            };
            let between = UnixListener::bind(path).unwrap();
            proxy!(pace, between, UnixStream::connect(to).unwrap(), UnixStream);
            addr
        }
        other => panic!("{other}"),
    };
    let client = net.engine().connect(&addr, &config()).soon().await.unwrap();
    let server = listener.accept().soon().await.unwrap();
    (client, server)
}

/// Plays a case until it succeeds; after a failure only if the machine kept a thread waiting.
async fn undisturbed<F: Future<Output = Result<(), String>>>(mut case: impl FnMut() -> F) {
    for n in 1.. {
        let (clock, processors) = (Clock::start(), Processors::now());
        let Err(failure) = case().await else { return };
        let longest = clock.stood_still().max(processors.longest_wait_since());
        println!("{failure}; a thread was kept waiting for {longest:?}");
        assert!(n < PLAYS && longest >= STALL, "{failure}, {longest:?}");
    }
}

/// One message of `bytes` bytes from one end to the other, while the session is used, pinged and silent in turn.
///
/// # Errors
/// The end of the session.
async fn transfer(from: &Session, to: &Session, bytes: usize) -> Result<(), String> {
    let ends = || [from.state().end(), to.state().end()];
    let (mut ours_send, _ours_recv) = from.open("large").soon().await.map_err(text)?;
    let taken = to.accept().soon().await.map_err(text)?;
    let (_theirs_send, mut theirs_recv) = taken.ok_or("the other side closed")?;
    let large = pattern(bytes, 1);
    ours_send.send(large.clone()).soon().await.map_err(text)?;
    let (mut small_send, _small_recv) = from.open("small").soon().await.map_err(text)?;
    let using = async {
        for _ in 0..4 {
            tokio::time::sleep(IDLE / 2).await;
            let _ = small_send.try_send("in between".into());
        }
        let pings = [from.ping().await, to.ping().await];
        pings.into_iter().try_for_each(|ping| ping.map(drop))
    };
    let receiving = async { theirs_recv.recv().within(PATIENCE).await };
    let (received, used) = tokio::join!(receiving, using.within(PATIENCE));
    let received = received.map_err(|error| format!("{error}: {:?}", ends()))?;
    assert_eq!(received, Some(large));
    used.map_err(|error| format!("{error}: {:?}", ends()))?;
    match ends() {
        [None, None] => Ok(()),
        ends => Err(format!("{ends:?}")),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// The same through a new proxy, from the client and, if there are `back` bytes, from the server.
async fn transfers(net: &Net, pace: Pace, there: usize, back: usize) -> Result<(), String> {
    let (client, server) = through(net, &pace).await;
    transfer(&client, &server, there).await?;
    match back {
        0 => Ok(()),
        back => transfer(&server, &client, back).await,
    }
}

async fn two_kilobytes_a_second_are_no_reason_to_end_a_session(net: Net) {
    undisturbed(|| transfers(&net, Pace::of(20_000, Some(SMALL)), 120_000, 60_000)).await;
}
/// Takes a call's answer of `bytes` bytes over DRPC, at 60 KiB a second, and returns its payload.
fn take_slowly(mut socket: TcpStream, bytes: usize) -> Vec<u8> {
    const TICK: Duration = Duration::from_millis(5);
    const PER_TICK: usize = 300;
    let (mut got, mut payload) = (Vec::new(), Vec::new());
    let mut piece = [0; PER_TICK];
    while payload.len() < bytes {
        thread::sleep(TICK);
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => got.extend_from_slice(&piece[..n]),
        }
        // Kind, stream, message and length, each of these up to three bytes of seven bits.
        while let Some((header, length)) = header_and_length(&got) {
            if got.len() < header + length {
                break;
            }
            payload.extend(got.drain(..header + length).skip(header));
        }
    }
    payload
}

fn header_and_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut last) = (1, 0);
    for _ in 0..3 {
        last = 0;
        for shift in [0, 7, 14] {
            let byte = *bytes.get(at)?;
            last |= usize::from(byte & 0x7F) << shift;
            at += 1;
            if byte < 0x80 {
                break;
            }
        }
    }
    Some((at, last))
}

/// Over DRPC a receiver sends neither credit nor PINGs, and a batch takes several times the timeout.
async fn nor_is_sixty_where_the_receiver_says_nothing(net: Net) {
    undisturbed(|| answer_taken_slowly(&net)).await;
}

async fn answer_taken_slowly(net: &Net) -> Result<(), String> {
    /// Several make a batch.
    const LONG: usize = 60_000;
    const MESSAGES: usize = 5;
    let config = Config::builder()
        .drpc(Profile::STORJ)
        .write_timeout(TIMEOUT)
        .build()
        .unwrap();
    let listener = net.listen(&config).await;
    let Addr::Tcp(to) = listener.local_addr().clone() else {
        panic!("a host with TCP");
    };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let to: SocketAddr = to.parse().unwrap();
    socket.connect(&to.into()).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.write_all(b"\x03\x01\x01\x04call").unwrap();
    let server = listener.accept().soon().await.unwrap();
    let (mut send, _recv) = server.accept().soon().await.unwrap().unwrap();
    let answer = pattern(MESSAGES * LONG, 1);
    let reader = thread::spawn(move || take_slowly(socket, MESSAGES * LONG));
    for n in 0..MESSAGES {
        let message = answer.slice(n * LONG..(n + 1) * LONG);
        let sent = send.send(message).soon().await;
        sent.map_err(|error| format!("{error}: {:?}", server.state().end()))?;
    }
    eventually("the answer", || reader.is_finished()).await;
    let got = reader.join().unwrap();
    let end = server.state().end();
    (got == answer)
        .then_some(())
        .ok_or_else(|| format!("{} bytes, and then {end:?}", got.len()))
}

/// Their send queue is visible only in steps of 48 KiB, so here the receiver's PINGs keep the session.
async fn over_unix_sockets(net: Net) {
    undisturbed(|| transfers(&net, Pace::of(20_000, None), 120_000, 0)).await;
}

async fn eight_kilobytes_a_second_through_deep_buffers_are_no_reason_either(net: Net) {
    undisturbed(|| transfers(&net, Pace::of(80_000, None), 600_000, 0)).await;
}

async fn a_proxy_that_stops_in_a_transfer_is_noticed(net: Net) {
    undisturbed(|| a_stop_is_noticed(&net)).await;
}

async fn a_stop_is_noticed(net: &Net) -> Result<(), String> {
    let pace = Pace::of(20_000, Some(SMALL));
    let (client, server) = through(net, &pace).await;
    let (mut ours_send, _ours_recv) = client.open("large").soon().await.unwrap();
    ours_send.send(pattern(1 << 20, 1)).soon().await.unwrap();
    tokio::time::sleep(2 * IDLE).await;
    let ends = [client.state().end(), server.state().end()];
    if ends.iter().any(Option::is_some) {
        return Err(format!("before it stopped: {ends:?}"));
    }
    pace.stopped.store(true, Ordering::Relaxed);
    let stopped = Instant::now();
    for session in [&client, &server] {
        let end = session.closed().soon().await;
        let known = matches!(
            end,
            SessionError::KeepaliveTimeout(_) | SessionError::WriteTimeout(_)
        );
        assert!(known, "{end}");
    }
    // 25 s, of which a tenth is 2.5 s.
    let took = stopped.elapsed();
    assert!(took < IDLE + TIMEOUT + SLACK, "{took:?}");
    pace.stopped.store(false, Ordering::Relaxed);
    Ok(())
}
