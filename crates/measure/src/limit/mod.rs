//! The limit: the same bytes over plain sockets, between the same two threads, with the same way to
//! wait. No streams, no credit, no cancellation: a bound that no multiplexer over these sockets can beat by
//! much.
//!
//! - Echoes: all streams' messages, each with an 8-byte header, leave in one write and come back in
//!   one. One stream alone sends its 64 bytes bare.
//! - Calls: the same; there is no opening and closing of streams here, and no method. A protobuf message is as long as the others.
//! - One way: messages and headers are packed into writes of 16 to 256 KiB, one size a slice; the
//!   best slice is the limit. The same for answers that are streams, though those go the other way.
//! - Mixed: a socket for the round trips and one for bulk, each with a thread at either end, because
//!   a blocking thread cannot wait for two sockets. These park with every idle strategy.

mod echo;
mod frames;
mod oneway;
mod plain;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::host::Wait;
use super::pair::{Listening, Pair, Received, Sent};
use super::sample::Sample;
use super::workload::{Shape, Workload};
use crate::failure::Failure;
use frames::Batch;
use plain::Plain;

const KIB: usize = 1024;
/// The write sizes; the best one counts.
pub const WRITE_SIZES: [usize; 5] = [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB];
/// Bytes per write of the bulk socket beside round trips.
const MIXED_WRITE: usize = 64 * KIB;

/// Measures one slice.
pub fn measure(
    workload: Workload,
    slice: usize,
    wait: Wait,
    pair: &Pair,
) -> Result<Sample, Failure> {
    let write = WRITE_SIZES[slice % WRITE_SIZES.len()];
    match workload.shape() {
        Shape::Echo { streams: 1 } | Shape::Call { calls: 1, .. } => {
            echoes(pair, wait, Batch::bare())
        }
        Shape::Echo { streams: n } | Shape::Unary { calls: n } | Shape::Call { calls: n, .. } => {
            echoes(pair, wait, Batch::framed(n))
        }
        Shape::Oneway { .. } | Shape::Feed { .. } => pair.measure(
            move |window, listening| {
                let [socket] = accept(listening, wait)?;
                counted(oneway::receive_messages(&socket, write, window))
            },
            move |window, address, connected| {
                let socket = connect(address, wait)?;
                connected.now();
                sent(oneway::send_messages(&socket, write, window))
            },
        ),
        Shape::Bulk => pair.measure(
            move |window, listening| {
                let [socket] = accept(listening, wait)?;
                counted(oneway::receive_bulk(&socket, write, |n| window.count(n)))
            },
            move |window, address, connected| {
                let socket = connect(address, wait)?;
                connected.now();
                sent(oneway::send_bulk(&socket, write, window))
            },
        ),
        Shape::Mixed => mixed(pair),
    }
}

/// The best slice if they differ in write size, else the total.
pub fn combine(workload: Workload, slices: &[Sample]) -> Option<Sample> {
    match workload.shape() {
        Shape::Oneway { .. } | Shape::Bulk | Shape::Feed { .. } => Sample::best(slices),
        _ => Sample::total(slices),
    }
}

fn echoes(pair: &Pair, wait: Wait, batch: Batch) -> Result<Sample, Failure> {
    let len = batch.len();
    pair.measure(
        move |_, listening| {
            let [socket] = accept(listening, wait)?;
            echo::serve(&socket, len).map_err(broken)?;
            Ok(Received::default())
        },
        move |window, address, connected| {
            let socket = connect(address, wait)?;
            connected.now();
            echo::round_trips(&socket, batch, window)
        },
    )
}

fn mixed(pair: &Pair) -> Result<Sample, Failure> {
    pair.measure(
        |window, listening| {
            let [echo, bulk] = accept(listening, Wait::Park)?;
            thread::scope(|scope| {
                let side_bytes = |n| window.count_side_bytes(n * MIXED_WRITE as u64);
                let bulk =
                    scope.spawn(move || oneway::receive_bulk(&bulk, MIXED_WRITE, side_bytes));
                echo::serve(&echo, Batch::bare().len()).map_err(broken)?;
                counted(bulk.join().expect("no step of it panics"))
            })
        },
        |window, address, connected| {
            let (echo, bulk) = (connect(address, Wait::Park)?, connect(address, Wait::Park)?);
            connected.now();
            thread::scope(|scope| {
                let bulk = scope.spawn(move || oneway::send_bulk(&bulk, MIXED_WRITE, window));
                let round_trips = echo::round_trips(&echo, Batch::bare(), window)?;
                drop(echo);
                let one_way = bulk.join().expect("no step of it panics").map_err(broken)?;
                Ok(Sent {
                    one_way,
                    ..round_trips
                })
            })
        },
    )
}

/// Listens, reports the address, and accepts this many connections in order.
fn accept<const N: usize>(listening: Listening, wait: Wait) -> Result<[Plain; N], Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(no_port)?;
    listening.at(listener.local_addr().map_err(no_port)?.to_string());
    let mut sockets = Vec::with_capacity(N);
    for _ in 0..N {
        let (socket, _) = listener.accept().map_err(broken)?;
        sockets.push(Plain::new(socket, wait).map_err(broken)?);
    }
    Ok(sockets.try_into().expect("N were pushed"))
}

fn connect(address: &str, wait: Wait) -> Result<Plain, Failure> {
    let socket = TcpStream::connect(address).map_err(broken)?;
    Plain::new(socket, wait).map_err(broken)
}

fn sent(result: io::Result<u64>) -> Result<Sent, Failure> {
    result
        .map(|one_way| Sent {
            one_way,
            latencies: None,
        })
        .map_err(broken)
}

fn counted(result: io::Result<u64>) -> Result<Received, Failure> {
    result.map(|one_way| Received { one_way }).map_err(broken)
}

fn no_port(error: io::Error) -> Failure {
    Failure::new("cannot listen on 127.0.0.1").because(&error)
}

fn broken(error: io::Error) -> Failure {
    Failure::new("the plain socket failed").because(&error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::ValueEnum;

    use super::*;
    use crate::machine::Cpus;

    #[test]
    fn every_workload_has_a_limit_at_every_write_size() {
        let (warmup, measured) = (Duration::from_millis(5), Duration::from_millis(20));
        let pair = Pair {
            warmup,
            measured,
            cpus: Cpus::unpinned(),
        };
        for workload in Workload::value_variants() {
            let slices: Vec<_> = (0..WRITE_SIZES.len())
                .map(|slice| {
                    measure(*workload, slice, Wait::Park, &pair).expect("plain sockets work")
                })
                .collect();
            let limit = combine(*workload, &slices).expect("there are slices");
            assert!(limit.rate_per_s() > 0.0, "{workload:?}");
            let has_times = limit.quantile_ns(0.5).is_some();
            assert_eq!(
                has_times,
                workload.shape().has_round_trips(),
                "{workload:?}"
            );
            let has_side = limit.side_bytes > 0;
            assert_eq!(has_side, *workload == Workload::Mixed, "{workload:?}");
        }
    }
}
