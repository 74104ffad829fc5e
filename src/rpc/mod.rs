//! Calls: typed requests and answers over the streams of a session, with deadlines, cancellation, metadata and a status that
//! says whether a call may have run. Feature `rpc`.
//!
//! * [`Method`]: a constant that both sides share: the name, the [codec](Codec), the types, and which side streams.
//! * [`Channel`]: where calls go. [`Channel::call`] is awaited; [`server_streaming`](Channel::server_streaming),
//!   [`client_streaming`](Channel::client_streaming) and [`bidirectional`](Channel::bidirectional) are
//!   [opened](Call::open), and give a [`Sender`], a [`Receiver`] or a [`Reply`].
//! * [`Server`]: handlers by method, or whole [`Service`]s. It serves a listener, or one session: either side of a
//!   session may call, and both may.
//! * [`Context`]: what a handler knows of its call, and the parent of the calls that it makes.
//! * [`Status`]: why a call failed, and [whether it may have run](Status::was_processed).
//!
//! # Example
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use ringmux::rpc::{Channel, Code, Context, Method, Raw, Server, Status};
//!
//! const GREET: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Greeter/Greet");
//!
//! async fn greet(cx: Context, name: Bytes) -> Result<Bytes, Status> {
//!     if name.is_empty() {
//!         return Err(Status::invalid_argument("who?"));
//!     }
//!     let word = cx.metadata().get_str("word").unwrap_or("hello");
//!     Ok(format!("{word} {}", String::from_utf8_lossy(&name)).into())
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
//!     let addr = listener.local_addr().to_string();
//!     let server = Server::builder().unary(GREET, greet).build()?;
//!     tokio::spawn(async move { server.serve(listener).await });
//!
//!     let channel = Channel::new(ringmux::connect(addr).await?);
//!     let name = Bytes::from("world");
//!     let call = channel.call(&GREET, &name).metadata("word", "good morning");
//!     assert_eq!(call.timeout(Duration::from_secs(1)).await?, "good morning world");
//!
//!     let status = channel.call(&GREET, &Bytes::new()).await.unwrap_err();
//!     assert_eq!(status.code(), Code::INVALID_ARGUMENT);
//!     Ok(())
//! }
//! ```
//! `examples/callback.rs` has a server that calls its client.
//!
//! # Services
//! The attribute [`service`](macro@crate::service) makes the client and the server of a trait, which may have all four kinds of methods;
//! see `examples/bank.rs`. The crate `ringmux-build` makes the same of `.proto` files, without protoc.
//! ```
//! use bytes::Bytes;
//! use ringmux::rpc::{Context, Sender, Server, Status};
//!
//! /// Makes `StoreServer`, `StoreClient` and `StoreMethods`.
//! #[ringmux::service(name = "store.v1.Store", codec = "raw")]
//! trait Store {
//!     async fn get(&self, cx: &Context, key: Bytes) -> Result<Bytes, Status>;
//!     async fn list(&self, cx: &Context, prefix: Bytes, out: Sender<Bytes>) -> Result<(), Status>;
//! }
//!
//! struct Fruit;
//!
//! impl Store for Fruit {
//!     async fn get(&self, _: &Context, key: Bytes) -> Result<Bytes, Status> {
//!         Err(Status::not_found(format!("no {key:?}")))
//!     }
//!
//!     async fn list(&self, _: &Context, _: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
//!         for name in ["apple", "pear"] {
//!             out.send(Bytes::from(name)).await?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().add(StoreServer::new(Fruit)).build()?;
//! # let (a, b) = tokio::io::duplex(4096);
//! # let (session, connection) = ringmux::client(a, &ringmux::Config::default());
//! # tokio::spawn(connection);
//! # let (peer, connection) = ringmux::server(b, &ringmux::Config::default());
//! # tokio::spawn(connection);
//! # tokio::spawn(async move { server.serve_session(peer).await });
//! let store = StoreClient::new(session);
//! let mut names = store.list(&Bytes::new()).open().await?;
//! assert_eq!(names.recv().await?.unwrap(), "apple");
//! assert!(store.get(&Bytes::from("plum")).await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # How a call ends
//! * **Once**, with an answer or a [`Status`]. A handler that panics is [`Code::INTERNAL`], also in the middle of a stream of
//!   answers, and its call's alone.
//! * **By its deadline.** A unary call has 30 s unless it says [something else](Call::timeout), a streaming one no limit, also
//!   not for the wait of `open`. The time
//!   travels with the call, both sides keep it, and a [parent](Call::parent) hands on the time that it has left. A call
//!   that is late before its handler begins never runs it.
//! * **By a cancel.** To drop the future of a call, or a half of a stream before its end, cancels the call. The handler is dropped, or
//!   [told](Context::cancelled) if it waits for that.
//! * **With its session.** Handlers are told at once; callers get [`Code::UNAVAILABLE`], and
//!   [`was_processed`](Status::was_processed) tells whether a handler may have run. A channel of a session that has ended fails every
//!   further call; one of a `Manager` (feature `manage`) calls on the next session, and with [`Retry`] repeats unary calls that did
//!   not run. Streaming calls are the application's to repeat.
//!
//! # Observing calls
//! [`Server::metrics`] and [`Channel::metrics`] count the calls of each method, by code, with their times and those in flight; they are
//! always on, and cost a call three additions on each side. The feature `metrics` of the library
//! publishes them. With the feature `rpc-tracing` a call is a span on both sides, and its trace context travels in the entry
//! `traceparent` of its metadata; a call with a [parent](Call::parent) is of the parent's trace. For `tracing-opentelemetry` spans have
//! `otel.name` (the method), `otel.kind`, and `otel.status_code` where the call is an error of that side.
//!
//! # Over DRPC
//! The same clients and servers call peers that speak [DRPC](crate::drpc), and are called by them: the session's
//! [wire](crate::Session::wire) decides. What that wire does not carry is an error with [`NotCarried`](crate::NotCarried) at its caller:
//! `DRPC.md` has the list.
//!
//! # What is bounded
//! | what | setting | default | above it |
//! |---|---|---|---|
//! | calls of a server at once | [`max_calls`](ServerBuilder::max_calls) | 4096 | they wait, and those behind them on their session with them; or [are refused](ServerBuilder::when_full) |
//! | of a session | [`max_session_calls`](ServerBuilder::max_session_calls) | 256 | the same; to raise it, raise [`max_streams`](crate::ConfigBuilder::max_streams) too |
//! | of a method | [`MethodOptions`] | none | the same; 1024 wait at most, more are refused |
//! | calls that a client opens | [`max_streams`](crate::ConfigBuilder::max_streams) of the server | 256 | they wait, [`max_pending_opens`](crate::ConfigBuilder::max_pending_opens) at most; more are [`Code::RESOURCE_EXHAUSTED`], not processed; one whose deadline passes meanwhile was not processed either |
//! | metadata of a request, headers, trailers | none | 8 KiB each | [`MetadataError`] |
//! | details and metadata of a status | none | 8 KiB | left out |
//! | a message | [`max_message`](crate::ConfigBuilder::max_message) of its receiver | 4 MiB | [`Code::RESOURCE_EXHAUSTED`] |
//! | time until the one request has arrived whole, of a call without a deadline | none | 30 s | [`Code::DEADLINE_EXCEEDED`], not processed |
//! | rows of metrics | none | one for each method of a server and one for all others; 256 of a channel | they share one |
//! | cleaning up after a cancel | none | [`CLEANUP_MAX`] | the handler is dropped |
//!
//! # Features
//! `rpc-prost` and `rpc-postcard` bring the codecs `Prost` and `Postcard`; `rpc-tower` brings `Endpoint`, a channel as a service of
//! tower, and `ServerBuilder::layer`, which puts handlers into its layers; `rpc-tracing` makes each call a span. The wire is specified
//! in `src/rpc/WIRE.md`; `MIGRATING.md` is for users of tonic and tarpc.

