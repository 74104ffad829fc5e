//! One socket of a ring, as the turn loop uses it.
//!
//! A socket that receives little does so by one multishot operation into the ring's buffers, from
//! which it is copied: no operation to submit for what arrives. One that receives much at a time
//! changes to single operations into the session's own buffer: nothing is copied, and the same
//! memory stays hot. Which is which is seen from what arrives.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use super::buffers::BUFFER_BYTES;
use super::reactor::Reactor;
use super::ring::Ring;
use crate::driver::{Transport, clock};
use crate::proto::Batch;

/// A read shorter than this is not worth an operation, in bytes.
const READ_MIN: usize = 4096;
/// Arrivals from here on are large, in bytes.
const LARGE: usize = BUFFER_BYTES;
/// Arrivals below this are small, in bytes.
const SMALL: usize = BUFFER_BYTES / 4;
/// So many small arrivals in a row end receiving by single operations.
const SMALL_RUN: u32 = 16;

/// See the module. Polled by the host whenever something has happened to it, so it needs no waker.
pub(super) struct UringSocket<R: Ring> {
    reactor: Rc<RefCell<Reactor<R>>>,
    slot: u32,
    /// Small arrivals in a row while receiving by single operations; `None`: by a multishot one.
    single: Option<u32>,
}

impl<R: Ring> UringSocket<R> {
    pub(super) const fn new(reactor: Rc<RefCell<Reactor<R>>>, slot: u32) -> Self {
        Self {
            reactor,
            slot,
            single: None,
        }
    }

    /// Goes into the reactor, and marks it as long as it is in there.
    fn with<T>(&self, work: impl FnOnce(&mut Reactor<R>) -> T) -> T {
        let reactor = &mut *self.reactor.borrow_mut();
        reactor.at_work = true;
        let result = work(reactor);
        reactor.at_work = false;
        result
    }

    fn recv(
        &mut self,
        reactor: &mut Reactor<R>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        if let Some(result) = reactor.take_recv(self.slot, buf) {
            if let Ok(bytes) = result {
                self.on_arrival(bytes, reactor);
            }
            return Poll::Ready(result);
        }
        if self.single.is_none() {
            reactor.start_recv_multi(self.slot);
        } else {
            if buf.capacity() - buf.len() < READ_MIN.max(capacity / 2) {
                buf.reserve(capacity - buf.len().min(capacity / 2));
            }
            reactor.start_recv_once(self.slot, buf);
        }
        Poll::Pending
    }

    fn on_arrival(&mut self, bytes: usize, reactor: &mut Reactor<R>) {
        match &mut self.single {
            None if bytes >= LARGE => {
                self.single = Some(0);
                reactor.stop_recv_multi(self.slot);
            }
            Some(run) if bytes < SMALL => {
                *run += 1;
                if *run == SMALL_RUN {
                    self.single = None;
                }
            }
            Some(run) => *run = 0,
            None => {}
        }
    }
}

impl<R: Ring> Transport for UringSocket<R> {
    fn poll_recv(
        &mut self,
        _: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        let reactor = Rc::clone(&self.reactor);
        let reactor = &mut *reactor.borrow_mut();
        reactor.at_work = true;
        let received = self.recv(reactor, buf, capacity);
        reactor.at_work = false;
        received
    }

    fn poll_send(&mut self, _: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        self.with(|reactor| {
            if let Some(result) = reactor.take_send(self.slot, batch) {
                return Poll::Ready(result);
            }
            if let Some(result) = reactor.send_now(self.slot, batch) {
                return Poll::Ready(result);
            }
            if !reactor.is_sending(self.slot) {
                reactor.start_send(self.slot, batch);
            }
            Poll::Pending
        })
    }

    fn poll_timer(&mut self, _: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let due = deadline.is_some_and(|at| at <= clock::now());
        let later = deadline.filter(|_| !due);
        self.with(|reactor| reactor.set_deadline(self.slot, later));
        due
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.reactor.borrow().shutdown(self.slot, Shutdown::Write))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.with(|reactor| reactor.close(self.slot)) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl<R: Ring> Drop for UringSocket<R> {
    fn drop(&mut self) {
        self.with(|reactor| reactor.abandon(self.slot));
    }
}
