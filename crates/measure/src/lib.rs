//! The harness of all measurements, shared by `ringmux bench` and `ringmux-perf` so that the figures of both are comparable.
//!
//! A measurement is a slice of a [`Workload`](workload::Workload) between two threads, each pinned to its processor
//! ([`pair`], [`machine`]). Both count in one [`Window`](window::Window), and a slice ends as a
//! [`Sample`](sample::Sample). [`limit`] runs a workload over plain sockets, [`mux`] over ringmux.

pub mod calls;
pub mod failure;
pub mod host;
pub mod limit;
pub mod machine;
pub mod message;
pub mod mux;
pub mod pair;
pub mod progress;
pub mod row;
pub mod sample;
pub mod units;
pub mod window;
pub mod workload;
