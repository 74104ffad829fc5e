//! Choosing an engine: driver, idle strategy, thread.

use std::future::Future;

use super::Engine;
use crate::addr::Driver;
use crate::config::Wait;
use crate::connect::errors::EngineError;
use crate::connect::home::{self, Home};
use crate::driver::runtime;
use crate::driver::uring::Prepared;
use crate::queue::Process;

/// Chooses an engine's driver, its idle strategy, and the thread it runs on.
///
/// | | the engine runs | a message crosses |
/// |---|---|---|
/// | [`thread`](Self::thread) | on a thread of its own | two threads |
/// | [`inline`](Self::inline) | as a task of the application's runtime | no thread |
/// | [`block_on`](Self::block_on) | under the application's future | no thread, and no epoll |
///
/// # Examples
/// ```
/// use ringmux::{Config, Driver, Engine, Wait};
/// use tokio::task::LocalSet;
///
/// let echoed = Engine::builder(Driver::Uring).wait(Wait::Park).block_on(|engine| {
///     // Any local executor will do; this one needs no runtime around it.
///     let tasks = LocalSet::new();
///     tasks.spawn_local(async { /* … */ });
///     async move {
///         tasks.run_until(async {
///             let listener = engine.listen(&"127.0.0.1:0".parse()?, &Config::default()).await?;
///             let client = engine.connect(listener.local_addr(), &Config::default()).await?;
///             let server = listener.accept().await?;
///             let (mut ours, _answers) = client.open("hello").await?;
///             let (_send, mut theirs) = server.accept().await?.expect("it is open");
///             ours.send("hi").await?;
///             Ok::<_, Box<dyn std::error::Error>>(theirs.recv().await?)
///         }).await
///     }
/// });
/// assert_eq!(echoed??, Some("hi".into()));
///
/// let error = Engine::builder(Driver::Tokio).cpu(9999).thread().unwrap_err();
/// assert!(error.to_string().starts_with("processor 9999 cannot be used"), "{error}");
/// let error = Engine::builder(Driver::Tokio).wait(Wait::Spin).thread().unwrap_err();
/// assert!(error.to_string().contains("wait(Spin) does not apply"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `thread`, `inline` or `block_on`"]
pub struct EngineBuilder {
    pub(in crate::connect) driver: Driver,
    wait: Option<Wait>,
    /// Name of the engine's own thread; default `ringmux`.
    pub(in crate::connect) name: Option<String>,
    pub(in crate::connect) cpu: Option<usize>,
}

impl EngineBuilder {
    pub(in crate::connect) fn new(driver: Driver) -> Self {
        Self {
            driver,
            wait: None,
            name: None,
            cpu: None,
        }
    }

    /// The idle strategy. Default [`Wait::Adaptive`].
    ///
    /// [`Driver::Uring`] only; the other two park in their runtime's epoll, and refuse anything but [`Wait::Park`].
    pub const fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// The name of the engine's own thread, for [`thread`](Self::thread) alone. Default `ringmux`; Linux shows 15 bytes of it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The processor that the engine's own thread stays on, for [`thread`](Self::thread) alone. Default any.
    pub const fn cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// An engine on a thread of its own.
    ///
    /// It ends with the last [`Engine`] value and the last session.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the thread cannot be made; [`EngineError::Processor`] if it cannot be pinned to
    /// the chosen processor; [`EngineError::Refused`] where io_uring is denied; [`EngineError::DoesNotApply`] for an option of another
    /// driver; [`EngineError::NotBuiltIn`] for [`Driver::TokioUring`] without the feature `tokio-uring`.
    pub fn thread(self) -> Result<Engine, EngineError> {
        self.check("a threaded")?;
        let name = self.name.as_deref().unwrap_or("ringmux");
        let home = home::on_thread(self.driver, self.waiting(), self.cpu, name)?;
        Ok(Engine::new(self.driver, home))
    }

    /// An engine on the runtime that this is called on; see [`Engine::inline`].
    ///
    /// # Errors
    /// As [`Engine::inline`]; [`EngineError::DoesNotApply`] for an option of another driver or place.
    pub fn inline(self) -> Result<Engine, EngineError> {
        self.check("an inline")?;
        let home = home::inline(self.driver, self.waiting())?;
        Ok(Engine::new(self.driver, home))
    }

    /// The chosen idle strategy, or the default.
    pub(in crate::connect) fn waiting(&self) -> Wait {
        self.wait.unwrap_or_default()
    }

