//! Unsigned numbers in groups of seven bits, the lowest first.

/// The most bytes of a number.
const VARINT_MAX: usize = 10;

/// What the front of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Varint {
    /// A number, and the bytes that it takes. Bits above the 64th are dropped, and longer forms than needed accepted.
    Whole(u64, usize),
    /// The beginning of one.
    Part,
    /// More than ten bytes.
    TooLong,
}

impl Varint {
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut value = 0;
        for (at, byte) in bytes.iter().take(VARINT_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Self::Whole(value, at + 1);
            }
        }
        if bytes.len() < VARINT_MAX {
            Self::Part
        } else {
            Self::TooLong
        }
    }

    /// The number in front of `bytes`, and the rest.
    pub(crate) fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
        match Self::read(bytes) {
            Self::Whole(value, len) => Some((value, &bytes[len..])),
            Self::Part | Self::TooLong => None,
        }
    }
}

/// The bytes of a number in its shortest form.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a number in its shortest form.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn eleven_bytes_are_too_long_and_ten_are_not() {
        assert_eq!(Varint::read(&[0x80; 9]), Varint::Part);
        assert_eq!(Varint::read(&[0x80; 10]), Varint::TooLong);
        let mut ten = [0xff; 10];
        ten[9] = 0x7f;
        assert_eq!(Varint::read(&ten), Varint::Whole(u64::MAX, 10));
        assert_eq!(Varint::read(&[0x85, 0x80, 0x00]), Varint::Whole(5, 3));
        assert_eq!(Varint::read(&[]), Varint::Part);
    }

    proptest! {
        #[test]
        fn a_number_comes_back_from_its_shortest_form(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(Varint::read(&bytes), Varint::Whole(value, bytes.len()));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Varint::read(&bytes[..cut]), Varint::Part);
            }
        }
    }
}
