//! End to end: the same cases over every driver, on every kind of host, over TCP, Unix sockets and pipes that split every
//! frame.
//!
//! A case is one function, generic over its host ([`host::Net`]); `on_sockets!` and `everywhere!` make a test of it
//! for each host. Where io_uring is missing its tests fail: nothing is skipped. [`denied`] runs them again in processes
//! that may not use it.

#[macro_use]
mod host;
#[path = "../outage/still.rs"]
#[allow(dead_code)]
mod still;

mod addresses;
mod burst;
mod byte_streams;
mod cancel_safety;
mod denied;
mod drpc;
mod exits;
mod flooded;
mod given;
mod hostile;
#[cfg(feature = "manage")]
mod manage;
mod many;
mod messages;
mod raw;
mod receiving;
mod runtimes;
mod session;
mod shared;
mod shutdown;
mod slow;
mod stats;
mod streams;
mod transports;
