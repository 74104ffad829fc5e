//! The details of an error: the parts of a status that code and text do not hold.

use super::invocation::split_field;
use super::varint::{Varint, put_varint};

/// The field of `google.rpc.Status` that holds the code, and the one that holds details.
const CODE: u8 = 0x08;
const DETAIL: u8 = 0x1a;

/// The details of a [`Failure`](crate::Failure) over DRPC, see the [module](crate::drpc).
///
/// # Examples
/// ```
/// use ringmux::drpc::StatusDetails;
///
/// let bytes = StatusDetails::encode(Some(1 << 40), [b"\x0a\x01t"]);
/// let details = StatusDetails::decode(&bytes);
/// assert_eq!(details.code(), Some(1 << 40));
/// assert_eq!(details.any().collect::<Vec<_>>(), [b"\x0a\x01t"]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusDetails<'a> {
    code: Option<u64>,
    any: &'a [u8],
}

impl<'a> StatusDetails<'a> {
    /// Reads details; bytes that are none are taken for none.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Self {
        let (code, any) = match bytes.strip_prefix(&[CODE]).and_then(Varint::split) {
            Some((code, rest)) => (Some(code), rest),
            None => (None, bytes),
        };
        let mut rest = any;
        while let Some((_, behind)) = split_field(rest, DETAIL) {
            rest = behind;
        }
        Self {
            code,
            any: &any[..any.len() - rest.len()],
        }
    }

    /// Makes details of a code that does not fit a [`Failure`](crate::Failure), and of any number of `google.protobuf.Any`,
    /// encoded.
    #[must_use]
    pub fn encode<A: AsRef<[u8]>>(code: Option<u64>, any: impl IntoIterator<Item = A>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(code) = code {
            bytes.push(CODE);
            put_varint(&mut bytes, code);
        }
        for any in any {
            bytes.push(DETAIL);
            put_varint(&mut bytes, any.as_ref().len() as u64);
            bytes.extend_from_slice(any.as_ref());
        }
        bytes
    }

    /// The whole code, if it does not fit a [`Failure`](crate::Failure).
    #[must_use]
    pub const fn code(&self) -> Option<u64> {
        self.code
    }

    /// The details, each an encoded `google.protobuf.Any`.
    pub fn any(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.any;
        std::iter::from_fn(move || {
            let (any, behind) = split_field(rest, DETAIL)?;
            rest = behind;
            Some(any)
        })
    }

    /// The fields of all of them.
    pub(crate) const fn fields(&self) -> &'a [u8] {
        self.any
    }
}
