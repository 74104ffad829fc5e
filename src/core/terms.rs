//! The capabilities of a wire, as numbers and flags: all that the core knows of it.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Each side grants credit. Else the receiver stops reading when it is full.
    pub(crate) credit: bool,
    /// A side can send a PING: to detect a lost peer, and to measure round trips.
    pub(crate) ping: bool,
    /// A side can send a GOAWAY: no new streams, and the reason for an end.
    pub(crate) goaway: bool,
    /// Both sides can open streams. Else only the one that dialled.
    pub(crate) both_open: bool,
    /// Payload of a frame that carries a whole call, in bytes, less what is not the call's own; 0: the wire has none.
    pub(crate) max_call: u32,
    /// Limits of the peer before its SETTINGS.
    pub(crate) floors: Floors,
    /// The longest opening block, in bytes.
    pub(crate) max_opening: u32,
    /// The longest block between messages, in bytes; 0: there are none.
    pub(crate) max_block: u32,
    /// The longest details of an error, in bytes.
    pub(crate) max_details: u32,
}

/// Guaranteed by any peer, in bytes except for the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) max_message: u32,
    pub(crate) stream_window: u32,
    pub(crate) session_window: u32,
    pub(crate) streams: u32,
}
