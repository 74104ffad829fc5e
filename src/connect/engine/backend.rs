//! The process's shared engines: the driver in use, and the reason for a fallback.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

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

/// A shared engine: made at the first use, and anew when it has ended because its ring broke or its thread panicked.
type Shared = watch::Sender<Option<Engine>>;

/// The engine in this place. If it has ended or there is none, it is made; concurrent callers wait for that, so that all get
/// the same one.
fn current(
    place: &Shared,
    make: impl FnOnce() -> Result<Engine, EngineError>,
) -> Result<Engine, EngineError> {
    let alive = |engine: &Option<Engine>| engine.clone().filter(|engine| !engine.has_ended());
    if let Some(engine) = alive(&place.borrow()) {
        return Ok(engine);
    }
    let mut found = Err(EngineError::Stopped);
    place.send_if_modified(|engine| {
        found = alive(engine).map_or_else(make, Ok);
        *engine = found.as_ref().ok().cloned();
        false
    });
    found
}

fn required(driver: Driver) -> Result<Engine, EngineError> {
    static ENGINES: [PerProcess<Shared>; 3] = [const { PerProcess::new() }; 3];
    let engine = match driver {
        Driver::Uring => &ENGINES[0],
        Driver::TokioUring => &ENGINES[1],
        Driver::Tokio => &ENGINES[2],
    };
    current(engine.get_or_init(Shared::default), || {
        Engine::thread(driver)
    })
}

fn preferred(driver: Driver) -> Result<Engine, EngineError> {
    static CHOSEN: [PerProcess<Shared>; 2] = [const { PerProcess::new() }; 2];
    let chosen = match driver {
        Driver::Uring => &CHOSEN[0],
        Driver::TokioUring => &CHOSEN[1],
        Driver::Tokio => return required(driver),
    };
    current(chosen.get_or_init(Shared::default), || choose(driver))
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

#[cfg(all(test, not(ringmux_loom)))]
mod tests {
    use super::*;

    const CONFIG: fn() -> crate::Config = crate::Config::default;

    /// An engine of this driver whose runtime has ended.
    fn ended(driver: Driver) -> Engine {
        let engine = async { Engine::inline(driver).expect("the driver works here") };
        match driver {
            #[cfg(feature = "tokio-uring")]
            Driver::TokioUring => tokio_uring::start(engine),
            _ => {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().unwrap();
                runtime.block_on(engine)
            }
        }
    }

    #[tokio::test]
    async fn a_shared_engine_that_has_ended_is_made_anew_once_for_all() {
        let drivers = [Driver::Uring, Driver::TokioUring];
        for driver in &drivers[..1 + usize::from(cfg!(feature = "tokio-uring"))] {
            let driver = *driver;
            let place = Shared::default();
            let address = "127.0.0.1:0".parse().unwrap();
            let gone = std::thread::spawn(move || ended(driver)).join().unwrap();
            let first = current(&place, || Ok(gone)).expect("it is not asked whether it runs");
            assert!(first.has_ended(), "{driver}");
            let refused = first.listen(&address, &CONFIG()).await;
            assert!(refused.is_err(), "{driver}");

            let callers: Vec<_> = std::thread::scope(|scope| {
                let call = || current(&place, || Engine::thread(driver)).unwrap();
                let callers = [(); 4].map(|()| scope.spawn(call));
                callers.into_iter().map(|it| it.join().unwrap()).collect()
            });
            let [first, others @ ..] = &callers[..] else {
                unreachable!("four of them");
            };
            let listener = first.listen(&address, &CONFIG()).await.expect("it runs");
            for engine in others {
                let connected = engine.connect(listener.local_addr(), &CONFIG()).await;
                drop(connected.expect("it runs"));
                drop(listener.accept().await.expect("a session"));
            }
            assert_eq!(first.stats().started, 2 * 3, "{driver}: all are the same");
        }
    }

    #[test]
    fn an_engine_that_cannot_be_made_is_tried_again_at_the_next_call() {
        let place = Shared::default();
        let refused = current(&place, || {
            Err(EngineError::NoRuntime {
                driver: Driver::Uring,
            })
        });
        assert!(matches!(refused, Err(EngineError::NoRuntime { .. })));
        let made = current(&place, || Engine::thread(Driver::Tokio));
        assert!(!made.expect("a thread").has_ended());
    }
}
