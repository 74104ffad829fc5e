//! Frames: their headers as values.
//!
//! ```text
//!   control bit │ kind: 6 bits │ done bit     one byte
//!   stream id, message id, length             varints
//!   data                                      `length` bytes
//! ```

use crate::drpc::{Varint, varint_len};

/// The longest header, in bytes.
pub(super) const HEADER_MAX: usize = 1 + 3 * 10;
/// The longest data of a frame that is sent, in bytes.
pub(super) const SPLIT: usize = 64 * 1024;

const CONTROL: u8 = 0x80;
const DONE: u8 = 0x01;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Invoke,
    Message,
    Error,
    Cancel,
    Close,
    CloseSend,
    InvokeMetadata,
    WindowUpdate,
    Unknown(u8),
}

impl Kind {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Invoke,
            2 => Self::Message,
            3 => Self::Error,
            4 => Self::Cancel,
            5 => Self::Close,
            6 => Self::CloseSend,
            7 => Self::InvokeMetadata,
            8 => Self::WindowUpdate,
            other => Self::Unknown(other),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Invoke => 1,
            Self::Message => 2,
            Self::Error => 3,
            Self::Cancel => 4,
            Self::Close => 5,
            Self::CloseSend => 6,
            Self::InvokeMetadata => 7,
            Self::WindowUpdate => 8,
            Self::Unknown(number) => number,
        }
    }

    /// Whether senders set the control bit, by which peers that do not know the kind ignore it.
    const fn is_control(self) -> bool {
        matches!(self, Self::Cancel | Self::WindowUpdate)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) stream: u64,
    pub(super) message: u64,
    /// Bytes of data.
    pub(super) length: u64,
    /// It completes its packet.
    pub(super) done: bool,
    /// A receiver that does not know the kind ignores the packet.
    pub(super) control: bool,
}

/// What the front of received bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// A header, and its size in bytes.
    Header(Header, usize),
    /// The beginning of one, or nothing.
    Part,
    /// A number with more than ten bytes.
    TooLong,
}

impl Header {
    /// A frame of this side that is a packet, or completes one.
    pub(super) const fn new(kind: Kind, stream: u64, message: u64, length: usize) -> Self {
        Self {
            kind,
            stream,
            message,
            length: length as u64,
            done: true,
            control: kind.is_control(),
        }
    }

    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Front {
        let Some((&first, rest)) = bytes.split_first() else {
            return Front::Part;
        };
        let mut numbers = [0; 3];
        let mut at = 0;
        for number in &mut numbers {
            match Varint::read(&rest[at..]) {
                Varint::Whole(value, len) => {
                    *number = value;
                    at += len;
                }
                Varint::Part => return Front::Part,
                Varint::TooLong => return Front::TooLong,
            }
        }
        let [stream, message, length] = numbers;
        let header = Self {
            kind: Kind::of((first & !(CONTROL | DONE)) >> 1),
            stream,
            message,
            length,
            done: first & DONE != 0,
            control: first & CONTROL != 0,
        };
        Front::Header(header, 1 + at)
    }

    /// Its size, in bytes.
    pub(super) const fn len(&self) -> usize {
        1 + varint_len(self.stream) + varint_len(self.message) + varint_len(self.length)
    }

    /// Writes it to the front of `dst`, which has room.
    pub(super) fn put(&self, dst: &mut &mut [u8]) {
        let control = if self.control { CONTROL } else { 0 };
        let done = u8::from(self.done) * DONE;
        put_byte(dst, control | self.kind.number() << 1 | done);
        for mut number in [self.stream, self.message, self.length] {
            while number >= 0x80 {
                put_byte(dst, number as u8 | 0x80);
                number >>= 7;
            }
            put_byte(dst, number as u8);
        }
    }
}

fn put_byte(dst: &mut &mut [u8], byte: u8) {
    if let Some((first, rest)) = std::mem::take(dst).split_first_mut() {
        *first = byte;
        *dst = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(header: &Header) -> Vec<u8> {
        let mut space = [0; HEADER_MAX];
        let mut rest = &mut space[..];
        header.put(&mut rest);
        let left = rest.len();
        space[..HEADER_MAX - left].to_vec()
    }

    #[test]
    fn the_kinds_have_the_control_bytes_of_the_captured_conversations() {
        let kinds = [
            (Kind::Invoke, 0x03),
            (Kind::Message, 0x05),
            (Kind::Error, 0x07),
            (Kind::Cancel, 0x89),
            (Kind::Close, 0x0b),
            (Kind::CloseSend, 0x0d),
            (Kind::InvokeMetadata, 0x0f),
            (Kind::WindowUpdate, 0x91),
        ];
        for (kind, first) in kinds {
            assert_eq!(bytes(&Header::new(kind, 1, 2, 0)), [first, 1, 2, 0]);
        }
    }

    proptest! {
        #[test]
        fn a_header_comes_back_and_every_cut_of_it_is_a_part(
            (first, stream, message, length) in any::<(u8, u64, u64, u64)>(),
            shifts in any::<[u8; 3]>(),
        ) {
            let number = |n: u64, at: usize| n >> (shifts[at] % 64);
            let header = Header {
                kind: Kind::of((first & 0x7e) >> 1),
                stream: number(stream, 0),
                message: number(message, 1),
                length: number(length, 2),
                done: first & 1 != 0,
                control: first & 0x80 != 0,
            };
            let bytes = bytes(&header);
            prop_assert_eq!(bytes.len(), header.len());
            prop_assert_eq!(Header::read(&bytes), Front::Header(header, bytes.len()));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Header::read(&bytes[..cut]), Front::Part);
            }
        }
    }
}
