//! The same workloads over other multiplexers.
//!
//! Each side is one thread with a current-thread tokio runtime and a `LocalSet`, as ringmux's is
//! over its driver `tokio`. It sleeps in epoll while idle, or, with `--wait spin`, never: then a task
//! that yields for ever makes the runtime poll epoll without waiting. Everything but quinn goes over one loopback TCP
//! connection with `TCP_NODELAY` and without TLS.
//!
//! | peer  | settings beside its defaults |
//! |-------|------------------------------|
//! | yamux | no limit on receive windows, 4096 streams, frames of up to 64 KiB |
//! | h2    | windows of 4 MiB a stream and 16 MiB a connection, but 256 KiB and 1 MiB in `mixed`, where large ones cost latency; frames of up to 64 KiB, 128 KiB of send buffer a stream, 4096 streams, no limit on small frames |
//! | tonic | the same windows, frames and streams; a codec that passes bytes through; a one-way stream is made when polled, without a channel in front of it |
//! | tarpc | postcard, 4096 requests in flight, buffers for as many requests and responses; unary calls only, so `pingpong` is one call at a time |
//! | bare  | a hundred lines that batch writes and nothing else ([`bare`]); unary calls only |
//! | quinn | UDP with TLS, which QUIC cannot do without; the same windows, up to 1 MiB unacknowledged, 4096 streams |
//!
//! Each message is one call of the peer's own send function; any batching into writes is the peer's
//! own. Byte streams (yamux, h2, quinn) get no length before each message, because both sides
//! know it: that favours them. The workloads of calls are for RPC stacks: yamux, h2 and quinn have none.

pub(super) mod bare;
mod client;
mod h2;
mod link;
mod paced;
mod quinn;
pub(super) mod ringmux;
pub(super) mod rpc;
mod runtime;
mod server;
pub(super) mod tarpc;
pub(super) mod tonic;
mod yamux;

use clap::ValueEnum;

use super::open_loop::Schedule;
use link::Transport;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::Wait;
use ringmux_measure::pair::Pair;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::{Codec, Shape, Workload};
use rpc::Job;
use runtime::waiting;

/// Streams or calls that may be open at once; the busiest workload has 1024.
const MAX_STREAMS: u32 = 4096;
/// A bulk message fits into one frame.
const MAX_FRAME: u32 = 64 << 10;

/// Bytes that may be in flight, for peers with such a setting.
#[derive(Clone, Copy, Debug)]
struct Windows {
    /// On one stream.
    stream: u32,
    /// On all streams of a connection together.
    connection: u32,
}

impl Windows {
    /// The best for the workload: bulk beside round trips queues up in front of them, up to its
    /// window, while a small window only slows the other workloads.
    const fn of(shape: Shape) -> Self {
        match shape {
            Shape::Mixed => Self {
                stream: 256 << 10,
                connection: 1 << 20,
            },
            _ => Self {
                stream: 4 << 20,
                connection: 16 << 20,
            },
        }
    }
}

/// A message in flight on its only stream is equivalent to a call.
const LONE_CALL: Shape = Shape::Echo { streams: 1 };

/// The values of `--peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// yamux 0.14: the multiplexer of libp2p
    Yamux,
    /// h2 0.4: bare HTTP/2
    H2,
    /// tonic 0.14: gRPC, with messages passed through as bytes
    Tonic,
    /// tarpc 0.38: calls encoded by postcard, without streams
    Tarpc,
    /// A hundred lines that batch the writes of calls, for comparison
    Bare,
    /// quinn 0.11: QUIC, with TLS
    Quinn,
}

impl Peer {
    /// The name on the command line and in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Yamux => "yamux",
            Self::H2 => "h2",
            Self::Tonic => "tonic",
            Self::Tarpc => "tarpc",
            Self::Bare => "bare",
            Self::Quinn => "quinn",
        }
    }

    /// Whether it supports the workload.
    pub(super) const fn can(self, workload: Workload) -> bool {
        match (self, workload.shape()) {
            (Self::Tarpc | Self::Bare, shape) => {
                matches!(shape, Shape::Call { .. } | Shape::Unary { .. } | LONE_CALL)
            }
            (Self::Yamux | Self::H2 | Self::Quinn, shape) => !shape.is_of_calls(),
            (Self::Tonic, _) => true,
        }
    }

    /// Measures one slice, sleeping or polling while idle.
    pub(super) fn measure(self, load: Load, wait: Wait, pair: &Pair) -> Result<Sample, Failure> {
        match self {
            Self::Tonic => match load.job() {
                Some(job) => rpc::measure(tonic::Tonic, job, wait, pair),
                None => measure(tonic::Tonic, load, wait, pair),
            },
            Self::Tarpc | Self::Bare => {
                let no_streams = || Failure::new(format!("{} has no streams", self.name()));
                let job = load.only_calls().ok_or_else(no_streams)?;
                match self {
                    Self::Tarpc => rpc::measure(tarpc::Tarpc, job, wait, pair),
                    _ => rpc::measure(bare::Bare, job, wait, pair),
                }
            }
            _ if load.job().is_some() => Err(Failure::new(format!("{} has no calls", self.name()))),
            Self::Yamux => measure(yamux::Yamux, load, wait, pair),
            Self::H2 => measure(h2::H2, load, wait, pair),
            Self::Quinn => measure(quinn::Quinn::new()?, load, wait, pair),
        }
    }
}

/// How a transport is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Closed loop: as fast as answers arrive.
    Closed(Shape),
    /// Open loop: at a fixed rate over echoing streams.
    Open(Schedule),
}

impl Load {
    /// What RPC stacks are asked to do.
    fn job(self) -> Option<Job> {
        match self {
            Self::Closed(shape) => Job::of(shape),
            Self::Open(_) => None,
        }
    }

    /// What a stack without streams does: a stream for each message is a call to it.
    fn only_calls(self) -> Option<Job> {
        match self {
            Self::Closed(Shape::Unary { calls }) => Some(Job::Calls(calls, Codec::Raw)),
            Self::Closed(LONE_CALL) => Some(Job::Calls(1, Codec::Raw)),
            Self::Closed(Shape::Call { .. }) => self.job(),
            _ => None,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Closed(shape) => shape,
            Self::Open(schedule) => Shape::Echo {
                streams: schedule.streams,
            },
        }
    }
}

/// Measures one slice.
fn measure<T: Transport>(
    transport: T,
    load: Load,
    wait: Wait,
    pair: &Pair,
) -> Result<Sample, Failure> {
    let serving = transport.clone();
    pair.measure(
        move |window, listening| {
            let host = serving.clone();
            host.block_on(|own| {
                let serving = serving.serve(own, load.shape(), listening, window);
                waiting(wait, serving)
            })?
        },
        move |window, address, connected| {
            let host = transport.clone();
            let client = |own| async {
                let (client, closing) = transport.connect(own, load.shape(), address).await?;
                let sent = match load {
                    Load::Closed(shape) => client::run(client, shape, window, connected).await?,
                    Load::Open(schedule) => paced::run(client, schedule, window, connected).await?,
                };
                closing.await?;
                Ok(sent)
            };
            host.block_on(|own| waiting(wait, client(own)))?
        },
    )
}
