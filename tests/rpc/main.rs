//! Calls, end to end: both sides over a pipe, unless a case is about sockets or drivers.

mod bank;
mod bounds;
mod calls;
mod codecs;
mod drivers;
mod drpc;
mod ends;
mod flooded;
mod host;
mod intercept;
mod kinds;
mod layers;
mod ledger;
mod managed;
mod memory;
mod metrics;
mod refused;
mod rolling;
mod sizes;
mod spans;
mod tower;
mod unary;
