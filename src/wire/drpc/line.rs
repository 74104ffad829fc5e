//! One stream on the wire: the numbers of its packets, in both directions, and its credit.

use super::flow::Credit;
use super::frame::{Header, Kind};

/// The order of packets in one direction of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// The least message id that a frame may have.
    least: u64,
    /// The kind of the packet with that id, if frames of it have arrived and it is not complete.
    open: Option<Kind>,
}

/// A rule of one stream that the peer broke: the stream ends, its neighbours do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault;

impl Cursor {
    pub(super) const fn new() -> Self {
        Self {
            least: 1,
            open: None,
        }
    }

    /// A frame begins. Returns whether a packet was begun before and is not continued: its data is dropped.
    pub(super) fn begin(&mut self, header: &Header) -> Result<bool, Fault> {
        if header.message < self.least || header.message == u64::MAX {
            return Err(Fault);
        }
        let continues = header.message == self.least;
        let dropped = match self.open {
            Some(kind) if continues && kind != header.kind => return Err(Fault),
            Some(_) => !continues,
            None => false,
        };
        self.least = header.message;
        self.open = Some(header.kind);
        Ok(dropped)
    }

    /// The packet is complete.
    pub(super) const fn end(&mut self) {
        self.least += 1;
        self.open = None;
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    /// The id on the wire, of which the core has only a part.
    pub(super) id: u64,
    /// The message id of this side's next packet, or of the message that is being sent.
    next: u64,
    /// Frames of that message were sent, and others are to follow.
    begun: bool,
    pub(super) cursor: Cursor,
    /// This side has opened it, and a call is counted for it.
    pub(super) counted: bool,
    pub(super) credit: Credit,
    /// Credit is to be returned once the message that is being sent is complete.
    pub(super) returns_later: bool,
}

impl Line {
    pub(super) const fn new(id: u64, cursor: Cursor) -> Self {
        Self {
            id,
            next: 1,
            begun: false,
            cursor,
            counted: false,
            credit: Credit::new(),
            returns_later: false,
        }
    }

    /// The message id of the message that is being sent.
    pub(super) const fn number(&self) -> u64 {
        self.next
    }

    /// A frame of a message was sent.
    pub(super) const fn sent(&mut self, end: bool) {
        self.begun = !end;
        self.next += end as u64;
    }

    /// Whether credit that waited for the end of a message can be returned; once.
    pub(super) const fn may_return_now(&mut self) -> bool {
        let may = self.returns_later && !self.begun;
        self.returns_later &= !may;
        may
    }

    /// A message is being sent: packets that the peer does not know must not come between its frames.
    pub(super) const fn is_inside(&self) -> bool {
        self.begun
    }

    /// The message id of a packet of one frame, which may break off a message.
    pub(super) const fn take_number(&mut self) -> u64 {
        let number = self.next + self.begun as u64;
        self.begun = false;
        self.next = number + 1;
        number
    }
}

/// The core's number of a stream.
pub(super) const fn core_id(id: u64) -> u32 {
    match id as u32 {
        0 => u32::MAX,
        low => low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: u64, kind: Kind) -> Header {
        Header::new(kind, 1, message, 0)
    }

    /// The rules of packets, each from a fresh cursor: frames as message, kind and whether it is done.
    #[test]
    fn packets_follow_the_rules_that_peers_enforce() {
        use Kind::{Error, Message};
        type Frames = &'static [(u64, Kind, bool)];
        let cases: [(Frames, Result<bool, Fault>); 9] = [
            (&[(1, Message, true)], Ok(false)),
            (&[(0, Message, true)], Err(Fault)),
            (&[(7, Message, true)], Ok(false)),
            (&[(2, Message, true), (2, Message, true)], Err(Fault)),
            (&[(2, Message, true), (1, Message, true)], Err(Fault)),
            (&[(1, Message, false), (1, Message, true)], Ok(false)),
            (&[(1, Message, false), (1, Error, true)], Err(Fault)),
            (&[(1, Message, false), (2, Error, true)], Ok(true)),
            (&[(u64::MAX, Message, true)], Err(Fault)),
        ];
        for (frames, last) in cases {
            let mut cursor = Cursor::new();
            let mut result = Ok(false);
            for (message, kind, done) in frames {
                result = cursor.begin(&frame(*message, *kind));
                if *done && result.is_ok() {
                    cursor.end();
                }
            }
            assert_eq!(result, last, "{frames:?}");
        }
    }

    #[test]
    fn a_long_connection_has_numbers_for_the_core_too() {
        assert_eq!(core_id(1), 1);
        assert_eq!(core_id(1 << 32), u32::MAX);
        assert_eq!(core_id((1 << 32) + 5), 5);
    }
}
