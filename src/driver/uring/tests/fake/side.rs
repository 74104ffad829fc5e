//! The driver's side of the fake ring.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::{FakeRing, Installed, Pending, memory};
use crate::driver::uring::ring::{Completion, Enter, File, Op, Ring, Token};
use crate::driver::uring::tests::faults::Happened;
use crate::driver::{clock, direct};

impl Ring for FakeRing {
    unsafe fn push(&mut self, token: Token, op: Op) -> bool {
        let kernel = &mut *self.kernel();
        if kernel.queued.len() >= kernel.faults.queue {
            kernel.tally.count(Happened::Refused);
            return false;
        }
        kernel.on_push(token, &op);
        // SAFETY: the caller keeps the operation's memory, see the trait.
        let sealed = unsafe { memory::seal(&op) };
        kernel.queued.push_back(Pending {
            token,
            op,
            socket: None,
            sealed,
            sent: 0,
            cancelled: false,
        });
        true
    }

    fn enter(&mut self, how: Enter) -> io::Result<()> {
        let kernel = &mut *self.kernel();
        if kernel.broken {
            return Err(io::ErrorKind::Other.into());
        }
        clock::Stopped::pass(Duration::from_micros(1));
        kernel.entered = clock::now();
        kernel.patience -= 1;
        if kernel.patience == 0 || clock::now() > kernel.until {
            kernel.fail(format!("it goes round in circles: {}", kernel.dump()));
            return Err(io::ErrorKind::TimedOut.into());
        }
        kernel.enter(false);
        while how != Enter::Now && kernel.posted.is_empty() {
            kernel.enter(true);
            if !kernel.posted.is_empty() {
                break;
            }
            match (kernel.outside.pop_front(), how) {
                (Some(waker), _) => waker.wake(),
                (None, Enter::WaitFor(time)) => {
                    clock::Stopped::pass(time);
                    break;
                }
                (None, _) => {
                    kernel.fail(format!("it would wait for ever: {}", kernel.dump()));
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        Ok(())
    }

    fn wants_enter(&self) -> bool {
        let kernel = &mut *self.kernel();
        clock::Stopped::pass(Duration::from_micros(1));
        kernel.looks += 1;
        // Limited when it has no effect: a spinning host would never park.
        let may_run = !kernel.under_way.is_empty() && kernel.looks < 50 && kernel.rng.one_in(2);
        may_run || !kernel.queued.is_empty() || !kernel.overflowed.is_empty()
    }

    fn pop(&mut self) -> Option<Completion> {
        self.kernel().posted.pop_front()
    }

    fn send_now(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<io::Result<usize>> {
        let kernel = &mut *self.kernel();
        if !kernel.rng.one_in(kernel.faults.direct) {
            return None;
        }
        kernel.tally.count(Happened::SentNow);
        let most = 1 + kernel.rng.below(bytes.len());
        direct::send(socket, &bytes[..most])
    }

    fn recv_now(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut [MaybeUninit<u8>],
    ) -> Option<io::Result<usize>> {
        clock::Stopped::pass(Duration::from_micros(1));
        let kernel = &mut *self.kernel();
        kernel.on_recv_now(socket.as_raw_fd());
        if kernel.rng.one_in(kernel.faults.hold) {
            return None;
        }
        let most = kernel.faults.receive.min(memory.len());
        let received = direct::recv(socket, &mut memory[..most]);
        if received.is_some() {
            kernel.tally.count(Happened::ReceivedNow);
        }
        received
    }

    fn take_buffer(&mut self, buffer: u16, len: usize, into: &mut BytesMut) {
        let kernel = &mut *self.kernel();
        match kernel.buffers.get_mut(usize::from(buffer)) {
            Some(buffer) if buffer.out => {
                buffer.out = false;
                into.extend_from_slice(&buffer.bytes[..len]);
                buffer.bytes.fill(memory::POISON);
            }
            _ => kernel.fail(format!("buffer {buffer} was given back, but not taken")),
        }
    }

    fn install(&mut self, place: u32, fd: RawFd) -> File {
        let kernel = &mut *self.kernel();
        let file = if place < kernel.faults.places {
            File::Fixed(place)
        } else {
            File::Raw(fd)
        };
        if kernel.find(file).is_some() {
            kernel.fail(format!("{file:?} was taken"));
        }
        kernel.installed.push(Installed {
            fd,
            file,
            socket: Rc::new(memory::hold(fd)),
            tenant: None,
        });
        file
    }

    fn remove(&mut self, file: File) {
        self.kernel().remove(file);
    }

    fn settled(&mut self) {
        let kernel = &mut *self.kernel();
        if !kernel.is_idle() {
            kernel.fail(format!("settled, but: {}", kernel.dump()));
        }
        kernel.settled = true;
    }
}
