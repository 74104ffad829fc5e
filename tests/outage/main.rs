//! Failures around a session: peers that are killed, restarted, stopped and cut off, with real
//! processes, signals and networks; over each driver.
//!
//! The test makes the network that it cuts (`unshare`, `ip`): where that is not permitted the test fails.

#[path = "../it/host.rs"]
#[allow(dead_code, unused_macros)]
#[macro_use]
mod host;
#[path = "../alone/count.rs"]
#[allow(dead_code)]
mod count;

/// A test for each driver.
macro_rules! on_drivers {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            #[test]
            fn uring() {
                crate::case(ringmux::Driver::Uring, super::$case);
            }
            #[test]
            fn tokio_uring() {
                crate::case(ringmux::Driver::TokioUring, super::$case);
            }
            #[test]
            fn tokio() {
                crate::case(ringmux::Driver::Tokio, super::$case);
            }
        })+
    };
}

mod child;
mod cycles;
mod killed;
mod partition;
mod probes;
mod rolling;
#[allow(dead_code)]
mod still;
mod stopped;
mod vanished;

use ringmux::{Driver, Engine};

const DRIVERS: [Driver; 3] = [Driver::Uring, Driver::TokioUring, Driver::Tokio];
/// Tolerance in bytes between two samples: activity of the test harness, the growth of a table.
const SLACK_BYTES: i64 = 64 * 1024;

/// Runs a case on a runtime of its own, its sessions on an engine's thread.
fn case<Fut: Future<Output = ()>>(
    driver: Driver,
    case: impl FnOnce(Engine) -> Fut + Send + 'static,
) {
    host::run_with(move || {
        let engine = Engine::thread(driver).expect("the driver works here");
        host::tokio_runtime().block_on(case(engine));
    });
}
