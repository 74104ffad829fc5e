//! DRPC: the wire of storj, and of CockroachDB's fork of it, where both sides of this library have to agree on bytes.
//!
//! The wire itself is in `wire/drpc`. This module has the parts that handles and calls use as well: the [`Profile`] of a peer,
//! the opening block of a stream ([`Invocation`]), the details of an error ([`StatusDetails`]), and the rules that a peer can
//! break ([`DrpcError`]).
//!
//! # A stream
//! | here | on the wire |
//! |---|---|
//! | opening block | the packets InvokeMetadata (only if there is metadata) and Invoke |
//! | message | the packet Message, cut into frames of at most 64 KiB |
//! | `finish` | CloseSend |
//! | `finish_with_error(code, text, details)` | Error, in the form of the profile |
//! | `cancel`, or a stream dropped or timed out, where this side dialled | Cancel; nothing before the Invoke was sent |
//! | the same where this side accepted | Error: code 1 (cancelled), 4 (deadline), 8 (limit), 14 (turned away), 13 otherwise |
//! | `stop`, a dropped receiver | nothing: what still arrives is discarded; once this side has finished as well, and dialled: Cancel |
//! | a received Error | the end [`StreamError::Failed`](crate::StreamError::Failed) of both directions; behind the peer's CloseSend of sending alone |
//! | a received Close | the end [`StreamError::Cancelled`](crate::StreamError::Cancelled), behind the messages before it |
//! | a received Cancel | the same end at once; messages not yet received are discarded |
//! | opaque blocks (META) | refused at the sender: [`SendError::NotCarried`](crate::SendError::NotCarried) |
//! | `open` where this side accepted | refused: [`OpenError::NotThisSide`](crate::OpenError::NotThisSide) |
//!
//! # The opening block
//! ```text
//!   path                         without metadata: the block is the name that is invoked, such as "/service/method"
//!   path 0x00 metadata           with it: a zero byte, then the body of InvokeMetadata
//! ```
//! The body is the protobuf message `{ map<string, string> = 1 }`: for each entry `0a len 0a len key 12 len value`. So a block
//! without metadata can be written by hand, and [`Invocation`] makes and reads both. Names that contain a zero byte are refused
//! by the accepting side. At most [`MAX_OPENING`] bytes.
//!
//! # The details of an error
//! [`Failure`](crate::Failure) has a code of 32 bits, the text, and details. The details are the fields of `google.rpc.Status`
//! that the other two do not hold, as protobuf: field 1 (`08` varint), the whole code, if it does not fit or is one of
//! the transport's ([`codes`](crate::codes)), when `code` is 2; and field 3 (`1a len Any`), any number of times, in the form
//! of CockroachDB. Empty for all others. [`StatusDetails`] makes and reads them.

mod error;
mod invocation;
mod profile;
mod status;
mod varint;

pub use error::DrpcError;
pub use invocation::{Entries, Invocation, InvocationError};
pub(crate) use invocation::{is_metadata, split};
pub use profile::{Calls, CancelForm, ErrorForm, FlowControl, Profile};
pub use status::StatusDetails;
pub(crate) use varint::{Varint, put_varint, varint_len};

/// The longest opening block, in bytes.
pub const MAX_OPENING: usize = 32 * 1024;
