//! The core alone: its streams are plain queues, its application a few lists. No handle, no lane, no waker.

mod plain;

use std::cell::Cell;
use std::rc::Rc;

pub(crate) use plain::{App, Plain};

use super::Memory;

/// The process's memory, for one thread.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Rc<PoolState>);

#[derive(Debug)]
struct PoolState {
    size: u64,
    used: Cell<u64>,
    sessions: Cell<u64>,
}

impl Pool {
    pub(crate) fn new(size: u64) -> Self {
        Self(Rc::new(PoolState {
            size,
            used: Cell::new(0),
            sessions: Cell::new(0),
        }))
    }

    pub(crate) fn used(&self) -> u64 {
        self.0.used.get()
    }
}

impl Memory for Pool {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn sessions(&self) -> u64 {
        self.0.sessions.get()
    }

    fn begin_session(&self) {
        self.0.sessions.set(self.0.sessions.get() + 1);
    }

    fn end_session(&self) {
        self.0.sessions.set(self.0.sessions.get() - 1);
    }

    fn take(&self, bytes: u64, leave: u64, ceiling: u64) -> bool {
        let most = self.0.size.min(ceiling).checked_sub(leave);
        let used = self.used().checked_add(bytes);
        match (used, most) {
            (Some(used), Some(most)) if used <= most => {
                self.0.used.set(used);
                true
            }
            _ => false,
        }
    }

    fn give(&self, bytes: u64) {
        self.0.used.set(self.used() - bytes);
    }

    fn charge(&self, bytes: u64) {
        self.0.used.set(self.used() + bytes);
    }
}
