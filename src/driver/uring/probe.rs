//! The trial of a ring before sessions run on it: each step builds on the previous one.
//!
//! ```text
//!   set-up ─► operations ─► enable ─► no-op ─► multishot receive ─► the ring, tried
//! ```
//! The tried ring is the one that is used. A second one would need the memory twice, because the kernel frees the first
//! one's late.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use io_uring::IoUring;
use io_uring::register::Probe;

use super::kernel::{self, KernelRing, OPERATIONS};
use super::link::BellFd;
use super::refusal::{Policy, ProbeStep, Refusal};
use super::ring::{Completion, Enter, File, Kind, Op, Ring, Token};
use crate::driver::direct;

/// Time limit for an operation that has nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(1);
const MESSAGES: [&[u8]; 2] = [b"one", b"another"];

/// Features of an engine's ring beyond the requirements of [`Driver::Uring`](crate::Driver::Uring).
///
/// # Examples
/// ```
/// # use ringmux::{Driver, Engine};
/// let engine = Engine::auto()?;
/// match engine.backend().features() {
///     Some(features) => assert!(features.completions >= 1024),
///     None => assert_eq!(engine.driver(), Driver::Tokio),
/// }
/// # Ok::<(), ringmux::EngineError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// Completions that can wait: fewer where the limit on locked memory is low.
    pub completions: u32,
    /// Places for sockets in the ring's table of registered files; 0 without such a table.
    pub fixed_files: u32,
    /// The ring's own descriptor is registered, so that calls need not look it up.
    pub registered_ring: bool,
}

