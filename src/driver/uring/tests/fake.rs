//! A simulated ring: a seed decides when and how every operation completes.
//!
//! ```text
//!   push ─► queued ─ enter ─► under way ─ step ─► posted ─ pop ─►
//!                                           └───► overflowed ─ enter ─► posted
//! ```
//! The bytes go through real socket pairs, without waiting, so that `shutdown` and `close` mean what
//! they mean elsewhere. A rule of [`Ring`](super::super::ring::Ring) that the driver breaks is recorded in
//! [`Kernel::failure`]; the first one counts.

mod side;

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::super::buffers::BUFFER_BYTES;
use super::super::ring::{Completion, File, Kind, Op, Token};
use super::faults::{Faults, Happened, Race, Sabotage, Tally};
use super::memory;
use crate::bridge::tests::net::Rng;
use crate::driver::clock;

/// A pushed operation whose last completion was not posted.
struct Pending {
    token: Token,
    op: Op,
    /// Resolved when it is submitted, and held until it ends, as by the kernel.
    socket: Option<Rc<OwnedFd>>,
    /// The bytes to be sent, copied at the push.
    sealed: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    /// It will end with `ECANCELED`.
    cancelled: bool,
}

/// A socket of the driver, from `install` to `remove`.
struct Installed {
    /// The driver's own.
    fd: RawFd,
    file: File,
    socket: Rc<OwnedFd>,
    /// Generation and slot of its user, after the first push.
    tenant: Option<(u32, u32)>,
}

struct Buffer {
    bytes: Vec<u8>,
    /// The driver has the buffer, or will find it in a completion.
    out: bool,
}

/// See the module.
pub(super) struct Kernel {
    rng: Rng,
    pub(super) faults: Faults,
    queued: VecDeque<Pending>,
    under_way: Vec<Pending>,
    posted: VecDeque<Completion>,
    overflowed: VecDeque<Completion>,
    installed: Vec<Installed>,
    /// Operations whose socket was removed.
    retired: Vec<Token>,
    /// The last operations of sockets still installed.
    ended: HashMap<(u32, u32), Vec<Token>>,
    buffers: Vec<Buffer>,
    /// Woken one at a time when no other event is possible, as by other threads.
    pub(super) outside: VecDeque<Waker>,
    /// Woken when the last socket is removed.
    pub(super) watcher: Option<Waker>,
    /// Operations on sockets no longer complete.
    pub(super) mute: bool,
    /// Entering fails.
    pub(super) broken: bool,
    pub(super) settled: bool,
    /// Checks since the last push or completion, stale ones not counted.
    looks: u32,
    /// Limit on enters; a run that exceeds it makes no progress and fails.
    pub(super) patience: u32,
    until: Instant,
    /// Time of the last enter.
    pub(super) entered: Instant,
    pub(super) tally: Tally,
    pub(super) failure: Option<String>,
}

/// A ring for the driver; tests inspect its kernel, also after the ring is dropped.
pub(super) struct FakeRing(Rc<RefCell<Kernel>>);

impl FakeRing {
    pub(super) fn new(seed: u64, faults: Faults) -> (Self, Rc<RefCell<Kernel>>) {
        let kernel = Rc::new(RefCell::new(Kernel::new(seed, faults)));
        (Self(Rc::clone(&kernel)), kernel)
    }

    fn kernel(&self) -> RefMut<'_, Kernel> {
        self.0.borrow_mut()
    }
}

impl Pending {
    const fn tenant(&self) -> (u32, u32) {
        (self.token.generation, self.token.slot)
    }

