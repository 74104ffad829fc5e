//! The cell of one call: what an application and the engine pass to each other, and the task that waits for it.
//!
//! ```text
//!   of a caller:  Spare ─ask──► AppSide │ node ──► list ──► EngineSide with `out`      the request
//!                               AppSide ◄─────── back ◄──── EngineSide::give, wake      the answer
//!   of a handler: Spare ─offer─► EngineSide, AppSide with `out`
//!                               AppSide ─send──► list ──► Sent, which gives `out` to the EngineSide
//!                               AppSide ◄─────── back ◄──── EngineSide::give, wake      a cancel
//! ```
//! `out` has one holder at a time, and goes to the engine with the reason START or SENT; `back` is written by the engine, once,
//! and read by the application after it has seen `given`. When one side has let go of a cell, the other one may make it a
//! [`Spare`] again, without an allocation.
//!
//! # Invariants
//! 1. A cell has one `AppSide` and one `EngineSide` at most, or it is a `Spare` with no other owner.
//! 2. START is raised by [`Spare::ask`] alone and SENT by [`AppSide::send`] alone, each once in a use, and by the holder of `out`:
//!    who takes the reason has `out`. SENT has no other reason beside it: a handler's side is gone then.
//! 3. The engine writes `back` before `given`, and never again in this use; the application reads it after `given`, until it
//!    gives up with [`AppSide::cancel`].
//!
//! # Progress
//! Every operation is **wait-free** as those of [`Reasons`] and [`WakerSlot`] are.

use std::fmt;
use std::task::{Context, Poll};

use super::ready::Node;
use super::reasons::Reasons;
use super::waker_slot::WakerSlot;
use crate::sync::{
    Arc, AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, UnsafeCell, fence,
};

/// Why a cell is on the list, as bits.
mod reason {
    /// A caller asks. Taking it means taking the `EngineSide`.
    pub(super) const START: u32 = 1 << 0;
    /// A handler has put its answer into `out`. Taking it means taking `out`.
    pub(super) const SENT: u32 = 1 << 1;
    /// A caller has given up.
    pub(super) const CANCEL: u32 = 1 << 2;
}

/// No key.
const NONE: u64 = u64::MAX;

/// The application has taken the call.
const TAKEN: u8 = 1;
/// It has read the request.
const READ: u8 = 2;

/// See the module. `C` stays with the cell, `O` goes to the engine and keeps its memory, `B` comes back from it.
pub(crate) struct Cell<C, O, B> {
    next: AtomicPtr<Self>,
    reasons: Reasons,
    /// `back` is written.
    given: AtomicBool,
    /// How far the application is with the call: 0, [`TAKEN`] or [`READ`].
    progress: AtomicU8,
    /// The code of a cancel.
    code: AtomicU32,
    /// The engine's own name for the cell.
    key: AtomicU64,
    waker: WakerSlot,
    out: UnsafeCell<O>,
    back: UnsafeCell<Option<B>>,
    common: C,
}

// SAFETY: `out` and `back` are reached by one thread at a time: invariants 2 and 3; `WakerSlot` has rules of its own.
// `common` is only read.
unsafe impl<C: Send + Sync, O: Send, B: Send> Sync for Cell<C, O, B> {}

// SAFETY: `next` is written only by the list; a cell is on it at most once, as only the raise that turns its reasons from 0
// pushes it, and the engine takes them after the list has handed it out.
unsafe impl<C, O, B> Node for Cell<C, O, B> {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

/// A cell for the engine's list.
pub(crate) type CellNode<C, O, B> = Arc<Cell<C, O, B>>;

/// A cell that is in no use and has no other owner.
pub(crate) struct Spare<C, O, B>(Arc<Cell<C, O, B>>);

/// The application's side.
pub(crate) struct AppSide<C, O, B> {
    cell: Arc<Cell<C, O, B>>,
    has_out: bool,
}

/// The engine's side.
pub(crate) struct EngineSide<C, O, B> {
    cell: Arc<Cell<C, O, B>>,
    has_out: bool,
}

/// The right to `out`, on its way to the engine's side.
pub(crate) struct Sent<C, O, B>(Arc<Cell<C, O, B>>);

/// A cell from the list.
pub(crate) enum Activated<C, O, B> {
    /// A caller asks; with the code if it has given up already.
    Asked(EngineSide<C, O, B>, Option<u32>),
    /// A handler has answered the call with this key.
    Answered(Option<u64>, Sent<C, O, B>),
    /// The caller of the call with this key has given up, with this code; and the answer that it has not taken, if one was given.
    Cancelled(Option<u64>, u32, Option<B>),
}

impl<C, O, B> Cell<C, O, B> {
    /// Takes the reasons of a cell from the list.
    pub(crate) fn activated(cell: Arc<Self>) -> Activated<C, O, B> {
        let key = cell.key();
        // Invariant 2: nothing can be added to it.
        if cell.reasons.peek() == reason::SENT {
            cell.reasons.reset();
            return Activated::Answered(key, Sent(cell));
        }
        let reasons = cell.reasons.take();
        let code = cell.code.load(Ordering::Relaxed);
        if reasons & reason::START != 0 {
            let code = (reasons & reason::CANCEL != 0).then_some(code);
            // Raised by `ask` alone, which gave both to the list.
            let side = EngineSide {
                cell,
                has_out: true,
            };
            return Activated::Asked(side, code);
        }
        // ORDERING: pairs with `give`; publishes `back`. Beside an engine that ends its session this may be the caller, which the list
        // has refused.
        let left = if cell.given.load(Ordering::Acquire) {
            // SAFETY: invariant 3: the engine does not touch it any more, and `cancel` has consumed the application's side.
            cell.back.with_mut(|back| unsafe { (*back).take() })
        } else {
            None
        };
        Activated::Cancelled(key, code, left)
    }

