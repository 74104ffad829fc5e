//! The rules of sending, checked on the bytes of one side: for tests and fuzzing.

use std::collections::BTreeMap;

use super::CONNECTION_HEADER;
use super::frame::{Front, HEADER_MAX, Header, Kind, SPLIT};

/// One stream so far.
#[derive(Default)]
struct Seen {
    invoked: bool,
    metadata: bool,
    last: u64,
    open: bool,
}

/// Checks the bytes that one side has sent.
///
/// # Panics
/// At a frame that breaks a rule.
pub(crate) fn check_sent(mut bytes: &[u8], dials: bool) {
    let mut streams = BTreeMap::<u64, Seen>::new();
    let mut newest = 0;
    if dials && let Some(rest) = bytes.strip_prefix(&CONNECTION_HEADER) {
        bytes = rest;
    }
    while !bytes.is_empty() {
        let Front::Header(header, len) = Header::read(bytes) else {
            panic!("whole frames");
        };
        let mut space = [0; HEADER_MAX];
        header.put(&mut &mut space[..]);
        assert_eq!(bytes[..len], space[..header.len()], "the least form");
        let length = usize::try_from(header.length).expect("a length");
        assert!(length <= SPLIT, "{header:?}");
        bytes = &bytes[len + length..];
        if dials && !streams.contains_key(&header.stream) {
            assert_eq!(header.stream, newest + 1, "ids in order");
            newest = header.stream;
        }
        streams
            .entry(header.stream)
            .or_default()
            .see(&header, dials);
    }
}

impl Seen {
    fn see(&mut self, header: &Header, dials: bool) {
        let opens = matches!(header.kind, Kind::Invoke | Kind::InvokeMetadata);
        assert!(
            self.invoked || opens || !dials,
            "{header:?} before its Invoke"
        );
        assert!(!opens || (dials && !self.invoked), "{header:?} again");
        match header.kind {
            Kind::Invoke => self.invoked = true,
            Kind::InvokeMetadata => {
                assert!(
                    !std::mem::replace(&mut self.metadata, true),
                    "metadata once"
                );
            }
            Kind::WindowUpdate if header.message == 0 => return,
            Kind::Unknown(_) | Kind::Close => panic!("{header:?}"),
            _ => {}
        }
        let control = matches!(header.kind, Kind::Cancel | Kind::WindowUpdate);
        assert_eq!(header.control, control, "{header:?}");
        assert!(
            header.done || header.kind == Kind::Message,
            "{header:?} in one frame"
        );
        let continues = self.open && header.kind == Kind::Message && header.message == self.last;
        assert!(
            continues || header.message > self.last,
            "{header:?} after {}",
            self.last
        );
        self.last = header.message;
        self.open = !header.done;
    }
}