    fn fd(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    const fn is_bell(&self) -> bool {
        matches!(self.token.kind, Kind::Bell)
    }
}

impl Kernel {
    fn new(seed: u64, faults: Faults) -> Self {
        let buffer = || Buffer {
            bytes: vec![memory::POISON; BUFFER_BYTES],
            out: false,
        };
        Self {
            rng: Rng::of(seed, 1),
            queued: VecDeque::new(),
            under_way: Vec::new(),
            posted: VecDeque::new(),
            overflowed: VecDeque::new(),
            installed: Vec::new(),
            retired: Vec::new(),
            ended: HashMap::new(),
            buffers: (0..faults.buffers).map(|_| buffer()).collect(),
            faults,
            outside: VecDeque::new(),
            watcher: None,
            mute: false,
            broken: false,
            settled: false,
            looks: 0,
            patience: 100_000,
            until: clock::now() + Duration::from_secs(300),
            entered: clock::now(),
            tally: Tally::default(),
            failure: None,
        }
    }

    // ---- for tests --------------------------------------------------------------------------

    fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.queued.iter().chain(&self.under_way)
    }

    /// Describes the driver's resources and the operations under way, for failure messages.
    pub(super) fn dump(&self) -> String {
        let tokens: Vec<_> = self.pending().map(|pending| pending.token).collect();
        let (posted, sockets) = (self.posted.len(), self.installed.len());
        let out = self.buffers_out();
        format!("{sockets} sockets, {posted} posted, {out} buffers out, under way: {tokens:?}")
    }

    /// Every operation pushed on a socket has its last completion posted.
    pub(super) fn is_idle(&self) -> bool {
        self.pending().all(Pending::is_bell)
    }

    pub(super) fn sockets(&self) -> usize {
        self.installed.len()
    }

    /// Buffers named in completions and not given back by the driver.
    pub(super) fn buffers_out(&self) -> usize {
        let unseen = self.posted.iter().chain(&self.overflowed);
        let unseen = unseen.filter(|completion| completion.buffer.is_some());
        let out = self.buffers.iter().filter(|buffer| buffer.out).count();
        out - unseen.count()
    }

    pub(super) fn under_way(&self, kind: Kind) -> usize {
        let same = |pending: &&Pending| pending.token.kind == kind;
        self.pending().filter(same).count()
    }

    /// Completes all operations under way, as a kernel may after its driver has ended.
    pub(super) fn complete_late(&mut self) {
        self.mute = false;
        self.enter(true);
    }

    /// The memory of all operations under way is unchanged.
    pub(super) fn all_intact(&self) -> bool {
        self.pending().all(|pending| {
            // SAFETY: the last completion was not posted, so the memory is still the operation's.
            unsafe { memory::is_intact(&pending.op, &pending.sealed) }
        })
    }

    // ---- operations -------------------------------------------------------------------------

    fn find(&self, file: File) -> Option<usize> {
        let same = |installed: &Installed| installed.file == file;
        self.installed.iter().position(same)
    }

    const fn file(op: &Op) -> Option<File> {
        match op {
            Op::RecvMulti { file } | Op::Recv { file, .. } => Some(*file),
            Op::Send { file, .. } | Op::SendMsg { file, .. } => Some(*file),
            Op::Cancel { .. } | Op::Poll { .. } => None,
        }
    }

    fn on_push(&mut self, token: Token, op: &Op) {
        self.looks = 0;
        match op {
            Op::RecvMulti { .. } => self.tally.count(Happened::Multi),
            Op::Recv { .. } => self.tally.count(Happened::Single),
            Op::Cancel { .. } => self.tally.count(Happened::Cancel),
            Op::Send { .. } | Op::SendMsg { .. } | Op::Poll { .. } => {}
        }
        let Some(file) = Self::file(op) else {
            return;
        };
        // Two receives, or two sends, of one socket at a time transfer bytes in undefined order.
        let tenant = (token.generation, token.slot);
        let side = |kind| matches!(kind, Kind::Recv | Kind::RecvMulti);
        let rival = self.pending().find(|pending| {
            pending.tenant() == tenant
                && pending.token.kind != Kind::Cancel
                && side(pending.token.kind) == side(token.kind)
        });
        if let Some(rival) = rival {
            let failure = format!("{token:?} while {:?} is under way", rival.token);
            self.fail(failure);
        }
        match self.find(file) {
            Some(index) => self.installed[index].tenant = Some(tenant),
            None => self.fail(format!("{token:?} names {file:?}, which is closed")),
        }
    }