    fn key(&self) -> Option<u64> {
        Some(self.key.load(Ordering::Relaxed)).filter(|key| *key != NONE)
    }
}

/// Whether this is the only owner. A cell has no weak ones, so that the count alone tells, without the lock of `Arc::get_mut`.
fn is_alone<T>(cell: &mut Arc<T>) -> bool {
    if cfg!(ringmux_loom) {
        // loom has no order for the count.
        return Arc::get_mut(cell).is_some();
    }
    if Arc::strong_count(cell) != 1 {
        return false;
    }
    // ORDERING: pairs with the decrement (Release) of the owner that left last: its accesses come before ours.
    fence(Ordering::Acquire);
    true
}

impl<C, O, B> Spare<C, O, B> {
    pub(crate) fn new(common: C, out: O) -> Self {
        Self(Arc::new(Cell {
            next: AtomicPtr::new(std::ptr::null_mut()),
            reasons: Reasons::new(),
            given: AtomicBool::new(false),
            progress: AtomicU8::new(0),
            code: AtomicU32::new(0),
            key: AtomicU64::new(NONE),
            waker: WakerSlot::new(),
            out: UnsafeCell::new(out),
            back: UnsafeCell::new(None),
            common,
        }))
    }

    /// A cell that both sides have left; `None` if another owner is left, such as the list.
    fn of(mut cell: Arc<Cell<C, O, B>>) -> Option<Self> {
        if !is_alone(&mut cell) {
            return None;
        }
        // Nothing is published by these: no one else has the cell, and `ask` and the offer publish it anew.
        cell.given.store(false, Ordering::Relaxed);
        cell.progress.store(0, Ordering::Relaxed);
        cell.key.store(NONE, Ordering::Relaxed);
        cell.reasons.reset();
        // SAFETY: `is_alone`: no one else has the cell. The waker goes, as it would keep its task.
        unsafe { cell.waker.clear() };
        // SAFETY: as above.
        let left = cell.back.with_mut(|back| unsafe { &mut *back });
        if left.is_some() {
            *left = None;
        }
        Some(Self(cell))
    }

    pub(crate) fn out(&mut self) -> &mut O {
        // SAFETY: invariant 1: no one else has the cell.
        self.0.out.with_mut(|out| unsafe { &mut *out })
    }

    /// For a caller, which has filled `out`: its side, and the node to be pushed on the engine's list.
    pub(crate) fn ask(self) -> (AppSide<C, O, B>, CellNode<C, O, B>) {
        let node = Arc::clone(&self.0);
        // No one else has the cell: the first reason.
        self.0.reasons.begin(reason::START);
        let side = AppSide {
            cell: self.0,
            has_out: false,
        };
        (side, node)
    }

    /// For a handler: both sides. The application's has `out`.
    pub(crate) fn offer(self) -> (AppSide<C, O, B>, EngineSide<C, O, B>) {
        let app = AppSide {
            cell: Arc::clone(&self.0),
            has_out: true,
        };
        let engine = EngineSide {
            cell: self.0,
            has_out: false,
        };
        (app, engine)
    }
}

impl<C, O, B> AppSide<C, O, B> {
    pub(crate) fn common(&self) -> &C {
        &self.cell.common
    }

    /// The same, to be read.
    pub(crate) fn out_ref(&self) -> Option<&O> {
        // SAFETY: invariant 2: this side holds it, and `out` borrows the side mutably.
        let out = || self.cell.out.with(|out| unsafe { &*out });
        self.has_out.then(out)
    }

    /// `None` if the engine has it, or had.
    pub(crate) fn out(&mut self) -> Option<&mut O> {
        // SAFETY: invariant 2: this side, borrowed mutably, holds it.
        let out = || self.cell.out.with_mut(|out| unsafe { &mut *out });
        self.has_out.then(out)
    }

    /// Notes for the engine that the call was taken.
    pub(crate) fn mark_taken(&self) {
        self.cell.progress.store(TAKEN, Ordering::Relaxed);
    }

    /// Notes for the engine that the request was read, which keeps it no longer.
    pub(crate) fn mark_read(&self) {
        self.cell.progress.store(READ, Ordering::Relaxed);
    }

