//! The list of ready nodes: any number of producers push, the engine takes everything at once.
//!
//! The list is intrusive (a node carries its own link) and holds a reference to each node on it. It is not a queue of
//! messages: a node is on it at most once, and holds its reasons itself.
//!
//! ```text
//!   head ──► D ──► C ──► B ──► A ──► END        push: CAS `head` from D to a new node
//!                                               take_all: swap `head` with null, hand out A B C D
//!   head ──► CLOSED                             close: the same with CLOSED, after which a push fails
//! ```
//! Taking everything leaves no ABA problem: no one unlinks a single node, and a CAS that succeeds on an address that
//! was taken and pushed again links to the current node.
//!
//! # Invariants
//! 1. Every node that can be reached from `head` is kept alive by one strong reference that belongs to the list.
//! 2. A node's `next` is null while it is on no list, and END or the node below while it is on one.
//! 3. Once CLOSED, `head` never reaches a node for good: a `take_all` that races with `close` puts CLOSED back.
//!
//! # Progress
//! `push` is **lock-free**: its CAS fails only because another operation succeeded. A producer stopped at any point delays
//! no one else. `take_all`, `close` and `is_empty` are **wait-free**: at most two swaps, and one step per node to reverse
//! their order.

use crate::sync::{Arc, AtomicPtr, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::marker::PhantomData;
use std::ptr::{null_mut, without_provenance_mut};

/// A node of a [`ReadyList`].
///
/// # Safety
/// * `next` returns the same place each time, which starts out null and which only the list accesses.
/// * A node is pushed only while it is on no list, that is before the first push or after [`Taken`] has handed it out.
///   (The usual way: only the thread that turns the node's [`Reasons`](super::reasons::Reasons) from zero pushes it, and only
///   the holder of a node handed out takes its reasons.)
pub(crate) unsafe trait Node: Sized {
    fn next(&self) -> &AtomicPtr<Self>;
}

/// The ordering of a push, for loom and for the machine. A doorbell's ring after it needs both in the single
/// total order; loom orders fences only, and there the doorbell has one.
const PUSH: Ordering = if cfg!(ringmux_loom) {
    Ordering::Release
} else {
    Ordering::SeqCst
};

/// Addresses that are no node: a node contains a pointer and is aligned to more than two bytes.
const CLOSED: usize = 1;
const END: usize = 2;

#[inline]
fn mark<T>(address: usize) -> *mut T {
    const { assert!(align_of::<T>() > END) };
    without_provenance_mut(address)
}

/// Many producers, one engine. See the module.
///
/// A node that owns the list keeps both alive for ever if it is still on the list when its last other owner goes:
/// [`Self::close`] the list first.
#[derive(Debug)]
pub(crate) struct ReadyList<T: Node> {
    head: CachePadded<AtomicPtr<T>>,
    owns: PhantomData<Arc<T>>,
}

impl<T: Node> ReadyList<T> {
    pub(crate) fn new() -> Self {
        Self {
            head: CachePadded::new(AtomicPtr::new(null_mut())),
            owns: PhantomData,
        }
    }

    /// Puts `node` on the list.
    ///
    /// # Errors
    /// Gives the node back if the list is closed.
    #[inline]
    pub(crate) fn push(&self, node: Arc<T>) -> Result<(), Arc<T>> {
        let node = Arc::into_raw(node).cast_mut();
        // SAFETY: the reference just converted keeps it alive until it is converted back.
        let next = unsafe { &*node }.next();
        debug_assert!(
            next.load(Ordering::Relaxed).is_null(),
            "a node is pushed once until it is taken"
        );
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == mark(CLOSED) {
                // ORDERING: pairs with `close`; acquires the closer's earlier writes, such as the reason.
                fence(Ordering::Acquire);
                next.store(null_mut(), Ordering::Relaxed);
                // SAFETY: it came from `into_raw` above, and the list did not get it.
                return Err(unsafe { Arc::from_raw(node) });
            }
            let below = if head.is_null() { mark(END) } else { head };
            next.store(below, Ordering::Relaxed);
            // ORDERING: pairs with `swap_head`; publishes `next` and the node. Later pushes are RMWs and so continue the
            // release sequence: the swap acquires from every node on the list. SeqCst: see `Doorbell::ring_after_push`.
            match self
                .head
                .compare_exchange_weak(head, node, PUSH, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => head = now,
            }
        }
    }

    /// Whether the list is empty, possibly outdated; a closed list is empty.
    ///
    /// Relaxed: a caller that must not miss a push orders it by fences, as [`Doorbell`](super::doorbell::Doorbell) does.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        head.is_null() || head == mark(CLOSED)
    }

    /// Whether [`Self::close`] was called, possibly outdated.
    pub(crate) fn is_closed(&self) -> bool {
        self.head.load(Ordering::Relaxed) == mark(CLOSED)
    }

    /// Takes all nodes off the list, oldest push first.
    #[inline]
    pub(crate) fn take_all(&self) -> Taken<T> {
        if self.is_empty() {
            return Taken { first: mark(END) };
        }
        let mut top = self.swap_head(null_mut());
        if top == mark(CLOSED) {
            // It was closed between the load and the swap. Close it again; pushes in between are ours.
            top = self.swap_head(mark(CLOSED));
        }
        Taken::new(top)
    }

    /// Closes the list: pushes fail from now on. Takes the nodes that are on it.
    ///
    /// A failed push sees the caller's earlier writes.
    pub(crate) fn close(&self) -> Taken<T> {
        Taken::new(self.swap_head(mark(CLOSED)))
    }

    #[inline]
    fn swap_head(&self, with: *mut T) -> *mut T {
        // ORDERING: pairs with `push`, both ways; publishes the nodes and their links (to us) and the writes before a
        // close (to a push that fails).
        self.head.swap(with, Ordering::AcqRel)
    }
}

