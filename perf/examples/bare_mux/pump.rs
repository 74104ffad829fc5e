//! Frames, polled sockets, and the loop shared by all multiplexers here.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::task::Poll;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

pub(crate) type Message = [u8; 64];

/// Length and number of the stream.
pub(crate) const HEADER_LEN: usize = 8;
pub(crate) const FRAME_LEN: usize = HEADER_LEN + size_of::<Message>();
/// Bytes of a read and a write at most.
pub(crate) const READ: usize = 64 * 1024;
pub(crate) const WRITE: usize = 256 * 1024;

/// The multiplexer between the tasks and the socket.
pub(crate) trait Engine {
    /// Sends the tasks' messages.
    fn send(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// Delivers the message to the stream's task; false if there is no room, so that it must be offered again.
    fn deliver(&mut self, stream: u32, message: &Message) -> bool;

    /// Called when no more is delivered before the tasks have had their turn.
    fn pause(&mut self) {}
}

pub(crate) fn header(stream: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&(size_of::<Message>() as u32).to_le_bytes());
    header[4..].copy_from_slice(&stream.to_le_bytes());
    header
}

/// Frames for one write.
pub(crate) struct Batch {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; WRITE].into(),
            filled: 0,
        }
    }

    /// The number of further frames that fit.
    pub(crate) const fn room(&self) -> usize {
        (WRITE - self.filled) / FRAME_LEN
    }

    /// Appends as many as there is room for.
    #[inline]
    pub(crate) fn extend<M: AsRef<[u8]>>(
        &mut self,
        stream: u32,
        messages: impl ExactSizeIterator<Item = M>,
    ) {
        let len = messages.len() * FRAME_LEN;
        let frames = &mut self.bytes[self.filled..][..len];
        let header = header(stream);
        for (frame, message) in frames.chunks_exact_mut(FRAME_LEN).zip(messages) {
            let (head, body) = frame.split_at_mut(HEADER_LEN);
            head.copy_from_slice(&header);
            body.copy_from_slice(message.as_ref());
        }
        self.filled += len;
    }

    pub(crate) fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        write_all(socket, &self.bytes[..self.filled])?;
        self.filled = 0;
        Ok(())
    }
}

/// Moves bytes until the peer closes or `done` says so, in turns with the tasks.
pub(crate) async fn pump(
    engine: &mut impl Engine,
    mut socket: &TcpStream,
    done: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    let mut filled = 0;
    while !done() {
        engine.send(socket)?;
        if filled < buffer.len() {
            match socket.read(&mut buffer[filled..]) {
                Ok(0) if filled < FRAME_LEN => return Ok(()),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let mut taken = 0;
        for frame in buffer[..filled].chunks_exact(FRAME_LEN) {
            let (head, body) = frame.split_at(HEADER_LEN);
            let stream = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
            if !engine.deliver(stream, body.try_into().expect("a message")) {
                break;
            }
            taken += FRAME_LEN;
        }
        engine.pause();
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        others_first().await;
    }
    Ok(())
}

/// The tasks that are ready come first.
pub(crate) async fn others_first() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Polled, as all sockets here are.
pub(crate) fn write_all(mut socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn write_all_slices(
    mut socket: &TcpStream,
    mut slices: &mut [IoSlice<'_>],
) -> io::Result<()> {
    while !slices.is_empty() {
        match socket.write_vectored(slices) {
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// At least one byte, or zero if the peer has closed.
pub(crate) fn read_some(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            ended => return ended,
        }
    }
}
