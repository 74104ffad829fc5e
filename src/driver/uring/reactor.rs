//! The sockets of one ring: the operations under way for each, and the memory that the kernel uses.
//!
//! ```text
//!   session ── start_recv, start_send ──► slot ── push ──► ring
//!   session ◄─ take_recv,  take_send ──── slot ◄─ reap ─── ring
//! ```
//! Memory that the kernel may touch lies in the slot from the push to the completion, even if the session ends. A slot is
//! reused after the last completion of its previous socket; its generation tells their completions apart. The table of
//! slots grows to the largest number of simultaneous sockets and does not shrink.

use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slab::Slab;
use socket2::SockRef;

use super::enters::Enters;
use super::ring::{Completion, Enter, Kind, Op, Ring, SLOTS_MAX, Token};
use super::slot::{Recv, Send, Slot, outcome};
use crate::driver::{clock, direct, queued};
use crate::pace::rarely;
use crate::wire::Batch;

/// How long the end of a ring waits for the kernel to release memory.
const SETTLE: Duration = Duration::from_secs(1);
/// Sockets received from by plain calls at a time: each costs a call in every turn, which delays the others.
const DIRECT_MAX: usize = 2;
/// A batch shorter than this is sent at once rather than with the next enter, in bytes.
const JOINED_MIN: usize = 1024;
/// Consecutive empty calls until the socket goes back to the ring: some milliseconds.
const VAIN_MAX: u32 = 8192;

/// Counts since the ring was set up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Completions whose token matches no slot of this generation.
    pub(super) stale: u64,
}

/// The deadlines of all slots, each with its key.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Instant, u32)>);

impl Deadlines {
    /// The earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }
}

/// The slots that may be received from by plain calls, also between two receptions: [`DIRECT_MAX`] at most.
#[derive(Debug, Default)]
pub(super) struct DirectPlaces(Vec<u32>);

impl DirectPlaces {
    fn has_one_for(&self, key: u32) -> bool {
        self.0.len() < DIRECT_MAX || self.0.contains(&key)
    }

    fn take(&mut self, key: u32) {
        if !self.0.contains(&key) {
            self.0.push(key);
        }
    }

