//! Errors of which not all has arrived, by the core's numbers of their streams. They are rare: senders write an Error as one
//! frame.

use std::collections::BTreeMap;

use super::failure::{self, ERROR_MAX};
use crate::error::Failure;

/// The data of one so far.
#[derive(Debug, Default)]
struct Part {
    data: Vec<u8>,
    /// Some were left out.
    cut: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Errors {
    by_stream: BTreeMap<u32, Part>,
    bytes: usize,
}

impl Errors {
    /// Bytes held.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// More of an Error; what is beyond its limit, or finds no `room`, is cut off.
    pub(super) fn add(&mut self, stream: u32, data: &[u8], room: usize) {
        let part = self.by_stream.entry(stream).or_default();
        let room = room.min(ERROR_MAX.saturating_sub(part.data.len()));
        part.cut |= data.len() > room;
        let data = &data[..data.len().min(room)];
        part.data.extend_from_slice(data);
        self.bytes += data.len();
    }

    /// An Error is not continued.
    pub(super) fn forget(&mut self, stream: u32) {
        let part = self.by_stream.remove(&stream).unwrap_or_default();
        self.bytes -= part.data.len();
    }

    /// An Error is complete.
    pub(super) fn take(&mut self, stream: u32) -> Failure {
        let part = self.by_stream.remove(&stream).unwrap_or_default();
        self.bytes -= part.data.len();
        match part.cut {
            true => failure::decode_cut(&part.data),
            false => failure::decode(&part.data),
        }
    }

    /// Drops those of other streams.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let bytes = &mut self.bytes;
        self.by_stream.retain(|stream, part| {
            let keep = keep(*stream);
            *bytes -= if keep { 0 } else { part.data.len() };
            keep
        });
    }
}
