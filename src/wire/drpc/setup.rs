//! Streams that the peer is about to open: their metadata and name, until the Invoke is complete.

use std::collections::BTreeMap;

use super::frame::{Header, Kind};
use super::line::Cursor;
use crate::drpc::{MAX_OPENING, is_metadata};
use crate::error::codes;

/// One of them.
#[derive(Debug)]
struct Setup {
    cursor: Cursor,
    /// The last complete metadata.
    metadata: Vec<u8>,
    /// The data so far of the packet that is arriving.
    part: Vec<u8>,
    /// The stream will not be opened, and the peer is told this code.
    refused: Option<u32>,
}

impl Setup {
    const fn bytes(&self) -> usize {
        self.metadata.len() + self.part.len()
    }

    fn refuse(&mut self, code: u32) {
        self.refused.get_or_insert(code);
        self.metadata = Vec::new();
        self.part = Vec::new();
    }
}

/// A complete Invoke.
#[derive(Debug)]
pub(super) struct Invoked {
    pub(super) cursor: Cursor,
    /// The opening block, or the code by which the stream is refused.
    pub(super) block: Result<Vec<u8>, u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Setups {
    by_id: BTreeMap<u64, Setup>,
    bytes: usize,
}

impl Setups {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        !self.by_id.is_empty() && self.by_id.contains_key(&id)
    }

    /// Bytes of metadata and names held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A frame of such a stream begins, its first one perhaps.
    pub(super) fn begin(&mut self, header: &Header) {
        let setup = self.by_id.entry(header.stream).or_insert_with(|| Setup {
            cursor: Cursor::new(),
            metadata: Vec::new(),
            part: Vec::new(),
            refused: None,
        });
        let before = setup.bytes();
        match setup.cursor.begin(header) {
            Ok(true) => setup.part.clear(),
            Ok(false) => {}
            Err(_) => setup.refuse(codes::PROTOCOL),
        }
        self.bytes = self.bytes + setup.bytes() - before;
    }

    /// Data of the frame. If they exceed the limit of an opening, or the `room` for all, the stream is refused.
    pub(super) fn add(&mut self, header: &Header, data: &[u8], room: usize) {
        if !matches!(header.kind, Kind::Invoke | Kind::InvokeMetadata) {
            return;
        }
        let Some(setup) = self.by_id.get_mut(&header.stream) else {
            return;
        };
        let before = setup.bytes();
        if setup.part.len() + data.len() > MAX_OPENING || data.len() > room {
            setup.refuse(codes::LIMIT_EXCEEDED);
        } else if setup.refused.is_none() {
            setup.part.extend_from_slice(data);
        }
        self.bytes = self.bytes + setup.bytes() - before;
    }

    /// The packet is complete. Returns the stream to be opened, or refused, if it was an Invoke.
    pub(super) fn end(&mut self, header: &Header) -> Option<Invoked> {
        if header.kind == Kind::Invoke {
            let setup = self.by_id.remove(&header.stream)?;
            self.bytes -= setup.bytes();
            let Setup {
                mut cursor,
                metadata,
                part,
                refused,
            } = setup;
            cursor.end();
            let block = match refused {
                Some(code) => Err(code),
                None => opening(part, &metadata),
            };
            return Some(Invoked { cursor, block });
        }
        if matches!(header.kind, Kind::Cancel | Kind::Close) {
            // Given up before it was invoked: it has not been.
            let setup = self.by_id.remove(&header.stream)?;
            self.bytes -= setup.bytes();
            return None;
        }
        let setup = self.by_id.get_mut(&header.stream)?;
        let before = setup.bytes();
        setup.cursor.end();
        if header.kind == Kind::InvokeMetadata {
            setup.metadata = std::mem::take(&mut setup.part);
            if !is_metadata(&setup.metadata) {
                setup.refuse(codes::PROTOCOL);
            }
        }
        self.bytes = self.bytes + setup.bytes() - before;
        None
    }
}

/// The opening block of a stream.
pub(super) fn opening(mut name: Vec<u8>, metadata: &[u8]) -> Result<Vec<u8>, u32> {
    if name.contains(&0) {
        return Err(codes::PROTOCOL);
    }
    if name.len() + 1 + metadata.len() > MAX_OPENING {
        return Err(codes::LIMIT_EXCEEDED);
    }
    if !metadata.is_empty() {
        name.push(0);
        name.extend_from_slice(metadata);
    }
    Ok(name)
}
