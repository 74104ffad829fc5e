//! Messages side by side in one buffer, each behind a header of 8 bytes: its length and its stream.

use std::io;

use crate::workload::MESSAGE_LEN;

const HEADER_LEN: usize = 8;
/// Bytes of a small message on the wire.
pub(super) const FRAME_LEN: usize = HEADER_LEN + MESSAGE_LEN;

/// One round of messages: bare, or one frame for each stream.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    header_len: usize,
}

impl Batch {
    /// A lone message, without a header.
    pub(super) fn bare() -> Self {
        Self {
            bytes: vec![0x5a; MESSAGE_LEN],
            header_len: 0,
        }
    }

    /// A message for each of this many streams.
    pub(super) fn framed(streams: usize) -> Self {
        let mut bytes = Vec::with_capacity(streams * FRAME_LEN);
        for stream in 0..streams {
            bytes.extend_from_slice(&header(stream as u32));
            bytes.extend_from_slice(&[0x5a; MESSAGE_LEN]);
        }
        Self {
            bytes,
            header_len: HEADER_LEN,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn messages(&self) -> usize {
        self.bytes.len() / (self.header_len + MESSAGE_LEN)
    }

    /// Gives every message this number.
    pub(super) fn number(&mut self, number: u64) -> &[u8] {
        for frame in self.bytes.chunks_exact_mut(self.header_len + MESSAGE_LEN) {
            frame[self.header_len..][..8].copy_from_slice(&number.to_le_bytes());
        }
        &self.bytes
    }

    /// Checks that every message came back with this number and its header.
    pub(super) fn check(&self, echoed: &[u8], number: u64) -> io::Result<()> {
        let frames = echoed.chunks_exact(self.header_len + MESSAGE_LEN);
        for (stream, frame) in frames.enumerate() {
            let (head, message) = frame.split_at(self.header_len);
            let whole = head.is_empty() || head == header(stream as u32);
            if !whole || message[..8] != number.to_le_bytes() {
                return Err(io::Error::other(format!("echo {number} came back changed")));
            }
        }
        Ok(())
    }
}

/// The header of a small message.
pub(super) fn header(stream: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&(MESSAGE_LEN as u32).to_le_bytes());
    header[4..].copy_from_slice(&stream.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_a_frame_for_each_stream() {
        let batch = Batch::framed(64);
        assert_eq!((batch.len(), batch.messages()), (64 * 72, 64));
        assert_eq!((Batch::bare().len(), Batch::bare().messages()), (64, 1));
    }

    #[test]
    fn a_changed_echo_is_noticed_in_header_and_number() {
        let mut batch = Batch::framed(3);
        let echoed = batch.number(7).to_vec();
        assert!(batch.check(&echoed, 7).is_ok());
        assert!(batch.check(&echoed, 8).is_err());
        for at in [0, FRAME_LEN + 4, 2 * FRAME_LEN + HEADER_LEN] {
            let mut changed = echoed.clone();
            changed[at] ^= 1;
            assert!(batch.check(&changed, 7).is_err(), "byte {at}");
        }
    }
}
