//! Many independent message streams over one connection, on io_uring.
//!
//! ringmux carries any number of streams of messages over one TCP connection, Unix socket or other
//! byte transport, in both directions, with flow control for each stream and for the session. A
//! backend uses it instead of gRPC/HTTP-2, yamux or a socket for each call. It is a transport: the meaning of messages is up
//! to you, and so are names, retries and load balancing.
//!
//! ```text
//!  application threads                       engine thread
//!  ┌──────────────┐ messages ┌───────────┐          ┌──────────┐ batches ┌────────┐
//!  │ SendStream   │─────────►│ send ring │─────────►│ protocol │────────►│ driver │──► socket
//!  │ Session      │─────────►│ requests  │─────────►│          │         │        │
//!  │ RecvStream   │◄─────────│ recv ring │◄─────────│          │◄────────│        │◄── socket
//!  └──────────────┘   wake   └───────────┘          └──────────┘         └────────┘
//! ```
//! One thread owns the socket and the protocol. Handles only touch lock-free queues, from any thread
//! and any executor. Everything queued while a write is under way leaves in the next one,
//! so batches grow with the load and a lone message is never delayed.
//!
//! # Example
//! ```
//! use ringmux::Session;
//!
//! /// Sends every message back, until the session ends.
//! async fn serve(session: Session) {
//!     while let Ok(Some((mut send, mut recv))) = session.accept().await {
//!         // A task for each stream: one that fails, or that the peer cancels, ends alone.
//!         tokio::spawn(async move {
//!             while let Some(message) = recv.recv().await? {
//!                 send.send(message).await?;
//!             }
//!             send.finish()?;
//!             Ok::<_, ringmux::Error>(())
//!         });
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), ringmux::Error> {
//!     let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
//!     let client = ringmux::connect(listener.local_addr().to_string()).await?;
//!     tokio::spawn(serve(listener.accept().await?));
//!
//!     let (mut call, mut answer) = client.open("greetings").await?; // either side may open
//!     call.send("hello").await?;
//!     call.finish()?; // half-close: the answer still comes
//!     assert_eq!(answer.recv().await?.unwrap(), "hello");
//!     assert_eq!(answer.recv().await?, None);
//!
//!     client.close(); // returns at once
//!     client.closed().await; // by now everything has left, so the program may end
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//! * [`connect()`], [`listen`]: with the defaults. [`Engine`]: choose thread and [`Driver`].
//!   [`client`] and [`server`]: over a transport of your own, such as a TLS stream. [`dial`], [`dial_unix`]: the connection alone.
//! * [`Session`]: open, accept, ping, close, shut down. [`Listener::shutdown`]: all sessions at once. [`SessionState`]: the phase of a session.
//! * [`SendStream`], [`RecvStream`]: the two halves of a stream, which may be used by different tasks; [`Lease`], a message in place.
//!   As one byte stream: `tokio::io::join(recv, send)`.
//! * [`Wire`]: what a session speaks: ringmux's own wire, or DRPC, whose parts are in [`drpc`]. `DRPC.md` has the peers that work.
//! * [`Config`]: every limit, with its unit and default; [`Config::edge`] for untrusted peers.
//! * [`Error`]: every other error converts into it by `?`. [`SessionError`], [`StreamError`], [`SendError`],
//!   [`OpenError`], [`ConnectError`]: like each error here they say whether a retry may succeed (`is_retryable`),
//!   and whether the peer can have processed the work (`was_processed`). `Display` shows an error's own text; [`Chain`] shows
//!   its sources as well.
//!
//! # Limits
//! Bounded are: bytes queued for sending ([`send_buffer`](ConfigBuilder::send_buffer) for a stream,
//! [`session_send_buffer`](ConfigBuilder::session_send_buffer) for all streams of a session), bytes that a peer may send before
//! the application consumes ([`stream_window`](ConfigBuilder::stream_window),
//! [`session_window`](ConfigBuilder::session_window), and [`receive_pool`](ConfigBuilder::receive_pool) for the whole
//! process), the peer's streams ([`max_streams`](ConfigBuilder::max_streams)), and the time of connecting, of a handshake, of
//! a close, of a peer's silence and of a socket or message without progress. Messages larger than their stream's window are
//! admitted one at a time from the process's memory, or their stream ends with [`StreamError::LimitExceeded`]. A tripped limit
//! is reported as one error, [`LimitExceeded`], sent to the peer with the same text, and counted:
//! [`SessionStats::tripped`], [`process_stats`].
//!
//! # Features
//! * `manage` (off): the module `manage`, which keeps sessions to a peer and reconnects lost ones.
//! * `tokio-uring` (on): the driver [`Driver::TokioUring`], with the crate `tokio-uring`. Without it the driver is refused with
//!   [`EngineError::NotBuiltIn`].
//! * `metrics` (off): the module `metrics`, which passes counters to a recorder of the crate `metrics`.
//! * `rpc` (off): the module `rpc`: calls with deadlines, cancellation, metadata and typed status; either side may be the
//!   server. The attribute `service` makes clients and servers of traits. `rpc-prost` and `rpc-postcard` add codecs,
//!   `rpc-tower` makes a channel a service of tower and takes its layers for handlers, `rpc-tracing` makes each call a span.
//!
//! # Observing it
//! Sessions and streams are [`tracing`] spans ([`Session::span`], [`SendStream::span`]) with their ends as events, targets
//! `ringmux::session` and `ringmux::stream`. [`Session::stats`], [`Engine::stats`] and [`process_stats`] are snapshots of
//! counters that are always on. Each log statement that a peer can trigger writes one line in 10 s (at level DEBUG and below
//! ten); the next such line has the number of suppressed ones in its field `left_out`, and [`left_out_lines`] has the total.

#[cfg(not(ringmux_loom))] // The models need the leaves alone.
mod addr;
#[cfg(not(ringmux_loom))]
mod bridge;
#[cfg(not(ringmux_loom))]
mod common;
#[cfg(not(ringmux_loom))]
mod config;
#[cfg(not(ringmux_loom))]
mod connect;
#[cfg(not(ringmux_loom))]
mod core;
#[cfg(not(ringmux_loom))]
mod driver;
#[cfg(not(ringmux_loom))]
pub mod drpc;
#[cfg(not(ringmux_loom))]
mod error;
#[cfg(all(any(test, fuzzing), not(ringmux_loom)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(not(ringmux_loom))]
mod handle;
#[cfg(all(feature = "manage", not(ringmux_loom)))]
pub mod manage;
#[cfg(all(feature = "metrics", not(ringmux_loom)))]
pub mod metrics;
#[cfg(not(ringmux_loom))]
mod pace;
#[allow(dead_code, unused_imports)] // Benches and models use items that the layers above do not.
mod queue;
#[cfg(all(feature = "rpc", not(ringmux_loom)))]
pub mod rpc;
#[allow(unused_imports)]
mod sync;

mod timer;
#[cfg(not(ringmux_loom))]
pub mod wire;

#[cfg(all(feature = "rpc", not(ringmux_loom)))]
pub use ringmux_macros::service;

#[cfg(not(ringmux_loom))]
pub use addr::{Addr, AddrError, Driver, UnknownDriver, UnknownWire, Wire};
#[cfg(not(ringmux_loom))]
pub use bridge::{Drained, SessionEnds, SessionStats, Totals, TrippedLimits};
#[cfg(not(ringmux_loom))]
pub use common::Error;
#[cfg(not(ringmux_loom))]
pub use config::{Config, ConfigBuilder, ConfigError, Rate, Wait};
#[cfg(not(ringmux_loom))]
pub use connect::{
    Backend, ChosenBackend, ConnectError, Connection, DialAttempt, DialError, Engine,
    EngineBuilder, EngineError, Features, ListenError, Listener, ProbeStep, ProcessStats, Refusal,
    SocketError, client, connect, dial, dial_unix, is_lost, listen, process_stats, server,
};
#[cfg(not(ringmux_loom))]
pub use error::{
    Chain, Failure, Limit, LimitExceeded, NotCarried, OpenError, PingError, Processed, SendError,
    SessionError, Side, StreamError, TrySendError, codes,
};
#[cfg(not(ringmux_loom))]
pub use handle::{
    Accept, Chunks, Incoming, Lease, Open, Recv, RecvLease, RecvMeta, RecvStream, Reserve,
    Reserved, SendMessage, SendSlice, SendStream, Session, SessionState, StreamId, Written,
};
#[cfg(not(ringmux_loom))]
pub use pace::{LeftOutLines, left_out_lines};
#[cfg(not(ringmux_loom))]
pub use wire::native::frame::Role;

/// Compiles and runs the README's examples as tests.
#[cfg(all(doctest, feature = "rpc-postcard"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The same.
#[cfg(all(doctest, feature = "rpc-postcard"))]
#[doc = include_str!("../MIGRATING.md")]
struct Migrating;
