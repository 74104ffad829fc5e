//! Arguments shared by `serve` and `forward`, and the configuration derived from them.

use std::time::Duration;

use clap::ValueEnum;
use ringmux::{Config, Engine};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;

use crate::endpoint;
use ringmux_measure::failure::Failure;
use ringmux_measure::units::parse_duration;

/// Maximum of a session's window, in bytes: bytes not taken by slow readers count against it, so it bounds how many slow
/// readers a session carries beside the fast ones.
const SESSION_WINDOW_MAX_BYTES: u32 = 128 << 20;
/// Streams of a session beyond `--max-connections`: so that excess connections are refused with a reason instead of waiting.
const REFUSED_STREAMS: u32 = 64;

/// Options of both commands.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections open at once, 16 at least; more wait (forward) or are refused (serve).
    #[arg(long, value_name = "N", default_value = "4096", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(crate) max_connections: u32,

    /// How long open connections may continue after SIGTERM or Ctrl-C; a second signal cuts them.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) grace: Duration,

    /// Serve Prometheus metrics at http://HOST:PORT/metrics; a PORT alone is on 127.0.0.1.
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint::local_tcp)]
    pub(crate) metrics: Option<String>,

    /// The driver of the session.
    #[arg(long, value_enum, value_name = "NAME", default_value = "tokio")]
    driver: Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// On a tokio runtime, through epoll
    Tokio,
    /// On a tokio-uring runtime
    TokioUring,
    /// On a ring beside a tokio runtime, which carries the connections
    Uring,
}

impl Options {
    /// Runs a command on this thread, with its sockets and its sessions: a byte that passes through
    /// crosses no thread.
    pub(crate) fn block_on<F>(&self, command: impl FnOnce(Engine) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        raise_descriptor_limit();
        match self.driver {
            Driver::TokioUring => {
                let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())
                    .map_err(|error| refused().because(&error).advise("try --driver tokio"))?;
                let result =
                    runtime.block_on(async { command(engine(ringmux::Driver::TokioUring)?).await });
                // The process ends next. Dropping the runtime would wait for name lookups under way.
                std::mem::forget(runtime);
                result
            }
            Driver::Tokio => on_tokio(ringmux::Driver::Tokio, command),
            Driver::Uring => on_tokio(ringmux::Driver::Uring, command),
        }
    }
}

fn on_tokio<F>(driver: ringmux::Driver, command: impl FnOnce(Engine) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| refused().because(&error))?;
    let result = runtime.block_on(async { command(engine(driver)?).await });
    // Dropping it would wait for name lookups under way.
    runtime.shutdown_background();
    result
}

fn engine(driver: ringmux::Driver) -> Result<Engine, Failure> {
    Engine::inline(driver).map_err(|error| {
        let failure = refused().because(&error);
        match driver {
            ringmux::Driver::Tokio => failure,
            _ => failure.advise_tokio(&error),
        }
    })
}

fn refused() -> Failure {
    Failure::new("cannot start")
}

/// The session's configuration.
pub(crate) fn config(options: &Options) -> Result<Config, Failure> {
    Config::builder()
        .max_streams(options.max_connections + REFUSED_STREAMS)
        .max_pending_opens(options.max_connections)
        .session_window_max(SESSION_WINDOW_MAX_BYTES)
        .build()
        .map_err(|error| Failure::new("cannot configure a session").because(&error))
}

/// Each connection is a descriptor, and the usual soft limit of 1024 exists for programs that
/// use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