mod answering;
mod bound;
mod call;
mod channel;
mod code;
mod codec;
mod context;
mod convert;
mod dialect;
mod exchange;
mod held;
mod in_place;
mod incoming;
#[cfg(feature = "rpc-tower")]
mod layer;
mod metadata;
mod method;
mod metrics;
mod mode;
mod parent;
mod places;
mod polling;
mod quota;
mod receiver;
mod release;
mod retry;
mod router;
mod run;
mod sender;
mod serve;
mod served;
mod server;
mod session;
mod shared_send;
mod span;
mod status;
mod streaming;
mod tally;
mod timer;
#[cfg(feature = "rpc-tower")]
mod tower;
mod unary;
mod warm;
mod wire;

#[cfg(feature = "rpc-tower")]
pub use self::tower::{Endpoint, Request};
pub use bound::WhenFull;
pub use call::Call;
pub use channel::{Channel, ChannelBuilder, ChannelTarget, Outgoing};
pub use code::Code;
#[cfg(feature = "rpc-postcard")]
pub use codec::Postcard;
#[cfg(feature = "rpc-prost")]
pub use codec::Prost;
pub use codec::{Codec, CodecError, Encoding, Payload, Raw};
pub use context::Context;
pub use exchange::Response;
pub use incoming::CLEANUP_MAX;
#[cfg(feature = "rpc-tower")]
pub use layer::{Handled, Handlers, Handling};
pub use metadata::{Iter, Metadata, MetadataError};
pub use method::{Bidirectional, ClientStreaming, Kind, Method, ServerStreaming, Unary};
pub use metrics::{Latency, MethodMetrics};
pub use mode::{Local, Mode, Shared};
pub use receiver::{Receiver, Reply};
pub use retry::Retry;
pub use router::{MethodOptions, Router, Service};
pub use sender::Sender;
pub use server::{BuildError, Server, ServerBuilder, ServerStats};
pub use span::{TraceParent, TraceParentError};
pub use status::{Origin, Status};
pub use unary::UnaryCall;
#[cfg(any(test, fuzzing))]
pub(crate) use wire::{Opening, decode_status, encode_status, find_meta};
