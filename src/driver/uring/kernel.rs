//! The kernel's ring, set up for one thread: SINGLE_ISSUER, DEFER_TASKRUN, TASKRUN_FLAG.
//!
//! Completions run only inside `enter`, on the thread that owns the ring; until then the kernel
//! says in a word of shared memory that it has some, so that looking costs a load and no system
//! call. The ring is restricted to the operations that the driver uses before it is enabled.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use bytes::BytesMut;
use io_uring::register::Restriction;
use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};

use super::buffers::{Buffers, GROUP};
use super::ring::{Completion, Enter, File, Op, Ring, Token};

/// Operations that can be queued before they are submitted.
const SQ_ENTRIES: u32 = 256;
/// Completions that can wait: four times the submissions, plus those of multishot operations. The first size that fits into
/// the limit on locked memory is used; the kernel stores completions beyond it elsewhere (overflow).
const CQ_ENTRIES: [u32; 3] = [4096, 2048, 1024];

/// Bytes that such a ring counts against the limit, with its receive buffers: these are registered at set-up, and if they do
/// not fit, the kernel frees the memory of the failed ring too late for a smaller one.
const fn locked_bytes(completions: u32) -> u64 {
    const PAGE: u64 = 4096;
    const HEADER: u64 = 256;
    let submissions = SQ_ENTRIES as u64 * size_of::<squeue::Entry>() as u64;
    let queues =
        HEADER + completions as u64 * size_of::<cqueue::Entry>() as u64 + SQ_ENTRIES as u64 * 4;
    let buffers = PAGE;
    submissions.next_multiple_of(PAGE) + queues.next_multiple_of(PAGE) + buffers
}
/// Sockets with a fixed place; further ones are looked up for each operation.
const FILES: u32 = 1024;
/// The operations that the driver uses, by name.
pub(super) const OPERATIONS: [(&str, u8); 6] = [
    ("NOP", opcode::Nop::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SEND", opcode::Send::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];
/// Linux's numbers, for the registrations that stay allowed: files, an eventfd, the ring's own
/// descriptor, and buffer rings.
const ALLOWED_REGISTER_OPS: [u8; 10] = [2, 3, 4, 5, 6, 13, 20, 21, 22, 23];

/// See the module.
pub(super) struct KernelRing {
    // Before `ring`, which it borrows from: fields are dropped in this order.
    submitter: Submitter<'static>,
    ring: Shared,
    buffers: Buffers,
    /// Pushed and not yet taken by the kernel.
    queued: u32,
    files: u32,
    own_fd: bool,
}

/// A ring at a fixed address, of which only shared references are made while it lives: the submitter keeps one.
struct Shared(NonNull<IoUring>);

impl Shared {
    fn new(ring: IoUring) -> Self {
        Self(NonNull::from(Box::leak(Box::new(ring))))
    }

    /// A reference of a lifetime that the caller chooses.
    ///
    /// # Safety
    /// Not longer than `self`.
    const unsafe fn get<'a>(&self) -> &'a IoUring {
        // SAFETY: from a box that is freed with `self`; only shared references exist.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`, and freed only here.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A ring that does nothing yet: neither restricted nor enabled.
///
/// # Errors
/// `ENOSYS`, `EPERM`: the kernel or a policy does not allow it; `EINVAL`: the kernel is older than
/// 6.1; `ENOMEM`: the limit on locked memory.
pub(super) fn set_up() -> io::Result<IoUring> {
    let with = |completions| {
        IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(completions)
            .build(SQ_ENTRIES)
    };
    let limit = getrlimit(Resource::Memlock).current;
    let has_room =
        |completions: &u32| limit.is_none_or(|limit| locked_bytes(*completions) <= limit);
    // Try the smallest size even if it exceeds the limit: not every kernel enforces it, nor for every user.
    let [.., least] = CQ_ENTRIES;
    let first = CQ_ENTRIES.into_iter().find(has_room).unwrap_or(least);
    let fewer = CQ_ENTRIES.into_iter().filter(|size| *size < first);
    let ring = fewer.fold(with(first), |ring, completions| {
        ring.or_else(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) => with(completions),
            _ => Err(error),
        })
    })?;
    if ring.params().is_feature_nodrop() {
        Ok(ring)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl KernelRing {
    /// Restricts and enables a ring, which belongs to the calling thread from then on.
    ///
    /// # Errors
    /// As [`set_up`].
    pub(super) fn enable(ring: IoUring) -> io::Result<Self> {
        let ring = Shared::new(ring);
        // SAFETY: the submitter is dropped before the ring, as a later local here and as an earlier field then.
        let mut submitter = unsafe { ring.get() }.submitter();
        restrict(&submitter)?;
        submitter.register_enable_rings()?;
        // The registrations below only save time; the driver works without them.
        let files = submitter.register_files_sparse(FILES).map_or(0, |()| FILES);
        let own_fd = submitter.register_ring_fd().is_ok();
        let buffers = Buffers::register(&submitter)?;
        Ok(Self {
            submitter,
            ring,
            buffers,
            queued: 0,
            files,
            own_fd,
        })
    }

    fn ring(&self) -> &IoUring {
        // SAFETY: not longer than `self`.
        unsafe { self.ring.get() }
    }

    #[inline]
    fn submissions(&mut self) -> SubmissionQueue<'_> {
        // SAFETY: the ring is not shared with another thread, and this is the only view, as it borrows `self`.
        unsafe { self.ring().submission_shared() }
    }

    #[inline]
    fn completed(&mut self) -> CompletionQueue<'_> {
        // SAFETY: as above.
        unsafe { self.ring().completion_shared() }
    }

    /// Completions that can wait.
    pub(super) fn completions(&self) -> u32 {
        self.ring().params().cq_entries()
    }

    /// Sockets that have a place in the ring's table of files.
    pub(super) const fn files(&self) -> u32 {
        self.files
    }

    /// Whether the ring's own descriptor is registered, so that calls need not look it up.
    pub(super) const fn own_fd(&self) -> bool {
        self.own_fd
    }

    /// Queues an operation that does nothing but complete.
    pub(super) fn push_nop(&mut self, token: Token) -> bool {
        let entry = opcode::Nop::new().build().user_data(token.to_bits());
        // SAFETY: it refers to no memory.
        let pushed = unsafe { self.submissions().push(&entry) }.is_ok();
        self.queued += u32::from(pushed);
        pushed
    }

    /// A descriptor that becomes readable when an operation completes, while enabled by `want_completion_fd`.
    ///
    /// The ring's own does not: under DEFER_TASKRUN it is readable when a completion was posted,
    /// which happens in `enter`.
    pub(super) fn completion_fd(&mut self) -> io::Result<OwnedFd> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        self.submitter.register_eventfd(fd.as_raw_fd())?;
        self.want_completion_fd(false);
        Ok(fd)
    }

    /// After enabling, the caller must check once more for earlier completions.
    pub(super) fn want_completion_fd(&mut self, wanted: bool) {
        if wanted {
            self.completed().enable_eventfd();
        } else {
            self.completed().disable_eventfd();
        }
    }

    fn entry(op: Op) -> squeue::Entry {
        match op {
            Op::RecvMulti {
                file: File::Fixed(n),
            } => opcode::RecvMulti::new(Fixed(n), GROUP).build(),
            Op::RecvMulti {
                file: File::Raw(fd),
            } => opcode::RecvMulti::new(Fd(fd), GROUP).build(),
            Op::Recv { file, start, len } => match file {
                File::Fixed(n) => opcode::Recv::new(Fixed(n), start, len).build(),
                File::Raw(fd) => opcode::Recv::new(Fd(fd), start, len).build(),
            },
            Op::Send { file, start, len } => {
                const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                match file {
                    File::Fixed(n) => opcode::Send::new(Fixed(n), start, len).flags(FLAGS).build(),
                    File::Raw(fd) => opcode::Send::new(Fd(fd), start, len).flags(FLAGS).build(),
                }
            }
            Op::SendMsg { file, msg } => {
                const FLAGS: u32 = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
                match file {
                    File::Fixed(n) => opcode::SendMsg::new(Fixed(n), msg).flags(FLAGS).build(),
                    File::Raw(fd) => opcode::SendMsg::new(Fd(fd), msg).flags(FLAGS).build(),
                }
            }
            Op::Poll { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32)
                .multi(true)
                .build(),
            Op::Cancel { target } => opcode::AsyncCancel::new(target.to_bits()).build(),
        }
    }
}

/// Allows the driver's operations only: an attacker who takes over the process gains no further system calls by this ring.
fn restrict(submitter: &Submitter<'_>) -> io::Result<()> {
    let flags = (squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT).bits();
    let mut restrictions: Vec<Restriction> = OPERATIONS
        .into_iter()
        .map(|(_, code)| Restriction::sqe_op(code))
        .chain(ALLOWED_REGISTER_OPS.map(Restriction::register_op))
        .chain([Restriction::sqe_flags_allowed(flags)])
        .collect();
    submitter.register_restrictions(&mut restrictions)
}

impl Ring for KernelRing {
    unsafe fn push(&mut self, token: Token, op: Op) -> bool {
        let entry = Self::entry(op).user_data(token.to_bits());
        // SAFETY: the caller keeps the operation's memory, see the trait.
        if unsafe { self.submissions().push(&entry) }.is_err() {
            // The queue is full: submitting makes room.
            if self.enter(Enter::Now).is_err() {
                return false;
            }
            // SAFETY: as above.
            if unsafe { self.submissions().push(&entry) }.is_err() {
                return false;
            }
        }
        self.queued += 1;
        true
    }

    #[inline]
    fn enter(&mut self, how: Enter) -> io::Result<()> {
        let entered = match how {
            Enter::Now => {
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: as many entries were pushed, and no argument is passed.
                unsafe {
                    self.submitter
                        .enter::<libc::sigset_t>(self.queued, 0, flags, None)
                }
            }
            Enter::Wait => self.submitter.submit_and_wait(1),
            Enter::WaitFor(time) => {
                let time = Timespec::from(time);
                let args = SubmitArgs::new().timespec(&time);
                self.submitter.submit_with_args(1, &args)
            }
        };
        // A system call that fails or is cut short may have submitted all the same.
        let queued = self.submissions().len();
        self.queued = queued as u32;
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    #[inline]
    fn wants_enter(&self) -> bool {
        if self.queued > 0 {
            return true;
        }
        // SAFETY: the ring is not shared with another thread, and no other view is alive.
        let queue = unsafe { self.ring().submission_shared() };
        queue.taskrun() || queue.cq_overflow()
    }

    #[inline]
    fn pop(&mut self) -> Option<Completion> {
        let entry = self.completed().next()?;
        Some(Completion {
            token: Token::from_bits(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        })
    }

    fn take_buffer(&mut self, buffer: u16, len: usize, into: &mut BytesMut) {
        into.extend_from_slice(self.buffers.filled(buffer, len));
        self.buffers.give(buffer);
    }

    fn install(&mut self, place: u32, fd: RawFd) -> File {
        if place < self.files && self.submitter.register_files_update(place, &[fd]).is_ok() {
            File::Fixed(place)
        } else {
            File::Raw(fd)
        }
    }

    fn remove(&mut self, file: File) {
        if let File::Fixed(place) = file {
            // It fails only if the place is empty already.
            let _ = self.submitter.register_files_update(place, &[-1]);
        }
    }

    fn settled(&mut self) {
        self.buffers.release();
    }
}

impl std::fmt::Debug for KernelRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelRing")
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ring_locks_is_what_the_kernel_counts() {
        // Measured on Linux 6.18: with 4 KiB less in the limit there is no ring of that size.
        let kib = CQ_ENTRIES.map(|completions| locked_bytes(completions) / 1024);
        assert_eq!(kib, [88, 56, 40]);
    }
}
