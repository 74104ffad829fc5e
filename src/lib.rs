//! Many independent message streams over one connection, on io_uring.
//!
//! ringmux carries any number of streams of messages over one TCP connection, Unix socket or other
//! byte transport, in both directions, with flow control for each stream and for the session. A
//! backend adds it instead of gRPC/HTTP-2, yamux or a socket for each call. It is a transport: what
//! a message means is up to you, and so are names, retries and load balancing.
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
//! and any executor. Everything that is queued while a write is under way leaves in the next one,
//! so batches grow with the load and a lone message never waits for company.
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
//! * [`connect()`], [`listen`]: the short way. [`Engine`]: which thread and which [`Driver`].
//!   [`client`] and [`server`]: over a transport of your own, such as a TLS stream. [`dial`]: the TCP connection alone.
//! * [`Session`]: open, accept, ping, close, shut down. [`Listener::shutdown`]: all at once. [`SessionState`]: where it is in its life.
//! * [`SendStream`], [`RecvStream`]: the two halves of a stream, which go to different tasks if you like; [`Lease`], a message in place.
//!   As one byte stream: `tokio::io::join(recv, send)`.
//! * [`Config`]: every limit, with its unit and default; [`Config::edge`] for peers that nobody vouches for.
//! * [`Error`]: what every other error converts into by `?`. [`SessionError`], [`StreamError`], [`SendError`],
//!   [`OpenError`], [`ConnectError`]: like each error here they say whether trying again may succeed (`is_retryable`),
//!   and whether the peer can have seen what was sent (`was_processed`). An error shows its own words; [`Chain`] shows what
//!   it comes from as well.
//!
//! # What is bounded
//! What is queued for sending ([`send_buffer`](ConfigBuilder::send_buffer) for a stream,
//! [`session_send_buffer`](ConfigBuilder::session_send_buffer) for all of a session together), what a peer may send before
//! the application consumes ([`stream_window`](ConfigBuilder::stream_window),
//! [`session_window`](ConfigBuilder::session_window), and [`receive_pool`](ConfigBuilder::receive_pool) for the whole
//! process), how many streams a peer may open ([`max_streams`](ConfigBuilder::max_streams)), and how long
//! connecting, a handshake, a close, a peer's silence and a socket or message without progress may take. A message larger than its
//! stream's window is admitted one at a time from the process's memory, or its stream ends with
//! [`StreamError::LimitExceeded`]. Whatever is tripped is named by one error, [`LimitExceeded`], told to the peer in
//! the same words, and counted: [`SessionStats::tripped`], [`process_stats`].
//!
//! # Features
//! * `manage` (off): the module `manage`, which keeps sessions to a peer and makes them anew when they
//!   are lost.
//! * `metrics` (off): the module `metrics`, which tells the recorder of the crate `metrics` what sessions do.
//! * `rpc` (off): the module `rpc`: calls with deadlines, cancellation, metadata and typed status, of which either side may be
//!   the server. `rpc-prost` and `rpc-postcard` add codecs, `rpc-tower` makes a channel a service of tower.
//!
//! # Seen from outside
//! Sessions and streams are [`tracing`] spans ([`Session::span`], [`SendStream::span`]) with their ends as events, targets
//! `ringmux::session` and `ringmux::stream`. [`Session::stats`], [`Engine::stats`] and [`process_stats`] are snapshots of
//! counters that are kept in any case. What a peer can cause is logged at most ten times in 10 s from each place in the
//! code; the next such line says in its field `left_out` how many were left out, and [`left_out_lines`] how many in all.

#[cfg(not(ringmux_loom))]
mod addr;
#[cfg(not(ringmux_loom))]
mod common;
#[cfg(not(ringmux_loom))]
mod config;
#[cfg(not(ringmux_loom))]
mod connect;
#[cfg(not(ringmux_loom))]
mod driver;
#[cfg(not(ringmux_loom))]
mod error;
#[cfg(not(ringmux_loom))] // The models need the leaves alone.
#[allow(dead_code, unused_imports)] // The codec is complete; the protocol does not use all of it.
mod frame;
#[cfg(all(any(test, fuzzing), not(ringmux_loom)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(not(ringmux_loom))]
mod handle;
#[cfg(not(ringmux_loom))]
mod link;
#[cfg(all(feature = "manage", not(ringmux_loom)))]
pub mod manage;
#[cfg(all(feature = "metrics", not(ringmux_loom)))]
pub mod metrics;
#[cfg(not(ringmux_loom))]
mod pace;
#[cfg(not(ringmux_loom))]
mod proto;
#[allow(dead_code, unused_imports)] // Benches and models use what the layers above do not.
mod queue;
#[cfg(all(feature = "rpc", not(ringmux_loom)))]
pub mod rpc;
#[allow(unused_imports)]
mod sync;

#[cfg(not(ringmux_loom))]
pub use addr::{Addr, AddrError, Driver, UnknownDriver};
#[cfg(not(ringmux_loom))]
pub use common::Error;
#[cfg(not(ringmux_loom))]
pub use config::{Config, ConfigBuilder, ConfigError, Rate, Wait};
#[cfg(not(ringmux_loom))]
pub use connect::{
    Backend, ChosenBackend, ConnectError, Connection, DialAttempt, DialError, Engine,
    EngineBuilder, EngineError, Features, ListenError, Listener, ProbeStep, ProcessStats, Refusal,
    SocketError, client, connect, dial, listen, process_stats, server,
};
#[cfg(not(ringmux_loom))]
pub use error::{
    Chain, Failure, Limit, LimitExceeded, OpenError, Processed, SendError, SessionError, Side,
    StreamError, TrySendError,
};
#[cfg(not(ringmux_loom))]
pub use frame::{Role, codes};
#[cfg(not(ringmux_loom))]
pub use handle::{
    Accept, Chunks, Incoming, Lease, Open, RecvStream, SendStream, Session, SessionState, StreamId,
};
#[cfg(not(ringmux_loom))]
pub use link::{Drained, SessionEnds, SessionStats, Totals, TrippedLimits};
#[cfg(not(ringmux_loom))]
pub use pace::{LeftOutLines, left_out_lines};

/// What is said on the wire, as far as errors show it: which rule of it a peer broke.
///
/// An application needs it to tell one broken rule from another; that one was broken is
/// [`SessionError::Protocol`].
#[cfg(not(ringmux_loom))]
pub mod wire {
    pub use crate::error::ProtocolError;
    pub use crate::frame::{FrameError, Kind as FrameKind, StreamId};
}

/// The examples in the README are compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
