//! What the runtime that this is called on has. tokio has no way to ask but to try, and what is missing panics: that is
//! caught here, and the panic hook shows it. Nothing is shown where all is well.

use std::io;
use std::panic::catch_unwind;
use std::time::Duration;

use ::tokio::runtime::Handle;

/// What the runtime lacks of what engines need.
///
/// # Errors
/// There is no descriptor to try it with.
pub(crate) fn lack() -> io::Result<Option<&'static str>> {
    if !has_time() {
        return Ok(Some("time"));
    }
    // What is registered makes no difference; whatever else confines the process, pipes it has.
    match catch_unwind(|| ::tokio::net::unix::pipe::pipe().map(drop)) {
        Ok(registered) => registered.map(|()| None),
        Err(_) => Ok(Some("I/O")),
    }
}

/// Whether timers can be set here.
pub(crate) fn has_time() -> bool {
    catch_unwind(|| drop(::tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// Whether a runtime of its own may wait on this thread.
pub(crate) fn may_block() -> bool {
    if Handle::try_current().is_err() {
        return true;
    }
    let Ok(runtime) = ::tokio::runtime::Builder::new_current_thread().build() else {
        // The next attempt to make one says why there is none.
        return true;
    };
    let may = catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(async {}))).is_ok();
    runtime.shutdown_background();
    may
}
