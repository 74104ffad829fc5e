//! The lock-free leaves: everything two threads share is built from these.
//!
//! | file | what | producers → consumers |
//! |---|---|---|
//! | [`ring`] | growable ring of variable-size records, leased in place | 1 → 1 |
//! | [`ready`] | intrusive list of `Arc`s, taken all at once | n → 1 |
//! | [`reasons`] | the word that says why a lane is on the ready list | n → 1 |
//! | [`doorbell`] | wakes the engine, only when it is parked | n → 1 |
//! | [`once`] | cell written once, read without waiting | 1 → n |
//! | [`waiters`] | set of wakers, woken together | n → n |
//!
//! Nothing here knows streams, frames or protocol errors, and nothing here takes a lock. "Wait-free" and "lock-free" in
//! these files leave the memory allocator out: an operation that may allocate or free says so.

pub(crate) mod doorbell;
pub(crate) mod once;
pub(crate) mod ready;
pub(crate) mod reasons;
pub(crate) mod ring;
pub(crate) mod waiters;

pub(crate) use doorbell::Doorbell;
pub(crate) use once::SetOnce;
pub(crate) use ready::{Node, ReadyList, Taken as TakenNodes};
pub(crate) use reasons::Reasons;
pub(crate) use ring::{Passed, Payload, Reader, Ring, RingOwner, Writer, record_weight};
pub(crate) use waiters::{Key as WaiterKey, WakerSet};