impl Features {
    /// The operations that the driver uses; the kernel has all of them.
    pub const OPERATIONS: [&'static str; 6] = names(OPERATIONS);
}

const fn names(operations: [(&'static str, u8); 6]) -> [&'static str; 6] {
    let [nop, recv, send, sendmsg, poll, cancel] = operations;
    [nop.0, recv.0, send.0, sendmsg.0, poll.0, cancel.0]
}

/// A ring that has passed every step. It belongs to the calling thread.
///
/// # Errors
/// [`Refusal`]: the step that failed, and why.
pub(super) fn probe() -> Result<(KernelRing, Features), Refusal> {
    let at = |step: ProbeStep| move |error| explain(step, step.system_call(), error);
    let ring = kernel::set_up().map_err(at(ProbeStep::SetUp))?;
    let missing = missing_operation(&ring).map_err(at(ProbeStep::Operations))?;
    if let Some(name) = missing {
        return Err(Refusal::MissingOperation { name });
    }
    let mut ring = KernelRing::enable(ring).map_err(at(ProbeStep::Enable))?;
    let flawed = |step| {
        move |flaw| match flaw {
            Flaw::Io(error) => at(step)(error),
            Flaw::Call(call, error) => explain(step, call, error),
            Flaw::Wrong(what) => Refusal::SelfTest { step, what },
        }
    };
    if let Err(flaw) = no_op(&mut ring) {
        ring.settled();
        return Err(flawed(ProbeStep::Nop)(flaw));
    }
    // On failure the kernel may still use the buffers, which are leaked.
    receive(&mut ring).map_err(flawed(ProbeStep::Receive))?;
    let features = Features {
        completions: ring.completions(),
        fixed_files: ring.files(),
        registered_ring: ring.own_fd(),
    };
    Ok((ring, features))
}

/// Makes the eventfd that wakes a thread parked in a ring.
///
/// # Errors
/// There is no descriptor for it.
pub(super) fn bell() -> Result<BellFd, Refusal> {
    BellFd::new().map_err(|error| explain(ProbeStep::SetUp, "eventfd2", error))
}

fn explain(step: ProbeStep, call: &'static str, error: io::Error) -> Refusal {
    Policy::read().explain(step, call, error)
}

fn missing_operation(ring: &IoUring) -> io::Result<Option<&'static str>> {
    let mut found = Probe::new();
    ring.submitter().register_probe(&mut found)?;
    let missing = OPERATIONS
        .iter()
        .find(|(_, code)| !found.is_supported(*code));
    Ok(missing.map(|(name, _)| *name))
}

/// How an operation can fail a trial.
#[derive(Debug)]
enum Flaw {
    /// An operation of the ring failed.
    Io(io::Error),
    /// A plain system call failed; its name.
    Call(&'static str, io::Error),
    Wrong(&'static str),
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const fn token(kind: Kind) -> Token {
    Token {
        generation: 0,
        slot: 0,
        kind,
    }
}

/// Waits for the next completion. A signal that interrupts the wait is no flaw.
fn next<R: Ring>(ring: &mut R) -> Result<Completion, Flaw> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(completion) = ring.pop() {
            return Ok(completion);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // Check once more after the deadline, which a stopped process may have missed.
        ring.enter(match left {
            Duration::ZERO => Enter::Now,
            left => Enter::WaitFor(left),
        })?;
        if left.is_zero() {
            return ring.pop().ok_or(Flaw::Wrong("nothing has completed"));
        }
    }
}

fn no_op(ring: &mut KernelRing) -> Result<(), Flaw> {
    if !ring.push_nop(token(Kind::Bell)) {
        return Err(Flaw::Wrong("an empty queue has no room"));
    }
    match next(ring)?.result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error).into()),
    }
}

fn send(socket: &UnixStream, message: &[u8]) -> Result<(), Flaw> {
    at_once(direct::send(socket.as_fd(), message)).map_err(|error| Flaw::Call("sendto", error))
}

/// The result of a plain call that must not have to wait.
fn at_once(result: Option<io::Result<usize>>) -> io::Result<()> {
    result
        .unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
        .map(drop)
}

fn receive<R: Ring>(ring: &mut R) -> Result<(), Flaw> {
    let call = |name| move |error| Flaw::Call(name, error);
    let (far, near) = UnixStream::pair().map_err(call("socketpair"))?;
    let file = File::Raw(near.as_raw_fd());
    // SAFETY: the operation points to no memory but the ring's own buffers.
    if !unsafe { ring.push(token(Kind::RecvMulti), Op::RecvMulti { file }) } {
        return Err(Flaw::Wrong("an empty queue has no room"));
    }
    for message in MESSAGES {
        send(&far, message)?;
        let completion = next(ring)?;
        let Some(buffer) = completion.buffer else {
            let errno = -completion.result;
            return Err(if errno > 0 {
                io::Error::from_raw_os_error(errno).into()
            } else {
                Flaw::Wrong("a completion without a buffer")
            });
        };
        let mut received = BytesMut::new();
        let len = usize::try_from(completion.result).unwrap_or(0);
        ring.take_buffer(buffer, len, &mut received);
        if received != message {
            return Err(Flaw::Wrong("other bytes were received than were sent"));
        }
        if !completion.more {
            return Err(Flaw::Wrong("the receive ended after one message"));
        }
    }
    // Sessions use these two calls as well, for small transfers.
    send(&near, b"back")?;
    let received = direct::recv(far.as_fd(), &mut [MaybeUninit::uninit(); 16]);
    at_once(received).map_err(call("recvfrom"))?;
    far.shutdown(Shutdown::Write).map_err(call("shutdown"))?;
    match next(ring)? {
        Completion {
            result: 0,
            more: false,
            ..
        } => Ok(()),
        _ => Err(Flaw::Wrong("the end was not received")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::fd::RawFd;

    use super::*;

    /// A ring with scripted completions: one for each call of `enter`.
    #[derive(Default)]
    struct Script {
        coming: VecDeque<io::Result<Option<Completion>>>,
        ready: VecDeque<Completion>,
        content: VecDeque<&'static [u8]>,
    }

    impl Ring for Script {
        unsafe fn push(&mut self, _: Token, _: Op) -> bool {
            true
        }

        fn enter(&mut self, _: Enter) -> io::Result<()> {
            self.ready
                .extend(self.coming.pop_front().unwrap_or(Ok(None))?);
            Ok(())
        }

        fn wants_enter(&self) -> bool {
            false
        }

        fn pop(&mut self) -> Option<Completion> {
            self.ready.pop_front()
        }

        fn take_buffer(&mut self, _: u16, len: usize, into: &mut BytesMut) {
            let content = self.content.pop_front().unwrap_or_default();
            into.extend_from_slice(&content[..len.min(content.len())]);
        }

        fn install(&mut self, _: u32, fd: RawFd) -> File {
            File::Raw(fd)
        }

        fn remove(&mut self, _: File) {}

        fn settled(&mut self) {}
    }

    const fn completion(result: i32, more: bool, buffer: Option<u16>) -> Completion {
        Completion {
            token: Some(token(Kind::RecvMulti)),
            result,
            more,
            buffer,
        }
    }

    fn received(bytes: &[u8]) -> io::Result<Option<Completion>> {
        Ok(Some(completion(bytes.len() as i32, true, Some(0))))
    }

    const END: io::Result<Option<Completion>> = Ok(Some(completion(0, false, None)));

    fn run(
        coming: impl IntoIterator<Item = io::Result<Option<Completion>>>,
        content: [&'static [u8]; 2],
    ) -> Result<(), Flaw> {
        receive(&mut Script {
            coming: coming.into_iter().collect(),
            content: content.into(),
            ..Script::default()
        })
    }

    fn wrong(result: Result<(), Flaw>) -> &'static str {
        match result {
            Err(Flaw::Wrong(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_receive_that_does_what_it_should_passes_also_when_signals_cut_it_short() {
        let [one, another] = MESSAGES;
        run([received(one), received(another), END], MESSAGES).unwrap();
        let cut_short = [Ok(None), received(one), Ok(None), received(another), END];
        run(cut_short, MESSAGES).unwrap();
    }

    #[test]
    fn each_flaw_of_a_receive_is_told_apart() {
        let [one, another] = MESSAGES;
        let swapped = run(
            [received(one), received(another), END],
            [b"one", b"Another"],
        );
        assert!(wrong(swapped).contains("other bytes"));
        let single_shot = completion(one.len() as i32, false, Some(0));
        assert!(wrong(run([Ok(Some(single_shot))], MESSAGES)).contains("after one message"));
        let no_buffer = completion(0, true, None);
        assert!(wrong(run([Ok(Some(no_buffer))], MESSAGES)).contains("without a buffer"));
        let no_end = [received(one), received(another), received(one)];
        assert!(wrong(run(no_end, MESSAGES)).contains("end was not received"));
    }

    #[test]
    fn an_error_of_the_system_keeps_its_number() {
        let in_completion = run([Ok(Some(completion(-libc::EINVAL, false, None)))], MESSAGES);
        let in_call = run([Err(io::Error::from_raw_os_error(libc::EPERM))], MESSAGES);
        for (result, errno) in [(in_completion, libc::EINVAL), (in_call, libc::EPERM)] {
            match result {
                Err(Flaw::Io(error)) => assert_eq!(error.raw_os_error(), Some(errno)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_ring_that_never_completes_is_given_up() {
        assert_eq!(wrong(run([], MESSAGES)), "nothing has completed");
    }

    #[test]
    fn the_kernels_ring_is_usable_after_its_trial() {
        let (mut ring, features) = probe().expect("io_uring works here");
        assert!(features.completions >= 1024, "{features:?}");
        receive(&mut ring).unwrap();
        no_op(&mut ring).unwrap();
        ring.settled();
    }
}
