//! The identity of the process: objects copied by a fork have no engine any more.
//!
//! A child has the memory of its parent and the one thread that forked. Engines, dialling threads, and their operations in
//! progress are copies that never advance; sockets and rings are shared with the parent. So each such object records its
//! [`Process`] and checks it before it waits or is dropped, and statics are made anew in each process ([`PerProcess`]).
//!
//! A handler of `pthread_atfork` counts the forks, so that a check costs one load. A process made without the C
//! library (by the bare system call) is not told apart from its parent.

use super::teardown::Teardown;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// Forks between the first process that used this library and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Several threads may register the handler: then a fork counts more than once, which does no harm.
fn watch_forks() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    // ORDERING: a thread that sees it set comes after the registration.
    if !WATCHED.load(Ordering::Acquire) {
        // SAFETY: the handler adds to an atomic, which is allowed between fork and exec. It fails only for lack of memory;
        // then forks go unnoticed.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        WATCHED.store(true, Ordering::Release);
    }
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn this() -> Self {
        watch_forks();
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is a copy, made by a fork.
    #[inline]
    pub(crate) fn is_another(self) -> bool {
        FORKS.load(Ordering::Relaxed) != self.0
    }
}

/// A static that each process makes for itself, at its first use. The parent's value is leaked in the child.
#[derive(Debug)]
pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Made<T>>);

#[derive(Debug)]
struct Made<T> {
    process: Process,
    value: OnceLock<T>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// This process's cell. Not the parent's: that may be half initialised for ever, if another thread was at it during the fork.
    pub(crate) fn cell(&self) -> &'static OnceLock<T> {
        let process = Process::this();
        // ORDERING: pairs with the exchange, which publishes the cell.
        let mut found = self.0.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or from a box that was leaked below.
            match unsafe { found.as_ref() } {
                Some(made) if made.process == process => return &made.value,
                _ => {}
            }
            let value = OnceLock::new();
            let fresh = Box::into_raw(Box::new(Made { process, value }));
            // ORDERING: pairs with the load.
            let put = (self.0).compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire);
            found = match put {
                Ok(_) => fresh,
                Err(other) => {
                    // SAFETY: from the box above, and no other thread has seen it.
                    drop(unsafe { Box::from_raw(fresh) });
                    other
                }
            };
        }
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &'static T {
        self.cell().get_or_init(make)
    }
}

/// A value dropped only in the process that made it, and leaked in a forked copy: its drop would affect the parent, by a
/// shared socket, ring or file, or wait for a thread that does not exist.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    value: ManuallyDrop<T>,
    process: Process,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: ManuallyDrop::new(value),
            process: Process::this(),
        }
    }

    /// Whether the value is a copy, made by a fork.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.process.is_another()
    }
}

impl<T: Clone> Clone for Owned<T> {
    /// A copy of a copy is one too.
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            process: self.process,
        }
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Owned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.is_inherited() {
            let _teardown = Teardown::begin();
            // SAFETY: it is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_by_each_process() {
        static VALUE: PerProcess<Process> = PerProcess::new();
        let here = VALUE.get_or_init(Process::this);
        assert!(std::ptr::eq(here, VALUE.get_or_init(|| Process(7))));
        assert!(!here.is_another() && Process(here.0.wrapping_sub(1)).is_another());
    }

    #[test]
    fn a_copy_is_not_dropped() {
        struct Told<'a>(&'a AtomicU32);
        impl Drop for Told<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let drops = AtomicU32::new(0);
        drop(Owned::new(Told(&drops)));
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        let mut copy = Owned::new(Told(&drops));
        copy.process = Process(copy.process.0.wrapping_sub(1));
        drop(copy);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }
}
