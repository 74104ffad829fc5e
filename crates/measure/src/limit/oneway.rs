//! Bytes in one direction over a plain socket, counted where they arrive.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use super::frames::{FRAME_LEN, header};
use super::plain::Plain;
use crate::message::{Numbered, Order, Slab};
use crate::window::Window;
use crate::workload::{BULK_LEN, MESSAGE_LEN};

/// Packs numbered messages into writes of about `write` bytes. Returns how many.
pub(super) fn send_messages(mut socket: &Plain, write: usize, window: &Window) -> io::Result<u64> {
    let mut message = Numbered::new();
    let mut buffer = vec![0; write / FRAME_LEN * FRAME_LEN];
    while !window.is_done() {
        for frame in buffer.chunks_exact_mut(FRAME_LEN) {
            let (head, body) = frame.split_at_mut(FRAME_LEN - MESSAGE_LEN);
            head.copy_from_slice(&header(1));
            body.copy_from_slice(message.advance());
        }
        socket.write_all(&buffer)?;
    }
    wait_for_the_end(socket)?;
    Ok(message.number())
}

/// Reads up to `read` bytes at a time, and splits them into messages again. Returns how many messages.
pub(super) fn receive_messages(
    mut socket: &Plain,
    read: usize,
    window: &Window,
) -> io::Result<u64> {
    let mut order = Order::small();
    let mut buffer = vec![0; read + FRAME_LEN];
    let mut filled = 0;
    loop {
        let n = socket.read(&mut buffer[filled..])?;
        if n == 0 {
            return if filled == 0 {
                Ok(order.received())
            } else {
                Err(cut())
            };
        }
        filled += n;
        let whole = filled / FRAME_LEN * FRAME_LEN;
        for frame in buffer[..whole].chunks_exact(FRAME_LEN) {
            let (head, body) = frame.split_at(FRAME_LEN - MESSAGE_LEN);
            if head != header(1) {
                return Err(io::Error::other("a header came out changed"));
            }
            order.check([body]).map_err(io::Error::other)?;
        }
        window.count((whole / FRAME_LEN) as u64);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// Sends one buffer again and again. Returns how many bulk messages that makes.
pub(super) fn send_bulk(mut socket: &Plain, write: usize, window: &Window) -> io::Result<u64> {
    let message = Slab::new().message(0);
    let buffer = message.repeat(write.div_ceil(BULK_LEN));
    let mut bytes = 0;
    // A message that was begun is completed, for any size of write.
    while !window.is_done() || bytes % BULK_LEN as u64 != 0 {
        socket.write_all(&buffer[..write])?;
        bytes += write as u64;
    }
    wait_for_the_end(socket)?;
    Ok(bytes / BULK_LEN as u64)
}

/// Receives bulk messages and calls `count` for those completed by each read. Returns how many.
pub(super) fn receive_bulk(
    mut socket: &Plain,
    read: usize,
    count: impl Fn(u64),
) -> io::Result<u64> {
    let mut buffer = vec![0; read];
    let (mut bytes, mut messages) = (0, 0);
    loop {
        let n = socket.read(&mut buffer)?;
        if n == 0 {
            return if bytes % BULK_LEN == 0 {
                Ok(messages)
            } else {
                Err(cut())
            };
        }
        bytes += n;
        let completed = (bytes / BULK_LEN) as u64 - messages;
        messages += completed;
        count(completed);
    }
}

/// Ends the sending direction and waits until the receiver has taken everything.
fn wait_for_the_end(mut socket: &Plain) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    match socket.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("the receiver sent something")),
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the last message was cut")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use crate::host::Wait;

    use super::*;

    /// A socket from which these bytes come, and then the end.
    fn socket_with(bytes: &[u8]) -> Plain {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Few enough bytes for the socket's buffer, so that no reader is needed meanwhile.
        sender.write_all(bytes).unwrap();
        Plain::new(listener.accept().unwrap().0, Wait::Park).unwrap()
    }

    fn frames(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let frame = |number: u64| {
            let mut frame = header(1).to_vec();
            frame.extend_from_slice(&number.to_le_bytes());
            frame.resize(FRAME_LEN, 0);
            frame
        };
        numbers.into_iter().flat_map(frame).collect()
    }

    fn receive(bytes: &[u8]) -> Result<u64, String> {
        // A buffer length that is no multiple of a frame, so that reads cut frames.
        receive_messages(&socket_with(bytes), 1000, &Window::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn frames_cut_by_reads_are_put_together() {
        assert_eq!(receive(&frames(1..=100)), Ok(100));
    }

    #[test]
    fn a_missing_a_changed_and_a_cut_message_are_noticed() {
        assert_eq!(
            receive(&frames([1, 2, 4])),
            Err("message 3 arrived with number 4 instead of 3".to_owned())
        );
        let mut changed = frames(1..=3);
        changed[FRAME_LEN] ^= 1;
        assert_eq!(
            receive(&changed),
            Err("a header came out changed".to_owned())
        );
        let whole = frames(1..=3);
        assert_eq!(
            receive(&whole[..whole.len() - 1]),
            Err("the last message was cut".to_owned())
        );
    }

    #[test]
    fn bulk_counts_whole_messages_only() {
        let counted = std::cell::Cell::new(0);
        let count = |n| counted.set(counted.get() + n);
        let bytes = vec![0; 2 * BULK_LEN];
        assert_eq!(
            receive_bulk(&socket_with(&bytes), 10_000, count).unwrap(),
            2
        );
        assert_eq!(counted.get(), 2);
        assert!(receive_bulk(&socket_with(&bytes[1..]), 10_000, count).is_err());
    }
}
