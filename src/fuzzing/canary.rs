//! A fault that a harness must find.

use super::codec::each_frame;
use crate::wire::native::frame::Frame;

/// Panics at a GOAWAY whose text begins like this: four bytes that must be right at once, in a frame that is right in
/// all its other parts. Chance does not bring it about; a search that follows comparisons does, in seconds.
const FAULT: &str = "mux!";

/// The fault that must be found.
///
/// # Panics
/// When it is.
pub fn canary(input: &[u8]) {
    each_frame(input, |frame, _| {
        if let Frame::GoAway { debug, .. } = frame {
            assert!(!debug.starts_with(FAULT), "the fault that was put in");
        }
    });
}
