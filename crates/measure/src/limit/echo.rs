//! Round trips over a plain socket.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use super::broken;
use super::frames::Batch;
use super::plain::Plain;
use crate::failure::Failure;
use crate::pair::Sent;
use crate::sample::Latencies;
use crate::window::Window;

/// Sends back every `len` bytes until the client has finished.
pub(super) fn serve(mut socket: &Plain, len: usize) -> io::Result<()> {
    let mut buffer = vec![0; len];
    loop {
        match socket.read_exact(&mut buffer) {
            Ok(()) => socket.write_all(&buffer)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends a batch, waits until all of it is back, and so on until the window is done.
pub(super) fn round_trips(
    mut socket: &Plain,
    mut batch: Batch,
    window: &Window,
) -> Result<Sent, Failure> {
    let mut latencies = Latencies::new();
    let mut echoed = vec![0; batch.len()];
    let messages = batch.messages() as u64;
    let mut started = Instant::now();
    for number in 1.. {
        if window.is_done() {
            break;
        }
        socket.write_all(batch.number(number)).map_err(broken)?;
        socket.read_exact(&mut echoed).map_err(broken)?;
        batch.check(&echoed, number).map_err(broken)?;
        let now = Instant::now();
        if window.is_measuring() {
            latencies.record_n(now - started, messages);
        }
        window.count(messages);
        started = now;
    }
    socket.shutdown(Shutdown::Write).map_err(broken)?;
    Ok(Sent {
        one_way: 0,
        latencies: Some(latencies),
    })
}
