//! Credit of one stream (WindowUpdate), which only some peers know.
//!
//! Bytes of messages count, without headers. The sender may have `window` bytes under way that the receiver has not returned;
//! a message that has begun is completed beyond that. The receiver returns bytes when its application has consumed them, in
//! steps that keep less than half of a window back: with half of it, a message of any length may begin.

/// The books of one stream, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    /// Sent.
    sent: u64,
    /// Returned by the peer, which may return more than that.
    returned_by_peer: u64,
    /// Received.
    received: u64,
    /// Of these, returned to the peer.
    returned: u64,
}

impl Credit {
    pub(super) const fn new() -> Self {
        Self {
            sent: 0,
            returned_by_peer: 0,
            received: 0,
            returned: 0,
        }
    }

    /// Whether a message may begin with a frame of this size.
    pub(super) const fn may_begin(&self, frame: usize, window: u32) -> bool {
        let under_way = self.sent.saturating_sub(self.returned_by_peer);
        under_way <= window as u64 / 2 || under_way + frame as u64 <= window as u64
    }

    pub(super) const fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The peer returned bytes.
    pub(super) const fn returned_by_peer(&mut self, bytes: u64) {
        self.returned_by_peer = self.returned_by_peer.saturating_add(bytes);
    }

    pub(super) const fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// The bytes to return now, at least `step`, if the application still has `held` bytes, more or less: 256 more for
    /// each piece. Once the application has taken everything, all received bytes are returned.
    pub(super) const fn owed(&self, held: u64, step: u64) -> u64 {
        let consumed = self.received.saturating_sub(held);
        let owed = consumed.saturating_sub(self.returned);
        if owed >= step { owed } else { 0 }
    }

    pub(super) const fn return_now(&mut self, bytes: u64) {
        self.returned += bytes;
    }
}
