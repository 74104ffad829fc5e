//! The process's shared engines: the driver in use, and the reason for a fallback.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Engine;
use crate::addr::Driver;
use crate::connect::errors::EngineError;
use crate::driver::uring::Features;
use crate::error::Chain;
use crate::queue::PerProcess;

/// The driver that [`Engine::auto_with`] is to use, and whether it may fall back to another.
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
    /// This driver where it works, else [`Driver::Tokio`].
    Prefer(Driver),
    /// This driver, or an error with the reason.
    Require(Driver),
}

impl Default for Backend {
    /// Prefers [`Driver::Uring`].
    fn default() -> Self {
        Self::Prefer(Driver::Uring)
    }
}

/// The driver of an engine and its features. From [`Engine::backend`].
///
/// `Display` shows the driver's name, and the reason if it is a fallback.
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
    pub(in crate::connect) const fn new(driver: Driver, features: Option<Features>) -> Self {
        Self {
            driver,
            features,
            refused: None,
        }
    }

    pub(in crate::connect) fn instead_of(mut self, refused: EngineError) -> Self {
        self.refused = Some(Arc::new(refused));
        self
    }

    /// The driver.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.driver
    }

    /// The features of the ring; `None` unless the driver is [`Driver::Uring`].
    #[must_use]
    pub const fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }

    /// Why the preferred driver could not be used; `None` if this is the preferred driver.
    #[must_use]
    pub fn refused(&self) -> Option<&EngineError> {
        self.refused.as_deref()
    }
}

impl fmt::Display for ChosenBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.driver)?;
        match &self.refused {
            Some(refused) => write!(f, ", because {}", Chain(&**refused)),
            None => Ok(()),
        }
    }
}

/// The shared engine for a backend; see [`Engine::auto_with`].
pub(in crate::connect) fn shared(backend: Backend) -> Result<Engine, EngineError> {
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
    // Of several engines made in a race one is kept; the others end.
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
    // Concurrent callers wait for the choice, so that all get the same engine.
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
        tracing::warn!("falling back to the driver tokio: {}", Chain(refused));
    }
}
