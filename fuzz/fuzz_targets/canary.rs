//! An injected fault: a harness that does not find it is ineffective.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringmux::fuzzing::canary(input));
