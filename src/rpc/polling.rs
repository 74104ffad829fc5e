//! A flag of the thread: set while the loop of a session polls a new call directly, before the call is a task. A call that is not
//! ready then is polled again at once, as a task, so that it need not register a waker.

use std::cell::Cell;

thread_local! {
    static IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// Whether what is polled now is polled again at once if it is not ready, so that it need not ask to be woken.
pub(super) fn polled_in_place() -> bool {
    IN_PLACE.try_with(Cell::get).unwrap_or(false)
}

/// Does something that is [`polled_in_place`].
pub(super) fn while_in_place<T>(step: impl FnOnce() -> T) -> T {
    /// Also if it panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = IN_PLACE.try_with(|in_place| in_place.set(false));
        }
    }
    let _ = IN_PLACE.try_with(|in_place| in_place.set(true));
    let _reset = Reset;
    step()
}
