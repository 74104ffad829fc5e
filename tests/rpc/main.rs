//! Calls, end to end: both sides over a pipe, unless a case is about sockets.

mod bank;
mod bounds;
mod calls;
mod codecs;
mod ends;
mod host;
mod intercept;
mod kinds;
mod ledger;
mod managed;
mod memory;
mod refused;
mod sizes;
mod tower;
mod unary;