    /// A plain receive beside a receive under way would reorder bytes.
    fn on_recv_now(&mut self, fd: RawFd) {
        let Some(installed) = self.installed.iter().find(|installed| installed.fd == fd) else {
            return self.fail(format!(
                "descriptor {fd} is received from, but was not installed"
            ));
        };
        let tenant = installed.tenant;
        let rival = self.pending().find(|pending| {
            Some(pending.tenant()) == tenant
                && matches!(pending.token.kind, Kind::Recv | Kind::RecvMulti)
        });
        if let Some(rival) = rival {
            let failure = format!(
                "received round the ring while {:?} is under way",
                rival.token
            );
            self.fail(failure);
        }
    }

    fn remove(&mut self, file: File) {
        let Some(index) = self.find(file) else {
            return self.fail(format!("{file:?} was removed twice"));
        };
        let tenant = self.installed.swap_remove(index).tenant;
        if let Some(tenant) = tenant {
            let left = self.pending().find(|pending| pending.tenant() == tenant);
            if let Some(left) = left {
                let failure = format!("{:?} outlives its socket", left.token);
                self.fail(failure);
            }
            let ended = self.ended.remove(&tenant);
            self.retired.extend(ended.unwrap_or_default());
        }
        if self.installed.is_empty()
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
    }

    /// Submits, and lets some operations make progress; with `force`, all that can.
    fn enter(&mut self, force: bool) {
        while self.posted.len() < self.faults.completions
            && let Some(completion) = self.overflowed.pop_front()
        {
            self.posted.push_back(completion);
        }
        // As the kernel does: overflowed completions first.
        if self.overflowed.is_empty() {
            self.submit();
        }
        for _ in 0..self.rng.below(2 * self.under_way.len() + 1) {
            // The list is shorter by now: completed operations were removed.
            if !self.under_way.is_empty() {
                let index = self.rng.below(self.under_way.len());
                self.step(index, false);
            }
        }
        if force {
            for index in (0..self.under_way.len()).rev() {
                // A cancel may have removed another operation too.
                if index < self.under_way.len() {
                    self.step(index, true);
                }
            }
        }
        let stale = self.faults.stale;
        if !self.retired.is_empty() && self.rng.one_in(stale) {
            self.repeat();
        }
    }

    fn submit(&mut self) {
        while let Some(mut pending) = self.queued.pop_front() {
            let index = Self::file(&pending.op).map(|file| self.find(file));
            pending.socket = match (index, &pending.op) {
                (Some(Some(index)), _) => Some(Rc::clone(&self.installed[index].socket)),
                (None, Op::Poll { fd }) => Some(Rc::new(memory::hold(*fd))),
                (None, _) => None,
                (Some(None), _) => {
                    self.fail(format!("{:?} names no file", pending.token));
                    continue;
                }
            };
            self.under_way.push(pending);
        }
    }

    /// Lets an operation make progress, if it can and chance does not delay it.
    fn step(&mut self, index: usize, force: bool) {
        let faults = self.faults;
        let pending = &self.under_way[index];
        if (self.mute && !pending.is_bell()) || (!force && self.rng.one_in(faults.hold)) {
            return;
        }
        if pending.cancelled && (force || self.rng.one_in(2)) {
            return self.end_cancelled(index);
        }
        let moves = !matches!(pending.token.kind, Kind::Cancel | Kind::Bell) && pending.sent == 0;
        if moves && !force && self.rng.one_in(faults.interrupt) {
            self.tally.count(Happened::Interrupted);
            let error = self.rng.pick(&[libc::EINTR, libc::EAGAIN]);
            return self.end(index, -error, None);
        }
        if moves && self.rng.one_in(faults.reset) {
            self.tally.count(Happened::Reset);
            memory::shut(self.under_way[index].fd());
            return self.end(index, -libc::ECONNRESET, None);
        }
        match self.under_way[index].op {
            Op::RecvMulti { .. } => self.receive_multi(index),
            Op::Recv { start, len, .. } => self.receive(index, start, len),
            Op::Send { .. } | Op::SendMsg { .. } => self.send(index),
            Op::Poll { .. } => {
                if memory::take_bell(self.under_way[index].fd()) {
                    self.tally.count(Happened::Bell);
                    self.go_on(index, 1, None);
                }
            }
            Op::Cancel { target } => self.cancel(index, target),
        }
    }

