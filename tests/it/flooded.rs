//! Peers that flood without end: neighbours are served, and shutdowns end in time.
//!
//! The work of a session per poll is counted in `src/driver/turn/tests.rs`. Here with real sockets: several such
//! peers, a neighbour, and a shutdown. The limits allow for a machine whose processors are all busy;
//! without a bound of a session's work each test takes seconds.

use std::io::Write;
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringmux::{Addr, Config, Listener, Rate, Session};

use crate::host::{Net, Soon, echo, eventually, pattern, round_trip};
use crate::raw::{PING, PREFACE, frame, settings};
use crate::still::Processors;

// Each driver's loop on the thread that also runs the neighbour's application, where a session that goes on for too long delays
// most, and the engine that applications get by default.
test_on!(peers_that_ask_without_end_delay_neither_neighbours_nor_the_end:
    tokio_inline_tcp tokio_uring_inline_tcp uring_inline_tcp uring_block_on_tcp shared_tcp
);
test_on!(peers_that_say_what_nobody_knows_without_end_delay_neither_neighbours_nor_the_end:
    tokio_inline_tcp tokio_uring_inline_tcp uring_inline_tcp uring_block_on_tcp shared_tcp
);

/// Peers that flood at once.
const FLOODS: usize = 2;
/// Bytes from which a flood counts as begun: more than a session receives and parses at a time.
const FLOODED: u64 = 1 << 20;
const ROUND_TRIPS: usize = 21;
/// For the median of the neighbour's round trips, times the slowdown by other load. On a machine with a processor to spare they take
/// 1 to 5 ms without optimization.
const MEDIAN_MAX: Duration = Duration::from_millis(100);
const GRACE: Duration = Duration::from_millis(500);
/// Beyond the ceiling, at most.
const SLACK: Duration = Duration::from_secs(1);
/// Measurements: other load disturbs some, a flood that delays its neighbours disturbs all.
const LOOKS: usize = 4;

async fn peers_that_ask_without_end_delay_neither_neighbours_nor_the_end(net: Net) {
    floods_delay_nothing(net, &frame(PING, 0, 0, b"and more")).await;
}

async fn peers_that_say_what_nobody_knows_without_end_delay_neither_neighbours_nor_the_end(
    net: Net,
) {
    floods_delay_nothing(net, &frame(11, 0, 0, b"")).await;
}

/// Sends it until the connection ends.
fn flood(listener: &Listener, what: &[u8]) -> JoinHandle<()> {
    let Addr::Tcp(addr) = listener.local_addr() else {
        panic!("it speaks TCP");
    };
    let mut socket = TcpStream::connect(addr).unwrap();
    let hello = [PREFACE, &settings(&[])[..]].concat();
    let much = what.repeat((64 << 10) / what.len());
    thread::spawn(move || {
        socket.write_all(&hello).unwrap();
        while socket.write_all(&much).is_ok() {}
    })
}

async fn floods_delay_nothing(net: Net, what: &[u8]) {
    let mut missed = Vec::new();
    for _ in 0..LOOKS {
        let before = Processors::now();
        let (median, end) = flooded(&net, what).await;
        let slowdown = before.slowdown_since();
        println!(
            "{}: {median:?} for a round trip, {end:?} to end, slowdown {slowdown:.1}",
            net.driver()
        );
        if median < MEDIAN_MAX.mul_f64(slowdown) && end < GRACE + SLACK {
            return;
        }
        missed.push((median, end, slowdown));
    }
    panic!("{missed:?} for a round trip, to end, and slowdown");
}

/// The median of the neighbour's round trips, and how long the shutdown takes, beside the floods.
async fn flooded(net: &Net, what: &[u8]) -> (Duration, Duration) {
    // So that the flood may last for the whole test.
    let patient = Config::builder().glitch_rate(Rate::new(1_000_000, 1_000_000));
    let listener = net.listen(&patient.build().unwrap()).await;
    let neighbour = net.connect(&listener, &Config::default()).await;
    let _serving = echo(listener.accept().soon().await.unwrap());
    round_trip(&neighbour, pattern(500, 1)).await;

    let (mut floods, mut flooded) = (Vec::new(), Vec::new());
    for _ in 0..FLOODS {
        floods.push(flood(&listener, what));
        flooded.push(listener.accept().soon().await.unwrap());
    }
    let heard = |session: &Session| session.stats().bytes_received;
    let all_flood = || flooded.iter().all(|session| heard(session) > FLOODED);
    eventually("a flood", all_flood).await;

    let mut times = Vec::new();
    for n in 0..ROUND_TRIPS {
        let began = Instant::now();
        round_trip(&neighbour, pattern(500, n as u64)).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();

    let began = Instant::now();
    listener.shutdown(GRACE).soon().await;
    let end = began.elapsed();
    for flood in floods {
        eventually("the end of a flood", || flood.is_finished()).await;
        flood.join().unwrap();
    }
    (times[ROUND_TRIPS / 2], end)
}
