//! Capabilities of the calling tokio runtime. tokio offers no way to ask for them but to try, and panics where one is
//! missing: the panic is caught here after the panic hook has printed it. Where nothing is missing nothing is printed.

use std::io;
use std::panic::catch_unwind;

use ::tokio::runtime::Handle;

use crate::timer::has_time;

/// The first capability (I/O or time) that engines need and the runtime lacks.
///
/// # Errors
/// There is no descriptor to try it with.
pub(crate) fn lack() -> io::Result<Option<&'static str>> {
    if !has_time() {
        return Ok(Some("time"));
    }
    // Any descriptor would do; pipes work in every sandbox.
    match catch_unwind(|| ::tokio::net::unix::pipe::pipe().map(drop)) {
        Ok(registered) => registered.map(|()| None),
        Err(_) => Ok(Some("I/O")),
    }
}

/// Whether this thread may block on a runtime of its own.
pub(crate) fn may_block() -> bool {
    if Handle::try_current().is_err() {
        return true;
    }
    let Ok(runtime) = ::tokio::runtime::Builder::new_current_thread().build() else {
        // The caller's own attempt to build one reports the error.
        return true;
    };
    let may = catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(async {}))).is_ok();
    runtime.shutdown_background();
    may
}
