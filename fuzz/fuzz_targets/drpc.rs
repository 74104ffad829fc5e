//! One DRPC connection against a peer whose bytes are the input.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmux::fuzzing::drpc(input));
