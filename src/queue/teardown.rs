//! Whether this thread is dropping a handle, possibly from a thread-local at the end of the thread: other thread-locals, which
//! wakers of runtimes use, may be destroyed by then.

use std::cell::Cell;

thread_local! {
    // Without a destructor, so that it is valid until the end of the thread.
    static DROPPING: Cell<bool> = const { Cell::new(false) };
}

/// A handle is being dropped, as long as this lives.
#[derive(Debug)]
pub(crate) struct Teardown {
    before: bool,
}

impl Teardown {
    #[inline]
    pub(crate) fn begin() -> Self {
        Self {
            before: DROPPING.replace(true),
        }
    }

    pub(crate) fn is_under_way() -> bool {
        DROPPING.get()
    }
}

impl Drop for Teardown {
    #[inline]
    fn drop(&mut self) {
        DROPPING.set(self.before);
    }
}