    fn post(&mut self, completion: Completion) {
        self.looks = 0;
        if self.posted.len() < self.faults.completions && self.overflowed.is_empty() {
            self.posted.push_back(completion);
        } else {
            self.tally.count(Happened::Overflowed);
            self.overflowed.push_back(completion);
        }
    }

    /// Posts the last completion of an operation.
    fn end(&mut self, index: usize, result: i32, buffer: Option<u16>) {
        let Pending { token, .. } = self.under_way.swap_remove(index);
        if token.kind != Kind::Bell {
            let tenant = (token.generation, token.slot);
            self.ended.entry(tenant).or_default().push(token);
        }
        if self.sabotage(Sabotage::Lose) {
            return;
        }
        self.post(Completion {
            token: Some(token),
            result,
            more: false,
            buffer,
        });
    }

    fn end_cancelled(&mut self, index: usize) {
        let receives = self.under_way[index].token.kind == Kind::RecvMulti;
        let buffer = if receives { self.waste() } else { None };
        self.end_cut_off(index, -libc::ECANCELED, buffer);
    }

    /// The end of an operation by an error, unless it has transferred some bytes.
    fn end_cut_off(&mut self, index: usize, error: i32, buffer: Option<u16>) {
        let result = match self.under_way[index].sent {
            0 => error,
            sent => sent as i32,
        };
        self.end(index, result, buffer);
    }

    /// Posts a completion of a multishot operation, which may end it.
    fn go_on(&mut self, index: usize, result: i32, buffer: Option<u16>) {
        let disarm = self.faults.disarm;
        if self.rng.one_in(disarm) {
            self.tally.count(Happened::Disarmed);
            return self.end(index, result, buffer);
        }
        self.post(Completion {
            token: Some(self.under_way[index].token),
            result,
            more: true,
            buffer,
        });
    }

    /// True once, at a random call.
    fn sabotage(&mut self, which: Sabotage) -> bool {
        let now = self.faults.sabotage == which && self.rng.one_in(16);
        if now {
            self.faults.sabotage = Sabotage::None;
        }
        now
    }

    fn take_buffer(&mut self) -> Option<u16> {
        let index = self.buffers.iter().position(|buffer| !buffer.out)?;
        self.buffers[index].out = true;
        Some(index as u16)
    }

    /// Takes a buffer for a receive without data.
    fn waste(&mut self) -> Option<u16> {
        let waste = self.faults.waste;
        let buffer = if self.rng.one_in(waste) {
            self.take_buffer()
        } else {
            None
        };
        if buffer.is_some() {
            self.tally.count(Happened::Wasted);
        }
        buffer
    }

    fn receive_multi(&mut self, index: usize) {
        let fd = self.under_way[index].fd();
        // As the kernel does when it begins: also where nothing has arrived.
        let Some(buffer) = self.take_buffer() else {
            self.tally.count(Happened::NoBuffers);
            return self.end(index, -libc::ENOBUFS, None);
        };
        if !memory::is_readable(fd) {
            self.buffers[usize::from(buffer)].out = false;
            return;
        }
        let room = self.rng.range(1, self.faults.receive.min(BUFFER_BYTES));
        let bytes = &mut self.buffers[usize::from(buffer)].bytes;
        let result = memory::receive(fd, &mut bytes[..room]);
        if result > 0 {
            if self.sabotage(Sabotage::Flip) {
                self.buffers[usize::from(buffer)].bytes[0] ^= 1;
            }
            return self.go_on(index, result, Some(buffer));
        }
        self.buffers[usize::from(buffer)].out = false;
        let buffer = self.waste();
        self.end(index, result, buffer);
    }

