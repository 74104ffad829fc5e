//! The production loop over a simulated ring: a seed chooses among the behaviours that a kernel may show.
//!
//! ```text
//!   applications ─ handles ─┐                           ┌─ socket pairs
//!                           host::run ─ Reactor ─ FakeRing ─ memory of the operations
//! ```
//! One thread runs all of it, both ends of every session on the same ring, on a clock that moves
//! only when the loop would sleep.
//! * `fake`, `faults`: the ring and its faults; `memory`: its accesses to the memory
//!   and the sockets behind operations.
//! * `world`: a run and its checks; `workload`: applications that talk over it.
//! * `scripted`, `buffers`, `slow`, `direct`, `ending`: one claim each; `random`: all faults at once, over hundreds of seeds.

mod buffers;
mod direct;
mod ending;
mod fake;
mod faults;
mod memory;
mod random;
mod scripted;
mod slow;
mod workload;
mod world;
