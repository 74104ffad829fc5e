//! Where a measured thread runs ringmux: under its own future, so that a message crosses no thread, or beside it.

use clap::ValueEnum;
use ringmux::{Engine, EngineBuilder};
use tokio::task::LocalSet;

use crate::failure::Failure;

/// What `--driver` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Driver {
    /// On a ring of its own
    Uring,
    /// On a tokio-uring runtime
    TokioUring,
    /// On a tokio runtime, through epoll
    Tokio,
}

/// What `--wait` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Wait {
    /// Sleep in the kernel, as a blocking socket does
    Park,
    /// Never sleep; the limit's sockets are polled as well
    Spin,
    /// Spin a little, then sleep; the limit's sockets block
    Adaptive,
}

/// A driver, and what it does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) driver: Driver,
    pub(super) wait: Wait,
    /// The engine has a thread of its own, which the application wakes and is woken by.
    pub(super) own_thread: bool,
    /// The processor of that thread; if none is said, that of the application's.
    pub(super) engine_cpu: Option<usize>,
}

impl Driver {
    /// The name on the command line and in the results.
    pub(super) const fn name(self) -> &'static str {
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
    pub(super) const fn name(self) -> &'static str {
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
    /// This driver, waiting like this if it can, else parked.
    #[allow(
        dead_code,
        reason = "for the comparison with peers, which compiles this file too"
    )]
    pub(super) fn nearest(driver: Driver, wait: Wait) -> Self {
        let host = Self::inline(driver, wait);
        if host.can_exist() {
            return host;
        }
        Self::inline(driver, Wait::Park)
    }

    /// Under the application's future.
    pub(super) const fn inline(driver: Driver, wait: Wait) -> Self {
        Self {
            driver,
            wait,
            own_thread: false,
            engine_cpu: None,
        }
    }

    /// Every driver parks; only a ring of its own can do otherwise.
    pub(super) fn can_exist(self) -> bool {
        self.wait == Wait::Park || self.driver == Driver::Uring
    }

    /// For an engine of this kind.
    pub(super) fn builder(self) -> EngineBuilder {
        Engine::builder(self.driver.of_the_library()).wait(self.wait.of_the_library())
    }

    /// Runs a future on this thread, over an engine; it may use `spawn_local`.
    pub(super) fn block_on<F, Fut>(self, future: F) -> Result<Fut::Output, Failure>
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
        let engine = builder.thread().map_err(self.refused())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("cannot start a tokio runtime").because(&error))?;
        Ok(LocalSet::new().block_on(&runtime, future(engine)))
    }

    fn refused<E: std::error::Error + 'static>(self) -> impl FnOnce(E) -> Failure {
        move |error| {
            Failure::new(format!("cannot start the driver {}", self.driver.name()))
                .because(&error)
                .advise("try --driver tokio")
        }
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
                        // Its runtime is a local set. A wake from one to another goes through the
                        // root future, which costs a look at epoll.
                        Driver::TokioUring => future.await,
                        Driver::Uring | Driver::Tokio => LocalSet::new().run_until(future).await,
                    }
                }
            })
            .map_err(self.refused())
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
