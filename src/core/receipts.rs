//! Senders that ask whether everything that they have queued was written.

use super::base::Base;
use super::port::{SessionPort, StreamPort};
use super::stream::wake;
use super::streams::Key;

/// Streams whose sender asks.
#[derive(Debug, Default)]
pub(crate) struct Receipts(Vec<Key>);

impl Receipts {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A sender has asked. The answer follows when its queue is empty and the batch that emptied it is written.
    pub(crate) fn ask<S: SessionPort>(&mut self, base: &mut Base<S>, key: Key) {
        let Some(stream) = base.streams.get_mut(key) else {
            return;
        };
        let taken = stream.port.take_receipt();
        if taken && !std::mem::replace(&mut stream.listed_unwritten, true) {
            self.0.push(key);
        }
    }

    /// The batch before was written, and with it all that is not queued any more. What was discarded instead is told
    /// by the end of its direction.
    #[cold]
    pub(crate) fn answer<S: SessionPort>(&mut self, base: &mut Base<S>) {
        let Base { streams, wakes, .. } = base;
        self.0.retain(|key| {
            let Some(stream) = streams.get_mut(*key) else {
                return false;
            };
            if !stream.opening.is_done() || !stream.port.is_drained() {
                return true;
            }
            stream.listed_unwritten = false;
            if !stream.port.is_send_ended() && stream.port.answer_receipt() {
                wakes.notify(*key, stream, wake::SENDER);
            }
            false
        });
    }
}