    pub(super) fn leave(&mut self, key: u32) {
        self.0.retain(|other| *other != key);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reactor<R: Ring> {
    ring: R,
    slots: Slab<Slot>,
    generation: u32,
    /// Slots with a completion, a direct reception or an expired deadline.
    ready: Vec<u32>,
    /// Slots whose operation found no room in the ring.
    retry: Vec<u32>,
    /// Slots that are received from by plain calls.
    direct: Vec<u32>,
    pub(super) direct_places: DirectPlaces,
    /// The thread spins before it sleeps; the host says so.
    pub(super) spins: bool,
    pub(super) deadlines: Deadlines,
    bell_rang: bool,
    /// The ring has failed; no operation works any more.
    broken: bool,
    /// A socket's call is in progress: if a panic leaves this set, an update is half done.
    pub(super) at_work: bool,
    counts: Counts,
    enters: Enters,
}

impl<R: Ring> Reactor<R> {
    pub(super) fn new(ring: R) -> Self {
        Self {
            ring,
            slots: Slab::new(),
            generation: 0,
            ready: Vec::new(),
            retry: Vec::new(),
            direct: Vec::new(),
            direct_places: DirectPlaces::default(),
            spins: false,
            deadlines: Deadlines::default(),
            bell_rang: false,
            broken: false,
            at_work: false,
            counts: Counts::default(),
            enters: Enters::new(),
        }
    }

    pub(super) const fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes a socket, in blocking mode: the kernel ends operations on a non-blocking one with
    /// `EAGAIN` where it should wait. `None` if there are too many.
    pub(super) fn insert(&mut self, socket: OwnedFd) -> Option<u32> {
        if self.slots.len() >= SLOTS_MAX {
            return None;
        }
        let place = self.slots.vacant_key() as u32;
        self.generation = self.generation.wrapping_add(1);
        let file = self.ring.install(place, socket.as_raw_fd());
        let slot = Slot::new(self.generation, socket, file);
        let key = self.slots.insert(slot);
        Some(key as u32)
    }

    // ---- the ring ---------------------------------------------------------------------------

    /// Polls the doorbell's descriptor from now on.
    pub(super) fn watch_bell(&mut self, bell: i32) {
        let token = Token {
            generation: 0,
            slot: 0,
            kind: Kind::Bell,
        };
        // SAFETY: the operation points to no memory.
        self.broken |= !unsafe { self.ring.push(token, Op::Poll { fd: bell }) };
    }

    /// True once after the bell's poll operation has ended: start it again.
    pub(super) fn take_bell_end(&mut self) -> bool {
        std::mem::take(&mut self.bell_rang)
    }

    pub(super) fn wants_enter(&self) -> bool {
        self.ring.wants_enter()
    }

    pub(super) fn enter(&mut self, how: Enter) {
        self.enters.count();
        if let Err(error) = self.ring.enter(how) {
            rarely(|| tracing::error!(%error, "the ring is broken; its sessions end"));
            self.broken = true;
        }
    }

    /// Takes completions from the ring.
    pub(super) fn reap(&mut self) {
        while let Some(completion) = self.ring.pop() {
            self.complete(completion);
        }
        for slot in std::mem::take(&mut self.retry) {
            self.mark(slot);
        }
    }

    fn complete(&mut self, completion: Completion) {
        if let Some(token) = completion.token
            && token.kind == Kind::Bell
        {
            self.bell_rang |= !completion.more;
            return;
        }
        let slot = completion.token.and_then(|token| {
            let slot = self.slots.get_mut(token.slot as usize)?;
            (slot.generation == token.generation).then_some((token, slot))
        });
        let Some((token, slot)) = slot else {
            self.counts.stale += 1;
            if let Some(buffer) = completion.buffer {
                self.ring.take_buffer(buffer, 0, &mut BytesMut::new());
            }
            return;
        };
        if !completion.more {
            slot.under_way -= 1;
        }
        if token.kind == Kind::RecvMulti
            && let Some(buffer) = completion.buffer
        {
            match u32::try_from(completion.result) {
                Ok(len) if len > 0 && !slot.closing => slot.arrived.push_back((buffer, len)),
                _ => self.ring.take_buffer(buffer, 0, &mut BytesMut::new()),
            }
        }
        slot.on(token.kind, &completion);
        self.mark(token.slot);
        self.free_if_abandoned(token.slot);
    }

    fn mark(&mut self, key: u32) {
        if let Some(slot) = self.slots.get_mut(key as usize)
            && !std::mem::replace(&mut slot.ready, true)
        {
            self.ready.push(key);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Moves the ready slots to the end of `into`.
    pub(super) fn take_ready(&mut self, into: &mut Vec<u32>) {
        for key in &self.ready {
            if let Some(slot) = self.slots.get_mut(*key as usize) {
                slot.ready = false;
            }
        }
        into.append(&mut self.ready);
    }

    fn push(&mut self, key: u32, kind: Kind, op: Op) -> bool {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return false;
        };
        let token = Token {
            generation: slot.generation,
            slot: key,
            kind,
        };
        // SAFETY: the callers put the operation's memory into the slot, which keeps it there until
        // `Slot::on` has seen the completion; a slot is removed when no operation of it is under way,
        // and `Drop` leaks the memory of operations still under way.
        let pushed = unsafe { self.ring.push(token, op) };
        if pushed {
            slot.under_way += 1;
        } else {
            self.retry.push(key);
        }
        pushed
    }

    // ---- one socket -------------------------------------------------------------------------

    /// Appends received bytes to `buf`, which grows to `capacity` at most: filled buffers of the ring beyond it, but for one,
    /// wait for the next call, which the session owes them. `None`: nothing yet.
    pub(super) fn take_recv(
        &mut self,
        key: u32,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Option<io::Result<usize>> {
        let slot = self.slots.get_mut(key as usize)?;
        if let Some(result) = slot.take_done(buf) {
            return Some(result);
        }
        if !slot.kept.is_empty() {
            return Some(Ok(slot.take_kept(buf, capacity)));
        }
        if !slot.arrived.is_empty() {
            return Some(Ok(slot.take_arrived(&mut self.ring, buf, capacity)));
        }
        slot.ended.map(outcome)
    }

    /// When the last direct reception found its bytes; returned once.
    pub(super) fn take_found_at(&mut self, key: u32) -> Option<Instant> {
        self.slots.get_mut(key as usize)?.found_at.take()
    }

    /// Receives into the ring's buffers from now on. False if the last such receive found none free: use other memory once,
    /// as nothing says when there will be one.
    pub(super) fn start_recv_multi(&mut self, key: u32) -> bool {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return true;
        };
        if std::mem::take(&mut slot.found_none) {
            return false;
        }
        if matches!(slot.recv, Recv::Idle) {
            let file = slot.file;
            if self.push(key, Kind::RecvMulti, Op::RecvMulti { file }) {
                self.slots[key as usize].recv = Recv::Multi { cancelling: false };
            }
        }
        true
    }

    /// Receives once, into `buf`'s spare capacity; the memory stays here meanwhile.
    pub(super) fn start_recv_once(&mut self, key: u32, buf: &mut BytesMut) {
        if self.is_receiving(key) {
            return;
        }
        if let Err(memory) = self.push_recv(key, std::mem::take(buf)) {
            *buf = memory;
        }
    }

    /// Gives the memory back if there is no room in the ring. No other receiving is under way.
    fn push_recv(&mut self, key: u32, mut memory: BytesMut) -> Result<(), BytesMut> {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return Err(memory);
        };
        let spare = memory.spare_capacity_mut();
        let (start, len) = (spare.as_mut_ptr().cast(), spare.len() as u32);
        let file = slot.file;
        slot.recv = Recv::Once(memory);
        if self.push(key, Kind::Recv, Op::Recv { file, start, len }) {
            return Ok(());
        }
        match std::mem::replace(&mut self.slots[key as usize].recv, Recv::Idle) {
            Recv::Once(memory) => Err(memory),
            _ => unreachable!("nothing else has happened to it"),
        }
    }

    /// Whether this socket may use direct receives (plain calls): it has a place, or one is free.
    pub(super) fn has_direct_place(&self, key: u32) -> bool {
        self.spins && self.direct_places.has_one_for(key)
    }

    /// Receives by plain calls, one in each turn. False if all [`DIRECT_MAX`] places are taken.
    pub(super) fn start_recv_direct(&mut self, key: u32, buf: &mut BytesMut) -> bool {
        if !self.has_direct_place(key) || self.is_receiving(key) {
            return false;
        }
        self.direct_places.take(key);
        let memory = std::mem::take(buf);
        self.slots[key as usize].recv = Recv::Direct { memory, vain: 0 };
        self.direct.push(key);
        true
    }

    /// Whether any socket uses direct receives.
    pub(super) const fn has_direct(&self) -> bool {
        !self.direct.is_empty()
    }

    /// Makes the receive calls of the direct sockets.
    pub(super) fn recv_direct(&mut self) {
        if self.direct.is_empty() {
            return;
        }
        // Read the clock before the calls: reading it after a successful one would delay its bytes.
        let now = clock::now();
        let mut direct = std::mem::take(&mut self.direct);
        direct.retain(|key| self.recv_now(*key, now));
        self.direct = direct;
    }

    /// True if nothing has arrived: keep the socket direct.
    fn recv_now(&mut self, key: u32, now: Instant) -> bool {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return false;
        };
        let Recv::Direct { memory, vain } = &mut slot.recv else {
            return false;
        };
        let spare = memory.spare_capacity_mut();
        let Some(result) = self.ring.recv_now(slot.socket.as_fd(), spare) else {
            *vain += 1;
            return *vain < VAIN_MAX || !self.stop_recv_direct(key);
        };
        slot.recv = Recv::Done(std::mem::take(memory), result);
        slot.found_at = Some(now);
        self.mark(key);
        false
    }

    /// Direct calls stop: the next reception goes through the ring. False if the ring has no room.
    fn stop_recv_direct(&mut self, key: u32) -> bool {
        self.direct_places.leave(key);
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return true;
        };
        match std::mem::replace(&mut slot.recv, Recv::Idle) {
            Recv::Direct { memory, .. } => {
                let pushed = self.push_recv(key, memory);
                if let Err(memory) = pushed {
                    self.slots[key as usize].recv = Recv::Direct { memory, vain: 0 };
                    return false;
                }
            }
            other => slot.recv = other,
        }
        true
    }

