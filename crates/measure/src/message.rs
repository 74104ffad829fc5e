//! The messages: numbered, so that a lost, doubled or reordered one is noticed.

use bytes::Bytes;

use super::workload::{BULK_LEN, MESSAGE_LEN};
use crate::failure::Failure;

/// How many bulk messages differ from each other.
const BULK_VARIANTS: u64 = 16;

/// A small message whose first eight bytes are its number.
#[derive(Debug)]
pub struct Numbered {
    bytes: [u8; MESSAGE_LEN],
    number: u64,
}

impl Default for Numbered {
    fn default() -> Self {
        Self::new()
    }
}

impl Numbered {
    /// Before the first message.
    pub const fn new() -> Self {
        Self {
            bytes: [0x5a; MESSAGE_LEN],
            number: 0,
        }
    }

    /// The next message.
    #[inline]
    pub fn advance(&mut self) -> &[u8; MESSAGE_LEN] {
        self.number += 1;
        self.bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        &self.bytes
    }

    /// The number of the latest message; 0 before the first.
    pub const fn number(&self) -> u64 {
        self.number
    }
}

/// Checks that messages arrive whole and in order.
#[derive(Debug)]
pub struct Order {
    len: usize,
    /// Numbers are compared modulo this, 0 for as they are.
    modulus: u64,
    received: u64,
}

impl Order {
    /// Expects messages of [`MESSAGE_LEN`] bytes.
    pub const fn small() -> Self {
        Self {
            len: MESSAGE_LEN,
            modulus: 0,
            received: 0,
        }
    }

    /// Expects messages of [`BULK_LEN`] bytes.
    pub const fn bulk() -> Self {
        Self {
            len: BULK_LEN,
            modulus: BULK_VARIANTS,
            received: 0,
        }
    }

    /// Takes the next message, in one piece or in several.
    #[inline]
    pub fn check<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Failure> {
        self.received += 1;
        let mut head = [0; size_of::<u64>()];
        let mut len = 0;
        for piece in pieces {
            let missing = &mut head[len.min(size_of::<u64>())..];
            let n = missing.len().min(piece.len());
            missing[..n].copy_from_slice(&piece[..n]);
            len += piece.len();
        }
        if len != self.len {
            return Err(wrong_len(self.received, len, self.len));
        }
        let expected = if self.modulus == 0 {
            self.received
        } else {
            self.received % self.modulus
        };
        let number = u64::from_le_bytes(head);
        if number != expected {
            return Err(wrong_number(self.received, number, expected));
        }
        Ok(())
    }

    /// Messages taken so far.
    pub const fn received(&self) -> u64 {
        self.received
    }
}

#[cold]
fn wrong_len(received: u64, len: usize, expected: usize) -> Failure {
    Failure::new(format!(
        "message {received} arrived with {len} bytes instead of {expected}"
    ))
}

#[cold]
fn wrong_number(received: u64, number: u64, expected: u64) -> Failure {
    Failure::new(format!(
        "message {received} arrived with number {number} instead of {expected}"
    ))
}

/// Bulk messages cut from one buffer: cheap to make, small enough to stay in the cache, and each
/// different from the ones before it.
#[derive(Clone, Debug)]
pub struct Slab {
    bytes: Bytes,
}

impl Default for Slab {
    fn default() -> Self {
        Self::new()
    }
}

impl Slab {
    /// Allocates the memory that all messages are slices of.
    pub fn new() -> Self {
        // Word `k` holds `k`, so the message that begins at word `k` has the number `k`.
        let words = BULK_LEN as u64 / 8 + BULK_VARIANTS;
        Self {
            bytes: (0..words).flat_map(u64::to_le_bytes).collect(),
        }
    }

    /// The message with this number, by reference.
    #[inline]
    pub fn message(&self, number: u64) -> Bytes {
        let start = (number % BULK_VARIANTS) as usize * 8;
        self.bytes.slice(start..start + BULK_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_messages_pass_in_order_only() {
        let (mut source, mut order) = (Numbered::new(), Order::small());
        for _ in 0..3 {
            assert!(order.check([&source.advance()[..]]).is_ok());
        }
        source.advance();
        let error = order.check([&source.advance()[..]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message 4 arrived with number 5 instead of 4"
        );
        assert_eq!(source.number(), 5);
    }

    #[test]
    fn a_message_of_another_length_is_refused() {
        let error = Order::small().check([&[0; 63][..]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message 1 arrived with 63 bytes instead of 64"
        );
    }

    #[test]
    fn bulk_messages_differ_from_their_neighbours() {
        let (slab, mut order) = (Slab::new(), Order::bulk());
        for number in 1..=40 {
            assert!(order.check([&slab.message(number)[..]]).is_ok());
        }
        assert!(order.check([&slab.message(42)[..]]).is_err());
        assert_eq!(order.received(), 41);
    }

    #[test]
    fn a_message_in_pieces_is_checked_as_one() {
        let (slab, mut order) = (Slab::new(), Order::bulk());
        for (number, expected) in [(1, true), (2, true), (2, false)] {
            let message = slab.message(number);
            let pieces = [&message[..3], &message[3..9], &message[9..]];
            assert_eq!(order.check(pieces).is_ok(), expected);
        }
    }
}