    fn receive(&mut self, index: usize, start: *mut u8, len: u32) {
        let fd = self.under_way[index].fd();
        if !memory::is_readable(fd) || !self.check(index) {
            return;
        }
        let room = self.rng.range(1, self.faults.receive.min(len as usize));
        // SAFETY: the last completion is not posted yet, so the memory is still the operation's.
        let memory = unsafe { memory::memory(start, len) };
        let result = memory::receive(fd, &mut memory[..room]);
        self.end(index, result, None);
    }

    /// Checks that the memory of an operation is unchanged.
    fn check(&mut self, index: usize) -> bool {
        let Pending {
            token, op, sealed, ..
        } = &self.under_way[index];
        // SAFETY: the last completion is not posted yet, so the memory is still the operation's.
        let intact = unsafe { memory::is_intact(op, sealed) };
        if !intact {
            let failure = format!("the memory of {token:?} was touched while it was under way");
            self.fail(failure);
        }
        intact
    }

    fn send(&mut self, index: usize) {
        if !self.check(index) {
            return;
        }
        let faults = self.faults;
        let pending = &self.under_way[index];
        let rest = &pending.sealed[pending.sent..];
        let whole = rest.len();
        let short = self.rng.one_in(faults.short);
        let len = if short {
            self.rng.range(1, whole.min(faults.send))
        } else {
            whole
        };
        let result = memory::send(pending.fd(), &rest[..len]);
        let some = result > 0 && (result as usize) < whole;
        if some && !short {
            // It waits for room, also for the rest.
            self.tally.count(Happened::Waited);
            self.under_way[index].sent += result as usize;
        } else if result > 0 {
            if some {
                self.tally.count(Happened::Short);
            }
            let all = self.under_way[index].sent as i32 + result;
            self.end(index, all, None);
        } else if result != -libc::EAGAIN {
            self.end_cut_off(index, result, None);
        }
    }

    fn cancel(&mut self, index: usize, target: Token) {
        let token = self.under_way[index].token;
        let find = |kernel: &Self, token: Token| {
            let mut all = kernel.under_way.iter();
            all.position(|pending| pending.token == token)
        };
        let Some(victim) = find(self, target) else {
            return self.end(index, -libc::ENOENT, None);
        };
        let race = self.faults.race.unwrap_or_else(|| {
            const ALL: [Race; 4] = [Race::Before, Race::After, Race::Already, Race::Data];
            self.rng.pick(&ALL)
        });
        let sends = self.under_way[victim].token.kind == Kind::Send;
        match race {
            Race::Data if sends => self.send(victim),
            Race::Data => self.receive_multi(victim),
            Race::Before => self.end_cancelled(victim),
            Race::After | Race::Already => self.under_way[victim].cancelled = true,
        }
        let result = match race {
            Race::Already => -libc::EALREADY,
            Race::Data if find(self, target).is_none() => -libc::ENOENT,
            Race::Data => {
                let victim = find(self, target).unwrap_or_default();
                self.end_cut_off(victim, -libc::ECANCELED, None);
                0
            }
            Race::Before | Race::After => 0,
        };
        if let Some(index) = find(self, token) {
            self.end(index, result, None);
        }
    }

    /// Posts a completion of an operation that ended with its socket, or of an unknown operation.
    fn repeat(&mut self) {
        let looks = self.looks;
        self.tally.count(Happened::Stale);
        let token = self.retired[self.rng.below(self.retired.len())];
        let token = (!self.rng.one_in(8)).then_some(token);
        let buffer = self.waste();
        let completion = Completion {
            token,
            result: self.rng.pick(&[-libc::ECANCELED, -libc::EPIPE, 0, 1, 9000]),
            more: self.rng.one_in(2),
            buffer,
        };
        self.post(completion);
        self.looks = looks;
    }
}
