//! The production loop over a ring that does, by a seed, what a kernel may do.
//!
//! ```text
//!   applications ─ handles ─┐                           ┌─ socket pairs
//!                           host::run ─ Reactor ─ FakeRing ─ memory of the operations
//! ```
//! One thread runs all of it, both ends of every session on the same ring, on a clock that moves
//! only when the loop would sleep.
//! * `fake`, `faults`: the ring, and what goes wrong on it; `memory`: what it does with the memory
//!   and the sockets behind operations.
//! * `world`: a run and its checks; `workload`: applications that talk over it.
//! * `scripted`, `direct`, `ending`: one claim each; `random`: all faults at once, by hundreds of seeds.

mod direct;
mod ending;
mod fake;
mod faults;
mod memory;
mod random;
mod scripted;
mod workload;
mod world;
