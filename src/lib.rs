//! Many independent message streams over one connection, on io_uring.

mod addr;
mod config;
mod connect;
mod driver;
mod error;
#[allow(dead_code, unused_imports)] // until the fuzz targets use all of it
mod frame;
mod handle;
mod link;
mod proto;
#[allow(dead_code, unused_imports)]
mod queue;
#[allow(unused_imports)]
mod sync;

pub use addr::{Addr, AddrError, Driver, UnknownDriver};
pub use config::{Config, ConfigBuilder, ConfigError};
pub use connect::{
    ConnectError, Connection, Engine, EngineError, ListenError, Listener, client, connect, listen,
    server,
};
pub use error::{
    Failure, Limit, OpenError, Processed, ProtocolError, SendError, SessionError, StreamError,
    TrySendError,
};
pub use frame::{FrameError, Kind as FrameKind, Role, StreamId, codes};
pub use handle::{Chunks, Lease, RecvStream, SendStream, Session, Stream};
pub use link::SessionStats;
