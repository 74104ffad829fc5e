//! The one place that chooses between std and loom.
//!
//! Everything lock-free takes its atomics, cells and wakers from here, so that the loom models (`--cfg ringmux_loom`)
//! run the production code. The cfg has a name of its own because tokio removes its `net` module under plain `loom`.

#[cfg(not(ringmux_loom))]
mod imp {
    pub(crate) use atomic_waker::AtomicWaker;
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    };

    /// `std::cell::UnsafeCell` with loom's access methods.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(ringmux_loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    };
    use std::task::Waker;

    /// `loom::future::AtomicWaker` with the signatures of `atomic_waker::AtomicWaker`.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }

        pub(crate) fn take(&self) -> Option<Waker> {
            self.0.take_waker()
        }
    }
}

pub(crate) use imp::*;

/// `fence(SeqCst)`, right before or right after an exchange of the same thread, whether that succeeds or not.
///
/// On x86-64 that costs nothing: a locked instruction is a full barrier there (Intel SDM vol. 3A §9.2.3.9, AMD APM vol. 2
/// §7.4.2), so that only the compiler must be kept from moving loads and stores over it.
#[inline(always)]
pub(crate) fn fence_beside_exchange() {
    if cfg!(all(target_arch = "x86_64", not(miri), not(ringmux_loom))) {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}