    /// # Errors
    /// [`EngineError::DoesNotApply`]: no chosen option is silently ignored. [`EngineError::NotBuiltIn`].
    fn check(&self, place: &'static str) -> Result<(), EngineError> {
        let driver = self.driver;
        if driver == Driver::TokioUring && !cfg!(feature = "tokio-uring") {
            return Err(EngineError::NotBuiltIn { driver });
        }
        let refused = |option, why| EngineError::DoesNotApply {
            driver,
            option,
            place,
            why,
        };
        let epoll = "its runtime parks in epoll (take the driver uring)";
        let thread = "it has no thread of its own (take `thread`)";
        match self.wait {
            Some(Wait::Spin) if driver != Driver::Uring => Err(refused("wait(Spin)", epoll)),
            Some(Wait::Adaptive) if driver != Driver::Uring => {
                Err(refused("wait(Adaptive)", epoll))
            }
            _ if place == "a threaded" => Ok(()),
            _ if self.name.is_some() => Err(refused("name", thread)),
            _ if self.cpu.is_some() => Err(refused("cpu", thread)),
            _ => Ok(()),
        }
    }

    /// Runs a future on this thread, with an engine under it: while [`Driver::Uring`] waits, the
    /// thread is parked in the ring itself.
    ///
    /// The future is polled by the engine, which has no executor: to spawn tasks, let the future drive a
    /// local one such as tokio's `LocalSet`. Sessions still alive when the future completes end
    /// with [`SessionError::EngineStopped`](crate::SessionError::EngineStopped).
    ///
    /// With the other two drivers this is their runtime's `block_on`. That of
    /// [`Driver::TokioUring`] is a `LocalSet` already: spawn with `tokio::task::spawn_local` there,
    /// because wakes between two local sets cost a system call each.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where io_uring is denied; [`EngineError::Unavailable`] if the ring
    /// breaks, or a runtime cannot be made; [`EngineError::InsideRuntime`] with [`Driver::Tokio`] and
    /// [`Driver::TokioUring`] inside of a runtime, which is detected by a panic that is caught but printed by the panic
    /// hook; [`EngineError::DoesNotApply`] for an option of another driver or place.
    pub fn block_on<F, Fut>(self, future: F) -> Result<Fut::Output, EngineError>
    where
        F: FnOnce(Engine) -> Fut,
        Fut: Future,
    {
        self.check("a block_on")?;
        let driver = self.driver;
        let unavailable = EngineError::unavailable(driver);
        if driver != Driver::Uring && !runtime::may_block() {
            return Err(EngineError::InsideRuntime);
        }
        match driver {
            Driver::Tokio => {
                let runtime = home::tokio_runtime().map_err(unavailable)?;
                runtime.block_on(async { Ok(future(self.inline()?).await) })
            }
            Driver::TokioUring => {
                home::on_tokio_uring::block_on(async { Ok(future(self.inline()?).await) })
            }
            Driver::Uring => {
                let dialler = home::dialler().map_err(unavailable)?;
                let prepared = Prepared::for_a_thread(self.waiting())?;
                let engine = Engine::new(driver, (dialler, Home::of(&prepared)));
                let process = Process::this();
                let ended = prepared.block_on(|| future(engine));
                ended.map_err(|error| match process.is_another() {
                    true => EngineError::Stopped,
                    false => unavailable(error),
                })
            }
        }
    }
}

#[cfg(all(test, not(feature = "tokio-uring")))]
mod tests {
    use super::*;
    use crate::connect::Backend;

    #[test]
    fn a_driver_that_is_not_built_in_is_refused_by_name_wherever_it_is_asked_for() {
        let builder = || Engine::builder(Driver::TokioUring);
        let refused = [
            builder().thread().err(),
            builder().inline().err(),
            builder().block_on(|_| async {}).err(),
            Engine::inline(Driver::TokioUring).err(),
            Engine::thread(Driver::TokioUring).err(),
            Engine::auto_with(Backend::Require(Driver::TokioUring)).err(),
        ];
        for error in refused {
            let error = error.expect("it is refused");
            assert!(matches!(
                error,
                EngineError::NotBuiltIn {
                    driver: Driver::TokioUring
                }
            ));
            assert!(error.to_string().contains("feature tokio-uring"), "{error}");
        }
        let instead = Engine::auto_with(Backend::Prefer(Driver::TokioUring)).unwrap();
        assert_eq!(instead.driver(), Driver::Tokio);
    }
}
