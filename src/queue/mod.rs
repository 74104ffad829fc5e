//! The lock-free leaves: everything two threads share is built from these.
//!
//! | file | what | producers → consumers |
//! |---|---|---|
//! | [`ring`] | growable ring of variable-size records, leased in place | 1 → 1 |
//! | [`ready`] | intrusive list of `Arc`s, taken all at once | n → 1 |
//! | [`reasons`] | the word that says why a lane is on the ready list | n → 1 |
//! | [`doorbell`] | wakes the engine, only when it is parked | n → 1 |
//! | [`home`] | the thread that an engine is bound to | 1 → n |
//! | [`budget`] | bytes that writers share, and the limit of each | n ↔ 1 |
//! | [`receipt`] | whether what was queued has been written | 1 ↔ 1 |
//! | [`once`] | cell written once, read without waiting | 1 → n |
//! | [`process`] | which process this is, told after a fork | 1 → n |
//! | [`slots`] | places that are taken and given back, each with a value | n → n |
//! | [`teardown`] | whether this thread is dropping a handle | none |
//! | [`waiters`] | set of wakers, woken together | n → n |
//! | [`waker_slot`] | the waker of one task, kept from wait to wait | n → 1 |
//!
//! Nothing here knows streams, frames or protocol errors, and nothing here takes a lock. "Wait-free" and "lock-free" in
//! these files leave the memory allocator out: an operation that may allocate or free says so.
//!
//! # What a stopped producer delays
//! A producer can lose its processor between any two of its steps. No one ever waits for it in a loop, and what others
//! see of it is one of these:
//!
//! | it was stopped | delayed until it goes on |
//! |---|---|
//! | before or after writing its record, or after raising its reason and before its push | its own stream |
//! | between its push and the bell | its own stream, and only while nothing else makes the engine look |
//! | between being chosen by the bell of a parked engine and the end of the wake | all that rang for this sleep; until it goes on *or anything else wakes the engine*: bytes that arrive, a deadline, a completed write |
//!
//! So the progress of a *running* engine and of the other streams is lock-free with respect to producers. The last row is
//! the exception and the price of one wake for a batch: a *parked* engine relies on the one producer that the bell has
//! chosen. Nothing is lost in any row. (On a ring of our own there is the same list and bell once more, between sessions and
//! their host; the same rows hold of it, with "session" for "stream".) Tests stop real threads in each of these places:
//! `connect/progress_tests.rs`.

pub(crate) mod budget;
pub(crate) mod doorbell;
pub(crate) mod home;
pub(crate) mod once;
#[cfg(not(ringmux_loom))] // The models have one process.
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod reasons;
pub(crate) mod receipt;
pub(crate) mod ring;
pub(crate) mod slots;
pub(crate) mod step;
pub(crate) mod teardown;
pub(crate) mod waiters;
pub(crate) mod waker_slot;

pub(crate) use budget::{Budget, Limit};
pub(crate) use doorbell::Doorbell;
pub(crate) use home::Home;
pub(crate) use once::SetOnce;
#[cfg(not(ringmux_loom))]
pub(crate) use process::{Owned, PerProcess, Process};
pub(crate) use ready::{Node, ReadyList, Taken as TakenNodes};
pub(crate) use reasons::Reasons;
pub(crate) use receipt::Receipt;
pub(crate) use ring::{
    Held, Passed, Payload, Reader, Reserved, Ring, RingOwner, RingPair, Writer, record_weight,
};
pub(crate) use slots::{Key as SlotKey, Slots};
pub(crate) use teardown::Teardown;
pub(crate) use waiters::{Key as WaiterKey, WakerSet};
pub(crate) use waker_slot::WakerSlot;
