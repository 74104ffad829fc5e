//! One socket of a ring, as a transport of the turn loop.
//!
//! There are three modes to receive, chosen by the sizes of recent arrivals:
//!
//! * Multishot: one operation receives into the ring's buffers, from which bytes are copied: no operation to submit per
//!   arrival, and no system call to learn that there is none.
//! * Once: single operations receive into the session's own buffer, for large arrivals: no copy, and the same memory stays
//!   in the cache. Also where all of the ring's buffers were filled, and behind a pause of the session, which may be the first
//!   of many: a pause costs the multishot receive, but leaves a single one alone.
//! * Direct: plain calls into that buffer, one in each turn, for short arrivals while the engine spins. A round trip
//!   waits for each step, and a completion plus an enter to run it take longer than a call that polls for the bytes; and the
//!   peer's thread, which delivers the bytes on this machine, has no operation to complete. Sockets beyond the few direct places
//!   use multishot.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use super::buffers::BUFFER_BYTES;
use super::reactor::Reactor;
use super::ring::Ring;
use crate::bridge::PeerSystem;
use crate::driver::queued::{self, HungUp};
use crate::driver::{Transport, clock, make_room};
use crate::wire::Batch;

/// Arrivals from here on are large, in bytes.
const LARGE: usize = BUFFER_BYTES;
/// Arrivals below this are small, in bytes.
const SMALL: usize = BUFFER_BYTES / 4;
/// Arrivals below this are received by plain calls while the engine spins, in bytes: a few dozen short messages. For those of
/// many calls, twice and four times as much are as fast.
const SHORT: usize = 8 * 1024;
/// Consecutive arrivals that suit another mode before changing to it.
const RUN: u32 = 16;

/// The mode of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    RingBuffers,
    Operations,
    Calls,
}

/// See the module. The host polls it whenever its slot is ready, so it needs no waker.
pub(super) struct UringSocket<R: Ring> {
    reactor: Rc<RefCell<Reactor<R>>>,
    slot: u32,
    via: Via,
    /// Consecutive arrivals that suit another mode.
    run: u32,
}

impl<R: Ring> UringSocket<R> {
    pub(super) const fn new(reactor: Rc<RefCell<Reactor<R>>>, slot: u32) -> Self {
        Self {
            reactor,
            slot,
            via: Via::RingBuffers,
            run: 0,
        }
    }

    #[cfg(test)]
    pub(super) const fn via(&self) -> Via {
        self.via
    }

    /// Runs `work` on the reactor, which is marked `at_work` meanwhile.
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
        if let Some(result) = reactor.take_recv(self.slot, buf, capacity) {
            if let Ok(bytes) = result {
                self.on_arrival(bytes, reactor);
            }
            return Poll::Ready(result);
        }
        // First: stopping what goes on, and beginning it again, costs two operations.
        if self.via == Via::Calls && !reactor.has_direct_place(self.slot) {
            self.via = Via::RingBuffers;
        }
        if self.via != Via::RingBuffers {
            reactor.stop_recv_multi(self.slot);
        }
        if reactor.is_receiving(self.slot) {
            return Poll::Pending;
        }
        if self.via == Via::RingBuffers {
            if reactor.start_recv_multi(self.slot) {
                return Poll::Pending;
            }
            self.leave_ring_buffers();
        }
        make_room(buf, capacity);
        if !(self.via == Via::Calls && reactor.start_recv_direct(self.slot, buf)) {
            reactor.start_recv_once(self.slot, buf);
        }
        Poll::Pending
    }

    /// Uses single operations for the next arrivals.
    fn leave_ring_buffers(&mut self) {
        if self.via == Via::RingBuffers {
            self.via = Via::Operations;
        }
        self.run = 0;
    }

    /// Records the size of an arrival, and changes the mode if due.
    pub(super) fn on_arrival(&mut self, bytes: usize, reactor: &mut Reactor<R>) {
        let suits = match bytes {
            LARGE.. => Via::Operations,
            ..SHORT if reactor.has_direct_place(self.slot) => Via::Calls,
            ..SMALL => Via::RingBuffers,
            _ => self.via,
        };
        if suits == self.via {
            self.run = 0;
            return;
        }
        self.run += 1;
        if self.run == RUN || suits == Via::Operations {
            self.run = 0;
            if self.via == Via::Calls {
                reactor.direct_places.leave(self.slot);
            }
            self.via = suits;
        }
    }
}

impl<R: Ring> Transport for UringSocket<R> {
    const BOUND: bool = true;

    fn arrived_at(&mut self) -> Option<Instant> {
        self.reactor.borrow_mut().take_found_at(self.slot)
    }

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

    fn pause_recv(&mut self) {
        self.leave_ring_buffers();
        self.with(|reactor| reactor.pause_recv(self.slot));
    }

    fn poll_send(&mut self, _: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        self.with(|reactor| {
            if let Some(result) = reactor.take_send(self.slot, batch) {
                return Poll::Ready(result);
            }
            if let Some(result) = reactor.send_now(self.slot, batch) {
                return Poll::Ready(result);
            }
            reactor.start_send(self.slot, batch);
            Poll::Pending
        })
    }

    fn queued(&mut self) -> Option<u64> {
        self.with(|reactor| reactor.queued(self.slot))
    }

    fn peer_system(&mut self) -> PeerSystem {
        let reactor = self.reactor.borrow();
        let slot = reactor.slot(self.slot);
        slot.map_or(PeerSystem::Unknown, |slot| {
            queued::peer_system(slot.socket.as_fd())
        })
    }

    fn hung_up(&mut self) -> HungUp {
        let reactor = self.reactor.borrow();
        let slot = reactor.slot(self.slot);
        slot.map_or(HungUp::No, |slot| {
            queued::hung_up(slot.socket.as_fd(), slot.may_have_received())
        })
    }

    fn poll_timer(&mut self, _: &mut Context<'_>, deadline: Option<Instant>) -> io::Result<bool> {
        let reactor = self.reactor.borrow();
        let set = reactor.slot(self.slot).and_then(|slot| slot.deadline);
        drop(reactor);
        if set == deadline {
            // The host checks the clock for it.
            return Ok(false);
        }
        let due = deadline.is_some_and(|at| at <= clock::now());
        let later = deadline.filter(|_| !due);
        self.with(|reactor| reactor.set_deadline(self.slot, later));
        Ok(due)
    }

    /// The host polls a woken session in its next turn, after sockets, timers and the other sessions.
    fn poll_later(&mut self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
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