impl<T: Node> Drop for ReadyList<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

/// The nodes taken off a [`ReadyList`], oldest push first. A node is on no list once it is handed out.
#[derive(Debug)]
pub(crate) struct Taken<T: Node> {
    /// The chain of nodes left, each of whose list references is now ours; END if none.
    first: *mut T,
}

// SAFETY: it owns `Arc`s, so it moves between threads where those do.
unsafe impl<T: Node + Send + Sync> Send for Taken<T> {}

impl<T: Node> Taken<T> {
    /// Reverses the chain that starts at `top`, the newest push.
    fn new(top: *mut T) -> Self {
        let mut first = mark(END);
        if top.is_null() || top == mark(CLOSED) {
            return Self { first };
        }
        let mut node = top;
        while node != mark(END) {
            // SAFETY: invariant 1, and the references are ours since the swap that took `top`.
            let next = unsafe { &*node }.next();
            let below = next.load(Ordering::Relaxed);
            next.store(first, Ordering::Relaxed);
            first = node;
            node = below;
        }
        Self { first }
    }
}

impl<T: Node> Iterator for Taken<T> {
    type Item = Arc<T>;

    #[inline]
    fn next(&mut self) -> Option<Arc<T>> {
        if self.first == mark(END) {
            return None;
        }
        // SAFETY: it is in the chain, whose references are ours; it came from `into_raw` in `push`, and leaves the chain
        // below, so that it is converted back once.
        let node = unsafe { Arc::from_raw(self.first) };
        self.first = node.next().load(Ordering::Relaxed);
        // The caller's next step is to allow a push again (it takes the reasons), which publishes this store.
        node.next().store(null_mut(), Ordering::Relaxed);
        Some(node)
    }
}

impl<T: Node> Drop for Taken<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(all(test, ringmux_loom))]
mod loom_tests;
#[cfg(all(test, not(ringmux_loom)))]
mod tests;
