//! The same bytes without streams: the baseline.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};

use crate::oneway::Numbers;
use crate::pump::{
    FRAME_LEN, HEADER_LEN, READ, WRITE, header, read_some, write_all, write_all_slices,
};

/// Bytes of a bulk message, of a frame's payload, and of one write.
const BULK_LEN: usize = 64 * 1024;
const BULK_FRAME: usize = 16 * 1024;
const BULK_WRITE: usize = 256 * 1024;

/// This many messages back and forth in one write. Returns how many came back.
pub(crate) fn round_trips(
    messages: usize,
    socket: &TcpStream,
    is_over: impl Fn() -> bool,
) -> io::Result<u64> {
    let batch = vec![7; messages * FRAME_LEN];
    let mut buffer = batch.clone();
    let mut trips = 0;
    while !is_over() {
        write_all(socket, &batch)?;
        read_batch(socket, &mut buffer)?;
        trips += messages as u64;
    }
    Ok(trips)
}

pub(crate) fn echo(messages: usize, socket: &TcpStream) -> io::Result<()> {
    let mut batch = vec![0; messages * FRAME_LEN];
    while read_batch(socket, &mut batch)? {
        write_all(socket, &batch)?;
    }
    Ok(())
}

/// False if the peer has closed instead.
fn read_batch(socket: &TcpStream, batch: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < batch.len() {
        match read_some(socket, &mut batch[filled..])? {
            0 => return Ok(false),
            bytes => filled += bytes,
        }
    }
    Ok(true)
}

/// Returns how many bytes were sent.
pub(crate) fn send_bulk(
    in_frames: bool,
    socket: &TcpStream,
    is_over: impl Fn() -> bool,
) -> io::Result<u64> {
    let message = vec![7; BULK_LEN];
    let header = [0; HEADER_LEN];
    let mut sent = 0;
    while !is_over() {
        let mut slices = Vec::with_capacity(2 * BULK_WRITE / BULK_FRAME);
        for _ in 0..BULK_WRITE / BULK_LEN {
            if !in_frames {
                slices.push(IoSlice::new(&message));
                continue;
            }
            for frame in message.chunks(BULK_FRAME) {
                slices.extend([IoSlice::new(&header), IoSlice::new(frame)]);
            }
        }
        write_all_slices(socket, &mut slices)?;
        sent += BULK_WRITE as u64;
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Returns how many bytes arrived.
pub(crate) fn receive_bulk(socket: &TcpStream) -> io::Result<u64> {
    let mut buffer = vec![0; READ];
    let mut received = 0;
    loop {
        match read_some(socket, &mut buffer)? {
            0 => return Ok(received),
            bytes => received += bytes as u64,
        }
    }
}

/// As the limit of `oneway`: numbered messages side by side. Returns how many.
pub(crate) fn send_messages(socket: &TcpStream, is_over: impl Fn() -> bool) -> io::Result<u64> {
    let mut numbers = Numbers::default();
    let mut batch = vec![0; WRITE / FRAME_LEN * FRAME_LEN];
    while !is_over() {
        for frame in batch.chunks_exact_mut(FRAME_LEN) {
            let (head, body) = frame.split_at_mut(HEADER_LEN);
            head.copy_from_slice(&header(1));
            body.copy_from_slice(&numbers.next());
        }
        write_all(socket, &batch)?;
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(numbers.count())
}

/// Checks each. Returns the number of received messages.
pub(crate) fn receive_messages(socket: &TcpStream) -> io::Result<u64> {
    let mut numbers = Numbers::default();
    let mut buffer = vec![0; READ + FRAME_LEN];
    let mut filled = 0;
    loop {
        match read_some(socket, &mut buffer[filled..])? {
            0 => return Ok(numbers.count()),
            bytes => filled += bytes,
        }
        let whole = filled / FRAME_LEN * FRAME_LEN;
        for frame in buffer[..whole].chunks_exact(FRAME_LEN) {
            let (head, body) = frame.split_at(HEADER_LEN);
            assert_eq!(head, header(1), "a header came out changed");
            numbers.check(body.try_into().expect("a message"));
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}
