//! Whether this thread is dropping a handle, as it does last of all with those in its thread-local variables: others of
//! those may be gone by then, and with them what a runtime's wakers use.

use std::cell::Cell;

thread_local! {
    // Without a destructor, so that it is never gone.
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
