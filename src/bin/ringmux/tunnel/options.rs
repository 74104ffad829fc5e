//! Arguments that `serve` and `forward` share, and what follows from them.

use std::time::Duration;

use clap::ValueEnum;
use ringmux::{Config, Engine};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::units::parse_duration;

/// Up to what the windows of a session grow, in bytes: what a slow reader has not taken counts
/// against it, so it bounds how many slow readers a session carries beside the fast ones.
const SESSION_WINDOW_MAX_BYTES: u32 = 128 << 20;

/// Options of both commands.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Connections open at once; more wait (forward) or are refused (serve).
    #[arg(long, value_name = "N", default_value = "4096", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(crate) max_connections: u32,

    /// How long open connections may go on after SIGTERM or Ctrl-C; a second signal cuts them.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) grace: Duration,

    /// What carries the session: `auto` is tokio-uring where io_uring works, else tokio.
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    driver: Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Driver {
    Auto,
    TokioUring,
    Tokio,
}

impl Options {
    /// The runtime of the tunnelled sockets. One thread: the session's engine has its own.
    pub(crate) fn runtime(&self) -> Result<Runtime, Failure> {
        raise_descriptor_limit();
        Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("cannot start a runtime").because(&error))
    }

    /// To be called on the runtime.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        match self.driver {
            Driver::Auto => Engine::auto(),
            Driver::TokioUring => Engine::thread(ringmux::Driver::TokioUring),
            Driver::Tokio => Engine::inline(ringmux::Driver::Tokio),
        }
        .map_err(|error| Failure::new("cannot start an engine").because(&error))
    }
}

/// The session's configuration.
pub(crate) fn config(options: &Options) -> Result<Config, Failure> {
    Config::builder()
        .max_streams(options.max_connections)
        .max_pending_opens(options.max_connections)
        .session_window_max(SESSION_WINDOW_MAX_BYTES)
        .build()
        .map_err(|error| Failure::new("cannot configure a session").because(&error))
}

/// Each connection is a descriptor, and the usual soft limit of 1024 is there for programs that
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