    /// The thread is about to sleep in the ring; false if it must not, because an operation could not be queued.
    pub(super) fn prepare_park(&mut self) -> bool {
        let mut direct = std::mem::take(&mut self.direct);
        direct.retain(|key| !self.stop_recv_direct(*key));
        self.direct = direct;
        self.direct.is_empty()
    }

    /// A receive has begun, and its result was not taken.
    pub(super) fn is_receiving(&self, key: u32) -> bool {
        let slot = self.slots.get(key as usize);
        slot.is_none_or(|slot| !matches!(slot.recv, Recv::Idle))
    }

    /// Ends receiving into the ring's buffers; bytes that arrive meanwhile are not lost.
    pub(super) fn stop_recv_multi(&mut self, key: u32) {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return;
        };
        if let Recv::Multi { cancelling: false } = slot.recv {
            let target = slot.token(key, Kind::RecvMulti);
            if self.push(key, Kind::Cancel, Op::Cancel { target }) {
                self.slots[key as usize].recv = Recv::Multi { cancelling: true };
            }
        }
    }

    /// The session takes no bytes for now: ends receiving into the ring's buffers, and moves the bytes in them to memory of
    /// the session, at most those of all buffers. Bytes that arrive before the end need another call, for which the session
    /// is polled.
    pub(super) fn pause_recv(&mut self, key: u32) {
        // First: it may enter the ring, which then has no buffers to fill.
        self.stop_recv_multi(key);
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.keep_arrived(&mut self.ring);
        }
    }

    /// Sends of a short batch as much as the socket takes at once. `None`: it took nothing, a send is under way, or the batch
    /// should go through the ring: after an arrival through the ring it is entered in any case, and one call does for both.
    /// A sleeping thread would have to be woken for the completion.
    pub(super) fn send_now(&mut self, key: u32, batch: &Batch) -> Option<io::Result<usize>> {
        let slot = self.slots.get_mut(key as usize)?;
        if !matches!(slot.send, Send::Idle) {
            return None;
        }
        let answers = std::mem::take(&mut slot.arrived_since_send);
        if answers && self.spins && batch.len() >= JOINED_MIN {
            return None;
        }
        let piece = direct::piece(batch)?;
        self.ring.send_now(slot.socket.as_fd(), piece)
    }

    /// Sends the rest of a batch through the ring, unless a send is under way; the batch stays here meanwhile.
    pub(super) fn start_send(&mut self, key: u32, batch: &mut Batch) {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return;
        };
        if !matches!(slot.send, Send::Idle) {
            return;
        }
        let op = slot.outgoing.prepare(slot.file, batch);
        slot.send = Send::UnderWay(std::mem::take(batch));
        if !self.push(key, Kind::Send, op) {
            let slot = &mut self.slots[key as usize];
            if let Send::UnderWay(memory) = std::mem::replace(&mut slot.send, Send::Idle) {
                *batch = memory;
            }
        }
    }

    /// Gives the batch back with the result. `None`: no send was started, or it is under way.
    pub(super) fn take_send(&mut self, key: u32, batch: &mut Batch) -> Option<io::Result<usize>> {
        self.slots.get_mut(key as usize)?.take_sent(batch)
    }

    /// See [`Transport::queued`](crate::driver::Transport::queued). A send under way completes when the socket has taken all
    /// of it, which a slow peer delays for long: it is ended, so that its session learns how much was taken, and sends the rest.
    pub(super) fn queued(&mut self, key: u32) -> Option<u64> {
        let slot = self.slots.get(key as usize)?;
        let bytes = queued::queued(slot.socket.as_fd());
        if matches!(slot.send, Send::UnderWay(_)) {
            let target = slot.token(key, Kind::Send);
            self.push(key, Kind::Cancel, Op::Cancel { target });
        }
        bytes
    }

    pub(super) fn slot(&self, key: u32) -> Option<&Slot> {
        self.slots.get(key as usize)
    }

    pub(super) fn shutdown(&self, key: u32, how: Shutdown) -> io::Result<()> {
        let slot = self.slot(key).ok_or(io::ErrorKind::NotConnected)?;
        SockRef::from(&slot.socket).shutdown(how)
    }

    /// Ends the operations under way, and gives the ring's buffers back; true when the kernel no longer uses memory of this
    /// socket.
    pub(super) fn close(&mut self, key: u32) -> bool {
        // An error means that the socket is shut down already.
        let _ = self.shutdown(key, Shutdown::Both);
        self.direct_places.leave(key);
        self.stop_recv_multi(key);
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return true;
        };
        slot.closing = true;
        slot.discard_arrived(&mut self.ring);
        slot.under_way == 0
    }

    /// The session has ended or was dropped.
    pub(super) fn abandon(&mut self, key: u32) {
        self.set_deadline(key, None);
        self.close(key);
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.abandoned = true;
        }
        self.free_if_abandoned(key);
    }

    fn free_if_abandoned(&mut self, key: u32) {
        let free = |slot: &Slot| slot.abandoned && slot.under_way == 0;
        if self.slots.get(key as usize).is_some_and(free) {
            let slot = self.slots.remove(key as usize);
            self.ring.remove(slot.file);
        }
    }

    // ---- time -------------------------------------------------------------------------------

    /// Sets the time at which the slot becomes ready at the latest.
    pub(super) fn set_deadline(&mut self, key: u32, deadline: Option<Instant>) {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return;
        };
        if slot.deadline == deadline {
            return;
        }
        if let Some(before) = std::mem::replace(&mut slot.deadline, deadline) {
            self.deadlines.0.remove(&(before, key));
        }
        if let Some(at) = deadline {
            self.deadlines.0.insert((at, key));
        }
    }

    /// Marks the slots with expired deadlines as ready.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.deadlines.0.first().copied() {
            if at > now {
                return;
            }
            self.set_deadline(key, None);
            self.mark(key);
        }
    }
}

impl<R: Ring> Drop for Reactor<R> {
    /// Never frees memory that the kernel may still write: waits for the completions up to `SETTLE`, then leaks it.
    fn drop(&mut self) {
        let keys: Vec<u32> = self.slots.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            self.abandon(key);
        }
        // The earlier of the two: tokio's clock may be paused.
        let (until, really) = (clock::now() + SETTLE, Instant::now() + SETTLE);
        let waits = || clock::now() < until && Instant::now() < really;
        while !self.slots.is_empty() && !self.broken && waits() {
            self.enter(Enter::WaitFor(Duration::from_millis(10)));
            self.reap();
        }
        if self.slots.is_empty() {
            return self.ring.settled();
        }
        for slot in self.slots.drain() {
            if let Recv::Once(memory) = slot.recv {
                std::mem::forget(memory);
                crate::driver::count_leaked();
            }
            if let Send::UnderWay(batch) = slot.send {
                std::mem::forget((batch, slot.outgoing));
                crate::driver::count_leaked();
            }
        }
    }
}
