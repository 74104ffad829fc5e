//! How a measured thread runs ringmux: under its own future, so that a message crosses no thread, or on a second thread.

use clap::ValueEnum;
use ringmux::{Engine, EngineBuilder, EngineError};
use tokio::task::LocalSet;

use crate::failure::Failure;

/// The values of `--driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// On a ring of its own
    Uring,
    /// On a tokio-uring runtime
    TokioUring,
    /// On a tokio runtime, through epoll
    Tokio,
}

/// The values of `--wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Sleep in the kernel, as a blocking socket does
    Park,
    /// Never sleep; the limit's sockets are polled as well
    Spin,
    /// Spin a little, then sleep; the limit's sockets block
    Adaptive,
}

/// A driver and its idle strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The driver of the sessions.
    pub driver: Driver,
    /// The idle strategy of the engine.
    pub wait: Wait,
    /// The engine has a thread of its own, which the application wakes and is woken by.
    pub own_thread: bool,
    /// The processor of that thread; if not given, the application's.
    pub engine_cpu: Option<usize>,
}

impl Driver {
    /// The name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::TokioUring => "tokio-uring",
            Self::Tokio => "tokio",
        }
    }

    const fn of_the_library(self) -> ringmux::Driver {
        match self {
            Self::Uring => ringmux::Driver::Uring,
            Self::TokioUring => ringmux::Driver::TokioUring,
            Self::Tokio => ringmux::Driver::Tokio,
        }
    }
}

impl Wait {
    /// The name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
        }
    }

    const fn of_the_library(self) -> ringmux::Wait {
        match self {
            Self::Park => ringmux::Wait::Park,
            Self::Spin => ringmux::Wait::Spin,
            Self::Adaptive => ringmux::Wait::Adaptive,
        }
    }
}

impl Host {
    /// This driver with this idle strategy if it supports it, else parked.
    pub fn nearest(driver: Driver, wait: Wait) -> Self {
        let host = Self::inline(driver, wait);
        if host.can_exist() {
            return host;
        }
        Self::inline(driver, Wait::Park)
    }

    /// Under the application's future.
    pub const fn inline(driver: Driver, wait: Wait) -> Self {
        Self {
            driver,
            wait,
            own_thread: false,
            engine_cpu: None,
        }
    }

    /// Every driver parks; only a ring of its own has other strategies.
    pub fn can_exist(self) -> bool {
        self.wait == Wait::Park || self.driver == Driver::Uring
    }

    /// For an engine of this kind.
    pub fn builder(self) -> EngineBuilder {
        Engine::builder(self.driver.of_the_library()).wait(self.wait.of_the_library())
    }

    /// Runs a future on this thread, over an engine; it may use `spawn_local`.
    pub fn block_on<F, Fut>(self, future: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(Engine) -> Fut,
        Fut: Future,
    {
        if self.own_thread {
            self.block_beside(future)
        } else {
            self.block_over(future)
        }
    }

    /// As `block_on`; unless it has one of its own, the engine's thread takes the processor of this one.
    fn block_beside<F, Fut>(self, future: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(Engine) -> Fut,
        Fut: Future,
    {
        let builder = match self.engine_cpu {
            Some(cpu) => self.builder().cpu(cpu),
            None => self.builder(),
        };
        let engine = builder.thread().map_err(|error| refused(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("cannot start a tokio runtime").because(&error))?;
        Ok(LocalSet::new().block_on(&runtime, future(engine)))
    }

    fn block_over<F, Fut>(self, future: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(Engine) -> Fut,
        Fut: Future,
    {
        self.builder()
            .block_on(|engine| {
                let future = future(engine);
                async move {
                    match self.driver {
                        // Its runtime is a local set already. A wake from one local set to another goes through the
                        // root future, which costs an epoll call.
                        Driver::TokioUring => future.await,
                        Driver::Uring | Driver::Tokio => LocalSet::new().run_until(future).await,
                    }
                }
            })
            .map_err(|error| refused(&error))
    }
}

/// The error's text names the driver.
fn refused(error: &EngineError) -> Failure {
    Failure::new("cannot start an engine")
        .because(error)
        .advise_tokio(error)
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
