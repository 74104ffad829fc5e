//! Why a handle wants the engine to look at a lane, as bits.

/// A handle asks for the stream to be opened. Whoever takes it takes the engine's side of the lane (`sides`), so it is
/// not for others to raise.
pub(in crate::bridge) const OPEN: u32 = 1 << 0;
/// The `tx` ring has something new.
pub(crate) const SEND: u32 = 1 << 1;
/// A sender waits for room in the `tx` ring.
pub(crate) const ROOM: u32 = 1 << 2;
/// The application has consumed enough for credit to go back.
pub(crate) const CREDIT: u32 = 1 << 3;
/// The receiver wants the pieces of messages as they come, or no more: see `takes_chunks`.
pub(crate) const CHUNKS: u32 = 1 << 4;
/// The receiver wants nothing more.
pub(crate) const STOP: u32 = 1 << 5;
/// The stream is to end now.
pub(crate) const CANCEL: u32 = 1 << 6;
/// The urgency was changed.
pub(crate) const URGENCY: u32 = 1 << 7;
/// The last handle is gone.
pub(crate) const DROPPED: u32 = 1 << 8;
/// The sender has raised its limit.
pub(crate) const GREW: u32 = 1 << 9;
/// The sender wants a higher limit, and there was no budget for it.
pub(crate) const MORE: u32 = 1 << 10;
/// The sender asks whether what it has queued was written.
pub(crate) const WRITTEN: u32 = 1 << 11;
/// The deadline was set.
pub(crate) const DEADLINE: u32 = 1 << 12;