    /// The engine's name for the call, which only the engine may ask for.
    pub(crate) fn key(&self) -> Option<u64> {
        self.cell.key()
    }

    /// Gives `out` to the engine; the node to be pushed on its list. `None` if this side does not have it.
    pub(crate) fn send(self) -> Option<Arc<Cell<C, O, B>>> {
        if !self.has_out {
            return None;
        }
        // Invariant 2, and the cell is on no list: the engine has taken it off before the handler got it.
        self.cell.reasons.begin(reason::SENT);
        Some(self.cell)
    }

    /// The caller gives up; the node to be pushed, unless it is on the list.
    pub(crate) fn cancel(self, code: u32) -> Option<Arc<Cell<C, O, B>>> {
        if self.has_out {
            // A handler's, which sends.
            return None;
        }
        self.cell.code.store(code, Ordering::Relaxed);
        let first = self.cell.reasons.raise(reason::CANCEL);
        first.then_some(self.cell)
    }

    /// Takes what the engine gave; once.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<B> {
        self.given()?.take()
    }

    /// What the engine gave, in its place, until it is taken.
    #[inline]
    pub(crate) fn given(&mut self) -> Option<&mut Option<B>> {
        // ORDERING: pairs with `give`; publishes `back`.
        if !self.cell.given.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: invariant 3: the engine does not touch it any more, and this side is borrowed mutably.
        Some(self.cell.back.with_mut(|back| unsafe { &mut *back }))
    }

    /// Whether the engine has given something, possibly outdated.
    pub(crate) fn is_given(&self) -> bool {
        self.cell.given.load(Ordering::Relaxed)
    }

    /// Waits for what the engine gives.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<B> {
        if let Some(back) = self.take() {
            return Poll::Ready(back);
        }
        // SAFETY: a cell has one such side (invariant 1), and it is borrowed mutably.
        unsafe { self.cell.waker.register(cx.waker()) }
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// The cell for another use, if the engine has let go of it.
    pub(crate) fn reclaim(self) -> Option<Spare<C, O, B>> {
        Spare::of(self.cell)
    }
}

impl<C, O, B> Sent<C, O, B> {
    pub(crate) fn out_mut(&mut self) -> &mut O {
        // SAFETY: invariant 2: this is the one holder of `out` until `accept`, and it is borrowed mutably.
        self.0.out.with_mut(|out| unsafe { &mut *out })
    }
}

impl<C, O, B> EngineSide<C, O, B> {
    /// `None` if the application has it.
    pub(crate) fn out(&self) -> Option<&O> {
        // SAFETY: invariant 2: this side holds it, and `out_mut` borrows the side mutably.
        let out = || self.cell.out.with(|out| unsafe { &*out });
        self.has_out.then(out)
    }

    pub(crate) fn out_mut(&mut self) -> Option<&mut O> {
        // SAFETY: as in `out`, and this side is borrowed mutably.
        let out = || self.cell.out.with_mut(|out| unsafe { &mut *out });
        self.has_out.then(out)
    }

    /// The application has given `out` back.
    pub(crate) fn accept(&mut self, sent: Sent<C, O, B>) {
        self.has_out |= Arc::ptr_eq(&self.cell, &sent.0);
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.cell.progress.load(Ordering::Relaxed) != 0
    }

    /// Whether the application has read the request, possibly outdated.
    pub(crate) fn is_read(&self) -> bool {
        self.cell.progress.load(Ordering::Relaxed) == READ
    }

    pub(crate) fn common(&self) -> &C {
        &self.cell.common
    }

    pub(crate) fn set_key(&self, key: Option<u64>) {
        self.cell.key.store(key.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// Gives something to the application, which is to be woken; the first value stays. True if this is the first.
    #[inline(always)] // Its value is written where it stays, not copied behind its own stores.
    pub(crate) fn give(&mut self, value: B) -> bool {
        if self.cell.given.load(Ordering::Relaxed) {
            return false;
        }
        // SAFETY: invariant 3: the application reads it after `given` alone, and this side is borrowed mutably.
        self.cell
            .back
            .with_mut(|back| unsafe { *back = Some(value) });
        // ORDERING: pairs with `take`; publishes `back`.
        self.cell.given.store(true, Ordering::Release);
        true
    }

    /// Wakes the application's task, if it waits.
    pub(crate) fn wake(&mut self) {
        // SAFETY: a cell has one such side (invariant 1), and it is borrowed mutably.
        unsafe { self.cell.waker.wake() }
    }

    /// The cell for another use, if the application has let go of it.
    pub(crate) fn reclaim(self) -> Option<Spare<C, O, B>> {
        Spare::of(self.cell)
    }
}

macro_rules! named {
    ($($name:ident),+) => {
        $(impl<C, O, B> fmt::Debug for $name<C, O, B> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })+
    };
}

named!(Cell, Spare, AppSide, EngineSide, Sent, Activated);

#[cfg(all(test, ringmux_loom))]
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
