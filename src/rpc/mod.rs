//! Calls.

mod bound;
mod call;
mod channel;
mod code;
mod codec;
mod context;
mod convert;
mod exchange;
mod incoming;
mod metadata;
mod method;
mod mode;
mod receiver;
mod retry;
mod router;
mod run;
mod sender;
mod serve;
mod server;
mod shared_send;
mod status;
mod timer;
#[cfg(feature = "rpc-tower")]
mod tower;
mod wire;

#[cfg(feature = "rpc-tower")]
pub use self::tower::{Endpoint, Request};
pub use call::{Call, Outgoing, UnaryCall};
pub use channel::{Channel, ChannelBuilder, ChannelTarget};
pub use code::Code;
#[cfg(feature = "rpc-postcard")]
pub use codec::Postcard;
#[cfg(feature = "rpc-prost")]
pub use codec::Prost;
pub use codec::{Codec, CodecError, Encoding, Payload, Raw};
pub use context::Context;
pub use exchange::Response;
pub use incoming::CLEANUP_MAX;
pub use metadata::{Iter, Metadata, MetadataError};
pub use method::{Bidirectional, ClientStreaming, Kind, Method, ServerStreaming, Unary};
pub use mode::{Local, Mode, Shared};
pub use receiver::{Receiver, Reply};
pub use retry::Retry;
pub use router::{MethodOptions, Router, Service, WhenFull};
pub use sender::Sender;
pub use server::{BuildError, Server, ServerBuilder, ServerStats};
pub use status::{Origin, Status};
#[cfg(any(test, fuzzing))]
pub(crate) use wire::{Opening, decode_status, encode_status, find_meta};
