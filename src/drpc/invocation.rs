//! The opening block of a stream: the name that is invoked, and metadata.

use super::MAX_OPENING;
use super::varint::{Varint, put_varint, varint_len};

/// What a stream invokes, in its opening block; see the [module](crate::drpc).
///
/// # Examples
/// ```
/// use ringmux::drpc::Invocation;
///
/// let block = Invocation::encode("/bench.Echo/Echo", [("trace-id", "abc123")])?;
/// let invocation = Invocation::decode(&block)?;
/// assert_eq!(invocation.path(), "/bench.Echo/Echo");
/// let entries: Vec<_> = invocation.entries().collect();
/// assert_eq!(entries, [(&b"trace-id"[..], &b"abc123"[..])]);
///
/// // Without metadata the block is the name.
/// assert_eq!(Invocation::encode("/a/b", [("", ""); 0])?, b"/a/b");
/// # Ok::<(), ringmux::drpc::InvocationError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invocation<'a> {
    path: &'a str,
    metadata: &'a [u8],
}

/// Why bytes are not the opening block of a DRPC stream, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvocationError {
    /// The name is not UTF-8.
    #[error("the name that is invoked is not UTF-8")]
    NotUtf8,
    /// The name contains a zero byte.
    #[error("the name that is invoked contains a zero byte")]
    ZeroByte,
    /// The metadata is not a map of strings.
    #[error("the metadata is malformed")]
    Metadata,
    /// Name and metadata together are too long.
    #[error("name and metadata have {len} bytes: at most {limit} are allowed")]
    TooLong {
        /// Their size, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl<'a> Invocation<'a> {
    /// Reads an opening block.
    ///
    /// # Errors
    /// [`InvocationError`] says what is wrong with it.
    pub fn decode(block: &'a [u8]) -> Result<Self, InvocationError> {
        let (path, metadata) = split(block);
        if !is_metadata(metadata) {
            return Err(InvocationError::Metadata);
        }
        Ok(Self {
            path: std::str::from_utf8(path).map_err(|_| InvocationError::NotUtf8)?,
            metadata,
        })
    }

    /// Makes an opening block.
    ///
    /// # Errors
    /// A name with a zero byte, or more than [`MAX_OPENING`] bytes.
    pub fn encode<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        path: &str,
        metadata: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Vec<u8>, InvocationError> {
        if path.contains('\0') {
            return Err(InvocationError::ZeroByte);
        }
        let mut block = path.as_bytes().to_vec();
        for (key, value) in metadata {
            if block.len() == path.len() {
                block.push(0);
            }
            put_entry(&mut block, key.as_ref(), value.as_ref());
        }
        let (len, limit) = (block.len(), MAX_OPENING);
        if len > limit {
            return Err(InvocationError::TooLong { len, limit });
        }
        Ok(block)
    }

    /// The name that is invoked, such as `/service/method`.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The metadata, in the order of the wire. A key may occur several times: then the last value counts.
    #[must_use]
    pub const fn entries(&self) -> Entries<'a> {
        Entries {
            rest: self.metadata,
        }
    }
}

/// The entries of metadata, as keys and values.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value, rest) = split_entry(self.rest)?;
        self.rest = rest;
        Some((key, value))
    }
}

/// The name and the metadata of a block.
pub(crate) fn split(block: &[u8]) -> (&[u8], &[u8]) {
    match block.iter().position(|byte| *byte == 0) {
        Some(at) => (&block[..at], &block[at + 1..]),
        None => (block, &[]),
    }
}

/// Whether these bytes are the body of an InvokeMetadata that every peer reads.
pub(crate) fn is_metadata(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match split_entry(bytes) {
            Some((.., rest)) => bytes = rest,
            None => return false,
        }
    }
    true
}

fn put_entry(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let field = |bytes: &[u8]| 1 + varint_len(bytes.len() as u64) + bytes.len();
    out.push(0x0a);
    put_varint(out, (field(key) + field(value)) as u64);
    for (tag, bytes) in [(0x0a, key), (0x12, value)] {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// Key, value and the bytes behind the first entry.
fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (entry, rest) = split_field(bytes, 0x0a)?;
    let (key, entry) = split_field(entry, 0x0a)?;
    let (value, behind) = split_field(entry, 0x12)?;
    behind.is_empty().then_some((key, value, rest))
}

/// The bytes of a field with this tag, and those behind it.
pub(super) fn split_field(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.strip_prefix(&[tag])?;
    let (len, rest) = Varint::split(bytes)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_metadata_of_the_captured_conversation_is_made_and_read() {
        let body = b"\x0a\x12\x0a\x08trace-id\x12\x06abc123";
        let block = Invocation::encode("/bench.Echo/Echo", [("trace-id", "abc123")]).unwrap();
        assert_eq!(split(&block), (&b"/bench.Echo/Echo"[..], &body[..]));
    }

    #[test]
    fn malformed_metadata_is_refused_at_every_cut_and_with_other_fields() {
        let block = Invocation::encode("/p", [("k", "v")]).unwrap();
        for cut in 4..block.len() {
            let decoded = Invocation::decode(&block[..cut]);
            assert_eq!(decoded, Err(InvocationError::Metadata), "{cut}");
        }
        for body in [
            &b"\x0a\x03\x0a\x01k"[..],
            b"\x0a\x06\x12\x01v\x0a\x01k",
            b"\x12\x00",
        ] {
            assert!(!is_metadata(body), "{body:?}");
        }
        assert_eq!(Invocation::decode(b"\xff"), Err(InvocationError::NotUtf8));
        assert_eq!(
            Invocation::encode("a\0b", [("", ""); 0]),
            Err(InvocationError::ZeroByte)
        );
        let long = "x".repeat(MAX_OPENING + 1);
        assert!(matches!(
            Invocation::encode(&long, [("", ""); 0]),
            Err(InvocationError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn an_invocation_comes_back_from_its_block(
            path in "[^\0]{0,40}",
            metadata: Vec<(Vec<u8>, Vec<u8>)>,
        ) {
            let block = Invocation::encode(&path, metadata_refs(&metadata)).unwrap();
            let invocation = Invocation::decode(&block).unwrap();
            prop_assert_eq!(invocation.path(), path);
            let entries: Vec<_> = invocation.entries().collect();
            prop_assert_eq!(entries, metadata_refs(&metadata));
        }

        #[test]
        fn no_bytes_make_decoding_panic(block: Vec<u8>) {
            let _ = Invocation::decode(&block).map(|it| it.entries().count());
        }
    }

    fn metadata_refs(metadata: &[(Vec<u8>, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
        metadata.iter().map(|(k, v)| (&k[..], &v[..])).collect()
    }
}
