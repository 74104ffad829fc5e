//! Where a measured thread runs ringmux: inline, on a runtime of its own with one thread.

use clap::ValueEnum;
use ringmux::Engine;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::failure::Failure;

/// What `--driver` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Driver {
    /// On a tokio-uring runtime
    TokioUring,
    /// On a tokio runtime, through epoll
    Tokio,
}

impl Driver {
    /// The name on the command line and in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TokioUring => "tokio-uring",
            Self::Tokio => "tokio",
        }
    }

    /// Runs a future on this thread; it may use `spawn_local` and [`engine`](Self::engine).
    pub(super) fn block_on<F: Future>(self, future: F) -> Result<F::Output, Failure> {
        match self {
            Self::TokioUring => {
                let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())
                    .map_err(|error| self.refused().because(&error).advise("try --driver tokio"))?;
                Ok(runtime.block_on(future))
            }
            Self::Tokio => {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| self.refused().because(&error))?;
                Ok(LocalSet::new().block_on(&runtime, future))
            }
        }
    }

    /// The engine whose sessions are tasks of the runtime that this is called on.
    pub(super) fn engine(self) -> Result<Engine, Failure> {
        let driver = match self {
            Self::TokioUring => ringmux::Driver::TokioUring,
            Self::Tokio => ringmux::Driver::Tokio,
        };
        Engine::inline(driver).map_err(|error| self.refused().because(&error))
    }

    fn refused(self) -> Failure {
        Failure::new(format!("cannot start the driver {}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_of_the_library() {
        for driver in Driver::value_variants() {
            let value = driver.to_possible_value().expect("no driver is hidden");
            assert_eq!(value.get_name(), driver.name());
            assert!(
                driver.name().parse::<ringmux::Driver>().is_ok(),
                "{}",
                driver.name()
            );
        }
    }
}
