//! The workloads over ringmux: one session, its two ends on the two threads, both engines inline.

mod call_client;
mod call_server;
mod client;
mod server;

use std::error::Error;

use ringmux::Config;
use tokio::runtime::Builder;

use super::host::{Driver, Host};
use super::pair::Pair;
use super::sample::Sample;
use super::workload::Shape;
use crate::failure::Failure;

/// The limit of open streams: four times the busiest workload's, because a call may
/// begin before both sides have freed the previous one.
const MAX_STREAMS: u32 = 4096;

/// Measures one slice.
pub fn measure(shape: Shape, host: Host, pair: &Pair) -> Result<Sample, Failure> {
    let config = config(shape)?;
    let server_config = config.clone();
    if shape.is_of_calls() {
        return pair.measure(
            move |window, listening| {
                let serving = |engine| call_server::run(engine, &server_config, window, listening);
                with_clock(host, || host.block_on(serving))??
            },
            move |window, address, connected| {
                let calling =
                    |engine| client::run(engine, &config, shape, window, address, connected);
                with_clock(host, || host.block_on(calling))??
            },
        );
    }
    pair.measure(
        move |window, listening| {
            host.block_on(|engine| server::run(engine, &server_config, window, listening))?
        },
        move |window, address, connected| {
            host.block_on(|engine| client::run(engine, &config, shape, window, address, connected))?
        },
    )
}

/// Calls ask a runtime for the timers of their deadlines. Over a ring of its own a thread has no runtime: here it has one that
/// makes timers and never lets them fire.
fn with_clock<T>(host: Host, run: impl FnOnce() -> T) -> Result<T, Failure> {
    if host.driver != Driver::Uring || host.own_thread {
        return Ok(run());
    }
    let clock = Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(during("cannot make a clock"))?;
    let _entered = clock.enter();
    Ok(run())
}

/// The defaults, except the number of streams.
fn config(shape: Shape) -> Result<Config, Failure> {
    let streams = match shape {
        Shape::Echo { streams } | Shape::Oneway { streams } => {
            u32::try_from(streams).unwrap_or(u32::MAX).max(MAX_STREAMS)
        }
        Shape::Unary { .. }
        | Shape::Bulk
        | Shape::Mixed
        | Shape::Call { .. }
        | Shape::Feed { .. } => MAX_STREAMS,
    };
    Config::builder()
        .max_streams(streams)
        .max_pending_opens(streams)
        .build()
        .map_err(|error| Failure::new("cannot configure the session").because(&error))
}

/// The server's task for a stream; named by the opening block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Sends every message back.
    Echo,
    /// Counts small messages.
    Count,
    /// Counts bulk messages.
    CountBulk,
    /// Counts the bytes of bulk messages beside the counted ones.
    SideBulk,
}

impl Role {
    const ALL: [Self; 4] = [Self::Echo, Self::Count, Self::CountBulk, Self::SideBulk];

    const fn opening(self) -> &'static [u8] {
        match self {
            Self::Echo => b"echo",
            Self::Count => b"count",
            Self::CountBulk => b"count-bulk",
            Self::SideBulk => b"side-bulk",
        }
    }

    fn of(opening: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.opening() == opening)
    }
}

/// Makes a failure of a library error: `.map_err(during("cannot open a stream"))`.
fn during<E: Error + 'static>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(what).because(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_block_names_one_role() {
        for role in Role::ALL {
            assert_eq!(Role::of(role.opening()), Some(role));
        }
        assert_eq!(Role::of(b"ech"), None);
    }
}
