//! Calls.

mod code;
mod codec;
mod convert;
mod metadata;
mod method;
mod status;
mod wire;

pub use code::Code;
#[cfg(feature = "rpc-postcard")]
pub use codec::Postcard;
#[cfg(feature = "rpc-prost")]
pub use codec::Prost;
pub use codec::{Codec, CodecError, Encoding, Payload, Raw};
pub use metadata::{Iter, Metadata, MetadataError};
pub use method::{Bidirectional, ClientStreaming, Kind, Method, ServerStreaming, Unary};
pub use status::{Origin, Status};
#[cfg(any(test, fuzzing))]
pub(crate) use wire::{Opening, decode_status, encode_status, find_meta};
