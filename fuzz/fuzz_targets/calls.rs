//! Bytes to what calls add to a stream, and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmux::fuzzing::calls(input));
