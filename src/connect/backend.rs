//! The process's shared engines: which driver they use, and what it fell back from.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::engine::Engine;
use super::errors::EngineError;
use crate::addr::Driver;
use crate::driver::uring::Features;
use crate::queue::PerProcess;

/// Which driver [`Engine::auto_with`] is to use, and what to do where it does not work.
///
/// # Examples
/// ```
/// use ringmux::{Backend, Driver, Engine};
///
/// assert_eq!(Backend::default(), Backend::Prefer(Driver::Uring));
/// let engine = Engine::auto_with(Backend::Require(Driver::Tokio))?;
/// assert_eq!(engine.driver(), Driver::Tokio);
/// # Ok::<(), ringmux::EngineError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// This one where it works, else [`Driver::Tokio`].
    Prefer(Driver),
    /// This one, or an error that says why not.
    Require(Driver),
}

impl Default for Backend {
    /// [`Driver::Uring`], preferred.
    fn default() -> Self {
        Self::Prefer(Driver::Uring)
    }
}

/// What an engine runs on. From [`Engine::backend`].
///
/// Shown, it is the driver's name, with the reason if that is a fallback.
///
/// # Examples
/// ```
/// # use ringmux::{Driver, Engine};
/// let engine = Engine::thread(Driver::Tokio)?;
/// assert_eq!(engine.backend().driver(), Driver::Tokio);
/// assert!(engine.backend().refused().is_none(), "it was asked for");
/// assert_eq!(engine.backend().to_string(), "tokio");
/// # Ok::<(), ringmux::EngineError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChosenBackend {
    driver: Driver,
    features: Option<Features>,
    refused: Option<Arc<EngineError>>,
}

impl ChosenBackend {
    pub(super) const fn new(driver: Driver, features: Option<Features>) -> Self {
        Self {
            driver,
            features,
            refused: None,
        }
    }

    pub(super) fn instead_of(mut self, refused: EngineError) -> Self {
        self.refused = Some(Arc::new(refused));
        self
    }

    /// What moves the bytes.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.driver
    }

    /// What the ring has; `None` unless the driver is [`Driver::Uring`].
    #[must_use]
    pub const fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }

    /// Why the driver that was preferred could not be used; `None` if this is the one.
    #[must_use]
    pub fn refused(&self) -> Option<&EngineError> {
        self.refused.as_deref()
    }
}

impl fmt::Display for ChosenBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.driver)?;
        match &self.refused {
            Some(refused) => write!(f, ", because {refused}"),
            None => Ok(()),
        }
    }
}

/// The shared engine for a backend; see [`Engine::auto_with`].
pub(super) fn shared(backend: Backend) -> Result<Engine, EngineError> {
    match backend {
        Backend::Require(driver) => required(driver),
        Backend::Prefer(driver) => preferred(driver),
    }
}

fn required(driver: Driver) -> Result<Engine, EngineError> {
    static ENGINES: [PerProcess<Engine>; 3] = [const { PerProcess::new() }; 3];
    let engine = match driver {
        Driver::Uring => &ENGINES[0],
        Driver::TokioUring => &ENGINES[1],
        Driver::Tokio => &ENGINES[2],
    }
    .cell();
    if let Some(engine) = engine.get() {
        return Ok(engine.clone());
    }
    // Of several that race here one stays; the others end.
    let made = Engine::thread(driver)?;
    Ok(engine.get_or_init(|| made).clone())
}

fn preferred(driver: Driver) -> Result<Engine, EngineError> {
    static CHOSEN: [PerProcess<Option<Engine>>; 2] = [const { PerProcess::new() }; 2];
    let chosen = match driver {
        Driver::Uring => &CHOSEN[0],
        Driver::TokioUring => &CHOSEN[1],
        Driver::Tokio => return required(driver),
    };
    // Whoever comes while it is being chosen waits, so that all get the same one.
    match chosen.get_or_init(|| choose(driver).ok()) {
        Some(engine) => Ok(engine.clone()),
        None => choose(driver),
    }
}

fn choose(driver: Driver) -> Result<Engine, EngineError> {
    required(driver).or_else(|refused| {
        let engine = required(Driver::Tokio)?.instead_of(refused);
        log_once(engine.backend());
        Ok(engine)
    })
}

fn log_once(backend: &ChosenBackend) {
    static LOGGED: AtomicBool = AtomicBool::new(false);
    if let Some(refused) = backend.refused()
        && !LOGGED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!("falling back to the driver tokio: {refused}");
    }
}
