//! The lock-free leaves: all state shared by two threads is built from these.
//!
//! | file | purpose | producers → consumers |
//! |---|---|---|
//! | [`ring`] | growable ring of variable-size records, leased in place | 1 → 1 |
//! | [`ready`] | intrusive list of `Arc`s, taken all at once | n → 1 |
//! | [`reasons`] | the readiness bits of a lane on the ready list | n → 1 |
//! | [`doorbell`] | wakes the engine, only when it is parked | n → 1 |
//! | [`home`] | the thread that an engine is bound to | 1 → n |
//! | [`cell`] | one call: to the engine and back, used again | 1 ↔ 1 |
//! | [`budget`] | send budget shared by writers, and the limit of each | n ↔ 1 |
//! | [`receipt`] | whether the queued messages have been written | 1 ↔ 1 |
//! | [`once`] | cell written once, read without waiting | 1 → n |
//! | [`outstanding`] | bytes given and not taken, charged at the end | 1 → n |
//! | [`permit`] | permission of a stream: granted or given up | 1 ↔ 1 |
//! | [`process`] | identity of the process, changed by a fork | 1 → n |
//! | [`slots`] | places claimed and released, each with a value | n → n |
//! | [`teardown`] | whether this thread is dropping a handle | none |
//! | [`turns`] | value that several use in turns, without waiting | n ↔ n |
//! | [`waiters`] | set of wakers, woken together | n → n |
//! | [`waker_slot`] | the waker of one task, kept between waits | n → 1 |
//!
//! Nothing here knows streams, frames or protocol errors, and nothing here takes a lock. "Wait-free" and "lock-free" in
//! these files leave the memory allocator out: an operation that may allocate or free says so.
//!
//! # Delays by a stopped producer
//! A producer can lose its processor between any two of its steps. No one ever waits for it in a loop, and others see one of
//! these effects:
//!
//! | it was stopped | delayed until it continues |
//! |---|---|
//! | before or after writing its record, or after raising its reason and before its push | its own stream |
//! | between its push and the bell | its own stream, and only until another event makes the engine check |
//! | between being chosen by the bell of a parked engine and the end of the wake | all producers that rang for this sleep; until it continues *or another event wakes the engine*: received bytes, a deadline, a completed write |
//!
//! So the progress of a *running* engine and of the other streams is lock-free with respect to producers. The last row is
//! the exception and the price of one wake for a batch: a *parked* engine relies on the one producer that the bell has
//! chosen. No work is lost in any row. (The driver uring has the same list and bell once more, between sessions and
//! their host; the same rows hold for it, with "session" for "stream".) Tests stop real threads in each of these places:
//! `connect/progress_tests.rs`.

pub(crate) mod budget;
pub(crate) mod cell;
pub(crate) mod doorbell;
pub(crate) mod home;
pub(crate) mod once;
pub(crate) mod outstanding;
pub(crate) mod permit;
#[cfg(not(ringmux_loom))] // The models have one process.
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod reasons;
pub(crate) mod receipt;
pub(crate) mod ring;
pub(crate) mod slots;
pub(crate) mod step;
pub(crate) mod teardown;
#[cfg(any(feature = "rpc", test))]
pub(crate) mod turns;
pub(crate) mod waiters;
pub(crate) mod waker_slot;

// Leaves of `rpc`, which is no part of the models otherwise.
#[cfg(all(test, ringmux_loom))]
#[path = "../rpc/quota.rs"]
mod quota;
#[cfg(all(test, ringmux_loom))]
#[path = "../rpc/release.rs"]
mod release;

pub(crate) use budget::{Budget, Limit};
pub(crate) use doorbell::Doorbell;
pub(crate) use home::Home;
pub(crate) use once::SetOnce;
pub(crate) use outstanding::Outstanding;
pub(crate) use permit::Permit;
#[cfg(not(ringmux_loom))]
pub(crate) use process::{Owned, PerProcess, Process};
pub(crate) use ready::{Node, ReadyList, Taken as TakenNodes};
pub(crate) use reasons::Reasons;
pub(crate) use receipt::Receipt;
pub(crate) use ring::{
    Held, Passed, Payload, Reader, Record, Reserved, Ring, RingOwner, RingPair, Writer,
    record_weight,
};
pub(crate) use slots::{Key as SlotKey, Slots};
pub(crate) use teardown::Teardown;
#[cfg(feature = "rpc")]
pub(crate) use turns::Turns;
pub(crate) use waiters::{Key as WaiterKey, WakerSet};
pub(crate) use waker_slot::WakerSlot;
