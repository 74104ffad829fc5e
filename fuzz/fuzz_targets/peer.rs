//! One connection against a peer that says whatever the input says.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmux::fuzzing::peer(input));
