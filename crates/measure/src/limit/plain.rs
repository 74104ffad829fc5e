//! A plain socket that waits as the measured driver does.

use std::hint::spin_loop;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::host::Wait;

/// Blocks, or polls.
#[derive(Debug)]
pub(super) struct Plain(TcpStream);

impl Plain {
    pub(super) fn new(socket: TcpStream, wait: Wait) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(wait == Wait::Spin)?;
        Ok(Self(socket))
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

/// A blocking socket is ready at the first call.
fn poll<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => spin_loop(),
            result => return result,
        }
    }
}

impl Read for &Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        poll(|| (&self.0).read(buffer))
    }
}

impl Write for &Plain {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        poll(|| (&self.0).write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
