//! What a wire can do, as numbers and flags: all that the core knows of it.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Each side says how much it takes. Else the receiver stops reading when it is full.
    pub(crate) credit: bool,
    /// A side can ask for an echo: for a sign of life, and how long a round trip takes.
    pub(crate) ping: bool,
    /// A side can say that it takes no new streams, and why it ends.
    pub(crate) goaway: bool,
    /// What may be assumed before the peer has said more.
    pub(crate) floors: Floors,
    /// The longest opening block, in bytes.
    pub(crate) max_opening: u32,
    /// The longest block between messages, in bytes.
    pub(crate) max_block: u32,
    /// The longest details of an error, in bytes.
    pub(crate) max_details: u32,
}

/// Of any peer, in bytes but for the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floors {
    pub(crate) max_message: u32,
    pub(crate) stream_window: u32,
    pub(crate) session_window: u32,
    pub(crate) streams: u32,
}
