//! Metadata of a call: bytes with a name, kept as they are on the wire.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::NotCarried;

/// Metadata of a request, or of an answer: values of any bytes under keys of lower-case ASCII.
///
/// It is kept encoded and read by going over it, which is the fastest for the few entries that calls have. A key may come
/// several times. All of it together is at most [`MAX_BYTES`](Self::MAX_BYTES): an entry costs its key, its value and 3
/// bytes.
///
/// # Examples
/// ```
/// use ringmux::rpc::{Metadata, MetadataError};
///
/// let mut metadata = Metadata::new();
/// metadata.insert("tenant", "a")?;
/// metadata.insert("trace", [1, 2, 3])?;
/// assert_eq!(metadata.get("tenant"), Some(&b"a"[..]));
/// assert_eq!(metadata.iter().count(), 2);
///
/// assert!(matches!(metadata.insert("Tenant", "a"), Err(MetadataError::Key)));
/// assert!(matches!(metadata.insert("big", vec![0; 9000]), Err(MetadataError::TooLong { .. })));
/// # Ok::<(), MetadataError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata(Encoded);

/// Shared when it was received, owned when it is being made.
#[derive(Clone)]
enum Encoded {
    Shared(Bytes),
    Own(BytesMut),
}

/// Why metadata does not take an entry, or is not metadata at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// A key is 1 to 255 of `a` to `z`, `0` to `9`, `-`, `_` and `.`.
    #[error("a key of metadata is 1 to 255 lower-case letters, digits, '-', '_' or '.'")]
    Key,
    /// All of it together would be longer than may be sent.
    #[error("metadata of {len} bytes exceeds the limit of {limit}")]
    TooLong {
        /// How long it would be, encoded, in bytes.
        len: usize,
        /// [`Metadata::MAX_BYTES`].
        limit: usize,
    },
    /// Bytes from a peer that are no metadata.
    #[error("the peer sent metadata that is cut off")]
    Malformed,
    /// The wire of the session cannot carry it.
    #[error(transparent)]
    NotCarried(#[from] NotCarried),
}

const EMPTY: &[u8] = &[];
/// Of an entry: the length of its key, and of its value.
const ENTRY_HEAD: usize = 3;

impl Metadata {
    /// Largest encoded size, in bytes: 8 KiB, less the kind byte in front of it.
    pub const MAX_BYTES: usize = 8 * 1024 - 1;

    /// Without an entry; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Encoded::Shared(Bytes::new()))
    }

    /// Adds an entry, also if there is one with this key.
    ///
    /// # Errors
    /// [`MetadataError::Key`] and [`MetadataError::TooLong`]; nothing was added.
    pub fn insert(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        let value = value.as_ref();
        if !is_key(key.as_bytes()) {
            return Err(MetadataError::Key);
        }
        let len = self.encoded_len() + ENTRY_HEAD + key.len() + value.len();
        if len > Self::MAX_BYTES {
            let limit = Self::MAX_BYTES;
            return Err(MetadataError::TooLong { len, limit });
        }
        let own = self.own();
        own.put_u8(key.len() as u8);
        own.put_u16_le(value.len() as u16);
        own.put_slice(key.as_bytes());
        own.put_slice(value);
        Ok(())
    }

    /// The value of the first entry with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The value of the first entry with this key, if it is text.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The entries, in the order in which they were added.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.as_bytes())
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// What it costs of [`MAX_BYTES`](Self::MAX_BYTES).
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Adds all entries of another.
    ///
    /// # Errors
    /// [`MetadataError::TooLong`]; nothing was added.
    pub fn extend(&mut self, other: &Self) -> Result<(), MetadataError> {
        let len = self.encoded_len() + other.encoded_len();
        if len > Self::MAX_BYTES {
            let limit = Self::MAX_BYTES;
            return Err(MetadataError::TooLong { len, limit });
        }
        if !other.is_empty() {
            self.own().put_slice(other.as_bytes());
        }
        Ok(())
    }

    /// As a peer has sent it.
    pub(super) fn decode(encoded: Bytes) -> Result<Self, MetadataError> {
        if encoded.len() > Self::MAX_BYTES {
            let (len, limit) = (encoded.len(), Self::MAX_BYTES);
            return Err(MetadataError::TooLong { len, limit });
        }
        let mut rest = &encoded[..];
        while !rest.is_empty() {
            let (key, _, after) = entry(rest).ok_or(MetadataError::Malformed)?;
            if !is_key(key) {
                return Err(MetadataError::Key);
            }
            rest = after;
        }
        Ok(Self(Encoded::Shared(encoded)))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Encoded::Shared(bytes) => bytes,
            Encoded::Own(bytes) => bytes,
        }
    }

    fn own(&mut self) -> &mut BytesMut {
        if let Encoded::Shared(bytes) = &self.0 {
            self.0 = Encoded::Own(BytesMut::from(&bytes[..]));
        }
        match &mut self.0 {
            Encoded::Own(bytes) => bytes,
            Encoded::Shared(_) => unreachable!("was made an own one above"),
        }
    }
}

fn is_key(key: &[u8]) -> bool {
    let legal = |c: &u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=255).contains(&key.len()) && key.iter().all(legal)
}

/// Key, value, and what is behind the entry in front; `None` if it is cut off.
fn entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[key, low, high], rest) = bytes.split_first_chunk::<ENTRY_HEAD>()?;
    let (key, rest) = rest.split_at_checked(usize::from(key))?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
    Some((key, value, rest))
}

/// The entries of [`Metadata`]: keys and values.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value, rest) = entry(self.0)?;
        self.0 = rest;
        // Keys were checked to be ASCII when they came in.
        Some((std::str::from_utf8(key).unwrap_or_default(), value))
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Default for Encoded {
    fn default() -> Self {
        Self::Shared(Bytes::from_static(EMPTY))
    }
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |encoded: &Self| match encoded {
            Self::Shared(bytes) => bytes.clone(),
            Self::Own(bytes) => Bytes::copy_from_slice(bytes),
        };
        bytes(self) == bytes(other)
    }
}

impl Eq for Encoded {}

impl fmt::Debug for Metadata {
    /// Keys and the lengths of values: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.iter().map(|(key, value)| (key, value.len()));
        f.debug_map().entries(lengths).finish()
    }
}
