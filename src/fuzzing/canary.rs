//! An injected fault that the harness must find.

use super::codec::each_frame;
use crate::wire::native::frame::Frame;

/// Panics at a GOAWAY whose text begins like this: four bytes that must be right at once, in an otherwise valid frame.
/// Random input does not find it; a search guided by comparisons does, in seconds.
const FAULT: &str = "mux!";

/// The codec target with the injected fault.
///
/// # Panics
/// When the input reaches the fault.
pub fn canary(input: &[u8]) {
    each_frame(input, |frame, _| {
        if let Frame::GoAway { debug, .. } = frame {
            assert!(!debug.starts_with(FAULT), "the fault that was put in");
        }
    });
}
